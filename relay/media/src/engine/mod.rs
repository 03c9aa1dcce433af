//! The engine: every room, peer, track and subscription of one shard.
//!
//! Packets go one way through it: [`Engine::handle_rtp`] judges a packet and queues it with its
//! stream; [`Engine::flush`] walks the streams that have something, and for each the
//! subscriptions of its track. Everything on that way is found by dense index; the one search is
//! that for the SSRC in its peer's sorted list.

mod arrivals;
mod attention;
mod bandwidth;
mod departures;
mod egress;
mod feedback;
mod ingress;
mod legs;
mod membership;
mod mirror;
mod repair;
mod reports;
mod tracks;

use self::bandwidth::Grant;
pub(crate) use self::legs::Legs;
use self::mirror::Mirroring;
use self::repair::Resend;
use crate::api::{Egress, LayerLimit, MediaEvent, PathState, PeerKey};
use crate::config::MediaConfig;
use crate::downlink::Downlink;
use crate::inbox::Inbox;
use crate::layers::Layers;
use crate::mirror::Mirror;
use crate::peer::Peer;
use crate::prng::Prng;
use crate::slab::Slab;
use crate::stream::RtpStream;
use crate::subscription::Subscription;
use crate::timers::{Timer, Timers};
use crate::track::{Room, Track};
use sealcast_model::{
    AssignSlot, CommandError, Gauge, NtpClock, PacketBuf, PacketPool, ParticipantId, Publish,
    RoomId, SessionId, SessionMedia, ShardId, ShardStats, SlotId, Time, TrackId,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The media plane of one shard.
///
/// Drive it so: hand in commands, packets and timeouts in any order, then call
/// [`flush`](Engine::flush) once for the batch, drain [`poll_event`](Engine::poll_event), and
/// sleep until [`poll_timeout`](Engine::poll_timeout). Every call takes the current time, which
/// must not run backwards.
///
/// Buffers that were handed in stay with the engine until the next flush, or until what they
/// belong to is removed.
pub struct Engine {
    config: MediaConfig,
    clock: NtpClock,
    prng: Prng,
    stats: Arc<ShardStats>,
    rooms: Slab<Room>,
    room_ids: BTreeMap<RoomId, u32>,
    /// By [`PeerKey`].
    peers: Vec<Option<Box<Peer>>>,
    /// By [`PeerKey`].
    downlinks: Vec<Downlink>,
    tracks: Slab<Track>,
    track_ids: BTreeMap<TrackId, u32>,
    streams: Slab<RtpStream>,
    subscriptions: Slab<Subscription>,
    /// Subscriptions that have a track.
    subscribed: usize,
    inbox: Inbox,
    /// Streams with something in the inbox.
    dirty: Vec<u32>,
    /// Streams whose key-frame requester may be due.
    asking: Vec<u32>,
    /// Peers whose reports are due.
    reporting: Vec<u32>,
    /// Streams whose NACK generator is due.
    nacking: Vec<u32>,
    /// Peers whose transport-wide feedback is due.
    arriving: Vec<u32>,
    /// Peers whose bandwidth is to be divided anew.
    allocating: Vec<u32>,
    /// Peers whose pacers have something due.
    departing: Vec<u32>,
    /// Subscriptions that what waited for them was taken from.
    overrun: Vec<u32>,
    /// The timer that reviews encodings is set.
    reviewing: bool,
    /// Tracks of several encodings, while they are reviewed.
    simulcasts: Vec<u32>,
    /// What one peer's subscriptions may have, while it is put in force.
    grants: Vec<Grant>,
    /// What subscribers asked for since the last flush.
    resends: Vec<Resend>,
    /// What concerns other shards.
    mirroring: Mirroring,
    /// Buffers that wait for a pool to go back to.
    graveyard: Vec<PacketBuf>,
    /// When histories are swept next.
    sweep_at: Time,
    timers: Timers,
    events: VecDeque<MediaEvent>,
}

impl Engine {
    /// An engine that holds nothing. `seed` feeds initial sequence numbers, SSRCs and the jitter
    /// of RTCP intervals; it need not be secret, but should differ between shards.
    #[must_use]
    pub fn new(config: MediaConfig, clock: NtpClock, seed: u64, stats: Arc<ShardStats>) -> Self {
        Engine {
            config,
            clock,
            prng: Prng::new(seed),
            stats,
            rooms: Slab::new(),
            room_ids: BTreeMap::new(),
            peers: Vec::new(),
            downlinks: Vec::new(),
            tracks: Slab::new(),
            track_ids: BTreeMap::new(),
            streams: Slab::new(),
            subscriptions: Slab::new(),
            subscribed: 0,
            inbox: Inbox::default(),
            dirty: Vec::new(),
            asking: Vec::new(),
            reporting: Vec::new(),
            nacking: Vec::new(),
            arriving: Vec::new(),
            allocating: Vec::new(),
            departing: Vec::new(),
            overrun: Vec::new(),
            reviewing: false,
            simulcasts: Vec::new(),
            grants: Vec::new(),
            resends: Vec::new(),
            mirroring: Mirroring::default(),
            graveyard: Vec::new(),
            sweep_at: Time::NEVER,
            timers: Timers::default(),
            events: VecDeque::new(),
        }
    }

    /// Puts a session into a room, which comes to be with its first session. Nothing is sent to
    /// it before [`peer_connected`](Engine::peer_connected).
    ///
    /// # Errors
    /// [`CommandError::Limit`], or [`CommandError::Invalid`] for a key in use or parameters that
    /// contradict each other; nothing has changed then.
    pub fn add_peer(
        &mut self,
        now: Time,
        peer: PeerKey,
        session: SessionId,
        participant: ParticipantId,
        room: RoomId,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        self.add(now, peer.0, session, participant, room, media)
    }

    /// Takes a renegotiation over: m-lines and slots that were there keep their state, those that
    /// are gone end, new ones come to be.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::Limit`] or [`CommandError::Invalid`] (a slot
    /// changed its SSRC, or an m-line its kind); nothing has changed then.
    pub fn update_peer(
        &mut self,
        now: Time,
        peer: PeerKey,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        self.update(now, peer.0, media)
    }

    /// Adds the mirror of a publisher whose session is on another shard, `home`. It publishes as
    /// any peer does; its packets come by [`handle_mirror`](Engine::handle_mirror).
    ///
    /// # Errors
    /// As [`add_peer`](Engine::add_peer).
    #[expect(
        clippy::too_many_arguments,
        reason = "those of `add_peer`, and the home"
    )]
    pub fn add_mirror(
        &mut self,
        now: Time,
        peer: PeerKey,
        session: SessionId,
        participant: ParticipantId,
        room: RoomId,
        media: &SessionMedia,
        home: ShardId,
    ) -> Result<(), CommandError> {
        self.add_mirrored(now, peer.0, session, participant, room, media, home)
    }

    /// As [`update_peer`](Engine::update_peer), for a mirror.
    ///
    /// # Errors
    /// As [`update_peer`](Engine::update_peer).
    pub fn update_mirror(
        &mut self,
        now: Time,
        peer: PeerKey,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        self.update_mirrored(now, peer.0, media)
    }

    /// Takes a message from the media plane of another shard, with a packet if it is one that has.
    /// What cannot be used is dropped and counted.
    pub fn handle_mirror(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        from: ShardId,
        message: &Mirror,
        packet: &[u8],
    ) {
        self.on_mirror(now, pool, from, message, packet);
    }

    /// The session's SRTP keys are there: egress may flow, and key frames are requested for its
    /// video slots. Unknown peers are ignored.
    pub fn peer_connected(&mut self, now: Time, peer: PeerKey) {
        self.connected(now, peer.0);
    }

    /// Sealing for this peer costs several times what it costs for others: within a flush it comes
    /// after them, so that they need not wait for it. Unknown peers are ignored.
    pub fn peer_seals_slowly(&mut self, peer: PeerKey) {
        self.put_last(peer.0);
    }

    /// Ends a session with everything it publishes and receives, and its room with the last one.
    /// Unknown peers are ignored.
    pub fn remove_peer(&mut self, now: Time, pool: &mut PacketPool, peer: PeerKey) {
        self.remove(now, pool, peer.0);
    }

    /// Makes an m-line of `peer` a track of its room.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::NoSlot`] (no such m-line, or of another
    /// kind), [`CommandError::MidInUse`], [`CommandError::Limit`] or [`CommandError::Invalid`]
    /// (the track exists already, or names another session); nothing has changed then.
    pub fn publish(
        &mut self,
        now: Time,
        peer: PeerKey,
        publish: &Publish,
    ) -> Result<(), CommandError> {
        self.add_track(now, peer.0, publish)
    }

    /// Ends a track. Slots that show it fall empty. Unknown tracks are ignored.
    pub fn unpublish(&mut self, now: Time, pool: &mut PacketPool, track: TrackId) {
        if let Some(index) = self.track_ids.get(&track).copied() {
            self.remove_track(now, Some(pool), index);
        }
    }

    /// Forwards nothing of a track while it is muted. Unknown tracks are ignored.
    pub fn set_muted(&mut self, now: Time, track: TrackId, muted: bool) {
        if let Some(index) = self.track_ids.get(&track).copied() {
            self.mute(now, index, muted);
        }
    }

    /// Changes what slots of `peer` show: all of `assign`, or nothing.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::NoSlot`], [`CommandError::NoTrack`],
    /// [`CommandError::CodecUnsupported`], [`CommandError::Limit`] or [`CommandError::Invalid`]
    /// (a slot named twice).
    pub fn assign_slots(
        &mut self,
        now: Time,
        peer: PeerKey,
        assign: &[AssignSlot],
    ) -> Result<(), CommandError> {
        self.assign(now, peer.0, assign)
    }

    /// Sets the most layers that a slot of `peer` gets, whatever it shows. Less takes effect at
    /// once, more as soon as the stream allows. It lasts as long as the slot.
    ///
    /// # Errors
    /// [`CommandError::NoSession`] or [`CommandError::NoSlot`].
    pub fn limit_slot(
        &mut self,
        _now: Time,
        peer: PeerKey,
        slot: SlotId,
        limit: LayerLimit,
    ) -> Result<(), CommandError> {
        let LayerLimit { spatial, temporal } = limit;
        self.limit(peer.0, slot, Layers { spatial, temporal })
    }

    /// A slot of `peer` is shown in this many pixels: it is sent nothing much larger. 0 × 0 hides
    /// it, and it is sent nothing. It lasts as long as the slot; without it a slot gets the
    /// largest that fits its subscriber's path.
    ///
    /// # Errors
    /// [`CommandError::NoSession`] or [`CommandError::NoSlot`].
    pub fn size_slot(
        &mut self,
        _now: Time,
        peer: PeerKey,
        slot: SlotId,
        width: u16,
        height: u16,
    ) -> Result<(), CommandError> {
        let pixels = u32::from(width) * u32::from(height);
        self.size(peer.0, slot, pixels.isqrt() as u16)
    }

    /// Takes a plaintext RTP packet: the first `len` bytes of `buf`'s slot, from `peer`. The
    /// engine owns the buffer from here on, and forwards it with the next
    /// [`flush`](Engine::flush). What cannot be forwarded is dropped and counted by reason.
    /// `received` is when the kernel got it, `now` when it was read from there.
    pub fn handle_rtp(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        peer: PeerKey,
        buf: PacketBuf,
        len: usize,
        received: Time,
    ) {
        self.receive(now, pool, peer.0, buf, len, received);
    }

    /// Takes plaintext RTCP from `peer`, compound or of reduced size. What is malformed or about
    /// streams that are not the peer's is ignored and counted.
    pub fn handle_rtcp(&mut self, now: Time, peer: PeerKey, packet: &[u8]) {
        self.receive_rtcp(now, peer.0, packet);
    }

    /// Forwards what has arrived, then sends the RTCP that is due, and frees buffers.
    pub fn flush<E: Egress>(&mut self, now: Time, pool: &mut PacketPool, egress: &mut E) {
        self.allocate_all(now);
        self.repair_mirrors(pool, egress);
        self.send_media(now, pool, egress, Legs::Quick);
        if self.slow_legs_wait() {
            egress.release();
        }
        self.send_media(now, pool, egress, Legs::Slow);
        self.bury(pool);
        self.send_nacks(now, egress);
        self.send_keyframe_requests(now, egress);
        self.send_reports(now, egress);
        self.send_arrivals(now, egress);
        self.send_probes(now, egress);
        self.send_wishes(egress);
    }

    /// Runs the timers that are due. What they produce leaves with the next
    /// [`flush`](Engine::flush).
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Report(peer) => {
                    if self.peer(peer).is_some_and(|peer| peer.report_at <= now) {
                        self.reporting.push(peer);
                    }
                }
                Timer::Nack(stream) => {
                    if let Some(found) = self.streams.get_mut(stream) {
                        found.nack_timer = Time::NEVER;
                        self.nacking.push(stream);
                    }
                }
                Timer::Arrivals(key) => {
                    if let Some(peer) = self.peer_mut(key) {
                        peer.arrivals_timer = Time::NEVER;
                        self.arriving.push(key);
                    }
                }
                Timer::Bandwidth(key) => self.on_bandwidth_turn(now, key),
                Timer::Pace(key) => {
                    if let Some(control) = self.control(key) {
                        control.pace_timer = Time::NEVER;
                        self.departing.push(key);
                    }
                }
                Timer::Attention(room) => self.on_attention(now, room),
                Timer::Review => self.review_encodings(now),
                Timer::Sweep => self.sweep(now),
                Timer::Mirrors => self.refresh_mirrors(now),
                Timer::Keyframe(stream) => {
                    if let Some(found) = self.streams.get_mut(stream) {
                        found.keyframe_timer = Time::NEVER;
                        self.asking.push(stream);
                    }
                }
            }
        }
    }

    /// When [`handle_timeout`](Engine::handle_timeout) wants to be called next;
    /// [`Time::NEVER`] if nothing is planned. Never earlier than a flush that has not been made
    /// could be of use: after handing in packets or commands, call [`flush`](Engine::flush) first.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }

    /// Packets kept for subscribers that may ask for them: pool slots that stay in use between
    /// flushes.
    #[must_use]
    pub fn held_packets(&self) -> usize {
        self.held()
    }

    /// What the path to this peer is believed to carry, bits per second; `None` without feedback.
    #[must_use]
    pub fn path_estimate(&self, peer: PeerKey) -> Option<u64> {
        let control = self.downlinks.get(peer.0 as usize)?.control.as_deref()?;
        control.heard.then(|| control.estimator.estimate())
    }

    /// What is known of the path to this peer, and what is made of it; `None` if it is not
    /// controlled. For tests and traces.
    #[must_use]
    pub fn path_state(&self, peer: PeerKey) -> Option<PathState> {
        let control = self.downlinks.get(peer.0 as usize)?.control.as_deref()?;
        Some(control.state())
    }

    /// The next thing to tell, in the order it happened.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    fn peer(&self, key: u32) -> Option<&Peer> {
        self.peers.get(key as usize)?.as_deref()
    }

    fn peer_mut(&mut self, key: u32) -> Option<&mut Peer> {
        self.peers.get_mut(key as usize)?.as_deref_mut()
    }

    fn publish_gauges(&self) {
        self.stats.set(Gauge::Rooms, self.rooms.len() as u64);
        let mirrored = self.mirroring.tracks;
        let tracks = self.tracks.len() - mirrored;
        self.stats.set(Gauge::Tracks, tracks as u64);
        self.stats.set(Gauge::MirroredTracks, mirrored as u64);
        self.stats.set(Gauge::Subscriptions, self.subscribed as u64);
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("rooms", &self.rooms.len())
            .field("tracks", &self.tracks.len())
            .field("subscriptions", &self.subscribed)
            .field("pending", &self.inbox.len())
            .finish_non_exhaustive()
    }
}
