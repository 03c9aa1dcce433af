//! Which layers of a stream one subscription gets: temporal layers of VP8 and VP9 and spatial ones
//! of VP9 by their payload descriptors, everything else by the dependency descriptor.
//!
//! All of this is read outside the seal. Going down takes effect at once; going up waits for a
//! frame from which the higher layers can be decoded.
//!
//! Invariants: all packets of a frame share one fate, however late they come; a frame is never
//! forwarded if one that it depends on was left out; a picture ends once, with the last packet that
//! its receiver gets of it.

mod dependency;
mod descriptor;
mod fates;

use dependency::DependencySelector;
pub(crate) use dependency::{ActiveTargets, DecodeTargets, DescribedFrame};
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
    /// A dependency descriptor of a structure that is not known yet, or not any more.
    Unreadable(UnreadableFrame),
}

/// A frame whose dependencies cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnreadableFrame {
    /// Frame number, unwrapped; `None` if not even that can be read.
    pub(crate) number: Option<u64>,
    /// It belongs to a structure before the present one.
    pub(crate) is_past: bool,
    /// The packet is the last of its frame.
    pub(crate) ends_frame: bool,
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
            FrameLayers::Unknown | FrameLayers::Unreadable(_) => (0, 0),
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

/// The layers of one subscription. Its beginning says whether the rest is in use.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct LayerSelector {
    limit: Layers,
    needs_keyframe: bool,
    by: Selector,
}

/// What the layers of the present source are told by.
#[derive(Clone, Debug)]
#[repr(u8)]
enum Selector {
    /// Nothing yet.
    Unknown,
    Bits(DescriptorSelector),
    Described(DependencySelector),
}

impl Selector {
    fn bits(&mut self) -> &mut DescriptorSelector {
        if !matches!(self, Selector::Bits(_)) {
            *self = Selector::Bits(DescriptorSelector::new());
        }
        match self {
            Selector::Bits(selector) => selector,
            _ => unreachable!("it has just been made one"),
        }
    }

    fn described(&mut self) -> &mut DependencySelector {
        if !matches!(self, Selector::Described(_)) {
            *self = Selector::Described(DependencySelector::new());
        }
        match self {
            Selector::Described(selector) => selector,
            _ => unreachable!("it has just been made one"),
        }
    }
}

impl LayerSelector {
    /// A selector that lets everything through.
    pub(crate) fn new() -> Self {
        LayerSelector {
            limit: Layers::ALL,
            needs_keyframe: false,
            by: Selector::Unknown,
        }
    }

    /// Whether it remembers what became of frames: the present source tells of layers.
    #[inline]
    pub(crate) fn has_state(&self) -> bool {
        !matches!(self.by, Selector::Unknown)
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
        self.by = Selector::Unknown;
        self.needs_keyframe = false;
    }

    /// Whether a key frame is needed to get on, since this was last asked.
    #[inline]
    pub(crate) fn take_keyframe_wish(&mut self) -> bool {
        std::mem::take(&mut self.needs_keyframe)
    }

    /// Decides on a packet. `timestamp` is its RTP timestamp, `targets` the decode targets of its
    /// stream, if a dependency descriptor told of them.
    #[inline]
    pub(crate) fn select(
        &mut self,
        layers: &FrameLayers,
        timestamp: u32,
        targets: Option<&DecodeTargets>,
    ) -> Selection {
        match layers {
            FrameLayers::Unknown => Selection::Forward {
                ends_picture: false,
            },
            layers => self.select_layer(layers, timestamp, targets),
        }
    }

    /// As [`select`](LayerSelector::select), of a packet that tells of its layer.
    fn select_layer(
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
                let (selection, wish) = self.by.bits().select(bits, timestamp, self.limit);
                self.needs_keyframe |= wish;
                selection
            }
            (FrameLayers::Unreadable(frame), _) => self
                .by
                .described()
                .select_unreadable(*frame, timestamp, self.limit),
            // The stream has just begun another life; its first key frame is joined anew.
            (FrameLayers::Described(_), None) => Selection::Drop,
            (FrameLayers::Described(frame), Some(targets)) => {
                let (selection, wish) = self
                    .by
                    .described()
                    .select(frame, timestamp, targets, self.limit);
                self.needs_keyframe |= wish;
                selection
            }
        }
    }

    /// What was decided of a packet that is asked for again. One that came late may have been left
    /// out although its place was not closed. What came before the start of the key frame with which
    /// the source was joined was not decided, and is so now.
    pub(crate) fn recall(
        &mut self,
        layers: &FrameLayers,
        timestamp: u32,
        targets: Option<&DecodeTargets>,
    ) -> Selection {
        match (&self.by, layers) {
            (Selector::Described(_), FrameLayers::Described(_) | FrameLayers::Unreadable(_))
            | (Selector::Bits(_), FrameLayers::Bits(_)) => self.select(layers, timestamp, targets),
            // Nothing is left out by what the packet does not tell.
            _ => Selection::Forward {
                ends_picture: false,
            },
        }
    }

    /// The decode targets that its receiver is to be told are active with a packet, if it does not
    /// know.
    #[inline]
    pub(crate) fn active_targets(&self, layers: &FrameLayers) -> Option<ActiveTargets> {
        match (&self.by, layers) {
            (Selector::Described(by), FrameLayers::Described(frame)) => by.active_targets(frame),
            _ => None,
        }
    }
}
