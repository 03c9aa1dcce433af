//! What the shards of a relay say to each other about a room that is on several of them.
//!
//! A track has its **home** on the shard where its publisher's session is. Every other shard with
//! somebody in the room has a **mirror** of the publisher: a peer without a transport, whose packets
//! come from the home by a ring and not from a socket. Everything behind that, from key frames and
//! layers to histories and congestion control, is the same for a mirror as for any publisher.
//!
//! ```text
//! home       packets, gaps, clock reports of what is wanted    →  satellite
//!            what is wanted, key frames, packets that were lost  ←
//! ```
//!
//! Any message may be lost to a full ring. What is missing is asked for again; what is wanted is
//! said again every [`MIRROR_REFRESH`](crate::limits::MIRROR_REFRESH).

use sealcast_model::limits::RIDS_PER_MEDIA;
use sealcast_model::{ShardId, Time, TrackId};

/// Sequence numbers in one [`Mirror::Missing`].
pub const MISSING_MAX: usize = 16;

/// A message from one shard's media plane to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// Home to satellite, with a plaintext RTP packet as the publisher sent it.
    Packet {
        /// The stream.
        place: MirrorPlace,
        /// Extended sequence number, as the home counts.
        sequence: u64,
        /// It came as a retransmission (RFC 4588), and still has that form.
        repaired: bool,
        /// When the home's socket got it.
        received: Time,
    },
    /// Home to satellite: a packet that nobody gets; numbers close up behind it.
    Skip {
        /// The stream.
        place: MirrorPlace,
        /// As in [`Mirror::Packet`].
        sequence: u64,
    },
    /// Home to satellite: the publisher's clock, from its sender report.
    Clock {
        /// The stream.
        place: MirrorPlace,
        /// Publisher's NTP time.
        ntp: u64,
        /// RTP timestamp at that time.
        timestamp: u32,
        /// When the home got the report.
        arrived: Time,
    },
    /// Satellite to home: what it wants of a track. Said again regularly; none ends it.
    Want {
        /// The track.
        track: TrackId,
        /// The satellite's own index of it.
        index: u32,
        /// A bit for each encoding in the offer's order, the first lowest: which to send on.
        encodings: u8,
        /// Likewise, which of them somebody gets now. The others may be switched off at the
        /// publisher after a while.
        needed: u8,
    },
    /// Satellite to home: somebody needs a key frame.
    Keyframe {
        /// The track.
        track: TrackId,
        /// Index of the encoding.
        encoding: u8,
    },
    /// Satellite to home: packets that did not come.
    Missing {
        /// The track.
        track: TrackId,
        /// Index of the encoding.
        encoding: u8,
        /// Sequence numbers; the first `count` are.
        numbers: [u16; MISSING_MAX],
        /// How many.
        count: u8,
    },
}

/// Where on a satellite a message from the home belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorPlace {
    /// The track.
    pub track: TrackId,
    /// The satellite's index of it, as it said.
    pub index: u32,
    /// Index of the encoding in the offer's order.
    pub encoding: u8,
    /// Counts the lives of the stream on this satellite: numbers of different lives have nothing
    /// to do with each other.
    pub life: u32,
}

/// A shard that a track of this one is mirrored to.
#[derive(Debug)]
pub(crate) struct Satellite {
    pub(crate) shard: ShardId,
    index: u32,
    /// Bits of the encodings that it wants.
    wanted: u8,
    /// Bits of the encodings that somebody gets there now.
    pub(crate) needed: u8,
    lives: [Life; RIDS_PER_MEDIA],
}

/// One encoding's life on one satellite.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// Every packet since its start was sent on.
    running: bool,
    /// The life of the stream here.
    epoch: u32,
    count: u32,
    /// NTP time of the sender report that was passed on last.
    clock: Option<u64>,
}

impl Satellite {
    pub(crate) fn new(shard: ShardId, index: u32) -> Self {
        Satellite {
            shard,
            index,
            wanted: 0,
            needed: 0,
            lives: [Life::default(); RIDS_PER_MEDIA],
        }
    }

    /// It says again what it wants.
    pub(crate) fn update(&mut self, index: u32, wanted: u8, needed: u8) {
        if std::mem::replace(&mut self.index, index) != index {
            self.pause();
        }
        (self.wanted, self.needed) = (wanted, needed);
    }

