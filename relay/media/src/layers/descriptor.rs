//! Layers by VP8 (RFC 7741) and VP9 (RFC 9628) payload descriptors.

use super::fates::Pictures;
use super::{Layers, Selection};
use sealcast_rtp::seq::newer32;

/// Layer indices of a packet's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerBits {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// VP8's Y: the frame depends on the base layer alone, so that one may go up to its layer.
    pub(crate) syncs_here: bool,
    /// VP9's U: later frames of higher temporal layers depend on nothing before this frame that
    /// is above its own layer, so that one may go up to any after it.
    pub(crate) syncs_above: bool,
    /// The frame refers to no earlier picture.
    pub(crate) intra: bool,
    /// The packet is the last of its layer frame.
    pub(crate) ends_frame: bool,
}

/// What was decided of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PictureFate {
    /// The highest spatial layer that is forwarded, if anything is.
    top: Option<u8>,
    /// The layers in force after it.
    after: Layers,
}

/// Chooses among layers that build on each other in order. It decides once for each picture, with
/// the first packet of it that comes.
#[derive(Clone, Debug)]
pub(super) struct DescriptorSelector {
    /// The layers in force, and the newest picture's timestamp.
    current: Option<(Layers, u32)>,
    pictures: Pictures<PictureFate>,
}

impl DescriptorSelector {
    pub(super) fn new() -> Self {
        DescriptorSelector {
            current: None,
            pictures: Pictures::new(PictureFate {
                top: None,
                after: Layers::ALL,
            }),
        }
    }

    /// Decides on a packet; also whether only a key frame leads up to the limit.
    pub(super) fn select(
        &mut self,
        bits: &LayerBits,
        timestamp: u32,
        limit: Layers,
    ) -> (Selection, bool) {
        if self.pictures.is_elsewhere(timestamp) {
            self.pictures.clear();
            self.current = self.current.map(|(layers, _)| (layers, timestamp));
        }
        let fate = match self.pictures.get(timestamp) {
            Some(fate) => fate,
            None => {
                let fate = self.decide(bits, timestamp, limit);
                self.pictures.set(timestamp, fate);
                fate
            }
        };
        let is_newest = self.current.is_some_and(|(_, newest)| newest == timestamp);
        // A spatial layer is joined at key frames alone: elsewhere the layers below it have been
        // sent as the end of their picture already.
        let above = fate.top.is_some_and(|top| bits.spatial > top);
        let wish = above && is_newest && bits.spatial <= limit.spatial;
        (selection(fate, bits), wish)
    }

    fn decide(&mut self, bits: &LayerBits, timestamp: u32, limit: Layers) -> PictureFate {
        let (current, newest) = self.current.get_or_insert((limit, timestamp));
        if newer32(*newest, timestamp) {
            // All of it comes late. What was in force at its time is what it may build on.
            let before = self.pictures.before(timestamp);
            let after = before.map_or(*current, |before| before.after);
            // What is older than all that is remembered may have been left out.
            let within = before.is_some() && bits.temporal <= after.temporal;
            let top = within.then_some(after.spatial);
            return PictureFate { top, after };
        }
        *newest = timestamp;
        if bits.intra && bits.spatial == 0 {
            // A key frame: everything can be decoded from here.
            *current = limit;
        }
        // Lower layers never depend on higher ones.
        *current = current.and(limit);
        let next = current.temporal.saturating_add(1);
        if bits.temporal == next && bits.temporal <= limit.temporal && bits.syncs_here {
            current.temporal = next;
        }
        let top = (bits.temporal <= current.temporal).then_some(current.spatial);
        if top.is_some() && bits.syncs_above {
            // Takes effect with the next picture of a higher layer.
            current.temporal = limit.temporal;
        }
        let after = *current;
        PictureFate { top, after }
    }
}

