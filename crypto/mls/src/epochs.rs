//! The keys of the epochs that a member holds: which one it seals with, which it still opens.
//!
//! A new epoch opens at once. It seals once every member has it, or [`SWITCH_EPOCH_AFTER`] its
//! start; the ones before it open for [`KEEP_OLD_EPOCH`] more.

use crate::error::{MetadataError, SendError};
use crate::metadata::{self, MAX_METADATA_LEN, MetadataKeys, OpenedMetadata};
use crate::stats::{MetadataStats, SenderStats};
use sealcast_sframe::layout::{self, Codec, OpenedFrame};
use sealcast_sframe::{
    BaseKeyScope, CipherSuite, DEFAULT_FRAME_LIMIT, KeyStore, Kid, MAX_BASE_KEYS, OpenError, Sealer,
};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// MLS exporter label of the SFrame base key (RFC 9605 §5.2).
pub(crate) const EXPORTER_LABEL: &str = "SFrame 1.0 Base Key";

/// Senders wait this long for all members to have a new epoch.
pub const SWITCH_EPOCH_AFTER: Duration = Duration::from_secs(2);

/// Frames of an epoch open this long after the next one began: two seconds until senders switch,
/// the rest for what is in flight, repaired or waiting in a jitter buffer.
pub const KEEP_OLD_EPOCH: Duration = Duration::from_secs(10);

/// Frames under one key after which the group's keys are rotated: half of the sealer's limit of
/// 2^24, so that the rotation has hours to come through.
pub const ROTATE_AFTER_FRAMES: u64 = 1 << 23;

const _: () = assert!(ROTATE_AFTER_FRAMES <= DEFAULT_FRAME_LIMIT / 2);

/// Contexts, that is encoders, of one member in one epoch: eight streams of three simulcast
/// encodings, each restarted once, and room to spare.
pub const MAX_CONTEXTS: usize = 64;

/// Everything exported from the group for one epoch.
pub(crate) struct EpochSecrets {
    pub(crate) group_id: Vec<u8>,
    pub(crate) epoch: u64,
    /// Leaves of the ratchet tree, blank ones included.
    pub(crate) leaves: u32,
    pub(crate) own_leaf: u16,
    pub(crate) media: Zeroizing<Vec<u8>>,
    pub(crate) metadata: Zeroizing<[u8; metadata::SECRET_LEN]>,
}

struct Epoch {
    number: u64,
    leaves: u32,
    own_leaf: u16,
    media: Zeroizing<Vec<u8>>,
    metadata: MetadataKeys,
    started: Duration,
    /// When its keys go; `None` while it is the newest.
    retires: Option<Duration>,
}

impl Epoch {
    fn scope(&self) -> BaseKeyScope {
        BaseKeyScope::Epoch {
            epoch: self.number as u8,
            leaves: self.leaves,
        }
    }
}

/// A media frame that was opened in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedMedia {
    /// Leaf of the sender.
    pub leaf: u16,
    /// The sender's encoder.
    pub context: u16,
    /// Key id, counter, and where the frame lies within the buffer.
    pub opened: OpenedFrame,
}

/// All keys of one group.
pub(crate) struct Epochs {
    suite: CipherSuite,
    /// Ascending by number. At most [`MAX_BASE_KEYS`].
    held: Vec<Epoch>,
    /// Number of the epoch that seals.
    sending: Option<u64>,
    /// Sealers of the sending epoch, by context. They go with it and never before, so that no
    /// context gets a second one.
    sealers: BTreeMap<u16, Sealer>,
    opener: KeyStore,
    stats: BTreeMap<u16, SenderStats>,
    /// Frames that are no SFrame, or whose KID names no leaf of the newest epoch.
    malformed: u64,
    metadata_stats: MetadataStats,
}

impl Epochs {
    pub(crate) fn new(suite: CipherSuite) -> Self {
        Self {
            suite,
            held: Vec::new(),
            sending: None,
            sealers: BTreeMap::new(),
            opener: KeyStore::new(suite),
            stats: BTreeMap::new(),
            malformed: 0,
            metadata_stats: MetadataStats::default(),
        }
    }

