//! A relay on a virtual clock, model publishers, and a recorder for what leaves.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of this module"
)]

use sealcast_media::{Egress, Engine, MediaConfig, MediaEvent, Mirror, PacketMeta, PeerKey};
use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    AssignSlot, Codec, CodecParams, CommandError, Counter, HeaderExtension, MediaKind, Mid,
    NtpClock, PacketPool, ParticipantId, Publish, ReceiveMedia, Rid, RoomId, SealRule, SessionId,
    SessionMedia, ShardId, ShardStats, SlotId, SlotMedia, Source, Time, TrackId,
};
use sealcast_rtp::rtcp::{Compound, Packet, RtcpWriter, SenderInfo};
use sealcast_rtp::{Extension, HeaderFields, NtpTime, RtpHeader, write_header};
use std::sync::Arc;
use std::time::Duration;

pub const AUDIO_MID: &str = "0";
pub const VIDEO_MID: &str = "1";
pub const OPUS_IN: u8 = 111;
pub const VP8_IN: u8 = 96;
pub const VP8_RTX_IN: u8 = 97;
/// Slots use other payload types than senders, so that a missing translation shows.
pub const OPUS_OUT: u8 = 109;
pub const VP8_OUT: u8 = 120;

pub const EXT_MID: u8 = 4;
pub const EXT_RID: u8 = 10;
pub const EXT_RRID: u8 = 11;
pub const EXT_LEVEL: u8 = 1;
pub const EXT_SEND_TIME: u8 = 2;
pub const EXT_TWCC: u8 = 3;
pub const EXT_DD: u8 = 12;

/// Audio slots come first: slot `n` of audio is `n`, of video `VIDEO_SLOTS + n`.
pub const VIDEO_SLOTS: u16 = 16;

/// An RTP packet that left the engine.
#[derive(Clone, Debug)]
pub struct SentRtp {
    pub to: u32,
    pub index: u64,
    pub header: RtpHeader,
    pub bytes: Vec<u8>,
    pub payload: Vec<u8>,
    pub meta: PacketMeta,
}

impl SentRtp {
    pub fn extension(&self, id: u8) -> Option<&[u8]> {
        self.header.extension(&self.bytes, id)
    }
}

/// Records what leaves.
#[derive(Default)]
pub struct Recorder {
    pub rtp: Vec<SentRtp>,
    pub rtcp: Vec<(u32, Vec<u8>)>,
    /// When each of `rtcp` was sent.
    pub rtcp_at: Vec<Time>,
    /// What was said to other shards, and not taken from here yet.
    pub mirrored: Vec<(ShardId, Mirror, Vec<u8>)>,
    /// Messages to other shards that may wait; more are refused.
    pub mirror_room: usize,
    /// How many of `rtp` had been sent at each release.
    pub released: Vec<usize>,
    now: Time,
}

impl Egress for Recorder {
    fn rtp(&mut self, to: PeerKey, index: u64, header: &[u8], payload: &[u8], meta: PacketMeta) {
        let bytes = [header, payload].concat();
        let parsed = RtpHeader::parse(&bytes).expect("the engine writes headers that parse");
        assert_eq!(
            parsed.payload_range().start,
            header.len(),
            "the header ends where the payload starts"
        );
        assert_eq!(
            index as u16, parsed.sequence_number,
            "the index ends in the sequence number"
        );
        assert!(index < 1 << 48);
        self.rtp.push(SentRtp {
            to: to.0,
            index,
            header: parsed,
            bytes,
            payload: payload.to_vec(),
            meta,
        });
    }

    fn rtcp(&mut self, to: PeerKey, packet: &[u8]) {
        let compound = Compound::parse(packet).expect("the engine writes RTCP that parses");
        assert!(compound.iter().all(|packet| packet.is_ok()));
        self.rtcp.push((to.0, packet.to_vec()));
        self.rtcp_at.push(self.now);
    }

    fn release(&mut self) {
        self.released.push(self.rtp.len());
    }

    fn mirror(&mut self, to: ShardId, message: &Mirror, packet: &[u8]) -> bool {
        let fits = self.mirrored.len() < self.mirror_room;
        if fits {
            self.mirrored.push((to, *message, packet.to_vec()));
        }
        fits
    }
}

/// The engine with its surroundings.
pub struct Relay {
    pub engine: Engine,
    pub pool: PacketPool,
    pub now: Time,
    pub out: Recorder,
    pub stats: Arc<ShardStats>,
    pub clock: NtpClock,
    pub events: Vec<MediaEvent>,
}

impl Relay {
    pub fn new() -> Self {
        Self::with(MediaConfig::default(), 42)
    }

