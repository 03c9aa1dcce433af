//! Transport-wide feedback to publishers: when their packets arrived.

use super::Engine;
use super::reports::feedback_preamble;
use crate::api::{Egress, PeerKey};
use crate::limits::RTCP_MAX;
use crate::timers::Timer;
use sealcast_model::{Counter, Time};
use sealcast_rtp::ext::TransportCc;
use sealcast_rtp::rtcp::RtcpWriter;
use sealcast_rtp::{ExtensionKind, RtpHeader};

impl Engine {
    /// Notes the transport-wide number of a packet, whatever becomes of the packet: it tells about
    /// the path.
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
        let id = peer.extensions.id(ExtensionKind::TransportCc);
        let number = id
            .and_then(|id| header.extension(packet, id))
            .and_then(TransportCc::parse);
        let Some(TransportCc(number)) = number else {
            return;
        };
        arrivals.on_packet(received, number);
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
                && arrivals.write_feedback(
                    now,
                    peer.feedback_ssrc,
                    peer.arrivals_ssrc,
                    &mut writer,
                );
            let len = writer.finish();
            if len > before {
                egress.rtcp(PeerKey(key), out.get(..len).unwrap_or_default());
                self.stats.add(Counter::RtcpOutTwcc, 1);
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
