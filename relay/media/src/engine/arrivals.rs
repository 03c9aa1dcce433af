//! What publishers are told of their path to the relay: when their packets arrived, or what that
//! adds up to.

use super::Engine;
use super::reports::feedback_preamble;
use crate::api::{Egress, PeerKey};
use crate::bwe::ReceiveEstimator;
use crate::limits::{ROUND_TRIP_DEFAULT, RTCP_MAX};
use crate::meter::WIRE_OVERHEAD;
use crate::peer::{Arrivals, Peer};
use crate::timers::Timer;
use sealcast_model::limits::SSRCS_PER_SESSION;
use sealcast_model::{Counter, Time};
use sealcast_rtp::ext::{AbsSendTime, TransportCc};
use sealcast_rtp::rtcp::RtcpWriter;
use sealcast_rtp::{ExtensionKind, NtpTime, RtpHeader};

impl Engine {
    /// Notes that a packet came, whatever becomes of it: it tells about the path.
    #[inline]
    pub(super) fn note_transport(
        &mut self,
        key: u32,
        header: &RtpHeader,
        packet: &[u8],
        received: Time,
    ) {
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(arrivals) = &mut peer.arrivals else {
            return;
        };
        let element = |kind| header.extension(packet, peer.extensions.id(kind)?);
        match &mut **arrivals {
            Arrivals::Transport(receiver) => {
                let number = element(ExtensionKind::TransportCc).and_then(TransportCc::parse);
                let Some(TransportCc(number)) = number else {
                    return;
                };
                receiver.on_packet(received, number);
            }
            Arrivals::Congestion(receiver) => {
                receiver.on_packet(received, header.ssrc, header.sequence_number);
            }
            Arrivals::Estimated(estimator) => {
                let Some(sent) = element(ExtensionKind::AbsSendTime).and_then(AbsSendTime::parse)
                else {
                    return;
                };
                let bytes = packet.len() + WIRE_OVERHEAD;
                estimator.on_packet(received, sent, u16::try_from(bytes).unwrap_or(u16::MAX));
            }
        }
        peer.arrivals_ssrc = header.ssrc;
        let due = arrivals.poll_timeout();
        if due < peer.arrivals_timer {
            peer.arrivals_timer = self.timers.set(due, Timer::Arrivals(key));
        }
    }

    /// Writes the feedback that is due.
    pub(super) fn send_arrivals<E: Egress>(&mut self, now: Time, egress: &mut E) {
        let mut due = std::mem::take(&mut self.arriving);
        for key in due.drain(..) {
            self.send_arrivals_to(now, key, egress);
        }
        self.arriving = due;
    }

    fn send_arrivals_to<E: Egress>(&mut self, now: Time, key: u32, egress: &mut E) {
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
            .filter(|peer| peer.connected)
        else {
            return;
        };
        let Some(mut arrivals) = peer.arrivals.take() else {
            return;
        };
        loop {
            let mut out = [0; RTCP_MAX];
            let mut writer = RtcpWriter::new(&mut out);
            let framed = feedback_preamble(&mut writer, peer);
            let before = writer.len();
            let more = framed.is_ok()
                && match &mut *arrivals {
                    Arrivals::Transport(receiver) => receiver.write_feedback(
                        now,
                        peer.feedback_ssrc,
                        peer.arrivals_ssrc,
                        &mut writer,
                    ),
                    Arrivals::Congestion(receiver) => {
                        let ntp = NtpTime(self.clock.at(now)).middle();
                        receiver.write_feedback(now, ntp, peer.feedback_ssrc, &mut writer)
                    }
                    Arrivals::Estimated(estimator) => {
                        write_remb(now, estimator, peer, &mut writer);
                        false
                    }
                };
            let len = writer.finish();
            if len > before {
                egress.rtcp(PeerKey(key), out.get(..len).unwrap_or_default());
                let counter = match &*arrivals {
                    Arrivals::Transport(_) => Counter::RtcpOutTwcc,
                    Arrivals::Congestion(_) => Counter::RtcpOutCcfb,
                    Arrivals::Estimated(_) => Counter::RtcpOutRemb,
                };
                self.stats.add(counter, 1);
            }
            if !more {
                break;
            }
        }
        // What did not fit, or came meanwhile, has its own time.
        let due = arrivals.poll_timeout();
        peer.arrivals = Some(arrivals);
        if due != Time::NEVER && due < peer.arrivals_timer {
            peer.arrivals_timer = self.timers.set(due, Timer::Arrivals(key));
        }
    }
}

/// Tells a publisher what its path carries, if it is time to.
fn write_remb(
    now: Time,
    estimator: &mut ReceiveEstimator,
    peer: &Peer,
    writer: &mut RtcpWriter<'_>,
) {
    let rtt = peer.uplink_round_trip().unwrap_or(ROUND_TRIP_DEFAULT);
    let Some(bitrate) = estimator.poll(now, rtt) else {
        return;
    };
    let mut ssrcs = [0; SSRCS_PER_SESSION];
    let mut count = 0;
    for (place, ssrc) in ssrcs.iter_mut().zip(peer.media_ssrcs()) {
        *place = ssrc;
        count += 1;
    }
    let ssrcs = ssrcs.get(..count).unwrap_or_default();
    let written = writer.remb(peer.feedback_ssrc, bitrate, ssrcs);
    debug_assert!(written.is_ok(), "a session's SSRCs fit a datagram");
}
