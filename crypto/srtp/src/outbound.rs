//! Sealing what we send.
//!
//! The caller keeps an [`OutboundStream`] per SSRC, next to the state that rewrites its headers,
//! so that sealing a packet looks nothing up.

use crate::backend::{Associated, Deferred, Sealer};
use crate::inbound::{RTCP_ENCRYPTED, roc_bytes, rtp_trailer};
use crate::iv::IvMaker;
use crate::key::{Protocol, SessionKeys};
use crate::limits::{MAX_PACKET, OUTBOUND_SSRCS};
use crate::packet::{self, RTCP_CLEAR_HEADER};
use crate::profile::RTCP_INDEX_LEN;
use crate::replay::{ReplayWindow, Status};
use crate::{Backend, KeyError, MasterKey, Profile, SealError};

/// What one outgoing SSRC has sealed so far: its roll-over counter, and its last 1,024 indices.
///
/// Made by [`Outbound::stream`], once per SSRC, and used with that context only. It cannot be
/// copied: two copies would not know of each other's packets. Keep it as long as the session, even
/// while nothing is sent on the SSRC.
#[derive(Debug)]
pub struct OutboundStream {
    ssrc: u32,
    window: Option<ReplayWindow>,
}

impl OutboundStream {
    /// The stream's SSRC.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The highest packet index sealed, 0..2^48.
    #[must_use]
    pub fn highest_index(&self) -> Option<u64> {
        self.window.as_ref().map(ReplayWindow::highest)
    }

    /// The index of sequence number `seq`, with what is known of it.
    #[inline]
    fn locate(&self, seq: u16) -> Result<(u64, Status), SealError> {
        match &self.window {
            None => Ok((u64::from(seq), Status::Fresh)),
            Some(window) => {
                let index = window.estimate(seq).ok_or(SealError::KeyExhausted)?;
                Ok((index, window.status(index)))
            }
        }
    }

    #[inline]
    fn mark(&mut self, index: u64) {
        match &mut self.window {
            Some(window) => window.mark(index),
            None => self.window = Some(ReplayWindow::new(index)),
        }
    }
}

/// Seals SRTP and SRTCP for one peer, that is, for one direction of one DTLS session.
pub struct Outbound {
    profile: Profile,
    rtp: Deferred<dyn Sealer>,
    rtp_iv: IvMaker,
    rtcp: Box<dyn Sealer>,
    rtcp_iv: IvMaker,
    /// The next SRTCP index, 0..=2^31. One counter for all SSRCs keeps every index unique.
    rtcp_index: u32,
    /// SSRCs whose handles were given out.
    ssrcs: Vec<u32>,
    max_ssrcs: usize,
}

impl Outbound {
    /// A context that seals under `key`.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the library cannot set the key up.
    pub fn new(backend: Backend, key: &MasterKey) -> Result<Outbound, KeyError> {
        Outbound::with_max_ssrcs(backend, key, OUTBOUND_SSRCS)
    }

    /// As [`Outbound::new`], with room for `max_ssrcs` streams.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the library cannot set the key up.
    pub fn with_max_ssrcs(
        backend: Backend,
        key: &MasterKey,
        max_ssrcs: usize,
    ) -> Result<Outbound, KeyError> {
        let rtp = key.derive(backend, Protocol::Rtp)?;
        let rtcp = key.derive(backend, Protocol::Rtcp)?;
        Outbound::from_session_keys(backend, rtp, &rtcp, max_ssrcs)
    }

    pub(crate) fn from_session_keys(
        backend: Backend,
        rtp: SessionKeys,
        rtcp: &SessionKeys,
        max_ssrcs: usize,
    ) -> Result<Outbound, KeyError> {
        Ok(Outbound {
            profile: rtp.profile(),
            rtp_iv: IvMaker::new(rtp.profile(), rtp.salt()),
            rtp: Deferred::new(backend, rtp),
            rtcp: backend.sealer(rtcp)?,
            rtcp_iv: IvMaker::new(rtcp.profile(), rtcp.salt()),
            rtcp_index: 0,
            ssrcs: Vec::new(),
            max_ssrcs,
        })
    }

