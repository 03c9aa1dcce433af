//! A model VP8 encoder: key frames on request, frame sizes spread as a real encoder's are, and a
//! rate control that pays back what a key frame cost.

use super::content::{self, FrameInfo};
use super::{Codec, Payload};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::time::Duration;

/// What the encoder is set to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vp8Params {
    /// Width, pixels, at most 16,383.
    pub width: u16,
    /// Height, pixels, at most 16,383.
    pub height: u16,
    /// Frames per second, 1..=120.
    pub fps: u32,
    /// Bits per second.
    pub bitrate: u32,
    /// A key frame's size as a multiple of the mean frame. Conferencing encoders come to 4..=10.
    pub key_factor: f64,
    /// Key frames at least this often; `None`: the first, and on request.
    pub key_interval: Option<Duration>,
}

impl Default for Vp8Params {
    fn default() -> Self {
        Vp8Params {
            width: 640,
            height: 360,
            fps: 30,
            bitrate: 500_000,
            key_factor: 6.0,
            key_interval: None,
        }
    }
}

/// RFC 6386 §9.1: the bytes that follow a key frame's tag.
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

/// The frame tag, and for a key frame start code and size (RFC 6386 §9.1).
pub(super) fn head(key: bool, width: u16, height: u16, len: usize) -> Vec<u8> {
    // "A 19-bit field containing the size of the first data partition": half of the frame.
    let first_partition = (len / 2).min((1 << 19) - 1) as u32;
    let show_frame = 1;
    let tag = u32::from(!key) | show_frame << 4 | first_partition << 5;
    let mut head = tag.to_le_bytes()[..3].to_vec();
    if key {
        head.extend_from_slice(&START_CODE);
        head.extend_from_slice(&(width & 0x3fff).to_le_bytes());
        head.extend_from_slice(&(height & 0x3fff).to_le_bytes());
    }
    head
}

/// Whether these bytes start a shown frame of this kind.
pub(super) fn check_head(head: &[u8], key: bool) -> bool {
    match head {
        [tag, _, _] => !key && tag & 0x11 == 0x11,
        [tag, _, _, a, b, c, ..] => key && tag & 0x11 == 0x10 && [*a, *b, *c] == START_CODE,
        _ => false,
    }
}

/// The encoder.
#[derive(Clone, Debug)]
pub struct Vp8Model {
    params: Vp8Params,
    stream: u64,
    first_ticks: u32,
    key_wanted: bool,
    last_key: Option<Time>,
    /// Bytes that were sent beyond the rate and are still to be saved.
    debt: f64,
    rng: Rng,
}

impl Vp8Model {
    /// An encoder whose output follows from `seed` and the requests. `stream` names it in its
    /// frames.
    #[must_use]
    pub fn new(params: Vp8Params, stream: u64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Vp8Model {
            params,
            stream,
            first_ticks: rng.next_u64() as u32,
            key_wanted: true,
            last_key: None,
            debt: 0.0,
            rng,
        }
    }

    /// Time between frames.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.params.fps.max(1)
    }

    /// The next frame is to be a key frame (PLI, FIR).
    pub fn request_key_frame(&mut self) {
        self.key_wanted = true;
    }

    /// Changes the target from the next frame on.
    pub fn set_bitrate(&mut self, bitrate: u32) {
        self.params.bitrate = bitrate;
    }

    /// The frame that is due at `due`, into `frame`, which is cleared first. `number` is the
    /// picture's: encodings of one source share it.
    pub fn encode(&mut self, due: Time, number: u64, frame: &mut Vec<u8>) -> Payload {
        let overdue = |every| self.last_key.is_some_and(|last| due >= last + every);
        let key = self.key_wanted || self.params.key_interval.is_some_and(overdue);
        if key {
            self.key_wanted = false;
            self.last_key = Some(due);
        }
        let len = self.next_len(key).max(content::min_len(Codec::Vp8));
        let info = FrameInfo {
            stream: self.stream,
            number,
            due,
            key,
        };
        let head = head(key, self.params.width, self.params.height, len);
        content::write(frame, &head, &info, len);
        // From the time, so that rounding does not add up, and pauses are ones.
        let ticks = due.as_micros() * u64::from(Codec::Vp8.clock_rate()) / 1_000_000;
        Payload {
            timestamp: self.first_ticks.wrapping_add(ticks as u32),
            key,
            audio_level: None,
        }
    }

    fn next_len(&mut self, key: bool) -> usize {
        let mean = f64::from(self.params.bitrate) / 8.0 / f64::from(self.params.fps.max(1));
        let len = if key {
            mean * self.params.key_factor
        } else {
            // A debt is paid back over half a second, but no frame falls below a third of the
            // mean: quality would show it.
            let repay = self.debt / (f64::from(self.params.fps) / 2.0).max(1.0);
            let target = (mean - repay).max(mean / 3.0);
            target * self.spread()
        };
        self.debt = (self.debt + len - mean).max(-mean * 4.0);
        len as usize
    }

    /// A factor with mean one and a tail to the right: a quarter of a sum of four exponentials
    /// (standard deviation one half), halved towards one.
    fn spread(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| -(1.0 - self.rng.unit()).ln()).sum();
        0.5 + sum / 8.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_rate_through_key_frames() {
        for (fps, bitrate) in [(15, 150_000), (30, 500_000), (60, 12_000_000)] {
            let params = Vp8Params {
                fps,
                bitrate,
                key_interval: Some(Duration::from_secs(5)),
                ..Vp8Params::default()
            };
            let mut model = Vp8Model::new(params, 1, 2);
            let (mut frame, mut bytes, mut keys) = (vec![], 0, 0);
            let frames = 60 * fps;
            for n in 0..frames {
                let due = Time::ZERO + Duration::from_secs(1) * n / fps;
                let payload = model.encode(due, u64::from(n), &mut frame);
                let info = content::check(Codec::Vp8, &frame).unwrap();
                assert_eq!((info.number, info.key), (u64::from(n), payload.key));
                bytes += frame.len();
                keys += u32::from(payload.key);
            }
            let rate = bytes as f64 * 8.0 / 60.0;
            let off = rate / f64::from(bitrate) - 1.0;
            assert!(off.abs() < 0.05, "{rate} for {bitrate}");
            assert_eq!(keys, 12);
        }
    }

    #[test]
    fn a_request_makes_one_key_frame() {
        let mut model = Vp8Model::new(Vp8Params::default(), 1, 2);
        let mut frame = vec![];
        let mut keys = vec![];
        for n in 0..10 {
            if n == 4 {
                model.request_key_frame();
                model.request_key_frame();
            }
            keys.push(model.encode(Time::from_millis(33 * n), n, &mut frame).key);
        }
        assert_eq!(
            keys,
            [
                true, false, false, false, true, false, false, false, false, false
            ]
        );
    }

    #[test]
    fn timestamps_do_not_drift() {
        let mut model = Vp8Model::new(
            Vp8Params {
                fps: 7,
                ..Vp8Params::default()
            },
            1,
            2,
        );
        let mut frame = vec![];
        let mut at = |n: u64| {
            let due = Time::ZERO + model.interval() * n as u32;
            model.encode(due, n, &mut frame).timestamp
        };
        let (first, last) = (at(0), at(7_000));
        assert!(last.wrapping_sub(first).abs_diff(1_000 * 90_000) <= 1);
    }
}
