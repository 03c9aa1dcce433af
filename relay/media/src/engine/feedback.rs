//! Incoming RTCP: what publishers report about their clocks, and receivers about their slots.

use super::Engine;
use super::tracks::want_keyframe;
use crate::stream::SenderReportSeen;
use crate::subscription::RemoteReception;
use crate::sync::ClockPoint;
use sealcast_model::{Counter, MediaKind, Time};
use sealcast_rtp::NtpTime;
use sealcast_rtp::ntp::round_trip_micros;
use sealcast_rtp::rtcp::{Compound, Packet, ReportBlock, SenderInfo};
use std::time::Duration;

impl Engine {
    pub(super) fn receive_rtcp(&mut self, now: Time, key: u32, bytes: &[u8]) {
        let Ok(compound) = Compound::parse(bytes) else {
            return self.stats.add(Counter::DropRtcpMalformed, 1);
        };
        for packet in compound.iter() {
            let counter = match packet {
                Ok(packet) => self.on_rtcp(now, key, &packet),
                Err(_) => Counter::DropRtcpMalformed,
            };
            self.stats.add(counter, 1);
        }
    }

    /// Acts on one RTCP packet and says what to count it as.
    fn on_rtcp(&mut self, now: Time, key: u32, packet: &Packet<'_>) -> Counter {
        match packet {
            Packet::SenderReport(report) => {
                self.on_sender_report(now, key, &report.info);
                report
                    .blocks()
                    .for_each(|block| self.on_report_block(now, key, &block));
                Counter::RtcpInSr
            }
            Packet::ReceiverReport(report) => {
                report
                    .blocks()
                    .for_each(|block| self.on_report_block(now, key, &block));
                Counter::RtcpInRr
            }
            Packet::Pli(pli) => {
                self.on_keyframe_request(key, pli.media_ssrc);
                Counter::RtcpInPli
            }
            Packet::Fir(fir) => {
                fir.entries()
                    .for_each(|entry| self.on_keyframe_request(key, entry.ssrc));
                Counter::RtcpInFir
            }
            Packet::Nack(nack) => {
                self.on_nack(key, nack);
                Counter::RtcpInNack
            }
            Packet::TransportFeedback(feedback) => {
                self.on_path_feedback(key, |path| path.on_transport_feedback(now, feedback));
                Counter::RtcpInTwcc
            }
            Packet::CongestionFeedback(feedback) => {
                self.on_path_feedback(key, |path| path.on_congestion_feedback(now, feedback));
                Counter::RtcpInCcfb
            }
            Packet::Remb(remb) => {
                self.on_path_feedback(key, |path| path.on_remb(now, remb.bitrate));
                Counter::RtcpInRemb
            }
            Packet::Bye(_) => Counter::RtcpInBye,
            _ => Counter::RtcpInOther,
        }
    }

    /// A publisher says which NTP time one of its timestamps stands for.
    fn on_sender_report(&mut self, now: Time, key: u32, info: &SenderInfo) {
        let arrived_ntp = self.clock.at(now);
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(binding) = peer.binding(info.ssrc).filter(|binding| !binding.rtx) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(binding.stream) else {
            return;
        };
        // RFC 3550 §6.4.1: a sender without a notion of wall clock "MAY set the NTP timestamp to
        // zero".
        if info.ntp.0 == 0 {
            return;
        }
        let point = ClockPoint {
            ntp: info.ntp.0,
            timestamp: info.rtp_timestamp,
        };
        stream.sender_report = Some(SenderReportSeen {
            point,
            arrived: now,
        });
        peer.clock.on_report(info.ntp.0, arrived_ntp);
    }

    /// A receiver says how one of its slots' streams arrives.
    fn on_report_block(&mut self, now: Time, key: u32, block: &ReportBlock) {
        let arrival = NtpTime(self.clock.at(now));
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(subscription) = peer.subscription(block.ssrc) else {
            return;
        };
        if let Some(micros) = round_trip_micros(arrival, block.last_sr, block.delay_since_last_sr) {
            peer.round_trip = Some(Duration::from_micros(micros));
        }
        if let Some(sub) = self.subscriptions.get_mut(subscription) {
            sub.remote = RemoteReception {
                fraction_lost: block.fraction_lost,
                jitter: block.jitter,
            };
        }
    }

    /// A receiver asks for a key frame on the SSRC of one of its slots.
    fn on_keyframe_request(&mut self, key: u32, ssrc: u32) {
        let subscription = self.peer(key).and_then(|peer| peer.subscription(ssrc));
        let Some(sub) = subscription.and_then(|s| self.subscriptions.get(s)) else {
            return;
        };
        let muted = sub
            .track
            .and_then(|t| self.tracks.get(t))
            .is_none_or(|track| track.muted || track.blocked);
        // What it sees is what it lost, but if it is to turn to another encoding, that one helps.
        let current = sub.rewriter.source().map(|life| life.stream);
        if let Some(stream) = sub
            .target
            .or(current)
            .filter(|_| !muted && sub.forwards() && sub.kind == MediaKind::Video)
        {
            want_keyframe(&mut self.streams, &mut self.asking, stream);
        }
    }
}
