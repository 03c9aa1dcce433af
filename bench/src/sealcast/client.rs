//! A client of the shard: ICE, DTLS and the sealing of what it publishes, by str0m.

use crate::Result;
use crate::shape::{Topology, Traffic};
use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    AssignSlot, Codec, CodecParams, Command, HeaderExtension, MediaKind, Mid, ParticipantId,
    Publish, ReceiveMedia, RequestId, RoomId, SealRule, SessionId, SessionMedia, SlotId, SlotMedia,
    Source, TrackId, WebRtcParams,
};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;
use str0m::config::Fingerprint;
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, IceCreds, Input, Output, Rtc, RtcConfig};

/// The kinds of media, with payload type and source.
const KINDS: [(MediaKind, Codec, u8, Source); 2] = [
    (MediaKind::Audio, Codec::Opus, 111, Source::Audio),
    (MediaKind::Video, Codec::Vp8, 96, Source::Camera),
];
/// Slots have SSRCs from here on.
const SLOT_SSRC: u32 = 0x5000_0000;
/// Clients send on SSRCs from here on.
const CLIENT_SSRC: u32 = 0x1000_0000;

/// A connected or connecting client.
pub(super) struct Client {
    index: usize,
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    relay: SocketAddr,
    timeout: Instant,
    params: WebRtcParams,
    media: SessionMedia,
    /// Next sequence number of each kind.
    sequence: [u64; 2],
    timestamp: u32,
}

