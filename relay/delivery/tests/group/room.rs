//! A room on a virtual clock: members and a delivery service, joined by links with latency that
//! keep order, and hooks to tamper with what passes.

use sealcast_delivery::{DeliveryKey, DeliveryService, SUITES};
use sealcast_mls::identity::Claim;
use sealcast_mls::{Event, GroupSuite, Member, MemberConfig, MemberKey};
use sealcast_model::{ParticipantId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The members' clock at the start: seconds since the Unix epoch.
pub(crate) const START: Duration = Duration::from_secs(1_800_000_000);

pub(crate) struct Client {
    pub(crate) member: Member,
    pub(crate) events: Vec<Event>,
    /// Messages this member refused to take.
    pub(crate) refused: Vec<String>,
    /// Neither time nor messages reach it.
    pub(crate) frozen: bool,
    inbox: VecDeque<(u64, Vec<u8>)>,
    outbox: VecDeque<(u64, Vec<u8>)>,
}

/// Changes a message on its way to a member; `None` loses it.
pub(crate) type Tamper = Box<dyn FnMut(u64, Vec<u8>) -> Option<Vec<u8>>>;

pub(crate) struct Room {
    pub(crate) service: DeliveryService,
    pub(crate) clients: BTreeMap<u64, Client>,
    pub(crate) tamper: Option<Tamper>,
    pub(crate) config: MemberConfig,
    pub(crate) suite: GroupSuite,
    /// Errors of the service, by code.
    pub(crate) errors: BTreeMap<&'static str, u32>,
    /// Bytes that each participant sent and received.
    pub(crate) bytes: BTreeMap<u64, (usize, usize)>,
    key: Arc<DeliveryKey>,
    /// Milliseconds since the start.
    now: u64,
    latency: u64,
}

impl Room {
    pub(crate) fn new(suite: GroupSuite) -> Self {
        let mls = SUITES[usize::from(suite == GroupSuite::P256)];
        let key = Arc::new(DeliveryKey::from_seed(mls, &[7; 32]).unwrap());
        Self {
            service: DeliveryService::new(key.clone()),
            clients: BTreeMap::new(),
            tamper: None,
            config: MemberConfig::default(),
            suite,
            errors: BTreeMap::new(),
            bytes: BTreeMap::new(),
            key,
            now: 0,
            latency: 20,
        }
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    pub(crate) fn key(&self) -> Arc<DeliveryKey> {
        Arc::clone(&self.key)
    }

    pub(crate) fn unix(&self) -> Duration {
        START + Duration::from_millis(self.now)
    }

    pub(crate) fn join(&mut self, id: u64) {
        self.join_as(
            id,
            MemberKey::generate(self.suite).unwrap(),
            &Claim::Id(format!("p-{id}")),
        );
    }

    pub(crate) fn join_as(&mut self, id: u64, key: MemberKey, claim: &Claim) {
        self.service.handle_join(self.time(), ParticipantId(id));
        let client = Client {
            member: Member::new(self.unix(), self.config.clone(), key, claim).unwrap(),
            events: Vec::new(),
            refused: Vec::new(),
            frozen: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
        };
        self.clients.insert(id, client);
        self.collect();
    }

    /// The relay drops the participant; the member is handed over with all it holds.
    pub(crate) fn leave(&mut self, id: u64) -> Client {
        self.service.handle_leave(self.time(), ParticipantId(id));
        let client = self.clients.remove(&id).unwrap();
        self.collect();
        client
    }

    /// A relay that knows nothing takes over; everybody reconnects.
    pub(crate) fn restart(&mut self, seed: [u8; 32]) {
        self.key = Arc::new(DeliveryKey::from_seed(self.key.suite(), &seed).unwrap());
        self.service = DeliveryService::new(self.key.clone());
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.service.handle_join(self.time(), ParticipantId(id));
            self.reconnect(id);
        }
    }

    /// The connection breaks and comes back; what was on the way is lost.
    pub(crate) fn reconnect(&mut self, id: u64) {
        self.disconnect(id);
        let unix = self.unix();
        let client = self.clients.get_mut(&id).unwrap();
        client.frozen = false;
        client.member.handle_connected(unix).unwrap();
        self.collect();
    }

    pub(crate) fn disconnect(&mut self, id: u64) {
        self.service
            .handle_disconnect(self.time(), ParticipantId(id));
        let client = self.clients.get_mut(&id).unwrap();
        client.inbox.clear();
        client.outbox.clear();
        client.frozen = true;
        self.collect();
    }

    /// Lets time pass, in steps of 5 ms.
    pub(crate) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 5;
            self.step();
        }
    }

    /// Lets time pass until `done`, for at most `millis`; how long it took.
    pub(crate) fn run_until(&mut self, millis: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !done(self) {
            assert!(
                self.now - start < millis,
                "not within {millis} ms\n{}",
                self.describe()
            );
            self.now += 5;
            self.step();
        }
        self.now - start
    }

    fn step(&mut self) {
        let (time, unix) = (self.time(), self.unix());
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            let client = self.clients.get_mut(&id).unwrap();
            if client.frozen {
                continue;
            }
            while client.inbox.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, message) = client.inbox.pop_front().unwrap();
                self.bytes.entry(id).or_default().1 += message.len();
                let message = match &mut self.tamper {
                    Some(tamper) => tamper(id, message),
                    None => Some(message),
                };
                if let Some(message) = message
                    && let Err(error) = client.member.handle_message(unix, &message)
                {
                    client.refused.push(error.to_string());
                }
            }
            if client.member.poll_timeout().is_some_and(|at| at <= unix) {
                client.member.handle_timeout(unix).unwrap();
            }
            while client.outbox.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, message) = client.outbox.pop_front().unwrap();
                self.bytes.entry(id).or_default().0 += message.len();
                let result = self
                    .service
                    .handle_message(time, ParticipantId(id), &message);
                if let Err(error) = result {
                    *self.errors.entry(error.code()).or_default() += 1;
                }
            }
        }
        if self.service.poll_timeout().is_some_and(|at| at <= time) {
            self.service.handle_timeout(time);
        }
        self.collect();
    }

    /// Moves outputs onto the links.
    pub(crate) fn collect(&mut self) {
        let at = self.now + self.latency;
        while let Some(output) = self.service.poll_output() {
            for id in output.to {
                if let Some(client) = self.clients.get_mut(&id.0) {
                    client.inbox.push_back((at, output.message.clone()));
                }
            }
        }
        for client in self.clients.values_mut() {
            while let Some(message) = client.member.poll_outgoing() {
                client.outbox.push_back((at, message));
            }
            while let Some(event) = client.member.poll_event() {
                client.events.push(event);
            }
        }
    }

    pub(crate) fn inject(&mut self, id: u64, message: Vec<u8>) {
        let at = self.now + self.latency;
        self.clients
            .get_mut(&id)
            .unwrap()
            .inbox
            .push_back((at, message));
    }

    /// Whether these are the members of one group, by everybody's account, and seal with its keys.
    pub(crate) fn converged(&self, ids: impl IntoIterator<Item = u64>) -> bool {
        let ids: BTreeSet<u64> = ids.into_iter().collect();
        let members: Vec<_> = ids.iter().map(|id| &self.clients[id].member).collect();
        let Some(code) = members[0].epoch_authenticator() else {
            return false;
        };
        members.iter().all(|member| {
            member.epoch_authenticator() == Some(code)
                && member.members().len() == ids.len()
                && member.sending_epoch() == member.epoch()
        })
    }

    /// One or more members by their number.
    pub(crate) fn member(&mut self, id: u64) -> &mut Member {
        &mut self.clients.get_mut(&id).unwrap().member
    }

    pub(crate) fn epoch(&self, id: u64) -> Option<u64> {
        self.clients[&id].member.epoch()
    }

    pub(crate) fn events(&self, id: u64) -> &[Event] {
        &self.clients[&id].events
    }

    /// What everybody thinks, for messages of failed assertions.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!(
            "service {:?} {:?} {:?}\n",
            self.service.group(),
            self.service.counters(),
            self.errors
        );
        for (id, client) in &self.clients {
            let tail = client.events.len().saturating_sub(4);
            text += &format!(
                "{id}: epoch {:?} sending {:?} members {} refused {:?} events {:?}\n",
                client.member.epoch(),
                client.member.sending_epoch(),
                client.member.members().len(),
                client.refused.last(),
                &client.events[tail..],
            );
        }
        text
    }
}
