//! Every limit and interval of the delivery service. Those that members obey too are in
//! `sealcast-group-wire`.

use std::time::Duration;

/// Shortest time between two epochs. Members aim at 200 ms; the rest is for the way's jitter.
pub const MIN_EPOCH: Duration = Duration::from_millis(150);

/// A participant that was asked for GroupInfo, or to create a group, answers within this time or
/// another one is asked.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// After a restart, members of one group are expected back within this time before the state that
/// most of them hold is taken up.
pub const REBUILD_WAIT: Duration = Duration::from_secs(2);

/// After a rebuild, a leaf whose owner has not come back is removed after this time: browsers back
/// off for up to 8 s between attempts.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(15);

/// Members report a commit that they refuse within this time. Then a majority has voided it, or
/// the few who refused are added again.
pub const REFUSAL_WINDOW: Duration = Duration::from_secs(1);

/// Proposals that nobody commits to for this long mean that the group is stuck: everybody starts
/// over. Members take over from each other every second, so fifteen of them have had their turn.
pub const STALLED_AFTER: Duration = Duration::from_secs(15);

/// Proposals in one epoch. More joins wait for the next one.
pub const MAX_PROPOSALS: usize = 64;

/// Past epochs whose handshakes are kept for members that reconnect.
pub const LOG_EPOCHS: usize = 16;

/// Bytes of kept handshakes, whatever their number.
pub const LOG_BYTES: usize = 1024 * 1024;

/// Messages that a participant may send at once. A join takes three, an epoch one or two.
pub const BURST: u32 = 30;

/// Messages per second that a participant may send for long.
pub const RATE: u32 = 10;
