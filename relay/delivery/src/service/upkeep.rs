//! What follows from every input and from time: a group where there is none, proposals for what it
//! lacks, and a way out where it is stuck.

use super::*;

impl DeliveryService {
    /// Brings everything up to date with `now`.
    pub(super) fn after_input(&mut self, now: Time) {
        // An error here is the library's; what it concerned is tried again after the next input.
        type Step = fn(&mut DeliveryService, Time) -> Result<(), DeliveryError>;
        let steps: [Step; 5] = [
            Self::settle,
            Self::start_over_if_stuck,
            Self::choose_state,
            Self::refuse_declined,
            Self::propose,
        ];
        for step in steps {
            if step(self, now).is_err() {
                return;
            }
        }
        self.announce_ready();
    }

    pub(super) fn settle(&mut self, now: Time) -> Result<(), DeliveryError> {
        match &self.state {
            State::Active(active)
                if !active.group.is_settled() && active.group.started + REFUSAL_WINDOW <= now =>
            {
                self.judge_refusals(true)
            }
            _ => Ok(()),
        }
    }

    /// A group with nobody left in it, or in which nobody commits, starts over.
    pub(super) fn start_over_if_stuck(&mut self, now: Time) -> Result<(), DeliveryError> {
        let State::Active(active) = &self.state else {
            return Ok(());
        };
        let deserted = members(&self.participants, &active.group).next().is_none()
            && active.orphans_until <= now
            && self
                .participants
                .values()
                .any(|participant| participant.connected);
        let waiting = self.first_waiting(active);
        let stalled = waiting.is_some_and(|at| at + STALLED_AFTER <= now);
        if deserted || stalled {
            self.counters.stalled += u64::from(stalled);
            let everybody = connected(&self.participants);
            self.state = State::Empty;
            for participant in self.participants.values_mut() {
                participant.resume = None;
                participant.stale_leaf = false;
                participant.declined = false;
                participant.discard_key_packages();
            }
            self.send(everybody.clone(), &ToMember::Reset)?;
            for id in everybody {
                if let Some(participant) = self.participants.get_mut(&id) {
                    participant.connected = false;
                }
            }
        }
        Ok(())
    }

    /// Without a group: asks for the old one, or for a new one.
    pub(super) fn choose_state(&mut self, now: Time) -> Result<(), DeliveryError> {
        match &mut self.state {
            State::Active(_) => Ok(()),
            State::Empty => {
                let back = |participant: &Participant| participant.resume.is_some();
                if self.participants.values().any(back) {
                    self.state = State::Rebuilding {
                        asked: None,
                        deadline: now + REBUILD_WAIT,
                        failed: BTreeSet::new(),
                    };
                    Ok(())
                } else {
                    self.ask_to_create(now, BTreeSet::new())
                }
            }
            State::Creating {
                creator,
                deadline,
                failed,
                ..
            } => {
                let gone = !is_connected(&self.participants, *creator);
                if gone || *deadline <= now {
                    let mut failed = std::mem::take(failed);
                    failed.insert(*creator);
                    self.ask_to_create(now, failed)
                } else {
                    Ok(())
                }
            }
            State::Rebuilding {
                asked,
                deadline,
                failed,
            } => {
                let gone = asked
                    .as_ref()
                    .is_some_and(|(asked, _)| !is_connected(&self.participants, *asked));
                if gone || *deadline <= now {
                    let mut failed = std::mem::take(failed);
                    failed.extend(asked.take().map(|(asked, _)| asked));
                    self.ask_to_rebuild(now, failed)
                } else {
                    Ok(())
                }
            }
        }
    }

