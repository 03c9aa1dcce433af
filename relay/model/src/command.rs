//! The two queues between the control plane and a shard.

use crate::ids::{ParticipantId, RequestId, RoomId, SessionId, ShardId, SlotId, TrackId};
use crate::media::{Mid, SealRule, SessionMedia, Source, WebRtcParams};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

/// Control plane to shard. Every `request` gets exactly one [`Event::Reply`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Build a session and put its participant into a room, creating the room if needed.
    OpenSession {
        /// Answered when the session takes packets.
        request: RequestId,
        /// The new session.
        session: SessionId,
        /// Whose it is. One session per participant.
        participant: ParticipantId,
        /// The participant's room, on this shard.
        room: RoomId,
        /// ICE and DTLS parameters.
        webrtc: Box<WebRtcParams>,
        /// Negotiated media.
        media: Box<SessionMedia>,
    },
    /// The client renegotiated: m-lines were added or changed. ICE and DTLS stay.
    UpdateMedia {
        /// Answered when packets of the new m-lines are taken.
        request: RequestId,
        /// The session.
        session: SessionId,
        /// All m-lines, old and new. Slots keep their SSRC.
        media: Box<SessionMedia>,
    },
    /// End a session and everything it publishes and receives.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Sent on in the [`Event::SessionClosed`].
        reason: CloseReason,
    },
    /// Make an m-line of a session a track of its room.
    Publish {
        /// Answered when the track can be subscribed to.
        request: RequestId,
        /// The track.
        publish: Box<Publish>,
    },
    /// End a track. Slots that show it fall empty.
    Unpublish {
        /// The track.
        track: TrackId,
    },
    /// Have a mirror of a session that is on another shard, so that its tracks can be shown to
    /// those of its room who are on this one. If it is there already, its media is brought up to
    /// date. It ends with [`Command::CloseSession`], of which no event is sent.
    Mirror(Box<MirrorSession>),
    /// Make a track of a mirrored session one that can be shown here. It ends with
    /// [`Command::Unpublish`].
    MirrorTrack(Box<Publish>),
    /// Forward nothing of a track while muted.
    SetMuted {
        /// The track.
        track: TrackId,
        /// Muted or not.
        muted: bool,
    },
    /// Change what a session's slots show. All or nothing.
    AssignSlots {
        /// Answered when the assignment is in force.
        request: RequestId,
        /// The receiving session.
        session: SessionId,
        /// The changes.
        assign: Vec<AssignSlot>,
    },
    /// How large slots are shown. A session that is gone, or a slot that is not there, is ignored.
    SizeSlots {
        /// The receiving session.
        session: SessionId,
        /// The sizes.
        sizes: Vec<SlotSize>,
    },
    /// Send a data-channel message to sessions of one room, where their channels are open and take
    /// it; who does not get it is counted.
    SendData {
        /// The sessions.
        sessions: Vec<SessionId>,
        /// Binary or text.
        binary: bool,
        /// At most [`limits::DATA_MESSAGE_MAX`](crate::limits::DATA_MESSAGE_MAX) bytes.
        data: Vec<u8>,
    },
    /// Stop: close every session, then end the shard's thread.
    Stop,
}

/// A session to mirror.
#[derive(Clone, Debug)]
pub struct MirrorSession {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub participant: ParticipantId,
    /// The participant's room.
    pub room: RoomId,
    /// What was negotiated with it.
    pub media: SessionMedia,
    /// The shard that it is on.
    pub home: ShardId,
}

/// A track to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The new track.
    pub track: TrackId,
    /// The publishing session.
    pub session: SessionId,
    /// The m-line that carries it.
    pub mid: Mid,
    /// What it shows.
    pub source: Source,
    /// The structural check on its payloads.
    pub seal: SealRule,
}

/// One slot's new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignSlot {
    /// The slot.
    pub slot: SlotId,
    /// The track to show, or none.
    pub track: Option<TrackId>,
}

/// How large a slot is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSize {
    /// The slot.
    pub slot: SlotId,
    /// Pixels; 0 if hidden.
    pub width: u16,
    /// Pixels; 0 if hidden.
    pub height: u16,
}

