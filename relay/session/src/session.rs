//! The session's state machine: demultiplexing, str0m, paths and timers.

use crate::context::SessionContext;
use crate::limits;
use crate::media_keys::MediaKeys;
use crate::path::{Change, Path, PathTable};
use crate::refusal::{Refusal, SealError, SessionError};
use crate::stun::Stun;
use crate::tap::{Tap, build_with};
use sealcast_model::limits::{CONNECT_DEADLINE, CONSENT_TIMEOUT, DATA_MESSAGE_MAX};
use sealcast_model::{CloseReason, SessionId, Time, WebRtcParams};
use sealcast_rtp::demux::{Protocol as PacketKind, classify};
use sealcast_srtp::Profile;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use str0m::change::DirectApi;
use str0m::channel::{ChannelData, ChannelId};
use str0m::config::Fingerprint;
use str0m::crypto::dtls::{DtlsVersion, ProtocolVersion};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::{Event, Input, Output, Rtc, RtcConfig, RtcError};
use tracing::debug;

/// The label of the session's data channel.
const CHANNEL_LABEL: &str = "sealcast";

/// The addresses that str0m believes DTLS to come between (RFC 5737, reserved for documentation).
const PLACEHOLDER_LOCAL: SocketAddr = placeholder(1);
const PLACEHOLDER_REMOTE: SocketAddr = placeholder(2);

const fn placeholder(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 9)
}

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
    /// [`Session::path`] is another one than before.
    PathMoved,
    /// ICE and DTLS are done: media may flow.
    Connected {
        /// `"1.2"` or `"1.3"`.
        dtls: &'static str,
        /// The SRTP profile.
        srtp_profile: Profile,
    },
    /// The data channel is open.
    DataOpen,
    /// A message on the data channel.
    Data {
        /// Binary or text.
        binary: bool,
        /// At most [`DATA_MESSAGE_MAX`] bytes.
        data: Vec<u8>,
    },
    /// A message was dropped: too long, or not on the session's channel.
    DataRefused,
    /// The session ended, by itself or after [`Session::close`]. Comes exactly once, and last.
    Closed(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for ICE and DTLS until the deadline.
    Connecting {
        deadline: Time,
    },
    /// Media may flow.
    Connected,
    Closed,
}

/// One client's transport. The relay is ICE-lite and DTLS server.
pub struct Session {
    id: SessionId,
    ctx: SessionContext,
    params: WebRtcParams,
    state: State,
    rtc: Rtc,
    /// When str0m wants to be called.
    rtc_timeout: Time,
    tap: Tap,
    media: Option<Box<MediaKeys>>,
    paths: PathTable,
    /// The newest authenticated STUN request on any path.
    last_consent: Time,
    /// The data channel with the label [`CHANNEL_LABEL`].
    channel: Option<ChannelId>,
    /// Channels with other labels: tolerated, not listened to.
    other_channels: Vec<ChannelId>,
    outputs: VecDeque<SessionOutput>,
}

impl Session {
    /// A session that waits for its client's first STUN request until [`CONNECT_DEADLINE`].
    ///
    /// # Errors
    /// [`SessionError`] if `params` are not usable.
    pub fn new(
        now: Time,
        ctx: &SessionContext,
        id: SessionId,
        params: &WebRtcParams,
    ) -> Result<Session, SessionError> {
        check_credentials(params)?;
        let tap = Tap::with_datagrams();
        let start = ctx.instant(now);
        let config = RtcConfig::new()
            .set_crypto_provider(ctx.crypto().clone())
            .set_dtls_cert(ctx.certificate().clone())
            .set_dtls_version(DtlsVersion::Auto)
            // Its ICE agent is told of nothing: STUN is answered here.
            .set_ice_lite(true)
            .clear_codecs()
            .clear_extension_map()
            .set_sctp_max_message_size(DATA_MESSAGE_MAX as u32)
            .set_sctp_max_buffered_amount(limits::DATA_BUFFER);
        let mut rtc = build_with(ctx.dtls(), &tap, || config.build(start));
        start_engine(&mut rtc.direct_api(), params)
            .map_err(|e| SessionError::Engine(e.to_string()))?;

        let mut session = Session {
            id,
            ctx: ctx.clone(),
            params: params.clone(),
            state: State::Connecting {
                deadline: now + CONNECT_DEADLINE,
            },
            rtc,
            rtc_timeout: now,
            tap,
            media: None,
            paths: PathTable::default(),
            last_consent: now,
            channel: None,
            other_channels: Vec::new(),
            outputs: VecDeque::new(),
        };
        session.drive(now);
        Ok(session)
    }

