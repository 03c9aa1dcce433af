//! Opening what a peer sent: header check, index estimate, replay check, decryption, in this order.

use crate::backend::{Associated, Deferred, Opener, Reject};
use crate::iv::IvMaker;
use crate::key::{Protocol, SessionKeys};
use crate::limits::{INBOUND_SSRCS, MAX_PACKET};
use crate::packet::{self, RTCP_CLEAR_HEADER, RtpHeader};
use crate::profile::RTCP_INDEX_LEN;
use crate::replay::{ReplayWindow, Status};
use crate::{Backend, KeyError, MasterKey, OpenError, Profile};

/// The E flag: the packet is encrypted (RFC 3711 §3.4).
pub(crate) const RTCP_ENCRYPTED: u32 = 1 << 31;

/// An opened RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedRtp {
    /// Bytes of the plaintext packet, header included.
    pub len: usize,
    /// Bytes of fixed header, CSRCs and header extension.
    pub header_len: usize,
    /// SSRC of the stream.
    pub ssrc: u32,
    /// Packet index: the sequence number extended by the roll-over counter, 0..2^48.
    pub index: u64,
}

/// Opens the SRTP and SRTCP of one peer, that is, of one direction of one DTLS session.
pub struct Inbound {
    profile: Profile,
    rtp: Deferred<dyn Opener>,
    rtp_iv: IvMaker,
    rtp_streams: SsrcTable,
    rtcp: Box<dyn Opener>,
    rtcp_iv: IvMaker,
    rtcp_streams: SsrcTable,
}

impl Inbound {
    /// A context that opens what was sealed under `key`.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the library cannot set the key up.
    pub fn new(backend: Backend, key: &MasterKey) -> Result<Inbound, KeyError> {
        Inbound::with_max_ssrcs(backend, key, INBOUND_SSRCS)
    }

    /// As [`Inbound::new`], with room for `max_ssrcs` SSRCs of RTP and as many of RTCP.
    ///
    /// There is no way to forget an SSRC: its packets could then be replayed.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the library cannot set the key up.
    pub fn with_max_ssrcs(
        backend: Backend,
        key: &MasterKey,
        max_ssrcs: usize,
    ) -> Result<Inbound, KeyError> {
        let rtp = key.derive(backend, Protocol::Rtp)?;
        let rtcp = key.derive(backend, Protocol::Rtcp)?;
        Inbound::from_session_keys(backend, rtp, &rtcp, max_ssrcs)
    }

    pub(crate) fn from_session_keys(
        backend: Backend,
        rtp: SessionKeys,
        rtcp: &SessionKeys,
        max_ssrcs: usize,
    ) -> Result<Inbound, KeyError> {
        Ok(Inbound {
            profile: rtp.profile(),
            rtp_iv: IvMaker::new(rtp.profile(), rtp.salt()),
            rtp: Deferred::new(backend, rtp),
            rtp_streams: SsrcTable::new(max_ssrcs),
            rtcp: backend.opener(rtcp)?,
            rtcp_iv: IvMaker::new(rtcp.profile(), rtcp.salt()),
            rtcp_streams: SsrcTable::new(max_ssrcs),
        })
    }

