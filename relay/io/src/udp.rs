//! A shard's UDP sockets: where datagrams come from, and how batches leave.

use crate::clock::Clock;
use crate::config::{Bind, ShardIoConfig};
use crate::limits::{ERRORS_PER_READ, SEND_WAIT};
use crate::sampler::TxSampler;
use crate::sys::{
    Datagram, Epoll, Left, MESSAGES, Message, SendBatch, UdpOptions, bind_udp, steer, take_error,
    wait_writable,
};
use sealcast_model::{Counter, ShardStats};
use sealcast_shard::{EgressBatch, Path, Run, SendReport, Transport};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

/// Segments up to this size fit every link that carries IPv6 (RFC 8200 §5: 1,280 bytes), so that a
/// kernel that will not cut them up does not do it for any size.
const SEGMENT_FITS_ANY_LINK: usize = 1_232;

struct Socket {
    socket: UdpSocket,
    bind: Bind,
    port: u16,
    /// The kernel segments what is sent here.
    gso: bool,
    sampler: TxSampler,
}

/// What sending a batch needs beside the sockets.
pub(crate) struct Sending<'a> {
    pub(crate) batch: &'a EgressBatch,
    pub(crate) report: &'a mut SendReport,
    pub(crate) clock: &'a Clock,
    pub(crate) stats: &'a ShardStats,
}

/// The UDP side of a shard's I/O.
pub(crate) struct UdpSide {
    sockets: Vec<Socket>,
    sending: SendBatch,
    /// Indices of the runs that one socket sends.
    chosen: Vec<u32>,
    /// May still be waited in this turn for full socket buffers.
    patience: bool,
}

