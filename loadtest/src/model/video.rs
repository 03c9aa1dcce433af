//! A model video encoder: key frames on request, frame sizes spread as a real encoder's are, and a
//! rate control that pays back what a key frame cost.

use super::content::{self, FrameInfo};
use super::heads;
use super::{Codec, Payload};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::time::Duration;

/// What the encoder is set to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoParams {
    /// Codec, one of video.
    pub codec: Codec,
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

impl Default for VideoParams {
    fn default() -> Self {
        VideoParams {
            codec: Codec::Vp8,
            width: 640,
            height: 360,
            fps: 30,
            bitrate: 500_000,
            key_factor: 6.0,
            key_interval: None,
        }
    }
}

/// The encoder.
#[derive(Clone, Debug)]
pub struct VideoModel {
    params: VideoParams,
    stream: u64,
    first_ticks: u32,
    key_wanted: bool,
    last_key: Option<Time>,
    /// Bytes that were sent beyond the rate and are still to be saved.
    debt: f64,
    rng: Rng,
}

impl VideoModel {
    /// An encoder whose output follows from `seed` and the requests. `stream` names it in its
    /// frames.
    #[must_use]
    pub fn new(params: VideoParams, stream: u64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        VideoModel {
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
        let len = self.next_len(key);
        let info = FrameInfo {
            stream: self.stream,
            number,
            due,
            key,
        };
        let VideoParams {
            codec,
            width,
            height,
            ..
        } = self.params;
        let (head, len) = heads::write(codec, key, (width, height), len, content::LABEL_LEN);
        content::write(frame, &head, &info, len);
        // From the time, so that rounding does not add up, and pauses are ones.
        let ticks = due.as_micros() * u64::from(self.params.codec.clock_rate()) / 1_000_000;
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
        for (codec, fps, bitrate) in [
            (Codec::Vp8, 15, 150_000),
            (Codec::Vp9, 30, 500_000),
            (Codec::Av1, 30, 2_500_000),
            (Codec::H264, 60, 12_000_000),
        ] {
            let params = VideoParams {
                codec,
                fps,
                bitrate,
                key_interval: Some(Duration::from_secs(5)),
                ..VideoParams::default()
            };
            let mut model = VideoModel::new(params, 1, 2);
            let (mut frame, mut bytes, mut keys) = (vec![], 0, 0);
            let frames = 60 * fps;
            for n in 0..frames {
                let due = Time::ZERO + Duration::from_secs(1) * n / fps;
                let payload = model.encode(due, u64::from(n), &mut frame);
                let info = content::check(codec, &frame).unwrap();
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
        let mut model = VideoModel::new(VideoParams::default(), 1, 2);
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
        let mut model = VideoModel::new(
            VideoParams {
                fps: 7,
                ..VideoParams::default()
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
