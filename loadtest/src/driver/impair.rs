//! A bad network between one peer and its socket, both directions, seeded.

use crate::peer::{Outbox, Route};
use sealcast_model::Time;
use sealcast_netsim::{Link, LinkConfig};

/// UDP and IPv4 headers: what a rate cap counts beside the payload.
const HEADERS: usize = 28;

/// What the links of a peer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImpairStats {
    /// Datagrams lost, or dropped at the rate cap, both directions.
    pub lost: u64,
}

pub(super) struct Impairment {
    up: Link<(Route, Vec<u8>)>,
    down: Link<(Route, Vec<u8>)>,
}

impl Impairment {
    pub(super) fn new(up: LinkConfig, down: LinkConfig, seed: u64) -> Impairment {
        Impairment {
            up: Link::new(up, seed),
            down: Link::new(down, seed ^ 1),
        }
    }

    /// Takes what the peer sends.
    pub(super) fn push_up(&mut self, now: Time, out: &Outbox) {
        for datagram in out.iter() {
            let packet = (datagram.route, datagram.bytes.to_vec());
            self.up.push(now, packet, datagram.bytes.len() + HEADERS);
        }
    }

    /// Takes what arrived for the peer.
    pub(super) fn push_down(&mut self, now: Time, route: Route, packet: &[u8]) {
        let len = packet.len() + HEADERS;
        self.down.push(now, (route, packet.to_vec()), len);
    }

    /// The next datagram to send.
    pub(super) fn pop_up(&mut self, now: Time) -> Option<(Route, Vec<u8>)> {
        self.up.pop(now)
    }

    /// The next datagram for the peer.
    pub(super) fn pop_down(&mut self, now: Time) -> Option<(Route, Vec<u8>)> {
        self.down.pop(now)
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.up.poll_timeout().min(self.down.poll_timeout())
    }

    pub(super) fn stats(&self) -> ImpairStats {
        let lost = |s: sealcast_netsim::LinkStats| s.lost + s.overflowed;
        ImpairStats {
            lost: lost(self.up.stats()) + lost(self.down.stats()),
        }
    }
}
