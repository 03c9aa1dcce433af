//! The whole client: offer and answer, transport, keys, senders, slots. RTCP is in `feedback`.

use super::arrivals::Arrivals;
use super::keys::{EpochKeys, Keys, SealConfig};
use super::outbox::Outbox;
use super::receive::{ReceiveStats, Received, RejectReason, Slot, SlotEvent};
use super::rtp::Link;
use super::sdp::{self, Answer, AnswerError, AnswerMedia, OfferDirection, OfferMedia};
use super::send::{SendStats, Sender, SenderParams};
use super::transport::{PeerContext, Proto, Route, Srtp, Transport, TransportEvent};
use crate::model::Codec;
use sealcast_model::{NtpClock, Time};
use sealcast_netsim::Rng;
use sealcast_rtp::demux::{Protocol, classify};
use sealcast_rtp::ext::TransportCc;
use sealcast_rtp::{ExtensionKind, ExtensionMap, RtpHeader};
use sealcast_srtp::OpenError;
use serde::Deserialize;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Events kept for a caller that does not drain them.
const MAX_EVENTS: usize = 65_536;

/// What a client offers.
#[derive(Clone)]
pub struct PeerConfig {
    /// Streams to send, in m-line order.
    pub send: Vec<SenderParams>,
    /// Audio slots to receive in.
    pub audio_slots: usize,
    /// Video slots to receive in.
    pub video_slots: usize,
    /// With a data channel.
    pub data: bool,
    /// How frames are sealed; `None` sends and expects them bare.
    pub seal: Option<SealConfig>,
    /// Addresses to send from, as the sockets have them.
    pub locals: Vec<(Proto, SocketAddr)>,
    /// Everything random about the client but its keys follows from this.
    pub seed: u64,
}

/// Why a client cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The configuration does not work.
    #[error("peer configuration: {0}")]
    Config(String),
    /// The answer does not parse, or does not fit the offer.
    #[error("answer: {0}")]
    Answer(#[from] AnswerError),
}

/// What a client tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A candidate pair works.
    IceConnected,
    /// DTLS is done; media may flow.
    Connected {
        /// `"1.2"` or `"1.3"`.
        dtls: &'static str,
        /// IANA name of the SRTP profile.
        srtp_profile: &'static str,
    },
    /// The data channel is open.
    DataOpen,
    /// A data-channel message.
    Data {
        /// Binary or text.
        binary: bool,
        /// The message.
        data: Vec<u8>,
    },
    /// A frame arrived, opened, and is right.
    Received(Received),
    /// A frame arrived whole and is wrong.
    Rejected {
        /// Index of the slot.
        slot: usize,
        /// Why.
        reason: RejectReason,
    },
    /// The relay closed the transport.
    Closed,
    /// The transport failed.
    Failed(String),
}

/// A slot as negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Its MID.
    pub mid: String,
    /// Opus for audio; of video any, whichever this says.
    pub codec: Codec,
    /// The relay accepted it.
    pub active: bool,
}

/// Counts of packets that could not be used. In a sound run all are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFaults {
    /// SRTP or SRTCP that did not authenticate.
    pub srtp_auth: u64,
    /// SRTP received twice.
    pub srtp_replayed: u64,
    /// SRTP or SRTCP before the keys were there, or malformed.
    pub srtp_other: u64,
    /// RTP of an SSRC that no slot has.
    pub unknown_ssrc: u64,
    /// RTP or RTCP that does not parse.
    pub malformed: u64,
    /// Neither STUN, DTLS, RTP nor RTCP.
    pub unknown_protocol: u64,
    /// Events dropped because nobody drained them.
    pub events_dropped: u64,
}