fn selection(fate: PictureFate, bits: &LayerBits) -> Selection {
    match fate.top {
        Some(top) if bits.spatial <= top => Selection::Forward {
            ends_picture: bits.ends_frame && bits.spatial == top,
        },
        _ => Selection::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORWARD: Selection = Selection::Forward {
        ends_picture: false,
    };

    fn vp8(temporal: u8, syncs_here: bool) -> LayerBits {
        LayerBits {
            spatial: 0,
            temporal,
            syncs_here,
            syncs_above: false,
            intra: false,
            ends_frame: false,
        }
    }

    fn limit(spatial: u8, temporal: u8) -> Layers {
        Layers { spatial, temporal }
    }

    #[test]
    fn temporal_layers_go_down_at_once_and_up_one_by_one_at_sync_frames() {
        let mut s = DescriptorSelector::new();
        let mut timestamp = 0;
        let mut play = |s: &mut DescriptorSelector, most, frames: &[(u8, bool)]| {
            let mut passed = Vec::new();
            for (temporal, sync) in frames {
                timestamp += 1;
                if s.select(&vp8(*temporal, *sync), timestamp, limit(0, most))
                    .0
                    != Selection::Drop
                {
                    passed.push(*temporal);
                }
            }
            passed
        };
        let gop = [(0, false), (2, false), (1, false), (2, false)];
        assert_eq!(play(&mut s, 9, &gop), [0, 2, 1, 2]);
        assert_eq!(play(&mut s, 1, &gop), [0, 1]);
        assert_eq!(play(&mut s, 0, &gop), [0]);
        assert_eq!(play(&mut s, 2, &gop), [0], "no way up without a sync frame");
        assert_eq!(
            play(
                &mut s,
                2,
                &[
                    (0, false),
                    (2, true),
                    (1, true),
                    (2, false),
                    (0, false),
                    (2, true),
                    (1, false)
                ]
            ),
            [0, 1, 0, 2, 1]
        );
    }

    #[test]
    fn a_late_packet_shares_the_fate_of_its_frame() {
        let mut s = DescriptorSelector::new();
        assert_eq!(s.select(&vp8(2, false), 10, limit(0, 2)).0, FORWARD);
        assert_eq!(s.select(&vp8(2, false), 20, limit(0, 0)).0, Selection::Drop);
        assert_eq!(s.select(&vp8(2, false), 10, limit(0, 0)).0, FORWARD);
        assert_eq!(s.select(&vp8(2, false), 20, limit(0, 2)).0, Selection::Drop);
    }

    #[test]
    fn vp9_spatial_layers_rise_at_key_frames() {
        let mut s = DescriptorSelector::new();
        let layer = |spatial, intra| LayerBits {
            spatial,
            intra,
            ends_frame: true,
            ..vp8(0, false)
        };
        let mut timestamp = 0;
        let mut picture = |s: &mut DescriptorSelector, most, intra: [bool; 3]| {
            timestamp += 1;
            let all = [0, 1, 2]
                .map(|n| s.select(&layer(n, intra[n as usize]), timestamp, limit(most, 0)));
            let ends: Vec<_> = all
                .iter()
                .filter_map(|(s, _)| match s {
                    Selection::Forward { ends_picture } => Some(*ends_picture),
                    Selection::Drop => None,
                })
                .collect();
            (ends, all.iter().any(|(_, wish)| *wish))
        };
        assert_eq!(
            picture(&mut s, 2, [true; 3]),
            (vec![false, false, true], false)
        );
        assert_eq!(
            picture(&mut s, 0, [false; 3]),
            (vec![true], false),
            "down at once"
        );
        assert_eq!(
            picture(&mut s, 2, [false; 3]),
            (vec![true], true),
            "up needs a key frame"
        );
        assert_eq!(
            picture(&mut s, 2, [true, false, false]),
            (vec![false, false, true], false)
        );
    }

    #[test]
    fn vp9_rises_in_time_after_a_switching_point() {
        let mut s = DescriptorSelector::new();
        let frame = |temporal, syncs_above| LayerBits {
            syncs_above,
            ..vp8(temporal, false)
        };
        let mut pass = |timestamp, temporal, above, most| {
            s.select(&frame(temporal, above), timestamp, limit(0, most))
                .0
                == FORWARD
        };
        assert!(pass(1, 0, false, 0));
        assert!(!pass(2, 2, false, 2));
        assert!(pass(3, 0, true, 2));
        assert!(pass(4, 2, false, 2));
    }

    /// What each frame of the usual three-layer pattern depends on: (layer, sync, frames back).
    const L1T3: [(u8, bool, &[u64]); 8] = [
        (0, false, &[8]),
        (2, true, &[1]),
        (1, true, &[2]),
        (2, false, &[1, 3]),
        (0, false, &[4]),
        (2, false, &[1, 2]),
        (1, false, &[2, 4]),
        (2, false, &[1, 3]),
    ];

    proptest! {
        #[test]
        fn nothing_is_forwarded_without_what_it_depends_on(limits in prop::collection::vec((0u8..3, 1usize..12), 1..20)) {
            let mut s = DescriptorSelector::new();
            let mut forwarded = vec![];
            for most in limits.iter().flat_map(|(most, n)| std::iter::repeat_n(*most, *n)) {
                let n = forwarded.len() as u64;
                let (temporal, sync, back) = L1T3[n as usize % 8];
                let key = n == 0;
                let bits = LayerBits { intra: key, ..vp8(temporal, sync) };
                let pass = s.select(&bits, n as u32, limit(0, most)).0 == FORWARD;
                if pass && !key {
                    prop_assert!(temporal <= most, "over the limit");
                    for back in back {
                        prop_assert!(n.checked_sub(*back).is_none_or(|d| forwarded[d as usize]), "frame {} lacks {}", n, back);
                    }
                }
                prop_assert!(pass || temporal > 0, "the base layer always passes");
                forwarded.push(pass);
            }
        }
    }
}
