//! One outgoing stream: encoder, seal, packetizer, RTP, retransmissions, sender reports.

use super::Outbox;
use super::transport::Route;
use crate::model::{Codec, OpusModel, Packetizer, Payload, Vp8Model};
use sealcast_model::{NtpClock, Time};
use sealcast_rtp::dd::{
    DependencyDescriptor, Dti, FrameDependencies, FrameDiffs, MandatoryFields, TemplateStructure,
};
use sealcast_rtp::ext::{AbsSendTime, AudioLevel, Form, TransportCc};
use sealcast_rtp::rtcp::SenderInfo;
use sealcast_rtp::{ExtensionKind, ExtensionMap, HeaderFields, HeaderWriter, NtpTime, WriteError};
use sealcast_sframe::{Sealer, layout};
use sealcast_srtp::{Outbound, OutboundStream};
use std::time::Duration;

/// Bytes of an RTP payload: with header, extensions, tag, UDP and IPv6 still below 1,280.
const MAX_PAYLOAD: usize = 1_100;

/// Room for a packet in the outbox: payload, header with every extension, tag.
const PACKET_ROOM: usize = MAX_PAYLOAD + 160;

/// Packets kept for retransmission: four seconds of a 1.5 Mbit/s stream.
const HISTORY: usize = 1_024;

/// Retransmissions answered for one NACK.
const MAX_RESENT: usize = 64;

/// Packets that carry the MID, until the relay knows the SSRC (RFC 8843 §9.3).
const MID_PACKETS: u64 = 50;

/// What a sender does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SenderParams {
    /// Opus audio.
    Audio(crate::model::OpusParams),
    /// VP8 video.
    Video(crate::model::Vp8Params),
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Frames sent.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Packets sent, retransmissions left out.
    pub packets: u64,
    /// Payload bytes of those.
    pub octets: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets asked for again.
    pub nacked: u64,
    /// Key-frame requests received.
    pub key_requests: u64,
    /// How late frames were generated, summed up.
    pub lag: Duration,
    /// How late the latest frame was generated.
    pub worst_lag: Duration,
}

/// What a stream needs of its peer to send.
pub(super) struct Link<'a> {
    pub(super) now: Time,
    pub(super) route: Route,
    pub(super) srtp: &'a mut Outbound,
    pub(super) extensions: &'a ExtensionMap,
    /// The transport-wide sequence number.
    pub(super) transport_seq: &'a mut u16,
    pub(super) out: &'a mut Outbox,
}

enum Encoder {
    Opus(OpusModel),
    Vp8(Vp8Model),
}

/// A stream from encoder to SRTP.
pub(super) struct Sender {
    codec: Codec,
    stream: u64,
    encoder: Encoder,
    sealer: Option<Sealer>,
    packetizer: Packetizer,
    /// When the next frame is due; `None` while not sending.
    due: Option<Time>,
    frame: Vec<u8>,
    sealed: Vec<u8>,
    scratch: Vec<u8>,
    packets: Packets,
}

/// The RTP half of a sender.
struct Packets {
    mid: String,
    ssrc: u32,
    rtx_ssrc: u32,
    pt: u8,
    rtx_pt: Option<u8>,
    /// Made with the SRTP keys.
    streams: Option<(OutboundStream, OutboundStream)>,
    seq: u16,
    rtx_seq: u16,
    history: Vec<Kept>,
    structure: Option<Box<TemplateStructure>>,
    frame_number: u16,
    last_timestamp: u32,
    last_due: Time,
    stats: SendStats,
}

/// A packet for retransmission.
#[derive(Default)]
struct Kept {
    fields: HeaderFields,
    payload: Vec<u8>,
}

/// A packet's header extensions beside those of every packet.
#[derive(Clone, Copy, Default)]
struct FrameExtensions {
    audio_level: Option<AudioLevel>,
    dd: [u8; 16],
    dd_len: usize,
}

