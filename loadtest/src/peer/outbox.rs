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

/// Bytes of a run at most: what one UDP send takes.
const MAX_RUN: usize = 65_000;

/// Datagrams that can leave by one segmented send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where they go.
    pub route: Route,
    /// One behind the other.
    pub bytes: &'a [u8],
    /// Bytes of each but the last.
    pub segment: usize,
    /// How many.
    pub count: usize,
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

    /// What is in it as runs of at most `max` datagrams: equal routes, equal sizes, of which the
    /// last may be smaller, as segmentation offload wants them.
    pub fn runs(&self, max: usize) -> impl Iterator<Item = Run<'_>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (route, first) = self.datagrams.get(next)?;
            let (segment, mut end, mut count) = (first.len(), first.end, 1);
            for (other, range) in self.datagrams.get(next + 1..)?.iter().take(max.max(1) - 1) {
                let long = range.end - first.start > MAX_RUN;
                // A segment of no bytes would not be sent.
                if other != route || range.len() > segment || range.is_empty() || long {
                    break;
                }
                (end, count) = (range.end, count + 1);
                if range.len() < segment {
                    break;
                }
            }
            next += count;
            Some(Run {
                route: *route,
                bytes: self.bytes.get(first.start..end)?,
                segment,
                count,
            })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Proto;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_the_datagrams_in_order(
            datagrams in prop::collection::vec((0u16..3, 0usize..4), 0..60),
            max in 1usize..70,
        ) {
            let mut out = Outbox::new();
            for (n, (port, size)) in datagrams.iter().enumerate() {
                let remote = ([127, 0, 0, 1], 1_000 + port).into();
                let route = Route { proto: Proto::Udp, local: ([127, 0, 0, 1], 1).into(), remote };
                out.push(route, &vec![n as u8; size * 9_000]);
            }
            let mut cut = vec![];
            for run in out.runs(max) {
                prop_assert!(run.count <= max && run.bytes.len() <= MAX_RUN.max(run.segment));
                let pieces: Vec<&[u8]> = if run.segment == 0 {
                    vec![&[]]
                } else {
                    run.bytes.chunks(run.segment).collect()
                };
                prop_assert_eq!(pieces.len(), run.count);
                cut.extend(pieces.into_iter().map(|bytes| Datagram { route: run.route, bytes }));
            }
            prop_assert_eq!(cut, out.iter().collect::<Vec<_>>());
        }
    }
}
