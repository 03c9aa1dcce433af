//! Layers by the dependency descriptor (RTP Payload Format For AV1, appendix A).

use super::fates::{Fate, FrameWindow, Pictures};
use super::{Layers, Selection, UnreadableFrame};
use sealcast_rtp::dd::{Dti, FrameDependencies, MAX_DECODE_TARGETS, TemplateStructure};

/// A packet's frame, as its dependency descriptor tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescribedFrame {
    /// Frame number, unwrapped.
    pub(crate) number: u64,
    pub(crate) frame: FrameDependencies,
    /// Counts changes of the structure: the one that it was read by.
    pub(crate) structure: u32,
    /// What its sender says to be active, if it does.
    pub(crate) active: Option<u32>,
    /// The packet opens a structure: the first frame of a coded video sequence.
    pub(crate) has_structure: bool,
    /// The packet is the last of its frame.
    pub(crate) ends_frame: bool,
}

/// Decode targets that a receiver is to be told are active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveTargets {
    /// Decode targets of the structure.
    pub(crate) count: u8,
    /// Those that the receiver can decode.
    pub(crate) mask: u32,
}

/// The decode targets of one stream: what of its structure subscriptions choose by.
#[derive(Clone, Debug)]
pub(crate) struct DecodeTargets {
    layers: [Layers; MAX_DECODE_TARGETS],
    /// By decode target: those that lie within it, so that whoever gets it gets them too.
    within: [u32; MAX_DECODE_TARGETS],
    count: u8,
    /// Those that the sender produces.
    active: u32,
    /// Counts changes of the structure.
    structure: u32,
    /// Counts changes.
    version: u32,
}

impl DecodeTargets {
    pub(crate) fn new(
        structure: &TemplateStructure,
        active: u32,
        number: u32,
        version: u32,
    ) -> Self {
        let mut layers = [Layers {
            spatial: 0,
            temporal: 0,
        }; MAX_DECODE_TARGETS];
        let mut within = [0; MAX_DECODE_TARGETS];
        for (target, (layer, within)) in layers.iter_mut().zip(&mut within).enumerate() {
            if let Some((spatial, temporal)) = structure.decode_target_layer(target) {
                *layer = Layers { spatial, temporal };
            }
            let outside = structure.templates().iter().map(|template| template.dtis);
            let outside = outside.filter(|dtis| dtis.get(target) == Dti::NotPresent);
            *within = structure.all_decode_targets()
                & !outside.fold(0, |mask, dtis| mask | dtis.present());
        }
        DecodeTargets {
            layers,
            within,
            count: structure.decode_target_count(),
            active,
            structure: number,
            version,
        }
    }

    /// The highest active decode target within a limit, or the lowest one if none is.
    fn choose(&self, limit: Layers) -> usize {
        let all = 0..usize::from(self.count);
        let active = || all.clone().filter(|target| self.active >> target & 1 == 1);
        let rank = |target: &usize| (self.layers[*target].spatial, self.layers[*target].temporal);
        let within = active()
            .filter(|target| limit.covers(self.layers[*target]))
            .max_by_key(rank);
        within.or_else(|| active().min_by_key(rank)).unwrap_or(0)
    }

    fn layers(&self, target: usize) -> Layers {
        self.layers.get(target).copied().unwrap_or(Layers {
            spatial: 0,
            temporal: 0,
        })
    }
}

/// What was decided of a picture.
#[derive(Clone, Copy, Debug)]
struct PictureFate {
    /// The decode target that is followed in it; `None`: all of it is forwarded.
    target: Option<u8>,
    /// The highest spatial layer of that.
    top: u8,
    /// Something of it was forwarded.
    sent: bool,
}

/// A decode target that is followed, and its highest spatial layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followed {
    target: usize,
    top: u8,
}

