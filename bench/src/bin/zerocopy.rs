//! Whether the kernel sends for less without copying, or by io_uring.
//!
//! `cargo run --release -p bench --bin zerocopy` sends the batch shapes of the relay, 100 messages of
//! so many datagrams, by `sendmmsg`, by `sendmmsg` with `MSG_ZEROCOPY`, and by io_uring with
//! `SENDMSG`, `SENDMSG_ZC` and `SEND_ZC` from registered buffers, in turns in one run. Sealing is not
//! in it, but the bytes are written anew for each frame, so that they lie in the cache where sealing
//! would have left them. Buffers that are lent to the kernel are written again only when it has given
//! them back.
//!
//! With `--veth` the receivers are in a network namespace of their own, behind a pair of virtual
//! Ethernet devices; that takes root.

#![expect(
    unsafe_code,
    reason = "system calls that the standard library does not offer"
)]

use bench::cli::Place;
use bench::report::chart::{Bar, bars};
use bench::report::{Page, Results, short};
use bench::sink::set_option;
use bench::veth::Veth;
use bench::{Result, clock, cpu};
use clap::Parser;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages of a frame, one for each receiver.
const RECEIVERS: usize = 100;
/// Bytes of a datagram: a sealed packet of 1,100 bytes of payload.
const DATAGRAM: usize = 1_136;
/// Frames whose buffers may be lent at once.
const LENT: usize = 8;
/// `IORING_SEND_ZC_REPORT_USAGE`, and what its notification says of data that were copied.
const REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: i32 = i32::MIN;
/// `SO_EE_ORIGIN_ZEROCOPY` and `SO_EE_CODE_ZEROCOPY_COPIED`.
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_COPIED: u8 = 1;
/// A buffer that is not given back within this time never is.
const PATIENCE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_micros(100);

#[derive(Parser)]
struct Arguments {
    /// Datagrams sent in one measurement.
    #[arg(long, default_value_t = 80_000)]
    packets: usize,
    /// Measurements of each; the median counts.
    #[arg(long, default_value_t = 7)]
    repetitions: usize,
    /// Also over virtual Ethernet into another network namespace.
    #[arg(long)]
    veth: bool,
    #[command(flatten)]
    place: Place,
}

/// What one way of sending came to.
#[derive(Debug, Serialize)]
struct Row {
    over: &'static str,
    /// Datagrams of a message.
    frame: usize,
    way: &'static str,
    /// CPU time per datagram, ns.
    user: f64,
    system: f64,
    total: f64,
    /// Times what `sendmmsg` took.
    by: f64,
    /// Share of lent buffers that the kernel says it copied after all.
    copied: Option<f64>,
    /// Share of what was sent that arrived.
    arrived: f64,
}

/// A whole run.
#[derive(Debug, Serialize)]
struct Report {
    repetitions: usize,
    rows: Vec<Row>,
}

/// How a frame is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Copy,
    ZeroCopy,
    Ring,
    RingZeroCopy,
    RingRegistered,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::Copy,
        Way::ZeroCopy,
        Way::Ring,
        Way::RingZeroCopy,
        Way::RingRegistered,
    ];

    fn name(self) -> &'static str {
        match self {
            Way::Copy => "sendmmsg",
            Way::ZeroCopy => "sendmmsg, MSG_ZEROCOPY",
            Way::Ring => "io_uring SENDMSG",
            Way::RingZeroCopy => "io_uring SENDMSG_ZC",
            Way::RingRegistered => "io_uring SEND_ZC, registered",
        }
    }
}

