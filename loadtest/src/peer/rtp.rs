//! One outgoing RTP stream: headers with their extensions, a history, retransmissions.

use super::Outbox;
use super::transport::Route;
use crate::model::Payload;
use sealcast_model::Time;
use sealcast_rtp::dd::{
    DependencyDescriptor, Dti, FrameDependencies, FrameDiffs, MandatoryFields, TemplateStructure,
};
use sealcast_rtp::ext::{AbsSendTime, AudioLevel, Form, TransportCc};
use sealcast_rtp::rtcp::SenderInfo;
use sealcast_rtp::{ExtensionKind, ExtensionMap, HeaderFields, HeaderWriter, NtpTime, WriteError};
use sealcast_srtp::{Outbound, OutboundStream};

/// Bytes of an RTP payload: with header, extensions, tag, UDP and IPv6 still below 1,280.
pub(super) const MAX_PAYLOAD: usize = 1_100;

/// Room for a packet in the outbox: payload, header with every extension, tag.
const PACKET_ROOM: usize = MAX_PAYLOAD + 160;

/// Packets kept for retransmission: four seconds of a 1.5 Mbit/s stream.
const HISTORY: usize = 1_024;

/// Packets that carry MID and RID, until the relay knows the SSRC (RFC 8843 §9.3, RFC 8852 §4).
const NAMED_PACKETS: u64 = 50;

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

/// What a stream did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RtpStats {
    pub(super) packets: u64,
    pub(super) octets: u64,
    pub(super) retransmitted: u64,
}

/// Whose packets they are, for the first of them.
#[derive(Clone, Copy, Default)]
struct Names<'a> {
    mid: &'a str,
    rid: Option<&'a str>,
    /// The RID is that of the stream which is repaired.
    repair: bool,
}

/// A stream and its retransmission stream.
pub(super) struct RtpStream {
    mid: String,
    /// Of an encoding of a simulcast.
    pub(super) rid: Option<&'static str>,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: u32,
    pub(super) pt: u8,
    pub(super) rtx_pt: Option<u8>,
    /// Made with the SRTP keys.
    streams: Option<(OutboundStream, OutboundStream)>,
    seq: u16,
    rtx_seq: u16,
    history: Vec<Kept>,
    structure: Option<Box<TemplateStructure>>,
    frame_number: u16,
    last_timestamp: u32,
    last_due: Time,
    stats: RtpStats,
}

/// A packet for retransmission.
#[derive(Default)]
struct Kept {
    fields: HeaderFields,
    payload: Vec<u8>,
}

/// A packet's header extensions beside those of every packet.
#[derive(Clone, Copy, Default)]
pub(super) struct FrameExtensions {
    audio_level: Option<AudioLevel>,
    dd: [u8; 16],
    dd_len: usize,
}

impl RtpStream {
    /// A stream; `size` is that of its pictures, if it has any.
    pub(super) fn new(
        mid: String,
        rid: Option<&'static str>,
        (ssrc, rtx_ssrc): (u32, u32),
        size: Option<(u16, u16)>,
        seed: u64,
    ) -> RtpStream {
        RtpStream {
            mid,
            rid,
            ssrc,
            rtx_ssrc,
            pt: 0,
            rtx_pt: None,
            streams: None,
            // RFC 3711 §3.3.1: starting low keeps both sides in the first cycle.
            seq: (seed >> 16) as u16 & 0x3fff,
            rtx_seq: (seed >> 32) as u16 & 0x3fff,
            history: Vec::new(),
            structure: size.and_then(|(w, h)| one_layer(w, h).ok().map(Box::new)),
            frame_number: 0,
            last_timestamp: 0,
            last_due: Time::ZERO,
            stats: RtpStats::default(),
        }
    }

    pub(super) fn stats(&self) -> RtpStats {
        self.stats
    }

    /// Keys are there.
    pub(super) fn connect(&mut self, srtp: &mut Outbound) {
        let (stream, rtx) = (srtp.stream(self.ssrc), srtp.stream(self.rtx_ssrc));
        self.streams = stream.ok().zip(rtx.ok());
    }

    pub(super) fn begin_frame(&mut self, due: Time, payload: &Payload) {
        self.last_timestamp = payload.timestamp;
        self.last_due = due;
        self.frame_number = self.frame_number.wrapping_add(1);
    }