/// Follows one decode target at a time. Within a picture it does not turn to another once something
/// of it was forwarded: what ended the picture would not be its end.
#[derive(Clone, Debug)]
pub(super) struct DependencySelector {
    /// The decode target in force, once a structure was seen.
    current: Option<Followed>,
    /// The structure that it is of.
    structure: u32,
    /// What `target` was chosen from.
    chosen: Option<(u32, Layers)>,
    target: usize,
    fates: FrameWindow,
    pictures: Pictures<PictureFate>,
    /// Decode targets of which a frame was left out since they could last be joined: their chains
    /// are broken for this receiver.
    lacking: u32,
    /// Something was left out before the present structure.
    lacked: bool,
    telling: Telling,
}

/// What a receiver knows of active decode targets.
///
/// AV1 RTP specification, appendix A.4: "Whenever the set of active Decode targets changes, the
/// sender MUST signal the new set of active Decode targets to the receiver." Where it is not what
/// the publisher said, each packet tells it, so that no loss keeps it from the receiver, until a
/// structure says it again.
#[derive(Clone, Copy, Debug, Default)]
struct Telling {
    /// What the receiver takes to be active.
    known: u32,
    /// What each packet tells.
    explicit: Option<ActiveTargets>,
    /// The frame from which that holds.
    from: u64,
    /// The newest frame that told anything.
    told: u64,
}

impl Telling {
    /// Whether a frame that comes late tells the receiver what no later one has told otherwise.
    fn is_news(&self, described: &DescribedFrame) -> bool {
        described.active.is_some() && self.explicit.is_none() && described.number >= self.told
    }
}

impl DependencySelector {
    pub(super) fn new() -> Self {
        DependencySelector {
            current: None,
            structure: 0,
            chosen: None,
            target: 0,
            fates: FrameWindow::new(),
            pictures: Pictures::new(PictureFate {
                target: None,
                top: 0,
                sent: false,
            }),
            lacking: 0,
            lacked: false,
            telling: Telling::default(),
        }
    }

    /// Decides on a packet; also whether a key frame is needed to follow the target.
    pub(super) fn select(
        &mut self,
        described: &DescribedFrame,
        timestamp: u32,
        targets: &DecodeTargets,
        limit: Layers,
    ) -> (Selection, bool) {
        if self.chosen != Some((targets.version, limit)) {
            self.chosen = Some((targets.version, limit));
            self.target = targets.choose(limit);
        }
        if self.pictures.is_elsewhere(timestamp) {
            self.pictures.clear();
        }
        let mut wish = false;
        let fate = match self.fates.get(described.number) {
            Some(fate) => fate,
            None if self.pictures.has_passed(timestamp) => {
                // It is not known any more what of its picture was forwarded, and where that ended.
                let fate = Fate {
                    forwarded: false,
                    closes: false,
                };
                self.fates.set(described.number, fate);
                fate
            }
            None => {
                let fate;
                (fate, wish) = self.decide(described, timestamp, targets);
                self.fates.set(described.number, fate);
                fate
            }
        };
        let selection = match fate.forwarded {
            true => Selection::Forward {
                ends_picture: described.ends_frame && fate.closes,
            },
            false => Selection::Drop,
        };
        (selection, wish)
    }

    /// As [`select`](DependencySelector::select), of a frame whose dependencies are not known.
    ///
    /// One that follows a structure which is still missing belongs to a sequence of which nothing
    /// has been left out: it is forwarded, so that the sequence is whole when the structure comes.
    pub(super) fn select_unreadable(
        &mut self,
        frame: UnreadableFrame,
        timestamp: u32,
        limit: Layers,
    ) -> Selection {
        let known = frame.number.and_then(|number| self.fates.get(number));
        let forwarded = match known {
            Some(fate) => fate.forwarded,
            None if self.pictures.has_passed(timestamp) => false,
            // Among others that are.
            None if self.is_among_unread(timestamp) => true,
            None if frame.is_past => !self.lacked,
            None => frame.number.is_some() || limit == Layers::ALL,
        };
        if let (None, Some(number)) = (known, frame.number) {
            let closes = false;
            self.fates.set(number, Fate { forwarded, closes });
        }
        if forwarded && self.pictures.get(timestamp).is_none() {
            let fate = PictureFate {
                target: None,
                top: u8::MAX,
                sent: true,
            };
            self.pictures.set(timestamp, fate);
        }
        match forwarded {
            true => Selection::Forward {
                ends_picture: frame.ends_frame && known.is_some_and(|fate| fate.closes),
            },
            false => Selection::Drop,
        }
    }

