//! Which payload types of an offered m-line the relay takes, and how it answers them.

use super::description::{Fmtp, MediaDescription, RtpMap};
use super::negotiate::MediaPolicy;
use sealcast_model::limits::CODECS_PER_MEDIA;
use sealcast_model::{Codec, CodecParams, MediaKind};

/// Payload types of `offer` that the relay takes, in the offer's order.
pub(super) fn acceptable(offer: &MediaDescription, policy: &MediaPolicy) -> Vec<CodecParams> {
    let Some(kind) = offer.kind() else {
        return Vec::new();
    };
    let mut out: Vec<CodecParams> = Vec::new();
    let redundancy = redundancy(offer, policy);
    for format in &offer.formats {
        let Some(pt) = payload_type(format) else {
            continue;
        };
        if out.len() == CODECS_PER_MEDIA || out.iter().any(|c| c.pt == pt) {
            continue;
        }
        out.extend(match redundancy {
            Some(red) if red == pt => Some(red_params(red)),
            _ => accept(offer, kind, pt, policy),
        });
    }
    out
}

/// A payload type usable with `rtcp-mux`.
///
/// RFC 5761 §4: "payload types in the range 64-95 MUST NOT be used".
fn payload_type(format: &str) -> Option<u8> {
    match format.parse().ok()? {
        pt @ (0..=63 | 96..=127) => Some(pt),
        _ => None,
    }
}

/// RED has no feedback of its own: what is lost comes with the next packet.
fn red_params(pt: u8) -> CodecParams {
    CodecParams {
        pt,
        codec: Codec::Red,
        profile: 0,
        rtx_pt: None,
        nack: false,
        pli: false,
        fir: false,
        transport_cc: false,
        ccfb: false,
        remb: false,
    }
}

/// The payload type of RED over the m-line's Opus, where the relay takes both.
fn redundancy(offer: &MediaDescription, policy: &MediaPolicy) -> Option<u8> {
    let takes = |codec| policy.audio.contains(&codec);
    let of = |codec| {
        let types = offer.formats.iter().filter_map(|f| payload_type(f));
        types.filter(move |pt| offer.rtpmap(*pt).is_some_and(|map| matches(map, codec)))
    };
    if !takes(Codec::Red) || !takes(Codec::Opus) {
        return None;
    }
    // That of the m-line's first Opus: a receiver has one name for the blocks.
    let opus = of(Codec::Opus).next()?;
    of(Codec::Red).find(|red| {
        // RFC 2198, section 5: "a slash-separated list of RTP payload types", of the blocks.
        let blocks = offer.fmtp(*red).map(|fmtp| fmtp.params.split('/'));
        blocks.is_some_and(|mut blocks| blocks.all(|block| block.trim().parse() == Ok(opus)))
    })
}

fn accept(
    offer: &MediaDescription,
    kind: MediaKind,
    pt: u8,
    policy: &MediaPolicy,
) -> Option<CodecParams> {
    let map = offer.rtpmap(pt)?;
    let codec = *policy
        .codecs(kind)
        .iter()
        .find(|codec| **codec != Codec::Red && matches(map, **codec))?;
    let profile = profile(codec, offer.fmtp(pt))?;
    let video = kind == MediaKind::Video;
    // One kind of feedback about the path is enough, and this is their order: transport-wide
    // numbers also tell of retransmissions and padding before their streams are known, and every
    // browser has them; REMB is for those who know no other.
    let offers = |feedback| policy.transport_cc && offer.has_feedback(pt, feedback);
    let transport_cc = offers("transport-cc");
    let ccfb = !transport_cc && offers(CCFB);
    Some(CodecParams {
        pt,
        codec,
        profile,
        rtx_pt: if policy.repair {
            rtx_of(offer, pt, codec)
        } else {
            None
        },
        nack: policy.repair && offer.has_feedback(pt, "nack"),
        pli: video && offer.has_feedback(pt, "nack pli"),
        fir: video && offer.has_feedback(pt, "ccm fir"),
        transport_cc,
        ccfb,
        remb: !transport_cc && !ccfb && offers("goog-remb"),
    })
}

/// RFC 4855 §3: encoding names are case-insensitive.
fn matches(map: &RtpMap, codec: Codec) -> bool {
    map.name.eq_ignore_ascii_case(codec.name())
        && map.clock_rate == codec.clock_rate()
        // RFC 7587 §7: Opus is always "opus/48000/2", and so is its redundancy.
        && (codec.kind() != MediaKind::Audio || map.channels == Some(2))
}

/// The payload type whose `apt` is `pt` (RFC 4588 §8.1).
fn rtx_of(offer: &MediaDescription, pt: u8, codec: Codec) -> Option<u8> {
    offer.formats.iter().find_map(|format| {
        let rtx = payload_type(format)?;
        let map = offer.rtpmap(rtx)?;
        let apt: u8 = offer.fmtp(rtx)?.get("apt")?.parse().ok()?;
        let fits = map.name.eq_ignore_ascii_case("rtx")
            && map.clock_rate == codec.clock_rate()
            && apt == pt;
        fits.then_some(rtx)
    })
}

