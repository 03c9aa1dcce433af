//! Datagrams on their way to the kernel.

use super::transport::Route;
use std::ops::Range;

/// A datagram in an [`Outbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Where it goes.
    pub route: Route,
    /// UDP payload, or RFC 4571 frame without its length.
    pub bytes: &'a [u8],
}

/// Datagrams of one or many peers, one behind the other, so that runs of equal size and route
/// can leave by one segmented send. Reused: clearing keeps the memory.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<(Route, Range<usize>)>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Outbox::default()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// What is in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.datagrams.iter().map(|(route, range)| Datagram {
            route: *route,
            bytes: &self.bytes[range.clone()],
        })
    }

    /// Appends a datagram of at most `room` bytes that `write` fills in; it returns the length,
    /// or `None` to append nothing.
    pub(super) fn push_with(
        &mut self,
        route: Route,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let len = write(&mut self.bytes[start..]);
        self.bytes.truncate(start + len.unwrap_or(0).min(room));
        if len.is_some() {
            self.datagrams.push((route, start..self.bytes.len()));
        }
        len.is_some()
    }

    pub(super) fn push(&mut self, route: Route, datagram: &[u8]) {
        self.push_with(route, datagram.len(), |out| {
            out.copy_from_slice(datagram);
            Some(datagram.len())
        });
    }
}
