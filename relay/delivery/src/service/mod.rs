//! One room's delivery service: its state, inputs and outputs. What each message does is in
//! `messages`, what follows from every input in `upkeep`.

mod messages;
mod upkeep;

use crate::error::DeliveryError;
use crate::group::{Change, Group, parse, parse_handshake};
use crate::key::DeliveryKey;
use crate::limits::{
    ANSWER_WITHIN, MAX_PROPOSALS, MIN_EPOCH, ORPHAN_GRACE, REBUILD_WAIT, REFUSAL_WINDOW,
    STALLED_AFTER,
};
use crate::participant::Participant;
use openmls::prelude::{
    KeyPackage, LeafNodeIndex, MlsMessageBodyIn, OpenMlsProvider, OpenMlsRand, ProtocolVersion,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealcast_group_wire::{GROUP_ID_LEN, MAX_MEMBERS, Resume, ToMember, ToService, Why};
use sealcast_model::{ParticipantId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tls_codec::VLBytes;

/// A message for one or more participants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Who is to have it.
    pub to: Vec<ParticipantId>,
    /// The message, as `sealcast-group-wire` encodes it.
    pub message: Vec<u8>,
}

/// What happened in the group, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits that ended an epoch.
    pub commits: u64,
    /// Commits that came too late or too soon.
    pub stale_commits: u64,
    /// Commits that broke the rules.
    pub invalid_commits: u64,
    /// Epochs undone because most members refused the commit.
    pub undone: u64,
    /// Members added again because they alone refused a commit, or had lost their state.
    pub added_again: u64,
    /// Groups taken up from a member's GroupInfo after a restart.
    pub rebuilt: u64,
    /// Groups that got stuck and started over.
    pub stalled: u64,
}

/// The delivery service of one room.
///
/// Contract: call a `handle_` method, then drain [`poll_output`](Self::poll_output), then wait for
/// input or [`poll_timeout`](Self::poll_timeout). Outputs to one participant are delivered in
/// their order.
pub struct DeliveryService {
    key: Arc<DeliveryKey>,
    crypto: OpenMlsRustCrypto,
    participants: BTreeMap<ParticipantId, Participant>,
    state: State,
    outputs: VecDeque<Output>,
    counters: Counters,
}

enum State {
    /// No group, nobody to make one.
    Empty,
    /// A participant is making one.
    Creating {
        creator: ParticipantId,
        group_id: Vec<u8>,
        deadline: Time,
        /// Those who did not answer.
        failed: BTreeSet<ParticipantId>,
    },
    /// Members of an earlier group are coming back.
    Rebuilding {
        /// Whom GroupInfo was asked of, and the state it is said to hold.
        asked: Option<(ParticipantId, Resume)>,
        deadline: Time,
        failed: BTreeSet<ParticipantId>,
    },
    Active(Box<Active>),
}

struct Active {
    group: Group,
    /// Leaves without a participant are removed from this time on.
    orphans_until: Time,
    /// That time has passed.
    orphans_removed: bool,
    /// Signature keys of participants who left, whose leaves are removed at once.
    departed: BTreeSet<Vec<u8>>,
    /// Who committed last.
    committer: Option<ParticipantId>,
    /// Who refused the last commit.
    refused: BTreeSet<ParticipantId>,
    /// Whom the last commit added.
    welcomed: BTreeSet<ParticipantId>,
    /// By signature key proposed: who declined it.
    declined: BTreeMap<Vec<u8>, BTreeSet<ParticipantId>>,
    /// Epoch for which everybody was told to be ready.
    announced: Option<u64>,
}

impl Active {
    fn new(group: Group, orphans_until: Time) -> Box<Self> {
        Box::new(Self {
            group,
            orphans_until,
            orphans_removed: false,
            departed: BTreeSet::new(),
            committer: None,
            refused: BTreeSet::new(),
            welcomed: BTreeSet::new(),
            declined: BTreeMap::new(),
            announced: None,
        })
    }
}

