//! Proposals and commits: which are taken, and when this member commits itself.

use super::*;
use sealcast_group_wire::MAX_MEMBERS;

/// Proposals that a member keeps in one epoch: everybody leaves, and as many come. A delivery
/// service proposes fewer.
const MAX_PROPOSALS: usize = 2 * MAX_MEMBERS;

impl Member {
    pub(super) fn handle_proposal(
        &mut self,
        now: Duration,
        message: &[u8],
    ) -> Result<(), HandleError> {
        let message = parse_handshake(message)?;
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        let processed = group
            .process_message(&self.provider, message)
            .map_err(|error| fault::handshake(&error))?;
        let ProcessedMessageContent::ProposalMessage(proposal) = processed.into_content() else {
            return Err(Refusal::NotProposed.into());
        };
        if let Err(refusal) = commit::check_proposal(&proposal, &self.judge(), now) {
            if let (Refusal::UnverifiedMember(_), Proposal::Add(add)) =
                (&refusal, proposal.proposal())
            {
                let leaf = add.key_package().leaf_node();
                self.decline(
                    leaf.credential().clone(),
                    leaf.signature_key().as_slice(),
                    now,
                )?;
            }
            return Err(refusal.into());
        }
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        let reference = proposal.proposal_reference_ref();
        if group
            .pending_proposals()
            .any(|known| known.proposal_reference_ref() == reference)
        {
            // Sent again after a reconnection.
            self.handshakes.repeated += 1;
            return Ok(());
        }
        if group.pending_proposals().count() >= MAX_PROPOSALS {
            return Err(Refusal::TooMany.into());
        }
        group
            .store_pending_proposal(self.provider.storage(), *proposal)
            .map_err(HandleError::library)?;
        self.outstanding_since.get_or_insert(now);
        Ok(())
    }

    pub(super) fn decline(
        &mut self,
        credential: openmls::prelude::Credential,
        signature_key: &[u8],
        now: Duration,
    ) -> Result<(), HandleError> {
        if let Identity::Unverified { subject, reason } =
            self.judge().identity(&credential, signature_key, Some(now))
        {
            self.push_event(Event::MemberDeclined {
                identity: subject,
                reason,
            });
        }
        self.send(&ToService::Declined {
            signature_key: signature_key.to_vec().into(),
        })
    }

    pub(super) fn handle_commit(
        &mut self,
        now: Duration,
        message: &[u8],
    ) -> Result<(), HandleError> {
        let message = parse_handshake(message)?;
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        if message.epoch() < group.epoch() && message.group_id() == group.group_id() {
            // Replayed after a reconnection; processed already.
            self.handshakes.repeated += 1;
            return Ok(());
        }
        match self.apply_commit(now, message) {
            Ok(()) => self.on_new_epoch(now),
            Err((committer, refusal)) => {
                let epoch = self.epoch().ok_or(HandleError::NoGroup)?;
                self.push_event(Event::CommitRefused {
                    epoch,
                    committer,
                    reason: refusal.to_string(),
                });
                self.send(&ToService::Refused { epoch })?;
                Err(refusal.into())
            }
        }
    }

    /// Processes and merges a commit; on refusal, nothing has changed.
    pub(super) fn apply_commit(
        &mut self,
        now: Duration,
        message: ProtocolMessage,
    ) -> Result<(), (Option<u16>, Refusal)> {
        let group = self.group.as_mut().ok_or((None, Refusal::Parameters))?;
        let processed = group
            .process_message(&self.provider, message)
            .map_err(|error| (None, fault::handshake(&error)))?;
        let sender = processed.sender().clone();
        let committer = match sender {
            Sender::Member(leaf) => u16::try_from(leaf.u32()).ok(),
            _ => None,
        };
        match processed.into_content() {
            ProcessedMessageContent::OwnPendingCommit => group
                .merge_pending_commit(&self.provider)
                .map_err(|error| (committer, fault::other(&error))),
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                let judge = Judge {
                    issuer: self.config.issuer.as_ref(),
                    suite: self.key.suite(),
                };
                commit::check_commit(group, &sender, &staged, &judge, now)
                    .map_err(|refusal| (committer, refusal))?;
                group
                    .merge_staged_commit(&self.provider, *staged)
                    .map_err(|error| (committer, fault::other(&error)))
            }
            _ => Err((committer, Refusal::ProposalKind)),
        }
    }

    pub(super) fn handle_stale(
        &mut self,
        now: Duration,
        epoch: u64,
        why: Why,
    ) -> Result<(), HandleError> {
        let Some(group) = self.group.as_mut() else {
            return Ok(());
        };
        // The word on a commit of an epoch that has ended meanwhile is no news.
        if group.epoch().as_u64() == epoch {
            self.in_flight = None;
            group
                .clear_pending_commit(self.provider.storage())
                .map_err(HandleError::library)?;
            if why == Why::Lost {
                // Another commit won, and should have come before this word of it.
                self.resync(now);
            }
            self.not_before = now
                + match why {
                    Why::TooSoon => COMMIT_INTERVAL,
                    Why::Lost | Why::Invalid => TAKEOVER_AFTER,
                };
        }
        Ok(())
    }

    /// When this member is to commit, if nobody does before.
    pub(super) fn commit_at(&self) -> Option<Duration> {
        let group = self.group.as_ref()?;
        if group.pending_commit().is_some() {
            return None;
        }
        let rank = self.rank(group)?;
        let earliest = self.epoch_started + COMMIT_INTERVAL;
        let at = match self.outstanding_since {
            Some(since) => since.max(earliest) + TAKEOVER_AFTER * rank,
            // Whose own keys are nearly used up does not wait for others.
            None if self.rotation_asked || self.needs_rotation() => earliest,
            None => self.epoch_started + self.config.rotation + TAKEOVER_AFTER * rank,
        };
        Some(at.max(self.not_before))
    }

    /// Whether an encoder has used up its share of the frames that one key may seal.
    fn needs_rotation(&self) -> bool {
        let limit = self.config.rotate_after_frames.min(ROTATE_AFTER_FRAMES);
        self.epochs.most_frames() >= limit
    }

    /// How many members come before this one as committer: those of lower leaf that are not about
    /// to be removed. `None` if this one is.
    pub(super) fn rank(&self, group: &MlsGroup) -> Option<u32> {
        let own = group.own_leaf_index();
        let leaving = |leaf: LeafNodeIndex| {
            group.pending_proposals().any(|queued| {
                matches!(queued.proposal(), Proposal::Remove(remove) if remove.removed() == leaf)
            })
        };
        if leaving(own) {
            return None;
        }
        let before = group
            .members()
            .filter(|member| member.index < own && !leaving(member.index));
        u32::try_from(before.count()).ok()
    }

    /// Commits to all outstanding proposals, or to none, with a new path either way.
    pub(super) fn commit(&mut self) -> Result<(), HandleError> {
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .load_psks(self.provider.storage())
            .map_err(HandleError::library)?
            .build(
                self.provider.rand(),
                self.provider.crypto(),
                self.key.pair(),
                |_| true,
            )
            .map_err(HandleError::library)?
            .stage_commit(&self.provider)
            .map_err(HandleError::library)?;
        let (commit, welcome, _) = bundle.into_messages();
        let bytes = |message: openmls::prelude::MlsMessageOut| message.to_bytes();
        let message = ToService::Commit {
            commit: bytes(commit).map_err(HandleError::library)?.into(),
            welcome: welcome
                .map(bytes)
                .transpose()
                .map_err(HandleError::library)?
                .map(Into::into),
        };
        self.send(&message)?;
        self.in_flight = Some(message);
        Ok(())
    }
}
