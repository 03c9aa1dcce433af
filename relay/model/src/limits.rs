//! Every limit of the relay that is not a configuration key, in one place, each with its reason.

use std::time::Duration;

/// Largest datagram accepted or sent, bytes: an Ethernet MTU. Larger ones are dropped and counted.
pub const DATAGRAM_MAX: usize = 1_500;

/// Bytes of one packet-pool slot: [`DATAGRAM_MAX`] rounded up so that slots do not share lines.
pub const PACKET_SLOT: usize = 1_536;

/// Receive slots (relay to client m-lines) one session may negotiate. Covers a 50-party room
/// with audio and video for everyone at once.
pub const SLOTS_PER_SESSION: usize = 128;

/// Tracks one session may publish: camera, microphone, screen with audio, and several images.
pub const TRACKS_PER_SESSION: usize = 16;

/// Incoming SSRCs one session may bind: each track's simulcast layers with their RTX.
pub const SSRCS_PER_SESSION: usize = 64;

/// RIDs on one m-line (RFC 8853). Browsers offer three.
pub const RIDS_PER_MEDIA: usize = 4;

/// Codecs kept per m-line after filtering to the relay's list.
pub const CODECS_PER_MEDIA: usize = 16;

/// Header extensions of one session. Fourteen one-byte ids exist; browsers offer up to 17.
pub const EXTENSIONS_PER_SESSION: usize = 24;

/// One data-channel message, bytes. Signalling notices are under 200; sealed metadata under 16 Ki.
pub const DATA_MESSAGE_MAX: usize = 16 * 1024;

/// Sealed messages a second that a client may send in the long run on each lane, signalling and
/// data channel: names, chat, strokes, a pointer that moves. Each is copied to everybody in the
/// room.
pub const SEALED_PER_SECOND: u32 = 20;

/// Sealed messages a client may send at once on each lane.
pub const SEALED_BURST: u32 = 60;

/// Commands queued to one shard. A full queue answers `busy` to the client that caused it.
pub const COMMAND_QUEUE: usize = 4_096;

/// Events queued from one shard. Data messages are dropped and counted when it is full.
pub const EVENT_QUEUE: usize = 8_192;

/// A session that has not finished ICE and DTLS by then is closed.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// RFC 7675 §5.1: consent to send lapses 30 seconds after the last valid check.
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// At most one upstream key-frame request per encoding in this time.
pub const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(500);
