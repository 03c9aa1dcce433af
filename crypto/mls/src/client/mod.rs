//! A whole client of a room's group, without its sockets: a [`Member`], and around it what members
//! tell each other sealed (PROTOCOL.md §11.9). For load generators, tests and native programs; the
//! browser's worker keeps the same rules.
//!
//! The relay says which participant a track belongs to, and the keys say which leaf sealed a frame.
//! Only a member's own sealed word ties the two together, so that the relay cannot show one person's
//! picture under another's name.

mod content;

pub use content::{Content, MAX_NAME_CHARS, MAX_PARTICIPANT_LEN, Presence};

use crate::error::{HandleError, MetadataError, SendError};
use crate::event::{Event, MAX_EVENTS};
use crate::identity::{Assertion, Claim};
use crate::{Member, MemberConfig, MemberKey, OpenedMedia};
use sealcast_sframe::OpenError;
use sealcast_sframe::layout::Codec;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use thiserror::Error;

/// Contexts start here: the key id then takes five bytes, which cleartext does not look like by
/// chance.
pub const MIN_CONTEXT: u16 = 0x100;

/// A member that has not said who it is within this time of an epoch's beginning is asked.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// It is asked again at this interval.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// Such a question is answered at most this often.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// A message that the relay refused is followed by a new Hello after this time.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// Frames fail for this long before the group's state is asked for again.
const RESYNC_AFTER: Duration = Duration::from_secs(4);

/// Shortest time between two such questions.
const RESYNC_INTERVAL: Duration = Duration::from_secs(15);

/// Something for the program around the client to do or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For the delivery service: the `data` of a `group` request.
    Group(Vec<u8>),
    /// For all other participants: the `data` of a `sealed` request without `to`.
    Sealed(Vec<u8>),
    /// Something happened in the group.
    Event(Event),
    /// A member said who it is.
    Presence {
        /// Its leaf.
        leaf: u16,
    },
    /// A member's message to the application.
    App {
        /// The relay's pseudonym for the member, by the member's own word.
        participant: String,
        /// What it said.
        body: Value,
    },
    /// A member claims a pseudonym that another one holds. It was not believed.
    Impersonation {
        /// The pseudonym.
        participant: String,
        /// The leaf that claims it.
        leaf: u16,
    },
}

/// A member, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// What it said.
    pub presence: Presence,
    /// What the issuer vouches for, if it sent an assertion and that is true.
    pub vouched: Option<Assertion>,
}

/// A frame of a track that is not to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrackError {
    /// It is not known yet which member the track's owner is.
    #[error("held: the owner of the track has not said which member it is")]
    Held,
    /// The frame opened, but another member than the track's owner sealed it.
    #[error("misattributed: sealed by leaf {0}")]
    Misattributed(u16),
    /// It did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// One participant of a room with group keys.