fn main() -> ExitCode {
    bench::exit_code("zerocopy", measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let mut report = Report {
        repetitions: arguments.repetitions,
        rows: Vec::new(),
    };
    let loopback = Receivers::new(Ipv4Addr::LOCALHOST, arguments.place.other_cpu)?;
    let rows = measure_over("loopback", Ipv4Addr::LOCALHOST, &loopback, arguments)?;
    report.rows.extend(rows);
    drop(loopback);
    if arguments.veth {
        let veth = Veth::new()?;
        let receivers = veth.inside(|| Receivers::new(Veth::THERE, arguments.place.other_cpu))?;
        let rows = measure_over("veth", Veth::HERE, &receivers, arguments)?;
        report.rows.extend(rows);
    }
    let out = &arguments.place.out;
    Results::new(&report, &[]).publish(out, "zerocopy", &report.table(), report.page())
}

impl Report {
    fn table(&self) -> String {
        let mut out = format!(
            "{RECEIVERS} messages a frame, datagrams of {DATAGRAM} bytes; ns of CPU per datagram, medians of {}\n\
             {:<10} {:>6} {:<30} {:>6} {:>7} {:>7} {:>10} {:>9} {:>9}\n",
            self.repetitions,
            "over",
            "frame",
            "",
            "user",
            "system",
            "total",
            "×sendmmsg",
            "copied",
            "arrived"
        );
        for row in &self.rows {
            let copied = row
                .copied
                .map_or("–".into(), |c| format!("{:.0} %", 100.0 * c));
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{:<10} {:>6} {:<30} {:>6.0} {:>7.0} {:>7.0} {:>10.2} {copied:>9} {:>7.0} %",
                row.over,
                row.frame,
                row.way,
                row.user,
                row.system,
                row.total,
                row.by,
                100.0 * row.arrived
            );
        }
        out
    }

    fn page(&self) -> Page {
        let bar = |(i, row): (usize, &Row)| Bar {
            label: format!("{}, frames of {} · {}", row.over, row.frame, row.way),
            parts: vec![(row.user, 0), (row.system, 1)],
            note: format!("{} ns, ×{:.2}", short(row.total), row.by),
            begins_group: i.is_multiple_of(Way::ALL.len()),
            ..Bar::default()
        };
        let rows: Vec<Bar> = self.rows.iter().enumerate().map(bar).collect();
        Page::new(
            "Zero copy and io_uring",
            "What sending costs by each way that the kernel offers, without sealing. What a local \
             socket receives is copied after all, so this shows what lending buffers costs, and not \
             what a network card saves.",
        )
        .plot(
            "CPU per datagram, ns",
            "× says how much more than by sendmmsg, by which the relay sends.",
            &bars(&rows, &[("user", 0), ("system", 1)]),
        )
    }
}

