//! The session's state machine.

use crate::context::SessionContext;
use crate::path::Path;
use crate::refusal::{Refusal, SealError, SessionError};
use sealcast_model::{CloseReason, SessionId, Time, WebRtcParams};

/// What a session wants done.
#[derive(Debug)]
pub enum SessionOutput {
    /// Send this datagram (or RFC 4571 frame payload) on this path, which is not always the
    /// current one: STUN is answered where it came from.
    Transmit {
        /// Where to.
        path: Path,
        /// STUN or DTLS.
        bytes: Vec<u8>,
    },
    /// Route packets of this 5-tuple to the session. A later `PathAdded` of another session
    /// takes the 5-tuple over.
    PathAdded(Path),
    /// Stop routing this 5-tuple to the session, if it is still routed to it.
    PathRemoved(Path),
    /// [`Session::path`] moved from one address to another.
    PathMoved,
    /// DTLS is done: media may flow.
    Connected {
        /// `"1.2"` or `"1.3"`.
        dtls: &'static str,
        /// IANA name of the SRTP profile.
        srtp_profile: &'static str,
    },
    /// The data channel is open.
    DataOpen,
    /// A message on the data channel.
    Data {
        /// Binary or text.
        binary: bool,
        /// At most [`sealcast_model::limits::DATA_MESSAGE_MAX`] bytes.
        data: Vec<u8>,
    },
    /// A message was dropped: too long, or not on the session's channel.
    DataRefused,
    /// The session ended by itself or after [`Session::close`]; nothing but earlier outputs was
    /// or will be produced. Comes exactly once.
    Closed(CloseReason),
}

/// One client's transport.
pub struct Session {}

impl Session {
    /// A session that waits for its client's first STUN request until
    /// [`CONNECT_DEADLINE`](sealcast_model::limits::CONNECT_DEADLINE).
    ///
    /// # Errors
    /// [`SessionError`] if `params` are not usable.
    pub fn new(
        _now: Time,
        _ctx: &SessionContext,
        _id: SessionId,
        _params: &WebRtcParams,
    ) -> Result<Session, SessionError> {
        unimplemented!()
    }

    /// Takes a STUN or DTLS packet (first byte 0–3 or 20–63).
    ///
    /// # Errors
    /// [`Refusal`]: count it; the session is as it was.
    pub fn handle_packet(&mut self, _now: Time, _from: Path, _packet: &[u8]) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Opens an SRTP packet in place; `packet[..len]` is then the RTP packet. One that is the
    /// newest of its stream moves the path to `from`.
    ///
    /// # Errors
    /// [`Refusal`]: count it; the bytes are then garbage.
    pub fn open_rtp(&mut self, _now: Time, _from: Path, _packet: &mut [u8]) -> Result<usize, Refusal> {
        unimplemented!()
    }

    /// Opens an SRTCP packet in place; `packet[..len]` is then the compound RTCP packet.
    ///
    /// # Errors
    /// [`Refusal`]: count it; the bytes are then garbage.
    pub fn open_rtcp(&mut self, _now: Time, _from: Path, _packet: &mut [u8]) -> Result<usize, Refusal> {
        unimplemented!()
    }

    /// Seals an RTP packet out of place: `out[..len]` becomes `header` and the protected
    /// `payload`. `index` is the 48-bit packet index, roll-over counter above sequence number
    /// (RFC 3711 §3.3.1); the same index and SSRC must not be sealed twice with other bytes.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtp(
        &mut self,
        _index: u64,
        _header: &[u8],
        _payload: &[u8],
        _out: &mut [u8],
    ) -> Result<usize, SealError> {
        unimplemented!()
    }

    /// Seals a compound RTCP packet into `out`. The SRTCP index is the session's own.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtcp(&mut self, _rtcp: &[u8], _out: &mut [u8]) -> Result<usize, SealError> {
        unimplemented!()
    }

    /// Bytes that [`Session::seal_rtp`] adds to a packet: the profile's tag. 0 before connected.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        unimplemented!()
    }

    /// Bytes that [`Session::seal_rtcp`] adds: tag and index. 0 before connected.
    #[must_use]
    pub fn rtcp_overhead(&self) -> usize {
        unimplemented!()
    }

    /// Media may be opened and sealed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        unimplemented!()
    }

    /// Where egress goes; `None` before the client nominated a pair and after consent lapsed.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        unimplemented!()
    }

    /// The session's name, as given.
    #[must_use]
    pub fn id(&self) -> SessionId {
        unimplemented!()
    }

    /// Every path that was announced by `PathAdded` and not removed. After `Closed` these are
    /// for the shard to unroute.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::empty()
    }

    /// The I/O layer lost this path (a TCP connection closed).
    pub fn path_closed(&mut self, _now: Time, _path: &Path) {
        unimplemented!()
    }

    /// Sends a message on the data channel.
    ///
    /// # Errors
    /// [`SealError::ChannelBusy`] if there is no channel or its buffer is full,
    /// [`SealError::MessageTooLong`].
    pub fn send_data(&mut self, _now: Time, _binary: bool, _data: &[u8]) -> Result<(), SealError> {
        unimplemented!()
    }

    /// Runs timers that are due.
    pub fn handle_timeout(&mut self, _now: Time) {
        unimplemented!()
    }

    /// When to call [`Session::handle_timeout`] next; [`Time::NEVER`] once closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        unimplemented!()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        unimplemented!()
    }

    /// Ends the session: sends a DTLS close_notify, then `Closed(reason)`.
    pub fn close(&mut self, _now: Time, _reason: CloseReason) {
        unimplemented!()
    }
}
