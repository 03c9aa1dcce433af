//! The dependency descriptor header extension (RTP Payload Format For AV1, appendix A).
//!
//! It tells, outside the seal and for any codec, what each frame depends on and which decode targets (spatial and
//! temporal operating points) it is part of. A stream's key frames carry a [`TemplateStructure`]; other frames name
//! one of its templates. A [`DescriptorReader`] keeps the structure of one incoming stream and reads its descriptors.
//!
//! To pass a descriptor on with other numbering, change it in place ([`set_frame_number`], [`set_template_id`],
//! [`set_frame_edges`]); [`write_active_decode_targets`] changes its active decode targets.

mod structure;

pub use structure::{
    Dti, Dtis, FrameDependencies, FrameDiffs, MAX_CHAINS, MAX_DECODE_TARGETS, MAX_FRAME_DIFFS,
    MAX_SPATIAL_LAYERS, MAX_TEMPLATES, MAX_TEMPORAL_LAYERS, TemplateStructure,
};

use crate::bits::{BitReader, BitWriter};
use crate::bytes::overwrite;
use crate::{ParseError, WriteError};

/// Bytes of the mandatory fields; a descriptor of just these is the common case.
pub const MANDATORY_LEN: usize = 3;

/// The mandatory fields of a descriptor, which can be read without the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MandatoryFields {
    /// The packet is the first of its frame.
    pub start_of_frame: bool,
    /// The packet is the last of its frame.
    pub end_of_frame: bool,
    /// Id of the template that the frame follows, 0–63.
    pub template_id: u8,
    /// Running number of the frame in decode order; the same for all packets of a frame. Each spatial layer of a
    /// picture is a frame of its own.
    pub frame_number: u16,
}

impl MandatoryFields {
    /// Reads the first three bytes of a descriptor.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn parse(descriptor: &[u8]) -> Result<Self, ParseError> {
        let [first, number @ ..]: [u8; MANDATORY_LEN] =
            *descriptor.first_chunk().ok_or(ParseError::Truncated)?;
        Ok(Self {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16::from_be_bytes(number),
        })
    }

    const fn to_bytes(self) -> [u8; MANDATORY_LEN] {
        let [high, low] = self.frame_number.to_be_bytes();
        let first = (self.start_of_frame as u8) << 7
            | (self.end_of_frame as u8) << 6
            | self.template_id & 0x3f;
        [first, high, low]
    }
}

/// A dependency descriptor, resolved against its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// The mandatory fields.
    pub mandatory: MandatoryFields,
    /// What the frame depends on: its template's content, or its own where it differs.
    pub frame: FrameDependencies,
    /// Bitmask of the decode targets that the sender produces, if this descriptor says. One that carries a structure
    /// always does: all of them are active unless it names some.
    pub active_decode_targets: Option<u32>,
    /// Whether the descriptor carries a structure, as those of key frames do.
    pub has_structure: bool,
}

/// Sets the frame number in place. `false` if the descriptor is too short.
#[inline]
#[must_use]
pub fn set_frame_number(descriptor: &mut [u8], frame_number: u16) -> bool {
    overwrite(descriptor, 1, &frame_number.to_be_bytes())
}

/// Sets the template id (of which the low six bits count) in place. `false` if the descriptor is empty.
#[inline]
#[must_use]
pub fn set_template_id(descriptor: &mut [u8], template_id: u8) -> bool {
    let Some(byte) = descriptor.first_mut() else {
        return false;
    };
    *byte = *byte & 0xc0 | template_id & 0x3f;
    true
}

/// Sets the start-of-frame and end-of-frame bits in place. `false` if the descriptor is empty.
#[inline]
#[must_use]
pub fn set_frame_edges(descriptor: &mut [u8], start_of_frame: bool, end_of_frame: bool) -> bool {
    let Some(byte) = descriptor.first_mut() else {
        return false;
    };
    *byte = *byte & 0x3f | u8::from(start_of_frame) << 7 | u8::from(end_of_frame) << 6;
    true
}