    /// Drops every key, and what is counted by leaf.
    pub(crate) fn clear(&mut self) {
        let mut metadata_stats = std::mem::take(&mut self.metadata_stats);
        metadata_stats.senders.clear();
        *self = Self {
            malformed: self.malformed,
            metadata_stats,
            ..Self::new(self.suite)
        };
    }

    /// The epoch that seals.
    pub(crate) fn sending(&self) -> Option<u64> {
        self.sending
    }

    /// Starts an epoch. `true` if it seals from now on, as the first one does.
    pub(crate) fn start(&mut self, now: Duration, secrets: EpochSecrets) -> bool {
        if self.held.len() == MAX_BASE_KEYS {
            let oldest = self.held.remove(0);
            self.opener.remove_base_key(oldest.scope());
        }
        for epoch in &mut self.held {
            epoch.retires.get_or_insert(now + KEEP_OLD_EPOCH);
        }
        let epoch = Epoch {
            number: secrets.epoch,
            leaves: secrets.leaves,
            own_leaf: secrets.own_leaf,
            metadata: MetadataKeys::new(
                secrets.metadata,
                &secrets.group_id,
                secrets.epoch,
                secrets.leaves,
                secrets.own_leaf,
            ),
            media: secrets.media,
            started: now,
            retires: None,
        };
        self.opener
            .insert_base_key(epoch.scope(), &epoch.media)
            .expect("room was made, and an exported key has the right length");
        let in_tree = |leaf: &u16| u32::from(*leaf) < secrets.leaves;
        self.stats.retain(|leaf, _| in_tree(leaf));
        self.metadata_stats.senders.retain(|leaf, _| in_tree(leaf));
        self.held.push(epoch);
        self.sending.is_none() && self.switch_to(secrets.epoch)
    }

    /// Every member has `epoch`. `true` if it seals from now on.
    pub(crate) fn on_all_ready(&mut self, epoch: u64) -> bool {
        self.held.iter().any(|held| held.number == epoch) && self.switch_to(epoch)
    }