impl UdpSide {
    pub(crate) fn new(config: &ShardIoConfig) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(config.udp.len());
        for bind in &config.udp {
            let options = UdpOptions {
                receive_buffer: config.receive_buffer,
                send_buffer: config.send_buffer,
                gro: config.gro,
                packet_info: bind.addr.ip().is_unspecified(),
                hardware_stamps: config.hardware_stamps,
                share_port: config.share_port,
            };
            let socket = bind_udp(bind.addr, &options)?;
            if config.share_port {
                steer(&socket)?;
            }
            let port = socket.local_addr()?.port();
            sockets.push(Socket {
                socket,
                bind: *bind,
                port,
                gso: config.gso,
                sampler: TxSampler::new(config.stamp_interval),
            });
        }
        Ok(UdpSide {
            sockets,
            sending: SendBatch::new(),
            chosen: Vec::with_capacity(sealcast_shard::limits::EGRESS_RUNS),
            patience: true,
        })
    }

    /// Watches the sockets, with tokens from `first` on.
    pub(crate) fn watch(&self, epoll: &Epoll, first: u64) -> io::Result<()> {
        for (socket, token) in self.sockets.iter().zip(first..) {
            epoll.add(&socket.socket, token)?;
        }
        Ok(())
    }

    /// Where they are bound, as clients are to be told. Unspecified addresses stay so.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets
            .iter()
            .map(|s| Ok(s.bind.announced(s.socket.local_addr()?)))
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.patience = true;
    }

    /// A socket, to receive from.
    pub(crate) fn socket(&self, index: usize) -> Option<&UdpSocket> {
        self.sockets.get(index).map(|s| &s.socket)
    }

    /// The 5-tuple of a message that a socket received.
    pub(crate) fn path_of(&self, index: usize, message: &Message<'_>) -> Option<Path> {
        let socket = self.sockets.get(index)?;
        let ip = message.to.unwrap_or(socket.bind.addr.ip());
        Some(Path {
            transport: Transport::Udp,
            local: socket.bind.announced(SocketAddr::new(ip, socket.port)),
            remote: message.from,
        })
    }

    /// Sends the batch's UDP runs.
    pub(crate) fn send(&mut self, mut sending: Sending<'_>) {
        for index in 0..self.sockets.len() {
            let mut chosen = std::mem::take(&mut self.chosen);
            chosen.clear();
            for (i, run) in sending.batch.runs().iter().enumerate() {
                if run.path.transport == Transport::Udp && self.socket_of(&run.path) == Some(index)
                {
                    chosen.push(i as u32);
                }
            }
            self.send_chosen(index, &mut sending, &chosen);
            self.chosen = chosen;
        }
    }

    /// Takes transmit timestamps, and whatever else there is, out of a socket's error queue.
    pub(crate) fn read_stamps(&mut self, index: usize, clock: &Clock, stats: &ShardStats) {
        let Some(socket) = self.sockets.get_mut(index) else {
            return;
        };
        for _ in 0..ERRORS_PER_READ {
            match take_error(&socket.socket) {
                Ok(Some(Left::Transmitted { id, at })) => {
                    if let Some(at) = clock.stamps().map(Some(at)) {
                        socket.sampler.stamped(id, at, stats);
                    }
                    // Should there be more all the same, epoll will tell.
                    if !socket.sampler.is_waiting() {
                        return;
                    }
                }
                Ok(Some(Left::Other)) => {}
                Ok(None) => return,
                Err(e) => return tracing::debug!(error = %e, "reading an error queue failed"),
            }
        }
    }

    /// The socket that has the path's local address.
    fn socket_of(&self, path: &Path) -> Option<usize> {
        if self.sockets.len() == 1 {
            return Some(0);
        }
        let is = |s: &Socket| s.port == path.local.port() && s.sends_from(path.local.ip());
        self.sockets.iter().position(is)
    }

    /// Sends runs of the batch by one socket.
    fn send_chosen(&mut self, index: usize, sending: &mut Sending<'_>, chosen: &[u32]) {
        let Sending { batch, stats, .. } = *sending;
        let run = |i: &u32| batch.runs().get(*i as usize);
        let mut rest = chosen;
        let mut started = sending.clock.now();
        while let (Some(first), Some(socket)) =
            (rest.first().and_then(run), self.sockets.get_mut(index))
        {
            if !socket.gso && first.segments() > 1 {
                self.send_segments(index, sending, rest[0] as usize);
                rest = &rest[1..];
                started = sending.clock.now();
                continue;
            }
            let count = rest.len().min(MESSAGES);
            let packet = |i: usize| batch.packet(rest.get(i).and_then(run)?, 0).copied();
            let picked = socket.sampler.pick(started, count, packet, stats);
            let messages = rest
                .iter()
                .filter_map(run)
                .take_while(|run| socket.gso || run.segments() == 1)
                .enumerate()
                .map(|(i, run)| Datagram {
                    stamp: picked.is_some_and(|(picked, _)| picked == i),
                    ..message(&socket.bind, batch, run)
                });
            stats.add(Counter::SendCalls, 1);
            match self.sending.send(&socket.socket, messages) {
                Ok(sent) => {
                    let (sent, left) = rest.split_at(sent.clamp(1, rest.len()));
                    let done = sending.clock.now();
                    let mut datagrams = 0;
                    for i in sent {
                        let segments = run(i).map_or(0, Run::segments);
                        let to = *i as usize;
                        sending.report.taken(to, segments, started, done);
                        datagrams += segments as u64;
                    }
                    stats.add(Counter::MessagesOut, sent.len() as u64);
                    stats.add(Counter::DatagramsOut, datagrams);
                    let packets = picked.and_then(|(i, _)| sent.get(i).and_then(run));
                    let packets = packets.map_or(0, Run::segments);
                    if socket.sampler.sent(picked, sent.len(), packets, started) {
                        self.read_stamps(index, sending.clock, stats);
                    }
                    rest = left;
                    started = done;
                }
                Err(e) => {
                    if self.on_error(index, sending, rest[0] as usize, &e) {
                        rest = &rest[1..];
                    }
                    started = sending.clock.now();
                }
            }
        }
    }

    /// Deals with a refusal of the `at`-th run. True if the run is dealt with, false to try it
    /// again.
    fn on_error(
        &mut self,
        index: usize,
        sending: &mut Sending<'_>,
        at: usize,
        error: &io::Error,
    ) -> bool {
        let stats = sending.stats;
        let (Some(socket), Some(run)) = (self.sockets.get_mut(index), sending.batch.runs().get(at))
        else {
            return true;
        };
        if error.kind() == ErrorKind::Interrupted {
            return false;
        }
        if error.kind() == ErrorKind::WouldBlock {
            if std::mem::take(&mut self.patience) && wait_writable(socket.socket.as_fd(), SEND_WAIT)
            {
                return false;
            }
            stats.add(Counter::DropSendBuffer, run.segments() as u64);
            return true;
        }
        if run.segments() > 1 && is_gso_refusal(error) {
            stats.add(Counter::GsoRefused, 1);
            // EIO: no checksum offload on this route. EINVAL: a segment is longer than the path
            // takes, unless it is so short that it cannot be that.
            let never = error.raw_os_error() == Some(libc::EIO)
                || run.segment_size <= SEGMENT_FITS_ANY_LINK;
            if never && socket.gso {
                socket.gso = false;
                tracing::warn!(%error, "UDP segmentation offload refused; sending one by one");
            }
            self.send_segments(index, sending, at);
            return true;
        }
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => stats.add(Counter::DropSendBuffer, run.segments() as u64),
            _ => stats.add(Counter::SendErrors, run.segments() as u64),
        }
        true
    }

    /// Sends the `at`-th run datagram by datagram.
    fn send_segments(&mut self, index: usize, sending: &mut Sending<'_>, at: usize) {
        let Sending { batch, stats, .. } = *sending;
        let (Some(socket), Some(run)) = (self.sockets.get_mut(index), batch.runs().get(at)) else {
            return;
        };
        let total = run.segments();
        let mut done = 0;
        while done < total {
            let started = sending.clock.now();
            let packet = |i: usize| batch.packet(run, done + i).copied();
            let count = (total - done).min(MESSAGES);
            let picked = socket.sampler.pick(started, count, packet, stats);
            let datagrams = batch.datagrams(run).skip(done).enumerate();
            let messages = datagrams.map(|(i, bytes)| Datagram {
                bytes,
                segment_size: None,
                stamp: picked.is_some_and(|(picked, _)| picked == i),
                ..message(&socket.bind, batch, run)
            });
            stats.add(Counter::SendCalls, 1);
            match self.sending.send(&socket.socket, messages) {
                Ok(sent) => {
                    stats.add(Counter::MessagesOut, sent as u64);
                    stats.add(Counter::DatagramsOut, sent as u64);
                    let now = sending.clock.now();
                    sending.report.taken(at, sent, started, now);
                    // Its stamp is read with the next, or when epoll tells of it.
                    socket.sampler.sent(picked, sent, 1, started);
                    done += sent.max(1);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if std::mem::take(&mut self.patience)
                        && wait_writable(socket.socket.as_fd(), SEND_WAIT)
                    {
                        continue;
                    }
                    return stats.add(Counter::DropSendBuffer, (total - done) as u64);
                }
                Err(_) => {
                    stats.add(Counter::SendErrors, 1);
                    done += 1;
                }
            }
        }
    }
}