/// A number that is equal for formats of `codec` that interoperate; `None` for a format that the
/// relay does not take.
fn profile(codec: Codec, fmtp: Option<&Fmtp>) -> Option<u32> {
    let param = |name, default| match fmtp.and_then(|f| f.get(name)) {
        Some(value) => value.parse().ok(),
        None => Some(default),
    };
    match codec {
        Codec::Opus | Codec::Red | Codec::Vp8 => Some(0),
        // RFC 9628 §7: profile-id defaults to 0, and 3 is the highest.
        Codec::Vp9 => param("profile-id", 0).filter(|p| *p <= 3),
        // AV1 RTP §7.2.1: profile defaults to 0 (Main), and 2 is the highest.
        Codec::Av1 => param("profile", 0).filter(|p| *p <= 2),
        Codec::H264 => {
            // RFC 6184 §8.1: packetization-mode defaults to 0; 2 (interleaved) is not in use.
            let mode = param("packetization-mode", 0).filter(|m| *m <= 1)?;
            let id = fmtp
                .and_then(|f| f.get("profile-level-id"))
                .unwrap_or(H264_DEFAULT_PROFILE);
            Some(h264_profile(id)? << 1 | mode)
        }
    }
}

/// RFC 6184 §8.1: without the parameter, "the Baseline profile without additional constraints
/// at Level 1 MUST be inferred".
const H264_DEFAULT_PROFILE: &str = "42000a";

/// profile_idc, and profile-iop reduced to what tells decoders apart (RFC 6184 §8.1, table 5):
/// Constrained Baseline has several spellings.
fn h264_profile(profile_level_id: &str) -> Option<u32> {
    if profile_level_id.len() != 6 {
        return None;
    }
    let value = u32::from_str_radix(profile_level_id, 16).ok()?;
    let (idc, iop) = (value >> 16, value >> 8 & 0xff);
    let constrained_baseline = match idc {
        0x42 => iop & 0x4f == 0x40,
        0x4d => iop & 0x8f == 0x80,
        0x58 => iop & 0xcf == 0xc0,
        _ => false,
    };
    if constrained_baseline {
        return Some(0x42 << 8 | 0x40);
    }
    match idc {
        0x42 | 0x4d | 0x58 => Some(idc << 8),
        // High, with its constrained form apart.
        0x64 => Some(idc << 8 | iop & 0x0c),
        _ => None,
    }
}

/// RFC 8888, section 6.
const CCFB: &str = "ack ccfb";

/// Writes `codecs` into an answer's section.
pub(super) fn answer(
    section: &mut MediaDescription,
    offer: &MediaDescription,
    codecs: &[CodecParams],
) {
    if codecs.iter().any(|params| params.ccfb) {
        // RFC 8888, section 6: it is for all payload types, retransmissions included.
        section.feedback.push((None, CCFB.to_owned()));
    }
    for params in codecs {
        let pt = params.pt;
        section.formats.push(pt.to_string());
        section.rtpmaps.extend(offer.rtpmap(pt).cloned());
        if let Some(text) = answer_fmtp(params.codec, offer.fmtp(pt)) {
            section.fmtps.push(Fmtp { pt, params: text });
        }
        for (negotiated, value) in [
            (params.fir, "ccm fir"),
            (params.nack, "nack"),
            (params.pli, "nack pli"),
            (params.transport_cc, "transport-cc"),
            (params.remb, "goog-remb"),
        ] {
            if negotiated {
                section.feedback.push((Some(pt), value.to_owned()));
            }
        }
        if let Some(rtx) = params.rtx_pt {
            section.formats.push(rtx.to_string());
            section.rtpmaps.extend(offer.rtpmap(rtx).cloned());
            section.fmtps.push(Fmtp {
                pt: rtx,
                params: format!("apt={pt}"),
            });
        }
    }
}

/// The relay decodes nothing, so it answers what the peer asked for wherever a parameter must
/// match, and leaves out what describes a decoder.
fn answer_fmtp(codec: Codec, offered: Option<&Fmtp>) -> Option<String> {
    let echo = |names: &[&str]| {
        let params: Vec<String> = names
            .iter()
            .filter_map(|name| Some(format!("{name}={}", offered?.get(name)?)))
            .collect();
        (!params.is_empty()).then(|| params.join(";"))
    };
    match codec {
        Codec::Opus => Some("minptime=10;useinbandfec=1".to_owned()),
        Codec::Red => offered.map(|fmtp| fmtp.params.clone()),
        Codec::Vp8 => None,
        Codec::Vp9 => echo(&["profile-id"]),
        Codec::Av1 => echo(&["level-idx", "profile", "tier"]),
        Codec::H264 => echo(&[
            "level-asymmetry-allowed",
            "packetization-mode",
            "profile-level-id",
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_profiles_that_interoperate_are_equal() {
        let same = |a, b| h264_profile(a) == h264_profile(b) && h264_profile(a).is_some();
        assert!(same("42e01f", "42c00d"), "both constrained baseline");
        assert!(same("42e01f", "42e034"), "the level does not matter");
        assert!(same("42e01f", "4d801f"), "main with constraint_set0");
        assert!(!same("42e01f", "42001f"), "baseline allows FMO and ASO");
        assert!(!same("42e01f", "64001f"));
        assert!(!same("640c1f", "64001f"), "constrained high is its own");
        for bad in ["", "42e0", "42e01f00", "zz001f", "f4001f", "+2e01f"] {
            assert_eq!(h264_profile(bad), None, "{bad}");
        }
    }

    #[test]
    fn packetization_modes_do_not_mix() {
        let fmtp = |mode: u8| Fmtp {
            pt: 96,
            params: format!("profile-level-id=42e01f; packetization-mode={mode}"),
        };
        let of = |mode| profile(Codec::H264, Some(&fmtp(mode)));
        assert_ne!(of(0), of(1));
        assert_eq!(of(2), None, "interleaved");
    }
}