    pub(super) fn ask_to_create(
        &mut self,
        now: Time,
        mut failed: BTreeSet<ParticipantId>,
    ) -> Result<(), DeliveryError> {
        let ready = |id: &ParticipantId| {
            let participant = self.participants.get(id);
            participant.is_some_and(|participant| participant.signature_key.is_some())
        };
        let candidates: Vec<_> = connected(&self.participants)
            .into_iter()
            .filter(ready)
            .collect();
        if candidates.iter().all(|id| failed.contains(id)) {
            failed.clear();
        }
        let Some(&creator) = candidates.iter().find(|id| !failed.contains(id)) else {
            self.state = State::Empty;
            return Ok(());
        };
        let group_id = self
            .crypto
            .rand()
            .random_vec(GROUP_ID_LEN)
            .map_err(DeliveryError::library)?;
        let message = ToMember::Create {
            group_id: group_id.clone().into(),
            suite: u16::from(self.key.suite()),
            external_sender: self.key.pair().public().into(),
        };
        self.state = State::Creating {
            creator,
            group_id,
            deadline: now + ANSWER_WITHIN,
            failed,
        };
        self.send(vec![creator], &message)
    }

    /// Asks for GroupInfo of the state that most participants hold; among equals, the later one.
    pub(super) fn ask_to_rebuild(
        &mut self,
        now: Time,
        failed: BTreeSet<ParticipantId>,
    ) -> Result<(), DeliveryError> {
        let mut support = BTreeMap::<_, Vec<(ParticipantId, Resume)>>::new();
        for (id, participant) in &self.participants {
            if let (true, Some(resume)) = (participant.connected, &participant.resume)
                && !failed.contains(id)
            {
                let state = (
                    resume.epoch,
                    resume.group_id.as_slice().to_vec(),
                    resume.confirmation_tag.as_slice().to_vec(),
                );
                support
                    .entry(state)
                    .or_default()
                    .push((*id, resume.clone()));
            }
        }
        let best = support
            .into_iter()
            .max_by_key(|((epoch, ..), supporters)| (supporters.len(), *epoch))
            .and_then(|(_, supporters)| supporters.into_iter().next());
        match best {
            Some((id, resume)) => {
                self.state = State::Rebuilding {
                    asked: Some((id, resume)),
                    deadline: now + ANSWER_WITHIN,
                    failed,
                };
                self.send(vec![id], &ToMember::SendGroupInfo)
            }
            None => self.ask_to_create(now, BTreeSet::new()),
        }
    }

    /// Gives up on whom most members declined to add.
    pub(super) fn refuse_declined(&mut self, _: Time) -> Result<(), DeliveryError> {
        let State::Active(active) = &mut self.state else {
            return Ok(());
        };
        let members: BTreeSet<_> = members(&self.participants, &active.group).collect();
        let mut refused = Vec::new();
        let outside = |key: &Vec<u8>| {
            let mut keys = self.participants.values().map(|p| p.signature_key.as_ref());
            active.group.leaf_of(key).is_none() && keys.any(|known| known == Some(key))
        };
        active.declined.retain(|key, by| {
            let most = by.intersection(&members).count() * 2 > members.len();
            if most {
                refused.push(key.clone());
            }
            // Of whom most others added, or who has left, nobody needs to know it any more.
            !most && outside(key)
        });
        for (id, participant) in &mut self.participants {
            let key = participant.signature_key.as_ref();
            if key.is_some_and(|key| refused.contains(key)) && !participant.declined {
                participant.declined = true;
                let output = Output {
                    to: vec![*id],
                    message: ToMember::NotAdmitted.encode()?,
                };
                self.outputs.push_back(output);
            }
        }
        Ok(())
    }

