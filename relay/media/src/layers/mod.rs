//! Which layers of a stream one subscription gets: temporal layers of VP8 and VP9 and spatial ones
//! of VP9 by their payload descriptors, everything else by the dependency descriptor.
//!
//! All of this is read outside the seal. Going down takes effect at once; going up waits for a
//! frame from which the higher layers can be decoded.
//!
//! Invariants: all packets of a frame share one fate, however late they come; a frame is never
//! forwarded if one that it depends on was left out.

mod dependency;
mod descriptor;

use dependency::DependencySelector;
pub(crate) use dependency::{DecodeTargets, DescribedFrame};
use descriptor::DescriptorSelector;
pub(crate) use descriptor::LayerBits;

/// Spatial and temporal layers, each with those below it. Encodings of a simulcast, smallest first,
/// count as spatial layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Layers {
    /// Everything.
    pub(crate) const ALL: Layers = Layers {
        spatial: u8::MAX,
        temporal: u8::MAX,
    };

    /// What both contain.
    pub(crate) fn and(self, other: Layers) -> Layers {
        Layers {
            spatial: self.spatial.min(other.spatial),
            temporal: self.temporal.min(other.temporal),
        }
    }

    fn covers(self, other: Layers) -> bool {
        self.spatial >= other.spatial && self.temporal >= other.temporal
    }
}

/// What a packet says about the layers of its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrameLayers {
    /// Nothing: the frame is part of everything.
    Unknown,
    /// A VP8 or VP9 payload descriptor with layer indices.
    Bits(LayerBits),
    /// A dependency descriptor.
    Described(DescribedFrame),
    /// A dependency descriptor of a structure that is not known (any more).
    Unreadable,
}

impl FrameLayers {
    /// Spatial and temporal layer, where they are told; else the lowest.
    #[inline]
    pub(crate) fn ids(&self) -> (u8, u8) {
        match self {
            FrameLayers::Bits(bits) => (bits.spatial, bits.temporal),
            FrameLayers::Described(described) => {
                (described.frame.spatial_id, described.frame.temporal_id)
            }
            FrameLayers::Unknown | FrameLayers::Unreadable => (0, 0),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Forward it. `ends_picture` if it is the last packet of its picture for this receiver.
    Forward { ends_picture: bool },
    /// Leave it out.
    Drop,
}

/// The layers of one subscription.
#[derive(Clone, Debug)]
pub(crate) struct LayerSelector {
    limit: Layers,
    by_bits: DescriptorSelector,
    by_dependency: DependencySelector,
    needs_keyframe: bool,
}

impl LayerSelector {
    /// A selector that lets everything through.
    pub(crate) fn new() -> Self {
        LayerSelector {
            limit: Layers::ALL,
            by_bits: DescriptorSelector::new(),
            by_dependency: DependencySelector::new(),
            needs_keyframe: false,
        }
    }

    /// The most that the subscription is to get. Down at once, up when the stream allows.
    pub(crate) fn set_limit(&mut self, limit: Layers) {
        self.limit = limit;
    }

    /// The most that the subscription is to get.
    pub(crate) fn limit(&self) -> Layers {
        self.limit
    }

    /// The next packet is the first of another source, and starts a key frame.
    pub(crate) fn attach(&mut self) {
        self.by_bits = DescriptorSelector::new();
        self.by_dependency = DependencySelector::new();
        self.needs_keyframe = false;
    }

    /// Whether a key frame is needed to get on, since this was last asked.
    pub(crate) fn take_keyframe_wish(&mut self) -> bool {
        std::mem::take(&mut self.needs_keyframe)
    }

    /// Decides on a packet. `timestamp` is its RTP timestamp, `targets` the decode targets of its
    /// stream, if a dependency descriptor told of them.
    pub(crate) fn select(
        &mut self,
        layers: &FrameLayers,
        timestamp: u32,
        targets: Option<&DecodeTargets>,
    ) -> Selection {
        match (layers, targets) {
            (FrameLayers::Unknown, _) => Selection::Forward {
                ends_picture: false,
            },
            (FrameLayers::Bits(bits), _) => {
                let (selection, wish) = self.by_bits.select(bits, timestamp, self.limit);
                self.needs_keyframe |= wish;
                selection
            }
            // Whoever gets everything may have what cannot be told apart.
            (FrameLayers::Unreadable, _) | (FrameLayers::Described(_), None)
                if self.limit == Layers::ALL =>
            {
                Selection::Forward {
                    ends_picture: false,
                }
            }
            (FrameLayers::Unreadable, _) | (FrameLayers::Described(_), None) => Selection::Drop,
            (FrameLayers::Described(frame), Some(targets)) => {
                let (selection, wish) = self.by_dependency.select(frame, targets, self.limit);
                self.needs_keyframe |= wish;
                selection
            }
        }
    }
}

/// The fates of the newest frames, so that late packets share them.
#[derive(Clone, Debug)]
struct Fates {
    /// Overwritten in turn.
    keys: [u32; Fates::LEN],
    /// By place: the frame was forwarded.
    forwarded: u32,
    /// Frames noted so far; it stays at [`Fates::LEN`] when the ring is full.
    len: usize,
    next: usize,
}

impl Fates {
    /// Frames remembered: what a packet may be late by, and how far back dependencies reach.
    const LEN: usize = u32::BITS as usize;

    const fn new() -> Self {
        Fates {
            keys: [0; Fates::LEN],
            forwarded: 0,
            len: 0,
            next: 0,
        }
    }

    fn get(&self, key: u32) -> Option<bool> {
        let known = self.keys.get(..self.len).unwrap_or_default();
        let place = known.iter().position(|k| *k == key)?;
        Some(self.forwarded >> place & 1 == 1)
    }

    fn set(&mut self, key: u32, forwarded: bool) {
        self.keys[self.next] = key;
        self.forwarded = self.forwarded & !(1 << self.next) | u32::from(forwarded) << self.next;
        self.next = (self.next + 1) % Fates::LEN;
        self.len = (self.len + 1).min(Fates::LEN);
    }
}
