//! One participant's side of the group: a sans-IO state machine.

use crate::commit::{self, Judge};
use crate::epochs::{self, EpochSecrets, Epochs, OpenedMedia, SenderStats};
use crate::error::{HandleError, MetadataError, Refusal, SendError};
use crate::event::{Event, MAX_EVENTS};
use crate::identity::{Claim, Identity, Issuer};
use crate::metadata::{self, OpenedMetadata};
use crate::suite::MemberKey;
use openmls::prelude::{
    BasicCredential, Capabilities, CredentialWithKey, Extension, Extensions, ExternalSender,
    GroupId, KeyPackage, LeafNodeIndex, Lifetime, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, Proposal, ProtocolMessage, Sender,
    StagedWelcome, Welcome,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealcast_group_wire::{
    DELIVERY_SERVICE_IDENTITY, GROUP_ID_LEN, Resume, ToMember, ToService, Why,
};
use sealcast_sframe::layout::Codec;
use sealcast_sframe::{CipherSuite, Kid, OpenError};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tls_codec::Deserialize as _;
use zeroize::{Zeroize, Zeroizing};

/// Keys are rotated this long after the last epoch began.
pub const DEFAULT_ROTATION: Duration = Duration::from_secs(600);

/// Shortest time between two epochs. It gathers the joins of a moment into one commit, and bounds
/// the epochs whose keys are held at a time.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// The member with the lowest leaf commits; each next one waits this much longer.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(1);

/// KeyPackages sent at a time: one to join with, one to be added again with.
const KEY_PACKAGES: usize = 2;

/// Lifetime of a KeyPackage: longer than a consult, shorter than a forgotten tab.
const KEY_PACKAGE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// SFrame cipher suite of media frames.
    pub media_suite: CipherSuite,
    /// Who vouches for members. With an issuer, nobody else is let in; without one, everybody the
    /// relay admits is, and shows as unverified.
    pub issuer: Option<Issuer>,
    /// Rotation interval.
    pub rotation: Duration,
}

impl Default for MemberConfig {
    fn default() -> Self {
        Self {
            media_suite: CipherSuite::Aes256GcmSha512,
            issuer: None,
            rotation: DEFAULT_ROTATION,
        }
    }
}

/// A member as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberInfo {
    /// Its leaf in the ratchet tree, and in the key ids of its frames.
    pub leaf: u16,
    /// Who it is.
    pub identity: Identity,
    /// Whether it is this member.
    pub own: bool,
}

/// One participant's state in the group of one room.
///
/// Contract: call a `handle_` method, then drain [`poll_outgoing`](Self::poll_outgoing) and
/// [`poll_event`](Self::poll_event), then wait for input or for
/// [`poll_timeout`](Self::poll_timeout). Incoming messages are handled in the order in which the
/// delivery service sent them.
pub struct Member {
    provider: OpenMlsRustCrypto,
    config: MemberConfig,
    key: MemberKey,
    credential: CredentialWithKey,
    group: Option<MlsGroup>,
    epochs: Epochs,
    /// Identity of each member of the current epoch, by leaf, with the signature key it goes with.
    identities: BTreeMap<u16, (Vec<u8>, Identity)>,
    /// Commit and Welcome that wait for the delivery service's word, to be sent again if the
    /// connection breaks.
    in_flight: Option<ToService>,
    /// When the current epoch began.
    epoch_started: Duration,
    /// When the first outstanding proposal of this epoch came in.
    outstanding_since: Option<Duration>,
    /// No commit before this time: the last one was turned down.
    not_before: Duration,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Member {
    /// A participant that wants into the room's group. Its first message is ready.
    ///
    /// # Errors
    /// [`HandleError::MlsFormat`] if the claim is longer than a credential may be;
    /// [`HandleError::Library`].
    pub fn new(config: MemberConfig, key: MemberKey, claim: &Claim) -> Result<Self, HandleError> {
        let identity = claim.to_bytes();
        Claim::from_bytes(&identity).map_err(|_| HandleError::MlsFormat("identity claim"))?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: key.public().into(),
        };
        let mut member = Self {
            provider: OpenMlsRustCrypto::default(),
            epochs: Epochs::new(config.media_suite),
            config,
            key,
            credential,
            group: None,
            identities: BTreeMap::new(),
            in_flight: None,
            epoch_started: Duration::ZERO,
            outstanding_since: None,
            not_before: Duration::ZERO,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        };
        member.send_hello()?;
        Ok(member)
    }

