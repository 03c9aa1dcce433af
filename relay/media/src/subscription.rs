//! A subscription: one slot of a receiver, and what it shows.

use crate::cache::{self, LINE};
use crate::header::HeaderTemplate;
use crate::layers::{LayerSelector, Layers};
use crate::repair::RtxSender;
use crate::rewriter::Rewriter;
use sealcast_model::limits::CODECS_PER_MEDIA;
use sealcast_model::{Codec, CodecParams, MediaKind};
use std::mem::offset_of;

/// No payload type: the receiver did not negotiate the codec.
const UNMAPPED: u8 = 0xff;

/// The receiver's payload types by index of the codec in the publisher's m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadTypes {
    media: [u8; CODECS_PER_MEDIA],
    rtx: [u8; CODECS_PER_MEDIA],
    /// If it takes RED.
    pub(crate) red: Option<RedTypes>,
}

/// A receiver's payload types for RED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedTypes {
    /// Of the packet.
    pub(crate) packet: u8,
    /// Of the blocks in it.
    pub(crate) block: u8,
}

impl PayloadTypes {
    /// Matches codecs by name and profile. RED counts as the Opus that is in it: the relay can take
    /// that out.
    pub(crate) fn map(publisher: &[CodecParams], receiver: &[CodecParams]) -> Self {
        let find = |codec, profile| {
            receiver
                .iter()
                .find(|ours| ours.codec == codec && ours.profile == profile)
        };
        let opus = find(Codec::Opus, 0);
        let red = find(Codec::Red, 0);
        let mut map = PayloadTypes {
            media: [UNMAPPED; CODECS_PER_MEDIA],
            rtx: [UNMAPPED; CODECS_PER_MEDIA],
            red: red.zip(opus).map(|(red, opus)| RedTypes {
                packet: red.pt,
                block: opus.pt,
            }),
        };
        for ((media, rtx), theirs) in map.media.iter_mut().zip(&mut map.rtx).zip(publisher) {
            let ours = match theirs.codec {
                Codec::Red => opus,
                codec => find(codec, theirs.profile),
            };
            if let Some(ours) = ours {
                *media = ours.pt;
                *rtx = ours.rtx_pt.unwrap_or(UNMAPPED);
            }
        }
        map
    }

    /// Whether nothing can be forwarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.media.iter().all(|pt| *pt == UNMAPPED)
    }

    #[inline]
    pub(crate) fn get(&self, codec: u8) -> Option<u8> {
        self.media
            .get(usize::from(codec))
            .copied()
            .filter(|pt| *pt != UNMAPPED)
    }

    /// A payload type for retransmissions, of whichever codec.
    pub(crate) fn any_rtx(&self) -> Option<u8> {
        self.rtx.iter().copied().find(|pt| *pt != UNMAPPED)
    }

    /// The payload type of the codec's retransmissions.
    pub(crate) fn rtx(&self, codec: u8) -> Option<u8> {
        self.rtx
            .get(usize::from(codec))
            .copied()
            .filter(|pt| *pt != UNMAPPED)
    }
}

/// What a slot sends again, from the first time it is asked to.
#[derive(Debug)]
pub(crate) struct Retransmission {
    pub(crate) sender: RtxSender,
    pub(crate) template: HeaderTemplate,
}

/// Why a subscription is sent nothing although its track sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is sent.
    #[default]
    None,
    /// Its place on the screen is hidden.
    Hidden,
    /// It does not fit the path.
    Bandwidth,
    /// It is diagnostic, and does not fit the path whole.
    Diagnostic,
}

impl Pause {
    /// Whether the client is told.
    pub(crate) fn is_told(self) -> bool {
        matches!(self, Pause::Bandwidth | Pause::Diagnostic)
    }
}