    pub fn with(config: MediaConfig, seed: u64) -> Self {
        let clock = NtpClock::from_unix(Duration::from_secs(1_800_000_000));
        let stats = Arc::new(ShardStats::default());
        Relay {
            engine: Engine::new(config, clock, seed, stats.clone()),
            pool: PacketPool::new(1_024),
            now: Time::from_millis(1_000),
            out: Recorder::default(),
            stats,
            clock,
            events: Vec::new(),
        }
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.stats.get(counter)
    }

    /// Adds a peer to room 1 and connects it.
    pub fn join(&mut self, key: u32) {
        self.join_room(key, 1, &media(key));
        self.engine.peer_connected(self.now, PeerKey(key));
    }

    pub fn join_room(&mut self, key: u32, room: u64, media: &SessionMedia) {
        let result = self.engine.add_peer(
            self.now,
            PeerKey(key),
            SessionId(key.into()),
            ParticipantId(key.into()),
            RoomId(room),
            media,
        );
        assert_eq!(result, Ok(()));
    }

    pub fn publish(&mut self, key: u32, mid: &str, source: Source) -> TrackId {
        let track = track(key, mid);
        assert_eq!(
            self.try_publish(key, mid, source, track, seal(key, mid)),
            Ok(())
        );
        track
    }

    pub fn try_publish(
        &mut self,
        key: u32,
        mid: &str,
        source: Source,
        track: TrackId,
        seal: SealRule,
    ) -> Result<(), CommandError> {
        let publish = Publish {
            track,
            session: SessionId(key.into()),
            mid: token(mid),
            source,
            seal,
        };
        self.engine.publish(self.now, PeerKey(key), &publish)
    }

    pub fn assign(
        &mut self,
        key: u32,
        slot: u16,
        track: Option<TrackId>,
    ) -> Result<(), CommandError> {
        self.engine.assign_slots(
            self.now,
            PeerKey(key),
            &[AssignSlot {
                slot: SlotId(slot),
                track,
            }],
        )
    }

    /// Hands a plaintext packet in.
    pub fn receive(&mut self, key: u32, packet: &[u8]) {
        let buf = self.pool.alloc().expect("the tests' pool is large enough");
        self.pool.bytes_mut(&buf)[..packet.len()].copy_from_slice(packet);
        self.engine.handle_rtp(
            self.now,
            &mut self.pool,
            PeerKey(key),
            buf,
            packet.len(),
            self.now,
        );
    }

    pub fn receive_rtcp(&mut self, key: u32, write: impl FnOnce(&mut RtcpWriter<'_>)) {
        let mut bytes = [0; 1_200];
        let mut writer = RtcpWriter::new(&mut bytes);
        write(&mut writer);
        let len = writer.finish();
        self.engine
            .handle_rtcp(self.now, PeerKey(key), &bytes[..len]);
    }

    pub fn sender_report(&mut self, key: u32, ssrc: u32, ntp: u64, rtp_timestamp: u32) {
        let info = SenderInfo {
            ssrc,
            ntp: NtpTime(ntp),
            rtp_timestamp,
            packet_count: 1,
            octet_count: 1,
        };
        self.receive_rtcp(key, |writer| writer.sender_report(&info, &[]).unwrap());
    }

    /// Flushes, drains events, and returns what was sent in this flush.
    pub fn flush(&mut self) -> Vec<SentRtp> {
        let before = self.out.rtp.len();
        self.out.now = self.now;
        self.engine.flush(self.now, &mut self.pool, &mut self.out);
        self.drain_events();
        self.out.rtp[before..].to_vec()
    }

    pub fn drain_events(&mut self) {
        self.events
            .extend(std::iter::from_fn(|| self.engine.poll_event()));
    }

    /// Lets time pass, running every timer on the way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let due = self.engine.poll_timeout();
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.flush();
        }
        self.now = end;
    }

    pub fn advance_ms(&mut self, millis: u64) {
        self.advance(Duration::from_millis(millis));
    }

    /// RTCP packets of one kind that were sent to a peer.
    pub fn rtcp_to<T>(&self, key: u32, pick: impl Fn(&Packet<'_>) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for (to, bytes) in &self.out.rtcp {
            if *to == key {
                let compound = Compound::parse(bytes).unwrap();
                found.extend(compound.iter().filter_map(|packet| pick(&packet.unwrap())));
            }
        }
        found
    }

    pub fn plis_to(&self, key: u32, ssrc: u32) -> usize {
        self.rtcp_to(key, |p| match p {
            Packet::Pli(pli) if pli.media_ssrc == ssrc => Some(()),
            _ => None,
        })
        .len()
    }

    /// Whether every buffer is free or held in a history.
    pub fn pool_is_whole(&self) -> bool {
        self.pool.available() + self.engine.held_packets() == self.pool.capacity()
    }
}