    /// The profile in use.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The handle of a new outgoing SSRC.
    ///
    /// Begin its sequence numbers below 2^15, so that a receiver that misses the first packets
    /// still starts in the right cycle (RFC 3711 §3.3.1).
    ///
    /// # Errors
    /// [`SealError::SsrcInUse`] if this SSRC had a handle before, since a second one would repeat
    /// packet indices; [`SealError::TooManySsrcs`] at the session's limit.
    pub fn stream(&mut self, ssrc: u32) -> Result<OutboundStream, SealError> {
        if self.ssrcs.contains(&ssrc) {
            return Err(SealError::SsrcInUse);
        }
        if self.ssrcs.len() >= self.max_ssrcs {
            return Err(SealError::TooManySsrcs);
        }
        self.ssrcs.push(ssrc);
        Ok(OutboundStream { ssrc, window: None })
    }

    /// Seals one new RTP packet into `out` and returns its length there: header, payload, tag.
    ///
    /// `header` is a whole RTP header with CSRCs and extension. Packets may come out of order,
    /// each sequence number once.
    ///
    /// # Errors
    /// [`SealError::IndexReused`] and [`SealError::TooOld`] guard the key: nothing was sealed, and
    /// the caller's sequence numbers are wrong. See [`SealError`] for the rest.
    #[inline]
    pub fn seal_rtp(
        &mut self,
        stream: &mut OutboundStream,
        header: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        out.get_mut(..header.len())
            .ok_or(SealError::OutputTooSmall)?
            .copy_from_slice(header);
        self.seal_rtp_after(stream, header.len(), payload, out)
    }

    /// As [`Outbound::seal_rtp`], with the header already in `out[..header_len]`.
    ///
    /// # Errors
    /// As [`Outbound::seal_rtp`].
    #[inline]
    pub fn seal_rtp_after(
        &mut self,
        stream: &mut OutboundStream,
        header_len: usize,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let parts = RtpParts::split(self.profile, stream, header_len, payload, out)?;
        let (index, status) = stream.locate(parts.seq)?;
        match status {
            Status::Fresh => {}
            Status::Used => return Err(SealError::IndexReused),
            Status::TooOld => return Err(SealError::TooOld),
        }
        // Marked first: should sealing fail half-way, the index is lost rather than at risk.
        stream.mark(index);
        self.seal_parts(stream.ssrc, index, parts, payload)
    }

    /// Seals again a packet that was sealed before, to repeat it on the same SSRC.
    ///
    /// **Header and payload must be the very bytes that were sealed the first time**, header
    /// extensions included. Under AES-GCM, two different packets with one index give an attacker
    /// the authentication key; a transport-wide sequence number that was renewed is such a
    /// difference. Repairs sent by RTX (RFC 4588) have an SSRC and sequence numbers of their own
    /// and use [`Outbound::seal_rtp`]; prefer them.
    ///
    /// # Errors
    /// [`SealError::NeverSealed`] if the index is new, [`SealError::TooOld`] if it has left the
    /// window of 1,024 packets. See [`SealError`] for the rest.
    pub fn reseal_rtp(
        &mut self,
        stream: &OutboundStream,
        header: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        out.get_mut(..header.len())
            .ok_or(SealError::OutputTooSmall)?
            .copy_from_slice(header);
        let parts = RtpParts::split(self.profile, stream, header.len(), payload, out)?;
        let (index, status) = stream.locate(parts.seq)?;
        match status {
            Status::Used => self.seal_parts(stream.ssrc, index, parts, payload),
            Status::Fresh => Err(SealError::NeverSealed),
            Status::TooOld => Err(SealError::TooOld),
        }
    }

    #[inline]
    fn seal_parts(
        &mut self,
        ssrc: u32,
        index: u64,
        parts: RtpParts<'_>,
        payload: &[u8],
    ) -> Result<usize, SealError> {
        let roc = roc_bytes(index);
        let trailer = rtp_trailer(self.profile, &roc);
        let associated = Associated {
            header: parts.header,
            trailer,
        };
        let iv = self.rtp_iv.iv(ssrc, index);
        self.rtp
            .get()
            .and_then(|sealer| sealer.seal(&iv, associated, payload, parts.ciphertext, parts.tag))
            .map_err(|_| SealError::Backend)?;
        Ok(parts.header.len() + parts.ciphertext.len() + parts.tag.len())
    }

