//! A published track, and the room it is published in.

use crate::limits::ENCODING_IDLE;
use crate::slab::Slab;
use crate::stream::RtpStream;
use sealcast_model::{RoomId, SealRule, Source, Time, TrackId};

/// A room: a set of peers that may subscribe to each other's tracks.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    /// Its peers.
    pub(crate) peers: usize,
}

/// What one m-line of a publisher carries.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) room: u32,
    /// The publishing peer.
    pub(crate) peer: u32,
    /// Index of the m-line among those the peer sends on.
    pub(crate) media: u16,
    pub(crate) source: Source,
    pub(crate) seal: SealRule,
    /// The structural check failed.
    pub(crate) blocked: bool,
    pub(crate) muted: bool,
    /// A packet has arrived.
    pub(crate) started: bool,
    /// Its streams, in the offer's order.
    pub(crate) encodings: Vec<u32>,
    /// The encoding that subscribers get.
    pub(crate) preferred: Option<u32>,
    /// Its subscriptions.
    pub(crate) subscriptions: Vec<u32>,
}

impl Track {
    /// Looks whether `arrived`, which just sent a packet, is a better encoding than the preferred
    /// one: larger, or sending where that one has stopped. Returns whether it took its place.
    pub(crate) fn prefer(&mut self, streams: &Slab<RtpStream>, arrived: u32, now: Time) -> bool {
        if self.preferred == Some(arrived) {
            return false;
        }
        let better = match (
            self.preferred.and_then(|p| streams.get(p)),
            streams.get(arrived),
        ) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => {
                let idle = old
                    .last_packet
                    .is_none_or(|last| now.saturating_since(last) > ENCODING_IDLE);
                idle || larger(new, old)
            }
        };
        if better {
            self.preferred = Some(arrived);
        }
        better
    }
}

/// Whether encoding `a` is larger than `b`: in pixels where both show them, else by their order,
/// in which senders list the smallest first.
fn larger(a: &RtpStream, b: &RtpStream) -> bool {
    match (a.pixels, b.pixels) {
        (Some(a), Some(b)) if a != b => a > b,
        _ => a.encoding > b.encoding,
    }
}
