//! WebRTC clients made of str0m alone, as the shard's and the I/O crate's tests use them.
//!
//! A client publishes Opus on m-line 0 and VP8 on m-line 1 and has a slot of each kind for every
//! other participant. Its SRTP is str0m's, so what it receives was sealed right.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    AssignSlot, Codec, CodecParams, Command, Event as ShardEvent, HeaderExtension, MediaKind, Mid,
    ParticipantId, Publish, ReceiveMedia, RequestId, RoomId, SealRule, SessionId, SessionMedia,
    SlotId, SlotMedia, Source, Time, TrackId, WebRtcParams,
};
use sealcast_shard::SessionContext;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::{DtlsVersion, Fingerprint};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

pub(crate) const OPUS: u8 = 111;
pub(crate) const VP8: u8 = 96;
/// Slots of clients have SSRCs from here on.
const SLOT_SSRC: u32 = 0x5000_0000;

pub(crate) fn epoch() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests own the clock that they hand on"
    )]
    Instant::now()
}

/// How many slots of each kind a client has.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) slots: u16,
    pub(crate) dtls: DtlsVersion,
    pub(crate) tcp: bool,
    /// Offers NACK and transport-wide congestion control, as browsers do. str0m then gives neither.
    pub(crate) feedback: bool,
    /// Offers nothing to send.
    pub(crate) listens: bool,
}

impl Shape {
    pub(crate) fn slots(slots: u16) -> Shape {
        Shape {
            slots,
            dtls: DtlsVersion::Auto,
            tcp: false,
            feedback: false,
            listens: false,
        }
    }
}

/// A packet to the relay.
pub(crate) type Datagram = Vec<u8>;

pub(crate) struct Client {
    pub(crate) index: u32,
    pub(crate) rtc: Rtc,
    pub(crate) local: SocketAddr,
    pub(crate) relay: SocketAddr,
    pub(crate) params: WebRtcParams,
    pub(crate) media: SessionMedia,
    pub(crate) timeout: Instant,
    pub(crate) connected: bool,
    pub(crate) channel: Option<ChannelId>,
    pub(crate) notices: Vec<String>,
    pub(crate) received: Vec<RtpPacket>,
    pub(crate) dead: bool,
    proto: Protocol,
    sequence: [u64; 2],
    outgoing: Vec<Datagram>,
}

