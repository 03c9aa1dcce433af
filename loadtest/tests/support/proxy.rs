//! A UDP proxy in front of the relay's media port that has the faults of a bad relay.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the proxy does to RTP from relay to clients.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    None,
    /// Every 100th packet.
    Drop,
    /// Each packet by this much, from [`Proxy::begin`] on.
    Delay(Duration),
    /// One byte in each 10,000th packet.
    Corrupt,
    /// Once, from [`Proxy::begin`] on: nothing passes for this long, and then all of it.
    Freeze(Duration),
}

/// The proxy's state, for all its threads.
pub(crate) struct Proxy {
    fault: Fault,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    begun: Option<Instant>,
    packets: u64,
    faults: u64,
}

impl Proxy {
    /// Starts a proxy; its threads end with the test's process.
    pub(crate) fn start(relay: SocketAddr, fault: Fault) -> (SocketAddr, Arc<Proxy>) {
        let proxy = Arc::new(Proxy {
            fault,
            counts: Mutex::default(),
        });
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = front.local_addr().unwrap();
        let (later, deliver) = channel::<(Instant, SocketAddr, Vec<u8>)>();
        let back = front.try_clone().unwrap();
        // Delays are equal for all, so the order of arrival is that of delivery.
        thread::spawn(move || {
            for (at, to, packet) in deliver {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                back.send_to(&packet, to).unwrap();
            }
        });
        let shared = Arc::clone(&proxy);
        thread::spawn(move || {
            let mut sockets: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut buffer = vec![0; 65_536];
            while let Ok((len, client)) = front.recv_from(&mut buffer) {
                let upstream = sockets.entry(client).or_insert_with(|| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.connect(relay).unwrap();
                    let (down, later) = (socket.try_clone().unwrap(), later.clone());
                    let proxy = Arc::clone(&shared);
                    thread::spawn(move || {
                        let mut buffer = vec![0; 65_536];
                        while let Ok(len) = down.recv(&mut buffer) {
                            let mut packet = buffer[..len].to_vec();
                            if let Some(at) = proxy.meddle(Instant::now(), &mut packet) {
                                later.send((at, client, packet)).unwrap();
                            }
                        }
                    });
                    socket
                });
                // The relay may have gone.
                let _ = upstream.send(&buffer[..len]);
            }
        });
        (addr, proxy)
    }

    /// Begins a fault that has a beginning.
    pub(crate) fn begin(&self) {
        self.counts.lock().unwrap().begun = Some(Instant::now());
    }

    /// Faults that were made.
    pub(crate) fn faults(&self) -> u64 {
        self.counts.lock().unwrap().faults
    }

    /// When to deliver the packet, if at all.
    fn meddle(&self, now: Instant, packet: &mut [u8]) -> Option<Instant> {
        // RFC 7983: 128 to 191 is RTP or RTCP; RFC 5761 §4: payload types 64 to 95 are RTCP's.
        let rtp = (128..192).contains(&packet[0]) && !(64..96).contains(&(packet[1] & 0x7f));
        if !rtp {
            return Some(now);
        }
        let mut counts = self.counts.lock().unwrap();
        counts.packets += 1;
        match self.fault {
            Fault::None => Some(now),
            Fault::Drop => {
                let drop = counts.packets.is_multiple_of(100);
                counts.faults += u64::from(drop);
                (!drop).then_some(now)
            }
            Fault::Delay(by) => {
                let delayed = counts.begun.is_some();
                counts.faults += u64::from(delayed);
                Some(if delayed { now + by } else { now })
            }
            Fault::Corrupt => {
                if counts.packets.is_multiple_of(10_000) {
                    counts.faults += 1;
                    packet[packet.len() / 2] ^= 0x10;
                }
                Some(now)
            }
            Fault::Freeze(lasts) => {
                let end = counts.begun.map_or(now, |begun| begun + lasts);
                counts.faults += u64::from(now < end);
                Some(now.max(end))
            }
        }
    }
}