    /// Seals a compound RTCP packet into `out` and returns its length there.
    ///
    /// # Errors
    /// [`SealError::KeyExhausted`] after 2^31 packets. See [`SealError`] for the rest.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let ssrc = packet::rtcp_ssrc(packet).ok_or(SealError::Malformed)?;
        let len = packet.len() + self.profile.rtcp_overhead();
        if len > MAX_PACKET {
            return Err(SealError::TooLong);
        }
        let (header, payload) = packet
            .split_at_checked(RTCP_CLEAR_HEADER)
            .ok_or(SealError::Malformed)?;
        let out = out.get_mut(..len).ok_or(SealError::OutputTooSmall)?;
        let (out_header, rest) = out
            .split_at_mut_checked(RTCP_CLEAR_HEADER)
            .ok_or(SealError::OutputTooSmall)?;
        let (ciphertext, tail) = rest
            .split_at_mut_checked(payload.len())
            .ok_or(SealError::OutputTooSmall)?;
        // RFC 7714 §9.2: the tag precedes the ESRTCP word; RFC 3711 §3.4: it follows.
        let (tag, word) = if self.profile.is_aead() {
            tail.split_at_mut_checked(self.profile.tag_len())
                .ok_or(SealError::OutputTooSmall)?
        } else {
            let (word, tag) = tail
                .split_at_mut_checked(RTCP_INDEX_LEN)
                .ok_or(SealError::OutputTooSmall)?;
            (tag, word)
        };
        // RFC 3711 §9.2: "When 2^48 SRTP packets or 2^31 SRTCP packets have been secured with the
        // same key (whichever occurs before), the key management MUST be called to provide new
        // master key(s) (previously stored and used keys MUST NOT be used again), or the session
        // MUST be terminated." DTLS-SRTP sessions are: there is no re-keying.
        if self.rtcp_index >= RTCP_ENCRYPTED {
            return Err(SealError::KeyExhausted);
        }
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        let word_value = (index | RTCP_ENCRYPTED).to_be_bytes();
        let associated = Associated {
            header,
            trailer: &word_value,
        };
        let iv = self.rtcp_iv.iv(ssrc, u64::from(index));
        self.rtcp
            .seal(&iv, associated, payload, ciphertext, tag)
            .map_err(|_| SealError::Backend)?;
        out_header.copy_from_slice(header);
        word.copy_from_slice(&word_value);
        Ok(len)
    }
}

/// The places of a sealed RTP packet in the caller's buffer.
struct RtpParts<'a> {
    header: &'a [u8],
    ciphertext: &'a mut [u8],
    tag: &'a mut [u8],
    seq: u16,
}

impl<'a> RtpParts<'a> {
    /// Checks the header in `out[..header_len]` and splits `out`.
    #[inline]
    fn split(
        profile: Profile,
        stream: &OutboundStream,
        header_len: usize,
        payload: &[u8],
        out: &'a mut [u8],
    ) -> Result<Self, SealError> {
        let len = header_len
            .checked_add(payload.len())
            .and_then(|len| len.checked_add(profile.tag_len()))
            .filter(|len| *len <= MAX_PACKET)
            .ok_or(SealError::TooLong)?;
        let out = out.get_mut(..len).ok_or(SealError::OutputTooSmall)?;
        let (header, rest) = out
            .split_at_mut_checked(header_len)
            .ok_or(SealError::OutputTooSmall)?;
        let parsed = packet::parse_rtp(header).ok_or(SealError::Malformed)?;
        if parsed.len != header_len {
            return Err(SealError::Malformed);
        }
        if parsed.ssrc != stream.ssrc {
            return Err(SealError::WrongSsrc);
        }
        let (ciphertext, tag) = rest
            .split_at_mut_checked(payload.len())
            .ok_or(SealError::OutputTooSmall)?;
        Ok(RtpParts {
            header,
            ciphertext,
            tag,
            seq: parsed.seq,
        })
    }
}
