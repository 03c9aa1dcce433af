//! Which session a datagram belongs to (RFC 7983, RFC 8445 §7.3).
//!
//! A 5-tuple leads to a session only after a STUN request from it authenticated; the session says
//! so. Until then a datagram is routed by the user fragment that its STUN request names, and
//! everything else from there is dropped unanswered.
//!
//! Keys that a stranger chooses are hashed with the standard library's keyed hash, so they cannot
//! be made to collide.

use crate::limits::PATHS_PER_SESSION;
use sealcast_session::Path;
use std::collections::HashMap;

/// Routes to sessions, by 5-tuple and by local ICE user fragment.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    paths: HashMap<Path, u32>,
    ufrags: HashMap<Box<str>, u32>,
    /// The route used last: packets come in trains.
    last: Option<(Path, u32)>,
}

impl Demux {
    /// The session of a 5-tuple.
    pub(crate) fn by_path(&mut self, path: &Path) -> Option<u32> {
        if let Some((last, key)) = &self.last
            && last == path
        {
            return Some(*key);
        }
        let key = *self.paths.get(path)?;
        self.last = Some((*path, key));
        Some(key)
    }

    /// The session of a local user fragment.
    pub(crate) fn by_ufrag(&self, ufrag: &str) -> Option<u32> {
        self.ufrags.get(ufrag).copied()
    }

    /// Names a session by its user fragment. False if another has it.
    pub(crate) fn add_ufrag(&mut self, ufrag: &str, key: u32) -> bool {
        if self.ufrags.contains_key(ufrag) {
            return false;
        }
        self.ufrags.insert(ufrag.into(), key);
        true
    }

    /// Forgets a user fragment.
    pub(crate) fn remove_ufrag(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// Routes a 5-tuple to a session; `owned` lists the session's 5-tuples. One session takes a
    /// 5-tuple over from another; one that shows too many loses its oldest.
    pub(crate) fn add_path(&mut self, path: Path, key: u32, owned: &mut Vec<Path>) {
        self.last = None;
        self.paths.insert(path, key);
        owned.retain(|p| *p != path);
        if owned.len() >= PATHS_PER_SESSION {
            let oldest = owned.remove(0);
            self.unroute(&oldest, key);
        }
        owned.reserve_exact(1);
        owned.push(path);
    }

    /// Stops routing a 5-tuple to a session, if it is still routed there.
    pub(crate) fn remove_path(&mut self, path: &Path, key: u32, owned: &mut Vec<Path>) {
        owned.retain(|p| p != path);
        self.unroute(path, key);
    }

    /// Stops routing all of a session's 5-tuples to it.
    pub(crate) fn remove_paths(&mut self, key: u32, owned: &mut Vec<Path>) {
        for path in owned.drain(..) {
            self.unroute(&path, key);
        }
    }

    fn unroute(&mut self, path: &Path, key: u32) {
        self.last = None;
        if self.paths.get(path) == Some(&key) {
            self.paths.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_session::Transport;
    use std::net::{Ipv4Addr, SocketAddr};

    fn path(port: u16) -> Path {
        Path {
            transport: Transport::Udp,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }
    }

    #[test]
    fn a_session_that_takes_a_path_over_keeps_it() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut demux = Demux::default();
        demux.add_path(path(5), 0, &mut first);
        assert_eq!(demux.by_path(&path(5)), Some(0));
        demux.add_path(path(5), 1, &mut second);
        assert_eq!(demux.by_path(&path(5)), Some(1));
        demux.remove_paths(0, &mut first);
        assert_eq!(
            demux.by_path(&path(5)),
            Some(1),
            "it is not the first one's"
        );
        demux.remove_path(&path(5), 1, &mut second);
        assert_eq!(demux.by_path(&path(5)), None);
    }

    #[test]
    fn paths_of_a_session_are_bounded() {
        let mut owned = Vec::new();
        let mut demux = Demux::default();
        for port in 0..1_000 {
            demux.add_path(path(port), 3, &mut owned);
        }
        assert_eq!(demux.paths.len(), PATHS_PER_SESSION);
        assert_eq!(demux.by_path(&path(999)), Some(3));
        assert_eq!(demux.by_path(&path(0)), None);
    }

    #[test]
    fn a_user_fragment_has_one_session() {
        let mut demux = Demux::default();
        assert!(demux.add_ufrag("abcd", 1));
        assert!(!demux.add_ufrag("abcd", 2));
        assert_eq!(demux.by_ufrag("abcd"), Some(1));
        demux.remove_ufrag("abcd");
        assert_eq!(demux.by_ufrag("abcd"), None);
    }

    proptest! {
        /// Against a map without the cache of the last route.
        #[test]
        fn the_cache_never_shows(ops in proptest::collection::vec((0u8..3, 0u16..4, 0u32..3), 0..200)) {
            let mut demux = Demux::default();
            let mut owned = [Vec::new(), Vec::new(), Vec::new()];
            let mut shadow = HashMap::new();
            for (op, port, key) in ops {
                match op {
                    0 => {
                        demux.add_path(path(port), key, &mut owned[key as usize]);
                        shadow.insert(port, key);
                    }
                    1 => {
                        demux.remove_path(&path(port), key, &mut owned[key as usize]);
                        if shadow.get(&port) == Some(&key) {
                            shadow.remove(&port);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(demux.by_path(&path(port)), shadow.get(&port).copied());
            }
        }
    }
}
