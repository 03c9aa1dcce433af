//! The template dependency structure: what a dependency descriptor's templates mean.

use crate::WriteError;

/// Most templates: ids have six bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets: `dt_cnt_minus_one` has five bits.
pub const MAX_DECODE_TARGETS: usize = 32;
/// Most chains: at most one for each decode target.
pub const MAX_CHAINS: usize = MAX_DECODE_TARGETS;
/// Most spatial layers (AV1 RTP specification, appendix A.8.3, shares AV1's limit of two bits).
pub const MAX_SPATIAL_LAYERS: usize = 4;
/// Most temporal layers: AV1 temporal ids have three bits.
pub const MAX_TEMPORAL_LAYERS: usize = 8;
/// Most frames that one frame refers to. AV1 has seven references and VP9 three; the wire would allow any number.
pub const MAX_FRAME_DIFFS: usize = 8;

/// What a frame is to a decode target: the decode target indication (appendix A.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dti {
    /// The frame is not part of the decode target.
    NotPresent = 0,
    /// Part of it, and nothing of the decode target depends on it.
    Discardable = 1,
    /// Part of it, and everything later can be decoded from here: one may switch to the decode target.
    Switch = 2,
    /// Part of it, and later frames of the decode target depend on it.
    Required = 3,
}

impl Dti {
    /// From the two bits on the wire.
    pub(super) const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::NotPresent,
            1 => Self::Discardable,
            2 => Self::Switch,
            _ => Self::Required,
        }
    }
}

/// The indications of one frame for up to 32 decode targets, two bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Dtis(u64);

impl Dtis {
    /// The indication for decode target `index`; [`Dti::NotPresent`] beyond 31.
    #[inline]
    #[must_use]
    pub const fn get(self, index: usize) -> Dti {
        if index >= MAX_DECODE_TARGETS {
            return Dti::NotPresent;
        }
        Dti::from_bits((self.0 >> (2 * index)) as u32)
    }

    /// Sets the indication for decode target `index`; nothing happens beyond 31.
    pub const fn set(&mut self, index: usize, dti: Dti) {
        if index < MAX_DECODE_TARGETS {
            self.0 = self.0 & !(3 << (2 * index)) | (dti as u64) << (2 * index);
        }
    }

    /// Bitmask of the decode targets that the frame is part of.
    #[must_use]
    pub fn present(self) -> u32 {
        (0..MAX_DECODE_TARGETS)
            .filter(|i| self.get(*i) != Dti::NotPresent)
            .fold(0, |mask, i| mask | 1 << i)
    }
}

impl FromIterator<Dti> for Dtis {
    fn from_iter<I: IntoIterator<Item = Dti>>(iter: I) -> Self {
        let mut dtis = Self::default();
        for (index, dti) in iter.into_iter().take(MAX_DECODE_TARGETS).enumerate() {
            dtis.set(index, dti);
        }
        dtis
    }
}

/// How many frames back the frames lie that a frame refers to: up to eight numbers, 1..=4,096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FrameDiffs {
    len: u8,
    values: [u16; MAX_FRAME_DIFFS],
}

impl FrameDiffs {
    /// The differences, in the order of the wire.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        self.values.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds a difference; `false` if eight are there, or it is not 1..=4,096.
    pub fn push(&mut self, diff: u16) -> bool {
        match self.values.get_mut(usize::from(self.len)) {
            Some(place) if (1..=4096).contains(&diff) => {
                *place = diff;
                self.len += 1;
                true
            }
            _ => false,
        }
    }
}

/// What a frame depends on: the content of a template, or of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameDependencies {
    /// Spatial layer, 0–3.
    pub spatial_id: u8,
    /// Temporal layer, 0–7.
    pub temporal_id: u8,
    /// What the frame is to each decode target.
    pub dtis: Dtis,
    /// The frames it refers to.
    pub frame_diffs: FrameDiffs,
    /// By chain: how many frames back the chain's previous frame lies. 0 if the frame starts the chain anew.
    pub chain_diffs: [u8; MAX_CHAINS],
}

/// A template dependency structure (appendix A.8.3), checked when it was read or made.
///
/// About 4 KiB: one is kept for each incoming stream, not for each subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateStructure {
    pub(super) template_id_offset: u8,
    pub(super) decode_target_count: u8,
    pub(super) chain_count: u8,
    pub(super) template_count: u8,
    pub(super) max_spatial_id: u8,
    pub(super) templates: [FrameDependencies; MAX_TEMPLATES],
    pub(super) protected_by: [u8; MAX_DECODE_TARGETS],
    pub(super) decode_target_layers: [(u8, u8); MAX_DECODE_TARGETS],
    pub(super) resolutions: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
}

