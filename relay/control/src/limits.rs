//! Limits of the control plane that are not configuration keys, each with its reason.
//! Those of SDP stand in [`crate::sdp::limits`], those of media in [`sealcast_model::limits`].

use std::time::Duration;

/// One signalling message, bytes: an SDP of [`crate::sdp::limits::SDP_BYTES`] as a JSON string,
/// where every byte of it may need a backslash.
pub const MESSAGE_BYTES: usize = 256 * 1024;

/// A socket must send `join` or `resume` within this time.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// How often a client is pinged, which also keeps middleboxes from forgetting the connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// A socket silent for this long is dropped: three pings unanswered.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// One write to a client's socket may take this long before the client counts as gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages queued to one client. A room of 100 that joins at once makes 100 events; a client
/// that lags further behind is cut off and may resume from a snapshot.
pub const OUT_QUEUE: usize = 512;

/// Bytes queued to one client, unless it is a single message. The longest catch-up of a group, 1 MiB
/// of handshakes in base64, and a Welcome to a full group fit twice.
pub const OUT_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Requests one client may have waiting.
pub const OUTSTANDING: usize = 32;

/// Requests a second a client may send in the long run.
pub const REQUESTS_PER_SECOND: u32 = 50;

/// Requests a client may send at once.
pub const REQUEST_BURST: u32 = 100;

/// Frames of one track that a report is believed to be about: an hour at 120 a second.
pub const REPORTED_FRAMES: u32 = 432_000;

/// `bad_message` errors after which a socket is closed.
pub const BAD_MESSAGES: u32 = 10;

/// `rate_limited` errors after which a socket is closed.
pub const RATE_VIOLATIONS: u32 = 100;

/// Entries of one `slots` request: every slot of a session once.
pub const ASSIGNMENTS: usize = sealcast_model::limits::SLOTS_PER_SESSION;

/// KID contexts of one track: each encoding of a simulcast track, with room to change keys.
pub const CONTEXTS: usize = 8;

/// A shard answers within microseconds; one that does not within this time is overloaded.
pub const SHARD_REPLY: Duration = Duration::from_secs(5);

/// A bearer token, bytes. Tokens with every claim of the protocol take about 600.
pub const TOKEN_BYTES: usize = 4_096;

/// Keys a token may be verified with: the current one and some that are being rotated out.
pub const TOKEN_KEYS: usize = 16;

/// An HS256 secret, bytes: RFC 7518 §3.2, "A key of the same size as the hash output (for
/// instance, 256 bits for "HS256") or larger MUST be used".
pub const HS256_SECRET_BYTES: usize = 32;

/// Headers of one HTTP request, and their bytes. Browsers send about 20, in 1 KiB.
pub const HTTP_HEADERS: usize = 64;
/// See [`HTTP_HEADERS`].
pub const HTTP_HEADER_BYTES: usize = 16 * 1024;

/// Body of a request that is neither SDP nor a token request.
pub const SMALL_BODY: usize = 4 * 1024;

/// A TLS handshake must finish within this time.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// Seconds a client is asked to wait after a 503.
pub const RETRY_AFTER_SECONDS: u64 = 5;
