//! Outgoing RTP headers: a template per subscription, patched for each packet.
//!
//! What stays the same for a subscriber (SSRC, MID, the places of what is set at egress) is
//! written once. Elements that are passed on are copied behind it under the subscriber's ids.

use crate::layers::ActiveTargets;
use crate::limits::HEADER_MAX;
use sealcast_model::{HeaderExtension, Mid};
use sealcast_rtp::dd::write_active_decode_targets;
use sealcast_rtp::{ExtensionKind, ExtensionMap, FIXED_HEADER_LEN, RtpHeader};

/// Extensions that are passed on from publisher to subscriber, in the order they are written.
pub(crate) const PASSED: [ExtensionKind; 5] = [
    ExtensionKind::AudioLevel,
    ExtensionKind::VideoOrientation,
    ExtensionKind::PlayoutDelay,
    ExtensionKind::AbsCaptureTime,
    ExtensionKind::DependencyDescriptor,
];

/// Index in [`PASSED`] of the audio level.
pub(crate) const AUDIO_LEVEL: usize = 0;
/// Index in [`PASSED`] of the absolute capture time.
const ABS_CAPTURE_TIME: usize = 3;
/// Index in [`PASSED`] of the dependency descriptor.
pub(crate) const DEPENDENCY_DESCRIPTOR: usize = 4;

/// Length of an absolute capture time that carries a clock offset.
const CAPTURE_WITH_OFFSET: usize = 16;

/// Longest element in the one-byte form (RFC 8285 §4.2).
const ONE_BYTE_MAX: usize = 16;
/// Longest element in the two-byte form (RFC 8285 §4.3).
const ELEMENT_MAX: usize = 255;

/// The extension bit (RFC 3550 §5.1).
const EXTENSION_BIT: u8 = 0x10;
/// Version 2 and the extension bit; no padding, no contributing sources.
const FIRST_BYTE: u8 = 0x80 | EXTENSION_BIT;

/// The local ids of a session, by meaning.
pub(crate) fn extension_map(negotiated: &[(u8, HeaderExtension)]) -> ExtensionMap {
    negotiated
        .iter()
        .map(|(id, extension)| (*id, kind(*extension)))
        .collect()
}

fn kind(extension: HeaderExtension) -> ExtensionKind {
    match extension {
        HeaderExtension::Mid => ExtensionKind::Mid,
        HeaderExtension::Rid => ExtensionKind::Rid,
        HeaderExtension::RepairedRid => ExtensionKind::RepairedRid,
        HeaderExtension::AudioLevel => ExtensionKind::AudioLevel,
        HeaderExtension::AbsSendTime => ExtensionKind::AbsSendTime,
        HeaderExtension::TransportCc => ExtensionKind::TransportCc,
        HeaderExtension::VideoOrientation => ExtensionKind::VideoOrientation,
        HeaderExtension::PlayoutDelay => ExtensionKind::PlayoutDelay,
        HeaderExtension::AbsCaptureTime => ExtensionKind::AbsCaptureTime,
        HeaderExtension::DependencyDescriptor => ExtensionKind::DependencyDescriptor,
    }
}

/// Where an incoming packet's elements lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Elements {
    /// By [`PASSED`]: offset in the packet and length; length 0 where there is none.
    passed: [(u16, u8); PASSED.len()],
    /// Bit `i`: there is `PASSED[i]`.
    present: u8,
}

impl Elements {
    /// Finds the elements of a packet from a peer with these ids. The first of a kind counts.
    pub(crate) fn find(map: &ExtensionMap, header: &RtpHeader, packet: &[u8]) -> Self {
        let mut elements = Elements::default();
        for element in header.extensions(packet) {
            let Some(kind) = map.kind(element.id) else {
                continue;
            };
            let Some(index) = PASSED.iter().position(|passed| *passed == kind) else {
                continue;
            };
            let place = &mut elements.passed[index];
            // The element is a part of the packet, so its offset is the distance of the addresses.
            let offset = (element.data.as_ptr() as usize).wrapping_sub(packet.as_ptr() as usize);
            if let (0, Ok(offset), Ok(len)) = (
                place.1,
                u16::try_from(offset),
                u8::try_from(element.data.len()),
            ) {
                *place = (offset, len);
                elements.present |= u8::from(len > 0) << index;
            }
        }
        elements
    }