    /// The profile in use.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens a whole SRTP packet in place: `packet[..len]` is the RTP packet then.
    ///
    /// # Errors
    /// See [`OpenError`]; the packet's payload is unspecified then, and no state has changed.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<OpenedRtp, OpenError> {
        let pending = self.check_rtp(packet)?;
        let (header, rest) = packet
            .split_at_mut_checked(pending.header.len)
            .ok_or(OpenError::TooShort)?;
        let (data, tag) = rest
            .split_at_mut_checked(pending.body_len)
            .ok_or(OpenError::TooShort)?;
        let roc = pending.roc();
        let associated = Associated {
            header,
            trailer: rtp_trailer(self.profile, &roc),
        };
        self.rtp
            .get()
            .map_err(Reject::from)?
            .open_in_place(&pending.iv, associated, data, tag)?;
        Ok(self.commit_rtp(&pending))
    }

    /// Opens a whole SRTP packet into `out`, leaving `packet` as it is. Returns as
    /// [`Inbound::open_rtp`] does; `out[..len]` is the RTP packet.
    ///
    /// # Errors
    /// See [`OpenError`]; the contents of `out` are unspecified then, and no state has changed.
    pub fn open_rtp_to(&mut self, packet: &[u8], out: &mut [u8]) -> Result<OpenedRtp, OpenError> {
        let pending = self.check_rtp(packet)?;
        let (header, rest) = packet
            .split_at_checked(pending.header.len)
            .ok_or(OpenError::TooShort)?;
        let (data, tag) = rest
            .split_at_checked(pending.body_len)
            .ok_or(OpenError::TooShort)?;
        let (out_header, out_data) = out
            .split_at_mut_checked(header.len())
            .ok_or(OpenError::OutputTooSmall)?;
        let out_data = out_data
            .get_mut(..data.len())
            .ok_or(OpenError::OutputTooSmall)?;
        let roc = pending.roc();
        let associated = Associated {
            header,
            trailer: rtp_trailer(self.profile, &roc),
        };
        self.rtp.get().map_err(Reject::from)?.open_to(
            &pending.iv,
            associated,
            data,
            tag,
            out_data,
        )?;
        out_header.copy_from_slice(header);
        Ok(self.commit_rtp(&pending))
    }

    /// Opens a whole SRTCP packet in place and returns the length of the compound RTCP packet
    /// that `packet` starts with then, in bytes.
    ///
    /// # Errors
    /// See [`OpenError`]; the packet's payload is unspecified then, and no state has changed.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        if packet.len() > MAX_PACKET {
            return Err(OpenError::TooLong);
        }
        let body_len = packet
            .len()
            .checked_sub(RTCP_CLEAR_HEADER + self.profile.rtcp_overhead())
            .ok_or(OpenError::TooShort)?;
        let ssrc = packet::rtcp_ssrc(packet).ok_or(OpenError::Malformed)?;
        let (header, rest) = packet
            .split_at_mut_checked(RTCP_CLEAR_HEADER)
            .ok_or(OpenError::TooShort)?;
        let (data, tail) = rest
            .split_at_mut_checked(body_len)
            .ok_or(OpenError::TooShort)?;
        // RFC 7714 §9.2: the tag precedes the ESRTCP word; RFC 3711 §3.4: it follows.
        let (tag, word) = if self.profile.is_aead() {
            tail.split_at_checked(self.profile.tag_len())
                .ok_or(OpenError::TooShort)?
        } else {
            let (word, tag) = tail
                .split_at_checked(RTCP_INDEX_LEN)
                .ok_or(OpenError::TooShort)?;
            (tag, word)
        };
        let word_value = word.first_chunk().map(|w| u32::from_be_bytes(*w));
        let word_value = word_value.ok_or(OpenError::TooShort)?;
        if word_value & RTCP_ENCRYPTED == 0 {
            return Err(OpenError::Unencrypted);
        }
        let index = u64::from(word_value & !RTCP_ENCRYPTED);
        let position = self.rtcp_streams.find(ssrc);
        self.rtcp_streams.admit(position, index)?;
        let iv = self.rtcp_iv.iv(ssrc, index);
        self.rtcp.open_in_place(
            &iv,
            Associated {
                header,
                trailer: word,
            },
            data,
            tag,
        )?;
        self.rtcp_streams.mark(position, ssrc, index);
        Ok(RTCP_CLEAR_HEADER + body_len)
    }

    /// Everything that can be refused before decryption.
    #[inline]
    fn check_rtp(&mut self, packet: &[u8]) -> Result<PendingRtp, OpenError> {
        if packet.len() > MAX_PACKET {
            return Err(OpenError::TooLong);
        }
        let sealed_len = packet
            .len()
            .checked_sub(self.profile.tag_len())
            .filter(|len| *len >= packet::RTP_FIXED_HEADER)
            .ok_or(OpenError::TooShort)?;
        // The tag is no part of the header, however long the header claims to be.
        let header = packet::parse_rtp(packet.get(..sealed_len).ok_or(OpenError::TooShort)?)
            .ok_or(OpenError::Malformed)?;
        let position = self.rtp_streams.find(header.ssrc);
        let index = match position.and_then(|p| self.rtp_streams.window(p)) {
            // RFC 3711 §3.3.1: a session's roll-over counters start at zero.
            None => u64::from(header.seq),
            Some(window) => window.estimate(header.seq).ok_or(OpenError::TooOld)?,
        };
        self.rtp_streams.admit(position, index)?;
        Ok(PendingRtp {
            header,
            body_len: sealed_len - header.len,
            index,
            position,
            iv: self.rtp_iv.iv(header.ssrc, index),
        })
    }

    #[inline]
    fn commit_rtp(&mut self, pending: &PendingRtp) -> OpenedRtp {
        self.rtp_streams
            .mark(pending.position, pending.header.ssrc, pending.index);
        OpenedRtp {
            len: pending.header.len + pending.body_len,
            header_len: pending.header.len,
            ssrc: pending.header.ssrc,
            index: pending.index,
        }
    }
}