    /// Whether the pictures before and after this one were forwarded unread: it is of their sequence.
    fn is_among_unread(&self, timestamp: u32) -> bool {
        let around = [
            self.pictures.before(timestamp),
            self.pictures.after(timestamp),
        ];
        around
            .iter()
            .all(|picture| picture.is_some_and(|picture| picture.target.is_none()))
    }

    /// What to tell with a packet of this frame. Frames from before the last change say nothing: "it
    /// is valid until the next update in RTP packet sequence number order" (A.4). Neither do those of
    /// another structure, whose decode targets are others.
    pub(super) fn active_targets(&self, described: &DescribedFrame) -> Option<ActiveTargets> {
        let applies =
            described.structure == self.structure && described.number >= self.telling.from;
        self.telling.explicit.filter(|_| applies)
    }

    fn decide(
        &mut self,
        described: &DescribedFrame,
        timestamp: u32,
        targets: &DecodeTargets,
    ) -> (Fate, bool) {
        let frame = &described.frame;
        // A structure that came in the same batch says nothing of the frames before it.
        let is_present = described.structure == targets.structure;
        let in_order = self
            .fates
            .newest()
            .is_none_or(|newest| described.number > newest);
        if is_present && self.structure != described.structure {
            (self.structure, self.current) = (described.structure, None);
            (self.lacked, self.lacking) = (self.lacked || self.lacking != 0, 0);
            // Of its decode targets the receiver knows what this frame says.
            (self.telling.known, self.telling.explicit) = (0, None);
        }
        if described.has_structure && in_order {
            // A key frame: whatever was left out is not referred to any more.
            self.lacking = 0;
        }
        let decodable = self.is_decodable(described);
        let picture = self.follow(described, timestamp, targets, decodable);
        let indication = match picture.target {
            Some(target) => frame.dtis.get(target.into()),
            None => Dti::Required,
        };
        let forwarded = indication != Dti::NotPresent && decodable;
        let closes = forwarded && picture.top == frame.spatial_id;
        if forwarded {
            let sent = true;
            self.pictures
                .set(timestamp, PictureFate { sent, ..picture });
        }
        let current = self.current.map_or(self.target, |current| current.target);
        if is_present {
            // What comes late mends what is followed. Of other targets, something that came before it
            // may have been left out.
            let within = targets.within.get(current).copied().unwrap_or(0);
            let mends = if in_order { !0 } else { within };
            self.note_chains(frame, forwarded, mends);
        }
        if forwarded && is_present && (in_order || self.telling.is_news(described)) {
            self.note_active(described, current, targets);
        }
        // Either what we follow is broken, or what we want cannot be reached from here.
        let broken = !decodable && matches!(indication, Dti::Switch | Dti::Required);
        // Ways up in time come by themselves; to another spatial layer there may be none.
        let parted = targets.layers(current).spatial != targets.layers(self.target).spatial;
        let stuck = is_present && parted && frame.dtis.get(self.target) != Dti::NotPresent;
        (Fate { forwarded, closes }, broken || stuck)
    }

    /// Whether nothing that the frame depends on was left out.
    fn is_decodable(&self, described: &DescribedFrame) -> bool {
        let references = described.frame.frame_diffs.as_slice().iter();
        let mut references = references.map(|diff| described.number.saturating_sub((*diff).into()));
        references.all(|reference| match self.fates.get(reference) {
            Some(fate) => fate.forwarded,
            // What was lost may still come; what is forgotten may have been left out.
            None => !self.fates.has_passed(reference) || self.lacking == 0,
        })
    }

