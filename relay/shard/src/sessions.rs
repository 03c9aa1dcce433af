//! The sessions of a shard, by a dense index that is also their media peer key.

use crate::notices::Notices;
use sealcast_model::limits::{SEALED_BURST, SEALED_PER_SECOND};
use sealcast_model::{CloseReason, SessionId, Time, TokenBucket};
use sealcast_session::{Path, Session, SessionOutput};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A session with what the shard knows about it.
pub(crate) struct Entry {
    pub(crate) session: Session,
    pub(crate) id: SessionId,
    pub(crate) ufrag: Box<str>,
    /// 5-tuples that are routed to it.
    pub(crate) paths: Vec<Path>,
    pub(crate) notices: Notices,
    /// SSRCs of its slots, for the BYE.
    pub(crate) slot_ssrcs: Vec<u32>,
    /// It has had a path: the next one is a change.
    pub(crate) had_path: bool,
    /// Why it is being closed from this side.
    pub(crate) closing: Option<CloseReason>,
    /// What its client may still send on the data channel.
    pub(crate) data_in: DataMeter,
    /// Makes the next step panic: a bug, for tests of what becomes of it.
    #[cfg(test)]
    pub(crate) sabotaged: bool,
}

/// How much a client may say on its data channel.
#[derive(Debug)]
pub(crate) struct DataMeter {
    bucket: TokenBucket,
    /// The client has been told that it says too much, and has said nothing acceptable since.
    told: bool,
}

/// What becomes of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataVerdict {
    Pass,
    /// Over the limit. The client is to be told.
    Refuse,
    /// Over the limit, as the client knows.
    Ignore,
}

impl DataMeter {
    pub(crate) fn new(now: Time) -> Self {
        DataMeter {
            bucket: TokenBucket::new(SEALED_PER_SECOND, SEALED_BURST, now),
            told: false,
        }
    }

    /// A message came in.
    pub(crate) fn judge(&mut self, now: Time) -> DataVerdict {
        if self.bucket.take(now) {
            self.told = false;
            DataVerdict::Pass
        } else if std::mem::replace(&mut self.told, true) {
            DataVerdict::Ignore
        } else {
            DataVerdict::Refuse
        }
    }
}

/// The session panicked and must not be touched again.
#[derive(Debug)]
pub(crate) struct Panicked;

/// A slab of sessions. An index is given out again after its session is gone.
#[derive(Default)]
pub(crate) struct Sessions {
    entries: Vec<Option<Box<Entry>>>,
    free: Vec<u32>,
    /// Indices that peers without a session have.
    reserved: usize,
}

impl Sessions {
    /// Adds a session and returns its index.
    pub(crate) fn insert(&mut self, entry: Entry) -> u32 {
        let entry = Some(Box::new(entry));
        if let Some(key) = self.free.pop() {
            self.entries[key as usize] = entry;
            return key;
        }
        self.entries.push(entry);
        (self.entries.len() - 1) as u32
    }

    /// The index that the next session gets.
    pub(crate) fn next_key(&self) -> u32 {
        self.free
            .last()
            .copied()
            .unwrap_or(self.entries.len() as u32)
    }

    /// Takes an index for a peer that has no session.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.reserved += 1;
        self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        })
    }

    /// Gives back an index that [`reserve`](Sessions::reserve) gave.
    pub(crate) fn release(&mut self, key: u32) {
        self.reserved -= 1;
        self.free.push(key);
    }

    /// Takes a session out.
    pub(crate) fn remove(&mut self, key: u32) -> Option<Box<Entry>> {
        let entry = self.entries.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(entry)
    }

    pub(crate) fn get(&self, key: u32) -> Option<&Entry> {
        self.entries.get(key as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut Entry> {
        self.entries.get_mut(key as usize)?.as_deref_mut()
    }

    /// Sessions open.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len() - self.reserved
    }

    /// Indices of all sessions.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> {
        (0..self.entries.len() as u32).filter(|key| self.get(*key).is_some())
    }

    /// Runs one step of a session and takes its first output, keeping a panic inside. `None` if
    /// there is no such session.
    pub(crate) fn step<R>(
        &mut self,
        key: u32,
        f: impl FnOnce(&mut Session) -> R,
    ) -> Option<Result<(R, Option<SessionOutput>), Panicked>> {
        let entry = self.get_mut(key)?;
        // The session is dropped after a panic, so that nobody sees what it left half done.
        let result = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            assert!(!std::mem::take(&mut entry.sabotaged), "sabotaged by a test");
            let result = f(&mut entry.session);
            (result, entry.session.poll_output())
        }));
        Some(result.map_err(|_| Panicked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slab_has_nothing() {
        let mut sessions = Sessions::default();
        assert_eq!((sessions.len(), sessions.next_key()), (0, 0));
        assert!(sessions.get(0).is_none() && sessions.remove(7).is_none());
        assert!(sessions.step(3, |_| ()).is_none());
    }
}