    pub(super) fn frame_extensions(
        &self,
        payload: &Payload,
        first: bool,
        last: bool,
    ) -> FrameExtensions {
        let level = payload.audio_level;
        let mut extensions = FrameExtensions {
            audio_level: level.map(|(voice_activity, minus_dbov)| AudioLevel {
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
    pub(super) fn send(
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
        let named = self.stats.packets < NAMED_PACKETS;
        self.seq = self.seq.wrapping_add(1);
        self.stats.packets += 1;
        self.stats.octets += data.len() as u64;
        let names = named.then_some(Names {
            mid: &self.mid,
            rid: self.rid,
            repair: false,
        });
        if let Some((stream, _)) = &mut self.streams {
            put(link, stream, &fields, extensions, names, data);
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
    pub(super) fn resend(&mut self, link: &mut Link<'_>, seq: u16) {
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
        let names = Some(Names {
            mid: &self.mid,
            rid: self.rid,
            repair: true,
        });
        let none = FrameExtensions::default();
        put(link, stream, &fields, &none, names, &kept.payload);
    }

    /// The sender's part of a report, once something was sent.
    pub(super) fn report(&self, now: Time, ntp: u64, clock_rate: u32) -> Option<SenderInfo> {
        let elapsed = now.saturating_since(self.last_due);
        let ticks = elapsed.as_micros() * u128::from(clock_rate) / 1_000_000;
        (self.stats.packets > 0).then(|| SenderInfo {
            ssrc: self.ssrc,
            ntp: NtpTime(ntp),
            rtp_timestamp: self.last_timestamp.wrapping_add(ticks as u32),
            packet_count: self.stats.packets as u32,
            octet_count: self.stats.octets as u32,
        })
    }
}

/// Writes a packet into the outbox.
fn put(
    link: &mut Link<'_>,
    stream: &mut OutboundStream,
    fields: &HeaderFields,
    extensions: &FrameExtensions,
    names: Option<Names<'_>>,
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
        let header = write_header(buf, fields, extensions, map, *now, seq, names).ok()?;
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
    names: Option<Names<'_>>,
) -> Result<usize, WriteError> {
    let mut header = HeaderWriter::new(buf, fields, Form::OneByte)?;
    if let Some(id) = map.id(ExtensionKind::AbsSendTime) {
        header.push(id, &AbsSendTime::from_micros(now.as_micros()).to_bytes())?;
    }
    if let Some(id) = map.id(ExtensionKind::TransportCc) {
        header.push(id, &TransportCc(transport_seq).to_bytes())?;
    }
    if let Some(names) = names {
        if let Some(id) = map.id(ExtensionKind::Mid) {
            header.push(id, names.mid.as_bytes())?;
        }
        let kind = if names.repair {
            ExtensionKind::RepairedRid
        } else {
            ExtensionKind::Rid
        };
        if let (Some(id), Some(rid)) = (map.id(kind), names.rid) {
            header.push(id, rid.as_bytes())?;
        }
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
        let mut stream = RtpStream::new("0".into(), None, (1, 2), Some((640, 360)), 4);
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
                stream.begin_frame(Time::ZERO, &payload);
            }
            let ext = stream.frame_extensions(&payload, first, last);
            assert!((3..=16).contains(&ext.dd_len));
            let read = reader.read(&ext.dd[..ext.dd_len]).unwrap();
            assert_eq!(read.mandatory.frame_number, number);
            assert_eq!(read.has_structure, key && first);
            assert_eq!(read.frame.frame_diffs.as_slice().is_empty(), key);
        }
        assert_eq!(reader.structure().unwrap().resolution(0), Some((640, 360)));
    }

    #[test]
    fn names_go_with_the_first_packets_and_with_every_repair() {
        use sealcast_rtp::RtpHeader;
        let mut map = ExtensionMap::new();
        for (id, kind) in [
            (4, ExtensionKind::Mid),
            (10, ExtensionKind::Rid),
            (11, ExtensionKind::RepairedRid),
        ] {
            map.set(id, kind);
        }
        let read = |names| {
            let (mut buf, fields) = ([0; 200], HeaderFields::default());
            let none = FrameExtensions::default();
            let len = write_header(&mut buf, &fields, &none, &map, Time::ZERO, 0, names).unwrap();
            let header = RtpHeader::parse(&buf[..len]).unwrap();
            [4, 10, 11].map(|id| header.extension(&buf[..len], id).map(<[u8]>::to_vec))
        };
        let names = |repair| {
            Some(Names {
                mid: "1",
                rid: Some("h"),
                repair,
            })
        };
        let (mid, rid) = (Some(b"1".to_vec()), Some(b"h".to_vec()));
        assert_eq!(read(names(false)), [mid.clone(), rid.clone(), None]);
        assert_eq!(read(names(true)), [mid, None, rid]);
        assert_eq!(read(None), [None, None, None]);
    }
}