fn measure_over(
    over: &'static str,
    from: Ipv4Addr,
    receivers: &Receivers,
    arguments: &Arguments,
) -> Result<Vec<Row>> {
    cpu::pin_to(arguments.place.cpu)?;
    let mut rows = Vec::new();
    let mut meter = cpu::Meter::open(cpu::ThreadId::current());
    for segments in [1, 4, 16] {
        let frames = (arguments.packets / RECEIVERS / segments).max(1);
        let datagrams = (frames * RECEIVERS * segments) as f64;
        let mut costs = Way::ALL.map(|_| Vec::new());
        let (mut copied, mut arrived) = (Way::ALL.map(|_| (0, 0)), Way::ALL.map(|_| 0));
        for repetition in 0..=arguments.repetitions {
            for (i, way) in Way::ALL.into_iter().enumerate() {
                let mut sender = Sender::new(from, way, segments, &receivers.addresses)?;
                let before = receivers.settled();
                let start = meter.read()?;
                for frame in 0..frames {
                    sender.send(frame)?;
                }
                sender.reclaim_all()?;
                let cost = start.until(&meter.read()?);
                if repetition > 0 {
                    costs[i].push((cost.user_ns / datagrams, cost.system_ns / datagrams));
                    copied[i].0 += sender.copied;
                    copied[i].1 += sender.returned;
                    arrived[i] += receivers.settled() - before;
                }
            }
        }
        let sent = datagrams * arguments.repetitions as f64 * DATAGRAM as f64;
        let mut least = None;
        for (i, way) in Way::ALL.into_iter().enumerate() {
            let user = median(costs[i].iter().map(|c| c.0).collect());
            let system = median(costs[i].iter().map(|c| c.1).collect());
            let total = median(costs[i].iter().map(|c| c.0 + c.1).collect());
            let by = total / *least.get_or_insert(total);
            rows.push(Row {
                over,
                frame: segments,
                way: way.name(),
                user,
                system,
                total,
                by,
                copied: match copied[i] {
                    (_, 0) => None,
                    (copied, of) => Some(copied as f64 / of as f64),
                },
                arrived: arrived[i] as f64 / sent,
            });
        }
    }
    Ok(rows)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sockets that are drained by a thread.
struct Receivers {
    addresses: Vec<SocketAddrV4>,
    received: Arc<std::sync::atomic::AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receivers {
    fn new(at: Ipv4Addr, cpu: usize) -> Result<Receivers> {
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..RECEIVERS {
            let socket = UdpSocket::bind((at, 0))?;
            socket.set_nonblocking(true)?;
            set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 20)?;
            set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            let SocketAddr::V4(address) = socket.local_addr()? else {
                return Err("not an IPv4 address".into());
            };
            addresses.push(address);
            sockets.push(socket);
        }
        let received = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, until) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            if let Err(error) = cpu::pin_to(cpu) {
                eprintln!("the receivers are not pinned: {error}");
            }
            let mut buffer = vec![0; 65_536];
            while !until.load(Ordering::Relaxed) {
                let mut idle = true;
                for socket in &sockets {
                    while let Ok(len) = socket.recv(&mut buffer) {
                        count.fetch_add(len as u64, Ordering::Relaxed);
                        idle = false;
                    }
                }
                if idle {
                    clock::sleep(IDLE);
                }
            }
        });
        Ok(Receivers {
            addresses,
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Bytes received, once no more come.
    fn settled(&self) -> u64 {
        loop {
            let before = self.received.load(Ordering::Relaxed);
            clock::sleep(20 * IDLE);
            let now = self.received.load(Ordering::Relaxed);
            if now == before {
                return now;
            }
        }
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            eprintln!("the receivers' thread panicked");
        }
    }
}

/// Sends frames one way, from buffers that it lends in turn.
struct Sender {
    way: Way,
    socket: UdpSocket,
    segments: usize,
    arenas: Vec<Box<[u8]>>,
    /// Messages under way from each arena.
    lent: [usize; LENT],
    /// Number of the first message of each arena that is under way.
    first: [u32; LENT],
    sent: u32,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<[u64; 3]>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    ring: Option<IoUring>,
    /// Messages that the kernel has given back, and how many of them it had copied.
    returned: u64,
    copied: u64,
}

