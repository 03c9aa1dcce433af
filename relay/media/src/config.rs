//! Limits of one shard's engine that an operator may set.

use crate::limits::LOUDEST;

/// How much one engine holds. Commands beyond are refused with
/// [`CommandError::Limit`](sealcast_model::CommandError::Limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaConfig {
    /// Rooms with a participant.
    pub rooms: usize,
    /// Sessions. A [`PeerKey`](crate::PeerKey) must be below this number.
    pub peers: usize,
    /// Published tracks.
    pub tracks: usize,
    /// Slots that show a track.
    pub subscriptions: usize,
    /// Audio tracks of a room that are forwarded, the loudest; at least 1.
    pub loudest: usize,
}

impl Default for MediaConfig {
    /// What one core can carry with room to spare: 4,096 sessions with a track or two each, and
    /// 32 filled slots a session.
    fn default() -> Self {
        MediaConfig {
            rooms: 4_096,
            peers: 4_096,
            tracks: 16_384,
            subscriptions: 131_072,
            loudest: LOUDEST,
        }
    }
}