pub fn token(text: &str) -> Mid {
    Mid::new(text.as_bytes()).unwrap()
}

pub fn track(key: u32, mid: &str) -> TrackId {
    TrackId(u64::from(key) << 16 | u64::from(mid.as_bytes()[0]))
}

/// The KID context of a publisher's m-line.
pub fn context(key: u32, mid: &str) -> u64 {
    0x1000 + u64::from(key) * 16 + u64::from(mid.as_bytes()[0] - b'0')
}

pub fn seal(key: u32, mid: &str) -> SealRule {
    SealRule::Contexts(vec![context(key, mid)])
}

pub fn codec(pt: u8, codec: Codec) -> CodecParams {
    let video = codec.kind() == MediaKind::Video;
    CodecParams {
        pt,
        codec,
        profile: 0,
        rtx_pt: video.then_some(pt + 1),
        nack: video,
        pli: video,
        fir: false,
        transport_cc: false,
        ccfb: false,
        remb: false,
    }
}

pub fn audio_ssrc(key: u32) -> u32 {
    1_000 + key
}

pub fn video_ssrc(key: u32) -> u32 {
    2_000 + key
}

pub fn slot_ssrc(key: u32, slot: u16) -> u32 {
    0x5000_0000 + key * 1_000 + u32::from(slot)
}

/// One audio and one video m-line to send on, and 16 slots of each kind.
pub fn media(key: u32) -> SessionMedia {
    let sending = |mid: &str, kind, codecs, ssrc, rtx| ReceiveMedia {
        mid: token(mid),
        kind,
        codecs,
        rids: Vec::new(),
        ssrcs: vec![AnnouncedSsrc { ssrc, rtx }],
    };
    let slot = |n: u16| {
        let (kind, codecs) = if n < VIDEO_SLOTS {
            (MediaKind::Audio, vec![codec(OPUS_OUT, Codec::Opus)])
        } else {
            (MediaKind::Video, vec![codec(VP8_OUT, Codec::Vp8)])
        };
        SlotMedia {
            slot: SlotId(n),
            mid: token(&format!("s{n}")),
            kind,
            codecs,
            ssrc: slot_ssrc(key, n),
            rtx_ssrc: (kind == MediaKind::Video).then_some(slot_ssrc(key, n) + 500),
        }
    };
    SessionMedia {
        extensions: vec![
            (EXT_LEVEL, HeaderExtension::AudioLevel),
            (EXT_SEND_TIME, HeaderExtension::AbsSendTime),
            (EXT_TWCC, HeaderExtension::TransportCc),
            (EXT_MID, HeaderExtension::Mid),
            (EXT_RID, HeaderExtension::Rid),
            (EXT_RRID, HeaderExtension::RepairedRid),
            (EXT_DD, HeaderExtension::DependencyDescriptor),
        ],
        extmap_allow_mixed: true,
        receive: vec![
            sending(
                AUDIO_MID,
                MediaKind::Audio,
                vec![codec(OPUS_IN, Codec::Opus)],
                audio_ssrc(key),
                None,
            ),
            sending(
                VIDEO_MID,
                MediaKind::Video,
                vec![codec(VP8_IN, Codec::Vp8)],
                video_ssrc(key),
                Some(video_ssrc(key) + 500),
            ),
        ],
        slots: (0..2 * VIDEO_SLOTS).map(slot).collect(),
        rtcp_rsize: true,
    }
}

/// The same with congestion control negotiated on every codec.
pub fn controlled(mut media: SessionMedia) -> SessionMedia {
    let sending = media.receive.iter_mut().flat_map(|m| &mut m.codecs);
    let receiving = media.slots.iter_mut().flat_map(|m| &mut m.codecs);
    sending
        .chain(receiving)
        .for_each(|codec| codec.transport_cc = true);
    media
}

/// As [`media`], with a video m-line that sends three encodings told apart by RID.
pub fn simulcast_media(key: u32) -> SessionMedia {
    let mut media = media(key);
    let video = &mut media.receive[1];
    video.ssrcs.clear();
    video.rids = ["q", "h", "f"]
        .iter()
        .map(|rid| Rid::new(rid.as_bytes()).unwrap())
        .collect();
    media
}

