//! Packets that have arrived since the last flush, by stream.
//!
//! One arena holds them all, so that its size settles with the greatest burst of the shard and
//! not of each stream. A stream keeps the ends of its own row in it.

use crate::frame::{Descriptor, PictureNumbers};
use crate::header::Elements;
use crate::layers::FrameLayers;
use sealcast_model::{PacketBuf, PacketPool, Time};
use std::ops::Range;

const NONE: u32 = u32::MAX;

/// A packet that is to be forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// Bytes of the packet in its slot.
    pub(crate) len: u16,
    /// Where the payload lies in the slot, padding excluded.
    pub(crate) payload: Range<u16>,
    /// Bytes in front of the codec's own payload, which `payload` leaves out.
    pub(crate) framing: u8,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// Index of its codec in the publisher's m-line.
    pub(crate) codec: u8,
    /// The first packet of a key frame.
    pub(crate) key: bool,
    /// The kernel received it.
    pub(crate) received: Time,
    /// The shard had read it.
    pub(crate) read: Time,
    pub(crate) elements: Elements,
    pub(crate) layers: FrameLayers,
    pub(crate) descriptor: Descriptor,
    /// The numbers of the descriptor.
    pub(crate) numbers: Option<PictureNumbers>,
    /// Frame number of the dependency descriptor.
    pub(crate) frame_number: Option<u16>,
}

/// An entry of a stream's row.
#[derive(Debug)]
pub(crate) struct Entry {
    next: u32,
    /// The life of its stream that it belongs to.
    epoch: u32,
    /// Extended sequence number.
    pub(crate) sequence: u64,
    /// `None` for a packet that is not forwarded and leaves no gap.
    pub(crate) packet: Option<(PacketBuf, Incoming)>,
}

/// The ends of one stream's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    head: u32,
    tail: u32,
}

impl Row {
    pub(crate) const EMPTY: Row = Row {
        head: NONE,
        tail: NONE,
    };

    pub(crate) fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// The arena.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    entries: Vec<Entry>,
}

impl Inbox {
    /// Appends to a row. `epoch` is the life of the stream that the packet belongs to.
    pub(crate) fn push(
        &mut self,
        row: &mut Row,
        epoch: u32,
        sequence: u64,
        packet: Option<(PacketBuf, Incoming)>,
    ) {
        let index = self.entries.len() as u32;
        self.entries.push(Entry {
            next: NONE,
            epoch,
            sequence,
            packet,
        });
        match self.entries.get_mut(row.tail as usize) {
            Some(tail) if !row.is_empty() => tail.next = index,
            _ => row.head = index,
        }
        row.tail = index;
    }

    /// Entries of all rows.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A row's entries of one life of its stream, in order of arrival. Numbers of different lives
    /// must not meet in a rewriter.
    pub(crate) fn iter(&self, row: Row, epoch: u32) -> impl Iterator<Item = &Entry> {
        let next = |entry: &&Entry| self.entries.get(entry.next as usize);
        std::iter::successors(self.entries.get(row.head as usize), next)
            .filter(move |entry| entry.epoch == epoch)
    }

    /// Takes the packets of one life out of a row, in order of arrival.
    pub(crate) fn take(
        &mut self,
        row: Row,
        epoch: u32,
        mut taken: impl FnMut(u64, PacketBuf, Incoming),
    ) {
        let mut at = row.head;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.epoch == epoch
                && let Some((buf, packet)) = entry.packet.take()
            {
                taken(entry.sequence, buf, packet);
            }
            at = entry.next;
        }
    }

    /// Frees the buffers of a row, which falls empty.
    pub(crate) fn discard(&mut self, row: &mut Row, pool: &mut PacketPool) {
        let mut at = row.head;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if let Some((buf, _)) = entry.packet.take() {
                pool.release(buf);
            }
            at = entry.next;
        }
        *row = Row::EMPTY;
    }

    /// Frees everything. Rows must have been taken before.
    pub(crate) fn clear(&mut self, pool: &mut PacketPool) {
        for (buf, _) in self.entries.drain(..).filter_map(|entry| entry.packet) {
            pool.release(buf);
        }
    }
}
