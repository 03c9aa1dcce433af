//! The public state of one group, and the handshakes that made it.

use crate::DeliveryError;
use crate::key::DeliveryKey;
use crate::limits::{LOG_BYTES, LOG_EPOCHS};
use openmls::prelude::{
    ExternalProposal, GroupId, KeyPackage, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn,
    MlsMessageOut, OpenMlsProvider, ProcessedMessageContent, Proposal, ProposalOrRefType,
    ProposalStore, ProtocolMessage, PublicGroup, Sender, SenderExtensionIndex, StagedCommit,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealcast_group_wire::{MAX_MEMBERS, Resume};
use sealcast_model::Time;
use std::collections::{HashMap, VecDeque};
use tls_codec::{Deserialize as _, Serialize as _};

/// The public state of a group.
pub(crate) struct Group {
    /// Holds public values only: there is no key of the group to be had.
    provider: OpenMlsRustCrypto,
    public: PublicGroup,
    /// When the current epoch began.
    pub(crate) started: Time,
    /// Proposals of the current epoch, in the order in which they went out.
    proposals: Vec<Issued>,
    /// Earlier epochs, oldest first, for members that reconnect.
    log: VecDeque<LoggedEpoch>,
    /// The epoch before, while its end may still be undone.
    undo: Option<Undo>,
}

/// What a proposal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Add the owner of this signature key.
    Add(Vec<u8>),
    /// Remove this leaf.
    Remove(LeafNodeIndex),
}

/// A proposal that went out.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) change: Change,
    pub(crate) at: Time,
    pub(crate) message: Vec<u8>,
}

/// The handshakes of an epoch that has ended.
struct LoggedEpoch {
    epoch: u64,
    confirmation_tag: Vec<u8>,
    proposals: Vec<Vec<u8>>,
    commit: Vec<u8>,
}

struct Undo {
    storage: HashMap<Vec<u8>, Vec<u8>>,
    proposals: Vec<Issued>,
    started: Time,
}

/// What a commit that was merged changed.
pub(crate) struct Merged {
    /// Signature keys of those added.
    pub(crate) added: Vec<Vec<u8>>,
}

impl Group {
    /// Takes up a group from a member's GroupInfo.
    pub(crate) fn from_group_info(
        now: Time,
        key: &DeliveryKey,
        message: &[u8],
    ) -> Result<Self, DeliveryError> {
        let MlsMessageBodyIn::GroupInfo(info) = parse(message)? else {
            return Err(DeliveryError::MlsFormat("group info"));
        };
        if info.ciphersuite() != key.suite() {
            return Err(DeliveryError::GroupInfo("suite"));
        }
        let senders = info.group_context().extensions().external_senders();
        if senders != Some(&vec![key.external_sender()]) {
            return Err(DeliveryError::GroupInfo("external sender"));
        }
        let tree = info
            .extensions()
            .ratchet_tree()
            .ok_or(DeliveryError::GroupInfo("no ratchet tree"))?
            .ratchet_tree()
            .clone();
        let provider = OpenMlsRustCrypto::default();
        let (public, _) = PublicGroup::from_external(
            provider.crypto(),
            provider.storage(),
            tree,
            info,
            ProposalStore::new(),
        )
        .map_err(|_| DeliveryError::GroupInfo("does not verify"))?;
        if public.members().count() > MAX_MEMBERS {
            return Err(DeliveryError::GroupInfo("too large"));
        }
        Ok(Self {
            provider,
            public,
            started: now,
            proposals: Vec::new(),
            log: VecDeque::new(),
            undo: None,
        })
    }

    pub(crate) fn id(&self) -> &[u8] {
        self.public.group_id().as_slice()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.public.group_context().epoch().as_u64()
    }

    /// Whether an epoch of this number and confirmation tag is the current one.
    pub(crate) fn is_current(&self, epoch: u64, confirmation_tag: &[u8]) -> bool {
        let tag = self.confirmation_tag();
        epoch == self.epoch() && tag.is_ok_and(|tag| tag == confirmation_tag)
    }

    fn confirmation_tag(&self) -> Result<Vec<u8>, DeliveryError> {
        let tag = self.public.confirmation_tag().tls_serialize_detached();
        tag.map_err(DeliveryError::library)
    }