impl Client {
    pub(crate) fn new(
        index: u32,
        start: Instant,
        local: SocketAddr,
        relay: SocketAddr,
        ctx: &SessionContext,
        shape: Shape,
    ) -> Client {
        let mut rtc = RtcConfig::new()
            .set_rtp_mode(true)
            .set_dtls_version(shape.dtls)
            .build(start);
        let media = session_media(index, shape);
        let params = params(index, &mut rtc);
        let proto = if shape.tcp {
            let candidate = Candidate::builder().tcp().host(local);
            let candidate = candidate.tcptype(TcpType::Active).build().unwrap();
            rtc.add_local_candidate(candidate);
            let candidate = Candidate::builder().tcp().host(relay);
            let candidate = candidate.tcptype(TcpType::Passive).build().unwrap();
            rtc.add_remote_candidate(candidate);
            Protocol::Tcp
        } else {
            rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
            rtc.add_remote_candidate(Candidate::host(relay, "udp").unwrap());
            Protocol::Udp
        };
        let mut api = rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: params.local_ufrag.clone(),
            pass: params.local_pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: ctx.fingerprint_sha256().to_vec(),
        });
        for receive in &media.receive {
            api.declare_media(receive.mid.as_str().into(), kind(receive.kind));
            let ssrc = receive.ssrcs[0].ssrc;
            api.declare_stream_tx(ssrc.into(), None, receive.mid.as_str().into(), None);
        }
        for slot in &media.slots {
            api.declare_media(slot.mid.as_str().into(), kind(slot.kind));
            api.expect_stream_rx(slot.ssrc.into(), None, slot.mid.as_str().into(), None);
        }
        api.start_dtls(true).unwrap();
        api.start_sctp(true);
        api.create_data_channel(ChannelConfig {
            label: "sealcast".into(),
            ..Default::default()
        });
        Client {
            index,
            rtc,
            local,
            relay,
            params,
            media,
            timeout: start,
            connected: false,
            channel: None,
            notices: Vec::new(),
            received: Vec::new(),
            dead: false,
            proto,
            sequence: [1, 1],
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId(u64::from(self.index) + 1)
    }

    pub(crate) fn track(&self, kind: MediaKind) -> TrackId {
        TrackId(u64::from(self.index) * 2 + (kind == MediaKind::Video) as u64)
    }

    /// Opens the session in a room.
    pub(crate) fn open(&self, room: u64) -> Command {
        Command::OpenSession {
            request: RequestId(1_000 + u64::from(self.index)),
            session: self.session(),
            participant: ParticipantId(u64::from(self.index)),
            room: RoomId(room),
            webrtc: Box::new(self.params.clone()),
            media: Box::new(self.media.clone()),
        }
    }

    /// Publishes one of the two m-lines.
    pub(crate) fn publish(&self, kind: MediaKind) -> Command {
        let (mid, source) = match kind {
            MediaKind::Audio => ("0", Source::Audio),
            MediaKind::Video => ("1", Source::Camera),
        };
        Command::Publish {
            request: RequestId(2_000 + u64::from(self.index)),
            publish: Box::new(Publish {
                track: self.track(kind),
                session: self.session(),
                mid: Mid::new(mid.as_bytes()).unwrap(),
                source,
                seal: SealRule::Any,
            }),
        }
    }

    /// Shows these tracks in the first slots of a kind.
    pub(crate) fn watch(&self, kind: MediaKind, tracks: &[TrackId]) -> Command {
        let slots = self.media.slots.iter().filter(|s| s.kind == kind);
        Command::AssignSlots {
            request: RequestId(3_000 + u64::from(self.index)),
            session: self.session(),
            assign: slots
                .zip(tracks)
                .map(|(slot, track)| AssignSlot {
                    slot: slot.slot,
                    track: Some(*track),
                })
                .collect(),
        }
    }

    /// Runs timers and collects what is to be sent.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut Vec<Datagram>) {
        if self.timeout <= now && !self.dead {
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
        }
        self.drain();
        out.append(&mut self.outgoing);
    }

    /// str0m wants to be drained after each input.
    fn drain(&mut self) {
        while !self.dead {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(t)) => {
                    self.timeout = t;
                    return;
                }
                Ok(Output::Transmit(t)) => self.outgoing.push(t.contents.to_vec()),
                Ok(Output::Event(e)) => self.on_event(e),
                Err(_) => self.dead = true,
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::ChannelOpen(id, _) => self.channel = Some(id),
            Event::ChannelData(data) => {
                self.notices.push(String::from_utf8(data.data).unwrap());
            }
            Event::RtpPacket(packet) => self.received.push(packet),
            _ => {}
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let (Ok(contents), false) = (datagram.try_into(), self.dead) else {
            return;
        };
        let receive = Receive {
            proto: self.proto,
            source: self.relay,
            destination: self.local,
            contents,
        };
        if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
            self.dead = true;
        }
        self.drain();
    }

    /// Queues one RTP packet. `payload` is for VP8 the descriptor and what follows it.
    pub(crate) fn send(&mut self, now: Instant, kind: MediaKind, marker: bool, payload: Vec<u8>) {
        let index = (kind == MediaKind::Video) as usize;
        let (pt, clock) = [(OPUS, 960), (VP8, 3_000)][index];
        let sequence = self.sequence[index];
        self.sequence[index] += 1;
        let ssrc: Ssrc = self.media.receive[index].ssrcs[0].ssrc.into();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&ssrc).unwrap();
        let time = (sequence as u32).wrapping_mul(clock);
        stream.write_rtp(
            RtpWrite::new(pt.into(), sequence.into(), time, now, payload).marker(marker),
        );
        self.timeout = now;
    }

    /// Queues a VP8 key frame of so many packets of so many payload bytes, and an Opus packet.
    pub(crate) fn send_frame(&mut self, now: Instant, packets: usize, len: usize) {
        for i in 0..packets {
            let payload = vp8_payload(i == 0, len, i as u8);
            self.send(now, MediaKind::Video, i + 1 == packets, payload);
        }
        self.send(now, MediaKind::Audio, false, vec![self.index as u8; 100]);
    }

    pub(crate) fn received_of(&self, kind: MediaKind) -> Vec<&RtpPacket> {
        let pt = [OPUS, VP8][(kind == MediaKind::Video) as usize];
        let is = |p: &&RtpPacket| *p.header.payload_type == pt;
        self.received.iter().filter(is).collect()
    }
}

