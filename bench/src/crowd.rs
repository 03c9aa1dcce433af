//! Clients in a process of their own: a publisher that sends at a set rate, and receivers that
//! give feedback, report and check their path as browsers do.
//!
//! The process that measures starts this program again ([`Crowd::start`]) and talks to it over
//! its standard input and output, a line of JSON at a time; the child runs [`serve`].

mod receiver;

use crate::client::{Client, Features, Identity, Link, UdpLink};
use crate::poll::{Inbox, Poller};
use crate::relay::Relay;
use crate::shape::{Topology, Traffic};
use crate::{Result, clock, cpu};
use receiver::Receiver;
use sealcast_srtp::Profile;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often feedback and checks are looked after.
const UPKEEP: Duration = Duration::from_millis(5);
/// What has not arrived this long after the last packet was sent never will.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// The key of standard input.
const INPUT: u64 = u64::MAX;
/// Packets sent late in a row are sent at once, but no more of them than this: the rest of a
/// backlog is forgotten, and shows in what was sent.
const BACKLOG: u32 = 64;
/// Frames sealed at once.
const AHEAD: usize = 32;

/// What the crowd is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Connect every client; their sessions are open.
    Connect {
        relay: SocketAddr,
        fingerprint: [u8; 32],
        profile: String,
        receivers: usize,
        features: Features,
    },
    /// Send, until told to stop.
    Run(Pace),
    /// Stop sending, and say what happened.
    Stop,
}

/// What the publisher sends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pace {
    /// Packets per second.
    pub rate: f64,
    /// Packets sent at once.
    pub frame: usize,
    /// Bytes of payload.
    pub payload: usize,
}

/// What happened since the last order to run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Packets that the publisher sent.
    pub sent: u64,
    /// Of these, how many more than one interval late: they arrive together with the next.
    pub late: u64,
    /// Media packets that the receivers got.
    pub received: u64,
    /// Of these, opened and found good.
    pub opened: u64,
    /// Feedback and report packets that the receivers sent.
    pub feedback: u64,
}

/// The crowd, seen from the process that measures.
pub struct Crowd {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Digest of the clients' certificate.
    pub fingerprint: [u8; 32],
}

impl Crowd {
    /// Starts the process on `cpu`. `program` is this program's path; its subcommand `crowd` must
    /// call [`serve`].
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &Path, cpu: usize) -> Result<Crowd> {
        let mut child = Command::new(program)
            .args(["crowd", "--cpu", &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("crowd without standard input")?;
        let answers = child.stdout.take().ok_or("crowd without standard output")?;
        let mut crowd = Crowd {
            child,
            orders,
            answers: BufReader::new(answers),
            fingerprint: [0; 32],
        };
        crowd.fingerprint = crowd.answer()?;
        Ok(crowd)
    }

    /// Opens sessions for a publisher and `receivers` receivers, and connects them with the relay.
    ///
    /// # Errors
    /// If one of them does not connect.
    pub fn connect(
        &mut self,
        relay: &Relay,
        profile: Profile,
        receivers: usize,
        features: Features,
    ) -> Result<()> {
        let topology = topology(receivers);
        relay.open_sessions(&topology, features, 0..topology.clients(), self.fingerprint)?;
        self.order(&Order::Connect {
            relay: relay.address,
            fingerprint: relay.fingerprint,
            profile: profile.name().into(),
            receivers,
            features,
        })?;
        self.answer()
    }

    /// Makes the publisher send.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn run(&mut self, pace: Pace) -> Result<()> {
        self.order(&Order::Run(pace))
    }

    /// Makes it stop.
    ///
    /// # Errors
    /// If the process is gone, or a client found something wrong.
    pub fn stop(&mut self) -> Result<Tally> {
        self.order(&Order::Stop)?;
        self.answer()
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.orders.write_all(&line)?)
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the crowd's process has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("the crowd did not end: {error}");
        }
    }
}

/// The topology of a crowd of this size.
#[must_use]
pub const fn topology(receivers: usize) -> Topology {
    Topology::broadcast("paced", receivers)
}

/// The crowd's process: obeys until standard input closes.
///
/// # Errors
/// If a client does not connect, finds something wrong, or a system call fails.
pub fn serve(cpu: usize) -> Result<()> {
    cpu::pin_to(cpu)?;
    let identity = Identity::generate()?;
    answer(&identity.fingerprint()?)?;
    let mut crowd: Option<Clients> = None;
    while let Some(order) = next_order()? {
        match order {
            Order::Connect {
                relay,
                fingerprint,
                profile,
                receivers,
                features,
            } => {
                let profile = Profile::ALL.into_iter().find(|p| p.name() == profile);
                let profile = profile.ok_or("no such profile")?;
                let connect = |index| -> Result<Client> {
                    let socket = UdpSocket::bind("127.0.0.1:0")?;
                    socket.set_nonblocking(true)?;
                    receiver::enlarge_buffer(&socket)?;
                    let socket = Arc::new(socket);
                    let link = UdpLink { socket, relay };
                    Client::connect(index, link, &identity, fingerprint, profile)
                };
                let topology = topology(receivers);
                let clients = (0..topology.clients()).map(connect);
                let clients: Vec<_> = clients.collect::<Result<_>>()?;
                crowd = Some(Clients::new(clients, features)?);
                answer(&())?;
            }
            Order::Run(pace) => {
                let crowd = crowd.as_mut().ok_or("nobody is connected")?;
                crowd.run(pace)?;
            }
            Order::Stop => answer(&crowd.as_ref().ok_or("nobody is connected")?.tally)?,
        }
    }
    Ok(())
}

