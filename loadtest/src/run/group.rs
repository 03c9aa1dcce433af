//! A client's part in the group of its room: what the delivery service and the other members say
//! goes in, requests and keys come out (PROTOCOL.md §11).

use super::session::{ClientError, MediaSession};
use crate::driver::{PeerId, Signal, SignalError, unix_now};
use crate::peer::EpochKeys;
use crate::result::{Counter, Hist};
use sealcast_mls::client::{GroupClient, Output, Presence};
use sealcast_mls::identity::Claim;
use sealcast_mls::{Event, GroupSuite, KEEP_OLD_EPOCH, MemberConfig, MemberKey};
use sealcast_model::Time;
use sealcast_sframe::CipherSuite;
use serde_json::{Value, json};

/// SFrame suite of media (PROTOCOL.md §7.3).
pub(super) const MEDIA_SUITE: CipherSuite = CipherSuite::Aes256GcmSha512;

/// A client's group.
pub(super) struct Group {
    client: GroupClient,
    /// When it joined the room, until it has keys.
    joining_since: Option<Time>,
    /// When the newest epoch began, until its keys seal.
    epoch_since: Option<Time>,
    /// Once there is one: keys that came before it wait here.
    peer: Option<PeerId>,
    waiting: Vec<KeyChange>,
}

/// Where positions stand in a message.
const POINTER: &str = "pointer";

/// Counts the positions in another member's message.
fn on_pointer(session: &MediaSession, body: &Value) {
    let now = session.setup.clock.now();
    let mut control = session.setup.control();
    for due in body[POINTER].as_array().into_iter().flatten() {
        let due = due.as_u64().map(Time::from_nanos);
        control.add(Counter::PointersReceived, 1);
        control.record(Hist::Pointer, now.saturating_since(due.unwrap_or(now)));
    }
}

enum KeyChange {
    Epoch(EpochKeys),
    Seal(u64),
    Clear,
}

impl Group {
    /// A participant of a room with this MLS cipher suite.
    pub(super) fn new(
        now: Time,
        suite: u16,
        subject: &str,
        participant: &str,
    ) -> Result<Group, ClientError> {
        let suite = GroupSuite::from_number(suite)
            .ok_or_else(|| ClientError::Ended(format!("no MLS cipher suite {suite}")))?;
        let config = MemberConfig {
            media_suite: MEDIA_SUITE,
            ..MemberConfig::default()
        };
        let presence = Presence {
            participant: participant.to_owned(),
            ..Presence::default()
        };
        let key = MemberKey::generate(suite)?;
        let claim = Claim::Id(subject.to_owned());
        Ok(Group {
            client: GroupClient::new(unix_now(), config, key, &claim, presence)?,
            joining_since: Some(now),
            epoch_since: None,
            peer: None,
            waiting: vec![],
        })
    }

    /// It has keys to seal with.
    pub(super) fn ready(&self) -> bool {
        self.client.member().sending_epoch().is_some()
    }

    /// When it has something to do.
    pub(super) fn poll_timeout(&self, now: Time) -> Time {
        let due = self.client.poll_timeout();
        due.map_or(Time::NEVER, |due| now + due.saturating_sub(unix_now()))
    }

    /// Takes a message of the delivery service.
    pub(super) fn on_group(&mut self, session: &MediaSession, message: &[u8]) {
        // Whoever has to know was told; it is the relay's or a member's fault, and ours to count.
        if let Err(e) = self.client.handle_group(unix_now(), message) {
            session.setup.control().add(Counter::GroupErrors, 1);
            session.setup.error(&format!("group: {e}"));
        }
    }

    /// Takes a sealed message of another participant. Those of epochs before ours do not open.
    pub(super) fn on_sealed(&mut self, session: &MediaSession, message: &[u8]) {
        let counter = match self.client.handle_sealed(unix_now(), message) {
            Ok(()) => Counter::MessagesOpened,
            Err(_) => Counter::MessagesUnopened,
        };
        session.setup.control().add(counter, 1);
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, session: &MediaSession) {
        if let Err(e) = self.client.handle_timeout(unix_now()) {
            session.setup.control().add(Counter::GroupErrors, 1);
            session.setup.error(&format!("group: {e}"));
        }
    }

    /// The peer to whom keys go.
    pub(super) fn attach(
        &mut self,
        session: &MediaSession,
        peer: PeerId,
    ) -> Result<(), ClientError> {
        self.peer = Some(peer);
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .try_for_each(|change| self.change(session, change))
    }