/// A VP8 payload (RFC 7741): descriptor with S and PID 0, key-frame header, filling.
pub(crate) fn vp8_payload(first: bool, len: usize, fill: u8) -> Vec<u8> {
    let mut payload = vec![fill; len.max(11)];
    payload[0] = if first { 0x10 } else { 0x00 };
    if first {
        payload[1..11].copy_from_slice(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00]);
    }
    payload
}

fn kind(kind: MediaKind) -> str0m::media::MediaKind {
    match kind {
        MediaKind::Audio => str0m::media::MediaKind::Audio,
        MediaKind::Video => str0m::media::MediaKind::Video,
    }
}

fn codec(codec: Codec, feedback: bool) -> CodecParams {
    CodecParams {
        pt: if codec == Codec::Opus { OPUS } else { VP8 },
        codec,
        profile: 0,
        rtx_pt: None,
        nack: feedback,
        pli: true,
        fir: false,
        transport_cc: feedback,
        ccfb: false,
        remb: false,
    }
}

fn session_media(index: u32, shape: Shape) -> SessionMedia {
    let codecs = [
        (MediaKind::Audio, Codec::Opus),
        (MediaKind::Video, Codec::Vp8),
    ];
    let mid = |n: u16| Mid::new(n.to_string().as_bytes()).unwrap();
    let mut extensions = vec![(4, HeaderExtension::Mid)];
    if shape.feedback {
        extensions.push((5, HeaderExtension::TransportCc));
    }
    SessionMedia {
        extensions,
        extmap_allow_mixed: false,
        receive: codecs
            .iter()
            .enumerate()
            .filter(|_| !shape.listens)
            .map(|(i, (kind, c))| ReceiveMedia {
                mid: mid(i as u16),
                kind: *kind,
                codecs: vec![codec(*c, shape.feedback)],
                rids: Vec::new(),
                ssrcs: vec![AnnouncedSsrc {
                    ssrc: 0x1000_0000 + index * 16 + i as u32,
                    rtx: None,
                }],
            })
            .collect(),
        slots: (0..2 * shape.slots)
            .map(|n| {
                let (kind, c) = codecs[usize::from(n % 2)];
                SlotMedia {
                    slot: SlotId(n),
                    mid: mid(n + 2),
                    kind,
                    codecs: vec![codec(c, shape.feedback)],
                    ssrc: SLOT_SSRC + u32::from(n),
                    rtx_ssrc: None,
                }
            })
            .collect(),
        rtcp_rsize: true,
    }
}

fn params(index: u32, rtc: &mut Rtc) -> WebRtcParams {
    let api = rtc.direct_api();
    let creds = api.local_ice_credentials();
    let fingerprint = api.local_dtls_fingerprint().bytes.clone();
    WebRtcParams {
        local_ufrag: format!("relay{index:06}"),
        local_pwd: "relay-password-with-22-chars".into(),
        remote_ufrag: creds.ufrag,
        remote_pwd: creds.pass,
        remote_fingerprint: fingerprint.try_into().unwrap(),
        sctp_port: Some(5_000),
    }
}

/// A time of the relay as the clients' clock has it.
pub(crate) fn instant(epoch: Instant, t: Time) -> Instant {
    epoch + Duration::from_nanos(t.as_nanos())
}

/// Every reply says that all went well.
pub(crate) fn assert_replies_ok(events: &[ShardEvent]) {
    for event in events {
        if let ShardEvent::Reply { request, result } = event {
            assert_eq!(*result, Ok(()), "{request:?}");
        }
    }
}