/// Writes into `out` the descriptor with other active decode targets, of which its structure has `count`, and returns
/// its length. Of whatever frame it is and whatever else it says, it gets at most six bytes longer.
///
/// # Errors
/// Those of [`DescriptorReader::read`] for what has to be read of it; [`ParseError::Length`] if `out` is too short, and
/// [`ParseError::Value`] for a mask beyond `count`, which is at most [`MAX_DECODE_TARGETS`].
pub fn write_active_decode_targets(
    descriptor: &[u8],
    count: u8,
    active: u32,
    out: &mut [u8],
) -> Result<usize, ParseError> {
    if usize::from(count) > MAX_DECODE_TARGETS || u64::from(active) >> count != 0 {
        return Err(ParseError::Value("active decode targets"));
    }
    let (mandatory, rest) = descriptor
        .split_first_chunk::<MANDATORY_LEN>()
        .ok_or(ParseError::Truncated)?;
    let mut bits = BitReader::new(rest);
    let extended = match rest {
        [] => Extended::default(),
        _ => Extended::read(&mut bits)?,
    };
    let flags = bits.position();
    if extended.structure {
        read_structure(&mut bits)?;
    }
    let structure = flags..bits.position();
    if extended.active_decode_targets {
        bits.bits(count.into())?;
    }
    let tail = bits.position()..rest.len() * 8;
    let (head, body) = out
        .split_first_chunk_mut::<MANDATORY_LEN>()
        .ok_or(ParseError::Length)?;
    *head = *mandatory;
    let mut writer = BitWriter::new(body);
    let extended = Extended {
        active_decode_targets: true,
        ..extended
    };
    let copy = |writer: &mut BitWriter<'_>| {
        extended.write(writer)?;
        writer.copy(rest, structure)?;
        writer.bits(active, count.into())?;
        writer.copy(rest, tail)
    };
    copy(&mut writer).map_err(|_| ParseError::Length)?;
    Ok(MANDATORY_LEN + writer.len())
}

/// Reads the descriptors of one incoming stream and keeps its newest structure.
///
/// A descriptor that carries a structure replaces the one before only if it is sound as a whole. Packets must be
/// given in an order in which a structure precedes the frames that use it; a frame whose template the structure does
/// not have is an error of that packet, and changes nothing.
#[derive(Debug, Clone, Default)]
pub struct DescriptorReader {
    structure: Option<TemplateStructure>,
}

impl DescriptorReader {
    /// A reader that knows no structure yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { structure: None }
    }

    /// The newest structure.
    #[must_use]
    pub const fn structure(&self) -> Option<&TemplateStructure> {
        self.structure.as_ref()
    }

    /// Reads the data of a dependency descriptor extension.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::Value`] for an unknown template or forbidden structure;
    /// [`ParseError::Limit`] for more frame differences than [`MAX_FRAME_DIFFS`], or more layers or templates than
    /// there may be.
    pub fn read(&mut self, descriptor: &[u8]) -> Result<DependencyDescriptor, ParseError> {
        let (frame, structure) = self.resolve(descriptor)?;
        if structure.is_some() {
            self.structure = structure;
        }
        Ok(frame)
    }

    /// As [`read`](DescriptorReader::read), of a descriptor that was read before: it replaces no structure.
    ///
    /// # Errors
    /// Those of [`read`](DescriptorReader::read).
    pub fn peek(&self, descriptor: &[u8]) -> Result<DependencyDescriptor, ParseError> {
        self.resolve(descriptor).map(|(frame, _)| frame)
    }

    /// Reads a descriptor, and the structure that it carries.
    fn resolve(
        &self,
        descriptor: &[u8],
    ) -> Result<(DependencyDescriptor, Option<TemplateStructure>), ParseError> {
        let mandatory = MandatoryFields::parse(descriptor)?;
        let mut bits = BitReader::new(descriptor.get(MANDATORY_LEN..).unwrap_or_default());
        let extended = if descriptor.len() > MANDATORY_LEN {
            Extended::read(&mut bits)?
        } else {
            Extended::default()
        };
        if !extended.structure {
            let structure = self
                .structure
                .as_ref()
                .ok_or(ParseError::Value("descriptor before any structure"))?;
            return Ok((read_frame(&mut bits, mandatory, extended, structure)?, None));
        }
        let structure = read_structure(&mut bits)?;
        let frame = read_frame(&mut bits, mandatory, extended, &structure)?;
        Ok((frame, Some(structure)))
    }
}