/// One client.
pub struct Peer {
    pub(super) transport: Transport,
    pub(super) srtp: Option<Box<Srtp>>,
    data: bool,
    session: u64,
    pub(super) senders: Vec<Sender>,
    slot_states: Vec<SlotState>,
    /// By the same index as `slot_states`; empty until the answer.
    pub(super) slots: Vec<Option<Slot>>,
    keys: Option<Keys>,
    extensions: ExtensionMap,
    transport_seq: u16,
    pub(super) arrivals: Arrivals,
    /// SSRC of reports when there is no sender.
    pub(super) report_ssrc: u32,
    pub(super) clock: NtpClock,
    pub(super) next_report: Time,
    pub(super) next_feedback: Time,
    events: VecDeque<PeerEvent>,
    pub(super) faults: PeerFaults,
    pub(super) scratch: Vec<u8>,
}

impl Peer {
    /// A client that has not offered yet.
    ///
    /// # Errors
    /// [`PeerError::Config`].
    pub fn new(now: Time, ctx: &PeerContext, config: &PeerConfig) -> Result<Peer, PeerError> {
        let invalid = |e: &dyn std::fmt::Display| PeerError::Config(e.to_string());
        let mut rng = Rng::new(config.seed);
        let transport =
            Transport::new(now, ctx, &config.locals).map_err(|e| PeerError::Config(e.clone()))?;
        let mut keys = match &config.seal {
            None => None,
            Some(seal) => Some(Keys::new(seal).map_err(|e| invalid(&e))?),
        };
        let mut senders = Vec::with_capacity(config.send.len());
        for (mid, params) in config.send.iter().enumerate() {
            let sender = Sender::new(params, &mid.to_string(), keys.as_mut(), &mut rng);
            senders.push(sender.map_err(|e| invalid(&e))?);
        }
        let codecs = std::iter::repeat_n(Codec::Opus, config.audio_slots)
            .chain(std::iter::repeat_n(Codec::Vp8, config.video_slots));
        let slot_states: Vec<SlotState> = (senders.len()..)
            .zip(codecs)
            .map(|(mid, codec)| SlotState {
                mid: mid.to_string(),
                codec,
                active: false,
            })
            .collect();
        Ok(Peer {
            transport,
            srtp: None,
            data: config.data,
            session: rng.next_u64() >> 1,
            senders,
            slots: slot_states.iter().map(|_| None).collect(),
            slot_states,
            keys,
            extensions: ExtensionMap::new(),
            transport_seq: 0,
            arrivals: Arrivals::default(),
            report_ssrc: rng.next_u64() as u32,
            // Reports need differences of wall-clock time alone (RFC 3550 §4).
            clock: NtpClock::from_unix(Duration::ZERO),
            next_report: Time::NEVER,
            next_feedback: Time::NEVER,
            events: VecDeque::new(),
            faults: PeerFaults::default(),
            scratch: Vec::new(),
        })
    }

    /// The SDP offer: senders, then audio slots, then video slots, then the data channel.
    pub fn offer(&mut self) -> String {
        let send = self.senders.iter().map(|s| OfferMedia {
            codec: s.codec(),
            direction: match s.ssrcs() {
                Some((ssrc, rtx)) => OfferDirection::Send(ssrc, rtx),
                None => OfferDirection::Simulcast(s.rids()),
            },
        });
        let receive = self.slot_states.iter().map(|s| OfferMedia {
            codec: s.codec,
            direction: OfferDirection::Receive,
        });
        let media: Vec<OfferMedia> = send.chain(receive).collect();
        sdp::offer(&self.transport.local(), &media, self.data, self.session)
    }