    /// The data of the element `PASSED[index]`.
    pub(crate) fn get<'a>(&self, packet: &'a [u8], index: usize) -> Option<&'a [u8]> {
        let (offset, len) = *self.passed.get(index).filter(|(_, len)| *len > 0)?;
        packet.get(usize::from(offset)..usize::from(offset) + usize::from(len))
    }
}

/// The layouts of RFC 8285.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// §4.2: ids 1–14, data of 1–16 bytes.
    OneByte,
    /// §4.3: ids 1–255, data of up to 255 bytes.
    TwoByte,
}

impl Form {
    const fn fits(self, id: u8, len: usize) -> bool {
        match self {
            Form::OneByte => id != 0 && id <= 14 && len != 0 && len <= ONE_BYTE_MAX,
            Form::TwoByte => id != 0 && len <= ELEMENT_MAX,
        }
    }

    /// Appends an element and returns where its data lies; `None` if it does not fit.
    fn push(self, out: &mut [u8], at: &mut usize, id: u8, data: &[u8]) -> Option<usize> {
        let start = match self {
            Form::OneByte => *at + 1,
            Form::TwoByte => *at + 2,
        };
        let end = start + data.len();
        let place = out
            .get_mut(*at..end)
            .filter(|_| self.fits(id, data.len()))?;
        let (head, body) = place.split_at_mut(start - *at);
        match (self, head) {
            // RFC 8285 §4.2: "The 4-bit length is the number, minus one, of data bytes".
            (Form::OneByte, [head]) => *head = id << 4 | (data.len() as u8 - 1),
            (Form::TwoByte, [first, second]) => (*first, *second) = (id, data.len() as u8),
            _ => return None,
        }
        body.copy_from_slice(data);
        *at = end;
        Some(start)
    }
}

/// Bytes of the constant part at its longest: fixed header, extension header, absolute send time,
/// transport-wide number and MID with two bytes in front of each, padded to whole words.
const PREFIX_MAX: usize =
    (FIXED_HEADER_LEN + 4 + (2 + 3) + (2 + 2) + (2 + Mid::MAX)).next_multiple_of(4);

/// The constant part of a header in one form.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    bytes: [u8; PREFIX_MAX],
    /// Where further elements go.
    len: u8,
    /// Length of a header without further elements, which `bytes` already is.
    closed_len: u8,
    /// Where the absolute send time and the transport-wide number go, or 0: no element's data lies
    /// there.
    send_time_at: u8,
    transport_cc_at: u8,
}

const _: () = assert!(PREFIX_MAX <= u8::MAX as usize);

/// What changes with each packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketFields {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence_number: u16,
    pub(crate) timestamp: u32,
    /// Absolute send time, 24 bits.
    pub(crate) send_time: [u8; 3],
    /// Transport-wide sequence number.
    pub(crate) transport_cc: u16,
    /// Frame number for the dependency descriptor, if the packet has one.
    pub(crate) frame_number: Option<u16>,
    /// Decode targets for it to tell, if it is to tell any.
    pub(crate) active_targets: Option<ActiveTargets>,
    /// What to add to the clock offset of an absolute capture time, NTP 32.32.
    pub(crate) capture_offset: u64,
}

/// The headers of one subscription.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct HeaderTemplate {
    /// Bit `i`: `ids[i]` is not 0.
    negotiated: u8,
    /// The subscriber's ids by [`PASSED`]; 0 where not negotiated.
    ids: [u8; PASSED.len()],
    one_byte: Option<Prefix>,
    two_byte: Option<Prefix>,
}

