//! What each message of a participant does.

use super::*;

impl DeliveryService {
    pub(super) fn handle_hello(
        &mut self,
        id: ParticipantId,
        resume: Option<Resume>,
        key_packages: Vec<VLBytes>,
    ) -> Result<(), DeliveryError> {
        let mut known_stale = false;
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.discard_key_packages();
            participant.connected = true;
            participant.ready = None;
            participant.declined = false;
            known_stale = std::mem::take(&mut participant.stale_leaf);
            participant.resume.clone_from(&resume);
        }
        self.store_key_packages(id, key_packages)?;
        let Some(participant) = self.participants.get_mut(&id) else {
            return Err(DeliveryError::UnknownParticipant);
        };
        let State::Active(active) = &self.state else {
            return Ok(());
        };
        let key = participant.signature_key.as_deref().unwrap_or_default();
        let leaf = active.group.leaf_of(key);
        let missed = resume
            .as_ref()
            .filter(|_| leaf.is_some())
            .and_then(|resume| active.group.since(resume));
        match (missed, leaf, resume) {
            (Some(missed), ..) => {
                let messages: Vec<_> = missed
                    .into_iter()
                    .map(|(is_commit, message)| handshake(is_commit, message))
                    .collect();
                for message in messages {
                    self.send(vec![id], &message)?;
                }
            }
            (None, leaf, resume) => {
                // Its leaf, if it has one, is of a state that it lost or that nobody else holds.
                participant.stale_leaf = leaf.is_some();
                self.counters.added_again += u64::from(leaf.is_some() && !known_stale);
                if resume.is_some() {
                    participant.connected = false;
                    self.send_regardless(id, &ToMember::Reset)?;
                }
            }
        }
        Ok(())
    }

    /// Validates and stores KeyPackages; all have one signature key, which nobody else has.
    pub(super) fn store_key_packages(
        &mut self,
        id: ParticipantId,
        messages: Vec<VLBytes>,
    ) -> Result<(), DeliveryError> {
        let key_packages = messages
            .iter()
            .map(|message| self.validate_key_package(message.as_slice()))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = key_packages.first() else {
            return Err(DeliveryError::KeyPackage("none"));
        };
        let key = first.leaf_node().signature_key().as_slice().to_vec();
        let same = |package: &KeyPackage| package.leaf_node().signature_key().as_slice() == key;
        if !key_packages.iter().all(same) {
            return Err(DeliveryError::KeyPackage("several signature keys"));
        }
        let taken = self.participants.iter().any(|(other, participant)| {
            *other != id && participant.signature_key.as_ref() == Some(&key)
        });
        if taken {
            return Err(DeliveryError::KeyPackage(
                "signature key of another participant",
            ));
        }
        let participant = self
            .participants
            .get_mut(&id)
            .ok_or(DeliveryError::UnknownParticipant)?;
        if participant
            .signature_key
            .as_ref()
            .is_some_and(|known| *known != key)
        {
            participant.discard_key_packages();
        }
        participant.signature_key = Some(key);
        participant.store(key_packages);
        Ok(())
    }

    pub(super) fn validate_key_package(&self, message: &[u8]) -> Result<KeyPackage, DeliveryError> {
        let MlsMessageBodyIn::KeyPackage(key_package) = parse(message)? else {
            return Err(DeliveryError::MlsFormat("key package"));
        };
        let key_package = key_package
            .validate(self.crypto.crypto(), ProtocolVersion::Mls10)
            .map_err(|_| DeliveryError::KeyPackage("does not verify"))?;
        if key_package.ciphersuite() != self.key.suite() {
            return Err(DeliveryError::KeyPackage("suite"));
        }
        if key_package.last_resort() {
            return Err(DeliveryError::KeyPackage("not one-time"));
        }
        Ok(key_package)
    }

    pub(super) fn handle_group_info(
        &mut self,
        now: Time,
        id: ParticipantId,
        message: &[u8],
    ) -> Result<(), DeliveryError> {
        let (group_id, epoch, rebuilt) = match &self.state {
            State::Creating {
                creator, group_id, ..
            } if *creator == id => (group_id.clone(), 0, false),
            State::Rebuilding {
                asked: Some((asked, resume)),
                ..
            } if *asked == id => (resume.group_id.as_slice().to_vec(), resume.epoch, true),
            _ => return Err(DeliveryError::GroupInfo("not asked for")),
        };
        let group = Group::from_group_info(now, &self.key, message)?;
        if group.id() != group_id || group.epoch() != epoch {
            return Err(DeliveryError::GroupInfo("another group"));
        }
        let participant = self.participants.get(&id);
        let key = participant.and_then(|participant| participant.signature_key.as_deref());
        if key.and_then(|key| group.leaf_of(key)).is_none() {
            return Err(DeliveryError::GroupInfo("sender is not in it"));
        }
        if !rebuilt && group.leaves().count() != 1 {
            return Err(DeliveryError::GroupInfo("not a new group"));
        }
        self.counters.rebuilt += u64::from(rebuilt);
        let grace = if rebuilt {
            ORPHAN_GRACE
        } else {
            Duration::ZERO
        };
        let active = Active::new(group, now + grace);
        self.adopt(active)
    }

    /// Goes on with a group; whoever holds another state starts over.
    pub(super) fn adopt(&mut self, active: Box<Active>) -> Result<(), DeliveryError> {
        let mut resets = Vec::new();
        for (id, participant) in &mut self.participants {
            let key = participant.signature_key.as_deref().unwrap_or_default();
            let in_tree = active.group.leaf_of(key).is_some();
            let resume = participant.resume.take();
            let current = resume.as_ref().is_some_and(|resume| {
                resume.group_id.as_slice() == active.group.id()
                    && active
                        .group
                        .is_current(resume.epoch, resume.confirmation_tag.as_slice())
            });
            // The creator of a new group is in its tree and resumes nothing.
            if resume.is_some() && !(current && in_tree) {
                participant.stale_leaf = in_tree;
                participant.connected = false;
                resets.push(*id);
            }
        }
        self.state = State::Active(active);
        for id in resets {
            self.send_regardless(id, &ToMember::Reset)?;
        }
        Ok(())
    }

    pub(super) fn handle_commit(
        &mut self,
        now: Time,
        id: ParticipantId,
        commit: VLBytes,
        welcome: Option<VLBytes>,
    ) -> Result<(), DeliveryError> {
        let message = parse_handshake(commit.as_slice())?;
        let epoch = message.epoch().as_u64();
        let stale = |why| ToMember::Stale { epoch, why };
        let State::Active(active) = &mut self.state else {
            return Err(DeliveryError::NoGroup);
        };
        // Compare-and-swap: a commit counts only against the epoch that is current.
        if message.group_id().as_slice() != active.group.id() || epoch != active.group.epoch() {
            self.counters.stale_commits += 1;
            return self.send(vec![id], &stale(Why::Lost));
        }
        if epoch > 0 && now < active.group.started + MIN_EPOCH {
            self.counters.stale_commits += 1;
            return self.send(vec![id], &stale(Why::TooSoon));
        }
        let leaf = self
            .participants
            .get(&id)
            .and_then(|participant| active.group.leaf_of(participant.signature_key.as_deref()?))
            .ok_or_else(|| DeliveryError::Commit("by somebody outside".to_owned()));
        let checked = leaf
            .and_then(|leaf| active.group.check_commit(message, leaf))
            .and_then(|staged| {
                check_welcome(staged.add_proposals().count(), welcome.as_ref())?;
                Ok(staged)
            });
        let staged = match checked {
            Ok(staged) => staged,
            Err(error) => {
                self.counters.invalid_commits += 1;
                self.send(vec![id], &stale(Why::Invalid))?;
                return Err(error);
            }
        };
        let before: BTreeSet<_> = members(&self.participants, &active.group).collect();
        let bytes = commit.as_slice().to_vec();
        let merged = active.group.merge(now, bytes, staged)?;
        self.counters.commits += 1;
        active.committer = Some(id);
        active.refused.clear();
        active.welcomed.clear();
        for (other, participant) in &mut self.participants {
            let added = participant
                .signature_key
                .as_ref()
                .is_some_and(|key| merged.added.contains(key));
            if added {
                participant.use_up_key_package();
                participant.ready = None;
                participant.stale_leaf = false;
                active.welcomed.insert(*other);
            }
        }
        let welcomed: Vec<_> = active.welcomed.iter().copied().collect();
        self.send(
            before.into_iter().collect(),
            &ToMember::Commit { message: commit },
        )?;
        match welcome {
            Some(message) => self.send(welcomed, &ToMember::Welcome { message }),
            None => Ok(()),
        }
    }

    pub(super) fn handle_ready(
        &mut self,
        id: ParticipantId,
        epoch: u64,
        confirmation_tag: &[u8],
    ) -> Result<(), DeliveryError> {
        let State::Active(active) = &self.state else {
            return Err(DeliveryError::NoGroup);
        };
        if epoch < active.group.epoch() {
            return Ok(());
        }
        if !active.group.is_current(epoch, confirmation_tag) {
            // It took a commit that was undone before its word of it came.
            return self.add_again([id].into());
        }
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.ready = Some(epoch);
        }
        // The others did not wait for one who was away.
        if active.announced == Some(epoch) {
            return self.send(vec![id], &ToMember::AllReady { epoch });
        }
        Ok(())
    }

    pub(super) fn handle_refused(
        &mut self,
        id: ParticipantId,
        epoch: u64,
    ) -> Result<(), DeliveryError> {
        let State::Active(active) = &mut self.state else {
            return Err(DeliveryError::NoGroup);
        };
        let last = active.group.epoch().checked_sub(1) == Some(epoch);
        if last && !active.group.is_settled() && active.committer != Some(id) {
            active.refused.insert(id);
            return self.judge_refusals(false);
        }
        if epoch >= active.group.epoch() {
            // The commit that it refused was undone meanwhile, or there never was one.
            return Ok(());
        }
        // It is behind, or alone: its own state is at fault.
        self.add_again([id].into())
    }

    /// Undoes the last commit if most members refused it. Once they had the time to, those who
    /// refused it alone are added again, and the commit stands.
    pub(super) fn judge_refusals(&mut self, window_over: bool) -> Result<(), DeliveryError> {
        let State::Active(active) = &mut self.state else {
            return Ok(());
        };
        let voters: BTreeSet<_> = members(&self.participants, &active.group)
            .filter(|id| active.committer != Some(*id) && !active.welcomed.contains(id))
            .collect();
        let refused = active.refused.intersection(&voters).count();
        if refused * 2 > voters.len() {
            let mut lost: BTreeSet<_> = active.welcomed.iter().copied().collect();
            lost.extend(active.committer);
            // Whoever took the commit cannot go back.
            let epoch = active.group.epoch();
            let ready = |id: &ParticipantId| {
                let participant = self.participants.get(id);
                participant.is_some_and(|participant| participant.ready == Some(epoch))
            };
            lost.extend(voters.iter().copied().filter(ready));
            if active.group.undo()? {
                self.counters.undone += 1;
                active.refused.clear();
                active.welcomed.clear();
                active.committer = None;
                return self.add_again(lost);
            }
        } else if window_over {
            active.group.settle();
            let refused = std::mem::take(&mut active.refused);
            return self.add_again(refused);
        }
        Ok(())
    }

    /// Has participants removed and added anew.
    pub(super) fn add_again(&mut self, ids: BTreeSet<ParticipantId>) -> Result<(), DeliveryError> {
        for id in ids {
            if let Some(participant) = self.participants.get_mut(&id) {
                self.counters.added_again += 1;
                participant.stale_leaf = true;
                participant.ready = None;
                participant.discard_key_packages();
                self.send(vec![id], &ToMember::Reset)?;
                if let Some(participant) = self.participants.get_mut(&id) {
                    participant.connected = false;
                }
            }
        }
        Ok(())
    }

    pub(super) fn handle_declined(&mut self, id: ParticipantId, signature_key: &[u8]) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        let proposed = Change::Add(signature_key.to_vec());
        let members: BTreeSet<_> = members(&self.participants, &active.group).collect();
        let known = active
            .group
            .proposals()
            .iter()
            .any(|issued| issued.change == proposed);
        if known && members.contains(&id) {
            active
                .declined
                .entry(signature_key.to_vec())
                .or_default()
                .insert(id);
        }
    }
}

/// A commit that adds somebody comes with a Welcome for as many; no other does.
fn check_welcome(added: usize, welcome: Option<&VLBytes>) -> Result<(), DeliveryError> {
    let welcomed = match welcome {
        None => 0,
        Some(message) => match parse(message.as_slice())? {
            MlsMessageBodyIn::Welcome(welcome) => welcome.secrets().len(),
            _ => return Err(DeliveryError::MlsFormat("welcome")),
        },
    };
    if added == welcomed {
        Ok(())
    } else {
        Err(DeliveryError::Commit(format!(
            "adds {added}, welcomes {welcomed}"
        )))
    }
}
