//! The relay's side of a join, without its HTTP: negotiation, and the commands that follow.

#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

use sealcast_control::sdp::{LocalTransport, MediaPolicy, Role, host_candidates, negotiate, parse};
use sealcast_load::peer::{Answer, SenderParams};
use sealcast_model::{
    Codec, Command, Mid, ParticipantId, Publish, RequestId, RoomId, SealRule, SessionId, Source,
    TrackId, WebRtcParams,
};
use std::net::SocketAddr;

pub(crate) fn policy(repair: bool) -> MediaPolicy {
    MediaPolicy {
        audio: vec![Codec::Opus],
        video: vec![Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264],
        repair,
        transport_cc: false,
        simulcast: false,
    }
}

/// The relay's addresses and certificate.
pub(crate) struct RelaySide {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) tcp: Vec<SocketAddr>,
    pub(crate) policy: MediaPolicy,
}

impl RelaySide {
    /// What the relay does with an offer: a command for the shard, and the answer.
    pub(crate) fn open(&self, session: SessionId, room: RoomId, offer: &str) -> (Command, Answer) {
        let (ufrag, pwd) = (
            format!("ufrag{session}"),
            format!("relay-password-for-{session}"),
        );
        let local = LocalTransport {
            ufrag: ufrag.clone(),
            pwd: pwd.clone(),
            fingerprint: self.fingerprint,
            candidates: host_candidates(&self.udp, &self.tcp),
        };
        let mut random = session.0 as u32;
        let negotiated = negotiate(
            &parse(offer).unwrap(),
            &self.policy,
            Role::Interactive,
            &local,
            None,
            &mut || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                random
            },
        )
        .unwrap();
        let webrtc = WebRtcParams {
            local_ufrag: ufrag,
            local_pwd: pwd,
            remote_ufrag: negotiated.remote.ufrag.clone(),
            remote_pwd: negotiated.remote.pwd.clone(),
            remote_fingerprint: negotiated.remote.fingerprint,
            sctp_port: negotiated.sctp_port,
        };
        let command = Command::OpenSession {
            request: RequestId(session.0),
            session,
            participant: ParticipantId(session.0),
            room,
            webrtc: Box::new(webrtc),
            media: Box::new(negotiated.media.clone()),
        };
        (
            command,
            Answer::parse(&negotiated.answer.to_string()).unwrap(),
        )
    }
}

/// A sender's publication.
pub(crate) fn publish(
    track: TrackId,
    session: SessionId,
    sender: usize,
    params: &SenderParams,
    contexts: Vec<u64>,
) -> Command {
    Command::Publish {
        request: RequestId(track.0),
        publish: Box::new(Publish {
            track,
            session,
            mid: Mid::new(sender.to_string().as_bytes()).unwrap(),
            source: match params {
                SenderParams::Audio(_) => Source::Audio,
                SenderParams::Video(_) | SenderParams::Simulcast(_) => Source::Camera,
            },
            seal: if contexts.is_empty() {
                SealRule::Any
            } else {
                SealRule::Contexts(contexts)
            },
        }),
    }
}
