//! Who sends to whom, and what.

/// Clients, and who receives whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// For tables.
    pub name: &'static str,
    /// Rooms, all alike.
    pub rooms: usize,
    /// Publishers in a room; they come first among its members.
    pub publishers: usize,
    /// Members of a room that receive every publisher but themselves.
    pub receivers: usize,
    /// Publishers are receivers, too.
    pub publishers_receive: bool,
}

impl Topology {
    /// One publisher, everybody else receives it.
    #[must_use]
    pub const fn broadcast(name: &'static str, receivers: usize) -> Topology {
        Topology {
            name,
            rooms: 1,
            publishers: 1,
            receivers,
            publishers_receive: false,
        }
    }

    /// One publisher to 20.
    pub const TO_20: Topology = Topology::broadcast("1→20", 20);
    /// One publisher to 100.
    pub const TO_100: Topology = Topology::broadcast("1→100", 100);
    /// One publisher to 1,000.
    pub const TO_1000: Topology = Topology::broadcast("1→1000", 1_000);
    /// Ten rooms of ten, each receiving the nine others.
    pub const ROOMS: Topology = Topology {
        name: "10 rooms of 10",
        rooms: 10,
        publishers: 10,
        receivers: 10,
        publishers_receive: true,
    };

    /// All four.
    pub const ALL: [Topology; 4] = [
        Topology::TO_20,
        Topology::TO_100,
        Topology::ROOMS,
        Topology::TO_1000,
    ];

    /// Members of one room.
    #[must_use]
    pub fn members(&self) -> usize {
        if self.publishers_receive {
            self.receivers
        } else {
            self.publishers + self.receivers
        }
    }

    /// Clients altogether; client `room * members() + member`.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.rooms * self.members()
    }

    /// Whether a client publishes.
    #[must_use]
    pub fn publishes(&self, client: usize) -> bool {
        client % self.members() < self.publishers
    }

    /// The clients that publish.
    pub fn all_publishers(&self) -> impl Iterator<Item = usize> {
        (0..self.clients()).filter(|c| self.publishes(*c))
    }

    /// The clients that receive `publisher`.
    pub fn receivers_of(&self, publisher: usize) -> impl Iterator<Item = usize> {
        let room = publisher / self.members() * self.members();
        let first = if self.publishers_receive {
            0
        } else {
            self.publishers
        };
        (room + first..room + self.members()).filter(move |c| *c != publisher)
    }

    /// The clients that `receiver` receives.
    pub fn publishers_of(&self, receiver: usize) -> impl Iterator<Item = usize> {
        let room = receiver / self.members() * self.members();
        let receives = self.publishers_receive || !self.publishes(receiver);
        let end = if receives {
            room + self.publishers
        } else {
            room
        };
        (room..end).filter(move |c| *c != receiver)
    }

    /// Receivers of each publisher.
    #[must_use]
    pub fn fan_out(&self) -> usize {
        self.receivers_of(0).count()
    }
}

/// What a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// For tables.
    pub name: &'static str,
    /// Packets that arrive together.
    pub frame: usize,
    /// Bytes of RTP payload in each.
    pub payload: usize,
}

impl Traffic {
    /// Video in frames of 1, 4 and 16 full packets, and audio.
    pub const ALL: [Traffic; 4] = [
        Traffic {
            name: "video ×1",
            frame: 1,
            payload: 1_100,
        },
        Traffic {
            name: "video ×4",
            frame: 4,
            payload: 1_100,
        },
        Traffic {
            name: "video ×16",
            frame: 16,
            payload: 1_100,
        },
        Traffic {
            name: "audio",
            frame: 1,
            payload: 120,
        },
    ];

    /// Video, by its size; the rest is audio.
    #[must_use]
    pub fn is_video(&self) -> bool {
        self.payload > 200
    }

    /// Frames each publisher sends so that about `packets` are forwarded, at least one.
    #[must_use]
    pub fn frames(&self, topology: &Topology, packets: u64) -> usize {
        let per_round = topology.rooms * topology.publishers * topology.fan_out() * self.frame;
        (packets as usize / per_round).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_name_the_same_subscriptions() {
        for topology in Topology::ALL {
            let forward: Vec<_> = topology
                .all_publishers()
                .flat_map(|p| topology.receivers_of(p).map(move |r| (p, r)))
                .collect();
            let mut backward: Vec<_> = (0..topology.clients())
                .flat_map(|r| topology.publishers_of(r).map(move |p| (p, r)))
                .collect();
            backward.sort_unstable();
            assert_eq!(forward, backward, "{}", topology.name);
            assert_eq!(
                forward.len(),
                topology.rooms * topology.publishers * topology.fan_out()
            );
        }
        assert_eq!(Topology::ROOMS.fan_out(), 9);
        assert_eq!(Topology::TO_1000.clients(), 1_001);
    }
}