/// The flags of `extended_descriptor_fields`.
#[derive(Clone, Copy, Default)]
struct Extended {
    structure: bool,
    active_decode_targets: bool,
    custom_dtis: bool,
    custom_frame_diffs: bool,
    custom_chains: bool,
}

impl Extended {
    fn read(bits: &mut BitReader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            structure: bits.flag()?,
            active_decode_targets: bits.flag()?,
            custom_dtis: bits.flag()?,
            custom_frame_diffs: bits.flag()?,
            custom_chains: bits.flag()?,
        })
    }

    fn write(self, bits: &mut BitWriter<'_>) -> Result<(), WriteError> {
        bits.flag(self.structure)?;
        bits.flag(self.active_decode_targets)?;
        bits.flag(self.custom_dtis)?;
        bits.flag(self.custom_frame_diffs)?;
        bits.flag(self.custom_chains)
    }

    const fn any(self) -> bool {
        self.structure
            || self.active_decode_targets
            || self.custom_dtis
            || self.custom_frame_diffs
            || self.custom_chains
    }
}

/// The rest of `extended_descriptor_fields` after the structure, and `frame_dependency_definition`.
fn read_frame(
    bits: &mut BitReader<'_>,
    mandatory: MandatoryFields,
    extended: Extended,
    structure: &TemplateStructure,
) -> Result<DependencyDescriptor, ParseError> {
    let mut active_decode_targets = extended.structure.then(|| structure.all_decode_targets());
    if extended.active_decode_targets {
        active_decode_targets = Some(bits.bits(u32::from(structure.decode_target_count))?);
    }
    let template = structure
        .template(mandatory.template_id)
        .ok_or(ParseError::Value("descriptor template id"))?;
    let mut frame = *template;
    if extended.custom_dtis {
        frame.dtis = read_dtis(bits, structure.decode_target_count)?;
    }
    if extended.custom_frame_diffs {
        frame.frame_diffs = FrameDiffs::default();
        loop {
            let size = bits.bits(2)?;
            if size == 0 {
                break;
            }
            push_diff(&mut frame.frame_diffs, bits.bits(4 * size)?)?;
        }
    }
    if extended.custom_chains {
        for place in frame
            .chain_diffs
            .iter_mut()
            .take(usize::from(structure.chain_count))
        {
            *place = bits.bits(8)? as u8;
        }
    }
    Ok(DependencyDescriptor {
        mandatory,
        frame,
        active_decode_targets,
        has_structure: extended.structure,
    })
}

fn read_dtis(bits: &mut BitReader<'_>, count: u8) -> Result<Dtis, ParseError> {
    (0..count)
        .map(|_| bits.bits(2).map(Dti::from_bits))
        .collect()
}

fn push_diff(diffs: &mut FrameDiffs, minus_one: u32) -> Result<(), ParseError> {
    let diff = u16::try_from(minus_one + 1).unwrap_or(u16::MAX);
    if diffs.push(diff) {
        Ok(())
    } else {
        Err(ParseError::Limit("frame differences"))
    }
}