    /// Takes one message of the delivery service.
    ///
    /// # Errors
    /// [`HandleError`]. What the others need to know has been sent, and what the application needs
    /// to know is among the events; the error is for logs and counters.
    pub fn handle_message(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        match ToMember::decode(message)? {
            ToMember::Create {
                group_id,
                suite,
                external_sender,
            } => self.create(now, group_id.as_slice(), suite, external_sender.as_slice()),
            ToMember::SendGroupInfo => self.send_group_info(),
            ToMember::SendKeyPackages => {
                let key_packages = self.new_key_packages()?;
                self.send(&ToService::KeyPackages { key_packages })
            }
            ToMember::Proposal { message } => self.handle_proposal(now, message.as_slice()),
            ToMember::Commit { message } => self.handle_commit(now, message.as_slice()),
            ToMember::Stale { epoch, why } => self.handle_stale(now, epoch, why),
            ToMember::Welcome { message } => self.join(now, message.as_slice()),
            ToMember::AllReady { epoch } => {
                if self.epochs.on_all_ready(epoch) {
                    self.push_event(Event::Sending { epoch });
                }
                Ok(())
            }
            ToMember::Reset => {
                self.push_event(Event::Reset);
                self.drop_group();
                self.send_hello()
            }
            ToMember::NotAdmitted => {
                self.push_event(Event::NotAdmitted);
                Ok(())
            }
        }
    }

    /// The connection to the relay is new: says what this member still holds, and sends again what
    /// may have been lost.
    ///
    /// # Errors
    /// [`HandleError::Library`].
    pub fn handle_connected(&mut self) -> Result<(), HandleError> {
        self.outgoing.clear();
        self.send_hello()?;
        if let Some(commit) = self.in_flight.clone() {
            self.send(&commit)?;
        }
        Ok(())
    }

    /// Does what is due: commits, switches and retires epochs.
    ///
    /// # Errors
    /// [`HandleError::Library`] if a commit could not be made; another attempt follows.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), HandleError> {
        if self.epochs.handle_timeout(now)
            && let Some(epoch) = self.epochs.sending()
        {
            self.push_event(Event::Sending { epoch });
        }
        if self.commit_at().is_some_and(|at| at <= now) {
            self.not_before = now + TAKEOVER_AFTER;
            self.commit()?;
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. It may have passed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.commit_at(), self.epochs.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next message for the delivery service.
    pub fn poll_outgoing(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The current epoch, if this member is in a group.
    pub fn epoch(&self) -> Option<u64> {
        self.group.as_ref().map(|group| group.epoch().as_u64())
    }

    /// The epoch whose keys seal.
    pub fn sending_epoch(&self) -> Option<u64> {
        self.epochs.sending()
    }

    /// This member's leaf.
    pub fn leaf(&self) -> Option<u16> {
        let group = self.group.as_ref()?;
        u16::try_from(group.own_leaf_index().u32()).ok()
    }

    /// Everybody in the group, ascending by leaf.
    pub fn members(&self) -> Vec<MemberInfo> {
        let own = self.leaf();
        let info = |(&leaf, (_, identity)): (&u16, &(Vec<u8>, Identity))| MemberInfo {
            leaf,
            identity: identity.clone(),
            own: own == Some(leaf),
        };
        self.identities.iter().map(info).collect()
    }

    /// Verifies an assertion that a member sent as sealed metadata, such as the one with its name,
    /// against that member's signature key. `None` if there is no issuer, no such member, or no
    /// truth in it.
    pub fn verify_assertion(
        &self,
        leaf: u16,
        token: &str,
        now: Duration,
    ) -> Option<crate::identity::Assertion> {
        let issuer = self.config.issuer.as_ref()?;
        let (key, _) = self.identities.get(&leaf)?;
        issuer.verify(token, self.key.suite(), key, Some(now)).ok()
    }

    /// The epoch authenticator (RFC 9420 §8.7), from which [`crate::code::short_code`] is made.
    pub fn epoch_authenticator(&self) -> Option<&[u8]> {
        let group = self.group.as_ref()?;
        Some(group.epoch_authenticator().as_slice())
    }

    /// The SFrame base key of the current epoch (RFC 9605 §5.2), for programs that seal elsewhere.
    pub fn sframe_base_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        let group = self.group.as_ref()?;
        export(
            &self.provider,
            group,
            epochs::EXPORTER_LABEL,
            self.config.media_suite.key_len(),
        )
        .ok()
    }

    /// Key id under which `context` seals at present.
    pub fn kid(&self, context: u16) -> Option<Kid> {
        self.epochs.kid(context)
    }

    /// Seals a media frame into `out`. `context` is this member's number for the encoder: unique
    /// per stream and simulcast encoding, and never used again for another one in the same epoch.
    ///
    /// # Errors
    /// [`SendError`]; `out` is empty then.
    pub fn seal_frame(
        &mut self,
        context: u16,
        codec: Codec,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.epochs.seal_frame(context, codec, frame, out)
    }

    /// Opens a media frame in place. `None` for an empty one, which is to be ignored.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_frame(
        &mut self,
        codec: Codec,
        sealed: &mut [u8],
    ) -> Result<Option<OpenedMedia>, OpenError> {
        self.epochs.open_frame(codec, sealed)
    }

