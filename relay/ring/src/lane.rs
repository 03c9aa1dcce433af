//! Messages with payloads from one thread to another, and the payloads' buffers back.
//!
//! A payload is copied into a buffer of the sender's pool, and the buffer travels with its message.
//! The receiver reads it where it is and gives it back. Nothing is allocated once the pool has its
//! buffers, and a buffer is never freed by a thread that does not own it while both ends live.

use crate::ring::{Consumer, Producer, ring};

/// Buffers of one thread, all of one size. It lends them to every lane that it sends on.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Box<[u8]>>,
    size: usize,
    limit: usize,
    made: usize,
}

impl BufferPool {
    /// A pool of at most `limit` buffers of `size` bytes. It has none before
    /// [`fill`](BufferPool::fill).
    #[must_use]
    pub fn new(limit: usize, size: usize) -> Self {
        BufferPool {
            free: Vec::new(),
            size,
            limit,
            made: 0,
        }
    }

    /// Makes all buffers that are not there yet. To be called before the first send, and not on the
    /// packet path.
    pub fn fill(&mut self) {
        self.free.reserve_exact(self.limit - self.free.len());
        while self.made < self.limit {
            self.free.push(vec![0; self.size].into_boxed_slice());
            self.made += 1;
        }
    }

    /// Most buffers that there can be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Buffers that are not lent.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        // Within what `fill` reserved: no more come back than were made.
        self.free.push(buffer);
    }
}

/// What travels.
struct Letter<M> {
    message: M,
    len: u32,
    payload: Option<Box<[u8]>>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The receiver is behind.
    Full,
    /// All buffers are lent.
    NoBuffer,
    /// The payload is larger than a buffer.
    TooLong,
}

/// The end that sends.
pub struct LaneSender<M> {
    out: Producer<Letter<M>>,
    back: Consumer<Box<[u8]>>,
}

/// The end that receives.
pub struct LaneReceiver<M> {
    arriving: Consumer<Letter<M>>,
    back: Producer<Box<[u8]>>,
}

/// A lane for `capacity` messages under way, from a thread whose pool has `buffers` buffers at
/// most.
#[must_use]
pub fn lane<M: Send>(capacity: usize, buffers: usize) -> (LaneSender<M>, LaneReceiver<M>) {
    let (out, arriving) = ring(capacity);
    // Room for every buffer there is: giving one back can never fail.
    let (returning, back) = ring(buffers);
    let sender = LaneSender { out, back };
    let receiver = LaneReceiver {
        arriving,
        back: returning,
    };
    (sender, receiver)
}

impl<M: Send> LaneSender<M> {
    /// Sends a message with its payload, which may be empty, as long as more than `reserve` places
    /// are free. Never waits.
    ///
    /// # Errors
    /// [`Refused`]; nothing was sent then.
    #[inline]
    pub fn send(
        &mut self,
        pool: &mut BufferPool,
        message: M,
        payload: &[u8],
        reserve: usize,
    ) -> Result<(), Refused> {
        if self.out.free(reserve + 1) <= reserve {
            return Err(Refused::Full);
        }
        let buffer = if payload.is_empty() {
            None
        } else {
            let mut buffer = match pool.free.pop() {
                Some(buffer) => buffer,
                None => {
                    self.reclaim(pool);
                    pool.free.pop().ok_or(Refused::NoBuffer)?
                }
            };
            let Some(place) = buffer.get_mut(..payload.len()) else {
                pool.give(buffer);
                return Err(Refused::TooLong);
            };
            place.copy_from_slice(payload);
            Some(buffer)
        };
        let letter = Letter {
            message,
            len: payload.len() as u32,
            payload: buffer,
        };
        self.out.push(letter).map_err(|letter| {
            letter.payload.into_iter().for_each(|b| pool.give(b));
            Refused::Full
        })
    }

    /// Takes back the buffers that the receiver has done with.
    pub fn reclaim(&mut self, pool: &mut BufferPool) {
        while let Some(buffer) = self.back.pop() {
            pool.give(buffer);
        }
    }
}

impl<M: Send> LaneReceiver<M> {
    /// Takes the oldest message, hands it with its payload to `take`, and gives the buffer back.
    /// False if there is none.
    #[inline]
    pub fn receive(&mut self, take: impl FnOnce(M, &[u8])) -> bool {
        let Some(letter) = self.arriving.pop() else {
            return false;
        };
        let Letter {
            message,
            len,
            payload,
        } = letter;
        match payload {
            None => take(message, &[]),
            Some(buffer) => {
                take(message, buffer.get(..len as usize).unwrap_or_default());
                let returned = self.back.push(buffer);
                debug_assert!(returned.is_ok(), "there is room for every buffer");
            }
        }
        true
    }
}

impl<M> std::fmt::Debug for LaneSender<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneSender").finish_non_exhaustive()
    }
}

impl<M> std::fmt::Debug for LaneReceiver<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneReceiver").finish_non_exhaustive()
    }
}
