//! Every limit of the media plane that is not a contract with other parts, each with its reason.
//! Limits that the control plane must know too are in [`sealcast_model::limits`].

use std::time::Duration;

/// A jump of more sequence numbers than this is a restart of the stream, not loss
/// (`MAX_DROPOUT`, RFC 3550 §A.1).
pub const SEQUENCE_DROPOUT: u64 = 3_000;

/// How far behind the newest packet of its stream one may arrive, in packets: four seconds of
/// 5 Mbit/s video. A power of two. Older ones and repetitions are dropped.
pub const RECEIVE_WINDOW: usize = 2_048;

/// Numbering segments that a rewriter remembers: about a second of dropping every other frame at
/// 60 frames a second. Packets that arrive later than that are dropped.
pub const REWRITER_SEGMENTS: usize = 32;

/// Unsealed frames in a row that block a track. One may be a bit error that CRC and SRTP missed
/// or an encoder's placeholder; a publisher that does not seal sends nothing else.
pub const SEAL_VIOLATIONS: u8 = 5;

/// How far behind its highest a frame's counter may be, in frames: half a minute of video. Frames
/// are reordered by fractions of a second; a counter that starts again has broken the key.
pub const SEAL_COUNTER_WINDOW: u64 = 1_024;

/// Key ids whose counters are remembered per stream. Keys change when somebody joins or leaves;
/// frames of the previous key may still be under way.
pub const SEAL_KEYS: usize = 4;

/// Packets in a row that may pass without the start of their frame having been seen, as when it
/// is lost or overtaken. More than any frame that a browser sends.
pub const SEAL_UNCHECKED: u16 = 512;

/// Key-frame requests in a row that a stream may ignore while it sends nothing at all. As soon as
/// it sends again it is asked again.
pub const KEYFRAME_SILENT_RETRIES: u8 = 10;

/// A simulcast encoding that has sent nothing for this long is taken for stopped. Three frames of
/// a slow screen share, and far over any encoder's pause.
pub const ENCODING_IDLE: Duration = Duration::from_millis(1_000);

/// Mean interval of a session's RTCP reports. RFC 4585 §3.4 allows less than the five seconds of
/// RFC 3550; browsers take bandwidth and lip-sync from reports and send about one a second.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(1_000);

/// A slot that shows something new reports by then, so that its receiver can lip-sync soon.
pub const FIRST_REPORT: Duration = Duration::from_millis(100);

/// Timers of one kind run together on this grid: at most 100 wake-ups a second however many
/// sessions there are.
pub const TIMER_GRID: Duration = Duration::from_millis(10);

/// A publisher that has sent no sender report for this long is given one by arrival times.
pub const SENDER_REPORT_PATIENCE: Duration = Duration::from_secs(4);

/// Publisher and relay clock may disagree with their first offset by this much before the offset
/// is set anew. More than queueing delays of a congested uplink.
pub const CLOCK_JUMP: Duration = Duration::from_secs(2);

/// How fast the offset between two clocks follows delays that stay longer, for each sender
/// report: ten times the drift of bad quartz.
pub const CLOCK_CREEP: Duration = Duration::from_micros(500);

/// Longest RTCP datagram sent: fits the least MTU of IPv6 (1,280) with IP, UDP, SRTCP and a tunnel.
pub const RTCP_MAX: usize = 1_150;

/// Longest RTP header written: 12 bytes fixed, 4 of extension header, and every element the relay
/// writes at its longest in two-byte form (3 + 2 + 16 + 1 + 1 + 3 + 16 + 255 and 2 each), padded.
pub const HEADER_MAX: usize = 332;

/// Packets that wait for one flush. A receive batch is a few hundred; a shard that never flushes
/// is stopped here.
pub const INBOX_MAX: usize = 65_536;

/// As [`TIMER_GRID`], for NACKs, where milliseconds count.
pub const NACK_GRID: Duration = Duration::from_millis(2);

/// Retransmissions that one RTCP datagram may ask for. A NACK may name 17 packets in four bytes;
/// no receiver misses more than this between two of its reports.
pub const NACKED_PER_DATAGRAM: usize = 256;