    /// Seals metadata for everybody in the group.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn seal_metadata(&mut self, content: &[u8]) -> Result<Vec<u8>, SendError> {
        self.epochs.seal_metadata(content)
    }

    /// Opens metadata of another member.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn open_metadata(&mut self, message: &[u8]) -> Result<OpenedMetadata, MetadataError> {
        self.epochs.open_metadata(message)
    }

    /// Per sender, what became of the frames that claim to be its own.
    pub fn sender_stats(&self) -> &BTreeMap<u16, SenderStats> {
        self.epochs.stats()
    }

    /// Frames that were no SFrame or named no member.
    pub fn malformed_frames(&self) -> u64 {
        self.epochs.malformed()
    }

    // ---- joining ----

    fn create(
        &mut self,
        now: Duration,
        group_id: &[u8],
        suite: u16,
        external_sender: &[u8],
    ) -> Result<(), HandleError> {
        if suite != self.key.suite().number() || group_id.len() != GROUP_ID_LEN {
            return self.refuse_group(Refusal::Parameters);
        }
        self.drop_group();
        let sender = ExternalSender::new(
            external_sender.into(),
            BasicCredential::new(DELIVERY_SERVICE_IDENTITY.to_vec()).into(),
        );
        let extensions = Extensions::single(Extension::ExternalSenders(vec![sender]))
            .map_err(HandleError::library)?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(self.key.suite().mls())
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .capabilities(self.capabilities())
            .with_group_context_extensions(extensions)
            .build();
        let group = MlsGroup::new_with_group_id(
            &self.provider,
            self.key.pair(),
            &config,
            GroupId::from_slice(group_id),
            self.credential.clone(),
        )
        .map_err(HandleError::library)?;
        self.group = Some(group);
        self.send_group_info()?;
        self.on_new_epoch(now)
    }

    fn join(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let MlsMessageBodyIn::Welcome(welcome) = parse(message)? else {
            return Err(HandleError::MlsFormat("welcome"));
        };
        match self.stage_welcome(welcome) {
            Ok(group) => {
                self.group = Some(group);
                self.on_new_epoch(now)
            }
            Err(refusal) => self.refuse_group(refusal),
        }
    }

    fn stage_welcome(&mut self, welcome: Welcome) -> Result<MlsGroup, Refusal> {
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let invalid = |error: &dyn std::fmt::Debug| Refusal::Invalid(format!("{error:?}"));
        // A Welcome replaces whatever group there is, but only once it has proved good.
        let staged = StagedWelcome::build_from_welcome(&self.provider, &config, welcome)
            .map_err(|error| invalid(&error))?
            .replace_old_group()
            .build()
            .map_err(|error| invalid(&error))?;
        if staged.group_context().ciphersuite() != self.key.suite().mls() {
            return Err(Refusal::Parameters);
        }
        let external_senders = staged.group_context().extensions().external_senders();
        commit::check_group(staged.members(), external_senders, &self.judge())?;
        self.drop_group();
        staged
            .into_group(&self.provider)
            .map_err(|error| invalid(&error))
    }

    fn refuse_group(&mut self, refusal: Refusal) -> Result<(), HandleError> {
        self.push_event(Event::GroupRefused {
            reason: refusal.to_string(),
        });
        Err(refusal.into())
    }

    fn send_group_info(&mut self) -> Result<(), HandleError> {
        let group = self.group.as_ref().ok_or(HandleError::NoGroup)?;
        let message = group
            .export_group_info(self.provider.crypto(), self.key.pair(), true)
            .map_err(HandleError::library)?
            .to_bytes()
            .map_err(HandleError::library)?;
        self.send(&ToService::GroupInfo {
            message: message.into(),
        })
    }

    fn send_hello(&mut self) -> Result<(), HandleError> {
        let resume = self.group.as_ref().map(|group| Resume {
            group_id: group.group_id().to_vec().into(),
            epoch: group.epoch().as_u64(),
        });
        let key_packages = self.new_key_packages()?;
        self.send(&ToService::Hello {
            resume,
            key_packages,
        })
    }

    fn new_key_packages(&self) -> Result<Vec<tls_codec::VLBytes>, HandleError> {
        (0..KEY_PACKAGES)
            .map(|_| {
                let bundle = KeyPackage::builder()
                    .key_package_lifetime(Lifetime::new(KEY_PACKAGE_LIFETIME.as_secs()))
                    .leaf_node_capabilities(self.capabilities())
                    .build(
                        self.key.suite().mls(),
                        &self.provider,
                        self.key.pair(),
                        self.credential.clone(),
                    )
                    .map_err(HandleError::library)?;
                let message = openmls::prelude::MlsMessageOut::from(bundle.into_key_package());
                Ok(message.to_bytes().map_err(HandleError::library)?.into())
            })
            .collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::builder()
            .ciphersuites(vec![self.key.suite().mls()])
            .build()
    }

    // ---- proposals and commits ----

    fn handle_proposal(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let message = parse_handshake(message)?;
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        let processed = group
            .process_message(&self.provider, message)
            .map_err(|error| Refusal::Invalid(format!("{error:?}")))?;
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
            return Ok(());
        }
        group
            .store_pending_proposal(self.provider.storage(), *proposal)
            .map_err(HandleError::library)?;
        self.outstanding_since.get_or_insert(now);
        Ok(())
    }

    fn decline(
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

    fn handle_commit(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let message = parse_handshake(message)?;
        let group = self.group.as_mut().ok_or(HandleError::NoGroup)?;
        if message.epoch() < group.epoch() && message.group_id() == group.group_id() {
            // Replayed after a reconnection; processed already.
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
    fn apply_commit(
        &mut self,
        now: Duration,
        message: ProtocolMessage,
    ) -> Result<(), (Option<u16>, Refusal)> {
        let invalid = |error: &dyn std::fmt::Debug| Refusal::Invalid(format!("{error:?}"));
        let group = self.group.as_mut().ok_or((None, Refusal::Parameters))?;
        let processed = group
            .process_message(&self.provider, message)
            .map_err(|error| (None, invalid(&error)))?;
        let sender = processed.sender().clone();
        let committer = match sender {
            Sender::Member(leaf) => u16::try_from(leaf.u32()).ok(),
            _ => None,
        };
        match processed.into_content() {
            ProcessedMessageContent::OwnPendingCommit => group
                .merge_pending_commit(&self.provider)
                .map_err(|error| (committer, invalid(&error))),
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                let judge = Judge {
                    issuer: self.config.issuer.as_ref(),
                    suite: self.key.suite(),
                };
                commit::check_commit(group, &sender, &staged, &judge, now)
                    .map_err(|refusal| (committer, refusal))?;
                group
                    .merge_staged_commit(&self.provider, *staged)
                    .map_err(|error| (committer, invalid(&error)))
            }
            _ => Err((committer, Refusal::ProposalKind)),
        }
    }

    fn handle_stale(&mut self, now: Duration, epoch: u64, why: Why) -> Result<(), HandleError> {
        let Some(group) = self.group.as_mut() else {
            return Ok(());
        };
        // The word on a commit of an epoch that has ended meanwhile is no news.
        if group.epoch().as_u64() == epoch {
            self.in_flight = None;
            group
                .clear_pending_commit(self.provider.storage())
                .map_err(HandleError::library)?;
            self.not_before = now
                + match why {
                    Why::TooSoon => COMMIT_INTERVAL,
                    Why::Lost | Why::Invalid => TAKEOVER_AFTER,
                };
        }
        Ok(())
    }

    /// When this member is to commit, if nobody does before.
    fn commit_at(&self) -> Option<Duration> {
        let group = self.group.as_ref()?;
        if group.pending_commit().is_some() {
            return None;
        }
        let rank = self.rank(group)?;
        let earliest = self.epoch_started + COMMIT_INTERVAL;
        let at = match self.outstanding_since {
            Some(since) => since.max(earliest) + TAKEOVER_AFTER * rank,
            // Whose own keys are nearly used up does not wait for others.
            None if self.epochs.needs_rotation() => earliest,
            None => self.epoch_started + self.config.rotation + TAKEOVER_AFTER * rank,
        };
        Some(at.max(self.not_before))
    }

    /// How many members come before this one as committer: those of lower leaf that are not about
    /// to be removed. `None` if this one is.
    fn rank(&self, group: &MlsGroup) -> Option<u32> {
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
    fn commit(&mut self) -> Result<(), HandleError> {
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

    // ---- epochs ----

    /// The group entered a new epoch: takes its keys, tells the delivery service and the
    /// application.
    fn on_new_epoch(&mut self, now: Duration) -> Result<(), HandleError> {
        let group = self.group.as_ref().ok_or(HandleError::NoGroup)?;
        self.in_flight = None;
        self.outstanding_since = None;
        self.epoch_started = now;
        self.not_before = now;
        if !group.is_active() {
            self.push_event(Event::Removed);
            self.drop_group();
            return Ok(());
        }
        let secrets = self.export_secrets(group)?;
        let epoch = secrets.epoch;
        let seals = self.epochs.start(now, secrets);
        let (joined, left) = self.update_identities();
        self.push_event(Event::Epoch {
            epoch,
            joined,
            left,
        });
        if seals {
            self.push_event(Event::Sending { epoch });
        }
        self.send(&ToService::Ready { epoch })
    }

    fn export_secrets(&self, group: &MlsGroup) -> Result<EpochSecrets, HandleError> {
        let provider = &self.provider;
        let media_len = self.config.media_suite.key_len();
        let media = export(provider, group, epochs::EXPORTER_LABEL, media_len)?;
        let metadata = export(
            provider,
            group,
            metadata::EXPORTER_LABEL,
            metadata::SECRET_LEN,
        )?;
        let metadata: [u8; metadata::SECRET_LEN] =
            metadata[..].try_into().map_err(HandleError::library)?;
        let last_leaf = group.members().map(|member| member.index.u32()).max();
        let leaves = last_leaf.map_or(0, |last| last + 1);
        Ok(EpochSecrets {
            group_id: group.group_id().to_vec(),
            epoch: group.epoch().as_u64(),
            leaves,
            own_leaf: u16::try_from(group.own_leaf_index().u32()).map_err(|_| Refusal::TooLarge)?,
            media,
            metadata: Zeroizing::new(metadata),
        })
    }

    /// Brings the list of members up to date; returns the leaves of who is new and who is gone.
    fn update_identities(&mut self) -> (Vec<u16>, Vec<u16>) {
        let Some(group) = self.group.as_ref() else {
            return (Vec::new(), Vec::new());
        };
        let mut before = std::mem::take(&mut self.identities);
        let mut joined = Vec::new();
        for member in group.members() {
            let Ok(leaf) = u16::try_from(member.index.u32()) else {
                continue;
            };
            let identity = match before.remove(&leaf) {
                Some((key, identity)) if key == member.signature_key => identity,
                other => {
                    before.extend(other.map(|gone| (leaf, gone)));
                    joined.push(leaf);
                    let judge = Judge {
                        issuer: self.config.issuer.as_ref(),
                        suite: self.key.suite(),
                    };
                    judge.identity(&member.credential, &member.signature_key, None)
                }
            };
            self.identities
                .insert(leaf, (member.signature_key, identity));
        }
        (joined, before.into_keys().collect())
    }

    /// Forgets the group and every key of it.
    fn drop_group(&mut self) {
        self.epochs.clear();
        self.identities.clear();
        self.in_flight = None;
        self.outstanding_since = None;
        if let Some(mut group) = self.group.take() {
            // The store is in memory: it fails only if a thread panicked while it held the lock.
            group
                .delete(self.provider.storage())
                .expect("storage in memory");
        }
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            issuer: self.config.issuer.as_ref(),
            suite: self.key.suite(),
        }
    }

    fn send(&mut self, message: &ToService) -> Result<(), HandleError> {
        self.outgoing.push_back(message.encode()?);
        Ok(())
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl Drop for Member {
    /// The MLS library's store does not clear what it frees.
    fn drop(&mut self) {
        if let Ok(mut values) = self.provider.storage().values.write() {
            for value in values.values_mut() {
                value.zeroize();
            }
        }
    }
}

fn export(
    provider: &OpenMlsRustCrypto,
    group: &MlsGroup,
    label: &str,
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, HandleError> {
    group
        .export_secret(provider.crypto(), label, &[], len)
        .map(Zeroizing::new)
        .map_err(HandleError::library)
}

fn parse(message: &[u8]) -> Result<MlsMessageBodyIn, HandleError> {
    MlsMessageIn::tls_deserialize_exact(message)
        .map(MlsMessageIn::extract)
        .map_err(|_| HandleError::MlsFormat("message"))
}

fn parse_handshake(message: &[u8]) -> Result<ProtocolMessage, HandleError> {
    match parse(message)? {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message.into()),
        _ => Err(HandleError::MlsFormat("public message")),
    }
}