/// The sending side of a slot. It lasts as long as the slot: its SSRC counts on whatever it shows.
///
/// What a packet reads and writes comes first, and cold state last: a packet to each of a thousand
/// receivers finds none of them in the nearest cache, and every line of them counts.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Subscription {
    /// The receiving peer.
    pub(crate) peer: u32,
    pub(crate) ssrc: u32,
    /// The encoding to forward: the rewriter turns to it as soon as it can be joined.
    pub(crate) target: Option<u32>,
    /// RTP packets sent, modulo 2^32.
    pub(crate) packets: u32,
    /// RTP payload octets sent, modulo 2^32.
    pub(crate) octets: u32,
    pub(crate) retransmission: Option<Box<Retransmission>>,
    /// The receiver's transport is up.
    pub(crate) live: bool,
    pub(crate) pause: Pause,
    pub(crate) kind: MediaKind,
    pub(crate) payload_types: PayloadTypes,
    pub(crate) template: HeaderTemplate,
    pub(crate) rewriter: Rewriter,
    pub(crate) layers: LayerSelector,
    /// Index among the peer's slots.
    pub(crate) slot: u16,
    /// The track that the slot shows.
    pub(crate) track: Option<u32>,
    /// The most it is to get whatever it shows.
    pub(crate) cap: Layers,
    /// What its subscriber's bandwidth allows.
    pub(crate) granted: Layers,
    /// How large it is shown: the side of a square of as many pixels; 0 if hidden.
    pub(crate) wanted: u16,
    /// `packets` at the last two reports, newest first.
    pub(crate) reported: [u32; 2],
    /// What the receiver reported last.
    pub(crate) remote: RemoteReception,
}

/// What a receiver says about a slot's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteReception {
    /// Lost share of the last interval, in 1/256.
    pub(crate) fraction_lost: u8,
    /// Interarrival jitter, timestamp units.
    pub(crate) jitter: u32,
}

impl Subscription {
    /// Shows nothing from here on.
    pub(crate) fn clear(&mut self) {
        self.track = None;
        self.target = None;
        self.pause = Pause::None;
        self.rewriter.detach();
    }

    /// The cache lines of a subscription at this address that every packet reads or writes. None of
    /// them is read here.
    #[inline]
    pub(crate) fn lines(at: *const u8) -> impl Iterator<Item = *const u8> {
        const ALWAYS: usize = offset_of!(Subscription, rewriter) + Rewriter::HOT_BYTES;
        let layers = at.wrapping_add(offset_of!(Subscription, layers));
        cache::lines(at, ALWAYS).chain([layers])
    }

    /// As [`lines`](Subscription::lines): those that say what became of the newest frames, where the
    /// stream tells of layers. Reads what `lines` names.
    #[inline]
    pub(crate) fn lines_of_layers(&self) -> impl Iterator<Item = *const u8> {
        let bytes = match self.layers.has_state() {
            // It may begin anywhere in its first line.
            true => size_of::<LayerSelector>() + LINE - 1,
            false => 0,
        };
        cache::lines(std::ptr::from_ref(&self.layers).cast(), bytes)
    }

    /// Whether packets of its track go to its receiver.
    #[inline]
    pub(crate) fn forwards(&self) -> bool {
        self.live && self.pause == Pause::None
    }

    /// Puts cap and grant in force.
    pub(crate) fn set_limit(&mut self) {
        self.layers.set_limit(self.cap.and(self.granted));
    }

    /// The stream whose key frame it waits for, if it is a video slot that waits for one.
    pub(crate) fn awaited(&self) -> Option<u32> {
        let current = self.rewriter.source().map(|life| life.stream);
        self.target.filter(|target| {
            self.forwards() && self.kind == MediaKind::Video && current != Some(*target)
        })
    }

    /// RFC 3550 §6.4: a participant is a sender if it sent since the report before the last.
    pub(crate) fn is_active_sender(&self) -> bool {
        self.packets != self.reported[1]
    }

    /// A sender report leaves.
    pub(crate) fn on_sender_report(&mut self) {
        self.reported = [self.packets, self.reported[0]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewriter::Rewriter;

    #[test]
    fn a_subscription_takes_less_than_two_kilobytes() {
        let size = size_of::<Subscription>() + Rewriter::HEAP_BYTES;
        assert!(size < 2_048, "{size}");
        assert!(
            Rewriter::HEAP_BYTES > size_of::<Rewriter>() / 8,
            "the heap part is counted"
        );
    }
}
