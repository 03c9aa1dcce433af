//! RTCP of a client: what it answers, what it asks for, and its reports.

use super::client::Peer;
use super::outbox::Outbox;
use super::send::Sender;
use sealcast_model::Time;
use sealcast_rtp::rtcp::{Compound, Packet, Pli, ReportBlock, RtcpWriter};
use std::time::Duration;

/// Time between sender and receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between looks at what to ask for again, and transport-wide feedback.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest RTCP datagram, bytes, before SRTCP.
const MAX_RTCP: usize = 1_100;
/// Room for SRTCP's tag and index.
const RTCP_OVERHEAD: usize = 20;
impl Peer {
    /// Feedback and reports from now on.
    pub(super) fn begin_feedback(&mut self, now: Time) {
        self.next_report = now + REPORT_INTERVAL;
        self.next_feedback = now + FEEDBACK_INTERVAL;
    }

    pub(super) fn handle_rtcp(&mut self, now: Time, packet: &mut [u8], out: &mut Outbox) {
        let Some(srtp) = &mut self.srtp else {
            self.faults.srtp_other += 1;
            return;
        };
        let len = match srtp.inbound.open_rtcp(packet) {
            Ok(len) => len,
            Err(e) => return self.faults.count(e),
        };
        let Ok(compound) = Compound::parse(packet.get(..len).unwrap_or_default()) else {
            self.faults.malformed += 1;
            return;
        };
        for packet in compound.iter() {
            match packet {
                Ok(Packet::SenderReport(report)) => {
                    let ssrc = report.info.ssrc;
                    if let Some(slot) = self.slots.iter_mut().flatten().find(|s| s.ssrc() == ssrc) {
                        slot.on_sender_report(now, report.info.ntp);
                    }
                }
                Ok(Packet::Pli(pli)) => self.on_key_request(pli.media_ssrc),
                Ok(Packet::Fir(fir)) => {
                    for entry in fir.entries() {
                        self.on_key_request(entry.ssrc);
                    }
                }
                Ok(Packet::Nack(nack)) => {
                    let ssrc = nack.media_ssrc;
                    self.with_senders(now, out, |sender, link| {
                        sender.on_nack(link, ssrc, nack.sequence_numbers());
                    });
                }
                Ok(_) => {}
                Err(_) => self.faults.malformed += 1,
            }
        }
    }

    fn on_key_request(&mut self, ssrc: u32) {
        for sender in &mut self.senders {
            sender.on_key_request(ssrc);
        }
    }

    /// NACKs, PLIs and transport-wide feedback, as reduced-size RTCP (RFC 5506).
    pub(super) fn send_feedback(&mut self, now: Time, out: &mut Outbox) {
        self.next_feedback = now + FEEDBACK_INTERVAL;
        let ssrc = self.own_ssrc();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(MAX_RTCP, 0);
        let mut rtcp = RtcpWriter::new(&mut scratch);
        let mut media_ssrc = 0;
        for slot in self.slots.iter_mut().flatten() {
            let feedback = slot.feedback(now);
            media_ssrc = slot.ssrc();
            // What does not fit is asked for again at its next turn.
            let _ = rtcp.nack(ssrc, slot.ssrc(), feedback.nack);
            if feedback.pli {
                let _ = rtcp.pli(Pli {
                    sender_ssrc: ssrc,
                    media_ssrc: slot.ssrc(),
                });
            }
        }
        self.arrivals.report(ssrc, media_ssrc, &mut rtcp);
        let len = rtcp.finish();
        self.send_rtcp(scratch.get(..len).unwrap_or_default(), out);
        self.scratch = scratch;
    }

    /// Sender reports with their CNAME, and receiver reports for every slot that receives.
    pub(super) fn send_reports(&mut self, now: Time, out: &mut Outbox) {
        self.next_report = now + REPORT_INTERVAL;
        let ssrc = self.own_ssrc();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(MAX_RTCP, 0);
        let mut rtcp = RtcpWriter::new(&mut scratch);
        let infos: Vec<_> = self
            .senders
            .iter()
            .flat_map(|s| s.reports(now, &self.clock))
            .collect();
        for info in &infos {
            let _ = rtcp.sender_report(info, &[]);
        }
        let blocks: Vec<ReportBlock> = self
            .slots
            .iter_mut()
            .flatten()
            .filter_map(|s| s.report(now))
            .collect();
        // RFC 3550 §6.4.2: a receiver report may be empty, and up to 31 blocks long.
        for blocks in blocks.chunks(31) {
            let _ = rtcp.receiver_report(ssrc, blocks);
        }
        if rtcp.is_empty() {
            let _ = rtcp.receiver_report(ssrc, &[]);
        }
        let _ = rtcp.sdes_cname(ssrc, b"load");
        let len = rtcp.finish();
        self.send_rtcp(scratch.get(..len).unwrap_or_default(), out);
        self.scratch = scratch;
    }

    fn own_ssrc(&self) -> u32 {
        self.senders.first().map_or(self.report_ssrc, Sender::ssrc)
    }

    fn send_rtcp(&mut self, packet: &[u8], out: &mut Outbox) {
        if packet.is_empty() {
            return;
        }
        if let (Some(srtp), Some(route)) = (&mut self.srtp, self.transport.route()) {
            out.push_with(route, packet.len() + RTCP_OVERHEAD, |buf| {
                srtp.outbound.seal_rtcp(packet, buf).ok()
            });
        }
    }
}
