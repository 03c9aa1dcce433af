//! How the shards of a relay reach each other: a lane between each two, in each direction.
//!
//! A shard never waits for another. What a full lane refuses is dropped and counted; the media
//! planes ask again for what they miss.

use crate::limits::{MESH_BUFFERS, MESH_LANE, MESH_PER_TURN, MESH_RESERVE, MESH_ROUTES};
use sealcast_media::Mirror;
use sealcast_model::limits::PACKET_SLOT;
use sealcast_model::{Counter, ShardId, ShardStats, Time, Wake};
use sealcast_ring::{BufferPool, LaneReceiver, LaneSender, Refused, lane};
use sealcast_session::Path;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// What goes from shard to shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letter {
    /// Between media planes, with its packet if it has one.
    Media(Mirror),
    /// A datagram that the kernel gave to the wrong one of the shards that share a port.
    Datagram {
        /// Where it came from.
        path: Path,
        /// When the kernel got it.
        received: Time,
    },
    /// Datagrams of this 5-tuple are the sender's.
    Route(Path),
    /// They are not, or not any more.
    Unroute(Path),
}

/// Where datagrams belong that arrive at one of several shards that share a port.
#[derive(Default)]
struct Routes {
    by_path: HashMap<Path, ShardId>,
    /// What other shards are still to be told.
    unsent: VecDeque<(ShardId, Letter)>,
}

/// One shard's ends of the lanes to and from all others.
pub struct Mesh {
    id: ShardId,
    links: Vec<Link>,
    /// Buffers for what this shard sends; made when first needed.
    buffers: BufferPool,
    doorbells: Arc<[OnceLock<Arc<dyn Wake>>]>,
    /// Where shards share a port.
    routes: Option<Routes>,
}

struct Link {
    to: ShardId,
    out: LaneSender<Letter>,
    incoming: LaneReceiver<Letter>,
    /// Something was sent and the other shard was not woken since.
    rung: bool,
}

impl Mesh {
    /// The meshes of `shards` shards, in order of their ids from 0.
    #[must_use]
    pub fn of(shards: u16) -> Vec<Mesh> {
        let doorbells: Arc<[_]> = (0..shards).map(|_| OnceLock::new()).collect();
        let mut meshes: Vec<Mesh> = (0..shards)
            .map(|id| Mesh {
                id: ShardId(id),
                links: Vec::new(),
                buffers: BufferPool::new(MESH_BUFFERS, PACKET_SLOT),
                doorbells: Arc::clone(&doorbells),
                routes: None,
            })
            .collect();
        for a in 0..meshes.len() {
            for b in a + 1..meshes.len() {
                let (to_b, at_b) = lane(MESH_LANE, MESH_BUFFERS);
                let (to_a, at_a) = lane(MESH_LANE, MESH_BUFFERS);
                let link = |to, out, incoming| Link {
                    to: ShardId(to as u16),
                    out,
                    incoming,
                    rung: false,
                };
                meshes[a].links.push(link(b, to_b, at_a));
                meshes[b].links.push(link(a, to_a, at_b));
            }
        }
        meshes
    }

    /// Which shard's mesh it is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Says how this shard's thread is woken. Only the first time counts.
    pub fn set_wake(&self, wake: Arc<dyn Wake>) {
        if let Some(doorbell) = self.doorbells.get(usize::from(self.id.0)) {
            let _only_once = doorbell.set(wake);
        }
    }

    /// The shards share a port: each hands on what is another's.
    pub fn share_port(&mut self) {
        self.routes = Some(Routes::default());
        self.prepare();
    }