    /// Takes a STUN or DTLS packet (first byte 0–3 or 20–63).
    ///
    /// # Errors
    /// [`Refusal`]: count it; the session is as it was.
    pub fn handle_packet(&mut self, now: Time, from: Path, packet: &[u8]) -> Result<(), Refusal> {
        if self.state == State::Closed {
            return Err(Refusal::Closed);
        }
        match classify(packet) {
            PacketKind::Stun => self.handle_stun(now, from, packet),
            PacketKind::Dtls => self.handle_dtls(now, &from, packet),
            _ => Err(Refusal::UnknownProtocol),
        }
    }

    /// Opens an SRTP packet in place; `packet[..len]` is then the RTP packet. That it
    /// authenticated can move the path to `from`.
    ///
    /// # Errors
    /// [`Refusal`]: count it; the payload is then garbage.
    pub fn open_rtp(
        &mut self,
        now: Time,
        from: &Path,
        packet: &mut [u8],
    ) -> Result<usize, Refusal> {
        let len = self
            .media
            .as_mut()
            .ok_or(Refusal::SrtpNoKeys)?
            .open_rtp(packet)?;
        self.on_authentic_media(now, from);
        Ok(len)
    }

    /// Opens an SRTCP packet in place; `packet[..len]` is then the compound RTCP packet. That it
    /// authenticated can move the path to `from`.
    ///
    /// # Errors
    /// [`Refusal`]: count it; the payload is then garbage.
    pub fn open_rtcp(
        &mut self,
        now: Time,
        from: &Path,
        packet: &mut [u8],
    ) -> Result<usize, Refusal> {
        let len = self
            .media
            .as_mut()
            .ok_or(Refusal::SrtpNoKeys)?
            .open_rtcp(packet)?;
        self.on_authentic_media(now, from);
        Ok(len)
    }