///
/// Contract: call a `handle_` method (or [`say`](Self::say), [`rotate`](Self::rotate)), then drain
/// [`poll_output`](Self::poll_output), then wait for input or for
/// [`poll_timeout`](Self::poll_timeout). What `group` events bring goes to
/// [`handle_group`](Self::handle_group), in their order; what `sealed` events bring to
/// [`handle_sealed`](Self::handle_sealed). Times are durations since the Unix epoch that never run
/// backwards.
///
/// ```
/// use sealcast_group_wire::{GROUP_ID_LEN, ToMember, ToService};
/// use sealcast_mls::client::{GroupClient, MIN_CONTEXT, Output, Presence};
/// use sealcast_mls::identity::Claim;
/// use sealcast_mls::{GroupSuite, MemberConfig, MemberKey};
/// use sealcast_sframe::layout::Codec;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let now = Duration::from_secs(1_800_000_000);
/// let presence = Presence {
///     participant: "PA_0123456789abcdef".into(), // as `joined` said
///     ..Presence::default()
/// };
/// let mut client = GroupClient::new(
///     now,
///     MemberConfig::default(),
///     MemberKey::generate(GroupSuite::X25519)?,
///     &Claim::Id("load-1".into()),
///     presence,
/// )?;
/// let Some(Output::Group(hello)) = client.poll_output() else {
///     panic!("the first thing a client does is to say Hello");
/// };
/// assert!(matches!(ToService::decode(&hello)?, ToService::Hello { .. }));
///
/// // The first one in a room is asked to make the group. Others get a Welcome instead.
/// let create = ToMember::Create {
///     group_id: vec![7; GROUP_ID_LEN].into(),
///     suite: GroupSuite::X25519.number(),
///     external_sender: vec![9; 32].into(),
/// };
/// client.handle_group(now, &create.encode()?)?;
/// while let Some(output) = client.poll_output() {
///     // Output::Group and Output::Sealed go out by signalling.
/// }
///
/// let mut sealed = Vec::new();
/// client.seal_frame(MIN_CONTEXT, Codec::Opus, b"an Opus frame", &mut sealed)?;
/// let contexts = client.kid(MIN_CONTEXT).map(|kid| kid.context()); // for `publish`
/// assert_eq!(contexts, Some(MIN_CONTEXT.into()));
/// # Ok(())
/// # }
/// ```
pub struct GroupClient {
    member: Member,
    presence: Presence,
    /// Who each leaf said it is. At most one entry for each member of the group.
    people: BTreeMap<u16, Person>,
    /// Leaves by the pseudonym they claimed.
    leaves: BTreeMap<String, u16>,
    epoch_since: Duration,
    /// Say who this member is as soon as the next epoch seals.
    tell_on_sending: bool,
    last_asked: Option<Duration>,
    last_answered: Option<Duration>,
    /// When to answer a question.
    answer_at: Option<Duration>,
    /// When to say Hello after a refusal by the relay.
    retry_at: Option<Duration>,
    failing_since: Option<Duration>,
    last_resync: Option<Duration>,
    /// At most [`MAX_EVENTS`] of other members' making; messages to the relay are as many as inputs
    /// call for.
    outputs: VecDeque<Output>,
}

impl GroupClient {
    /// A participant that wants into the room's group.
    ///
    /// # Errors
    /// As [`Member::new`].
    pub fn new(
        now: Duration,
        config: MemberConfig,
        key: MemberKey,
        claim: &Claim,
        presence: Presence,
    ) -> Result<Self, HandleError> {
        let mut client = Self {
            member: Member::new(now, config, key, claim)?,
            presence,
            people: BTreeMap::new(),
            leaves: BTreeMap::new(),
            epoch_since: now,
            tell_on_sending: true,
            last_asked: None,
            last_answered: None,
            answer_at: None,
            retry_at: None,
            failing_since: None,
            last_resync: None,
            outputs: VecDeque::new(),
        };
        client.after_input(now);
        Ok(client)
    }

    /// Takes a message of the delivery service.
    ///
    /// # Errors
    /// As [`Member::handle_message`]: for the log, whoever has to know was told.
    pub fn handle_group(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let result = self.member.handle_message(now, message);
        self.after_input(now);
        result
    }

    /// Takes a sealed message of another participant.
    ///
    /// # Errors
    /// As [`Member::open_metadata`].
    pub fn handle_sealed(&mut self, now: Duration, message: &[u8]) -> Result<(), MetadataError> {
        let opened = self.member.open_metadata(message)?;
        match Content::decode(&opened.content) {
            Some(Content::Presence(presence)) => self.on_presence(now, opened.leaf, presence),
            Some(Content::Who) => {
                let earliest = self.last_answered.map(|at| at + ANSWER_INTERVAL);
                self.answer_at = Some(earliest.map_or(now, |at| at.max(now)));
            }
            Some(Content::App(body)) => {
                if let Some(person) = self.people.get(&opened.leaf) {
                    let participant = person.presence.participant.clone();
                    self.push(Output::App { participant, body });
                }
            }
            None => {}
        }
        self.after_input(now);
        Ok(())
    }

