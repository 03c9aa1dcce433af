//! The rules that a proposal, a commit and a group have to keep, beyond those of MLS.

use crate::GroupSuite;
use crate::error::Refusal;
use crate::identity::{self, Identity, Issuer};
use openmls::prelude::{
    Credential, ExternalSendersExtension, LeafNode, Member as MlsMember, MlsGroup, Proposal,
    ProposalOrRefType, QueuedProposal, Sender, SenderExtensionIndex, StagedCommit,
};
use sealcast_group_wire::MAX_MEMBERS;
use std::time::Duration;

/// Who judges members, and with what.
pub(crate) struct Judge<'a> {
    pub(crate) issuer: Option<&'a Issuer>,
    pub(crate) suite: GroupSuite,
}

impl Judge<'_> {
    pub(crate) fn identity(
        &self,
        credential: &Credential,
        signature_key: &[u8],
        now: Option<Duration>,
    ) -> Identity {
        let content = credential.serialized_content();
        identity::judge(self.issuer, content, self.suite, signature_key, now)
    }

    /// Admission of a leaf. Where there is an issuer, it must vouch for it.
    pub(crate) fn admit(&self, leaf: &LeafNode, now: Duration) -> Result<(), Refusal> {
        let key = leaf.signature_key().as_slice();
        self.require(self.identity(leaf.credential(), key, Some(now)))
    }

    /// A member whom others admitted. Its assertion may have expired since.
    pub(crate) fn accept(&self, member: &MlsMember) -> Result<(), Refusal> {
        self.require(self.identity(&member.credential, &member.signature_key, None))
    }

    fn require(&self, identity: Identity) -> Result<(), Refusal> {
        match identity {
            Identity::Unverified { subject, reason } if self.issuer.is_some() => {
                Err(Refusal::UnverifiedMember(format!("{subject:?}: {reason}")))
            }
            _ => Ok(()),
        }
    }
}

/// A proposal is to be of the delivery service, an Add or a Remove, and an Add of somebody known.
pub(crate) fn check_proposal(
    proposal: &QueuedProposal,
    judge: &Judge<'_>,
    now: Duration,
) -> Result<(), Refusal> {
    if *proposal.sender() != Sender::External(SenderExtensionIndex::new(0)) {
        return Err(Refusal::NotProposed);
    }
    match proposal.proposal() {
        Proposal::Add(add) => judge.admit(add.key_package().leaf_node(), now),
        Proposal::Remove(_) => Ok(()),
        _ => Err(Refusal::ProposalKind),
    }
}

/// A commit is to be of a member that stays who it was, with an update path, over proposals of the
/// delivery service alone.
pub(crate) fn check_commit(
    group: &MlsGroup,
    sender: &Sender,
    commit: &StagedCommit,
    judge: &Judge<'_>,
    now: Duration,
) -> Result<(), Refusal> {
    let Sender::Member(committer) = sender else {
        return Err(Refusal::NotByMember);
    };
    let before = group.member_at(*committer).ok_or(Refusal::NotByMember)?;
    let after = commit
        .update_path_leaf_node()
        .ok_or(Refusal::NoUpdatePath)?;
    if before.credential != *after.credential()
        || before.signature_key != after.signature_key().as_slice()
    {
        return Err(Refusal::IdentityChanged);
    }
    let mut members = group.members().count();
    for proposal in commit.queued_proposals() {
        // By reference only: what stands in the commit itself was proposed by nobody else.
        if proposal.proposal_or_ref_type() != ProposalOrRefType::Reference {
            return Err(Refusal::NotProposed);
        }
        check_proposal(proposal, judge, now)?;
        match proposal.proposal() {
            Proposal::Add(_) => members += 1,
            _ => members = members.saturating_sub(1),
        }
    }
    if members > MAX_MEMBERS {
        return Err(Refusal::TooLarge);
    }
    Ok(())
}

/// A group that a Welcome leads into: parameters as agreed, one external sender, and nobody in it
/// for whom the issuer does not vouch.
pub(crate) fn check_group<'a>(
    members: impl Iterator<Item = MlsMember> + 'a,
    external_senders: Option<&ExternalSendersExtension>,
    judge: &Judge<'_>,
) -> Result<(), Refusal> {
    if external_senders.is_none_or(|senders| senders.len() != 1) {
        return Err(Refusal::Parameters);
    }
    let mut count = 0;
    for member in members {
        judge.accept(&member)?;
        count += 1;
    }
    if count > MAX_MEMBERS {
        return Err(Refusal::TooLarge);
    }
    Ok(())
}
