//! A model encoder with spatial and temporal layers, as the modes of W3C webrtc-svc make them:
//! which frames a picture has, what each depends on, and the dependency descriptor that says so.
//!
//! It knows nothing of the relay. What a frame depends on and which decode targets it is part of
//! travels in its packets' tags, by which [`check`](crate::check) judges what the relay forwards.

use crate::packet::NO_FRAME;
use sealcast_rtp::dd::{
    DependencyDescriptor, Dti, FrameDependencies, MandatoryFields, TemplateStructure,
};

/// Spatial layers of the largest mode; temporal ones are as many.
pub const LAYERS: usize = 3;

/// Number of the first frame in dependency descriptors: not far from the wrap, which runs cross.
const FIRST_NUMBER: u16 = 65_300;

/// Pictures whose first packets tell which decode targets are active, after that has changed.
const TELLING: u32 = 3;

/// A scalability mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mode {
    /// Spatial layers, 1..=3.
    pub spatial: u8,
    /// Temporal layers, 1..=3.
    pub temporal: u8,
    /// Spatial layers depend on each other in key pictures alone (`_KEY`).
    pub parted: bool,
}

impl Mode {
    const fn new(spatial: u8, temporal: u8, parted: bool) -> Self {
        Mode {
            spatial,
            temporal,
            parted,
        }
    }

    /// One layer.
    pub const L1T1: Mode = Mode::new(1, 1, false);
    /// Two temporal layers.
    pub const L1T2: Mode = Mode::new(1, 2, false);
    /// Three temporal layers.
    pub const L1T3: Mode = Mode::new(1, 3, false);
    /// Two spatial layers with three temporal ones, which part after key pictures.
    pub const L2T3_KEY: Mode = Mode::new(2, 3, true);
    /// Three spatial layers, which build on each other in every picture.
    pub const L3T3: Mode = Mode::new(3, 3, false);
    /// Three spatial layers, which part after key pictures.
    pub const L3T3_KEY: Mode = Mode::new(3, 3, true);

    /// The temporal layer of the `n`-th picture since a key picture.
    fn temporal_of(self, n: u32) -> u8 {
        match self.temporal {
            1 => 0,
            2 => (n % 2) as u8,
            _ => [0, 2, 1, 2][(n % 4) as usize],
        }
    }

    /// Decode targets: one for each spatial and temporal layer.
    #[must_use]
    pub fn target_count(self) -> u8 {
        self.spatial * self.temporal
    }

    /// Decode targets of the spatial layers below `spatial`.
    fn targets_below(self, spatial: u8) -> u32 {
        (1 << (self.temporal * spatial)) - 1
    }
}

/// One layer of one picture.
#[derive(Clone, Debug)]
pub struct LayerFrame {
    /// Its number in the stream, in decoding order.
    pub frame: u32,
    /// Number of its picture.
    pub picture: u32,
    /// Base layer pictures so far, for TL0PICIDX.
    pub base_pictures: u32,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// Frames that it depends on, or [`NO_FRAME`].
    pub depends_on: [u32; 2],
    /// How many pictures back the frame of its own layer lies that it depends on, if one does.
    pub back: Option<u32>,
    /// It depends on the layer below.
    pub on_lower: bool,
    /// It belongs to a key picture.
    pub key: bool,
    /// It depends on the base layer alone.
    pub on_base: bool,
    /// The last layer of its picture.
    pub last: bool,
    /// Bit mask of the decode targets that it is part of.
    pub targets: u32,
    dependencies: FrameDependencies,
    /// The active decode targets that its first packet tells.
    told: Option<u32>,
}

/// The encoder.
#[derive(Debug)]
pub struct Layered {
    mode: Mode,
    frame: u32,
    picture: u32,
    base_pictures: u32,
    /// Pictures since the last key picture.
    since_key: u32,
    /// Frame and picture of the newest of each layer that can be referred to.
    newest: [[Option<(u32, u32)>; LAYERS]; LAYERS],
    /// Newest frame of each chain; one chain protects each spatial layer.
    chains: [u32; LAYERS],
    /// Spatial layers that are produced.
    active: u8,
    /// Pictures that have yet to tell which decode targets are active.
    telling: u32,
    structure: Option<TemplateStructure>,
}