    /// Proposes whatever the group still lacks to be the set of participants.
    pub(super) fn propose(&mut self, now: Time) -> Result<(), DeliveryError> {
        let State::Active(active) = &mut self.state else {
            return Ok(());
        };
        active.orphans_removed = active.orphans_until <= now;
        let wanted = wanted_changes(now, active, &self.participants);
        let to: Vec<_> = members(&self.participants, &active.group).collect();
        for change in wanted {
            if active.group.proposals().len() >= MAX_PROPOSALS {
                break;
            }
            if active
                .group
                .proposals()
                .iter()
                .any(|issued| issued.change == change)
            {
                continue;
            }
            let issued = match &change {
                Change::Remove(leaf) => active.group.propose_remove(now, &self.key, *leaf)?,
                Change::Add(key) => {
                    let mut participants = self.participants.values_mut();
                    let owner = participants
                        .find(|participant| participant.signature_key.as_ref() == Some(key));
                    let Some(key_package) = owner.and_then(|owner| owner.key_package().cloned())
                    else {
                        continue;
                    };
                    active.group.propose_add(now, &self.key, &key_package)?
                }
            };
            let message = handshake(false, &issued.message).encode()?;
            self.outputs.push_back(Output {
                to: to.clone(),
                message,
            });
        }
        let mut ask = Vec::new();
        for (id, participant) in &mut self.participants {
            if participant.ask_for_key_packages() {
                ask.push(*id);
            }
        }
        self.send(ask, &ToMember::SendKeyPackages)
    }

    /// Tells everybody once everybody connected is ready.
    pub(super) fn announce_ready(&mut self) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        let epoch = active.group.epoch();
        let to: Vec<_> = members(&self.participants, &active.group).collect();
        let ready = |id: &ParticipantId| {
            let participant = self.participants.get(id);
            participant.is_some_and(|participant| participant.ready == Some(epoch))
        };
        if active.announced < Some(epoch) && !to.is_empty() && to.iter().all(ready) {
            active.announced = Some(epoch);
            if let Ok(message) = (ToMember::AllReady { epoch }).encode() {
                self.outputs.push_back(Output { to, message });
            }
        }
    }

    /// When the oldest proposal went out that members could have committed to and did not.
    pub(super) fn first_waiting(&self, active: &Active) -> Option<Time> {
        let declined = |key: &Vec<u8>| {
            active.declined.contains_key(key)
                || self.participants.values().any(|participant| {
                    participant.declined && participant.signature_key.as_ref() == Some(key)
                })
        };
        let proposals = active.group.proposals().iter();
        proposals
            .filter(|issued| !matches!(&issued.change, Change::Add(key) if declined(key)))
            .map(|issued| issued.at)
            .min()
    }
}

/// What the group lacks to be the set of participants: removals first, as they make room.
fn wanted_changes(
    now: Time,
    active: &Active,
    participants: &BTreeMap<ParticipantId, Participant>,
) -> Vec<Change> {
    let mut removals: Vec<_> = participants
        .values()
        .filter(|participant| participant.stale_leaf)
        .filter_map(|participant| active.group.leaf_of(participant.signature_key.as_deref()?))
        .collect();
    removals.extend(orphans(now, active, participants));
    let members = active.group.leaves().count();
    let room = MAX_MEMBERS.saturating_sub(members);
    let additions = participants
        .values()
        .filter(|participant| participant.connected && !participant.declined)
        .filter(|participant| participant.key_package().is_some())
        .filter_map(|participant| participant.signature_key.as_ref())
        .filter(|key| active.group.leaf_of(key).is_none())
        .take(room);
    removals
        .into_iter()
        .map(Change::Remove)
        .chain(additions.cloned().map(Change::Add))
        .collect()
}

/// Leaves whose owner is no participant: those who left, and in time those who did not come back.
fn orphans<'a>(
    now: Time,
    active: &'a Active,
    participants: &'a BTreeMap<ParticipantId, Participant>,
) -> impl Iterator<Item = LeafNodeIndex> + 'a {
    active
        .group
        .leaves()
        .filter(move |(_, key)| {
            let mut owners = participants.values();
            (active.orphans_until <= now || active.departed.contains(key))
                && !owners.any(|participant| participant.signature_key.as_ref() == Some(key))
        })
        .map(|(leaf, _)| leaf)
}
