//! What a packet that leaves the relay says to its receiver, read without the relay's code.

use crate::packet::{EXT_DEPENDENCY, Tag, codec_of};
use sealcast_model::Codec;
use sealcast_rtp::RtpHeader;

/// A packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) tag: Tag,
    /// The step in which it was.
    pub(crate) step: u64,
    pub(crate) marker: bool,
    pub(crate) timestamp: u32,
    /// Frame number of its dependency descriptor.
    pub(crate) frame_number: Option<u16>,
    /// Active decode targets that its descriptor tells.
    pub(crate) active: Option<u32>,
    pub(crate) pictures: Option<Pictures>,
}

/// Numbers of a VP8 or VP9 payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pictures {
    /// They count frames that are sent, and not those that were captured.
    pub(crate) closed_up: bool,
    /// Picture id, 15 bits.
    pub(crate) id: u16,
    /// TL0PICIDX.
    pub(crate) base: Option<u8>,
}

impl Sent {
    /// Reads a packet whose media payload, without what a retransmission puts in front, is
    /// `payload`.
    pub(crate) fn read(
        header: &RtpHeader,
        bytes: &[u8],
        payload: &[u8],
        step: u64,
    ) -> Option<Self> {
        let tag = Tag::read(payload)?;
        let descriptor = header.extension(bytes, EXT_DEPENDENCY);
        Some(Sent {
            tag,
            step,
            marker: header.marker,
            timestamp: header.timestamp,
            frame_number: descriptor
                .and_then(|d| Some(u16::from_be_bytes([*d.get(1)?, *d.get(2)?]))),
            active: descriptor.and_then(|d| active(d, tag.target_count)),
            pictures: pictures(codec_of(header.payload_type), payload),
        })
    }

    /// Whether a retransmission says what the packet said. It may say anew what is active.
    pub(crate) fn equals(&self, again: &Sent) -> bool {
        let (step, active) = (self.step, self.active);
        *self
            == Sent {
                step,
                active,
                ..*again
            }
    }
}

/// The model's descriptors: three bytes, or VP8's four flags.
fn pictures(codec: Codec, payload: &[u8]) -> Option<Pictures> {
    let at = |n: usize| payload.get(n).copied();
    let id = |high, low| Some(u16::from_be_bytes([at(high)?, at(low)?]) & 0x7fff);
    match codec {
        Codec::Vp8 => Some(Pictures {
            closed_up: true,
            id: id(2, 3)?,
            base: Some(at(4)?),
        }),
        Codec::Vp9 => Some(Pictures {
            closed_up: false,
            id: id(1, 2)?,
            base: (at(0)? & 0x10 == 0).then_some(at(4)?),
        }),
        _ => None,
    }
}

/// AV1 RTP specification, appendix A.8.2, bit by bit, as far as the active decode targets.
fn active(descriptor: &[u8], targets: u32) -> Option<u32> {
    let mut bits = descriptor
        .iter()
        .skip(3)
        .flat_map(|byte| (0..8).rev().map(move |n| u32::from(byte >> n & 1)));
    let mut read = |n: u32| (0..n).try_fold(0u32, |v, _| Some(v << 1 | bits.next()?));
    let (structure, present) = (read(1)? == 1, read(1)? == 1);
    read(3)?;
    if structure {
        skip_structure(&mut read)?;
    }
    let all = (1 << targets) - 1;
    match present {
        true => read(targets),
        false => structure.then_some(all),
    }
}

/// `template_dependency_structure`.
fn skip_structure(read: &mut impl FnMut(u32) -> Option<u32>) -> Option<()> {
    read(6)?;
    let targets = read(5)? + 1;
    let (mut templates, mut spatial) = (1, 1);
    loop {
        match read(2)? {
            3 => break,
            2 => (templates, spatial) = (templates + 1, spatial + 1),
            _ => templates += 1,
        }
    }
    for _ in 0..templates * targets {
        read(2)?;
    }
    for _ in 0..templates {
        while read(1)? == 1 {
            read(4)?;
        }
    }
    let chains = non_symmetric(targets + 1, read)?;
    for _ in 0..if chains > 0 { targets } else { 0 } {
        non_symmetric(chains, read)?;
    }
    for _ in 0..templates * chains {
        read(4)?;
    }
    if read(1)? == 1 {
        for _ in 0..spatial {
            read(32)?;
        }
    }
    Some(())
}

/// `ns(n)`.
fn non_symmetric(n: u32, read: &mut impl FnMut(u32) -> Option<u32>) -> Option<u32> {
    let width = 32 - n.leading_zeros();
    let short = (1 << width) - n;
    let value = read(width - 1)?;
    match value < short {
        true => Some(value),
        false => Some((value << 1) - short + read(1)?),
    }
}