impl TemplateStructure {
    /// A structure of these templates, which follow each other by the order of appendix A.8.3: same layer, next
    /// temporal layer, or first temporal layer of the next spatial layer.
    ///
    /// `protected_by` gives each decode target's chain and is empty without chains; `resolutions` has one entry
    /// (largest width and height, 1..=65,535) for each spatial layer.
    ///
    /// # Errors
    /// [`WriteError::Unrepresentable`] names the argument that breaks these rules.
    pub fn new(
        template_id_offset: u8,
        decode_target_count: u8,
        chain_count: u8,
        protected_by: &[u8],
        templates: &[FrameDependencies],
        resolutions: Option<&[(u16, u16)]>,
    ) -> Result<Self, WriteError> {
        let bad = |field| Err(WriteError::Unrepresentable(field));
        if template_id_offset > 63 {
            return bad("template id offset");
        }
        if decode_target_count == 0 || usize::from(decode_target_count) > MAX_DECODE_TARGETS {
            return bad("decode target count");
        }
        let protecting = if chain_count == 0 {
            0
        } else {
            usize::from(decode_target_count)
        };
        if chain_count > decode_target_count
            || protected_by.len() != protecting
            || protected_by.iter().any(|c| *c >= chain_count)
        {
            return bad("chains");
        }
        let mut structure = Self::empty(template_id_offset, decode_target_count);
        structure.chain_count = chain_count;
        for (place, chain) in structure.protected_by.iter_mut().zip(protected_by) {
            *place = *chain;
        }
        for template in templates {
            if !structure.push_template(template) {
                return bad("template order");
            }
        }
        if structure.template_count == 0
            || structure
                .templates()
                .iter()
                .any(|t| !structure.fits_template(t))
        {
            return bad("template");
        }
        if let Some(given) = resolutions {
            if given.len() != usize::from(structure.max_spatial_id) + 1
                || given.iter().any(|(w, h)| *w == 0 || *h == 0)
            {
                return bad("resolutions");
            }
            let mut all = [(0, 0); MAX_SPATIAL_LAYERS];
            for (place, resolution) in all.iter_mut().zip(given) {
                *place = *resolution;
            }
            structure.resolutions = Some(all);
        }
        structure.find_decode_target_layers();
        Ok(structure)
    }

    pub(super) fn empty(template_id_offset: u8, decode_target_count: u8) -> Self {
        Self {
            template_id_offset,
            decode_target_count,
            chain_count: 0,
            template_count: 0,
            max_spatial_id: 0,
            templates: [FrameDependencies::default(); MAX_TEMPLATES],
            protected_by: [0; MAX_DECODE_TARGETS],
            decode_target_layers: [(0, 0); MAX_DECODE_TARGETS],
            resolutions: None,
        }
    }

    /// Appends a template if its layer may follow the last one's.
    fn push_template(&mut self, template: &FrameDependencies) -> bool {
        let layer = (template.spatial_id, template.temporal_id);
        let follows = match self.templates().last() {
            None => layer == (0, 0),
            Some(last) => next_layer_idc((last.spatial_id, last.temporal_id), layer).is_some(),
        };
        let Some(place) = self
            .templates
            .get_mut(usize::from(self.template_count))
            .filter(|_| follows)
        else {
            return false;
        };
        *place = *template;
        self.template_count += 1;
        self.max_spatial_id = template.spatial_id;
        usize::from(template.spatial_id) < MAX_SPATIAL_LAYERS
            && usize::from(template.temporal_id) < MAX_TEMPORAL_LAYERS
    }

    /// Whether a template stays in its four-bit fields and in the counts of this structure.
    fn fits_template(&self, template: &FrameDependencies) -> bool {
        template
            .frame_diffs
            .as_slice()
            .iter()
            .all(|diff| *diff <= 16)
            && template.chain_diffs.iter().all(|diff| *diff <= 15)
            && self.fits_frame(template)
    }