/// What [`Associated::trailer`] is for an RTP packet with this ROC.
#[inline]
pub(crate) fn rtp_trailer(profile: Profile, roc: &[u8; 4]) -> &[u8] {
    if profile.is_aead() { &[] } else { roc }
}

/// The roll-over counter of an index, as it is authenticated.
#[inline]
pub(crate) fn roc_bytes(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// An RTP packet that has passed every check but authentication.
struct PendingRtp {
    header: RtpHeader,
    body_len: usize,
    index: u64,
    position: Option<usize>,
    iv: [u8; 16],
}

impl PendingRtp {
    fn roc(&self) -> [u8; 4] {
        roc_bytes(self.index)
    }
}

impl From<Reject> for OpenError {
    fn from(reject: Reject) -> OpenError {
        match reject {
            Reject::Tag => OpenError::AuthFailed,
            Reject::Fault => OpenError::Backend,
        }
    }
}

/// The replay windows of a session's SSRCs, found by linear search: sessions have a handful, and
/// the numbers lie side by side.
struct SsrcTable {
    max: usize,
    ssrcs: Vec<u32>,
    windows: Vec<ReplayWindow>,
    /// Where the last packet's SSRC was found; a frame's packets follow each other.
    last: usize,
}

impl SsrcTable {
    fn new(max: usize) -> Self {
        SsrcTable {
            max,
            ssrcs: Vec::new(),
            windows: Vec::new(),
            last: 0,
        }
    }

    #[inline]
    fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Some(self.last);
        }
        let position = self.ssrcs.iter().position(|s| *s == ssrc)?;
        self.last = position;
        Some(position)
    }

    #[inline]
    fn window(&self, position: usize) -> Option<&ReplayWindow> {
        self.windows.get(position)
    }

    /// Whether a packet may still count, before the work of authenticating it.
    #[inline]
    fn admit(&self, position: Option<usize>, index: u64) -> Result<(), OpenError> {
        match position
            .and_then(|p| self.window(p))
            .map(|w| w.status(index))
        {
            None if self.ssrcs.len() >= self.max => Err(OpenError::TooManySsrcs),
            None | Some(Status::Fresh) => Ok(()),
            Some(Status::Used) => Err(OpenError::Replayed),
            Some(Status::TooOld) => Err(OpenError::TooOld),
        }
    }

    /// Records an authenticated packet; a new SSRC gets its window here and nowhere else.
    #[inline]
    fn mark(&mut self, position: Option<usize>, ssrc: u32, index: u64) {
        match position.and_then(|p| self.windows.get_mut(p)) {
            Some(window) => window.mark(index),
            None => {
                self.last = self.ssrcs.len();
                // Most sessions send on one or two SSRCs; a window is 136 bytes.
                self.ssrcs.reserve_exact(1);
                self.windows.reserve_exact(1);
                self.ssrcs.push(ssrc);
                self.windows.push(ReplayWindow::new(index));
            }
        }
    }
}
