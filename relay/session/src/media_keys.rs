//! The SRTP contexts of a connected session, both directions.

use crate::refusal::{Refusal, SealError};
use crate::tap::TappedKeys;
use sealcast_srtp::{
    Backend, Inbound, KeyError, MasterKey, OpenError, Outbound, OutboundStream, Profile,
    SealError as SrtpSealError,
};

/// Bytes that a processor fetches at once.
const CACHE_LINE: usize = 64;

/// Opens and seals a session's media. Exists from `Connected` on.
pub struct MediaKeys {
    profile: Profile,
    inbound: Inbound,
    outbound: Outbound,
    /// One per SSRC we have sent on, sorted by it.
    streams: Vec<OutboundStream>,
    /// The place of the last packet's stream.
    last: usize,
}

impl MediaKeys {
    /// Contexts for the DTLS server, which the relay always is.
    pub(crate) fn new(backend: Backend, keys: &TappedKeys) -> Result<MediaKeys, KeyError> {
        let (client, server) = MasterKey::pair_from_dtls(keys.profile, &keys.material)?;
        Ok(MediaKeys {
            profile: keys.profile,
            inbound: Inbound::new(backend, &client)?,
            outbound: Outbound::new(backend, &server)?,
            streams: Vec::new(),
            last: 0,
        })
    }

    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    /// Bytes that [`seal_rtp`](Self::seal_rtp) adds to a packet: the profile's tag.
    #[must_use]
    #[inline]
    pub fn rtp_overhead(&self) -> usize {
        self.profile.rtp_overhead()
    }

    /// Bytes that [`seal_rtcp`](Self::seal_rtcp) adds: tag and index.
    #[must_use]
    pub fn rtcp_overhead(&self) -> usize {
        self.profile.rtcp_overhead()
    }

    pub(crate) fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Refusal> {
        self.inbound
            .open_rtp(packet)
            .map(|opened| opened.len)
            .map_err(refusal)
    }

    pub(crate) fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Refusal> {
        self.inbound.open_rtcp(packet).map_err(refusal)
    }

    /// As [`Session::seal_rtp`](crate::Session::seal_rtp).
    ///
    /// # Errors
    /// [`SealError`].
    #[inline]
    pub fn seal_rtp(
        &mut self,
        header: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        // RFC 3550 §5.1: the SSRC stands at byte 8.
        let ssrc = header
            .get(8..12)
            .and_then(|s| s.try_into().ok())
            .map(u32::from_be_bytes);
        let ssrc = ssrc.ok_or(SealError::Malformed)?;
        // Packets of one stream come in runs.
        let stream = match self.streams.get_mut(self.last) {
            Some(last) if last.ssrc() == ssrc => last,
            _ => {
                let found = self.stream(ssrc)?;
                self.streams.get_mut(found).ok_or(SealError::Malformed)?
            }
        };
        self.outbound
            .seal_rtp(stream, header, payload, out)
            .map_err(seal_error)
    }

    /// As [`Session::seal_rtcp`](crate::Session::seal_rtcp).
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtcp(&mut self, rtcp: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        self.outbound.seal_rtcp(rtcp, out).map_err(seal_error)
    }

    /// Where that lies which sealing a packet reads first: the context, from its beginning on, and
    /// the way to the stream's window.
    pub(crate) fn hot(&self) -> [*const u8; 3] {
        let keys = std::ptr::from_ref(&self.outbound).cast::<u8>();
        let streams = std::ptr::from_ref(&self.streams).cast();
        [keys, keys.wrapping_add(CACHE_LINE), streams]
    }

    /// Where the window of the stream lies that was sealed for last. Reads what
    /// [`hot`](Self::hot) names.
    pub(crate) fn hot_stream(&self) -> Option<[*const u8; 3]> {
        let stream = std::ptr::from_ref(self.streams.get(self.last)?).cast::<u8>();
        Some([0, 1, 2].map(|line| stream.wrapping_add(line * CACHE_LINE)))
    }

    /// The place of an SSRC's stream, which is made with its first packet.
    #[inline(never)]
    fn stream(&mut self, ssrc: u32) -> Result<usize, SealError> {
        self.last = match self
            .streams
            .binary_search_by_key(&ssrc, OutboundStream::ssrc)
        {
            Ok(found) => found,
            Err(place) => {
                let stream = self.outbound.stream(ssrc).map_err(seal_error)?;
                self.streams.insert(place, stream);
                place
            }
        };
        Ok(self.last)
    }
}

fn refusal(error: OpenError) -> Refusal {
    match error {
        OpenError::AuthFailed | OpenError::Unencrypted | OpenError::Backend => Refusal::SrtpAuth,
        OpenError::Replayed | OpenError::TooOld => Refusal::SrtpReplay,
        OpenError::TooManySsrcs => Refusal::SrtpTooManySsrcs,
        OpenError::TooShort
        | OpenError::TooLong
        | OpenError::Malformed
        | OpenError::OutputTooSmall => Refusal::SrtpMalformed,
    }
}

fn seal_error(error: SrtpSealError) -> SealError {
    match error {
        SrtpSealError::OutputTooSmall => SealError::OutputTooShort,
        SrtpSealError::KeyExhausted => SealError::KeyExhausted,
        SrtpSealError::TooManySsrcs => SealError::TooManySsrcs,
        SrtpSealError::IndexReused | SrtpSealError::TooOld => SealError::IndexReused,
        SrtpSealError::Backend => SealError::Backend,
        SrtpSealError::TooLong
        | SrtpSealError::Malformed
        | SrtpSealError::WrongSsrc
        | SrtpSealError::SsrcInUse
        | SrtpSealError::NeverSealed => SealError::Malformed,
    }
}