/// Shard to control plane.
#[derive(Clone, Debug)]
pub enum Event {
    /// The answer to a command.
    Reply {
        /// The command's request.
        request: RequestId,
        /// What came of it.
        result: Result<(), CommandError>,
    },
    /// ICE and DTLS are done and media flows.
    SessionConnected {
        /// The session.
        session: SessionId,
        /// The transport that carries it now.
        transport: TransportKind,
        /// Negotiated DTLS version, `"1.2"` or `"1.3"`.
        dtls: &'static str,
        /// Negotiated SRTP profile, by its IANA name.
        srtp_profile: &'static str,
    },
    /// The session is gone; its tracks and subscriptions with it.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// The session's data channel is open.
    DataOpen {
        /// The session.
        session: SessionId,
    },
    /// A data-channel message from the client. Of these there are no more than
    /// [`limits::SEALED_PER_SECOND`](crate::limits::SEALED_PER_SECOND) from one session.
    Data {
        /// The session.
        session: SessionId,
        /// Binary or text.
        binary: bool,
        /// At most [`limits::DATA_MESSAGE_MAX`](crate::limits::DATA_MESSAGE_MAX) bytes.
        data: Vec<u8>,
    },
    /// The structural check failed: the track is blocked until published anew.
    TrackBlocked {
        /// The track.
        track: TrackId,
    },
    /// The first packet of a track arrived.
    TrackStarted {
        /// The track.
        track: TrackId,
    },
}

/// Why a command was refused. `code` of each is part of docs/PROTOCOL.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The session does not exist (any more).
    #[error("no such session")]
    NoSession,
    /// The track does not exist (any more), or is in another room.
    #[error("no such track")]
    NoTrack,
    /// The slot or m-line does not exist in this session, or has the wrong kind.
    #[error("no such slot")]
    NoSlot,
    /// The m-line already carries a track.
    #[error("the m-line already carries a track")]
    MidInUse,
    /// The receiving client did not negotiate the track's codec.
    #[error("the receiver did not negotiate the track's codec")]
    CodecUnsupported,
    /// A limit of the shard is reached.
    #[error("a limit of the relay is reached")]
    Limit,
    /// The shard's queue is full or the shard is stopping.
    #[error("the relay is busy")]
    Busy,
    /// The parameters do not fit together.
    #[error("the parameters do not fit together")]
    Invalid,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The client or the control plane asked for it.
    Requested,
    /// ICE and DTLS did not finish in time.
    ConnectTimeout,
    /// No STUN consent for [`limits::CONSENT_TIMEOUT`](crate::limits::CONSENT_TIMEOUT).
    ConsentLost,
    /// The DTLS handshake failed or the certificate was not the announced one.
    DtlsFailed,
    /// The peer closed DTLS.
    PeerClosed,
    /// The relay is stopping.
    Stopping,
    /// A bug in the relay was contained to this session.
    Internal,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [CloseReason; 7] = [
        CloseReason::Requested,
        CloseReason::ConnectTimeout,
        CloseReason::ConsentLost,
        CloseReason::DtlsFailed,
        CloseReason::PeerClosed,
        CloseReason::Stopping,
        CloseReason::Internal,
    ];

    /// Its name on the wire and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Requested => "requested",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::ConsentLost => "consent_lost",
            CloseReason::DtlsFailed => "dtls_failed",
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::Stopping => "stopping",
            CloseReason::Internal => "internal",
        }
    }
}

/// UDP or ICE-TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// UDP.
    Udp,
    /// RFC 6544 passive candidate with RFC 4571 framing.
    Tcp,
}

/// Wakes a shard that waits for packets.
pub trait Wake: Send + Sync {
    /// Makes the shard look at its command queue. Cheap; may be called from any thread.
    fn wake(&self);
}

/// The control plane's end of a shard's command queue.
#[derive(Clone)]
pub struct CommandSender {
    queue: SyncSender<Command>,
    wake: Arc<dyn Wake>,
}

impl CommandSender {
    /// A sender into `queue` that calls `wake` after each command.
    #[must_use]
    pub fn new(queue: SyncSender<Command>, wake: Arc<dyn Wake>) -> Self {
        CommandSender { queue, wake }
    }

    /// Queues a command without waiting.
    ///
    /// # Errors
    /// [`CommandError::Busy`] if the queue is full or the shard is gone.
    pub fn send(&self, command: Command) -> Result<(), CommandError> {
        match self.queue.try_send(command) {
            Ok(()) => {
                self.wake.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(CommandError::Busy),
        }
    }
}