    /// What comes next is not what follows what was sent last.
    pub(crate) fn pause(&mut self) {
        self.lives.iter_mut().for_each(|life| life.running = false);
    }

    /// Where packets of an encoding belong, if they are wanted. `epoch` is the stream's life here.
    pub(crate) fn place(
        &mut self,
        track: TrackId,
        encoding: u8,
        epoch: u32,
    ) -> Option<MirrorPlace> {
        let life = self.lives.get_mut(usize::from(encoding))?;
        if self.wanted >> encoding & 1 == 0 {
            life.running = false;
            return None;
        }
        if !life.running || life.epoch != epoch {
            *life = Life {
                running: true,
                epoch,
                count: life.count.wrapping_add(1),
                clock: None,
            };
        }
        Some(MirrorPlace {
            track,
            index: self.index,
            encoding,
            life: life.count,
        })
    }

    /// As [`place`](Satellite::place), for a packet that is sent once more: only while the life that
    /// it belongs to goes on.
    pub(crate) fn current(
        &mut self,
        track: TrackId,
        encoding: u8,
        epoch: u32,
    ) -> Option<MirrorPlace> {
        let life = self.lives.get(usize::from(encoding))?;
        let goes_on = life.running && life.epoch == epoch;
        goes_on.then(|| self.place(track, encoding, epoch))?
    }

    /// Whether it has not been told of this sender report. To be called after
    /// [`place`](Satellite::place).
    pub(crate) fn is_news(&self, encoding: u8, ntp: u64) -> bool {
        let life = self.lives.get(usize::from(encoding));
        life.is_some_and(|life| life.clock != Some(ntp))
    }

    /// It was told.
    pub(crate) fn told(&mut self, encoding: u8, ntp: u64) {
        if let Some(life) = self.lives.get_mut(usize::from(encoding)) {
            life.clock = Some(ntp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_begins_a_new_life_and_a_restart_too() {
        let track = TrackId(7);
        let mut satellite = Satellite::new(ShardId(1), 3);
        satellite.update(3, 0b101, 0b101);
        let life = |place: Option<MirrorPlace>| place.map(|p| (p.index, p.life));
        assert_eq!(
            life(satellite.current(track, 0, 9)),
            None,
            "nothing was sent"
        );
        assert_eq!(life(satellite.place(track, 0, 9)), Some((3, 1)));
        assert_eq!(life(satellite.place(track, 0, 9)), Some((3, 1)));
        assert_eq!(life(satellite.place(track, 1, 9)), None, "not wanted");
        assert_eq!(
            life(satellite.place(track, 2, 4)),
            Some((3, 1)),
            "each has its own"
        );
        assert_eq!(
            life(satellite.place(track, 0, 10)),
            Some((3, 2)),
            "restarted here"
        );
        assert_eq!(
            life(satellite.current(track, 0, 9)),
            None,
            "of the former life"
        );
        assert_eq!(life(satellite.current(track, 0, 10)), Some((3, 2)));
        satellite.pause();
        assert_eq!(life(satellite.current(track, 0, 10)), None);
        assert_eq!(life(satellite.place(track, 0, 10)), Some((3, 3)));
        satellite.update(3, 0b001, 0);
        assert_eq!(
            life(satellite.place(track, 0, 10)),
            Some((3, 3)),
            "nothing new"
        );
        satellite.update(4, 0b001, 0);
        assert_eq!(
            life(satellite.place(track, 0, 10)),
            Some((4, 4)),
            "another mirror there"
        );
        assert_eq!(
            life(satellite.place(track, 7, 10)),
            None,
            "no such encoding"
        );
    }

    #[test]
    fn a_clock_is_told_once_in_a_life() {
        let mut satellite = Satellite::new(ShardId(1), 0);
        satellite.update(0, 1, 1);
        let start = |s: &mut Satellite, epoch| s.place(TrackId(1), 0, epoch).is_some();
        assert!(start(&mut satellite, 1) && satellite.is_news(0, 50));
        satellite.told(0, 50);
        assert!(!satellite.is_news(0, 50) && satellite.is_news(0, 51));
        assert!(start(&mut satellite, 2) && satellite.is_news(0, 50));
    }
}
