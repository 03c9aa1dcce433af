//! The engine: every room, peer, track and subscription of one shard.

use crate::api::{Egress, MediaEvent, PeerKey};
use crate::config::MediaConfig;
use sealcast_model::{
    AssignSlot, CommandError, NtpClock, PacketBuf, PacketPool, ParticipantId, Publish, RoomId,
    SessionId, SessionMedia, ShardStats, Time, TrackId,
};
use std::sync::Arc;

/// The media plane of one shard.
///
/// Drive it so: hand in commands, packets and timeouts in any order, then call
/// [`flush`](Engine::flush) once for the batch, drain [`poll_event`](Engine::poll_event), and
/// sleep until [`poll_timeout`](Engine::poll_timeout). Every call takes the current time, which
/// must not run backwards.
pub struct Engine {
    _config: MediaConfig,
    _clock: NtpClock,
    _seed: u64,
    _stats: Arc<ShardStats>,
}

impl Engine {
    /// An engine that holds nothing. `seed` feeds initial sequence numbers, SSRCs and the jitter
    /// of RTCP intervals; it need not be secret, but should differ between shards.
    #[must_use]
    pub fn new(config: MediaConfig, clock: NtpClock, seed: u64, stats: Arc<ShardStats>) -> Self {
        Engine {
            _config: config,
            _clock: clock,
            _seed: seed,
            _stats: stats,
        }
    }

    /// Puts a session into a room, which comes to be with its first session. Nothing is sent to
    /// it before [`peer_connected`](Engine::peer_connected).
    ///
    /// # Errors
    /// [`CommandError::Limit`] or [`CommandError::Invalid`]; nothing has changed then.
    pub fn add_peer(
        &mut self,
        _now: Time,
        _peer: PeerKey,
        _session: SessionId,
        _participant: ParticipantId,
        _room: RoomId,
        _media: &SessionMedia,
    ) -> Result<(), CommandError> {
        Ok(())
    }

    /// Takes a renegotiation over: m-lines and slots that were there keep their state, those that
    /// are gone end, new ones come to be.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::Limit`] or [`CommandError::Invalid`] (a slot
    /// changed its SSRC or kind); nothing has changed then.
    pub fn update_peer(
        &mut self,
        _now: Time,
        _peer: PeerKey,
        _media: &SessionMedia,
    ) -> Result<(), CommandError> {
        Ok(())
    }

    /// The session's SRTP keys are there: egress may flow, and key frames are requested for its
    /// video slots.
    pub fn peer_connected(&mut self, _now: Time, _peer: PeerKey) {}

    /// Ends a session with everything it publishes and receives, and its room with the last one.
    pub fn remove_peer(&mut self, _now: Time, _pool: &mut PacketPool, _peer: PeerKey) {}

    /// Makes an m-line of `peer` a track of its room.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::NoSlot`] (no such m-line, or of another
    /// kind), [`CommandError::MidInUse`], [`CommandError::Limit`] or [`CommandError::Invalid`]
    /// (the track exists already, or names another session).
    pub fn publish(
        &mut self,
        _now: Time,
        _peer: PeerKey,
        _publish: &Publish,
    ) -> Result<(), CommandError> {
        Ok(())
    }

    /// Ends a track. Slots that show it fall empty. Unknown tracks are ignored.
    pub fn unpublish(&mut self, _now: Time, _pool: &mut PacketPool, _track: TrackId) {}

    /// Forwards nothing of a track while it is muted. Unknown tracks are ignored.
    pub fn set_muted(&mut self, _now: Time, _track: TrackId, _muted: bool) {}

    /// Changes what slots of `peer` show: all of `assign`, or nothing.
    ///
    /// # Errors
    /// [`CommandError::NoSession`], [`CommandError::NoSlot`], [`CommandError::NoTrack`],
    /// [`CommandError::CodecUnsupported`], [`CommandError::Limit`] or [`CommandError::Invalid`]
    /// (a slot named twice).
    pub fn assign_slots(
        &mut self,
        _now: Time,
        _peer: PeerKey,
        _assign: &[AssignSlot],
    ) -> Result<(), CommandError> {
        Ok(())
    }

    /// Takes a plaintext RTP packet: the first `len` bytes of `buf`'s slot, from `peer`. The
    /// engine owns the buffer from here on, and forwards it with the next
    /// [`flush`](Engine::flush).
    pub fn handle_rtp(
        &mut self,
        _now: Time,
        pool: &mut PacketPool,
        _peer: PeerKey,
        buf: PacketBuf,
        _len: usize,
        _received: Time,
    ) {
        pool.release(buf);
    }

    /// Takes plaintext RTCP from `peer`, compound or of reduced size.
    pub fn handle_rtcp(&mut self, _now: Time, _peer: PeerKey, _packet: &[u8]) {}

    /// Forwards what has arrived, then sends the RTCP that is due, and frees buffers.
    pub fn flush<E: Egress>(&mut self, _now: Time, _pool: &mut PacketPool, _egress: &mut E) {}

    /// Runs the timers that are due. What they produce leaves with the next
    /// [`flush`](Engine::flush).
    pub fn handle_timeout(&mut self, _now: Time) {}

    /// When [`handle_timeout`](Engine::handle_timeout) wants to be called next;
    /// [`Time::NEVER`] if nothing is planned.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        Time::NEVER
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        None
    }
}