    /// Whether the shards share a port.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.routes.is_some()
    }

    /// Hands a datagram to the shard whose it is, if that is known to be another one: by the user
    /// fragment that it names, or by its 5-tuple. False if it is not.
    pub(crate) fn hand_on(
        &mut self,
        ufrag: Option<&str>,
        path: &Path,
        received: Time,
        datagram: &[u8],
        stats: &ShardStats,
    ) -> bool {
        let Some(routes) = &self.routes else {
            return false;
        };
        let to = match ufrag {
            Some(ufrag) => shard_of(ufrag),
            None => routes.by_path.get(path).copied(),
        };
        let Some(to) = to.filter(|to| self.links.iter().any(|link| link.to == *to)) else {
            return false;
        };
        let letter = Letter::Datagram {
            path: *path,
            received,
        };
        // What a full lane refuses is lost, as what a full socket buffer refuses is.
        let _counted = self.send(to, letter, datagram, stats);
        stats.add(Counter::HandedOn, 1);
        true
    }

    /// Another shard says whose a 5-tuple is. What there is no room for is counted: its datagrams are
    /// dropped here.
    pub(crate) fn on_route(&mut self, from: ShardId, letter: &Letter, stats: &ShardStats) {
        let Some(routes) = &mut self.routes else {
            return;
        };
        match letter {
            Letter::Route(path)
                if routes.by_path.len() < MESH_ROUTES || routes.by_path.contains_key(path) =>
            {
                routes.by_path.insert(*path, from);
            }
            Letter::Route(_) => stats.add(Counter::MeshRoutesFull, 1),
            Letter::Unroute(path) if routes.by_path.get(path) == Some(&from) => {
                routes.by_path.remove(path);
            }
            _ => {}
        }
    }

    /// Tells all other shards whose a 5-tuple is. What there is no place for is counted: a shard that
    /// does not hear it drops what arrives there from the 5-tuple.
    pub(crate) fn announce(&mut self, letter: Letter, stats: &ShardStats) {
        let Some(routes) = &mut self.routes else {
            return;
        };
        for link in &self.links {
            if routes.unsent.len() < MESH_ROUTES {
                routes.unsent.push_back((link.to, letter));
            } else {
                stats.add(Counter::MeshFull, 1);
            }
        }
    }

    /// Sends what was announced, as far as there is room.
    pub(crate) fn send_routes(&mut self, stats: &ShardStats) {
        let Some(mut routes) = self.routes.take() else {
            return;
        };
        while let Some((to, letter)) = routes.unsent.front() {
            if !self.send(*to, *letter, &[], stats) {
                break;
            }
            routes.unsent.pop_front();
        }
        self.routes = Some(routes);
    }

    /// Sends a letter with what belongs to it. False if the lane is full or there is none.
    #[inline]
    pub(crate) fn send(
        &mut self,
        to: ShardId,
        letter: Letter,
        payload: &[u8],
        stats: &ShardStats,
    ) -> bool {
        let Some(link) = self.links.iter_mut().find(|link| link.to == to) else {
            return false;
        };
        // What is said about packets must come through even while there are too many of them.
        let reserve = if payload.is_empty() { 0 } else { MESH_RESERVE };
        let (counter, sent) = match link.out.send(&mut self.buffers, letter, payload, reserve) {
            Ok(()) => {
                link.rung = true;
                (Counter::MeshSent, true)
            }
            Err(Refused::Full | Refused::TooLong) => (Counter::MeshFull, false),
            Err(Refused::NoBuffer) => (Counter::MeshNoBuffer, false),
        };
        stats.add(counter, 1);
        sent
    }

    /// Makes the buffers, if they are not there yet: another shard wants packets.
    pub(crate) fn prepare(&mut self) {
        self.buffers.fill();
    }

    /// Wakes the shards that something was sent to.
    pub(crate) fn ring(&mut self) {
        for link in &mut self.links {
            if std::mem::take(&mut link.rung) {
                let doorbell = self.doorbells.get(usize::from(link.to.0));
                // A shard that has not started yet looks when it does.
                if let Some(wake) = doorbell.and_then(OnceLock::get) {
                    wake.wake();
                }
            }
        }
    }

    /// Takes what has arrived, up to [`MESH_PER_TURN`] from each shard. True if there may be more.
    pub(crate) fn take(&mut self, mut each: impl FnMut(ShardId, Letter, &[u8])) -> bool {
        let mut more = false;
        for link in &mut self.links {
            let from = link.to;
            let mut taken = 0;
            while taken < MESH_PER_TURN
                && link
                    .incoming
                    .receive(|letter, payload| each(from, letter, payload))
            {
                taken += 1;
            }
            more |= taken == MESH_PER_TURN;
        }
        more
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("id", &self.id)
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

/// The shard that a local user fragment names: its first two characters are the shard's id, in
/// hexadecimal. The control plane makes them so, and the BPF program of shared ports reads them.
fn shard_of(ufrag: &str) -> Option<ShardId> {
    let digits = ufrag.get(..2)?;
    u16::from_str_radix(digits, 16).ok().map(ShardId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_session::Transport;
    use std::net::{Ipv4Addr, SocketAddr};

    fn path(client: u32) -> Path {
        Path {
            transport: Transport::Udp,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            remote: SocketAddr::from((Ipv4Addr::from(client), 2)),
        }
    }

    #[test]
    fn a_full_table_of_routes_counts_what_it_refuses_and_takes_again_what_leaves() {
        let mut mesh = Mesh::of(2).remove(0);
        mesh.share_port();
        let stats = ShardStats::default();
        let other = ShardId(1);
        for client in 0..MESH_ROUTES as u32 + 3 {
            mesh.on_route(other, &Letter::Route(path(client)), &stats);
        }
        assert_eq!(stats.get(Counter::MeshRoutesFull), 3);
        // Said again, it is no news.
        mesh.on_route(other, &Letter::Route(path(0)), &stats);
        mesh.on_route(other, &Letter::Unroute(path(1)), &stats);
        mesh.on_route(other, &Letter::Route(path(MESH_ROUTES as u32)), &stats);
        assert_eq!(stats.get(Counter::MeshRoutesFull), 3);
        let known = |mesh: &Mesh, client| {
            let routes = mesh.routes.as_ref().unwrap();
            routes.by_path.contains_key(&path(client))
        };
        assert!(known(&mesh, 0) && !known(&mesh, 1) && known(&mesh, MESH_ROUTES as u32));
    }
}