/// `template_dependency_structure`.
fn read_structure(bits: &mut BitReader<'_>) -> Result<TemplateStructure, ParseError> {
    let offset = bits.bits(6)? as u8;
    let decode_targets = bits.bits(5)? as u8 + 1;
    let mut structure = TemplateStructure::empty(offset, decode_targets);
    read_template_layers(bits, &mut structure)?;
    let count = usize::from(structure.template_count);
    for template in structure.templates.iter_mut().take(count) {
        template.dtis = read_dtis(bits, decode_targets)?;
    }
    for template in structure.templates.iter_mut().take(count) {
        while bits.flag()? {
            push_diff(&mut template.frame_diffs, bits.bits(4)?)?;
        }
    }
    read_template_chains(bits, &mut structure)?;
    structure.find_decode_target_layers();
    if bits.flag()? {
        let mut resolutions = [(0, 0); MAX_SPATIAL_LAYERS];
        for place in resolutions
            .iter_mut()
            .take(usize::from(structure.max_spatial_id) + 1)
        {
            let (width, height) = (bits.bits(16)?, bits.bits(16)?);
            // 65,536 pixels do not fit and no encoder makes them.
            *place = (
                (width + 1).min(0xffff) as u16,
                (height + 1).min(0xffff) as u16,
            );
        }
        structure.resolutions = Some(resolutions);
    }
    Ok(structure)
}

/// `template_layers`: also counts the templates.
fn read_template_layers(
    bits: &mut BitReader<'_>,
    structure: &mut TemplateStructure,
) -> Result<(), ParseError> {
    let (mut spatial, mut temporal) = (0u8, 0u8);
    for place in &mut structure.templates {
        (place.spatial_id, place.temporal_id) = (spatial, temporal);
        structure.template_count += 1;
        structure.max_spatial_id = spatial;
        match bits.bits(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (spatial, temporal) = (spatial + 1, 0),
            _ => return Ok(()),
        }
        if usize::from(spatial) >= MAX_SPATIAL_LAYERS
            || usize::from(temporal) >= MAX_TEMPORAL_LAYERS
        {
            return Err(ParseError::Limit("template layers"));
        }
    }
    Err(ParseError::Limit("templates"))
}

/// `template_chains`.
fn read_template_chains(
    bits: &mut BitReader<'_>,
    structure: &mut TemplateStructure,
) -> Result<(), ParseError> {
    let chains = bits.non_symmetric(u32::from(structure.decode_target_count) + 1)?;
    structure.chain_count = chains as u8;
    if chains == 0 {
        return Ok(());
    }
    for place in structure
        .protected_by
        .iter_mut()
        .take(usize::from(structure.decode_target_count))
    {
        *place = bits.non_symmetric(chains)? as u8;
    }
    let count = usize::from(structure.template_count);
    for template in structure.templates.iter_mut().take(count) {
        for place in template.chain_diffs.iter_mut().take(chains as usize) {
            *place = bits.bits(4)? as u8;
        }
    }
    Ok(())
}

impl DependencyDescriptor {
    /// Writes the descriptor against `structure` into `out` and returns its length. The structure is carried if
    /// `has_structure`; where the frame differs from its template, its own values are.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for a template that the structure does not have,
    /// layers that are not the template's, or decode targets and chains beyond the structure's.
    pub fn write(
        &self,
        structure: &TemplateStructure,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let bad = |field| Err(WriteError::Unrepresentable(field));
        let Some(template) = structure.template(self.mandatory.template_id) else {
            return bad("template id");
        };
        let frame = &self.frame;
        if (frame.spatial_id, frame.temporal_id) != (template.spatial_id, template.temporal_id) {
            return bad("frame layer");
        }
        let active = self
            .active_decode_targets
            .filter(|mask| !self.has_structure || *mask != structure.all_decode_targets());
        if !structure.fits_frame(frame)
            || active.is_some_and(|mask| mask & !structure.all_decode_targets() != 0)
        {
            return bad("decode targets or chains");
        }
        let extended = Extended {
            structure: self.has_structure,
            active_decode_targets: active.is_some(),
            custom_dtis: frame.dtis != template.dtis,
            custom_frame_diffs: frame.frame_diffs != template.frame_diffs,
            custom_chains: frame.chain_diffs != template.chain_diffs,
        };
        if !overwrite(out, 0, &self.mandatory.to_bytes()) {
            return Err(WriteError::NoRoom);
        }
        if !extended.any() {
            return Ok(MANDATORY_LEN);
        }
        let mut bits = BitWriter::new(out.get_mut(MANDATORY_LEN..).unwrap_or_default());
        extended.write(&mut bits)?;
        if extended.structure {
            write_structure(&mut bits, structure)?;
        }
        if let Some(mask) = active {
            bits.bits(mask, u32::from(structure.decode_target_count))?;
        }
        write_custom(&mut bits, extended, frame, structure)?;
        Ok(MANDATORY_LEN + bits.len())
    }
}

