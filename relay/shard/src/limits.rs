//! Limits of one shard, each with its reason.

use sealcast_model::limits::{DATA_MESSAGE_MAX, DATAGRAM_MAX};

/// Bytes of the egress arena. Sealed packets are read by the kernel while they are still in the
/// second-level cache of the core that wrote them, which holds 1 MiB on current servers.
pub const EGRESS_ARENA: usize = 256 * 1024;

/// Runs in one egress batch: as many as the arena holds audio packets of half a kibibyte.
pub const EGRESS_RUNS: usize = 512;

/// Datagrams in one egress batch: as many as the arena holds of the shortest audio packets.
pub const EGRESS_DATAGRAMS: usize = 4_096;

/// Arrivals in one egress batch: packets of one track with one arrival time. As many as one turn
/// receives messages.
pub const EGRESS_ARRIVALS: usize = 1_024;

/// Datagrams in one run. `UDP_MAX_SEGMENTS` of Linux up to 6.8; later kernels take 128.
pub const SEGMENTS_PER_RUN: usize = 64;

/// Bytes in one run: the largest payload of an IPv4 datagram.
pub const RUN_BYTES: usize = 65_507;

/// Events that wait for the control plane. Beyond, data messages are dropped and counted, and no
/// further commands are taken until it has caught up.
pub const EVENTS: usize = sealcast_model::limits::EVENT_QUEUE;

/// Bytes of data messages among the waiting events.
pub const EVENT_DATA_BYTES: usize = 8 * 1024 * 1024;

/// Addresses that may lead to one session at once. Clients probe from a handful of interfaces; a
/// peer that shows more is not a client.
pub const PATHS_PER_SESSION: usize = 16;

/// Messages on their way from one shard to another: what a shard forwards in ten milliseconds of
/// 100,000 incoming packets a second, in which the other one has taken its turn if it ever will.
pub const MESH_LANE: usize = 1_024;

/// Places of a lane that packets leave free for what is said about them.
pub const MESH_RESERVE: usize = 128;

/// Buffers that a shard lends to all others together: two full lanes of packets, 3 MiB. They are
/// made when another shard wants the first packet.
pub const MESH_BUFFERS: usize = 2_048;

/// 5-tuples of other shards that a shard knows where shards share a port, and announcements that
/// wait: the paths of some thousand sessions.
pub const MESH_ROUTES: usize = 65_536;

/// Messages taken from one other shard in a turn, so that sockets get theirs.
pub const MESH_PER_TURN: usize = 512;

const _: () = assert!(EGRESS_ARENA > 2 * RUN_BYTES && RUN_BYTES > DATAGRAM_MAX);
const _: () = assert!(EVENT_DATA_BYTES > DATA_MESSAGE_MAX);