impl Sender {
    /// A sender that is idle until [`Sender::start`].
    pub(super) fn new(
        params: SenderParams,
        mid: String,
        (ssrc, rtx_ssrc): (u32, u32),
        sealer: Option<Sealer>,
        stream: u64,
        seed: u64,
    ) -> Sender {
        let (codec, encoder, structure) = match params {
            SenderParams::Audio(p) => (
                Codec::Opus,
                Encoder::Opus(OpusModel::new(p, stream, seed)),
                None,
            ),
            SenderParams::Video(p) => (
                Codec::Vp8,
                Encoder::Vp8(Vp8Model::new(p, stream, seed)),
                one_layer(p.width, p.height).ok().map(Box::new),
            ),
        };
        Sender {
            codec,
            stream,
            encoder,
            sealer,
            packetizer: Packetizer::new(codec, MAX_PAYLOAD, seed as u16),
            due: None,
            frame: Vec::new(),
            sealed: Vec::new(),
            scratch: Vec::new(),
            packets: Packets {
                mid,
                ssrc,
                rtx_ssrc,
                pt: 0,
                rtx_pt: None,
                streams: None,
                // RFC 3711 §3.3.1: starting low keeps both sides in the first cycle.
                seq: (seed >> 16) as u16 & 0x3fff,
                rtx_seq: (seed >> 32) as u16 & 0x3fff,
                history: Vec::new(),
                structure,
                frame_number: 0,
                last_timestamp: 0,
                last_due: Time::ZERO,
                stats: SendStats::default(),
            },
        }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.packets.ssrc
    }

    pub(super) fn ssrcs(&self) -> (u32, u32) {
        (self.packets.ssrc, self.packets.rtx_ssrc)
    }

    pub(super) fn stats(&self) -> SendStats {
        self.packets.stats
    }

    /// The name of its stream in its frames.
    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// What the relay must be told of the seal (PROTOCOL.md §7.2).
    pub(super) fn seal_context(&self) -> Option<u64> {
        self.sealer.as_ref().map(|s| s.kid().context())
    }

    /// The negotiated payload types.
    pub(super) fn set_payload_types(&mut self, pt: u8, rtx_pt: Option<u8>) {
        self.packets.pt = pt;
        self.packets.rtx_pt = rtx_pt;
    }

    /// Keys are there. Frames that were due before are left out.
    pub(super) fn connect(&mut self, now: Time, srtp: &mut Outbound) {
        self.due = self.due.map(|due| due.max(now));
        let (ssrc, rtx) = self.ssrcs();
        self.packets.streams = srtp.stream(ssrc).ok().zip(srtp.stream(rtx).ok());
    }

    /// Sends the first frame at `first`, the others on schedule.
    pub(super) fn start(&mut self, first: Time) {
        self.due = Some(first);
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// When the next frame is due.
    pub(super) fn poll_timeout(&self) -> Time {
        self.due.unwrap_or(Time::NEVER)
    }

    pub(super) fn on_key_request(&mut self) {
        self.packets.stats.key_requests += 1;
        if let Encoder::Vp8(model) = &mut self.encoder {
            model.request_key_frame();
        }
    }

    /// Sends every frame that is due, each with the time at which it should have left: a
    /// generator that runs late shows as latency, not as a lower rate.
    pub(super) fn handle_timeout(&mut self, link: &mut Link<'_>) {
        while let Some(due) = self.due.filter(|due| *due <= link.now) {
            let (interval, payload) = match &mut self.encoder {
                Encoder::Opus(model) => (model.interval(), model.encode(due, &mut self.frame)),
                Encoder::Vp8(model) => (model.interval(), Some(model.encode(due, &mut self.frame))),
            };
            self.due = Some(due + interval);
            if let Some(payload) = payload {
                self.send_frame(link, due, payload);
            }
        }
    }

    fn send_frame(&mut self, link: &mut Link<'_>, due: Time, payload: Payload) {
        let Sender {
            codec,
            sealer,
            packetizer,
            frame,
            sealed,
            scratch,
            packets,
            ..
        } = self;
        let frame: &[u8] = match sealer {
            None => frame,
            Some(sealer) => match layout::seal(codec.layout(), sealer, frame, sealed) {
                Ok(()) => sealed,
                Err(e) => {
                    // The key is used up: a scenario that runs this long must renew it.
                    tracing::warn!(error = %e, "frame not sealed");
                    return;
                }
            },
        };
        packets.begin_frame(link.now, due, &payload);
        let mut first = true;
        packetizer.packetize(frame, scratch, |data, last| {
            let extensions = packets.frame_extensions(&payload, first, last);
            packets.send(link, &payload, last, &extensions, data);
            first = false;
        });
    }

    /// Answers a NACK.
    pub(super) fn on_nack(&mut self, link: &mut Link<'_>, seqs: impl Iterator<Item = u16>) {
        for (n, seq) in seqs.enumerate() {
            self.packets.stats.nacked += 1;
            if n < MAX_RESENT {
                self.packets.resend(link, seq);
            }
        }
    }

    /// The sender's part of a report, once something was sent.
    pub(super) fn report(&self, now: Time, clock: &NtpClock) -> Option<SenderInfo> {
        let p = &self.packets;
        let elapsed = now.saturating_since(p.last_due);
        let ticks = elapsed.as_micros() * u128::from(self.codec.clock_rate()) / 1_000_000;
        (p.stats.packets > 0).then(|| SenderInfo {
            ssrc: p.ssrc,
            ntp: NtpTime(clock.at(now)),
            rtp_timestamp: p.last_timestamp.wrapping_add(ticks as u32),
            packet_count: p.stats.packets as u32,
            octet_count: p.stats.octets as u32,
        })
    }
}

impl Packets {
    fn begin_frame(&mut self, now: Time, due: Time, payload: &Payload) {
        let lag = now.saturating_since(due);
        self.stats.frames += 1;
        self.stats.key_frames += u64::from(payload.key);
        self.stats.lag += lag;
        self.stats.worst_lag = self.stats.worst_lag.max(lag);
        self.last_timestamp = payload.timestamp;
        self.last_due = due;
        self.frame_number = self.frame_number.wrapping_add(1);
    }