impl Client {
    pub(super) fn new(
        topology: &Topology,
        index: usize,
        socket: UdpSocket,
        relay: SocketAddr,
        fingerprint: [u8; 32],
    ) -> Result<Client> {
        let now = crate::clock::now();
        let local = socket.local_addr()?;
        let mut rtc = RtcConfig::new().set_rtp_mode(true).build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp")?);
        rtc.add_remote_candidate(Candidate::host(relay, "udp")?);
        let media = session_media(topology, index)?;
        let mut api = rtc.direct_api();
        let ours = api.local_ice_credentials();
        let params = WebRtcParams {
            local_ufrag: format!("bench{index:06}"),
            local_pwd: "a-password-of-22-characters".into(),
            remote_ufrag: ours.ufrag,
            remote_pwd: ours.pass,
            remote_fingerprint: api.local_dtls_fingerprint().bytes.as_slice().try_into()?,
            sctp_port: None,
        };
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: params.local_ufrag.clone(),
            pass: params.local_pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: fingerprint.to_vec(),
        });
        for receive in &media.receive {
            let kind = match receive.kind {
                MediaKind::Audio => str0m::media::MediaKind::Audio,
                MediaKind::Video => str0m::media::MediaKind::Video,
            };
            let mid = receive.mid.as_str().into();
            api.declare_media(mid, kind);
            for announced in &receive.ssrcs {
                api.declare_stream_tx(announced.ssrc.into(), None, mid, None);
            }
        }
        api.start_dtls(true)?;
        Ok(Client {
            index,
            rtc,
            socket,
            local,
            relay,
            timeout: now,
            params,
            media,
            sequence: [1, 1],
            timestamp: 0,
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.rtc.is_connected()
    }

    pub(super) fn publishes(&self) -> bool {
        !self.media.receive.is_empty()
    }

    /// The socket, to send from.
    pub(super) fn socket(&self) -> Result<UdpSocket> {
        Ok(self.socket.try_clone()?)
    }

    fn session(&self) -> SessionId {
        SessionId(self.index as u64 + 1)
    }

    /// The command that opens the session.
    pub(super) fn open(&self, topology: &Topology) -> Command {
        Command::OpenSession {
            request: RequestId(self.index as u64),
            session: self.session(),
            participant: ParticipantId(self.index as u64),
            room: RoomId((self.index / topology.members()) as u64),
            webrtc: Box::new(self.params.clone()),
            media: Box::new(self.media.clone()),
        }
    }

    /// The commands that publish what the client sends.
    pub(super) fn publish(&self) -> impl Iterator<Item = Command> {
        self.media
            .receive
            .iter()
            .zip(KINDS)
            .map(|(receive, (kind, _, _, source))| Command::Publish {
                request: RequestId(self.index as u64),
                publish: Box::new(Publish {
                    track: track(self.index, kind),
                    session: self.session(),
                    mid: receive.mid,
                    source,
                    seal: SealRule::Any,
                }),
            })
    }

    /// The command that shows every publisher of the room in a slot.
    pub(super) fn assign(&self, topology: &Topology, index: usize) -> Option<Command> {
        let assign: Vec<_> = topology
            .publishers_of(index)
            .flat_map(|p| KINDS.map(|(kind, ..)| track(p, kind)))
            .zip(&self.media.slots)
            .map(|(track, slot)| AssignSlot {
                slot: slot.slot,
                track: Some(track),
            })
            .collect();
        (!assign.is_empty()).then(|| Command::AssignSlots {
            request: RequestId(self.index as u64),
            session: self.session(),
            assign,
        })
    }

    /// Takes in what has arrived and sends what is due.
    pub(super) fn serve(&mut self, now: Instant) -> Result<()> {
        let mut buf = [0; 2_048];
        loop {
            match self.socket.recv(&mut buf) {
                Ok(len) => self.receive(now, &buf[..len])?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        if self.timeout <= now {
            self.rtc.handle_input(Input::Timeout(now))?;
            self.transmit()?;
        }
        Ok(())
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<()> {
        // Media is for the sink; str0m would keep state for each of its streams.
        if matches!(datagram, [128..=191, ..]) {
            return Ok(());
        }
        let receive = Receive {
            proto: Protocol::Udp,
            source: self.relay,
            destination: self.local,
            contents: datagram.try_into()?,
        };
        self.rtc.handle_input(Input::Receive(now, receive))?;
        self.transmit()
    }

    fn transmit(&mut self) -> Result<()> {
        for datagram in self.poll()? {
            self.socket.send_to(&datagram, self.relay)?;
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(timeout) => {
                    self.timeout = timeout;
                    return Ok(out);
                }
                Output::Transmit(transmit) => out.push(transmit.contents.to_vec()),
                Output::Event(_) => {}
            }
        }
    }

    /// The next `frames` frames of `traffic`, as they go over the wire. Audio is what is small.
    pub(super) fn seal_packets(
        &mut self,
        traffic: &Traffic,
        frames: usize,
        now: Instant,
    ) -> Result<Vec<Vec<u8>>> {
        let kind = usize::from(traffic.payload > 200);
        let (_, _, pt, _) = KINDS[kind];
        let ssrc = ssrc(self.index, kind);
        let mut packets = Vec::with_capacity(frames * traffic.frame);
        for frame in 0..frames {
            self.timestamp = self.timestamp.wrapping_add(3_000);
            for i in 0..traffic.frame {
                let payload = match kind {
                    0 => vec![0x5a; traffic.payload],
                    _ => vp8_payload(traffic.payload, frame == 0, i == 0),
                };
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx(&ssrc.into()).ok_or("the stream is gone")?;
                let sequence = self.sequence[kind];
                let packet =
                    RtpWrite::new(pt.into(), sequence.into(), self.timestamp, now, payload);
                stream.write_rtp(packet.marker(i + 1 == traffic.frame).nackable(false));
                self.sequence[kind] += 1;
                self.rtc.handle_input(Input::Timeout(now))?;
                for datagram in self.poll()? {
                    match datagram[..] {
                        [128..=191, second, ..] if second & 0x7f == pt => packets.push(datagram),
                        _ => {
                            self.socket.send_to(&datagram, self.relay)?;
                        }
                    }
                }
            }
        }
        if packets.len() != frames * traffic.frame {
            return Err("the publisher did not send what it was given".into());
        }
        Ok(packets)
    }
}

/// VP8 (RFC 7741 §4.2, §4.3): a descriptor of one byte, and the beginning of a frame.
fn vp8_payload(len: usize, key_frame: bool, first: bool) -> Vec<u8> {
    let mut payload = vec![0x5a; len];
    payload[0] = if first { 0x10 } else { 0 };
    if first && key_frame {
        payload[1..11].copy_from_slice(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0]);
    } else if first {
        payload[1] = 0x11;
    }
    payload
}

fn track(client: usize, kind: MediaKind) -> TrackId {
    TrackId(client as u64 * 2 + u64::from(kind == MediaKind::Video))
}

fn ssrc(client: usize, kind: usize) -> u32 {
    CLIENT_SSRC + (client * 2 + kind) as u32
}

fn mid(number: usize) -> Result<Mid> {
    Ok(Mid::new(number.to_string().as_bytes()).ok_or("a number is not a MID")?)
}

fn session_media(topology: &Topology, index: usize) -> Result<SessionMedia> {
    let codec = |codec, pt| CodecParams {
        pt,
        codec,
        profile: 0,
        rtx_pt: None,
        nack: false,
        pli: true,
        fir: false,
        transport_cc: false,
        remb: false,
    };
    let mut media = SessionMedia {
        extensions: vec![(4, HeaderExtension::Mid)],
        extmap_allow_mixed: false,
        receive: Vec::new(),
        slots: Vec::new(),
        rtcp_rsize: true,
    };
    if topology.publishes(index) {
        for (number, (kind, c, pt, _)) in KINDS.into_iter().enumerate() {
            media.receive.push(ReceiveMedia {
                mid: mid(number)?,
                kind,
                codecs: vec![codec(c, pt)],
                rids: Vec::new(),
                ssrcs: vec![AnnouncedSsrc {
                    ssrc: ssrc(index, number),
                    rtx: None,
                }],
            });
        }
    }
    let slots = topology.publishers_of(index).flat_map(|_| KINDS);
    for (number, (kind, c, pt, _)) in slots.enumerate() {
        media.slots.push(SlotMedia {
            slot: SlotId(number as u16),
            mid: mid(number + KINDS.len())?,
            kind,
            codecs: vec![codec(c, pt)],
            ssrc: SLOT_SSRC + number as u32,
            rtx_ssrc: None,
        });
    }
    Ok(media)
}
