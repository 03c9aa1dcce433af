//! One participant's side of the group: a sans-IO state machine. Ways into the group are in
//! `joining`, proposals and commits in `handshakes`, what a new epoch changes in `epoch`.

mod epoch;
#[cfg(feature = "expose-secrets")]
mod exposed;
mod handshakes;
mod joining;

use self::epoch::export;
use crate::commit::{self, Judge};
use crate::epochs::{self, EpochSecrets, Epochs, OpenedMedia, ROTATE_AFTER_FRAMES};
use crate::error::{HandleError, MetadataError, Refusal, SendError};
use crate::event::{Event, MAX_EVENTS};
use crate::fault;
use crate::identity::{Claim, Identity, Issuer};
use crate::metadata::{self, OpenedMetadata};
use crate::stats::{self, HandshakeStats, MetadataStats, SenderStats};
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
use tls_codec::{Deserialize as _, Serialize as _, VLBytes};
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

/// A member that is not in the group after its Hello asks again after this time, then after twice
/// as long, up to [`MAX_JOIN_RETRY`].
const JOIN_RETRY: Duration = Duration::from_secs(5);

/// Longest time between two Hellos of a member that is not let in.
const MAX_JOIN_RETRY: Duration = Duration::from_secs(60);

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
    /// Frames under one key after which this member rotates the group's keys, at most
    /// [`ROTATE_AFTER_FRAMES`].
    pub rotate_after_frames: u64,
}

impl Default for MemberConfig {
    fn default() -> Self {
        Self {
            media_suite: CipherSuite::Aes256GcmSha512,
            issuer: None,
            rotation: DEFAULT_ROTATION,
            rotate_after_frames: ROTATE_AFTER_FRAMES,
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
    /// While outside: when to say Hello again, and how long after the last one that is. `None`
    /// while inside, and once it was refused or has refused for good.
    join_retry: Option<(Duration, Duration)>,
    /// When Hello was said last.
    hello_at: Duration,
    /// When to say Hello as a handshake was missed.
    resync_at: Option<Duration>,
    /// The application asked for new keys.
    rotation_asked: bool,
    /// When the first outstanding proposal of this epoch came in.
    outstanding_since: Option<Duration>,
    /// No commit before this time: the last one was turned down.
    not_before: Duration,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    handshakes: HandshakeStats,
}

impl Member {
    /// A participant that wants into the room's group. Its first message is ready.
    ///
    /// # Errors
    /// [`HandleError::MlsFormat`] if the claim is longer than a credential may be;
    /// [`HandleError::Library`].
    pub fn new(
        now: Duration,
        config: MemberConfig,
        key: MemberKey,
        claim: &Claim,
    ) -> Result<Self, HandleError> {
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
            join_retry: Some((now + JOIN_RETRY, JOIN_RETRY)),
            hello_at: now,
            resync_at: None,
            rotation_asked: false,
            outstanding_since: None,
            not_before: Duration::ZERO,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            handshakes: HandshakeStats::default(),
        };
        member.send_hello(now)?;
        Ok(member)
    }

    /// Takes one message of the delivery service.
    ///
    /// # Errors
    /// [`HandleError`]. What the others need to know has been sent, and what the application needs
    /// to know is among the events; the error is for logs and counters.
    pub fn handle_message(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let message = ToMember::decode(message);
        let kind = stats::kind(&message);
        let result = message
            .map_err(HandleError::from)
            .and_then(|message| self.handle_decoded(now, message));
        self.handshakes.record(kind, &result);
        if let Err(HandleError::Wire(_) | HandleError::MlsFormat(_)) = result {
            self.resync(now);
        }
        result
    }

    fn handle_decoded(&mut self, now: Duration, message: ToMember) -> Result<(), HandleError> {
        match message {
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
                self.join_retry = Some((now + JOIN_RETRY, JOIN_RETRY));
                self.send_hello(now)
            }
            ToMember::NotAdmitted => {
                self.join_retry = None;
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
    pub fn handle_connected(&mut self, now: Duration) -> Result<(), HandleError> {
        self.outgoing.clear();
        self.send_hello(now)?;
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
        if self.resync_at.is_some_and(|at| at <= now) {
            self.send_hello(now)?;
        }
        if let Some((at, after)) = self.join_retry
            && at <= now
        {
            let after = (after * 2).min(MAX_JOIN_RETRY);
            self.join_retry = Some((now + after, after));
            self.send_hello(now)?;
        }
        if self.commit_at().is_some_and(|at| at <= now) {
            self.not_before = now + TAKEOVER_AFTER;
            if let Err(error) = self.commit() {
                self.resync(now);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Asks for new keys before the rotation is due, for instance when a device may have been seen
    /// by others. Takes effect with the next timeout.
    pub fn request_rotation(&mut self) {
        self.rotation_asked = true;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. It may have passed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let join_retry = self.join_retry.map(|(at, _)| at);
        let epochs = self.epochs.poll_timeout();
        [self.commit_at(), epochs, join_retry, self.resync_at]
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

    /// Id of the group that this member is in.
    pub fn group_id(&self) -> Option<Vec<u8>> {
        self.group.as_ref().map(|group| group.group_id().to_vec())
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

    /// Leaves of everybody in the group, ascending.
    pub fn leaves(&self) -> impl Iterator<Item = u16> {
        self.identities.keys().copied()
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

    /// What became of the sealed messages of others.
    pub fn metadata_stats(&self) -> &MetadataStats {
        self.epochs.metadata_stats()
    }

    /// What became of the delivery service's messages.
    pub fn handshake_stats(&self) -> &HandshakeStats {
        &self.handshakes
    }

    /// A handshake was missed or damaged on its way; the service has it still, and sends it again
    /// after a Hello.
    fn resync(&mut self, now: Duration) {
        let at = now.max(self.hello_at + TAKEOVER_AFTER);
        self.resync_at.get_or_insert(at);
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