    /// Leaf of the owner of a signature key.
    pub(crate) fn leaf_of(&self, signature_key: &[u8]) -> Option<LeafNodeIndex> {
        self.public
            .members()
            .find(|member| member.signature_key == signature_key)
            .map(|member| member.index)
    }

    /// Leaf and signature key of every member.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (LeafNodeIndex, Vec<u8>)> {
        self.public
            .members()
            .map(|member| (member.index, member.signature_key))
    }

    /// Proposals of the current epoch.
    pub(crate) fn proposals(&self) -> &[Issued] {
        &self.proposals
    }

    /// Proposes to add the owner of a KeyPackage.
    pub(crate) fn propose_add(
        &mut self,
        now: Time,
        key: &DeliveryKey,
        key_package: &KeyPackage,
    ) -> Result<&Issued, DeliveryError> {
        let change = Change::Add(key_package.leaf_node().signature_key().as_slice().to_vec());
        let proposal = ExternalProposal::new_add::<OpenMlsRustCrypto>(
            key_package.clone(),
            self.public.group_id().clone(),
            self.public.group_context().epoch(),
            key.pair(),
            SenderExtensionIndex::new(0),
        )
        .map_err(DeliveryError::library)?;
        self.issue(now, change, &proposal)
    }

    /// Proposes to remove a leaf.
    pub(crate) fn propose_remove(
        &mut self,
        now: Time,
        key: &DeliveryKey,
        leaf: LeafNodeIndex,
    ) -> Result<&Issued, DeliveryError> {
        let proposal = ExternalProposal::new_remove::<OpenMlsRustCrypto>(
            leaf,
            self.public.group_id().clone(),
            self.public.group_context().epoch(),
            key.pair(),
            SenderExtensionIndex::new(0),
        )
        .map_err(DeliveryError::library)?;
        self.issue(now, Change::Remove(leaf), &proposal)
    }

    fn issue(
        &mut self,
        now: Time,
        change: Change,
        proposal: &MlsMessageOut,
    ) -> Result<&Issued, DeliveryError> {
        let message = proposal.to_bytes().map_err(DeliveryError::library)?;
        let processed = self
            .public
            .process_message(self.provider.crypto(), parse_handshake(&message)?)
            .map_err(DeliveryError::library)?;
        let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else {
            return Err(DeliveryError::library("proposal became something else"));
        };
        self.public
            .add_proposal(self.provider.storage(), *queued)
            .map_err(DeliveryError::library)?;
        self.proposals.push(Issued {
            change,
            at: now,
            message,
        });
        self.proposals.last().ok_or(DeliveryError::NoGroup)
    }

    /// Validates a commit of `committer` against the public state.
    pub(crate) fn check_commit(
        &self,
        message: ProtocolMessage,
        committer: LeafNodeIndex,
    ) -> Result<StagedCommit, DeliveryError> {
        let refuse = |reason: &str| Err(DeliveryError::Commit(reason.to_owned()));
        let processed = self
            .public
            .process_message(self.provider.crypto(), message)
            .map_err(|error| DeliveryError::Commit(format!("{error:?}")))?;
        if *processed.sender() != Sender::Member(committer) {
            return refuse("not by the leaf of its sender");
        }
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return refuse("not a commit");
        };
        if staged.update_path_leaf_node().is_none() {
            return refuse("no update path");
        }
        for proposal in staged.queued_proposals() {
            let ours = *proposal.sender() == Sender::External(SenderExtensionIndex::new(0))
                && proposal.proposal_or_ref_type() == ProposalOrRefType::Reference;
            if !ours {
                return refuse("a proposal that this service did not make");
            }
        }
        Ok(*staged)
    }

    /// Ends the epoch with a commit that was checked.
    pub(crate) fn merge(
        &mut self,
        now: Time,
        commit: Vec<u8>,
        staged: StagedCommit,
    ) -> Result<Merged, DeliveryError> {
        let added = staged
            .queued_proposals()
            .filter_map(|queued| match queued.proposal() {
                Proposal::Add(add) => {
                    let leaf = add.key_package().leaf_node();
                    Some(leaf.signature_key().as_slice().to_vec())
                }
                _ => None,
            })
            .collect();
        let (epoch, confirmation_tag) = (self.epoch(), self.confirmation_tag()?);
        let storage = self.snapshot()?;
        self.public
            .merge_commit(self.provider.storage(), staged)
            .map_err(DeliveryError::library)?;
        let proposals = std::mem::take(&mut self.proposals);
        self.log.push_back(LoggedEpoch {
            epoch,
            confirmation_tag,
            proposals: proposals
                .iter()
                .map(|issued| issued.message.clone())
                .collect(),
            commit,
        });
        self.trim_log();
        self.undo = Some(Undo {
            storage,
            proposals,
            started: self.started,
        });
        self.started = now;
        Ok(Merged { added })
    }

    /// The end of the last epoch stands.
    pub(crate) fn settle(&mut self) {
        self.undo = None;
    }

    /// Whether the end of the last epoch may still be undone.
    pub(crate) fn is_settled(&self) -> bool {
        self.undo.is_none()
    }

    /// Undoes the end of the last epoch; `false` if it stands.
    pub(crate) fn undo(&mut self) -> Result<bool, DeliveryError> {
        let Some(undo) = self.undo.take() else {
            return Ok(false);
        };
        let id = GroupId::from_slice(self.id());
        *self
            .provider
            .storage()
            .values
            .write()
            .map_err(DeliveryError::library)? = undo.storage;
        self.public = PublicGroup::load(self.provider.storage(), &id)
            .map_err(DeliveryError::library)?
            .ok_or(DeliveryError::NoGroup)?;
        self.proposals = undo.proposals;
        self.started = undo.started;
        self.log.pop_back();
        Ok(true)
    }

    /// Everything since a state of the group in its order, the current epoch's proposals included:
    /// each proposal with `false`, each commit with `true`. `None` if the state was undone, is of
    /// another group, or what followed is no longer kept.
    pub(crate) fn since(&self, state: &Resume) -> Option<Vec<(bool, &[u8])>> {
        let epoch = state.epoch;
        let logged = self.log.iter().find(|logged| logged.epoch == epoch);
        let known = match logged {
            Some(logged) => logged.confirmation_tag == state.confirmation_tag.as_slice(),
            None => self.is_current(epoch, state.confirmation_tag.as_slice()),
        };
        if !known || state.group_id.as_slice() != self.id() {
            return None;
        }
        let mut messages = Vec::new();
        for logged in self.log.iter().filter(|logged| logged.epoch >= epoch) {
            messages.extend(
                logged
                    .proposals
                    .iter()
                    .map(|proposal| (false, &proposal[..])),
            );
            messages.push((true, &logged.commit[..]));
        }
        messages.extend(
            self.proposals
                .iter()
                .map(|issued| (false, &issued.message[..])),
        );
        Some(messages)
    }

    fn snapshot(&self) -> Result<HashMap<Vec<u8>, Vec<u8>>, DeliveryError> {
        let values = self.provider.storage().values.read();
        Ok(values.map_err(DeliveryError::library)?.clone())
    }

    fn trim_log(&mut self) {
        let len = |logged: &LoggedEpoch| {
            logged.commit.len() + logged.proposals.iter().map(Vec::len).sum::<usize>()
        };
        let mut bytes: usize = self.log.iter().map(len).sum();
        while self.log.len() > LOG_EPOCHS || bytes > LOG_BYTES {
            let Some(oldest) = self.log.pop_front() else {
                return;
            };
            bytes -= len(&oldest);
        }
    }
}

/// Reads an MLS message.
pub(crate) fn parse(message: &[u8]) -> Result<MlsMessageBodyIn, DeliveryError> {
    MlsMessageIn::tls_deserialize_exact(message)
        .map(MlsMessageIn::extract)
        .map_err(|_| DeliveryError::MlsFormat("message"))
}

/// Reads a handshake message, which is public.
pub(crate) fn parse_handshake(message: &[u8]) -> Result<ProtocolMessage, DeliveryError> {
    match parse(message)? {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message.into()),
        _ => Err(DeliveryError::MlsFormat("public message")),
    }
}
