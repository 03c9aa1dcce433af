//! The values that cross the media plane's border: keys, events, and where packets leave.

use crate::bwe::EstimateParts;
use crate::mirror::Mirror;
use sealcast_model::{Mid, ShardId, SlotId, Source, Time, TrackId};

/// A session, by the dense slab index that the shard chose for it. An index may be used again
/// after [`Engine::remove_peer`](crate::Engine::remove_peer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u32);

/// The most of a track that a slot gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLimit {
    /// Highest encoding of a simulcast, counted from the smallest, or highest spatial layer of a
    /// stream that has several; from 0.
    pub spatial: u8,
    /// Highest temporal layer, from 0.
    pub temporal: u8,
}

impl LayerLimit {
    /// Everything that is sent.
    pub const ALL: LayerLimit = LayerLimit {
        spatial: u8::MAX,
        temporal: u8::MAX,
    };
}

/// What is known of a forwarded packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// What the packet's track shows.
    pub source: Source,
    /// Its track; `None` for padding, which nobody sent and nobody waits for.
    pub track: Option<TrackId>,
    /// When the kernel received the packet that is forwarded, or the shard the request to send it
    /// again. Dwell counts from here.
    pub received: Time,
    /// When the shard had read it.
    pub read: Time,
}

/// A subscriber's path at a moment. Rates are in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathState {
    /// What the path is believed to carry.
    pub estimate: u64,
    /// What that is made of.
    pub parts: EstimateParts,
    /// What was divided last.
    pub available: u64,
    /// What the layers that were chosen cost.
    pub granted: u64,
}

/// Where packets leave the media plane: the session's SRTP context and the shard's send batch.
///
/// All packets of one incoming stream for one destination come in one run, so that an
/// implementation may seal them side by side and let them leave in one system call.
pub trait Egress {
    /// An RTP packet for `to`.
    ///
    /// `header` is the finished RTP header, extensions included; `payload` lies in its pool slot
    /// and is to be sealed out of place from there. It is valid during this call only.
    ///
    /// `index` is the SRTP packet index of the header's SSRC (RFC 3711 §3.3.1), 48 bits:
    /// `ROC << 16 | sequence number`. It starts with ROC 0, and is never used twice with
    /// different bytes.
    fn rtp(&mut self, to: PeerKey, index: u64, header: &[u8], payload: &[u8], meta: PacketMeta);

    /// What was handed over need not wait for what follows, which takes its time.
    fn release(&mut self) {}

    /// Packets for `to` will follow, those for one or two other peers in between: a hint to have at
    /// hand what they need. It changes nothing.
    fn prepare(&mut self, _to: PeerKey) {}

    /// This address will be read soon. A hint, and nothing but: it need not even be valid.
    fn prefetch(&self, _address: *const u8) {}

    /// A plaintext RTCP packet for `to`, compound or of reduced size.
    fn rtcp(&mut self, to: PeerKey, packet: &[u8]);

    /// A message for the media plane of another shard, with its packet if it is one that has.
    /// False if it cannot be taken now, or if there is no such shard; the engine copes.
    fn mirror(&mut self, _to: ShardId, _message: &Mirror, _packet: &[u8]) -> bool {
        false
    }
}

/// What the media plane tells the shard, by [`Engine::poll_event`](crate::Engine::poll_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaEvent {
    /// A slot shows another track, or none. To be told to the client over its data channel.
    SlotChanged {
        /// The receiving session.
        peer: PeerKey,
        /// The slot.
        slot: SlotId,
        /// The slot's m-line.
        mid: Mid,
        /// What it shows now.
        track: Option<TrackId>,
        /// It shows nothing of it for want of bandwidth. To be said to who looks at it: a
        /// diagnostic track is never degraded without a word.
        paused: bool,
        /// Counts the changes of all slots of this session, from 1. The greatest one wins.
        revision: u32,
    },
    /// Somebody else in the peer's room speaks. To be told to the client over its data channel.
    SpeakerChanged {
        /// The session to tell.
        peer: PeerKey,
        /// The speaker's audio track; `None` if they have left.
        track: Option<TrackId>,
    },
    /// What the path to the peer carries. To be told to the client over its data channel.
    PathEstimated {
        /// The receiving session.
        peer: PeerKey,
        /// Bits per second.
        bitrate: u64,
    },
    /// Which encodings of an m-line of the peer anybody gets; the others need not be sent. To be
    /// told to the client over its data channel.
    EncodingsWanted {
        /// The publishing session.
        peer: PeerKey,
        /// The m-line.
        mid: Mid,
        /// A bit for each encoding in the offer's order, the first lowest.
        active: u8,
        /// How many encodings there are.
        count: u8,
    },
    /// The structural check failed: the track is blocked until it is published anew.
    TrackBlocked {
        /// The track.
        track: TrackId,
    },
    /// The first packet of a track arrived.
    TrackStarted {
        /// The track.
        track: TrackId,
    },
}