    /// Takes the answer and starts to connect.
    ///
    /// # Errors
    /// [`PeerError`]; the client is of no use then.
    pub fn accept(
        &mut self,
        now: Time,
        answer: &Answer,
        out: &mut Outbox,
    ) -> Result<(), PeerError> {
        let want = self.senders.len() + self.slot_states.len();
        let got = answer.media.len();
        if want != got {
            return Err(AnswerError::MediaCount { want, got }.into());
        }
        self.extensions = answer.extensions;
        let (send, receive) = answer.media.split_at(self.senders.len());
        for (sender, media) in self.senders.iter_mut().zip(send) {
            let same = |(_, codec): &(u8, Codec)| *codec == sender.codec();
            if let Some((pt, _)) = media.known().find(same) {
                let rtx = media.rtx.iter().find(|(_, apt)| *apt == pt);
                sender.negotiated(pt, rtx.map(|(rtx, _)| *rtx), &media.rids);
            }
        }
        for (index, media) in receive.iter().enumerate() {
            self.accept_slot(index, media);
        }
        self.transport
            .connect(now, &answer.remote, out)
            .map_err(PeerError::Config)
    }

    fn accept_slot(&mut self, index: usize, media: &AnswerMedia) {
        if let Some(state) = self.slot_states.get_mut(index)
            && let Some(slot) = self.slots.get_mut(index)
            && let (true, Some(ssrc)) = (media.active, media.ssrc)
        {
            state.active = true;
            let codecs = media.known().collect();
            let rtx = media.rtx_ssrc.filter(|_| !media.rtx.is_empty());
            let rtx = rtx.map(|ssrc| (ssrc, media.rtx.clone()));
            *slot = Some(Slot::new(index, state.codec, ssrc, codecs, rtx));
        }
    }

    /// Takes a datagram, or an RFC 4571 frame without its length. It may be changed in place.
    pub fn handle_packet(&mut self, now: Time, from: Route, packet: &mut [u8], out: &mut Outbox) {
        match classify(packet) {
            Protocol::Stun | Protocol::Dtls => {
                self.transport.handle_packet(now, from, packet, out);
                self.on_transport(now);
            }
            Protocol::Rtp => self.handle_rtp(now, packet),
            Protocol::Rtcp => self.handle_rtcp(now, packet, out),
            Protocol::TurnChannel | Protocol::Unknown => self.faults.unknown_protocol += 1,
        }
    }

