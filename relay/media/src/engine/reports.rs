//! Outgoing RTCP: sender and receiver reports, and key-frame requests.

use super::Engine;
use crate::api::{Egress, PeerKey};
use crate::limits::{RTCP_MAX, SENDER_REPORT_PATIENCE};
use crate::peer::Peer;
use crate::slab::Slab;
use crate::stream::RtpStream;
use crate::subscription::Subscription;
use crate::timers::Timer;
use sealcast_model::{Counter, NtpClock, ShardStats, Time};
use sealcast_rtp::ntp::short_from_micros;
use sealcast_rtp::rtcp::{FirEntry, Pli, ReportBlock, RtcpWriter, SenderInfo};
use sealcast_rtp::{NtpTime, WriteError};

/// Report blocks that one packet holds: the count has five bits (RFC 3550 §6.4.1).
const BLOCKS_MAX: usize = 31;

/// Canonical name of the relay's own reports. They carry no media, so it names nobody.
const RELAY_CNAME: &[u8] = b"relay";

/// One compound RTCP packet under construction, and where it goes when it is full.
pub(super) struct Compound<'a, E: Egress> {
    to: PeerKey,
    egress: &'a mut E,
    buffer: [u8; RTCP_MAX],
    len: usize,
}

impl<'a, E: Egress> Compound<'a, E> {
    pub(super) fn new(to: u32, egress: &'a mut E) -> Self {
        Compound {
            to: PeerKey(to),
            egress,
            buffer: [0; RTCP_MAX],
            len: 0,
        }
    }

