//! What receivers must know of senders: whose stream a frame is of, and how many were sent.

use crate::model::Codec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// What one m-line of this generator sends, in however many encodings.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) room: u64,
    pub(super) codec: Codec,
    /// The relay's id of its track, once published.
    pub(super) track: OnceLock<String>,
    /// Pictures, or audio frames, sent so far, as of the latest look.
    pub(super) sent: AtomicU64,
    /// When its first frame was due, nanoseconds; `u64::MAX` before.
    pub(super) started: AtomicU64,
}

/// Every stream of the run. Streams of clients that left stay: what they sent may still arrive.
#[derive(Debug, Default)]
pub(super) struct Registry {
    streams: RwLock<HashMap<u64, Arc<Stream>>>,
    tracks: RwLock<HashMap<String, Arc<Stream>>>,
}

impl Registry {
    /// A stream; `names` are those of its encodings.
    pub(super) fn add(&self, names: &[u64], room: u64, codec: Codec) -> Arc<Stream> {
        let stream = Arc::new(Stream {
            room,
            codec,
            track: OnceLock::new(),
            sent: AtomicU64::new(0),
            started: AtomicU64::new(u64::MAX),
        });
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        streams.extend(names.iter().map(|name| (*name, Arc::clone(&stream))));
        drop(streams);
        stream
    }

    pub(super) fn publish(&self, stream: &Arc<Stream>, track: &str) {
        // A stream is published once in its life.
        let _ = stream.track.set(track.to_owned());
        let mut tracks = self.tracks.write().unwrap_or_else(PoisonError::into_inner);
        tracks.insert(track.to_owned(), Arc::clone(stream));
    }

    pub(super) fn stream(&self, name: u64) -> Option<Arc<Stream>> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams.get(&name).cloned()
    }

    /// A stream of this room and codec that has been sent for a while: what a player must get.
    pub(super) fn sending(&self, room: u64, codec: Codec, frames: u64) -> bool {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = |s: &Arc<Stream>| {
            s.room == room && s.codec.is_video() == codec.is_video() && s.sent() >= frames
        };
        streams.values().any(wanted)
    }

    pub(super) fn of_track(&self, track: &str) -> Option<Arc<Stream>> {
        let tracks = self.tracks.read().unwrap_or_else(PoisonError::into_inner);
        tracks.get(track).cloned()
    }
}

impl Stream {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(super) fn started(&self) -> Option<sealcast_model::Time> {
        let nanos = self.started.load(Relaxed);
        (nanos != u64::MAX).then(|| sealcast_model::Time::from_nanos(nanos))
    }
}
