//! Every limit of a session that is not shared with other crates, each with its reason.

use std::time::Duration;

/// Paths a client may have open at once: its interfaces times our candidates (IPv4, IPv6, TCP)
/// come to about ten. The one that was silent longest makes room for a new one.
pub const PATHS: usize = 16;

/// After the path has moved, SRTP on another path does not move it back for this long: packets
/// that were on their way when the client switched still arrive.
pub const ROAM_HOLD: Duration = Duration::from_millis(500);

/// Data channels a client may open beside the session's. It needs none; further ones are closed.
pub const OTHER_CHANNELS: usize = 4;

/// Bytes queued for a client's data channel before `send_data` refuses: sixteen messages of the
/// largest size.
pub const DATA_BUFFER: usize = 256 * 1024;

/// Largest DTLS datagram sent, bytes: IPv6's minimum MTU less IPv6 and UDP headers is 1,232.
pub const DTLS_MTU: usize = 1_200;

/// First retransmission of a DTLS flight. RFC 9147 §5.8.2: "It is RECOMMENDED that for DTLS-SRTP
/// (RFC 5764), a default timeout of 400 ms be used".
pub const DTLS_FIRST_RETRY: Duration = Duration::from_millis(400);

/// DTLS datagrams that wait for the client to nominate a path: a flight with a long certificate,
/// twice. The oldest makes room, and comes again with the flight.
pub const DTLS_WAITING: usize = 16;

/// Retransmissions of a flight: with doubling, the last is sent before the connect deadline.
pub const DTLS_RETRIES: usize = 5;

/// Resolution of the session's timers.
pub const TIMER_STEP: Duration = Duration::from_millis(1);

/// Errors that str0m may report while its output is drained once; more is a bug of ours.
pub(crate) const DRAIN_ERRORS: usize = 32;