    /// Carries out what the client wants done, until it wants nothing.
    pub(super) async fn drive(
        &mut self,
        session: &MediaSession,
        signal: &mut Signal,
    ) -> Result<(), ClientError> {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Group(message) => match signal.group(&message).await {
                    Err(SignalError::Refused { code, .. })
                        if code == "bad_group" || code == "rate_limited" =>
                    {
                        session.setup.control().add(Counter::GroupRefused, 1);
                        self.client.handle_refused(unix_now());
                    }
                    sent => sent?,
                },
                Output::Sealed(message) => match signal.sealed(&message).await {
                    // Presence is asked for again by whoever misses it.
                    Err(SignalError::Refused { .. }) => {
                        session.setup.control().add(Counter::RequestFailed, 1);
                    }
                    sent => sent?,
                },
                Output::Event(event) => self.on_event(session, &event)?,
                Output::Impersonation { participant, .. } => {
                    session
                        .setup
                        .error(&format!("impersonation of {participant}"));
                }
                Output::App { body, .. } => on_pointer(session, &body),
                Output::Presence { .. } => {}
            }
        }
        Ok(())
    }

    /// Sends pointer positions that were due at these times, sealed, over the data channel.
    pub(super) async fn point(
        &mut self,
        session: &MediaSession,
        dues: &[Time],
    ) -> Result<(), ClientError> {
        let positions = dues.len() as u64;
        let nanos: Vec<u64> = dues.iter().map(|d| d.as_nanos()).collect();
        let sealed = self.client.say(json!({ POINTER: nanos }));
        // What else the client wanted has been carried out: this is the message.
        let message = match (sealed, self.client.poll_output()) {
            (Ok(()), Some(Output::Sealed(message))) => Some(message),
            _ => None,
        };
        let sent = match message.zip(self.peer) {
            None => None,
            Some((message, peer)) => {
                let send = session.call(move |media, _, _| {
                    media.with(peer, |now, p, out| p.send_data(now, true, &message, out))
                });
                send.await?
            }
        };
        let others = self.client.member().members().len().saturating_sub(1) as u64;
        let (counter, n) = match sent {
            Some(true) => (Counter::PointersExpected, positions * others),
            _ => (Counter::PointersUnsent, positions),
        };
        session.setup.control().add(counter, n);
        Ok(())
    }

    fn on_event(&mut self, session: &MediaSession, event: &Event) -> Result<(), ClientError> {
        let setup = &session.setup;
        let now = setup.clock.now();
        match event {
            Event::Epoch { epoch, .. } => {
                setup.control().add(Counter::Epochs, 1);
                self.epoch_since = Some(now);
                let keys = self.keys(*epoch);
                keys.map_or(Ok(()), |k| self.change(session, KeyChange::Epoch(k)))
            }
            Event::Sending { epoch } => {
                if let Some(since) = self.joining_since.take() {
                    let waited = now.saturating_since(since);
                    setup.control().record(Hist::JoinKeys, waited);
                } else if let Some(since) = self.epoch_since.take() {
                    let waited = now.saturating_since(since);
                    setup.control().record(Hist::Rekey, waited);
                }
                self.change(session, KeyChange::Seal(*epoch))
            }
            Event::Reset | Event::Removed => {
                setup.control().add(Counter::GroupResets, 1);
                self.change(session, KeyChange::Clear)
            }
            Event::MemberDeclined { .. }
            | Event::CommitRefused { .. }
            | Event::GroupRefused { .. }
            | Event::NotAdmitted => {
                setup.control().add(Counter::GroupErrors, 1);
                setup.error(&format!("group: {event:?}"));
                Ok(())
            }
        }
    }

    /// The keys of the epoch that has just begun.
    fn keys(&self, epoch: u64) -> Option<EpochKeys> {
        let member = self.client.member();
        let highest = member.members().iter().map(|m| u32::from(m.leaf)).max();
        Some(EpochKeys {
            epoch,
            leaf: member.leaf()?,
            leaves: highest? + 1,
            base_key: member.sframe_base_key()?.to_vec(),
        })
    }

    fn change(&mut self, session: &MediaSession, change: KeyChange) -> Result<(), ClientError> {
        let Some(peer) = self.peer else {
            self.waiting.push(change);
            return Ok(());
        };
        session.with_peer(peer, move |now, p| match change {
            KeyChange::Epoch(keys) => p.add_epoch(now, keys, KEEP_OLD_EPOCH),
            KeyChange::Seal(epoch) => p.seal_with(epoch),
            KeyChange::Clear => {
                p.clear_epochs();
                Ok(())
            }
        })
    }
}
