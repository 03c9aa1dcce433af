//! A client of the shard: ICE, DTLS by OpenSSL with the SRTP profile of one's choice, SRTP.
//!
//! It does what a browser does that costs the relay anything (connectivity checks, congestion
//! feedback, reports), and as little else as possible, so that a thousand of them fit beside the
//! relay.

mod dtls;
mod link;
mod media;

use crate::shape::{Topology, Traffic};
use crate::{Result, clock};
pub use dtls::Identity;
pub use link::{Link, UdpLink};
pub use media::{Features, TRANSPORT_CC_ID, VIDEO_PT, slot_ssrc};
use sealcast_model::{
    AssignSlot, Command, MediaKind, MirrorSession, ParticipantId, Publish, RequestId, RoomId,
    SealRule, SessionId, ShardId, SlotId, WebRtcParams,
};
use sealcast_srtp::{Backend, Inbound, MasterKey, Outbound, OutboundStream, Profile};
use std::time::{Duration, Instant};
use str0m::crypto::CryptoProvider;
use str0m::ice::{StunMessage, TransId};

const LOCAL_PWD: &str = "a-password-of-22-characters";
const REMOTE_PWD: &str = "another-password-of-22-chars";
/// A step of a handshake that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an answer is looked for.
const GLANCE: Duration = Duration::from_micros(100);
/// Time between connectivity checks of a connected client, as browsers make them.
const CHECK_INTERVAL: Duration = Duration::from_millis(2_500);

/// What control would have agreed on with client `index`.
#[must_use]
pub fn params(index: usize, fingerprint: [u8; 32]) -> WebRtcParams {
    WebRtcParams {
        local_ufrag: format!("relay{index:06}"),
        local_pwd: LOCAL_PWD.into(),
        remote_ufrag: format!("client{index:06}"),
        remote_pwd: REMOTE_PWD.into(),
        remote_fingerprint: fingerprint,
        sctp_port: None,
    }
}

/// The command that opens the session of client `index`.
///
/// # Errors
/// If the topology needs more MIDs than there are.
pub fn open(
    topology: &Topology,
    features: Features,
    index: usize,
    fingerprint: [u8; 32],
) -> Result<Command> {
    Ok(Command::OpenSession {
        request: RequestId(index as u64),
        session: session(index),
        participant: ParticipantId(index as u64),
        room: RoomId((index / topology.members()) as u64),
        webrtc: Box::new(params(index, fingerprint)),
        media: Box::new(media::session_media(topology, features, index)?),
    })
}

/// The commands that publish what client `index` sends.
///
/// # Errors
/// As [`open`].
pub fn publish(topology: &Topology, features: Features, index: usize) -> Result<Vec<Command>> {
    let media = media::session_media(topology, features, index)?;
    let kinds = media.receive.iter().zip(media::KINDS);
    Ok(kinds
        .map(|(receive, (kind, _, _, source))| Command::Publish {
            request: RequestId(index as u64),
            publish: Box::new(Publish {
                track: media::track(index, kind),
                session: session(index),
                mid: receive.mid,
                source,
                seal: SealRule::Any,
            }),
        })
        .collect())
}

/// The commands by which another shard mirrors what client `index` publishes on `home`.
///
/// # Errors
/// As [`open`].
pub fn mirror(
    topology: &Topology,
    features: Features,
    index: usize,
    home: ShardId,
) -> Result<Vec<Command>> {
    let mirror = Command::Mirror(Box::new(MirrorSession {
        session: session(index),
        participant: ParticipantId(index as u64),
        room: RoomId((index / topology.members()) as u64),
        media: media::session_media(topology, features, index)?,
        home,
    }));
    let published = publish(topology, features, index)?.into_iter();
    let tracks = published.filter_map(|command| match command {
        Command::Publish { publish, .. } => Some(Command::MirrorTrack(publish)),
        _ => None,
    });
    Ok(std::iter::once(mirror).chain(tracks).collect())
}

/// The command that shows client `index` every publisher of its room, if there is one.
#[must_use]
pub fn assign(topology: &Topology, index: usize, slots: usize) -> Option<Command> {
    let assign: Vec<_> = topology
        .publishers_of(index)
        .flat_map(|publisher| {
            [MediaKind::Audio, MediaKind::Video].map(|kind| media::track(publisher, kind))
        })
        .enumerate()
        .map(|(slot, track)| AssignSlot {
            slot: SlotId(slot as u16),
            track: Some(track),
        })
        .take(slots)
        .collect();
    (!assign.is_empty()).then(|| Command::AssignSlots {
        request: RequestId(index as u64),
        session: session(index),
        assign,
    })
}

fn session(index: usize) -> SessionId {
    SessionId(index as u64 + 1)
}

/// A connected client.
pub struct Client<L = UdpLink> {
    index: usize,
    link: L,
    crypto: CryptoProvider,
    outbound: Outbound,
    inbound: Inbound,
    /// Audio, video.
    streams: [OutboundStream; 2],
    /// Next sequence number of each kind.
    sequence: [u16; 2],
    transport_sequence: u16,
    timestamp: u32,
    next_check: Instant,
}

