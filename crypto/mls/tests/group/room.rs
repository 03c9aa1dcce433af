//! A room without latency: what one client sends, the others have in the same millisecond.

use sealcast_delivery::{DeliveryKey, DeliveryService, SUITES};
use sealcast_group_wire::ToMember;
use sealcast_mls::client::{GroupClient, Output, Presence};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, MemberConfig, MemberKey};
use sealcast_model::{ParticipantId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The clients' clock at the start.
const START: Duration = Duration::from_secs(1_800_000_000);

pub(crate) struct Room {
    pub(crate) service: DeliveryService,
    pub(crate) clients: BTreeMap<u64, GroupClient>,
    /// What clients were told, but for what went out.
    pub(crate) told: BTreeMap<u64, Vec<Output>>,
    /// Everything that the delivery service sent to each client, in order.
    pub(crate) sent: BTreeMap<u64, Vec<ToMember>>,
    /// What clients refused of what the delivery service sent them.
    pub(crate) errors: Vec<String>,
    /// Clients whom nothing reaches but what a test hands them.
    pub(crate) cut_off: Vec<u64>,
    pub(crate) config: MemberConfig,
    /// Milliseconds since the start.
    now: u64,
    suite: GroupSuite,
}

impl Room {
    pub(crate) fn new(suite: GroupSuite) -> Self {
        let mls = SUITES[usize::from(suite == GroupSuite::P256)];
        let key = Arc::new(DeliveryKey::from_seed(mls, &[7; 32]).unwrap());
        Self {
            service: DeliveryService::new(key),
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            sent: BTreeMap::new(),
            errors: Vec::new(),
            cut_off: Vec::new(),
            config: MemberConfig::default(),
            now: 0,
            suite,
        }
    }

    /// A room in which `count` clients have met.
    pub(crate) fn of(suite: GroupSuite, count: u64) -> Self {
        let mut room = Self::new(suite);
        for id in 1..=count {
            room.join(id);
        }
        room.run(4000);
        assert!(room.met(1..=count), "{:?}", room.told);
        assert_eq!(room.errors, [""; 0]);
        room
    }

    pub(crate) fn unix(&self) -> Duration {
        START + Duration::from_millis(self.now)
    }

    pub(crate) fn join(&mut self, id: u64) {
        self.service.handle_join(self.time(), ParticipantId(id));
        let presence = Presence {
            participant: participant(id),
            name: Some(format!("Client {id}")),
            assertion: None,
        };
        let client = GroupClient::new(
            self.unix(),
            self.config.clone(),
            MemberKey::generate(self.suite).unwrap(),
            &Claim::Id(format!("p-{id}")),
            presence,
        );
        self.clients.insert(id, client.unwrap());
        self.deliver();
    }

    /// The client, with all that it holds.
    pub(crate) fn leave(&mut self, id: u64) -> GroupClient {
        self.service.handle_leave(self.time(), ParticipantId(id));
        let client = self.clients.remove(&id).unwrap();
        self.deliver();
        client
    }

    pub(crate) fn client(&mut self, id: u64) -> &mut GroupClient {
        self.clients.get_mut(&id).unwrap()
    }

    /// Lets time pass, in steps of 50 ms.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.now += 50;
            let (unix, time) = (self.unix(), self.time());
            for (id, client) in &mut self.clients {
                let due = client.poll_timeout().is_some_and(|at| at <= unix);
                if due && !self.cut_off.contains(id) {
                    client.handle_timeout(unix).unwrap();
                }
            }
            self.service.handle_timeout(time);
            self.deliver();
        }
    }

    /// Whether these are one group, and everybody knows who everybody is.
    pub(crate) fn met(&self, ids: impl IntoIterator<Item = u64> + Clone) -> bool {
        let count = ids.clone().into_iter().count();
        ids.clone().into_iter().all(|id| {
            let client = &self.clients[&id];
            let others = ids.clone().into_iter().filter(|other| *other != id);
            let known = |other| client.leaf_of(&participant(other)).is_some();
            client.member().leaves().count() == count && others.into_iter().all(known)
        })
    }

    /// The sealed messages that `id` has to send now; they are not delivered.
    pub(crate) fn take_sealed(&mut self, id: u64) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.client(id).poll_output())
            .filter_map(|output| match output {
                Output::Sealed(message) => Some(message),
                _ => None,
            })
            .collect()
    }

    fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    /// Moves messages until nobody has one left.
    pub(crate) fn deliver(&mut self) {
        let unix = self.unix();
        let mut sealed = VecDeque::new();
        loop {
            let mut quiet = true;
            for (&id, client) in &mut self.clients {
                if self.cut_off.contains(&id) {
                    continue;
                }
                while let Some(output) = client.poll_output() {
                    quiet = false;
                    match output {
                        Output::Group(message) => {
                            let time = Time::from_millis(self.now);
                            let sender = ParticipantId(id);
                            // A refusal is among the service's counters.
                            let _ = self.service.handle_message(time, sender, &message);
                        }
                        Output::Sealed(message) => sealed.push_back((id, message)),
                        told => self.told.entry(id).or_default().push(told),
                    }
                }
            }
            while let Some(output) = self.service.poll_output() {
                quiet = false;
                for ParticipantId(id) in output.to {
                    let message = ToMember::decode(&output.message).unwrap();
                    self.sent.entry(id).or_default().push(message);
                    if let Some(client) = self.clients.get_mut(&id)
                        && !self.cut_off.contains(&id)
                    {
                        let result = client.handle_group(unix, &output.message);
                        self.errors
                            .extend(result.err().map(|error| error.to_string()));
                    }
                }
            }
            while let Some((from, message)) = sealed.pop_front() {
                for (&id, client) in &mut self.clients {
                    if id != from && !self.cut_off.contains(&id) {
                        // Those who do not have the epoch yet refuse it, and ask.
                        let _ = client.handle_sealed(unix, &message);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }
}

/// The relay's pseudonym of a participant.
pub(crate) fn participant(id: u64) -> String {
    format!("PA_{id:016x}")
}