    /// Seals an RTP packet out of place: `out[..len]` becomes `header` and the protected
    /// `payload`. A sequence number of an SSRC is sealed once; the roll-over counter starts at 0
    /// and is kept here. Allocates with the first packet of an SSRC alone.
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
        self.media
            .as_mut()
            .ok_or(SealError::NoKeys)?
            .seal_rtp(header, payload, out)
    }

    /// Where egress goes, as [`Session::path`], and what seals it, which exists once connected: both
    /// with one look.
    #[inline]
    pub fn egress(&mut self) -> (Option<&Path>, Option<&mut MediaKeys>) {
        (self.paths.current(), self.media.as_deref_mut())
    }

    /// Where that lies of the session itself which sending a packet reads: its path, and the way to
    /// its keys. Addresses to prefetch; none of them is read.
    #[must_use]
    pub fn hot(&self) -> [*const u8; 2] {
        let paths = std::ptr::from_ref(&self.paths).cast();
        [paths, std::ptr::from_ref(&self.media).cast()]
    }

    /// As [`Session::hot`], of its keys. Reads what that names.
    #[must_use]
    pub fn hot_keys(&self) -> Option<[*const u8; 3]> {
        Some(self.media.as_ref()?.hot())
    }

    /// As [`Session::hot`], of the stream that was sealed for last. Reads what
    /// [`Session::hot_keys`] names.
    #[must_use]
    pub fn hot_stream(&self) -> Option<[*const u8; 3]> {
        self.media.as_ref()?.hot_stream()
    }

    /// Seals a compound RTCP packet into `out`. The SRTCP index is the session's own.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtcp(&mut self, rtcp: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        self.media
            .as_mut()
            .ok_or(SealError::NoKeys)?
            .seal_rtcp(rtcp, out)
    }

    /// Bytes that [`Session::seal_rtp`] adds to a packet: the profile's tag. 0 before connected.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        self.media.as_ref().map_or(0, |m| m.rtp_overhead())
    }

    /// Bytes that [`Session::seal_rtcp`] adds: tag and index. 0 before connected.
    #[must_use]
    pub fn rtcp_overhead(&self) -> usize {
        self.media.as_ref().map_or(0, |m| m.rtcp_overhead())
    }

    /// Media may be opened and sealed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Where egress goes; `None` before the client nominated a pair, after consent lapsed, and
    /// once closed.
    #[must_use]
    #[inline]
    pub fn path(&self) -> Option<&Path> {
        self.paths.current()
    }

    /// The session's name, as given.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Every path that a `PathAdded` announced and no `PathRemoved` took back.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// The I/O layer lost this path: a TCP connection closed.
    pub fn path_closed(&mut self, now: Time, path: &Path) {
        if self.state != State::Closed {
            let change = self.paths.remove(now, path);
            self.on_change(*path, change);
        }
    }

    /// Sends a message on the data channel.
    ///
    /// # Errors
    /// [`SealError::ChannelBusy`] if there is no channel or its buffer is full,
    /// [`SealError::MessageTooLong`] beyond [`DATA_MESSAGE_MAX`].
    pub fn send_data(&mut self, now: Time, binary: bool, data: &[u8]) -> Result<(), SealError> {
        if data.len() > DATA_MESSAGE_MAX {
            return Err(SealError::MessageTooLong);
        }
        let id = self.channel.ok_or(SealError::ChannelBusy)?;
        let mut channel = self.rtc.channel(id).ok_or(SealError::ChannelBusy)?;
        match channel.write(binary, data) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(SealError::ChannelBusy),
        }
        self.drive(now);
        Ok(())
    }

    /// Runs timers that are due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.state == State::Closed {
            return;
        }
        while let Some(change) = self.paths.expire(now) {
            if let Some(path) = change.removed {
                self.on_change(path, change);
            }
        }
        match self.state {
            State::Connecting { deadline } if now >= deadline => {
                self.finish(CloseReason::ConnectTimeout);
            }
            // RFC 7675 §5.1: "If a valid STUN binding response has not been received from the
            // remote peer's transport address in 30 seconds, the endpoint MUST cease
            // transmission". ICE-lite asks nothing, so the client's own requests stand in.
            State::Connected if now >= self.last_consent + CONSENT_TIMEOUT => {
                self.finish(CloseReason::ConsentLost);
            }
            _ if now >= self.rtc_timeout => self.drive(now),
            _ => {}
        }
    }

    /// When to call [`Session::handle_timeout`] next; [`Time::NEVER`] once closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let own = match self.state {
            State::Connecting { deadline } => deadline,
            State::Connected => self.last_consent + CONSENT_TIMEOUT,
            State::Closed => return Time::NEVER,
        };
        own.min(self.rtc_timeout).min(self.paths.next_expiry())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        let output = self.outputs.pop_front();
        // Empty again, and a check from the client is seconds away: idle sessions hold no room.
        if output.is_none() && self.outputs.capacity() > 0 {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Ends the session: sends a DTLS close_notify if there is somebody to tell, then
    /// `Closed(reason)`.
    pub fn close(&mut self, now: Time, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        if let Err(e) = self.rtc.close() {
            debug!(session = %self.id, error = %e, "closing without close_notify");
        }
        self.drive(now);
        self.finish(reason);
    }

    fn handle_stun(&mut self, now: Time, from: Path, packet: &[u8]) -> Result<(), Refusal> {
        let request = match Stun::parse(self.ctx.crypto(), &self.params, packet)? {
            Stun::Request(request) => request,
            Stun::Indication => return Ok(()),
        };
        self.last_consent = self.last_consent.max(now);
        let change = self.paths.on_stun(now, from, request.use_candidate());
        self.on_change(from, change);
        if let Some(bytes) = request.reply(self.ctx.crypto(), &self.params.local_pwd, from.remote) {
            self.outputs
                .push_back(SessionOutput::Transmit { path: from, bytes });
        }
        // What DTLS said before there was a path can go now.
        self.send_dtls();
        Ok(())
    }

    fn handle_dtls(&mut self, now: Time, from: &Path, packet: &[u8]) -> Result<(), Refusal> {
        // RFC 8827 leaves it open who may start DTLS. Anybody can send a ClientHello or an alert;
        // only from an address that ICE vouches for may it touch the handshake.
        if !self.paths.is_validated(from) {
            return Err(Refusal::DtlsUnvalidated);
        }
        let contents = DatagramRecv::try_from(packet).map_err(|_| Refusal::DtlsMalformed)?;
        self.receive(now, contents)
            .map_err(|_| Refusal::DtlsMalformed)
    }

    /// Hands a packet to str0m as if it had come over the placeholder pair.
    fn receive(&mut self, now: Time, contents: DatagramRecv<'_>) -> Result<(), ()> {
        let input = Receive {
            proto: Protocol::Udp,
            source: PLACEHOLDER_REMOTE,
            destination: PLACEHOLDER_LOCAL,
            contents,
        };
        let taken = self
            .rtc
            .handle_input(Input::Receive(self.ctx.instant(now), input));
        if let Err(e) = &taken {
            // A bad datagram is dropped, the session goes on. If it was fatal to str0m, `drive`
            // finds out.
            debug!(session = %self.id, error = %e, "datagram refused");
        }
        self.drive(now);
        taken.map_err(|_| ())
    }

    #[inline]
    fn on_authentic_media(&mut self, now: Time, from: &Path) {
        if self.paths.current() != Some(from) {
            let change = self.paths.on_srtp(now, *from);
            self.on_change(*from, change);
        }
    }

    /// Announces what happened to the path table because of `path`.
    fn on_change(&mut self, path: Path, change: Change) {
        if let Some(gone) = change.removed {
            self.outputs.push_back(SessionOutput::PathRemoved(gone));
        }
        if change.added {
            self.outputs.push_back(SessionOutput::PathAdded(path));
        }
        if change.moved {
            self.outputs.push_back(SessionOutput::PathMoved);
        }
    }

    /// Runs str0m up to `now` and collects what it has to say.
    fn drive(&mut self, now: Time) {
        if let Err(e) = self.rtc.handle_input(Input::Timeout(self.ctx.instant(now))) {
            debug!(session = %self.id, error = %e, "timer failed");
        }
        let mut errors = 0;
        let mut peer_closed = false;
        while self.state != State::Closed {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(t)) => {
                    self.send_dtls();
                    // Never a timer in the past: the caller would spin on it.
                    self.rtc_timeout = self.ctx.time(t).max(now + limits::TIMER_STEP);
                    if peer_closed {
                        self.finish(CloseReason::PeerClosed);
                    }
                    return;
                }
                // DTLS is tapped, STUN is answered here, and there is no media.
                Ok(Output::Transmit(_)) => {}
                // What str0m sends in answer still comes.
                Ok(Output::Event(Event::Closed)) => peer_closed = true,
                Ok(Output::Event(event)) => self.on_event(event),
                Err(e) => {
                    debug!(session = %self.id, error = %e, "session engine");
                    errors += 1;
                    if !self.rtc.is_alive() {
                        self.finish(CloseReason::DtlsFailed);
                    } else if errors > limits::DRAIN_ERRORS {
                        self.finish(CloseReason::Internal);
                    }
                }
            }
        }
    }

    /// DTLS goes where the client is, and waits until it has said where that is.
    fn send_dtls(&mut self) {
        let Some(path) = self.paths.current().copied() else {
            return;
        };
        while let Some(bytes) = self.tap.take_datagram() {
            self.outputs
                .push_back(SessionOutput::Transmit { path, bytes });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.on_connected(),
            Event::ChannelOpen(id, label) => self.on_channel_open(id, &label),
            Event::ChannelClose(id) => {
                self.other_channels.retain(|c| *c != id);
                self.channel = self.channel.filter(|c| *c != id);
            }
            Event::ChannelData(message) => self.on_channel_data(message),
            _ => {}
        }
    }

    fn on_connected(&mut self) {
        let api = self.rtc.direct_api();
        let version = api.dtls_protocol_version();
        // str0m has compared it; keys must never be used if it ever forgets to.
        let known_peer = api
            .remote_dtls_fingerprint()
            .is_some_and(|f| f.bytes == self.params.remote_fingerprint);
        let dtls = match version {
            Some(ProtocolVersion::DTLS1_3) => "1.3",
            _ => "1.2",
        };
        let Some(keys) = self.tap.take_keys().filter(|_| known_peer) else {
            return self.finish(CloseReason::DtlsFailed);
        };
        match MediaKeys::new(self.ctx.srtp(), &keys) {
            Ok(media) => {
                let srtp_profile = media.profile();
                self.media = Some(Box::new(media));
                self.state = State::Connected;
                self.outputs
                    .push_back(SessionOutput::Connected { dtls, srtp_profile });
            }
            Err(e) => {
                debug!(session = %self.id, error = %e, "SRTP keys");
                self.finish(CloseReason::Internal);
            }
        }
    }

    fn on_channel_open(&mut self, id: ChannelId, label: &str) {
        if label == CHANNEL_LABEL && self.channel.is_none() {
            self.channel = Some(id);
            self.outputs.push_back(SessionOutput::DataOpen);
        } else if self.other_channels.len() < limits::OTHER_CHANNELS {
            self.other_channels.push(id);
        } else {
            self.rtc.direct_api().close_data_channel(id);
        }
    }

    fn on_channel_data(&mut self, message: ChannelData) {
        let ChannelData { id, binary, data } = message;
        self.outputs.push_back(
            if Some(id) == self.channel && data.len() <= DATA_MESSAGE_MAX {
                SessionOutput::Data { binary, data }
            } else {
                SessionOutput::DataRefused
            },
        );
    }

    /// The session is over: no path, no keys, and `Closed` as the last output.
    fn finish(&mut self, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.media = None;
        for path in std::mem::take(&mut self.paths).iter() {
            self.outputs.push_back(SessionOutput::PathRemoved(*path));
        }
        self.outputs.push_back(SessionOutput::Closed(reason));
    }
}

/// RFC 8839 §5.4: "ice-ufrag = 4*256ice-char", "password = 22*256ice-char".
fn check_credentials(params: &WebRtcParams) -> Result<(), SessionError> {
    let valid = |text: &str, shortest: usize| {
        (shortest..=256).contains(&text.len())
            // Browsers have used characters outside ice-char; a colon would confuse USERNAME.
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    let ok = valid(&params.local_ufrag, 4)
        && valid(&params.remote_ufrag, 4)
        && valid(&params.local_pwd, 22)
        && valid(&params.remote_pwd, 22);
    ok.then_some(()).ok_or(SessionError::IceCredentials)
}

/// Tells str0m who the client is. The relay is DTLS server and SCTP server.
fn start_engine(api: &mut DirectApi<'_>, params: &WebRtcParams) -> Result<(), RtcError> {
    api.set_remote_fingerprint(Fingerprint {
        hash_func: "sha-256".into(),
        bytes: params.remote_fingerprint.to_vec(),
    });
    api.start_dtls(false)?;
    if params.sctp_port.is_some() {
        api.start_sctp(false);
    }
    Ok(())
}