    /// Whether a frame names no decode target or chain beyond those of this structure.
    pub(super) fn fits_frame(&self, frame: &FrameDependencies) -> bool {
        frame.dtis.present() & !self.all_decode_targets() == 0
            && frame
                .chain_diffs
                .iter()
                .skip(usize::from(self.chain_count))
                .all(|diff| *diff == 0)
    }

    /// Appendix A.8.3, `decode_target_layers`: a decode target's layer is the highest of the templates that are part
    /// of it.
    pub(super) fn find_decode_target_layers(&mut self) {
        for target in 0..usize::from(self.decode_target_count) {
            let parts = self
                .templates()
                .iter()
                .filter(|t| t.dtis.get(target) != Dti::NotPresent);
            let (spatial, temporal) = parts.fold((0, 0), |(s, t), part| {
                (part.spatial_id.max(s), part.temporal_id.max(t))
            });
            if let Some(place) = self.decode_target_layers.get_mut(target) {
                *place = (spatial, temporal);
            }
        }
    }

    /// The id of the first template, 0–63; ids count on from there modulo 64.
    #[must_use]
    pub const fn template_id_offset(&self) -> u8 {
        self.template_id_offset
    }

    /// Number of decode targets, 1–32.
    #[must_use]
    pub const fn decode_target_count(&self) -> u8 {
        self.decode_target_count
    }

    /// Number of chains, 0–32.
    #[must_use]
    pub const fn chain_count(&self) -> u8 {
        self.chain_count
    }

    /// Highest spatial layer, 0–3.
    #[must_use]
    pub const fn max_spatial_id(&self) -> u8 {
        self.max_spatial_id
    }

    /// Highest temporal layer, 0–7.
    #[must_use]
    pub fn max_temporal_id(&self) -> u8 {
        self.templates()
            .iter()
            .map(|t| t.temporal_id)
            .max()
            .unwrap_or(0)
    }

    /// The templates.
    #[inline]
    #[must_use]
    pub fn templates(&self) -> &[FrameDependencies] {
        self.templates
            .get(..usize::from(self.template_count))
            .unwrap_or_default()
    }

    /// The template that a frame names by its `frame_dependency_template_id`.
    #[inline]
    #[must_use]
    pub fn template(&self, template_id: u8) -> Option<&FrameDependencies> {
        let index = usize::from(template_id.wrapping_sub(self.template_id_offset) & 63);
        self.templates().get(index)
    }

    /// The chain that protects a decode target.
    #[must_use]
    pub fn protecting_chain(&self, decode_target: usize) -> Option<usize> {
        if self.chain_count == 0 || decode_target >= usize::from(self.decode_target_count) {
            return None;
        }
        self.protected_by
            .get(decode_target)
            .map(|chain| usize::from(*chain))
    }

    /// The highest spatial and temporal layer of a decode target.
    #[must_use]
    pub fn decode_target_layer(&self, decode_target: usize) -> Option<(u8, u8)> {
        self.decode_target_layers
            .get(..usize::from(self.decode_target_count))?
            .get(decode_target)
            .copied()
    }

    /// The decode target that reaches exactly these layers.
    #[must_use]
    pub fn decode_target_for(&self, spatial_id: u8, temporal_id: u8) -> Option<usize> {
        let layers = self
            .decode_target_layers
            .get(..usize::from(self.decode_target_count))?;
        layers
            .iter()
            .position(|layer| *layer == (spatial_id, temporal_id))
    }

    /// Largest width and height in pixels of a spatial layer, if the structure says.
    #[must_use]
    pub fn resolution(&self, spatial_id: u8) -> Option<(u16, u16)> {
        let resolutions = self
            .resolutions
            .as_ref()?
            .get(..=usize::from(self.max_spatial_id))?;
        resolutions.get(usize::from(spatial_id)).copied()
    }

    /// Bitmask with one bit for each decode target.
    #[must_use]
    pub const fn all_decode_targets(&self) -> u32 {
        u32::MAX >> (MAX_DECODE_TARGETS as u32 - self.decode_target_count as u32)
    }
}

/// The `next_layer_idc` that leads from one template's (spatial, temporal) layer to the next one's.
pub(super) const fn next_layer_idc(from: (u8, u8), to: (u8, u8)) -> Option<u32> {
    if to.0 == from.0 && to.1 == from.1 {
        Some(0)
    } else if to.0 == from.0 && to.1 == from.1 + 1 {
        Some(1)
    } else if to.0 == from.0 + 1 && to.1 == 0 {
        Some(2)
    } else {
        None
    }
}