impl HeaderTemplate {
    /// A template for packets of `ssrc` on the m-line `mid` to a session with these ids.
    ///
    /// `allow_mixed`: RFC 8285 §4.1.2, a sender may change between the forms only if
    /// `extmap-allow-mixed` was negotiated.
    pub(crate) fn new(ssrc: u32, mid: Mid, map: &ExtensionMap, allow_mixed: bool) -> Self {
        let needs_two = map.needs_two_byte_form();
        let prefix = |form| Prefix::new(form, ssrc, mid, map);
        let ids = PASSED.map(|kind| map.id(kind).unwrap_or(0));
        let bits = ids.iter().enumerate();
        HeaderTemplate {
            negotiated: bits.fold(0, |bits, (i, id)| bits | u8::from(*id != 0) << i),
            ids,
            one_byte: (!needs_two || allow_mixed).then(|| prefix(Form::OneByte)),
            two_byte: (needs_two || allow_mixed).then(|| prefix(Form::TwoByte)),
        }
    }

    /// Whether packets carry a transport-wide sequence number.
    pub(crate) fn numbers_transport(&self) -> bool {
        [&self.one_byte, &self.two_byte]
            .into_iter()
            .flatten()
            .any(|p| p.transport_cc_at != 0)
    }

    /// Writes the header of one packet and returns its length. `packet` is the incoming packet
    /// that `elements` were found in. Whatever was in `out` before is overwritten as far as the
    /// header goes.
    #[inline]
    pub(crate) fn write(
        &self,
        out: &mut [u8; HEADER_MAX],
        fields: &PacketFields,
        packet: &[u8],
        elements: &Elements,
    ) -> usize {
        if elements.present & self.negotiated == 0
            && let Some(prefix) = self.one_byte.as_ref().or(self.two_byte.as_ref())
        {
            prefix.write(out, fields);
            return usize::from(prefix.closed_len);
        }
        self.write_elements(out, fields, packet, elements)
    }

    /// As [`write`](HeaderTemplate::write), with elements to pass on.
    fn write_elements(
        &self,
        out: &mut [u8; HEADER_MAX],
        fields: &PacketFields,
        packet: &[u8],
        elements: &Elements,
    ) -> usize {
        let mut told = [0; ELEMENT_MAX];
        let told = fields
            .active_targets
            .filter(|_| self.negotiated >> DEPENDENCY_DESCRIPTOR & 1 == 1)
            .zip(elements.get(packet, DEPENDENCY_DESCRIPTOR))
            .and_then(|(active, data)| {
                let len =
                    write_active_decode_targets(data, active.count, active.mask, &mut told).ok()?;
                told.get(..len)
            })
            // Better the publisher's word than none.
            .filter(|told| self.two_byte.is_some() || told.len() <= ONE_BYTE_MAX);
        let told_len = told.map_or(0, <[u8]>::len);
        let fits_one = self
            .passed(elements)
            .all(|(id, _, len)| Form::OneByte.fits(id, len))
            && told_len <= ONE_BYTE_MAX;
        let (form, prefix) = match (&self.one_byte, &self.two_byte) {
            (Some(prefix), None) => (Form::OneByte, prefix),
            (Some(prefix), Some(_)) if fits_one => (Form::OneByte, prefix),
            (_, Some(prefix)) => (Form::TwoByte, prefix),
            (None, None) => return 0,
        };
        prefix.write(out, fields);
        out[0] |= EXTENSION_BIT;
        let mut at = usize::from(prefix.len);
        for (id, index, _) in self.passed(elements) {
            let told = told.filter(|_| index == DEPENDENCY_DESCRIPTOR);
            let Some(data) = told.or_else(|| elements.get(packet, index)) else {
                continue;
            };
            // An element that this form cannot hold is left out.
            if let Some(start) = form.push(out, &mut at, id, data) {
                patch_element(index, &mut out[start..at], fields);
            }
        }
        close(out, at)
    }