    /// Runs what is due: frames, reports, retransmissions, ICE and DTLS timers.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        self.transport.handle_timeout(now, out);
        self.on_transport(now);
        self.send_frames(now, out);
        let Peer {
            slots,
            keys,
            events,
            faults,
            ..
        } = self;
        for (index, slot) in slots.iter_mut().enumerate() {
            if let Some(slot) = slot {
                let mut on_event = |e| push_event(events, faults, index, e);
                let opener = keys.as_mut().map(|k| &mut k.opener);
                slot.handle_timeout(now, opener, &mut on_event);
            }
        }
        if now >= self.next_feedback {
            self.send_feedback(now, out);
            if let Some(keys) = &mut self.keys {
                keys.handle_timeout(now);
            }
        }
        if now >= self.next_report {
            self.send_reports(now, out);
        }
    }

    /// When [`Peer::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let senders = self.senders.iter().map(Sender::poll_timeout);
        let slots = self.slots.iter().flatten().map(Slot::poll_timeout);
        senders
            .filter(|_| self.srtp.is_some())
            .chain(slots)
            .chain([
                self.transport.poll_timeout(),
                self.next_report,
                self.next_feedback,
            ])
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Sends frames of this sender from `first` on, or from when it is connected.
    pub fn start(&mut self, sender: usize, first: Time) {
        if let Some(sender) = self.senders.get_mut(sender) {
            sender.start(first);
        }
    }

    /// Sends no more frames of this sender.
    pub fn stop(&mut self, sender: usize) {
        if let Some(sender) = self.senders.get_mut(sender) {
            sender.stop();
        }
    }

    /// Sends a data-channel message; false if the channel takes nothing now.
    pub fn send_data(&mut self, now: Time, binary: bool, data: &[u8], out: &mut Outbox) -> bool {
        self.transport.send_data(now, binary, data, out)
    }

    /// Closes the transport.
    pub fn close(&mut self, now: Time, out: &mut Outbox) {
        self.transport.close(now, out);
        self.on_transport(now);
    }

    /// Opens frames of this epoch of the room's group from now on, and frames of the epochs before
    /// it for `keep` more.
    ///
    /// # Errors
    /// [`PeerError::Config`] if the key is none of the suite's.
    pub fn add_epoch(
        &mut self,
        now: Time,
        epoch: EpochKeys,
        keep: Duration,
    ) -> Result<(), PeerError> {
        match &mut self.keys {
            None => Ok(()),
            Some(keys) => keys
                .add_epoch(epoch, now + keep)
                .map_err(|e| PeerError::Config(e.to_string())),
        }
    }

    /// Seals with the keys of this epoch from the next frame on. Without keys of a group, nothing
    /// changes.
    ///
    /// # Errors
    /// [`PeerError::Config`] if the key is none of the suite's.
    pub fn seal_with(&mut self, epoch: u64) -> Result<(), PeerError> {
        let Some(keys) = self.keys.as_ref().filter(|k| k.of_group()) else {
            return Ok(());
        };
        for sender in &mut self.senders {
            let rekeyed = sender.rekey(keys, epoch);
            rekeyed.map_err(|e| PeerError::Config(e.to_string()))?;
        }
        Ok(())
    }

    /// Forgets the keys of every epoch: nothing is sealed or opened until there are others.
    pub fn clear_epochs(&mut self) {
        if let Some(keys) = self.keys.as_mut().filter(|k| k.of_group()) {
            keys.clear_epochs();
            self.senders.iter_mut().for_each(Sender::forget_keys);
        }
    }

    /// The seal contexts of a sender's encodings, for the `publish` request (PROTOCOL.md §6).
    /// Empty if it does not seal.
    #[must_use]
    pub fn seal_contexts(&self, sender: usize) -> Vec<u64> {
        let sender = self.senders.get(sender);
        sender.into_iter().flat_map(Sender::seal_contexts).collect()
    }

    /// The names that the frames of a sender's encodings carry
    /// ([`crate::model::FrameInfo::stream`]).
    #[must_use]
    pub fn streams(&self, sender: usize) -> Vec<u64> {
        let sender = self.senders.get(sender);
        sender.into_iter().flat_map(Sender::streams).collect()
    }

    /// The slots, as negotiated.
    #[must_use]
    pub fn slots(&self) -> &[SlotState] {
        &self.slot_states
    }

    /// What a sender did.
    #[must_use]
    pub fn send_stats(&self, sender: usize) -> Option<SendStats> {
        self.senders.get(sender).map(Sender::stats)
    }

    /// What a slot received.
    #[must_use]
    pub fn receive_stats(&self, slot: usize) -> Option<ReceiveStats> {
        self.slots.get(slot)?.as_ref().map(Slot::stats)
    }

    /// Packets that could not be used.
    #[must_use]
    pub fn faults(&self) -> PeerFaults {
        self.faults
    }

    /// The route that media takes.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        self.transport.route()
    }

    fn on_transport(&mut self, now: Time) {
        while let Some(event) = self.transport.poll_event() {
            let event = match event {
                TransportEvent::IceConnected => PeerEvent::IceConnected,
                TransportEvent::Connected {
                    dtls,
                    profile,
                    mut srtp,
                } => {
                    for sender in &mut self.senders {
                        sender.connect(now, &mut srtp.outbound);
                    }
                    self.srtp = Some(srtp);
                    self.begin_feedback(now);
                    PeerEvent::Connected {
                        dtls,
                        srtp_profile: profile.name(),
                    }
                }
                TransportEvent::DataOpen => PeerEvent::DataOpen,
                TransportEvent::Data { binary, data } => {
                    if !binary {
                        self.on_notice(&data);
                    }
                    PeerEvent::Data { binary, data }
                }
                TransportEvent::Closed => self.ended(PeerEvent::Closed),
                TransportEvent::Failed(e) => self.ended(PeerEvent::Failed(e)),
            };
            self.events.push_back(event);
        }
    }

    /// Reacts to what the relay says on the data channel (PROTOCOL.md §8).
    fn on_notice(&mut self, data: &[u8]) {
        /// The one notice that asks something of a sender.
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Notice {
            Encodings {
                mid: String,
                active: Vec<bool>,
            },
            #[serde(other)]
            Other,
        }
        match serde_json::from_slice(data) {
            Ok(Notice::Encodings { mid, active }) => {
                // MIDs of senders are their index.
                let index = mid.parse::<usize>().ok();
                match index.and_then(|n| self.senders.get_mut(n)) {
                    Some(sender) => sender.set_active(&active),
                    None => self.faults.malformed += 1,
                }
            }
            Ok(Notice::Other) => {}
            Err(_) => self.faults.malformed += 1,
        }
    }

    fn ended(&mut self, event: PeerEvent) -> PeerEvent {
        self.srtp = None;
        self.next_report = Time::NEVER;
        self.next_feedback = Time::NEVER;
        event
    }

    fn handle_rtp(&mut self, now: Time, packet: &mut [u8]) {
        let Some(srtp) = &mut self.srtp else {
            self.faults.srtp_other += 1;
            return;
        };
        let len = match srtp.inbound.open_rtp(packet) {
            Ok(opened) => opened.len,
            Err(e) => return self.faults.count(e),
        };
        let packet = packet.get(..len).unwrap_or_default();
        let Ok(header) = RtpHeader::parse(packet) else {
            self.faults.malformed += 1;
            return;
        };
        if let Some(id) = self.extensions.id(ExtensionKind::TransportCc)
            && let Some(seq) = header.extension(packet, id).and_then(TransportCc::parse)
        {
            self.arrivals.on_packet(now, seq.0);
        }
        let Peer {
            slots,
            keys,
            events,
            faults,
            ..
        } = self;
        let Some(slot) = slots.iter_mut().flatten().find(|s| s.takes(header.ssrc)) else {
            faults.unknown_ssrc += 1;
            return;
        };
        let index = slot.index();
        let mut on_event = |e| push_event(events, faults, index, e);
        let opener = keys.as_mut().map(|k| &mut k.opener);
        slot.on_rtp(now, &header, header.payload(packet), opener, &mut on_event);
    }

    fn send_frames(&mut self, now: Time, out: &mut Outbox) {
        self.with_senders(now, out, |sender, link| sender.handle_timeout(link));
    }

    /// Calls `f` for each sender, if they can send.
    pub(super) fn with_senders(
        &mut self,
        now: Time,
        out: &mut Outbox,
        mut f: impl FnMut(&mut Sender, &mut Link<'_>),
    ) {
        let (Some(srtp), Some(route)) = (&mut self.srtp, self.transport.route()) else {
            return;
        };
        let mut link = Link {
            now,
            route,
            srtp: &mut srtp.outbound,
            extensions: &self.extensions,
            transport_seq: &mut self.transport_seq,
            out,
        };
        for sender in &mut self.senders {
            f(sender, &mut link);
        }
    }
}

impl PeerFaults {
    pub(super) fn count(&mut self, error: OpenError) {
        match error {
            OpenError::AuthFailed | OpenError::Unencrypted => self.srtp_auth += 1,
            OpenError::Replayed | OpenError::TooOld => self.srtp_replayed += 1,
            _ => self.srtp_other += 1,
        }
    }
}

fn push_event(
    events: &mut VecDeque<PeerEvent>,
    faults: &mut PeerFaults,
    slot: usize,
    event: SlotEvent,
) {
    if events.len() >= MAX_EVENTS {
        faults.events_dropped += 1;
        return;
    }
    events.push_back(match event {
        SlotEvent::Received(received) => PeerEvent::Received(received),
        SlotEvent::Rejected(reason) => PeerEvent::Rejected { slot, reason },
    });
}