impl<L: Link + Clone> Client<L> {
    /// Connects client `index` over `link` and offers `profile` alone. Its session must be open.
    ///
    /// # Errors
    /// If the relay does not answer in time, or with something else.
    pub fn connect(
        index: usize,
        link: L,
        identity: &Identity,
        relay_fingerprint: [u8; 32],
        profile: Profile,
    ) -> Result<Self> {
        let crypto = str0m::crypto::from_feature_flags();
        check(&crypto, index, &link)?;
        await_answer(&link)?;
        let material = dtls::handshake(link.clone(), identity, relay_fingerprint, profile)?;
        let (ours, relays) = MasterKey::pair_from_dtls(profile, &material)?;
        let mut outbound = Outbound::new(Backend::AwsLcRs, &ours)?;
        let streams = [
            outbound.stream(media::ssrc(index, 0))?,
            outbound.stream(media::ssrc(index, 1))?,
        ];
        Ok(Client {
            index,
            link,
            crypto,
            outbound,
            inbound: Inbound::new(Backend::AwsLcRs, &relays)?,
            streams,
            sequence: [1, 1],
            transport_sequence: 1,
            timestamp: 0,
            next_check: clock::now() + CHECK_INTERVAL,
        })
    }

    /// The way to the relay.
    #[must_use]
    pub fn link(&self) -> &L {
        &self.link
    }

    /// Sends a connectivity check if it is time for one. Nobody waits for the answer.
    ///
    /// # Errors
    /// If the link refuses.
    pub fn keep_alive(&mut self, now: Instant) -> Result<()> {
        if now >= self.next_check {
            self.next_check = now + CHECK_INTERVAL;
            self.check()?;
        }
        Ok(())
    }

    /// Sends a connectivity check now.
    ///
    /// # Errors
    /// If the link refuses.
    pub fn check(&self) -> Result<()> {
        check(&self.crypto, self.index, &self.link)
    }

    /// Seals an RTCP compound packet and sends it.
    ///
    /// # Errors
    /// If it cannot be sealed, or the socket refuses.
    pub fn send_rtcp(&mut self, packet: &[u8]) -> Result<()> {
        let mut out = [0; 1_500];
        let len = self.outbound.seal_rtcp(packet, &mut out)?;
        self.link.send(&out[..len])?;
        Ok(())
    }

    /// Opens what the relay sent, to see whether it is what it should be.
    ///
    /// # Errors
    /// If it is not.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<()> {
        self.inbound.open_rtp(packet)?;
        Ok(())
    }

    /// The next `frames` frames of `traffic`, as they go over the wire; the first of them may be a
    /// key frame.
    ///
    /// # Errors
    /// If a packet cannot be sealed.
    pub fn seal_frames(
        &mut self,
        traffic: &Traffic,
        frames: usize,
        key_frame: bool,
    ) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::with_capacity(frames * traffic.frame);
        for frame in 0..frames {
            self.timestamp = self.timestamp.wrapping_add(3_000);
            for i in 0..traffic.frame {
                packets.push(self.seal_packet(traffic, key_frame && frame == 0, i)?);
            }
        }
        Ok(packets)
    }

    /// Packet `i` of a frame, sealed.
    fn seal_packet(&mut self, traffic: &Traffic, key_frame: bool, i: usize) -> Result<Vec<u8>> {
        let kind = usize::from(traffic.is_video());
        let payload = media::payload(traffic, key_frame, i == 0);
        let header = media::header(
            kind,
            i + 1 == traffic.frame,
            self.sequence[kind],
            self.timestamp,
            media::ssrc(self.index, kind),
            self.transport_sequence,
        );
        self.sequence[kind] = self.sequence[kind].wrapping_add(1);
        self.transport_sequence = self.transport_sequence.wrapping_add(1);
        let mut out =
            vec![0; header.len() + payload.len() + self.outbound.profile().rtp_overhead()];
        let len = self
            .outbound
            .seal_rtp(&mut self.streams[kind], &header, &payload, &mut out)?;
        out.truncate(len);
        Ok(out)
    }
}

/// Sends a connectivity check that nominates the pair (RFC 8445 §7.2.2).
fn check(crypto: &CryptoProvider, index: usize, link: &impl Link) -> Result<()> {
    let params = params(index, [0; 32]);
    let name = format!("{}:{}", params.local_ufrag, params.remote_ufrag);
    let mut out = [0; 300];
    let len = StunMessage::binding_request(&name, TransId::new(), true, 1, 1, true).to_bytes(
        Some(params.local_pwd.as_bytes()),
        &mut out,
        |key, parts| crypto.sha1_hmac_provider.sha1_hmac(key, parts),
    )?;
    link.send(&out[..len])?;
    Ok(())
}

/// Waits for the answer to a connectivity check. Nothing else comes before DTLS.
fn await_answer(link: &impl Link) -> Result<()> {
    let start = clock::now();
    let mut buf = [0; 1_500];
    loop {
        match link.recv(&mut buf) {
            // RFC 8489 §5: a success response of the binding method.
            Ok(len) if buf.get(..len.min(2)) == Some(&[1, 1]) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => clock::sleep(GLANCE),
            Err(e) => return Err(e.into()),
        }
        if start.elapsed() > PATIENCE {
            return Err("the relay does not answer a connectivity check".into());
        }
    }
}