    /// What is decided of this frame's picture. The selector turns to its target if this frame,
    /// which may be `decodable`, is one to do so with.
    fn follow(
        &mut self,
        described: &DescribedFrame,
        timestamp: u32,
        targets: &DecodeTargets,
        decodable: bool,
    ) -> PictureFate {
        let is_present = described.structure == targets.structure;
        let wanted = Some(Followed {
            target: self.target,
            top: targets.layers(self.target).spatial,
        });
        let known = self.pictures.get(timestamp);
        if let Some(known) = known.filter(|known| known.sent) {
            if is_present {
                self.current = self.current.or(wanted);
            }
            return known;
        }
        let current = match self.current {
            None if is_present => wanted,
            Some(_) if is_present && decodable && self.may_switch(described) => wanted,
            Some(current) if self.structure == described.structure => Some(current),
            // Nothing was chosen of the frame's structure.
            None | Some(_) => None,
        };
        let picture = PictureFate {
            target: current.map(|current| current.target as u8),
            top: current.map_or(u8::MAX, |current| current.top),
            sent: false,
        };
        if let Some(after) = self.pictures.after(timestamp) {
            let around = match after.target {
                // What follows was forwarded before its structure came, and may depend on all of
                // this.
                None if is_present => Some(after),
                // All of the picture comes late: it goes the way of those around it.
                _ => known
                    .or_else(|| self.pictures.before(timestamp))
                    .filter(|around| around.target.is_some()),
            };
            let late = PictureFate {
                sent: false,
                ..around.unwrap_or(picture)
            };
            self.pictures.set(timestamp, late);
            return late;
        }
        self.current = current.or(self.current);
        self.pictures.set(timestamp, picture);
        picture
    }

    /// Whether the target can be decoded from this frame, which is decodable, on.
    fn may_switch(&self, described: &DescribedFrame) -> bool {
        if self
            .current
            .is_some_and(|current| current.target == self.target)
        {
            return false;
        }
        let intact = self.lacking >> self.target & 1 == 0;
        match described.frame.dtis.get(self.target) {
            Dti::NotPresent => false,
            // AV1 RTP specification, appendix A.7: "An SFM MAY begin forwarding packets belonging to
            // a new Decode target beginning with a decodable frame containing a Switch indication to
            // that Decode target." Of a key picture that came out of order, a part that is needed
            // may have been left out already.
            Dti::Switch => intact || !described.has_structure,
            // "When Chains are used, an SFM MAY switch to a Decode target at any point if the Chain
            // tracking that Decode target is intact." It is if nothing of the target was left out.
            Dti::Discardable | Dti::Required => intact,
        }
    }

    /// Notes for which decode targets this receiver lacks a frame. A switch indication makes up for
    /// that with those in `mends`.
    fn note_chains(&mut self, frame: &FrameDependencies, forwarded: bool, mends: u32) {
        for target in 0..MAX_DECODE_TARGETS {
            match frame.dtis.get(target) {
                Dti::NotPresent => {}
                Dti::Switch if forwarded => self.lacking &= !(1 << target & mends),
                _ if !forwarded => self.lacking |= 1 << target,
                _ => {}
            }
        }
    }

    /// Notes what the receiver can decode from this frame on, and whether it must be told.
    fn note_active(&mut self, described: &DescribedFrame, current: usize, targets: &DecodeTargets) {
        let within = targets.within.get(current).copied().unwrap_or(0);
        let mask = targets.active & within & !self.lacking;
        let telling = &mut self.telling;
        telling.known = match telling.explicit {
            Some(told) if !described.has_structure => told.mask,
            _ => described.active.unwrap_or(telling.known),
        };
        if described.active.is_some() || telling.explicit.is_some() {
            telling.told = described.number;
        }
        let quiet = telling.explicit.is_none() || described.has_structure;
        let told = ActiveTargets {
            count: targets.count,
            mask,
        };
        let explicit = (!quiet || telling.known != mask).then_some(told);
        if explicit != telling.explicit {
            (telling.explicit, telling.from) = (explicit, described.number);
        }
    }
}

#[cfg(test)]
mod tests;
