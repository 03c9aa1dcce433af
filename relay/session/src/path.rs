//! Where a session's packets come from and go to.
//!
//! ICE-lite answers checks and makes none, so all that there is to ICE is this table. An address
//! gets into it by a STUN request that authenticated, or by SRTP that authenticated; it becomes the
//! current path by USE-CANDIDATE or by SRTP; it leaves when its consent lapses.
//!
//! Invariants: at most [`limits::PATHS`] entries, each 5-tuple once; `current` names an entry.

use crate::limits;
use sealcast_model::limits::CONSENT_TIMEOUT;
use sealcast_model::{Time, TransportKind};
use std::net::SocketAddr;

/// What carries a path's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// An ICE-TCP connection (RFC 6544); the number is the I/O layer's handle and must not be
    /// used again while the session lives.
    Tcp(u64),
}

impl Transport {
    /// UDP or TCP.
    #[must_use]
    pub const fn kind(self) -> TransportKind {
        match self {
            Transport::Udp => TransportKind::Udp,
            Transport::Tcp(_) => TransportKind::Tcp,
        }
    }
}

/// A transport 5-tuple, seen from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// UDP, or which TCP connection.
    pub transport: Transport,
    /// The relay's own address: destination of received packets, source of sent ones.
    pub local: SocketAddr,
    /// The client's address.
    pub remote: SocketAddr,
}

/// What a packet changed in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The packet's path is new.
    pub(crate) added: bool,
    /// This path made room for it.
    pub(crate) removed: Option<Path>,
    /// The current path is another one than before.
    pub(crate) moved: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    path: Path,
    /// Last authenticated STUN request, or what stands in for it.
    consent: Time,
    /// Last time the client chose this path.
    chosen: Option<Time>,
}

impl Entry {
    /// RFC 7675 §5.1: consent expires 30 s after the last valid check.
    fn expires(&self) -> Time {
        self.consent + CONSENT_TIMEOUT
    }
}

/// The paths of one session.
#[derive(Debug, Default)]
pub(crate) struct PathTable {
    entries: Vec<Entry>,
    current: Option<Path>,
    /// When `current` last changed.
    moved_at: Time,
}

impl PathTable {
    /// Where egress goes.
    pub(crate) fn current(&self) -> Option<&Path> {
        self.current.as_ref()
    }

