//! ICE-TCP (RFC 6544): passive connections that carry RFC 4571 frames.
//!
//! A stranger may open connections and send slowly, or not at all. So each has bounded memory, one
//! that no session uses is closed soon, and when all are taken the oldest unused one makes room for
//! the next.

mod frame;

use crate::config::{Bind, ShardIoConfig};
use crate::limits::{
    TCP_ACCEPTS_PER_TURN, TCP_KERNEL_SEND_BUFFER, TCP_READ_PER_TURN, TCP_SWEEP, TCP_USER_TIMEOUT,
};
use crate::sys::{Epoll, Ready, listen_tcp, set_tcp_options};
use frame::{FrameQueue, FrameReader, ReadEnd};
use sealcast_model::{Counter, Gauge, ShardStats, Time};
use sealcast_shard::{Path, Shard, Transport};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Set in the epoll token of a connection; the rest is its handle.
pub(crate) const CONNECTION: u64 = 1 << 63;

struct Connection {
    stream: TcpStream,
    path: Path,
    reader: FrameReader,
    queue: FrameQueue,
    opened: Time,
    /// A session has used it.
    used: bool,
    /// Watched for writing.
    blocked: bool,
    /// Has frames that this turn queued.
    dirty: bool,
}

/// The TCP side of a shard's I/O.
pub(crate) struct TcpSide {
    listeners: Vec<(TcpListener, Bind)>,
    connections: HashMap<u64, Connection>,
    limit: usize,
    /// How long a connection may be of no use to any session.
    unused: Duration,
    /// Never reused, so a late packet cannot go to somebody else.
    next_handle: u64,
    dirty: Vec<u64>,
    failed: Vec<u64>,
    next_sweep: Time,
}