    /// Switches and retires what is due. `true` if another epoch seals from now on.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> bool {
        let due = |epoch: &&Epoch| epoch.started + SWITCH_EPOCH_AFTER <= now;
        let newest = self.held.iter().rev().find(due).map(|epoch| epoch.number);
        let switched = newest.is_some_and(|newest| self.switch_to(newest));
        let (retired, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|epoch| epoch.retires.is_some_and(|retires| retires <= now));
        self.held = held;
        for epoch in retired {
            self.opener.remove_base_key(epoch.scope());
        }
        switched
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let switches = self
            .held
            .iter()
            .filter(|epoch| Some(epoch.number) > self.sending)
            .map(|epoch| epoch.started + SWITCH_EPOCH_AFTER);
        let retirements = self.held.iter().filter_map(|epoch| epoch.retires);
        switches.chain(retirements).min()
    }

    /// Frames sealed under the key that sealed most; none if the keys have been renewed already and
    /// it is the switch that is waited for.
    pub(crate) fn most_frames(&self) -> u64 {
        if self.held.last().map(|newest| newest.number) != self.sending {
            return 0;
        }
        let frames = self.sealers.values().map(Sealer::counter);
        frames.max().unwrap_or(0)
    }

    pub(crate) fn stats(&self) -> &BTreeMap<u16, SenderStats> {
        &self.stats
    }

    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    pub(crate) fn metadata_stats(&self) -> &MetadataStats {
        &self.metadata_stats
    }

    /// Key id under which `context` seals at present.
    pub(crate) fn kid(&self, context: u16) -> Option<Kid> {
        let sending = self.sending?;
        let epoch = self.held.iter().find(|epoch| epoch.number == sending)?;
        Some(Kid::from_parts(context, epoch.own_leaf, sending))
    }

    pub(crate) fn seal_frame(
        &mut self,
        context: u16,
        codec: Codec,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        out.clear();
        let sealer = match self.sealers.get_mut(&context) {
            Some(sealer) => sealer,
            None => self.new_sealer(context)?,
        };
        Ok(layout::seal(codec, sealer, frame, out)?)
    }

    fn new_sealer(&mut self, context: u16) -> Result<&mut Sealer, SendError> {
        let kid = self.kid(context).ok_or(SendError::NoGroup)?;
        if self.sealers.len() >= MAX_CONTEXTS {
            return Err(SendError::Contexts);
        }
        let epoch = self
            .held
            .iter()
            .find(|epoch| Some(epoch.number) == self.sending);
        let epoch = epoch.ok_or(SendError::NoGroup)?;
        let sealer = Sealer::new(self.suite, kid, &epoch.media)
            .expect("an exported key has the right length");
        Ok(self.sealers.entry(context).or_insert(sealer))
    }

    /// `None` for an empty frame, which is to be ignored.
    pub(crate) fn open_frame(
        &mut self,
        codec: Codec,
        sealed: &mut [u8],
    ) -> Result<Option<OpenedMedia>, OpenError> {
        let claimed = layout::peek(codec, sealed).map(|header| header.kid.parts());
        let result = layout::open(codec, &mut self.opener, sealed);
        let newest = self.held.last();
        let stats = match claimed {
            Ok(Some((_, leaf, _)))
                if newest.is_some_and(|epoch| u32::from(leaf) < epoch.leaves) =>
            {
                Some(self.stats.entry(leaf).or_default())
            }
            _ => None,
        };
        match (&result, stats) {
            (Ok(Some(_)), Some(stats)) => stats.opened += 1,
            (Err(OpenError::Auth(_)), Some(stats)) => stats.auth += 1,
            (Err(OpenError::UnknownKid(_)), Some(stats)) => stats.unknown_kid += 1,
            (Err(OpenError::Replayed { .. }), Some(stats)) => stats.replayed += 1,
            (Err(_), _) => self.malformed += 1,
            (Ok(_), _) => {}
        }
        let Some(opened) = result? else {
            return Ok(None);
        };
        let (context, leaf, _) = opened
            .kid
            .parts()
            .ok_or(OpenError::Malformed("key id of another layout"))?;
        Ok(Some(OpenedMedia {
            leaf,
            context,
            opened,
        }))
    }

    pub(crate) fn seal_metadata(&mut self, content: &[u8]) -> Result<Vec<u8>, SendError> {
        if content.len() > MAX_METADATA_LEN {
            return Err(SendError::TooLong(content.len()));
        }
        let sending = self.sending.ok_or(SendError::NoGroup)?;
        let epoch = self.held.iter_mut().find(|epoch| epoch.number == sending);
        Ok(epoch.ok_or(SendError::NoGroup)?.metadata.seal(content))
    }

    pub(crate) fn open_metadata(
        &mut self,
        message: &[u8],
    ) -> Result<OpenedMetadata, MetadataError> {
        let claimed = metadata::parse_header(message).map(|header| header.leaf);
        let result = self.try_open_metadata(message);
        let leaves = self.held.last().map_or(0, |epoch| epoch.leaves);
        let leaf = claimed.ok().filter(|&leaf| u32::from(leaf) < leaves);
        let outcome = result.as_ref().map(|_| ()).map_err(|error| *error);
        self.metadata_stats.record(leaf, outcome);
        result
    }

    fn try_open_metadata(&mut self, message: &[u8]) -> Result<OpenedMetadata, MetadataError> {
        let header = metadata::parse_header(message)?;
        self.held
            .iter_mut()
            .find(|epoch| epoch.number == header.epoch)
            .ok_or(MetadataError::UnknownKey {
                epoch: header.epoch,
                leaf: header.leaf,
            })?
            .metadata
            .open(message)
    }

    /// Seals with `epoch` from now on, if it is newer than the one that does.
    fn switch_to(&mut self, epoch: u64) -> bool {
        if self.sending.is_some_and(|sending| sending >= epoch) {
            return false;
        }
        self.sending = Some(epoch);
        self.sealers.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: CipherSuite = CipherSuite::Aes256GcmSha512;

    fn secrets(epoch: u64, own_leaf: u16) -> EpochSecrets {
        EpochSecrets {
            group_id: b"group".to_vec(),
            epoch,
            leaves: 2,
            own_leaf,
            media: Zeroizing::new(vec![epoch as u8; 32]),
            metadata: Zeroizing::new([epoch as u8; metadata::SECRET_LEN]),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn send(from: &mut Epochs, to: &mut Epochs) -> Result<Option<OpenedMedia>, OpenError> {
        let mut sealed = Vec::new();
        from.seal_frame(1, Codec::Opus, b"frame", &mut sealed)
            .unwrap();
        to.open_frame(Codec::Opus, &mut sealed)
    }

    #[test]
    fn senders_switch_when_all_are_ready_or_after_two_seconds() {
        let mut alice = Epochs::new(SUITE);
        assert!(alice.start(seconds(0), secrets(1, 0)));
        assert!(!alice.start(seconds(1), secrets(2, 0)));
        assert_eq!(alice.sending(), Some(1));
        assert!(!alice.on_all_ready(3));
        assert!(alice.on_all_ready(2));
        assert_eq!(alice.sending(), Some(2));
        assert!(!alice.on_all_ready(1), "never backwards");

        alice.start(seconds(5), secrets(3, 0));
        alice.start(seconds(6), secrets(4, 0));
        assert_eq!(alice.poll_timeout(), Some(seconds(7)));
        assert!(
            alice.handle_timeout(seconds(7)),
            "not held up by the epoch after it"
        );
        assert_eq!(alice.sending(), Some(3));
        assert!(alice.handle_timeout(seconds(8)));
        assert_eq!(alice.sending(), Some(4));
    }

    #[test]
    fn old_epochs_open_for_ten_seconds() {
        let (mut alice, mut bob) = (Epochs::new(SUITE), Epochs::new(SUITE));
        alice.start(seconds(0), secrets(1, 0));
        bob.start(seconds(0), secrets(1, 1));
        bob.start(seconds(1), secrets(2, 1));
        assert_eq!(bob.poll_timeout(), Some(seconds(3)));
        bob.handle_timeout(seconds(10));
        let opened = send(&mut alice, &mut bob).unwrap().unwrap();
        assert_eq!((opened.leaf, opened.context), (0, 1));
        let message = alice.seal_metadata(b"chat").unwrap();
        bob.handle_timeout(seconds(11));
        assert!(matches!(
            send(&mut alice, &mut bob),
            Err(OpenError::UnknownKid(_))
        ));
        assert!(matches!(
            bob.open_metadata(&message),
            Err(MetadataError::UnknownKey { epoch: 1, leaf: 0 })
        ));
        let stats = bob.stats()[&0];
        assert_eq!((stats.opened, stats.unknown_kid), (1, 1));
    }

    #[test]
    fn a_context_keeps_its_sealer_for_the_epoch() {
        let mut alice = Epochs::new(SUITE);
        assert_eq!(
            alice.seal_frame(0, Codec::Opus, b"x", &mut Vec::new()),
            Err(SendError::NoGroup)
        );
        alice.start(seconds(0), secrets(1, 0));
        for context in 0..MAX_CONTEXTS as u16 {
            alice
                .seal_frame(context, Codec::Opus, b"x", &mut Vec::new())
                .unwrap();
        }
        assert_eq!(
            alice.seal_frame(999, Codec::Opus, b"x", &mut Vec::new()),
            Err(SendError::Contexts)
        );
        alice
            .seal_frame(3, Codec::Opus, b"x", &mut Vec::new())
            .unwrap();
        assert_eq!(alice.sealers[&3].counter(), 2);
    }

    #[test]
    fn frames_count_towards_a_rotation_until_it_has_begun() {
        let mut alice = Epochs::new(SUITE);
        alice.start(seconds(0), secrets(1, 0));
        for context in [1, 2, 2] {
            alice
                .seal_frame(context, Codec::Opus, b"x", &mut Vec::new())
                .unwrap();
        }
        assert_eq!(alice.most_frames(), 2);
        alice.start(seconds(1), secrets(2, 0));
        assert_eq!(alice.most_frames(), 0, "new keys are there");
        alice.on_all_ready(2);
        assert_eq!(alice.most_frames(), 0, "and have sealed nothing");
    }

    #[test]
    fn more_epochs_than_fit_push_out_the_oldest() {
        let (mut alice, mut bob) = (Epochs::new(SUITE), Epochs::new(SUITE));
        alice.start(seconds(0), secrets(0, 0));
        for epoch in 0..=MAX_BASE_KEYS as u64 {
            bob.start(seconds(0), secrets(epoch, 1));
        }
        assert!(matches!(
            send(&mut alice, &mut bob),
            Err(OpenError::UnknownKid(_))
        ));
        assert_eq!(bob.held.len(), MAX_BASE_KEYS);
    }
}
