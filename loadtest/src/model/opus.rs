//! A model Opus encoder: one frame every 20 ms, around a bit rate, silent at times.

use super::Payload;
use super::content::{self, FrameInfo};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::time::Duration;

/// RFC 6716 §3.1: CELT only, fullband, 20 ms, mono, one frame in the packet.
pub(super) const TOC: [u8; TOC_LEN] = [31 << 3];
pub(super) const TOC_LEN: usize = 1;

/// Time between frames.
pub(super) const FRAME: Duration = Duration::from_millis(20);
/// RTP timestamp units between frames.
const FRAME_TICKS: u32 = 960;

pub(super) fn check_toc(head: &[u8]) -> bool {
    head == TOC
}

/// What the encoder is set to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpusParams {
    /// Bits per second while speaking, 12,000..=510,000.
    pub bitrate: u32,
    /// Share of the time that the participant speaks, 0..=1, in spurts of a second or so. Only
    /// the audio level tells; frames flow without pause unless `dtx`.
    pub speaking: f64,
    /// Send nothing while silent but a frame every 400 ms (RFC 6716 §2.1.9).
    pub dtx: bool,
}

impl Default for OpusParams {
    fn default() -> Self {
        OpusParams {
            bitrate: 40_000,
            speaking: 0.4,
            dtx: false,
        }
    }
}

/// The encoder.
#[derive(Clone, Debug)]
pub struct OpusModel {
    params: OpusParams,
    stream: u64,
    number: u64,
    ticks: u32,
    speaking: bool,
    /// Frames until it may start or stop speaking.
    spurt: u32,
    /// Frames since the last one that was sent.
    unsent: u32,
    rng: Rng,
}

impl OpusModel {
    /// An encoder whose output follows from `seed`. `stream` names it in its frames.
    #[must_use]
    pub fn new(params: OpusParams, stream: u64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        OpusModel {
            params,
            stream,
            number: 0,
            ticks: rng.next_u64() as u32,
            speaking: false,
            spurt: 0,
            unsent: 0,
            rng,
        }
    }

    /// Time between frames.
    #[must_use]
    pub fn interval(&self) -> Duration {
        FRAME
    }

    /// The frame that is due at `due`, into `frame`, which is cleared first. `None` in silence.
    pub fn encode(&mut self, due: Time, frame: &mut Vec<u8>) -> Option<Payload> {
        /// Frames between two that DTX sends.
        const DTX_FRAMES: u32 = 20;

        self.ticks = self.ticks.wrapping_add(FRAME_TICKS);
        if self.spurt == 0 {
            self.speaking = self.rng.chance(self.params.speaking);
            self.spurt = 25 + self.rng.below(75) as u32;
        }
        self.spurt -= 1;
        self.unsent += 1;
        if self.params.dtx && !self.speaking && self.unsent < DTX_FRAMES {
            return None;
        }
        self.unsent = 0;
        let info = FrameInfo {
            stream: self.stream,
            number: self.number,
            due,
            key: true,
        };
        self.number += 1;
        // 50 frames a second; VBR spreads them over ±20 %.
        let mean = f64::from(self.params.bitrate) / 8.0 / 50.0;
        let loudness = if self.speaking { 1.0 } else { 0.5 };
        let len = (mean * loudness * (0.8 + 0.4 * self.rng.unit())) as usize;
        content::write(frame, &TOC, &info, len.max(TOC_LEN + content::LABEL_LEN));
        Some(Payload {
            timestamp: self.ticks,
            key: true,
            // RFC 6464 §3: level in -dBov, and whether it is speech.
            audio_level: Some((self.speaking, if self.speaking { 20 } else { 70 })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Codec;

    fn run(params: OpusParams, frames: u64) -> (usize, usize, usize) {
        let mut model = OpusModel::new(params, 5, 6);
        let (mut sent, mut bytes, mut speech, mut frame) = (0, 0, 0, vec![]);
        for n in 0..frames {
            let due = Time::ZERO + FRAME * n as u32;
            if let Some(payload) = model.encode(due, &mut frame) {
                let info = content::check(Codec::Opus, &frame).unwrap();
                assert_eq!((info.number, info.due), (sent as u64, due));
                sent += 1;
                bytes += frame.len();
                speech += usize::from(payload.audio_level.unwrap().0);
            }
        }
        (sent, bytes, speech)
    }

    #[test]
    fn keeps_its_rate_while_speaking() {
        let (sent, bytes, speech) = run(
            OpusParams {
                bitrate: 64_000,
                speaking: 1.0,
                dtx: false,
            },
            5_000,
        );
        assert_eq!((sent, speech), (5_000, 5_000));
        let rate = bytes as f64 * 8.0 / 100.0;
        assert!((rate - 64_000.0).abs() < 640.0, "{rate}");
    }

    #[test]
    fn dtx_pauses() {
        let (sent, _, speech) = run(
            OpusParams {
                bitrate: 64_000,
                speaking: 0.0,
                dtx: true,
            },
            2_000,
        );
        assert_eq!((sent, speech), (100, 0));
    }
}