impl TcpSide {
    /// Listens where the configuration says.
    pub(crate) fn new(config: &ShardIoConfig) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(config.tcp.len());
        for bind in &config.tcp {
            listeners.push((listen_tcp(bind.addr)?, *bind));
        }
        Ok(TcpSide {
            listeners,
            connections: HashMap::new(),
            limit: config.tcp_connections,
            unused: config.tcp_unused,
            next_handle: 0,
            dirty: Vec::new(),
            failed: Vec::new(),
            next_sweep: Time::NEVER,
        })
    }

    /// Watches the listeners, with tokens from `first` on.
    pub(crate) fn watch(&self, epoll: &Epoll, first: u64) -> io::Result<()> {
        for ((listener, _), token) in self.listeners.iter().zip(first..) {
            epoll.add(listener, token)?;
        }
        Ok(())
    }

    /// Where it listens, as clients are to be told.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|(listener, bind)| Ok(bind.announced(listener.local_addr()?)))
            .collect()
    }

    /// Accepts what waits at a listener.
    pub(crate) fn accept(&mut self, now: Time, listener: usize, epoll: &Epoll, shard: &mut Shard) {
        for _ in 0..TCP_ACCEPTS_PER_TURN {
            let Some((socket, bind)) = self.listeners.get(listener) else {
                return;
            };
            let bind = *bind;
            match socket.accept() {
                Ok((stream, remote)) => {
                    shard.stats().add(Counter::TcpAccepted, 1);
                    if let Err(e) = self.adopt(now, stream, remote, bind, epoll, shard) {
                        tracing::debug!(error = %e, "ICE-TCP connection lost at once");
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // The peer is gone already, or the process has no more file descriptors.
                Err(e) => {
                    tracing::debug!(error = %e, "accept failed");
                    shard.stats().add(Counter::TcpRefused, 1);
                    return;
                }
            }
        }
    }

    fn adopt(
        &mut self,
        now: Time,
        stream: TcpStream,
        remote: SocketAddr,
        bind: Bind,
        epoll: &Epoll,
        shard: &mut Shard,
    ) -> io::Result<()> {
        if self.connections.len() >= self.limit && !self.evict(now, shard) {
            shard.stats().add(Counter::TcpRefused, 1);
            return Ok(());
        }
        set_tcp_options(&stream, TCP_KERNEL_SEND_BUFFER, TCP_USER_TIMEOUT)?;
        let handle = self.next_handle;
        epoll.add(&stream, CONNECTION | handle)?;
        self.next_handle += 1;
        let path = Path {
            transport: Transport::Tcp(handle),
            local: bind.announced(stream.local_addr()?),
            remote,
        };
        self.connections.insert(
            handle,
            Connection {
                stream,
                path,
                reader: FrameReader::new(),
                queue: FrameQueue::default(),
                opened: now,
                used: false,
                blocked: false,
                dirty: false,
            },
        );
        self.next_sweep = self.next_sweep.min(now + TCP_SWEEP);
        self.report(shard.stats());
        Ok(())
    }

    /// Makes room by closing the oldest connection that no session uses. False if all are in use.
    fn evict(&mut self, now: Time, shard: &mut Shard) -> bool {
        let oldest = self
            .connections
            .iter()
            .filter(|(_, c)| !c.used)
            .min_by_key(|(handle, _)| **handle)
            .map(|(handle, _)| *handle);
        let Some(handle) = oldest else { return false };
        shard.stats().add(Counter::TcpExpired, 1);
        self.close(now, handle, shard);
        true
    }

    /// Reads and writes what a connection is ready for.
    pub(crate) fn handle_ready(
        &mut self,
        now: Time,
        ready: Ready,
        epoll: &Epoll,
        shard: &mut Shard,
    ) {
        let handle = ready.token & !CONNECTION;
        if ready.writable {
            self.write(handle, epoll, shard.stats());
        }
        if !ready.readable {
            return;
        }
        let Some(connection) = self.connections.get_mut(&handle) else {
            return;
        };
        let Connection {
            stream,
            reader,
            path,
            used,
            ..
        } = connection;
        let end = reader.read(stream, TCP_READ_PER_TURN, |packet| {
            shard.stats().add(Counter::DatagramsIn, 1);
            shard.handle_datagram(now, now, path, packet);
            *used = *used || shard.is_routed(path);
        });
        match end {
            ReadEnd::Dry | ReadEnd::Share => {}
            ReadEnd::Closed => self.close(now, handle, shard),
            ReadEnd::TooLong => {
                shard.stats().add(Counter::DropTcpFraming, 1);
                self.close(now, handle, shard);
            }
        }
    }

    /// There are no connections.
    pub(crate) fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Queues a packet for a connection. False if it was dropped, and counted.
    pub(crate) fn push(&mut self, handle: u64, packet: &[u8], stats: &ShardStats) -> bool {
        let Some(connection) = self.connections.get_mut(&handle) else {
            stats.add(Counter::DropNoPath, 1);
            return false;
        };
        if !connection.queue.push(packet) {
            stats.add(Counter::DropTcpBackpressure, 1);
            return false;
        }
        stats.add(Counter::DatagramsOut, 1);
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(handle);
        }
        true
    }

    /// Writes what was queued.
    pub(crate) fn write_dirty(&mut self, epoll: &Epoll, stats: &ShardStats) {
        while let Some(handle) = self.dirty.pop() {
            self.write(handle, epoll, stats);
        }
    }

    fn write(&mut self, handle: u64, epoll: &Epoll, stats: &ShardStats) {
        let Some(connection) = self.connections.get_mut(&handle) else {
            return;
        };
        connection.dirty = false;
        stats.add(Counter::SendCalls, 1);
        let result = connection.queue.write(&mut connection.stream);
        let blocked = matches!(result, Ok(false));
        let mut alive = result.is_ok();
        if alive && blocked != connection.blocked {
            connection.blocked = blocked;
            let watched = epoll.watch_writable(&connection.stream, CONNECTION | handle, blocked);
            alive = watched.is_ok();
        }
        if !alive {
            self.failed.push(handle);
        }
    }

    /// Closes connections that failed while writing, and those that no session uses.
    pub(crate) fn sweep(&mut self, now: Time, shard: &mut Shard) {
        while let Some(handle) = self.failed.pop() {
            self.close(now, handle, shard);
        }
        if now < self.next_sweep {
            return;
        }
        let mut unused = Vec::new();
        for (handle, connection) in &mut self.connections {
            let routed = shard.is_routed(&connection.path);
            // Once its session has left, a connection is of no use to anybody.
            if !routed && (connection.used || now - connection.opened > self.unused) {
                unused.push(*handle);
            }
        }
        for handle in unused {
            shard.stats().add(Counter::TcpExpired, 1);
            self.close(now, handle, shard);
        }
        self.next_sweep = if self.connections.is_empty() {
            Time::NEVER
        } else {
            now + TCP_SWEEP
        };
    }

    /// When [`sweep`](Self::sweep) wants to be called.
    pub(crate) fn poll_timeout(&self) -> Time {
        if self.failed.is_empty() {
            self.next_sweep
        } else {
            Time::ZERO
        }
    }

    fn close(&mut self, now: Time, handle: u64, shard: &mut Shard) {
        if let Some(connection) = self.connections.remove(&handle) {
            shard.tcp_closed(now, &connection.path);
            self.report(shard.stats());
        }
    }

    fn report(&self, stats: &ShardStats) {
        stats.set(Gauge::TcpConnections, self.connections.len() as u64);
    }
}