    /// The elements to pass on: the subscriber's id, the index in [`PASSED`], and the length.
    fn passed(&self, elements: &Elements) -> impl Iterator<Item = (u8, usize, usize)> {
        let lens = elements.passed.map(|(_, len)| usize::from(len));
        self.ids
            .into_iter()
            .enumerate()
            .zip(lens)
            .filter_map(|((index, id), len)| (id != 0 && len != 0).then_some((id, index, len)))
    }
}

/// Changes what in an element belongs to the publisher's session.
fn patch_element(index: usize, data: &mut [u8], fields: &PacketFields) {
    if index == DEPENDENCY_DESCRIPTOR
        && let (Some(number), Some(place)) = (fields.frame_number, data.get_mut(1..3))
    {
        place.copy_from_slice(&number.to_be_bytes());
    }
    // The second half is the capturer's clock seen from the sender's, which is the relay's now.
    if index == ABS_CAPTURE_TIME
        && data.len() == CAPTURE_WITH_OFFSET
        && let Some(place) = data.last_chunk_mut::<8>()
    {
        let offset = u64::from_be_bytes(*place).wrapping_add(fields.capture_offset);
        *place = offset.to_be_bytes();
    }
}

/// Pads the extension block, sets its length, and returns the header's length. A block without
/// elements is taken off.
fn close(out: &mut [u8], at: usize) -> usize {
    const BLOCK: usize = FIXED_HEADER_LEN + 4;
    if at <= BLOCK {
        out[0] &= !EXTENSION_BIT;
        return FIXED_HEADER_LEN;
    }
    let end = at.next_multiple_of(4).min(out.len());
    out[at..end].fill(0);
    let words = ((end - BLOCK) / 4) as u16;
    out[FIXED_HEADER_LEN + 2..BLOCK].copy_from_slice(&words.to_be_bytes());
    end
}

impl Prefix {
    fn new(form: Form, ssrc: u32, mid: Mid, map: &ExtensionMap) -> Self {
        let mut bytes = [0; PREFIX_MAX];
        bytes[0] = FIRST_BYTE;
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let profile: u16 = match form {
            Form::OneByte => 0xbede,
            Form::TwoByte => 0x1000,
        };
        bytes[12..14].copy_from_slice(&profile.to_be_bytes());
        let mut len = FIXED_HEADER_LEN + 4;
        let mut push = |kind, data: &[u8]| form.push(&mut bytes, &mut len, map.id(kind)?, data);
        let send_time_at = push(ExtensionKind::AbsSendTime, &[0; 3]);
        let transport_cc_at = push(ExtensionKind::TransportCc, &[0; 2]);
        push(ExtensionKind::Mid, mid.as_bytes());
        let closed_len = close(&mut bytes, len);
        let place = |at: Option<usize>| at.unwrap_or(0) as u8;
        Prefix {
            bytes,
            len: len as u8,
            closed_len: closed_len as u8,
            send_time_at: place(send_time_at),
            transport_cc_at: place(transport_cc_at),
        }
    }

    /// Copies the prefix and sets what changes.
    #[inline]
    fn write(&self, out: &mut [u8; HEADER_MAX], fields: &PacketFields) {
        out[..PREFIX_MAX].copy_from_slice(&self.bytes);
        out[1] = u8::from(fields.marker) << 7 | fields.payload_type & 0x7f;
        out[2..4].copy_from_slice(&fields.sequence_number.to_be_bytes());
        out[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        let at = usize::from(self.send_time_at);
        if at != 0 {
            out[at..at + 3].copy_from_slice(&fields.send_time);
        }
        let at = usize::from(self.transport_cc_at);
        if at != 0 {
            out[at..at + 2].copy_from_slice(&fields.transport_cc.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