impl Layered {
    /// An encoder that starts in this mode.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let mut encoder = Layered::bare(mode);
        encoder.structure = structure(mode, 0);
        encoder
    }

    fn bare(mode: Mode) -> Self {
        Layered {
            mode,
            frame: 0,
            picture: 0,
            base_pictures: 0,
            since_key: 0,
            newest: [[None; LAYERS]; LAYERS],
            chains: [0; LAYERS],
            active: mode.spatial,
            telling: 0,
            structure: None,
        }
    }

    /// The mode it is in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a key picture has come.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.newest[0][0].is_some()
    }

    /// Changes the mode. The next picture must be a key picture. As RFC-conforming senders do, it
    /// takes template ids that the structure before did not have.
    pub fn change(&mut self, mode: Mode) {
        let used = self.structure.as_ref().map_or(0, |old| {
            old.template_id_offset() as usize + old.templates().len()
        });
        self.mode = mode;
        self.active = mode.spatial;
        self.newest = [[None; LAYERS]; LAYERS];
        self.structure = structure(mode, (used % 64) as u8);
    }

    /// Produces this many spatial layers from the next picture on. Returns whether that has to be a
    /// key picture.
    pub fn activate(&mut self, layers: u8) -> bool {
        let layers = layers.clamp(1, self.mode.spatial);
        let more = layers > self.active;
        for gone in self.newest.iter_mut().skip(layers.into()) {
            *gone = [None; LAYERS];
        }
        if layers != self.active {
            (self.active, self.telling) = (layers, TELLING);
        }
        more && self.mode.parted
    }

    /// The layers of the next picture.
    pub fn picture(&mut self, key: bool) -> Vec<LayerFrame> {
        if key {
            self.since_key = 0;
            self.newest = [[None; LAYERS]; LAYERS];
        }
        let temporal = self.mode.temporal_of(self.since_key);
        self.base_pictures += u32::from(temporal == 0);
        let tell = key || self.telling > 0;
        self.telling = self.telling.saturating_sub(1);
        let mut frames: Vec<LayerFrame> = Vec::new();
        for spatial in 0..self.active {
            if let Some(frame) = self.layer(key, spatial, temporal, frames.last(), tell) {
                frames.push(frame);
            }
        }
        if let Some(last) = frames.last_mut() {
            last.last = true;
        }
        self.since_key += 1;
        self.picture += 1;
        frames
    }

    /// One layer of a picture; `None` if nothing is there that it could refer to.
    fn layer(
        &mut self,
        key: bool,
        spatial: u8,
        temporal: u8,
        lower: Option<&LayerFrame>,
        tell: bool,
    ) -> Option<LayerFrame> {
        let (s, t) = (usize::from(spatial), usize::from(temporal));
        // Every second frame of the third temporal layer follows one of the second.
        let refers_to = match t {
            2 if self.since_key % 4 == 3 => 1,
            _ => 0,
        };
        let own = self.newest[s][refers_to].filter(|_| !key);
        let on_lower = spatial > 0 && (key || !self.mode.parted);
        // A layer that comes back starts with a picture of the base layer, from the layer below.
        if own.is_none() && spatial > 0 && !(on_lower && t == 0) {
            return None;
        }
        let below = lower.filter(|_| on_lower).map(|lower| lower.frame);
        let frame = self.frame;
        self.frame += 1;
        let dependencies = self.dependencies(frame, key, (spatial, temporal), own, below);
        if t < 2 {
            self.newest[s][t] = Some((frame, self.picture));
        }
        let active = self.mode.targets_below(self.active);
        let all = self.mode.targets_below(self.mode.spatial);
        Some(LayerFrame {
            frame,
            picture: self.picture,
            base_pictures: self.base_pictures,
            spatial,
            temporal,
            depends_on: [
                below.unwrap_or(NO_FRAME),
                own.map_or(NO_FRAME, |(frame, _)| frame),
            ],
            back: own.map(|(_, picture)| self.picture - picture),
            on_lower: below.is_some(),
            key,
            on_base: refers_to == 0,
            last: false,
            targets: dependencies.dtis.present(),
            dependencies,
            told: Some(active).filter(|active| tell && !(key && *active == all)),
        })
    }

    fn dependencies(
        &mut self,
        frame: u32,
        key: bool,
        (spatial, temporal): (u8, u8),
        own: Option<(u32, u32)>,
        below: Option<u32>,
    ) -> FrameDependencies {
        let mode = self.mode;
        let parted = mode.parted && !key;
        let mut of = FrameDependencies {
            spatial_id: spatial,
            temporal_id: temporal,
            ..FrameDependencies::default()
        };
        for target in 0..mode.target_count() {
            let (s, t) = (target / mode.temporal, target % mode.temporal);
            let outside = spatial > s || parted && spatial != s || temporal > t;
            let dti = match () {
                () if outside => Dti::NotPresent,
                () if key => Dti::Switch,
                // Layers above depend on it, and on what came before of their own.
                () if spatial < s => Dti::Required,
                () if temporal > 0 && temporal == t => Dti::Discardable,
                () => Dti::Switch,
            };
            of.dtis.set(target.into(), dti);
        }
        for on in below.into_iter().chain(own.map(|(frame, _)| frame)) {
            let fits = of.frame_diffs.push((frame - on) as u16);
            debug_assert!(fits, "references lie close by");
        }
        for chain in 0..mode.spatial {
            let at = usize::from(chain);
            // A chain starts anew with a frame from which its layer can be decoded.
            let starts = key && spatial == 0 || chain == spatial && own.is_none() && !key;
            if !starts {
                of.chain_diffs[at] = (frame - self.chains[at]).min(255) as u8;
            }
            let part = chain == spatial || chain > spatial && !parted;
            if temporal == 0 && part {
                self.chains[at] = frame;
            }
        }
        of
    }

    /// The number of a frame in its descriptors.
    #[must_use]
    pub fn number(frame: u32) -> u16 {
        FIRST_NUMBER.wrapping_add(frame as u16)
    }

    /// The dependency descriptor of a packet of a frame.
    #[must_use]
    pub fn descriptor(&self, of: &LayerFrame, start: bool, end: bool) -> Vec<u8> {
        let Some(structure) = &self.structure else {
            return Vec::new();
        };
        let layer = |t: &FrameDependencies| (t.spatial_id, t.temporal_id);
        let mut ids = (structure.template_id_offset()..).zip(structure.templates());
        let same = ids.clone().find(|(_, t)| **t == of.dependencies);
        let template = same.or_else(|| ids.find(|(_, t)| layer(t) == layer(&of.dependencies)));
        let descriptor = DependencyDescriptor {
            mandatory: MandatoryFields {
                start_of_frame: start,
                end_of_frame: end,
                template_id: template.map_or(0, |(id, _)| id) % 64,
                frame_number: Layered::number(of.frame),
            },
            frame: of.dependencies,
            active_decode_targets: of.told.filter(|_| start),
            has_structure: start && of.key && of.spatial == 0,
        };
        let mut bytes = vec![0; 255];
        let len = descriptor.write(structure, &mut bytes);
        debug_assert!(len.is_ok(), "{of:?}: {len:?}");
        bytes.truncate(len.unwrap_or_default());
        bytes
    }
}