/// Round trip to a publisher that none of its reports has told.
pub const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(100);

/// Layer rates are measured over this long: a few frames of a slow stream, and far below what a
/// subscriber's queue forgives.
pub const METER_INTERVAL: Duration = Duration::from_millis(500);

/// As [`METER_INTERVAL`], for a stream's first rates.
pub const METER_FIRST: Duration = Duration::from_millis(200);

/// How often a subscriber's bandwidth is divided anew when nothing calls for it sooner.
pub const ALLOCATION_INTERVAL: Duration = Duration::from_millis(200);

/// A client that has not sent a single feedback packet for this long after the first packet sent
/// to it gets everything, as one that negotiated none: it cannot be helped.
pub const FEEDBACK_WANTED: Duration = Duration::from_secs(3);

/// How often a room's voices are looked at, while somebody sends any.
pub const ATTENTION_INTERVAL: Duration = Duration::from_millis(100);

/// Audio tracks of a room that are forwarded unless it is set up otherwise: as many as can be told
/// apart, and some to spare. The others are left out until they are louder.
pub const LOUDEST: usize = 8;

/// An encoding that nobody has got for this long is switched off at its publisher. Switching one
/// on costs a key frame and half a second, so it does not follow every change of a window.
pub const ENCODING_UNWANTED: Duration = Duration::from_secs(5);

/// A path is new for this long after the first packet: two probes' time over any but satellite
/// paths. Until then its subscriber gets the smallest encodings, and single ones whole.
pub const STARTING: Duration = Duration::from_millis(1_000);

/// Clients are told the estimate of their path at most this often, and only when it has moved by
/// one part in [`ESTIMATE_STEP`]: it is for people to look at.
pub const ESTIMATE_NOTICE: Duration = Duration::from_secs(1);
/// See [`ESTIMATE_NOTICE`].
pub const ESTIMATE_STEP: u64 = 20;

/// A subscriber's path is never believed to carry more, bits per second: what its send log can
/// account for, which holds 2,048 packets and so a fifth of a second of this. Feedback takes a round
/// trip and a tenth of a second at most.
pub const ESTIMATE_MAX: u64 = 100_000_000;

/// Packets that wait in one subscriber's pacer: a quarter of a second, which is as long as any does,
/// of 20 Mbit/s. Where one more comes, all that waits of the stream that waits longest is dropped,
/// and its picture goes on with a key frame.
pub const PACED_MAX: usize = 512;

/// Padding packets sent in one turn of a probe: two milliseconds of 50 Mbit/s.
pub const PADDING_PER_TURN: usize = 64;

/// How often histories give up what is too old. Streams that send do so with each packet; this is
/// for those that have stopped.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(1_000);

/// Histories take no further packets, and give up what they hold, while less than one part in this
/// many of the pool is free: what arrives goes before what may be asked for again.
pub const POOL_RESERVE: usize = 4;

/// How often a track's home is told again what is wanted of it: a message that was lost delays a
/// picture by this much at most.
pub const MIRROR_REFRESH: Duration = Duration::from_millis(500);

/// Round trip between two shards, as far as asking again is concerned: both take their turn within
/// it unless one is overloaded, and then asking more often would not help.
pub const MIRROR_ROUND_TRIP: Duration = Duration::from_millis(20);

/// Packets that other shards may ask for between two flushes: a full ring of them.
pub const MIRROR_REPAIRS: usize = 1_024;

/// Tracks that are not mirrored any more and whose home does not know yet.
pub const MIRRORS_PARTED: usize = 4_096;

/// While this many packets or fewer are to be sealed slowly, those that were sealed before may wait
/// for it: at a microsecond each, that is what a system call of their own would cost.
pub const SLOW_LEGS_UNNOTICED: usize = 8;

/// While a queue drains, a subscriber's bandwidth is divided as if it were less, but not under this
/// share of the estimate, in percent: the lowest layers of everything then still fit where all of
/// them did at half their frame rate, and a full queue is gone in a second or two.
pub const DRAINING_LEAST: u64 = 40;