/// An RTP packet.
pub fn rtp(fields: HeaderFields, extensions: &[Extension<'_>], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 400];
    let len = write_header(&mut bytes, &fields, extensions).unwrap();
    bytes.truncate(len);
    bytes.extend(payload);
    bytes
}

/// An SFrame header with an eight-byte counter field at most.
pub fn sframe(context: u64, counter: u64) -> Vec<u8> {
    let kid = context << 24 | 1;
    let field = |value: u64| {
        let bytes = value.to_be_bytes();
        bytes[(value.leading_zeros() as usize / 8).min(7)..].to_vec()
    };
    let (kid, ctr) = (field(kid), field(counter.max(8)));
    [
        vec![0x88 | (kid.len() as u8 - 1) << 4 | (ctr.len() as u8 - 1)],
        kid,
        ctr,
    ]
    .concat()
}

/// A publisher's Opus stream.
pub struct Voice {
    pub key: u32,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub counter: u64,
    pub sealed: bool,
}

impl Voice {
    pub fn new(key: u32) -> Self {
        Voice {
            key,
            ssrc: audio_ssrc(key),
            sequence: 65_500 + key as u16,
            timestamp: key * 7_777,
            counter: 0,
            sealed: true,
        }
    }

    pub fn next(&mut self) -> Vec<u8> {
        let fields = HeaderFields {
            payload_type: OPUS_IN,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..HeaderFields::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        self.counter += 1;
        let mut payload = if self.sealed {
            sframe(context(self.key, AUDIO_MID), self.counter)
        } else {
            vec![0x7b; 9]
        };
        payload.extend((0..80).map(|i| (self.counter as u8).wrapping_add(i)));
        rtp(
            fields,
            &[Extension {
                id: EXT_LEVEL,
                data: &[0x80 | 30],
            }],
            &payload,
        )
    }
}

/// A publisher's VP8 stream: frames of several packets.
#[derive(Clone)]
pub struct Camera {
    pub key: u32,
    pub ssrc: u32,
    pub rid: Option<&'static str>,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture_id: u16,
    pub tl0: u8,
    pub counter: u64,
    pub sealed: bool,
    pub width: u16,
    /// TID, Y and KEYIDX of the descriptor.
    pub temporal: u8,
}

impl Camera {
    pub fn new(key: u32) -> Self {
        Camera {
            key,
            ssrc: video_ssrc(key),
            rid: None,
            sequence: 10_000 * (key as u16 % 5),
            timestamp: 0x1000_0000_u32.wrapping_mul(key),
            picture_id: 1_000 + 3_000 * (key as u16 % 9),
            tl0: 40 * (key as u8 % 5),
            counter: 0,
            sealed: true,
            width: 640,
            temporal: 0x20,
        }
    }

    pub fn simulcast(key: u32, n: usize) -> Self {
        Camera {
            ssrc: 70_000 + key * 10 + n as u32,
            rid: Some(["q", "h", "f"][n]),
            timestamp: 0x2222_2222 * n as u32,
            width: [160, 320, 640][n],
            sequence: 5_000 + 1_000 * n as u16,
            ..Camera::new(key)
        }
    }

    /// The packets of the next frame, 33 ms after the one before.
    pub fn frame(&mut self, key_frame: bool, packets: usize) -> Vec<Vec<u8>> {
        self.counter += 1;
        self.tl0 = self.tl0.wrapping_add(1);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.timestamp = self.timestamp.wrapping_add(3_000);
        (0..packets)
            .map(|n| self.packet(key_frame, n, n + 1 == packets))
            .collect()
    }

    fn packet(&mut self, key_frame: bool, n: usize, last: bool) -> Vec<u8> {
        let [id0, id1] = (self.picture_id | 0x8000).to_be_bytes();
        let mut payload = vec![
            if n == 0 { 0x90 } else { 0x80 },
            0xe0,
            id0,
            id1,
            self.tl0,
            self.temporal,
        ];
        if n == 0 {
            if key_frame {
                let [w0, w1] = self.width.to_le_bytes();
                payload.extend([0x50, 1, 0, 0x9d, 1, 0x2a, w0, w1, 0x68, 1]);
            } else {
                payload.extend([0x51, 1, 0]);
            }
            let head = if self.sealed {
                sframe(context(self.key, VIDEO_MID), self.counter)
            } else {
                vec![0x33; 9]
            };
            payload.extend(head);
        }
        payload.extend((0..200).map(|i| (self.sequence as u8).wrapping_mul(31).wrapping_add(i)));
        let fields = HeaderFields {
            marker: last,
            payload_type: VP8_IN,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..HeaderFields::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut extensions = Vec::new();
        if let Some(rid) = self.rid {
            extensions.push(Extension {
                id: EXT_MID,
                data: VIDEO_MID.as_bytes(),
            });
            extensions.push(Extension {
                id: EXT_RID,
                data: rid.as_bytes(),
            });
        }
        rtp(fields, &extensions, &payload)
    }
}

/// The VP8 picture id and TL0PICIDX of a packet that was sent.
pub fn picture(sent: &SentRtp) -> (u16, u8) {
    let p = &sent.payload;
    (u16::from_be_bytes([p[2], p[3]]) & 0x7fff, p[4])
}