impl Sender {
    fn new(from: Ipv4Addr, way: Way, segments: usize, to: &[SocketAddrV4]) -> Result<Sender> {
        let socket = UdpSocket::bind((from, 0))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20)?;
        let zero = vec![0u8; RECEIVERS * segments * DATAGRAM].into_boxed_slice();
        let arenas = vec![zero; LENT];
        let mut ring = None;
        match way {
            Way::Copy => {}
            Way::ZeroCopy => set_option(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?,
            Way::Ring | Way::RingZeroCopy => ring = Some(IoUring::new(256)?),
            Way::RingRegistered => {
                let made = IoUring::new(256)?;
                let buffers: Vec<_> = arenas
                    .iter()
                    .map(|arena| libc::iovec {
                        iov_base: arena.as_ptr().cast_mut().cast(),
                        iov_len: arena.len(),
                    })
                    .collect();
                // SAFETY: the arenas are on the heap, never grow, and live as long as the ring.
                unsafe { made.submitter().register_buffers(&buffers)? };
                if segments > 1 {
                    // A message of this kind has no control data, so the socket says it.
                    set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, DATAGRAM as i32)?;
                }
                ring = Some(made);
            }
        }
        let name = |to: &SocketAddrV4| libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        Ok(Sender {
            way,
            socket,
            segments,
            arenas,
            lent: [0; LENT],
            first: [0; LENT],
            sent: 0,
            names: to.iter().map(name).collect(),
            controls: vec![segment_control(); RECEIVERS],
            vectors: Vec::with_capacity(RECEIVERS),
            messages: Vec::with_capacity(RECEIVERS),
            ring,
            returned: 0,
            copied: 0,
        })
    }

    /// Writes a frame and sends it.
    fn send(&mut self, frame: usize) -> Result<()> {
        let slot = frame % LENT;
        self.reclaim(slot)?;
        if let Some(arena) = self.arenas.get_mut(slot) {
            arena.fill(frame as u8);
        }
        self.point_at(slot);
        self.first[slot] = self.sent;
        self.sent = self.sent.wrapping_add(RECEIVERS as u32);
        match self.way {
            Way::Copy => self.sendmmsg(slot, 0),
            Way::ZeroCopy => {
                self.lent[slot] = RECEIVERS;
                self.sendmmsg(slot, libc::MSG_ZEROCOPY)
            }
            Way::Ring => self.submit(slot, false),
            Way::RingZeroCopy | Way::RingRegistered => {
                self.lent[slot] = RECEIVERS;
                self.submit(slot, true)
            }
        }
    }

    /// Makes a message for each receiver of what is in an arena.
    fn point_at(&mut self, slot: usize) {
        let len = self.segments * DATAGRAM;
        self.vectors.clear();
        self.messages.clear();
        for message in self.arenas[slot].chunks_exact_mut(len) {
            self.vectors.push(libc::iovec {
                iov_base: message.as_mut_ptr().cast(),
                iov_len: len,
            });
        }
        let parts = self.names.iter_mut().zip(&mut self.vectors);
        for ((name, vector), control) in parts.zip(&mut self.controls) {
            let segmented = self.segments > 1;
            // SAFETY: all-zero bytes are a valid message header.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = if segmented {
                std::ptr::from_mut(control).cast()
            } else {
                null_mut()
            };
            message.msg_hdr.msg_controllen = if segmented { size_of_val(control) } else { 0 };
            self.messages.push(message);
        }
    }

    fn sendmmsg(&mut self, slot: usize, flags: libc::c_int) -> Result<()> {
        let mut done = 0;
        let start = clock::now();
        while let Some(rest) = self.messages.get_mut(done..).filter(|r| !r.is_empty()) {
            // SAFETY: the messages point into `names`, `vectors`, `controls` and an arena, of the
            // lengths given; arenas that are lent are not written before they are given back.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as u32,
                    flags,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    // The kernel accounts for what is lent, and takes no more until some is back.
                    let full = error.raw_os_error() == Some(libc::ENOBUFS);
                    if !full || self.way != Way::ZeroCopy || start.elapsed() > PATIENCE {
                        return Err(format!("{}, {slot}: {error}", self.way.name()).into());
                    }
                    self.take_back()?;
                }
            }
        }
        Ok(())
    }

    fn submit(&mut self, slot: usize, zero_copy: bool) -> Result<()> {
        let fd = types::Fd(self.socket.as_raw_fd());
        let len = (self.segments * DATAGRAM) as u32;
        let ring = self.ring.as_mut().ok_or("no ring")?;
        for (i, message) in self.messages.iter().enumerate() {
            let header = &raw const message.msg_hdr;
            let entry: squeue::Entry = match self.way {
                Way::RingRegistered => {
                    let name = (&raw const self.names[i]).cast();
                    opcode::SendZc::new(fd, self.vectors[i].iov_base.cast(), len)
                        .buf_index(Some(slot as u16))
                        .dest_addr(name)
                        .dest_addr_len(size_of::<libc::sockaddr_in>() as u32)
                        .zc_flags(REPORT_USAGE)
                        .build()
                }
                Way::RingZeroCopy => opcode::SendMsgZc::new(fd, header)
                    .ioprio(REPORT_USAGE)
                    .build(),
                _ => opcode::SendMsg::new(fd, header).build(),
            };
            // SAFETY: what the entry points to outlives the submission, which is below; the bytes
            // of an arena are not written before all its messages have been given back.
            unsafe { ring.submission().push(&entry.user_data(slot as u64))? };
        }
        ring.submit_and_wait(RECEIVERS)?;
        let mut results = 0;
        while results < RECEIVERS {
            let Some(entry) = ring.completion().next() else {
                ring.submit_and_wait(1)?;
                continue;
            };
            if note(&entry, &mut self.lent, &mut self.returned, &mut self.copied)? {
                results += 1;
                if zero_copy && !cqueue::more(entry.flags()) {
                    // Nothing was lent.
                    self.lent[slot] -= 1;
                }
            }
        }
        Ok(())
    }

    /// Waits until an arena is no longer lent.
    fn reclaim(&mut self, slot: usize) -> Result<()> {
        let start = clock::now();
        while self.lent.get(slot).is_some_and(|lent| *lent > 0) {
            if start.elapsed() > PATIENCE {
                return Err(format!("{}: buffers are not given back", self.way.name()).into());
            }
            match &mut self.ring {
                None => self.take_back()?,
                Some(ring) => {
                    let Some(entry) = ring.completion().next() else {
                        ring.submit_and_wait(1)?;
                        continue;
                    };
                    note(&entry, &mut self.lent, &mut self.returned, &mut self.copied)?;
                }
            }
        }
        Ok(())
    }

    fn reclaim_all(&mut self) -> Result<()> {
        (0..LENT).try_for_each(|slot| self.reclaim(slot))
    }

    /// Takes what `MSG_ZEROCOPY` gives back out of the error queue.
    fn take_back(&mut self) -> Result<()> {
        let mut control = [0u64; 16];
        // SAFETY: all-zero bytes are a valid message header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the control buffer is ours and of the length given; there is no payload.
        if unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, flags) } < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(()),
                _ => Err(error.into()),
            };
        }
        // One control message: its header, then a sock_extended_err: errno; origin, type, code and
        // padding; info; data. The messages from `info` to `data` are given back.
        let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let error = bytes.get(size_of::<libc::cmsghdr>()..).unwrap_or_default();
        let word = |at: usize| {
            let bytes = error.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        if error.get(4) != Some(&ORIGIN_ZEROCOPY) {
            return Err("something else is in the error queue".into());
        }
        let (low, high) = (word(8), word(12));
        for id in low..=high {
            let within = |first: &u32| id.wrapping_sub(*first) < RECEIVERS as u32;
            let slot = (0..LENT).find(|s| self.lent[*s] > 0 && within(&self.first[*s]));
            self.lent[slot.ok_or("given back what was not lent")?] -= 1;
        }
        let count = u64::from(high - low) + 1;
        self.returned += count;
        if error.get(6) == Some(&CODE_COPIED) {
            self.copied += count;
        }
        Ok(())
    }
}

