//! Limits of a shard's sockets, each with its reason.

use std::time::Duration;

/// Calls of `recvmmsg` on one socket before other work gets its turn.
pub const RECEIVE_ROUNDS: usize = 4;

/// Commands carried out before packets get their turn.
pub const COMMANDS_PER_TURN: usize = 64;

/// How long one turn may wait, in all, for a full socket buffer to empty. Longer, and packets that
/// arrive meanwhile are late; a network card drains a full buffer in less.
pub const SEND_WAIT: Duration = Duration::from_millis(2);

/// A transmit timestamp that has not come back by then is lost. Queues of devices hold packets for
/// milliseconds.
pub const STAMP_PATIENCE: Duration = Duration::from_secs(1);

/// Entries taken from a socket's error queue before other work gets its turn. One stamp at a time
/// is under way; more comes from elsewhere.
pub const ERRORS_PER_READ: usize = 16;

/// A hardware timestamp is believed if it is at most this much older than the kernel's own; else
/// the device's clock is not that of the system.
pub const HARDWARE_LEAD: Duration = Duration::from_millis(10);

/// Longest that arriving datagrams may wait for others. A frame's packets come within less, and
/// nobody hears or sees it.
pub const COALESCE_MAX: Duration = Duration::from_millis(1);

/// How soon events that the control plane did not take are offered again.
pub const EVENT_RETRY: Duration = Duration::from_millis(5);

/// Bytes that one TCP connection may be behind. Two seconds of a 1 Mbit/s call: a client that is
/// further behind is better served by losing packets.
pub const TCP_SEND_QUEUE: usize = 256 * 1024;

/// Bytes of a TCP connection's send buffer in the kernel, where nothing can be dropped any more.
pub const TCP_KERNEL_SEND_BUFFER: usize = 64 * 1024;

/// Bytes read from one TCP connection before others get their turn.
pub const TCP_READ_PER_TURN: usize = 64 * 1024;

/// Bytes of a TCP connection's receive buffer: several of the longest frames.
pub const TCP_RECEIVE_BUFFER: usize = 8 * 1024;

/// A TCP connection that no session uses is closed after this time, unless configured otherwise.
/// ICE authenticates with the first packets.
pub const TCP_UNUSED: Duration = Duration::from_secs(10);

/// How often TCP connections are checked for being unused.
pub const TCP_SWEEP: Duration = Duration::from_secs(1);

/// A TCP connection whose peer acknowledges nothing for this time is dead; as RFC 7675 §5.1 has it
/// for consent.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections accepted from one listener before other work gets its turn.
pub const TCP_ACCEPTS_PER_TURN: usize = 16;

/// How long a stopping shard waits for its last events to be taken.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