    /// Appends packets that belong together, in a new datagram if this one is full.
    pub(super) fn append(&mut self, write: impl Fn(&mut RtcpWriter<'_>) -> Result<(), WriteError>) {
        if self.try_append(&write).is_err() {
            self.send();
            let written = self.try_append(&write);
            debug_assert!(written.is_ok(), "what is appended at once fits a datagram");
        }
    }

    fn try_append(
        &mut self,
        write: impl Fn(&mut RtcpWriter<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut writer = RtcpWriter::new(self.buffer.get_mut(self.len..).unwrap_or_default());
        write(&mut writer)?;
        self.len += writer.finish();
        Ok(())
    }

    pub(super) fn send(&mut self) {
        if let Some(packet) = self
            .buffer
            .get(..self.len)
            .filter(|packet| !packet.is_empty())
        {
            self.egress.rtcp(self.to, packet);
        }
        self.len = 0;
    }
}

impl Engine {
    pub(super) fn send_reports<E: Egress>(&mut self, now: Time, egress: &mut E) {
        let mut reporting = std::mem::take(&mut self.reporting);
        for key in reporting.drain(..) {
            // A peer may be listed twice, or be another one by now.
            if self
                .peer(key)
                .is_none_or(|peer| !peer.connected || peer.report_at > now)
            {
                continue;
            }
            let mut compound = Compound::new(key, egress);
            self.write_sender_reports(now, key, &mut compound);
            self.write_receiver_reports(now, key, &mut compound);
            compound.send();
            // An idle session is not woken for reports on nothing.
            let next = match self.is_idle(key) {
                true => Time::NEVER,
                false => {
                    let next = now + self.report_jitter();
                    self.timers.set(next, Timer::Report(key))
                }
            };
            if let Some(peer) = self.peer_mut(key) {
                peer.report_at = next;
            }
        }
        self.reporting = reporting;
    }

    /// Whether a peer neither publishes anything nor is shown anything. Its reports end then, and
    /// begin again with the first track.
    fn is_idle(&self, key: u32) -> bool {
        let shown = |subscription| {
            let sub = self.subscriptions.get(subscription);
            sub.is_some_and(|sub| sub.track.is_some())
        };
        self.peer(key).is_some_and(|peer| {
            let publishes = peer.sending.iter().any(|media| media.track.is_some());
            !publishes && !peer.subscriptions().any(shown)
        })
    }

    /// Has reports begin again, if they have ended.
    pub(super) fn resume_reports(&mut self, now: Time, key: u32) {
        let ended = |peer: &Peer| peer.connected && peer.report_at == Time::NEVER;
        if !self.peer(key).is_some_and(ended) {
            return;
        }
        let next = now + self.report_jitter();
        let next = self.timers.set(next, Timer::Report(key));
        if let Some(peer) = self.peer_mut(key) {
            peer.report_at = next;
        }
    }

    /// One sender report, with its CNAME, for each slot that has been sent something.
    fn write_sender_reports<E: Egress>(
        &mut self,
        now: Time,
        key: u32,
        compound: &mut Compound<'_, E>,
    ) {
        let Some(peer) = self.peers.get(key as usize).and_then(Option::as_deref) else {
            return;
        };
        let view = Clocks {
            now,
            clock: &self.clock,
            peers: &self.peers,
            streams: &self.streams,
        };
        for subscription in peer.subscriptions() {
            let Some(sub) = self.subscriptions.get_mut(subscription) else {
                continue;
            };
            if !sub.is_active_sender() {
                continue;
            }
            let Some((info, publisher)) = view.sender_info(sub) else {
                continue;
            };
            sub.on_sender_report();
            compound.append(|writer| {
                writer.sender_report(&info, &[])?;
                writer.sdes_cname(info.ssrc, publisher.cname.as_bytes())
            });
            self.stats.add(Counter::RtcpOutSr, 1);
        }
    }

    /// Receiver reports on what the client sends.
    fn write_receiver_reports<E: Egress>(
        &mut self,
        now: Time,
        key: u32,
        compound: &mut Compound<'_, E>,
    ) {
        let Some(peer) = self.peers.get(key as usize).and_then(Option::as_deref) else {
            return;
        };
        let mut blocks = [ReportBlock::default(); BLOCKS_MAX];
        let mut count = 0;
        let mut streams = peer.streams().peekable();
        while let Some(index) = streams.next() {
            if let Some(block) = self
                .streams
                .get_mut(index)
                .and_then(|stream| report_block(stream, now))
            {
                blocks[count] = block;
                count += 1;
            }
            if count > 0 && (count == BLOCKS_MAX || streams.peek().is_none()) {
                compound.append(|writer| {
                    writer.receiver_report(peer.feedback_ssrc, &blocks[..count])?;
                    writer.sdes_cname(peer.feedback_ssrc, RELAY_CNAME)
                });
                self.stats.add(Counter::RtcpOutRr, 1);
                count = 0;
            }
        }
    }

    /// Asks publishers for the key frames that are due, and sets timers for those that are not.
    pub(super) fn send_keyframe_requests<E: Egress>(&mut self, now: Time, egress: &mut E) {
        let mut asking = std::mem::take(&mut self.asking);
        for index in asking.drain(..) {
            let Some(stream) = self.streams.get_mut(index) else {
                continue;
            };
            let Some(peer) = self
                .peers
                .get(stream.peer as usize)
                .and_then(Option::as_deref)
            else {
                continue;
            };
            // Before its first packet there is nothing to name in a request, and the first frame
            // is a key frame.
            let ssrc = stream.ssrc.filter(|_| peer.connected);
            let home = peer.mirror;
            if ssrc.is_none() && home.is_none() {
                continue;
            }
            let due_now = stream.keyframes.poll(now);
            if let Some(ssrc) = ssrc.filter(|_| due_now) {
                let request = KeyframeRequest::of(peer, stream, ssrc);
                if let Some(request) = request {
                    request.send(peer, egress, &self.stats, stream.peer);
                }
            }
            let due = stream.keyframes.due();
            if due != Time::NEVER && due < stream.keyframe_timer {
                stream.keyframe_timer = self.timers.set(due, Timer::Keyframe(index));
            }
            if let Some(home) = home.filter(|_| due_now) {
                self.send_mirrored_keyframe(home, index, egress);
            }
        }
        self.asking = asking;
    }
}

/// Borrows of what sender reports are computed from.
struct Clocks<'a> {
    now: Time,
    clock: &'a NtpClock,
    peers: &'a [Option<Box<Peer>>],
    streams: &'a Slab<RtpStream>,
}

impl<'a> Clocks<'a> {
    /// The sender information of a subscription, and the publisher of what it shows: the relay's
    /// time now, and the outgoing timestamp of what is captured now.
    fn sender_info(&self, sub: &Subscription) -> Option<(SenderInfo, &'a Peer)> {
        let source = sub.rewriter.source()?;
        let stream = self
            .streams
            .get(source.stream)
            .filter(|s| s.life(source.stream) == source)?;
        let publisher = self.peers.get(stream.peer as usize)?.as_deref()?;
        let point = stream.clock_point(publisher.clock).or_else(|| {
            let first = stream.first.as_ref()?;
            (self.now.saturating_since(first.received) >= SENDER_REPORT_PATIENCE)
                .then_some(first.point)
        })?;
        let ntp = self.clock.at(self.now);
        let timestamp = point.timestamp_of(ntp, stream.clock_rate);
        let info = SenderInfo {
            ssrc: sub.ssrc,
            ntp: NtpTime(ntp),
            rtp_timestamp: sub.rewriter.peek_timestamp(timestamp),
            packet_count: sub.packets,
            octet_count: sub.octets,
        };
        Some((info, publisher))
    }
}

/// The report block on a stream, if it has sent anything since the last.
fn report_block(stream: &mut RtpStream, now: Time) -> Option<ReportBlock> {
    let ssrc = stream.ssrc?;
    if !stream.reception.is_fresh() {
        return None;
    }
    let report = stream.reception.report()?;
    let (last_sr, delay) = match stream.sender_report {
        Some(seen) => {
            let delay = now.saturating_since(seen.arrived).as_micros();
            (
                NtpTime(seen.point.ntp).middle(),
                short_from_micros(u64::try_from(delay).unwrap_or(u64::MAX)),
            )
        }
        // RFC 3550 §6.4.1: "If no SR has been received yet", both are zero.
        None => (0, 0),
    };
    Some(ReportBlock {
        ssrc,
        fraction_lost: report.fraction_lost,
        cumulative_lost: report.cumulative_lost,
        highest_sequence: report.highest_sequence,
        jitter: report.jitter,
        last_sr,
        delay_since_last_sr: delay,
    })
}

/// What stands in front of feedback to a peer.
pub(super) fn feedback_preamble(
    writer: &mut RtcpWriter<'_>,
    peer: &Peer,
) -> Result<(), WriteError> {
    // RFC 5506 §4.2.1: feedback alone only where reduced size was negotiated.
    if peer.rtcp_rsize {
        return Ok(());
    }
    writer.receiver_report(peer.feedback_ssrc, &[])?;
    writer.sdes_cname(peer.feedback_ssrc, RELAY_CNAME)
}

/// A request in the form that the publisher negotiated.
enum KeyframeRequest {
    Pli(Pli),
    Fir(u32, FirEntry),
}

impl KeyframeRequest {
    /// `None` if neither form was negotiated.
    fn of(peer: &Peer, stream: &mut RtpStream, ssrc: u32) -> Option<Self> {
        let codecs = &peer.sending.get(usize::from(stream.media))?.codecs;
        if codecs.iter().any(|codec| codec.pli) {
            return Some(KeyframeRequest::Pli(Pli {
                sender_ssrc: peer.feedback_ssrc,
                media_ssrc: ssrc,
            }));
        }
        codecs.iter().any(|codec| codec.fir).then(|| {
            let entry = FirEntry {
                ssrc,
                sequence_number: stream.keyframes.next_fir(),
            };
            KeyframeRequest::Fir(peer.feedback_ssrc, entry)
        })
    }

    fn send<E: Egress>(&self, peer: &Peer, egress: &mut E, stats: &ShardStats, key: u32) {
        let mut compound = Compound::new(key, egress);
        compound.append(|writer| {
            feedback_preamble(writer, peer)?;
            match self {
                KeyframeRequest::Pli(pli) => writer.pli(*pli),
                KeyframeRequest::Fir(sender, entry) => {
                    writer.fir(*sender, std::slice::from_ref(entry))
                }
            }
        });
        compound.send();
        let counter = match self {
            KeyframeRequest::Pli(_) => Counter::RtcpOutPli,
            KeyframeRequest::Fir(..) => Counter::RtcpOutFir,
        };
        stats.add(counter, 1);
    }
}
