//! The receivers: UDP sockets drained by another process, so that receiving costs the measured
//! process nothing.
//!
//! The sockets are bound here and inherited by a child that runs this same program; the parent
//! keeps them, too, to send from them as a publisher does.

#![expect(unsafe_code, reason = "epoll, descriptor inheritance, resource limits")]

use crate::{Result, clock, cpu};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Receive buffer per socket, bytes. Enough for the sink to be away for a scheduler's time slice.
const RECEIVE_BUFFER: libc::c_int = 512 * 1024;
/// How long the sink sleeps when nothing is there. It never blocks on the sockets, since waking it
/// would cost the sender.
const IDLE: Duration = Duration::from_micros(200);

/// Bytes in [`IDLE`] times ten that are no measurement's packets any more, but the reports that
/// idle sessions get.
const SETTLED: u64 = 16 * 1_024;

/// No measurement's packets are still arriving after this time.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// Client sockets and the process that drains them.
pub struct Sink {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sink {
    /// Binds `clients` sockets and starts a process, pinned to `cpu`, that drains them.
    ///
    /// `program` is this program's path; its subcommand `sink` must call [`drain`]. With `gro` the
    /// sockets take coalesced datagrams.
    ///
    /// # Errors
    /// If a socket or the process cannot be had.
    pub fn start(program: &Path, clients: usize, cpu: usize, gro: bool) -> Result<Sink> {
        allow_descriptors(clients as u64 + 64)?;
        let mut sockets = Vec::with_capacity(clients);
        for _ in 0..clients {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_nonblocking(true)?;
            set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
            set_option(
                &socket,
                libc::SOL_UDP,
                libc::UDP_GRO,
                libc::c_int::from(gro),
            )?;
            sockets.push(socket);
        }
        let addresses = sockets
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<io::Result<Vec<_>>>()?;
        let numbers: Vec<_> = sockets.iter().map(|s| s.as_raw_fd().to_string()).collect();
        for socket in &sockets {
            set_inheritable(socket.as_raw_fd(), true)?;
        }
        let child = Command::new(program)
            .args([
                "sink",
                "--cpu",
                &cpu.to_string(),
                "--descriptors",
                &numbers.join(","),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        for socket in &sockets {
            set_inheritable(socket.as_raw_fd(), false)?;
        }
        let mut child = child?;
        let commands = child.stdin.take().ok_or("sink without standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("sink without standard output")?);
        let mut sink = Sink {
            sockets,
            addresses,
            child,
            commands,
            answers,
        };
        sink.received()?;
        Ok(sink)
    }

    /// Where the clients listen.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A client's socket, to send from.
    #[must_use]
    pub fn socket(&self, client: usize) -> Option<&UdpSocket> {
        self.sockets.get(client)
    }

    /// Bytes that have arrived at all clients since the last call.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn received(&mut self) -> Result<u64> {
        self.commands.write_all(b"?")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Sink {
    /// Stops draining, so that this process can receive what arrives at the clients.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn pause(&mut self) -> Result<()> {
        self.commands.write_all(b"p")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(())
    }

    /// Drains again.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resume(&mut self) -> Result<()> {
        Ok(self.commands.write_all(b"r")?)
    }

    /// Waits until next to nothing arrives any more, and says how many bytes have since the last
    /// call.
    ///
    /// # Errors
    /// If the process is gone, or it never comes to rest.
    pub fn settle(&mut self) -> Result<u64> {
        let mut total = 0;
        let start = clock::now();
        loop {
            if start.elapsed() > SETTLE_PATIENCE {
                return Err("packets keep arriving after a measurement".into());
            }
            clock::sleep(10 * IDLE);
            let more = self.received()?;
            total += more;
            if more < SETTLED {
                return Ok(total);
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It would end by itself when its standard input closes; waiting for that could hang.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("the sink did not end: {error}");
        }
    }
}

/// The sink process: drains inherited sockets until standard input closes. A `?` there is answered
/// with the number of bytes received since the last; `p` pauses, and is answered; `r` resumes.
///
/// # Errors
/// If a system call fails.
pub fn drain(descriptors: &[RawFd], cpu: usize) -> Result<()> {
    cpu::pin_to(cpu)?;
    // SAFETY: the parent passed these numbers as its open sockets, made inheritable for us; nobody
    // else in this process uses them. They are never closed, hence `ManuallyDrop`.
    let sockets: Vec<_> = descriptors
        .iter()
        .map(|fd| ManuallyDrop::new(unsafe { UdpSocket::from_raw_fd(*fd) }))
        .collect();
    // SAFETY: no arguments that could be wrong.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: just created, owned by nobody else.
    let epoll = unsafe { File::from_raw_fd(epoll) };
    // Not `io::stdin()`, whose buffer would hide bytes from epoll.
    // SAFETY: standard input is open, the parent's pipe; it is never closed, hence `ManuallyDrop`.
    let mut input = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDIN_FILENO) });
    let input_key = u64::MAX;
    watch(&epoll, input.as_raw_fd(), input_key)?;
    for (key, socket) in sockets.iter().enumerate() {
        watch(&epoll, socket.as_raw_fd(), key as u64)?;
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buf = vec![0; 65_536];
    let mut received = 0u64;
    loop {
        // SAFETY: the kernel writes at most `events.len()` events.
        let ready = unsafe {
            libc::epoll_wait(
                epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                0,
            )
        };
        let ready = usize::try_from(ready).map_err(|_| io::Error::last_os_error())?;
        if ready == 0 {
            clock::sleep(IDLE);
        }
        for event in &events[..ready] {
            let key = event.u64;
            if key == input_key {
                match read_command(&mut input)? {
                    None => return Ok(()),
                    Some(b'p') => {
                        println!("paused");
                        // After an end, the next turn of the loop reads it again and returns.
                        while read_command(&mut input)?.is_some_and(|c| c != b'r') {}
                    }
                    Some(_) => {
                        println!("{received}");
                        received = 0;
                    }
                }
            } else if let Some(socket) = sockets.get(key as usize) {
                // Up to a limit each, so that a busy socket does not starve the others.
                for _ in 0..64 {
                    match socket.recv(&mut buf) {
                        Ok(len) => received += len as u64,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e.into()),
                    }
                }
            }
        }
    }
}

/// The next byte of standard input, `None` at its end.
fn read_command(input: &mut File) -> io::Result<Option<u8>> {
    let mut command = [0];
    let len = input.read(&mut command)?;
    Ok((len > 0).then_some(command[0]))
}

fn watch(epoll: &File, fd: RawFd, key: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: key,
    };
    // SAFETY: the kernel reads one event, which is ours.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_inheritable(fd: RawFd, inheritable: bool) -> io::Result<()> {
    let flags = if inheritable { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: sets a flag of a descriptor that the caller holds open.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets an integer option of a socket.
///
/// # Errors
/// If the system refuses it.
pub fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads one integer of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the soft limit on open files to `count`.
fn allow_descriptors(count: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit, which is ours.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < count {
        limit.rlim_cur = count.min(limit.rlim_max);
        // SAFETY: the kernel reads one rlimit, which is ours.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