    /// Every path of the table.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|e| &e.path)
    }

    /// Packets other than STUN may be taken from this path.
    pub(crate) fn is_validated(&self, path: &Path) -> bool {
        self.current.as_ref() == Some(path) || self.entries.iter().any(|e| e.path == *path)
    }

    /// An authenticated STUN request came in on `path`.
    pub(crate) fn on_stun(&mut self, now: Time, path: Path, use_candidate: bool) -> Change {
        let mut change = self.admit(path, now);
        if use_candidate {
            change.moved = self.choose(now, path);
        }
        change
    }

    /// SRTP that authenticated came in on a path other than the current one.
    pub(crate) fn on_srtp(&mut self, now: Time, path: Path) -> Change {
        // Packets from before the client nominated anything choose nothing either.
        let Some(current) = self.current else {
            return Change::default();
        };
        if current == path || now.saturating_since(self.moved_at) < limits::ROAM_HOLD {
            return Change::default();
        }
        // SRTP proves who sent it, but only STUN gives consent: the new path lives on what is
        // left of the old one's.
        let consent = self
            .entries
            .iter()
            .find(|e| e.path == current)
            .map_or(now, |e| e.consent);
        let mut change = self.admit(path, consent);
        change.moved = self.choose(now, path);
        change
    }

    /// Forgets a path, and moves to another that the client chose before, if there is one.
    pub(crate) fn remove(&mut self, now: Time, path: &Path) -> Change {
        let before = self.entries.len();
        self.entries.retain(|e| e.path != *path);
        let gone = self.entries.len() < before;
        Change {
            added: false,
            removed: gone.then_some(*path),
            moved: self.fail_over(now),
        }
    }

    /// Forgets one path whose consent has lapsed. Call until it returns `None`.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Change> {
        let path = self.entries.iter().find(|e| e.expires() <= now)?.path;
        Some(self.remove(now, &path))
    }

    /// When [`PathTable::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Time {
        self.entries
            .iter()
            .map(Entry::expires)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Adds `path` or renews its consent.
    fn admit(&mut self, path: Path, consent: Time) -> Change {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.path == path) {
            entry.consent = entry.consent.max(consent);
            return Change::default();
        }
        let removed = (self.entries.len() >= limits::PATHS)
            .then(|| self.evict())
            .flatten();
        // A client keeps to one or two; an entry is 104 bytes.
        self.entries.reserve_exact(1);
        self.entries.push(Entry {
            path,
            consent,
            chosen: None,
        });
        Change {
            added: true,
            removed,
            moved: false,
        }
    }

    /// Removes the path that was silent longest, never the current one.
    fn evict(&mut self) -> Option<Path> {
        let (index, _) = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, e)| Some(e.path) != self.current)
            .min_by_key(|(_, e)| e.consent)?;
        Some(self.entries.swap_remove(index).path)
    }

    /// Makes an admitted path the current one.
    fn choose(&mut self, now: Time, path: Path) -> bool {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.path == path) {
            entry.chosen = Some(now);
        }
        self.set_current(now, Some(path))
    }

    /// If the current path is gone, takes the one the client chose last.
    fn fail_over(&mut self, now: Time) -> bool {
        if self
            .current
            .is_some_and(|c| self.entries.iter().any(|e| e.path == c))
        {
            return false;
        }
        let next = self
            .entries
            .iter()
            .filter(|e| e.chosen.is_some())
            .max_by_key(|e| (e.chosen, e.path))
            .map(|e| e.path);
        self.set_current(now, next)
    }

    fn set_current(&mut self, now: Time, path: Option<Path>) -> bool {
        if self.current == path {
            return false;
        }
        self.current = path;
        self.moved_at = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn path(n: u16) -> Path {
        Path {
            transport: if n.is_multiple_of(5) {
                Transport::Tcp(u64::from(n))
            } else {
                Transport::Udp
            },
            local: "192.0.2.1:5000".parse().unwrap(),
            remote: format!("198.51.100.1:{}", 1_000 + n).parse().unwrap(),
        }
    }

    fn secs(s: u64) -> Time {
        Time::from_millis(s * 1_000)
    }

    #[test]
    fn use_candidate_moves_at_once() {
        let mut table = PathTable::default();
        let first = table.on_stun(secs(0), path(1), false);
        assert_eq!((first.added, first.moved), (true, false));
        assert_eq!(table.current(), None, "validated is not nominated");
        assert!(table.is_validated(&path(1)));
        assert!(table.on_stun(secs(0), path(1), true).moved);
        assert!(table.on_stun(secs(0), path(2), true).moved);
        assert_eq!(table.current(), Some(&path(2)));
    }

    #[test]
    fn late_srtp_does_not_move_back() {
        let mut table = PathTable::default();
        table.on_stun(secs(0), path(1), true);
        table.on_stun(secs(9), path(2), true);
        assert_eq!(
            table.on_srtp(secs(9) + Duration::from_millis(499), path(1)),
            Change::default()
        );
        assert!(
            table
                .on_srtp(secs(9) + Duration::from_millis(500), path(1))
                .moved
        );
    }

    #[test]
    fn srtp_gives_no_consent() {
        let mut table = PathTable::default();
        table.on_stun(secs(0), path(1), true);
        assert!(table.on_srtp(secs(20), path(2)).added);
        assert_eq!(table.current(), Some(&path(2)));
        let mut gone = vec![];
        while let Some(c) = table.expire(secs(30)) {
            gone.extend(c.removed);
        }
        assert_eq!(gone.len(), 2, "both live on one consent");
        assert_eq!(table.current(), None);
    }

    #[test]
    fn srtp_before_nomination_chooses_nothing() {
        let mut table = PathTable::default();
        assert_eq!(table.on_srtp(secs(5), path(1)), Change::default());
        assert_eq!(table.current(), None);
    }

    #[test]
    fn a_lost_path_falls_back_to_one_chosen_before() {
        let mut table = PathTable::default();
        table.on_stun(secs(0), path(1), true);
        table.on_stun(secs(1), path(2), false);
        table.on_stun(secs(2), path(5), true);
        let lost = table.remove(secs(3), &path(5));
        assert_eq!((lost.removed, lost.moved), (Some(path(5)), true));
        assert_eq!(
            table.current(),
            Some(&path(1)),
            "path 2 was never nominated"
        );
    }

    /// What the table does, said as plainly as possible.
    #[derive(Default)]
    struct Shadow {
        consent: BTreeMap<Path, Time>,
    }

    proptest! {
        #[test]
        fn holds_its_invariants(
            steps in prop::collection::vec((0u16..40, 0u8..4, 0u64..9_000), 1..300)
        ) {
            let mut table = PathTable::default();
            let mut shadow = Shadow::default();
            let mut now = Time::ZERO;
            for (n, what, wait) in steps {
                now += Duration::from_millis(wait);
                while let Some(c) = table.expire(now) {
                    let gone = c.removed.expect("something expired");
                    prop_assert!(shadow.consent.remove(&gone).unwrap() + CONSENT_TIMEOUT <= now);
                }
                let p = path(n);
                let before = table.current().copied();
                let change = match what {
                    0 | 1 => {
                        let c = table.on_stun(now, p, what == 1);
                        shadow.consent.insert(p, now);
                        if what == 1 {
                            prop_assert_eq!(table.current(), Some(&p));
                        }
                        c
                    }
                    2 => {
                        let c = table.on_srtp(now, p);
                        if c.moved && let Some(before) = before {
                            let inherited = shadow.consent[&before];
                            let own = shadow.consent.entry(p).or_insert(inherited);
                            *own = (*own).max(inherited);
                        }
                        c
                    }
                    _ => {
                        let c = table.remove(now, &p);
                        prop_assert_eq!(c.removed.is_some(), shadow.consent.contains_key(&p));
                        c
                    }
                };
                if let Some(gone) = change.removed {
                    shadow.consent.remove(&gone);
                }
                prop_assert_eq!(change.moved, table.current().copied() != before);
                prop_assert!(table.entries.len() <= limits::PATHS);
                let held: BTreeMap<_, _> =
                    table.entries.iter().map(|e| (e.path, e.consent)).collect();
                prop_assert_eq!(&held, &shadow.consent);
                prop_assert!(table.current().is_none_or(|c| held.contains_key(c)));
                prop_assert!(table.next_expiry() > now);
            }
        }
    }
}
