//! Which header extension has which local id in one session (RFC 8285, section 5).

/// The header extensions that the relay knows, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExtensionKind {
    /// Media identification (RFC 9143, section 15).
    Mid,
    /// RTP stream id (RFC 8852).
    Rid,
    /// Repaired RTP stream id (RFC 8852).
    RepairedRid,
    /// Client-to-mixer audio level (RFC 6464).
    AudioLevel,
    /// Absolute send time, 24 bits of 6.18 fixed point.
    AbsSendTime,
    /// Transport-wide congestion control sequence number.
    TransportCc,
    /// The second draft of the same, which can ask for feedback.
    TransportCc02,
    /// Coordination of video orientation (3GPP TS 26.114).
    VideoOrientation,
    /// Minimum and maximum playout delay.
    PlayoutDelay,
    /// Absolute capture time.
    AbsCaptureTime,
    /// Dependency descriptor (AV1 RTP specification, appendix A).
    DependencyDescriptor,
    /// Video layers allocation.
    VideoLayersAllocation,
    /// Video content type.
    VideoContentType,
    /// Video timing.
    VideoTiming,
    /// Transmission time offset (RFC 5450).
    TransmissionOffset,
    /// Colour space.
    ColorSpace,
}

impl ExtensionKind {
    /// Number of kinds.
    pub const COUNT: usize = 16;

    /// Every kind, in order of its discriminant.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::TransportCc02,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::AbsCaptureTime,
        Self::DependencyDescriptor,
        Self::VideoLayersAllocation,
        Self::VideoContentType,
        Self::VideoTiming,
        Self::TransmissionOffset,
        Self::ColorSpace,
    ];

    /// The URI of `a=extmap`.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::TransportCc02 => {
                "http://www.webrtc.org/experiments/rtp-hdrext/transport-wide-cc-02"
            }
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::VideoLayersAllocation => {
                "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"
            }
            Self::VideoContentType => {
                "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type"
            }
            Self::VideoTiming => "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
            Self::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::ColorSpace => "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
        }
    }

    /// The kind with this URI. For session set-up, not for the packet path.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.uri() == uri)
    }
}

/// Ids that have a direct slot. RFC 8285 one-byte form reaches 14 and nobody uses more by choice.
const DIRECT_IDS: usize = 16;
const NONE: u8 = 0xff;

/// The ids of one session's header extensions, 1–255 ↔ [`ExtensionKind`]. 32 bytes, both ways in constant time.
///
/// Ids below 16 have a direct slot; the rare larger ones are found by comparing all 16 kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionMap {
    /// By kind: the id, or 0 where the kind is not negotiated.
    ids: [u8; ExtensionKind::COUNT],
    /// By id below 16: the kind's discriminant, or `NONE`.
    kinds: [u8; DIRECT_IDS],
}

impl Default for ExtensionMap {
    fn default() -> Self {
        Self::new()
    }
}

impl ExtensionMap {
    /// A map in which nothing is negotiated.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ids: [0; ExtensionKind::COUNT],
            kinds: [NONE; DIRECT_IDS],
        }
    }

    /// Gives `kind` the id `id` (1–255). Whatever had this id, and whatever id this kind had, is forgotten.
    ///
    /// Returns `false`, and changes nothing, for id 0, which RFC 8285 reserves for padding.
    pub fn set(&mut self, id: u8, kind: ExtensionKind) -> bool {
        if id == 0 {
            return false;
        }
        if let Some(previous) = self.kind(id) {
            self.ids[previous as usize] = 0;
        }
        self.remove(kind);
        self.ids[kind as usize] = id;
        if let Some(slot) = self.kinds.get_mut(usize::from(id)) {
            *slot = kind as u8;
        }
        true
    }

    /// Forgets the id of `kind`.
    pub fn remove(&mut self, kind: ExtensionKind) {
        let id = std::mem::take(&mut self.ids[kind as usize]);
        if id != 0
            && let Some(slot) = self.kinds.get_mut(usize::from(id))
        {
            *slot = NONE;
        }
    }

    /// The id of `kind`, 1–255.
    #[inline]
    #[must_use]
    pub const fn id(&self, kind: ExtensionKind) -> Option<u8> {
        match self.ids[kind as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// The kind that has this id.
    #[inline]
    #[must_use]
    pub fn kind(&self, id: u8) -> Option<ExtensionKind> {
        let index = match self.kinds.get(usize::from(id)) {
            Some(kind) => usize::from(*kind),
            None => self.ids.iter().position(|other| *other == id)?,
        };
        ExtensionKind::ALL.get(index).copied()
    }

    /// All negotiated pairs, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (u8, ExtensionKind)> + '_ {
        ExtensionKind::ALL
            .into_iter()
            .filter_map(|kind| Some((self.id(kind)?, kind)))
    }

    /// Whether some id is over 14, so that the two-byte form is needed.
    #[must_use]
    pub fn needs_two_byte_form(&self) -> bool {
        self.ids.iter().any(|id| *id > 14)
    }
}

impl FromIterator<(u8, ExtensionKind)> for ExtensionMap {
    fn from_iter<I: IntoIterator<Item = (u8, ExtensionKind)>>(pairs: I) -> Self {
        let mut map = Self::new();
        for (id, kind) in pairs {
            map.set(id, kind);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn discriminants_and_uris_are_one_to_one() {
        for (index, kind) in ExtensionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(ExtensionKind::from_uri(kind.uri()), Some(kind));
        }
        assert_eq!(ExtensionKind::from_uri("urn:example:none"), None);
    }

    proptest! {
        #[test]
        fn the_map_is_a_list_of_pairs(ops in prop::collection::vec((0u8..=255, 0usize..16, 0u8..8), 0..60)) {
            let mut map = ExtensionMap::new();
            let mut shadow: Vec<(u8, ExtensionKind)> = Vec::new();
            for (id, kind, op) in ops {
                let kind = ExtensionKind::ALL[kind];
                let id = if op % 2 == 0 { id % 20 } else { id };
                if op == 7 {
                    map.remove(kind);
                    shadow.retain(|(_, k)| *k != kind);
                } else if map.set(id, kind) {
                    shadow.retain(|(i, k)| *i != id && *k != kind);
                    shadow.push((id, kind));
                } else {
                    prop_assert_eq!(id, 0);
                }
                for id in 0..=255 {
                    let want = shadow.iter().find(|(i, _)| *i == id).map(|(_, k)| *k);
                    prop_assert_eq!(map.kind(id), want);
                }
                for kind in ExtensionKind::ALL {
                    prop_assert_eq!(map.id(kind), shadow.iter().find(|(_, k)| *k == kind).map(|(i, _)| *i));
                }
                prop_assert_eq!(map.needs_two_byte_form(), shadow.iter().any(|(i, _)| *i > 14));
            }
            prop_assert_eq!(map.iter().collect::<ExtensionMap>(), map);
        }
    }
}