/// The custom fields of `frame_dependency_definition`.
fn write_custom(
    bits: &mut BitWriter<'_>,
    extended: Extended,
    frame: &FrameDependencies,
    structure: &TemplateStructure,
) -> Result<(), WriteError> {
    if extended.custom_dtis {
        write_dtis(bits, frame.dtis, structure.decode_target_count)?;
    }
    if extended.custom_frame_diffs {
        for diff in frame.frame_diffs.as_slice() {
            let minus_one = u32::from(diff.saturating_sub(1));
            let size = match minus_one {
                0..=0xf => 1,
                0x10..=0xff => 2,
                _ => 3,
            };
            bits.bits(size, 2)?;
            bits.bits(minus_one, 4 * size)?;
        }
        bits.bits(0, 2)?;
    }
    if extended.custom_chains {
        for diff in frame
            .chain_diffs
            .iter()
            .take(usize::from(structure.chain_count))
        {
            bits.bits(u32::from(*diff), 8)?;
        }
    }
    Ok(())
}

fn write_dtis(bits: &mut BitWriter<'_>, dtis: Dtis, count: u8) -> Result<(), WriteError> {
    (0..usize::from(count)).try_for_each(|target| bits.bits(dtis.get(target) as u32, 2))
}

/// `template_dependency_structure`.
fn write_structure(
    bits: &mut BitWriter<'_>,
    structure: &TemplateStructure,
) -> Result<(), WriteError> {
    bits.bits(u32::from(structure.template_id_offset), 6)?;
    bits.bits(u32::from(structure.decode_target_count) - 1, 5)?;
    let templates = structure.templates();
    let layers = templates.iter().map(|t| (t.spatial_id, t.temporal_id));
    for (from, to) in layers.clone().zip(layers.skip(1)) {
        let idc = structure::next_layer_idc(from, to)
            .ok_or(WriteError::Unrepresentable("template order"))?;
        bits.bits(idc, 2)?;
    }
    bits.bits(3, 2)?;
    for template in templates {
        write_dtis(bits, template.dtis, structure.decode_target_count)?;
    }
    for template in templates {
        for diff in template.frame_diffs.as_slice() {
            bits.flag(true)?;
            bits.bits(u32::from(diff.saturating_sub(1)), 4)?;
        }
        bits.flag(false)?;
    }
    bits.non_symmetric(
        u32::from(structure.chain_count),
        u32::from(structure.decode_target_count) + 1,
    )?;
    if structure.chain_count > 0 {
        for chain in structure
            .protected_by
            .iter()
            .take(usize::from(structure.decode_target_count))
        {
            bits.non_symmetric(u32::from(*chain), u32::from(structure.chain_count))?;
        }
        for template in templates {
            for diff in template
                .chain_diffs
                .iter()
                .take(usize::from(structure.chain_count))
            {
                bits.bits(u32::from(*diff), 4)?;
            }
        }
    }
    bits.flag(structure.resolutions.is_some())?;
    for (width, height) in structure
        .resolutions
        .iter()
        .flatten()
        .take(usize::from(structure.max_spatial_id) + 1)
    {
        bits.bits(u32::from(*width) - 1, 16)?;
        bits.bits(u32::from(*height) - 1, 16)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