/// Takes a completion; true if it is a result and not a notification that a buffer is given back.
fn note(
    entry: &cqueue::Entry,
    lent: &mut [usize; LENT],
    returned: &mut u64,
    copied: &mut u64,
) -> Result<bool> {
    if cqueue::notif(entry.flags()) {
        let slot = entry.user_data() as usize % LENT;
        lent[slot] = lent[slot].checked_sub(1).ok_or("given back too often")?;
        *returned += 1;
        *copied += u64::from(entry.result() & USAGE_COPIED != 0);
        return Ok(false);
    }
    if entry.result() < 0 {
        return Err(io::Error::from_raw_os_error(-entry.result()).into());
    }
    Ok(true)
}

/// A `UDP_SEGMENT` control message of [`DATAGRAM`] bytes: its length; level and type; the size.
fn segment_control() -> [u64; 3] {
    let len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as u64;
    let words = [libc::SOL_UDP, libc::UDP_SEGMENT].map(i32::to_ne_bytes);
    let [level, kind] = words;
    let mut both = [0; 8];
    both[..4].copy_from_slice(&level);
    both[4..].copy_from_slice(&kind);
    let mut size = [0; 8];
    size[..2].copy_from_slice(&(DATAGRAM as u16).to_ne_bytes());
    [len, u64::from_ne_bytes(both), u64::from_ne_bytes(size)]
}