    fn frame_extensions(&self, payload: &Payload, first: bool, last: bool) -> FrameExtensions {
        let mut extensions = FrameExtensions {
            audio_level: payload
                .audio_level
                .map(|(voice_activity, minus_dbov)| AudioLevel {
                    voice_activity,
                    minus_dbov,
                }),
            ..FrameExtensions::default()
        };
        if let Some(structure) = &self.structure {
            let template_id = u8::from(!payload.key);
            let descriptor = DependencyDescriptor {
                mandatory: MandatoryFields {
                    start_of_frame: first,
                    end_of_frame: last,
                    template_id,
                    frame_number: self.frame_number,
                },
                frame: structure.template(template_id).copied().unwrap_or_default(),
                active_decode_targets: None,
                has_structure: payload.key && first,
            };
            // One that does not fit the one-byte form is left out, as an encoder would.
            extensions.dd_len = descriptor
                .write(structure, &mut extensions.dd)
                .unwrap_or_default();
        }
        extensions
    }

    /// Sends a new packet and keeps it.
    fn send(
        &mut self,
        link: &mut Link<'_>,
        payload: &Payload,
        marker: bool,
        extensions: &FrameExtensions,
        data: &[u8],
    ) {
        let fields = HeaderFields {
            marker,
            has_padding: false,
            payload_type: self.pt,
            sequence_number: self.seq,
            timestamp: payload.timestamp,
            ssrc: self.ssrc,
        };
        self.keep(fields, data);
        let with_mid = self.stats.packets < MID_PACKETS;
        self.seq = self.seq.wrapping_add(1);
        self.stats.packets += 1;
        self.stats.octets += data.len() as u64;
        let mid = with_mid.then_some(self.mid.as_str());
        if let Some((stream, _)) = &mut self.streams {
            put(link, stream, &fields, extensions, mid, data);
        }
    }

    fn keep(&mut self, fields: HeaderFields, data: &[u8]) {
        if self.rtx_pt.is_none() {
            return;
        }
        if self.history.is_empty() {
            self.history.resize_with(HISTORY, Kept::default);
        }
        let place = usize::from(fields.sequence_number) % HISTORY;
        if let Some(kept) = self.history.get_mut(place) {
            kept.fields = fields;
            kept.payload.clear();
            // RFC 4588 §4: the original sequence number precedes the payload.
            kept.payload
                .extend_from_slice(&fields.sequence_number.to_be_bytes());
            kept.payload.extend_from_slice(data);
        }
    }