/// The next order, `None` at the end of standard input. Read byte by byte, so that none is hidden
/// in a buffer from epoll.
fn next_order() -> Result<Option<Order>> {
    use std::io::Read;
    let mut line = Vec::new();
    let mut byte = [0];
    let input = std::fs::File::open("/dev/stdin")?;
    while (&input).read(&mut byte)? > 0 {
        if byte == [b'\n'] {
            return Ok(Some(serde_json::from_slice(&line)?));
        }
        line.extend(byte);
    }
    Ok(None)
}

fn answer(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// A connected publisher with its receivers.
struct Clients {
    publisher: Client,
    receivers: Vec<Receiver>,
    poller: Poller,
    inbox: Inbox,
    start: Instant,
    next_upkeep: Instant,
    tally: Tally,
    /// A key frame was sent.
    began: bool,
}

impl Clients {
    fn new(clients: Vec<Client>, features: Features) -> Result<Clients> {
        let poller = Poller::new()?;
        poller.add(std::io::stdin().as_raw_fd(), INPUT)?;
        for (key, client) in clients.iter().enumerate() {
            poller.add(client.link().socket.as_raw_fd(), key as u64)?;
        }
        let mut clients = clients.into_iter();
        Ok(Clients {
            publisher: clients.next().ok_or("no clients")?,
            receivers: (1..)
                .zip(clients)
                .map(|(index, client)| Receiver::new(index, client, features))
                .collect(),
            poller,
            inbox: Inbox::default(),
            start: clock::now(),
            next_upkeep: clock::now(),
            tally: Tally::default(),
            began: false,
        })
    }

    /// Sends and receives until an order arrives.
    fn run(&mut self, pace: Pace) -> Result<()> {
        let traffic = Traffic {
            name: "paced",
            frame: pace.frame,
            payload: pace.payload,
        };
        let interval = Duration::from_secs_f64(pace.frame as f64 / pace.rate);
        self.tally = Tally::default();
        let mut sealed = Vec::new();
        let mut next_send = clock::now();
        let mut keys = Vec::new();
        loop {
            if sealed.is_empty() {
                sealed = self.seal(&traffic)?;
                sealed.reverse();
            }
            let mut now = clock::now();
            if now >= next_send {
                self.send_frame(&mut sealed, pace.frame)?;
                next_send += interval;
                now = clock::now();
                if now > next_send {
                    self.tally.late += pace.frame as u64;
                    next_send = next_send.max(now.checked_sub(interval * BACKLOG).unwrap_or(now));
                }
            }
            if now >= self.next_upkeep {
                self.upkeep(now)?;
            }
            let due = next_send.min(self.next_upkeep);
            keys.clear();
            keys.extend(self.poller.wait(due.saturating_duration_since(now))?);
            for key in keys.iter().copied() {
                if key == INPUT {
                    return self.drain();
                }
                self.receive(key as usize)?;
            }
        }
    }

    /// Takes what is still under way.
    fn drain(&mut self) -> Result<()> {
        let until = clock::now() + UNDER_WAY;
        while clock::now() < until {
            for client in 0..=self.receivers.len() {
                self.receive(client)?;
            }
            clock::sleep(UPKEEP / 10);
        }
        Ok(())
    }

    /// The next packets, of which only the first of all is a key frame's.
    fn seal(&mut self, traffic: &Traffic) -> Result<Vec<Vec<u8>>> {
        let key_frame = !std::mem::replace(&mut self.began, true);
        self.publisher.seal_frames(traffic, AHEAD, key_frame)
    }

    fn send_frame(&mut self, sealed: &mut Vec<Vec<u8>>, packets: usize) -> Result<()> {
        for packet in (0..packets).map_while(|_| sealed.pop()) {
            self.publisher.link().send(&packet)?;
            self.tally.sent += 1;
        }
        Ok(())
    }

    fn upkeep(&mut self, now: Instant) -> Result<()> {
        self.next_upkeep = now + UPKEEP;
        self.publisher.keep_alive(now)?;
        let elapsed = now - self.start;
        for receiver in &mut self.receivers {
            self.tally.feedback += receiver.upkeep(now, elapsed)?;
        }
        Ok(())
    }

    fn receive(&mut self, client: usize) -> Result<()> {
        // The publisher gets reports and feedback, which change nothing of what it does.
        let Some(receiver) = client.checked_sub(1) else {
            self.inbox.receive(&self.publisher.link().socket)?;
            return Ok(());
        };
        let Some(receiver) = self.receivers.get_mut(receiver) else {
            return Ok(());
        };
        self.inbox.receive(receiver.socket())?;
        let elapsed = clock::now() - self.start;
        for datagram in self.inbox.datagrams() {
            let taken = receiver.take(elapsed, datagram)?;
            self.tally.received += u64::from(taken.media);
            self.tally.opened += u64::from(taken.opened);
        }
        Ok(())
    }
}
