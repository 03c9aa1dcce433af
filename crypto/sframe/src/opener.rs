//! A receiver's keys. Each has a replay window; there are only so many of them.

use crate::key::check_base_key;
use crate::{CipherSuite, FrameKey, Header, KeyError, Kid, OpenError, ReplayWindow};
use std::collections::BTreeMap;
use std::ops::Range;
use zeroize::Zeroizing;

/// Keys that a store holds. 100 participants with audio, three camera encodings and three of a
/// screen share, during a change of epoch, use 1,400.
pub const MAX_KEYS: usize = 2048;

/// Of these, keys that were inserted explicitly; the rest is left to derived ones.
pub const MAX_EXPLICIT_KEYS: usize = 1024;

/// Base keys that a store holds: the current epoch's and those that are kept a while longer. At most
/// five epochs a second, each kept 10 s, make 50.
pub const MAX_BASE_KEYS: usize = 64;

/// Which KIDs a base key serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseKeyScope {
    /// Every KID: the key of a join link.
    Any,
    /// The KIDs of one MLS epoch whose leaf index is below `leaves`.
    Epoch {
        /// Low 8 bits of the epoch.
        epoch: u8,
        /// Leaves of the ratchet tree in that epoch.
        leaves: u32,
    },
}

impl BaseKeyScope {
    fn covers(self, kid: Kid) -> bool {
        match self {
            Self::Any => kid.0 >> Kid::LINK_BITS == 0,
            Self::Epoch { epoch, leaves } => kid
                .parts()
                .is_some_and(|(_, leaf, low)| low == epoch && u32::from(leaf) < leaves),
        }
    }
}

/// A frame that was opened in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Key id of the frame.
    pub kid: Kid,
    /// Counter of the frame.
    pub counter: u64,
    /// Where the plaintext lies within the buffer.
    pub plaintext: Range<usize>,
}

/// Keys by KID, explicit or derived on first sight from a base key.
///
/// A key that is derived on first sight is kept only after a frame authenticated under it, so that
/// forged KIDs cost a derivation each but no memory. When the store is full such a key takes the
/// place of the derived one that was longest out of use, together with its replay window: frames
/// of a stream that has been silent while [`MAX_KEYS`] others spoke could then be replayed. Keys
/// that were inserted explicitly stay until removed.
pub struct KeyStore {
    suite: CipherSuite,
    keys: BTreeMap<Kid, Entry>,
    base_keys: Vec<BaseKey>,
    /// Frames opened, as a clock for [`Entry::last_used`].
    opened: u64,
    /// The current frame's AAD. Kept to spare an allocation per frame.
    aad: Vec<u8>,
}

struct Entry {
    key: FrameKey,
    window: ReplayWindow,
    /// Derived on first sight, under this scope; `None` if inserted explicitly.
    scope: Option<BaseKeyScope>,
    last_used: u64,
}

struct BaseKey {
    scope: BaseKeyScope,
    secret: Zeroizing<Vec<u8>>,
}

impl KeyStore {
    /// An empty store for keys of `suite`.
    pub fn new(suite: CipherSuite) -> Self {
        Self {
            suite,
            keys: BTreeMap::new(),
            base_keys: Vec::new(),
            opened: 0,
            aad: Vec::new(),
        }
    }

    /// Adds the key of one KID.
    ///
    /// # Errors
    /// [`KeyError::Duplicate`] if the KID has one; [`KeyError::StoreFull`] at
    /// [`MAX_EXPLICIT_KEYS`]; as [`FrameKey::derive`].
    pub fn insert(&mut self, kid: Kid, base_key: &[u8]) -> Result<(), KeyError> {
        if self.keys.contains_key(&kid) {
            return Err(KeyError::Duplicate(kid));
        }
        let explicit = self.keys.values().filter(|entry| entry.scope.is_none());
        if explicit.count() >= MAX_EXPLICIT_KEYS {
            return Err(KeyError::StoreFull);
        }
        let entry = Entry {
            key: FrameKey::derive(self.suite, kid, base_key)?,
            window: ReplayWindow::default(),
            scope: None,
            last_used: self.opened,
        };
        self.keep(kid, entry);
        Ok(())
    }