    /// Sends a kept packet again as RTX.
    fn resend(&mut self, link: &mut Link<'_>, seq: u16) {
        let kept = self.history.get(usize::from(seq) % HISTORY);
        let Some(kept) = kept.filter(|k| k.fields.sequence_number == seq && !k.payload.is_empty())
        else {
            return;
        };
        let (Some(rtx_pt), Some((_, stream))) = (self.rtx_pt, &mut self.streams) else {
            return;
        };
        let fields = HeaderFields {
            payload_type: rtx_pt,
            sequence_number: self.rtx_seq,
            ssrc: self.rtx_ssrc,
            ..kept.fields
        };
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        self.stats.retransmitted += 1;
        let mid = Some(self.mid.as_str());
        put(
            link,
            stream,
            &fields,
            &FrameExtensions::default(),
            mid,
            &kept.payload,
        );
    }
}

/// Writes a packet into the outbox.
fn put(
    link: &mut Link<'_>,
    stream: &mut OutboundStream,
    fields: &HeaderFields,
    extensions: &FrameExtensions,
    mid: Option<&str>,
    data: &[u8],
) {
    let Link {
        now,
        route,
        srtp,
        extensions: map,
        transport_seq,
        out,
    } = link;
    let seq = **transport_seq;
    let written = out.push_with(*route, PACKET_ROOM, |buf| {
        let header = write_header(buf, fields, extensions, map, *now, seq, mid).ok()?;
        srtp.seal_rtp_after(stream, header, data, buf).ok()
    });
    if written && map.id(ExtensionKind::TransportCc).is_some() {
        **transport_seq = seq.wrapping_add(1);
    }
}

fn write_header(
    buf: &mut [u8],
    fields: &HeaderFields,
    extensions: &FrameExtensions,
    map: &ExtensionMap,
    now: Time,
    transport_seq: u16,
    mid: Option<&str>,
) -> Result<usize, WriteError> {
    let mut header = HeaderWriter::new(buf, fields, Form::OneByte)?;
    if let Some(id) = map.id(ExtensionKind::AbsSendTime) {
        header.push(id, &AbsSendTime::from_micros(now.as_micros()).to_bytes())?;
    }
    if let Some(id) = map.id(ExtensionKind::TransportCc) {
        header.push(id, &TransportCc(transport_seq).to_bytes())?;
    }
    if let (Some(id), Some(mid)) = (map.id(ExtensionKind::Mid), mid) {
        header.push(id, mid.as_bytes())?;
    }
    if let (Some(id), Some(level)) = (map.id(ExtensionKind::AudioLevel), extensions.audio_level) {
        header.push(id, &level.to_bytes())?;
    }
    let dd = extensions.dd.get(..extensions.dd_len).unwrap_or_default();
    if let (Some(id), false) = (map.id(ExtensionKind::DependencyDescriptor), dd.is_empty()) {
        header.push(id, dd)?;
    }
    header.finish()
}

/// One layer: a template for key frames, and one for frames that refer to the one before.
fn one_layer(width: u16, height: u16) -> Result<TemplateStructure, WriteError> {
    let key = FrameDependencies {
        dtis: [Dti::Switch].into_iter().collect(),
        ..FrameDependencies::default()
    };
    let mut delta = key;
    let mut diffs = FrameDiffs::default();
    diffs.push(1);
    delta.frame_diffs = diffs;
    delta.chain_diffs[0] = 1;
    TemplateStructure::new(
        0,
        1,
        1,
        &[0],
        &[key, delta],
        Some(&[(width.max(1), height.max(1))]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_rtp::dd::DescriptorReader;

    #[test]
    fn descriptors_fit_and_are_read_back() {
        let params = SenderParams::Video(crate::model::Vp8Params::default());
        let mut sender = Sender::new(params, "0".into(), (1, 2), None, 3, 4);
        let mut reader = DescriptorReader::new();
        for (number, key, first, last) in [
            (1, true, true, false),
            (1, true, false, true),
            (2, false, true, true),
        ] {
            let payload = Payload {
                timestamp: 0,
                key,
                audio_level: None,
            };
            if first {
                sender.packets.begin_frame(Time::ZERO, Time::ZERO, &payload);
            }
            let ext = sender.packets.frame_extensions(&payload, first, last);
            assert!((3..=16).contains(&ext.dd_len));
            let read = reader.read(&ext.dd[..ext.dd_len]).unwrap();
            assert_eq!(read.mandatory.frame_number, number);
            assert_eq!(read.has_structure, key && first);
            assert_eq!(read.frame.frame_diffs.as_slice().is_empty(), key);
        }
        assert_eq!(reader.structure().unwrap().resolution(0), Some((640, 360)));
    }
}
