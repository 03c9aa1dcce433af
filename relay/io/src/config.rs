//! What an operator may set about one shard's thread and sockets.

use crate::limits::TCP_UNUSED;
use sealcast_model::ShardId;
use sealcast_shard::ShardConfig;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One address to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where to bind; port 0 takes any.
    pub addr: SocketAddr,
    /// The address that clients use, if it is translated on the way (1:1 NAT). The port stays.
    pub public: Option<IpAddr>,
}

impl Bind {
    /// Without translation.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Bind { addr, public: None }
    }

    /// The address that clients know `local` by.
    pub(crate) fn announced(&self, local: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.public.unwrap_or(local.ip()), local.port())
    }
}

/// One shard's thread and sockets.
#[derive(Clone, Debug)]
pub struct ShardIoConfig {
    /// Which shard it is; names the thread.
    pub id: ShardId,
    /// The core to pin the thread to, one of [`usable_cores`](crate::usable_cores).
    pub core: Option<usize>,
    /// Real-time priority of the thread (`SCHED_FIFO`), 1..=99; 0: as any other thread.
    pub realtime_priority: u8,
    /// The engine's size.
    pub shard: ShardConfig,
    /// UDP sockets: at most one for each address family and address.
    pub udp: Vec<Bind>,
    /// ICE-TCP listeners; may be empty.
    pub tcp: Vec<Bind>,
    /// Bytes of each UDP socket's receive buffer. The kernel caps it at `net.core.rmem_max`.
    pub receive_buffer: usize,
    /// Bytes of each UDP socket's send buffer. The kernel caps it at `net.core.wmem_max`.
    pub send_buffer: usize,
    /// Messages taken by one receive call, 1..=1,024; 64 KiB of address space each.
    pub receive_batch: usize,
    /// Send runs of datagrams in one piece (UDP_SEGMENT).
    pub gso: bool,
    /// Receive runs of datagrams in one piece (UDP_GRO).
    pub gro: bool,
    /// After the first datagram has arrived, wait this long for more, at most
    /// [`COALESCE_MAX`](crate::limits::COALESCE_MAX), so that what arrives close together leaves
    /// together. Every packet is later by up to that. Zero: nothing waits.
    pub coalesce: Duration,
    /// One message in so many is asked for a transmit timestamp, on average; 0: none.
    pub stamp_interval: u32,
    /// Believe receive timestamps of network devices whose clock follows the system's.
    pub hardware_stamps: bool,
    /// Share the addresses of `udp` with the other shards: datagrams that the kernel gives to the
    /// wrong one are handed on by their mesh. Shards must be bound in the order of their ids.
    pub share_port: bool,
    /// ICE-TCP connections at once.
    pub tcp_connections: usize,
    /// An ICE-TCP connection that no session uses is closed after this time.
    pub tcp_unused: Duration,
}

impl ShardIoConfig {
    /// The defaults, without any socket.
    #[must_use]
    pub fn new(id: ShardId) -> Self {
        ShardIoConfig {
            id,
            core: None,
            realtime_priority: 0,
            shard: ShardConfig::default(),
            udp: Vec::new(),
            tcp: Vec::new(),
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            receive_batch: 64,
            gso: true,
            gro: true,
            coalesce: Duration::ZERO,
            stamp_interval: 128,
            hardware_stamps: false,
            share_port: false,
            tcp_connections: 1_024,
            tcp_unused: TCP_UNUSED,
        }
    }
}