impl DeliveryService {
    /// The service of a room in which nobody is yet.
    pub fn new(key: Arc<DeliveryKey>) -> Self {
        Self {
            key,
            crypto: OpenMlsRustCrypto::default(),
            participants: BTreeMap::new(),
            state: State::Empty,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The relay admitted a participant.
    pub fn handle_join(&mut self, now: Time, id: ParticipantId) {
        self.participants
            .entry(id)
            .or_insert_with(|| Participant::new(now));
    }

    /// The participant's connection broke. It may come back.
    pub fn handle_disconnect(&mut self, now: Time, id: ParticipantId) {
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.connected = false;
        }
        self.after_input(now);
    }

    /// The participant left, or was dropped by the relay. Its leaf is to go.
    pub fn handle_leave(&mut self, now: Time, id: ParticipantId) {
        let left = self.participants.remove(&id);
        if let State::Active(active) = &mut self.state {
            let group = &active.group;
            active.departed.retain(|key| group.leaf_of(key).is_some());
            active
                .departed
                .extend(left.and_then(|left| left.signature_key));
        }
        if self.participants.is_empty() {
            self.state = State::Empty;
        }
        self.after_input(now);
    }

    /// Takes a participant's message.
    ///
    /// # Errors
    /// [`DeliveryError`], for the counter of its code. The participant has been told what it needs
    /// to know.
    pub fn handle_message(
        &mut self,
        now: Time,
        id: ParticipantId,
        message: &[u8],
    ) -> Result<(), DeliveryError> {
        let participant = self
            .participants
            .get_mut(&id)
            .ok_or(DeliveryError::UnknownParticipant)?;
        if !participant.may_send(now) {
            return Err(DeliveryError::Rate);
        }
        let result = match ToService::decode(message)? {
            ToService::Hello {
                resume,
                key_packages,
            } => self.handle_hello(id, resume, key_packages),
            ToService::KeyPackages { key_packages } => self.store_key_packages(id, key_packages),
            ToService::GroupInfo { message } => self.handle_group_info(now, id, message.as_slice()),
            ToService::Commit { commit, welcome } => self.handle_commit(now, id, commit, welcome),
            ToService::Ready {
                epoch,
                confirmation_tag,
            } => self.handle_ready(id, epoch, confirmation_tag.as_slice()),
            ToService::Refused { epoch } => self.handle_refused(id, epoch),
            ToService::Declined { signature_key } => {
                self.handle_declined(id, signature_key.as_slice());
                Ok(())
            }
        };
        self.after_input(now);
        result
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.after_input(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Empty => None,
            State::Creating { deadline, .. } | State::Rebuilding { deadline, .. } => {
                Some(*deadline)
            }
            State::Active(active) => {
                let group = &active.group;
                let settle = (!group.is_settled()).then(|| group.started + REFUSAL_WINDOW);
                let stall = self.first_waiting(active).map(|at| at + STALLED_AFTER);
                let orphans = (!active.orphans_removed).then_some(active.orphans_until);
                [settle, stall, orphans].into_iter().flatten().min()
            }
        }
    }

    /// The next message to send.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The group's epoch and number of members, if there is a group.
    pub fn group(&self) -> Option<(u64, usize)> {
        match &self.state {
            State::Active(active) => Some((active.group.epoch(), active.group.leaves().count())),
            _ => None,
        }
    }

    /// How many who are not in the group some members have declined to add.
    pub fn declined(&self) -> usize {
        match &self.state {
            State::Active(active) => active.declined.len(),
            _ => 0,
        }
    }

    fn send(&mut self, to: Vec<ParticipantId>, message: &ToMember) -> Result<(), DeliveryError> {
        let to: Vec<_> = to
            .into_iter()
            .filter(|id| is_connected(&self.participants, *id))
            .collect();
        if !to.is_empty() {
            let message = message.encode()?;
            self.outputs.push_back(Output { to, message });
        }
        Ok(())
    }

    /// Sends to one whom nothing else is sent until it says Hello.
    fn send_regardless(
        &mut self,
        id: ParticipantId,
        message: &ToMember,
    ) -> Result<(), DeliveryError> {
        let message = message.encode()?;
        self.outputs.push_back(Output {
            to: vec![id],
            message,
        });
        Ok(())
    }
}

/// Connected participants whose leaf in the group is good.
fn members<'a>(
    participants: &'a BTreeMap<ParticipantId, Participant>,
    group: &'a Group,
) -> impl Iterator<Item = ParticipantId> + 'a {
    participants
        .iter()
        .filter(|(_, participant)| {
            let key = participant.signature_key.as_deref();
            let in_tree = key.is_some_and(|key| group.leaf_of(key).is_some());
            participant.connected && !participant.stale_leaf && in_tree
        })
        .map(|(id, _)| *id)
}

fn connected(participants: &BTreeMap<ParticipantId, Participant>) -> Vec<ParticipantId> {
    let connected = participants
        .iter()
        .filter(|(_, participant)| participant.connected);
    connected.map(|(id, _)| *id).collect()
}

fn is_connected(participants: &BTreeMap<ParticipantId, Participant>, id: ParticipantId) -> bool {
    participants
        .get(&id)
        .is_some_and(|participant| participant.connected)
}

fn handshake(is_commit: bool, message: &[u8]) -> ToMember {
    let message = message.to_vec().into();
    if is_commit {
        ToMember::Commit { message }
    } else {
        ToMember::Proposal { message }
    }
}