    /// The connection to the relay is new, maybe under another pseudonym.
    ///
    /// # Errors
    /// As [`Member::handle_connected`].
    pub fn handle_connected(
        &mut self,
        now: Duration,
        participant: &str,
    ) -> Result<(), HandleError> {
        participant.clone_into(&mut self.presence.participant);
        self.outputs
            .retain(|output| !matches!(output, Output::Group(_) | Output::Sealed(_)));
        let result = self.resync(now);
        // Sealed messages of the meantime are lost, in both directions.
        self.tell(now);
        self.ask(now);
        self.after_input(now);
        result
    }

    /// The relay answered a group message with `bad_group` or `rate_limited`.
    pub fn handle_refused(&mut self, now: Duration) {
        self.retry_at.get_or_insert(now + RETRY_AFTER);
    }

    /// Does what is due.
    ///
    /// # Errors
    /// As [`Member::handle_timeout`]; another attempt follows.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), HandleError> {
        let mut result = self.member.handle_timeout(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            result = result.and(self.resync(now));
        }
        if self.answer_at.is_some_and(|at| at <= now) {
            self.tell(now);
        }
        if self.ask_at().is_some_and(|at| at <= now) {
            self.ask(now);
        }
        self.after_input(now);
        result
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. It may have passed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let member = self.member.poll_timeout();
        [member, self.retry_at, self.answer_at, self.ask_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Seals a message of the application for everybody in the group.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn say(&mut self, body: Value) -> Result<(), SendError> {
        self.seal(&Content::App(body))
    }

    /// Asks for new keys; takes effect with the next timeout.
    pub fn rotate(&mut self) {
        self.member.request_rotation();
    }

    /// Seals a media frame into `out`; see [`Member::seal_frame`]. `context` is at least
    /// [`MIN_CONTEXT`] and announced to the relay in `publish`.
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
        self.member.seal_frame(context, codec, frame, out)
    }

    /// Opens, in place, a frame of a track that the relay says is `owner`'s. `None` for an empty
    /// one, which is to be ignored.
    ///
    /// # Errors
    /// [`TrackError`]. Duplicates come as [`OpenError::Replayed`] and are no failure.
    pub fn open_frame(
        &mut self,
        now: Duration,
        owner: &str,
        codec: Codec,
        sealed: &mut [u8],
    ) -> Result<Option<OpenedMedia>, TrackError> {
        let leaf = self.leaf_of(owner).ok_or(TrackError::Held)?;
        let result = self.open_frame_of(leaf, codec, sealed);
        match result {
            Ok(Some(_)) => self.failing_since = None,
            Ok(None) | Err(TrackError::Open(OpenError::Replayed { .. })) => {}
            Err(_) => self.on_failure(now),
        }
        result
    }

    fn open_frame_of(
        &mut self,
        leaf: u16,
        codec: Codec,
        sealed: &mut [u8],
    ) -> Result<Option<OpenedMedia>, TrackError> {
        let Some(media) = self.member.open_frame(codec, sealed)? else {
            return Ok(None);
        };
        if media.leaf != leaf {
            sealed.fill(0);
            return Err(TrackError::Misattributed(media.leaf));
        }
        Ok(Some(media))
    }

    /// Key id under which `context` seals at present.
    pub fn kid(&self, context: u16) -> Option<sealcast_sframe::Kid> {
        self.member.kid(context)
    }

    /// The leaf whose frames a participant's tracks must hold, once that member has said so.
    pub fn leaf_of(&self, participant: &str) -> Option<u16> {
        self.leaves.get(participant).copied()
    }

    /// Who the member at `leaf` said it is.
    pub fn person(&self, leaf: u16) -> Option<&Person> {
        self.people.get(&leaf)
    }

    /// The member: epoch, members, code, counts.
    pub fn member(&self) -> &Member {
        &self.member
    }