impl Socket {
    /// Whether datagrams from `ip` leave by this socket.
    fn sends_from(&self, ip: IpAddr) -> bool {
        let own = self.bind.addr.ip();
        if own.is_unspecified() && self.bind.public.is_none() {
            own.is_ipv4() == ip.is_ipv4()
        } else {
            self.bind.public.unwrap_or(own) == ip
        }
    }
}

/// A run as a message of the socket bound as `bind`.
fn message<'a>(bind: &Bind, batch: &'a EgressBatch, run: &Run) -> Datagram<'a> {
    // Only a socket of several addresses must be told which to use; behind a translation the
    // routing table knows.
    let several = bind.addr.ip().is_unspecified() && bind.public.is_none();
    Datagram {
        to: run.path.remote,
        source: several.then(|| run.path.local.ip()),
        bytes: batch.bytes(run),
        segment_size: (run.segments() > 1)
            .then(|| u16::try_from(run.segment_size).unwrap_or(u16::MAX)),
        stamp: false,
    }
}

/// Whether the kernel would not cut a message up.
fn is_gso_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ReceiveBatch, refuse_segmentation};
    use sealcast_model::ShardId;

    fn side(bind: &str, gso: bool, gro: bool) -> UdpSide {
        let mut config = ShardIoConfig::new(ShardId(0));
        config.udp = vec![Bind::new(bind.parse().unwrap())];
        (config.gso, config.gro) = (gso, gro);
        UdpSide::new(&config).unwrap()
    }

    /// Sends a batch and says how many datagrams of each run were taken.
    fn send(side: &mut UdpSide, batch: &EgressBatch, stats: &ShardStats) -> Vec<usize> {
        let mut report = SendReport::default();
        report.begin(batch.runs().len());
        side.send(Sending {
            batch,
            report: &mut report,
            clock: &Clock::start(),
            stats,
        });
        let runs = 0..batch.runs().len();
        runs.map(|run| report.datagrams(run)).collect()
    }

    fn path(from: &UdpSide, to: &UdpSide) -> Path {
        Path {
            transport: Transport::Udp,
            local: from.addresses().unwrap()[0],
            remote: to.addresses().unwrap()[0],
        }
    }

    /// `lens` as one batch from one side to the other; what arrived, datagram by datagram.
    fn carry(from: &mut UdpSide, to: &UdpSide, lens: &[usize], stats: &ShardStats) -> Vec<Vec<u8>> {
        let path = path(from, to);
        let mut batch = EgressBatch::new();
        for (i, len) in lens.iter().enumerate() {
            assert!(batch.append(&path, &vec![i as u8; *len]));
        }
        from.begin_turn();
        let taken = send(from, &batch, stats);
        let runs = batch.runs().iter().map(Run::segments);
        assert_eq!(taken, runs.collect::<Vec<_>>());
        let mut received = ReceiveBatch::new(16);
        let mut datagrams = Vec::new();
        while received.receive(to.socket(0).unwrap()).unwrap() > 0 {
            for message in (0..received.capacity()).map_while(|i| received.message(i)) {
                assert_eq!(to.path_of(0, &message).unwrap().remote, path.local);
                let parts = message.bytes.chunks(message.segment_size.max(1));
                datagrams.extend(parts.map(<[u8]>::to_vec));
            }
        }
        datagrams
    }

    fn expected(lens: &[usize]) -> Vec<Vec<u8>> {
        let datagram = |(i, len): (usize, &usize)| vec![i as u8; *len];
        lens.iter().enumerate().map(datagram).collect()
    }

    /// A run of more segments than one call takes, one with a shorter end, and a longer datagram.
    fn lens() -> Vec<usize> {
        let mut lens = vec![1_100; 70];
        lens.extend([1_100, 400, 1_200]);
        lens
    }

    #[test]
    fn runs_arrive_whole_with_and_without_offload() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            for (gso, gro) in [(true, true), (true, false), (false, true), (false, false)] {
                let stats = ShardStats::default();
                let (mut from, to) = (side(bind, gso, gro), side(bind, gso, gro));
                let got = carry(&mut from, &to, &lens(), &stats);
                assert_eq!(got, expected(&lens()), "{bind} gso {gso} gro {gro}");
                assert_eq!(stats.get(Counter::DatagramsOut), lens().len() as u64);
                assert_eq!(stats.get(Counter::SendCalls) == 1, gso);
                // Without offload a message is a datagram; with it, all but the run's long end.
                let messages = stats.get(Counter::MessagesOut);
                assert_eq!(messages == lens().len() as u64, !gso, "{messages}");
            }
        }
    }

    #[test]
    fn a_kernel_that_refuses_to_segment_is_asked_once() {
        let stats = ShardStats::default();
        let (mut from, to) = (
            side("127.0.0.1:0", true, false),
            side("127.0.0.1:0", true, false),
        );
        refuse_segmentation(from.socket(0).unwrap()).unwrap();
        for _ in 0..3 {
            assert_eq!(carry(&mut from, &to, &lens(), &stats), expected(&lens()));
        }
        assert_eq!(stats.get(Counter::GsoRefused), 1);
        assert_eq!(stats.get(Counter::DatagramsOut), 3 * lens().len() as u64);
        assert_eq!(stats.get(Counter::SendErrors), 0);
    }

    #[test]
    fn one_bad_destination_costs_no_other() {
        let stats = ShardStats::default();
        let (mut from, to) = (
            side("127.0.0.1:0", true, false),
            side("127.0.0.1:0", true, false),
        );
        let good = path(&from, &to);
        // From loopback there is no route to the world.
        let bad = Path {
            remote: "192.0.2.1:9".parse().unwrap(),
            ..good
        };
        let mut batch = EgressBatch::new();
        for path in [&bad, &good, &bad, &good] {
            assert!(batch.append(path, &[7; 300]));
        }
        assert_eq!(send(&mut from, &batch, &stats), [0, 1, 0, 1]);
        assert_eq!(stats.get(Counter::SendErrors), 2);
        assert_eq!(stats.get(Counter::DatagramsOut), 2);
    }

    #[test]
    fn an_unspecified_socket_answers_from_where_it_was_asked() {
        let stats = ShardStats::default();
        let (mut client, mut server) = (
            side("127.0.0.1:0", true, true),
            side("0.0.0.0:0", true, true),
        );
        let port = server.addresses().unwrap()[0].port();
        let asked: SocketAddr = ([127, 0, 0, 3], port).into();
        let mut batch = EgressBatch::new();
        let to_server = Path {
            remote: asked,
            ..path(&client, &server)
        };
        assert!(batch.append(&to_server, b"asking"));
        send(&mut client, &batch, &stats);
        let mut received = ReceiveBatch::new(4);
        assert_eq!(received.receive(server.socket(0).unwrap()).unwrap(), 1);
        let back = server.path_of(0, &received.message(0).unwrap()).unwrap();
        assert_eq!(back.local, asked);
        let mut batch = EgressBatch::new();
        assert!(batch.append(&back, b"answering"));
        send(&mut server, &batch, &stats);
        assert_eq!(received.receive(client.socket(0).unwrap()).unwrap(), 1);
        assert_eq!(received.message(0).unwrap().from, asked);
    }

    #[test]
    fn behind_a_translation_paths_have_the_public_address() {
        let mut config = ShardIoConfig::new(ShardId(0));
        config.udp = vec![Bind {
            addr: "127.0.0.1:0".parse().unwrap(),
            public: Some("203.0.113.9".parse().unwrap()),
        }];
        let mut server = UdpSide::new(&config).unwrap();
        let port = server.addresses().unwrap()[0].port();
        assert_eq!(
            server.addresses().unwrap(),
            [SocketAddr::from(([203, 0, 113, 9], port))]
        );
        let client = side("127.0.0.1:0", true, true);
        let back = Path {
            local: server.addresses().unwrap()[0],
            ..path(&server, &client)
        };
        let mut batch = EgressBatch::new();
        assert!(batch.append(&back, b"answering"));
        send(&mut server, &batch, &ShardStats::default());
        let mut received = ReceiveBatch::new(1);
        assert_eq!(received.receive(client.socket(0).unwrap()).unwrap(), 1);
    }
}
