//! What a client seals and opens frames with: the key of a join link, or those of the epochs of its
//! room's group (PROTOCOL.md §7.2, §11.6). Who makes epochs is somebody else's business.

use sealcast_mls::client::MIN_CONTEXT;
use sealcast_model::Time;
use sealcast_netsim::Rng;
use sealcast_sframe::{BaseKeyScope, CipherSuite, KeyError, KeyStore, Kid, MAX_BASE_KEYS, Sealer};

/// How a client's frames are sealed.
#[derive(Clone)]
pub struct SealConfig {
    /// The suite.
    pub suite: CipherSuite,
    /// Where keys come from.
    pub keys: SealKeys,
}

/// Where keys come from.
#[derive(Clone)]
pub enum SealKeys {
    /// A join link: everybody's base key.
    Link(Vec<u8>),
    /// The room's group. Nothing is sealed or opened before [`crate::peer::Peer::add_epoch`].
    Group,
}

/// The keys of one epoch of a group.
#[derive(Clone)]
pub struct EpochKeys {
    /// The epoch.
    pub epoch: u64,
    /// The client's leaf.
    pub leaf: u16,
    /// One more than the highest leaf.
    pub leaves: u32,
    /// SFrame base key (RFC 9605 §5.2).
    pub base_key: Vec<u8>,
}

struct Epoch {
    keys: EpochKeys,
    /// When its frames open no longer; `NEVER` while it is the newest.
    retires: Time,
}

impl Epoch {
    fn scope(&self) -> BaseKeyScope {
        BaseKeyScope::Epoch {
            epoch: self.keys.epoch as u8,
            leaves: self.keys.leaves,
        }
    }
}

/// All keys of one client.
pub(super) struct Keys {
    config: SealConfig,
    pub(super) opener: KeyStore,
    /// Ascending; at most [`MAX_BASE_KEYS`]. Empty in link mode.
    epochs: Vec<Epoch>,
    contexts: u16,
}

impl Keys {
    pub(super) fn new(config: &SealConfig) -> Result<Keys, KeyError> {
        let mut opener = KeyStore::new(config.suite);
        if let SealKeys::Link(base_key) = &config.keys {
            opener.insert_base_key(BaseKeyScope::Any, base_key)?;
        }
        Ok(Keys {
            config: config.clone(),
            opener,
            epochs: vec![],
            contexts: 0,
        })
    }

    /// The key id of one more encoder. Its context stays, whatever the epoch.
    pub(super) fn new_kid(&mut self, rng: &mut Rng) -> Kid {
        match self.config.keys {
            SealKeys::Link(_) => Kid::from_random(rng.next_u64()),
            SealKeys::Group => {
                self.contexts += 1;
                Kid::from_parts(MIN_CONTEXT + self.contexts, 0, 0)
            }
        }
    }

    /// They are those of a group, which change.
    pub(super) fn of_group(&self) -> bool {
        matches!(self.config.keys, SealKeys::Group)
    }

    /// A sealer for the encoder with this key id, if there is a key yet. Never two for one key id
    /// and key, as they would use the same nonces: in link mode that is once, in a group once for
    /// each epoch.
    pub(super) fn sealer(&self, kid: Kid, epoch: Option<u64>) -> Result<Option<Sealer>, KeyError> {
        match &self.config.keys {
            SealKeys::Link(base_key) => Sealer::new(self.config.suite, kid, base_key).map(Some),
            SealKeys::Group => {
                let held = self.epochs.iter().find(|e| Some(e.keys.epoch) == epoch);
                let Some(Epoch { keys, .. }) = held else {
                    return Ok(None);
                };
                // Contexts of a group have 16 bits.
                let context = kid.context() as u16;
                let kid = Kid::from_parts(context, keys.leaf, keys.epoch);
                Sealer::new(self.config.suite, kid, &keys.base_key).map(Some)
            }
        }
    }

    /// Opens frames of this epoch from now on, and of those before it for `keep` more.
    pub(super) fn add_epoch(&mut self, keys: EpochKeys, retires: Time) -> Result<(), KeyError> {
        if self.epochs.len() == MAX_BASE_KEYS {
            let oldest = self.epochs.remove(0);
            self.opener.remove_base_key(oldest.scope());
        }
        for epoch in &mut self.epochs {
            epoch.retires = epoch.retires.min(retires);
        }
        let epoch = Epoch {
            keys,
            retires: Time::NEVER,
        };
        self.opener
            .insert_base_key(epoch.scope(), &epoch.keys.base_key)?;
        self.epochs.push(epoch);
        Ok(())
    }

    /// Forgets epochs whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        while let Some(oldest) = self.epochs.first().filter(|e| e.retires <= now) {
            self.opener.remove_base_key(oldest.scope());
            self.epochs.remove(0);
        }
    }

    /// Forgets every epoch.
    pub(super) fn clear_epochs(&mut self) {
        for epoch in self.epochs.drain(..) {
            self.opener.remove_base_key(epoch.scope());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: u64) -> EpochKeys {
        EpochKeys {
            epoch,
            leaf: 1,
            leaves: 3,
            base_key: vec![epoch as u8; 32],
        }
    }

    fn opens(keys: &mut Keys, sealer: &mut Sealer) -> bool {
        let mut sealed = vec![];
        sealer.seal_to_vec(&[], b"a frame", &mut sealed).unwrap();
        keys.opener.open(&[], &mut sealed).is_ok()
    }

    #[test]
    fn epochs_open_until_they_retire_and_contexts_stay() {
        let config = SealConfig {
            suite: CipherSuite::Aes256GcmSha512,
            keys: SealKeys::Group,
        };
        let mut keys = Keys::new(&config).unwrap();
        let mut rng = Rng::new(1);
        let (a, b) = (keys.new_kid(&mut rng), keys.new_kid(&mut rng));
        assert_ne!(a.context(), b.context());
        assert!(keys.sealer(a, Some(1)).unwrap().is_none());
        keys.add_epoch(epoch(1), Time::from_millis(1)).unwrap();
        let mut first = keys.sealer(a, Some(1)).unwrap().unwrap();
        keys.add_epoch(epoch(2), Time::from_millis(500)).unwrap();
        let mut second = keys.sealer(a, Some(2)).unwrap().unwrap();
        assert_eq!(first.kid().context(), second.kid().context());
        keys.handle_timeout(Time::from_millis(499));
        assert!(opens(&mut keys, &mut first) && opens(&mut keys, &mut second));
        keys.handle_timeout(Time::from_millis(500));
        assert!(!opens(&mut keys, &mut first) && opens(&mut keys, &mut second));
        keys.clear_epochs();
        assert!(!opens(&mut keys, &mut second));
    }

    #[test]
    fn there_is_room_for_however_many_epochs() {
        let config = SealConfig {
            suite: CipherSuite::Aes256GcmSha512,
            keys: SealKeys::Group,
        };
        let mut keys = Keys::new(&config).unwrap();
        for n in 0..200 {
            keys.add_epoch(epoch(n), Time::NEVER).unwrap();
            assert!(keys.epochs.len() <= MAX_BASE_KEYS);
        }
    }
}