    fn on_presence(&mut self, now: Duration, leaf: u16, presence: Presence) {
        // "The first leaf that claims a pseudonym keeps it until it leaves the group" (§11.9).
        let holder = self.leaf_of(&presence.participant);
        if holder.is_some_and(|holder| holder != leaf) {
            let participant = presence.participant;
            return self.push(Output::Impersonation { participant, leaf });
        }
        self.forget(leaf);
        let assertion = presence.assertion.as_deref();
        let vouched = assertion.and_then(|token| self.member.verify_assertion(leaf, token, now));
        self.leaves.insert(presence.participant.clone(), leaf);
        self.people.insert(leaf, Person { presence, vouched });
        self.push(Output::Presence { leaf });
    }

    fn forget(&mut self, leaf: u16) {
        if let Some(person) = self.people.remove(&leaf) {
            self.leaves.remove(&person.presence.participant);
        }
    }

    fn on_failure(&mut self, now: Duration) {
        let since = *self.failing_since.get_or_insert(now);
        let rested = self
            .last_resync
            .is_none_or(|last| now.saturating_sub(last) > RESYNC_INTERVAL);
        if now.saturating_sub(since) > RESYNC_AFTER && rested {
            self.failing_since = None;
            self.retry_at = Some(now);
        }
    }

    fn resync(&mut self, now: Duration) -> Result<(), HandleError> {
        self.retry_at = None;
        self.last_resync = Some(now);
        self.member.handle_connected(now)
    }

    /// When to ask who everybody is.
    fn ask_at(&self) -> Option<Duration> {
        self.member.sending_epoch()?;
        let own = self.member.leaf();
        let mut others = self.member.leaves().filter(|leaf| Some(*leaf) != own);
        others.find(|leaf| !self.people.contains_key(leaf))?;
        let due = self.epoch_since + ASK_AFTER;
        Some(
            self.last_asked
                .map_or(due, |last| due.max(last + ASK_INTERVAL)),
        )
    }

    fn tell(&mut self, now: Duration) {
        self.answer_at = None;
        self.last_answered = Some(now);
        let presence = Content::Presence(self.presence.clone());
        self.seal_if_inside(&presence);
    }

    fn ask(&mut self, now: Duration) {
        self.last_asked = Some(now);
        self.seal_if_inside(&Content::Who);
    }

    /// Outside the group there is nobody to tell; the next epoch that seals brings it up again.
    fn seal_if_inside(&mut self, content: &Content) {
        if self.seal(content).is_err() {
            self.tell_on_sending = true;
        }
    }

    fn seal(&mut self, content: &Content) -> Result<(), SendError> {
        let sealed = self.member.seal_metadata(&content.encode())?;
        self.outputs.push_back(Output::Sealed(sealed));
        Ok(())
    }

    fn after_input(&mut self, now: Duration) {
        while let Some(message) = self.member.poll_outgoing() {
            self.outputs.push_back(Output::Group(message));
        }
        while let Some(event) = self.member.poll_event() {
            self.on_event(now, &event);
            self.push(Output::Event(event));
        }
    }

    fn on_event(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Epoch { joined, left, .. } => {
                self.epoch_since = now;
                for leaf in left {
                    self.forget(*leaf);
                }
                self.tell_on_sending |= !joined.is_empty();
            }
            Event::Sending { .. } if self.tell_on_sending => {
                self.tell_on_sending = false;
                self.tell(now);
            }
            Event::Reset | Event::Removed => {
                self.people.clear();
                self.leaves.clear();
                self.tell_on_sending = true;
            }
            _ => {}
        }
    }

    /// Queues what others caused; the oldest of it goes if nobody polls.
    fn push(&mut self, output: Output) {
        if self.outputs.len() >= MAX_EVENTS {
            let ours = |output: &Output| matches!(output, Output::Group(_) | Output::Sealed(_));
            if let Some(oldest) = self.outputs.iter().position(|output| !ours(output)) {
                self.outputs.remove(oldest);
            }
        }
        self.outputs.push_back(output);
    }
}