    /// Removes the key of one KID; `false` if there was none. A base key that covers the KID will
    /// derive it again.
    pub fn remove(&mut self, kid: Kid) -> bool {
        self.keys.remove(&kid).is_some()
    }

    /// Adds a base key from which keys are derived on first sight. Where scopes overlap, the one
    /// added last is tried. A base key of the same scope is replaced and its derived keys go.
    ///
    /// # Errors
    /// [`KeyError::BaseKeyLength`] out of range; [`KeyError::StoreFull`] at [`MAX_BASE_KEYS`].
    pub fn insert_base_key(
        &mut self,
        scope: BaseKeyScope,
        base_key: &[u8],
    ) -> Result<(), KeyError> {
        check_base_key(base_key)?;
        self.remove_base_key(scope);
        if self.base_keys.len() >= MAX_BASE_KEYS {
            return Err(KeyError::StoreFull);
        }
        self.base_keys.push(BaseKey {
            scope,
            secret: Zeroizing::new(base_key.to_vec()),
        });
        Ok(())
    }

    /// Removes a base key and every key derived from it; `false` if there was none.
    pub fn remove_base_key(&mut self, scope: BaseKeyScope) -> bool {
        let before = self.base_keys.len();
        self.base_keys.retain(|base| base.scope != scope);
        self.keys.retain(|_, entry| entry.scope != Some(scope));
        self.base_keys.len() < before
    }

    /// KIDs that have a key.
    pub fn kids(&self) -> impl Iterator<Item = Kid> {
        self.keys.keys().copied()
    }

    /// Opens an SFrame ciphertext (header, ciphertext, tag) in place. `metadata` is what was
    /// authenticated with it.
    ///
    /// # Errors
    /// [`OpenError`]; neither keys nor windows change then.
    pub fn open(&mut self, metadata: &[u8], sframe: &mut [u8]) -> Result<Opened, OpenError> {
        let (header, header_len) = Header::parse(sframe)?;
        let Header { kid, counter } = header;
        let (front, rest) = sframe.split_at_mut(header_len);
        let data_len = rest
            .len()
            .checked_sub(self.suite.tag_len())
            .ok_or(OpenError::Short)?;
        let (data, tag) = rest.split_at_mut(data_len);

        self.aad.clear();
        self.aad.extend_from_slice(front);
        self.aad.extend_from_slice(metadata);

        let opened = self.opened + 1;
        if let Some(entry) = self.keys.get_mut(&kid) {
            if !entry.window.is_fresh(counter) {
                return Err(OpenError::Replayed { kid, counter });
            }
            entry
                .key
                .open(counter, &self.aad, data, tag)
                .map_err(|_| OpenError::Auth(kid))?;
            entry.window.record(counter);
            entry.last_used = opened;
        } else {
            let (scope, key) = self.derive(kid).ok_or(OpenError::UnknownKid(kid))?;
            key.open(counter, &self.aad, data, tag)
                .map_err(|_| OpenError::Auth(kid))?;
            let mut window = ReplayWindow::default();
            window.record(counter);
            self.keep(
                kid,
                Entry {
                    key,
                    window,
                    scope: Some(scope),
                    last_used: opened,
                },
            );
        }
        self.opened = opened;
        Ok(Opened {
            kid,
            counter,
            plaintext: header_len..header_len + data_len,
        })
    }

    /// The key that the newest covering base key gives to `kid`.
    fn derive(&self, kid: Kid) -> Option<(BaseKeyScope, FrameKey)> {
        let base = self
            .base_keys
            .iter()
            .rev()
            .find(|base| base.scope.covers(kid))?;
        let key = FrameKey::derive(self.suite, kid, &base.secret).ok()?;
        Some((base.scope, key))
    }

    /// Stores a key, in place of the derived one longest out of use if the store is full. There is
    /// one then, as [`MAX_EXPLICIT_KEYS`] is below [`MAX_KEYS`].
    fn keep(&mut self, kid: Kid, entry: Entry) {
        if self.keys.len() >= MAX_KEYS {
            let derived = self.keys.iter().filter(|(_, entry)| entry.scope.is_some());
            if let Some((&oldest, _)) = derived.min_by_key(|(_, entry)| entry.last_used) {
                self.keys.remove(&oldest);
            }
        }
        self.keys.insert(kid, entry);
    }
}