/// The structure of a mode: a template for each kind of frame that a steady stream has.
fn structure(mode: Mode, offset: u8) -> Option<TemplateStructure> {
    let mut encoder = Layered::bare(mode);
    let mut templates: Vec<FrameDependencies> = Vec::new();
    for picture in 0..9 {
        for frame in encoder.picture(picture == 0) {
            // From the second period on everything is as it stays.
            if picture > 4 && !templates.contains(&frame.dependencies) {
                templates.push(frame.dependencies);
            }
        }
    }
    templates.sort_by_key(|t| (t.spatial_id, t.temporal_id));
    let protected: Vec<u8> = (0..mode.target_count())
        .map(|t| t / mode.temporal)
        .collect();
    let sizes: Vec<(u16, u16)> = (0..mode.spatial).map(|s| (320 << s, 180 << s)).collect();
    let made = TemplateStructure::new(
        offset,
        mode.target_count(),
        mode.spatial,
        &protected,
        &templates,
        Some(&sizes),
    );
    debug_assert!(made.is_ok(), "{mode:?}: {made:?}");
    made.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of W3C webrtc-svc and of the AV1 RTP specification, appendix A.10.
    #[test]
    fn pictures_are_as_the_modes_say() {
        let mut encoder = Layered::new(Mode::L2T3_KEY);
        let key = encoder.picture(true);
        assert_eq!(key[1].depends_on, [key[0].frame, NO_FRAME]);
        assert_eq!((key[0].targets, key[1].targets), (0b111_111, 0b111_000));
        let next = encoder.picture(false);
        assert_eq!(next[1].depends_on, [NO_FRAME, key[1].frame]);
        assert_eq!((next[0].temporal, next[0].targets), (2, 0b000_100));
        let mut encoder = Layered::new(Mode::L3T3);
        let pictures: Vec<_> = (0..5).map(|n| encoder.picture(n == 0)).collect();
        let layers: Vec<_> = pictures.iter().map(|p| p[2].temporal).collect();
        assert_eq!(layers, [0, 2, 1, 2, 0]);
        assert_eq!(
            pictures[3][2].depends_on,
            [pictures[3][1].frame, pictures[2][2].frame]
        );
        assert_eq!(pictures[4][0].depends_on, [NO_FRAME, pictures[0][0].frame]);
        assert!(pictures.iter().all(|p| p[2].last && !p[0].last));
    }

    #[test]
    fn a_layer_that_comes_back_starts_from_the_one_below() {
        let mut encoder = Layered::new(Mode::L3T3);
        encoder.picture(true);
        assert!(!encoder.activate(1));
        assert_eq!(encoder.picture(false).len(), 1);
        assert!(!encoder.activate(3));
        assert_eq!(encoder.picture(false).len(), 1, "not a base layer picture");
        encoder.picture(false);
        let back = encoder.picture(false);
        assert_eq!((back.len(), back[1].back), (3, None));
        assert!(Layered::new(Mode::L3T3_KEY).activate(3) || encoder.active == 3);
    }
}
