//! A model publisher: a microphone and a camera, key frames and retransmissions as asked for.

use crate::layered::{LayerFrame, Layered, Mode};
use crate::packet::{
    EXT_DEPENDENCY, EXT_LEVEL, EXT_MID, EXT_REPAIRED_RID, EXT_RID, EXT_TWCC, NO_FRAME, OPUS, RIDS,
    Tag, payload_types, rtp,
};
use crate::payload::{Format, further_packets, opus, video};
use crate::session::{VIDEO_MID, audio_ssrc, repair_ssrc, video_ssrc};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use sealcast_rtp::rtcp::{Compound, Packet};
use sealcast_rtp::{Extension, HeaderFields};
use std::collections::VecDeque;
use std::time::Duration;

/// Time between frames: 30 a second.
pub const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
const AUDIO_FRAME: Duration = Duration::from_millis(20);

/// Packets kept to be sent again: over a second of any model stream.
const HISTORY: usize = 1_024;

/// What a camera sends.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Bits per second of each encoding, or else of each spatial layer, smallest first.
    pub bitrates: [u64; 3],
    /// Payload of a full packet, bytes.
    pub packet_bytes: usize,
    /// How it is encoded.
    pub format: Format,
}

/// One encoding.
#[derive(Debug)]
struct Encoding {
    index: u32,
    layers: Layered,
    number: u32,
    repair_sequence: u16,
    counter: u64,
    key_wanted: bool,
    /// Switched off by the relay's notice.
    off: bool,
    history: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    /// Dependency descriptor; empty if there is none.
    descriptor: Vec<u8>,
    payload: Vec<u8>,
}

/// A publishing client.
#[derive(Debug)]
pub struct Publisher {
    client: u32,
    room: u32,
    picture: Picture,
    encodings: Vec<Encoding>,
    transport: u16,
    next_frame: Time,
    next_audio: Time,
    audio_number: u32,
    /// Level of its microphone, −dBov.
    pub level: u8,
    /// Sends video.
    pub video: bool,
    /// Sends audio.
    pub audio: bool,
    /// Its microphone hears nothing: one packet in 400 ms (Opus DTX, RFC 6716 §2.1.9).
    pub silent: bool,
    /// Requests for key frames, with their times.
    pub key_requests: Vec<(Time, u32)>,
    /// Every frame: encoding, number, time of capture.
    pub frames: Vec<(u32, u32, Time)>,
    /// Packets of video sent again.
    pub repaired: u64,
    /// Video packets sent for the first time.
    pub sent: u64,
    /// Draws the size of each frame.
    sizes: Option<Rng>,
}

impl Publisher {
    /// A publisher that starts at `start`.
    #[must_use]
    pub fn new(client: u32, room: u32, simulcast: bool, picture: Picture, start: Time) -> Self {
        let encoding = |index| Encoding {
            index,
            layers: Layered::new(picture.format.mode),
            // Not far from the wrap, which the run then crosses.
            number: 0,
            repair_sequence: 65_000,
            counter: u64::from(index) << 32,
            key_wanted: true,
            off: false,
            history: VecDeque::new(),
        };
        Publisher {
            client,
            room,
            picture,
            encodings: (0..if simulcast { 3 } else { 1 }).map(encoding).collect(),
            transport: 65_000,
            next_frame: start,
            next_audio: start + Duration::from_millis(7),
            audio_number: 0,
            level: 100,
            video: true,
            audio: true,
            silent: false,
            key_requests: Vec::new(),
            frames: Vec::new(),
            repaired: 0,
            sent: 0,
            sizes: None,
        }
    }

    /// Frames are from now on up to a fifth larger or smaller than their share of the rate.
    pub fn vary_frames(&mut self, seed: u64) {
        self.sizes = Some(Rng::new(seed));
    }

    /// The relay says which encodings anybody gets.
    pub fn on_encodings(&mut self, active: u8) {
        for encoding in &mut self.encodings {
            let off = active >> encoding.index & 1 == 0;
            // An encoder that starts again starts with a key frame.
            encoding.key_wanted |= encoding.off && !off;
            encoding.off = off;
        }
    }

    /// Its encoder goes on in another mode.
    pub fn change_mode(&mut self, mode: Mode) {
        self.picture.format.mode = mode;
        for encoding in &mut self.encodings {
            encoding.layers.change(mode);
            encoding.key_wanted = true;
        }
    }

    /// What its camera sends.
    #[must_use]
    pub fn picture(&self) -> Picture {
        self.picture
    }

    /// Its encoder produces this many spatial layers from now on.
    pub fn activate_layers(&mut self, layers: u8) {
        for encoding in &mut self.encodings {
            encoding.key_wanted |= encoding.layers.activate(layers);
        }
    }

    /// What is to be sent by `now`.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Vec<u8>>) {
        while self.next_audio <= now {
            self.next_audio += AUDIO_FRAME * if self.silent { 20 } else { 1 };
            if self.audio {
                let packet = self.audio_packet(now);
                out.push(packet);
            }
        }
        while self.next_frame <= now {
            self.next_frame += FRAME;
            if !self.video {
                continue;
            }
            for at in 0..self.encodings.len() {
                if !self.encodings[at].off {
                    self.capture(now, at, out);
                }
            }
        }
    }

    fn audio_packet(&mut self, now: Time) -> Vec<u8> {
        let number = self.audio_number;
        self.audio_number += 1;
        let tag = Tag {
            room: self.room,
            publisher: self.client,
            encoding: Tag::AUDIO,
            frame: number,
            packet: 0,
            packets: 1,
            depends_on: [NO_FRAME; 2],
            number,
            captured: now.as_micros() as u32,
            picture: number,
            base_pictures: 0,
            targets: 1,
            target_count: 1,
        };
        let fields = HeaderFields {
            payload_type: OPUS,
            sequence_number: 65_400u16.wrapping_add(number as u16),
            timestamp: number.wrapping_mul(960),
            ssrc: audio_ssrc(self.client),
            ..HeaderFields::default()
        };
        let level = [0x80 | self.level];
        let transport = self.transport();
        let extensions = [
            Extension {
                id: EXT_LEVEL,
                data: &level,
            },
            Extension {
                id: EXT_TWCC,
                data: &transport,
            },
        ];
        rtp(&fields, &extensions, &opus(&tag, u64::from(number) + 1))
    }

    /// The encodings' rates from now on, bits per second.
    pub fn set_bitrates(&mut self, bitrates: [u64; 3]) {
        self.picture.bitrates = bitrates;
    }

    fn transport(&mut self) -> [u8; 2] {
        self.transport = self.transport.wrapping_add(1);
        self.transport.to_be_bytes()
    }

    /// A picture of an encoding: all its layers.
    fn capture(&mut self, now: Time, at: usize, out: &mut Vec<Vec<u8>>) {
        let encoding = &mut self.encodings[at];
        let key = std::mem::take(&mut encoding.key_wanted) || !encoding.layers.has_started();
        for frame in encoding.layers.picture(key) {
            self.frame(now, at, &frame, out);
        }
    }

    fn frame(&mut self, now: Time, at: usize, frame: &LayerFrame, out: &mut Vec<Vec<u8>>) {
        let (client, room, picture) = (self.client, self.room, self.picture);
        let encoding = &mut self.encodings[at];
        self.frames.push((encoding.index, frame.frame, now));
        encoding.counter += 1;
        let place = at.max(frame.spatial.into()).min(2);
        let mut share = picture.bitrates[place] as usize / 8 / 30 * if frame.key { 4 } else { 1 };
        if let Some(rng) = &mut self.sizes {
            share = share * (80 + rng.below(41) as usize) / 100;
        }
        let content = share.div_ceil(picture.packet_bytes).max(1);
        let packets = (content + further_packets(picture.format, frame)) as u32;
        for packet in 0..packets {
            let encoding = &mut self.encodings[at];
            let end = packet + 1 == packets;
            let tag = Tag {
                room,
                publisher: client,
                encoding: encoding.index,
                frame: frame.frame,
                packet,
                packets,
                depends_on: frame.depends_on,
                number: encoding.number,
                captured: now.as_micros() as u32,
                picture: frame.picture,
                base_pictures: frame.base_pictures,
                targets: frame.targets,
                target_count: picture.format.mode.target_count().into(),
            };
            let sequence = 65_000u16.wrapping_add(encoding.number as u16);
            encoding.number += 1;
            let len = (share / content).max(80);
            let sent = Sent {
                sequence,
                timestamp: (now.as_micros() * 90 / 1_000) as u32,
                marker: end && frame.last,
                descriptor: match picture.format.described {
                    true => encoding.layers.descriptor(frame, packet == 0, end),
                    false => Vec::new(),
                },
                payload: video(picture.format, frame, &tag, encoding.counter, len),
            };
            let packet = self.packet(at, &sent, None);
            out.push(packet);
            self.sent += 1;
            let history = &mut self.encodings[at].history;
            history.push_back(sent);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
    }

    /// A packet of an encoding; `repair` is its sequence number as a retransmission.
    fn packet(&mut self, at: usize, sent: &Sent, repair: Option<u16>) -> Vec<u8> {
        let index = self.encodings[at].index;
        let (media, rtx) = payload_types(self.picture.format.codec);
        let fields = HeaderFields {
            marker: sent.marker,
            payload_type: if repair.is_some() { rtx } else { media },
            sequence_number: repair.unwrap_or(sent.sequence),
            timestamp: sent.timestamp,
            ssrc: match repair {
                Some(_) => repair_ssrc(self.client, index),
                None => video_ssrc(self.client, index),
            },
            ..HeaderFields::default()
        };
        let transport = self.transport();
        let mut extensions = vec![Extension {
            id: EXT_TWCC,
            data: &transport,
        }];
        if !sent.descriptor.is_empty() {
            extensions.push(Extension {
                id: EXT_DEPENDENCY,
                data: &sent.descriptor,
            });
        }
        if self.encodings.len() > 1 {
            let id = if repair.is_some() {
                EXT_REPAIRED_RID
            } else {
                EXT_RID
            };
            extensions.push(Extension {
                id: EXT_MID,
                data: VIDEO_MID.as_bytes(),
            });
            extensions.push(Extension {
                id,
                data: RIDS[index as usize % RIDS.len()].as_bytes(),
            });
        }
        match repair {
            None => rtp(&fields, &extensions, &sent.payload),
            Some(_) => {
                let mut payload = sent.sequence.to_be_bytes().to_vec();
                payload.extend(&sent.payload);
                rtp(&fields, &extensions, &payload)
            }
        }
    }

    /// RTCP from the relay: key frames and retransmissions.
    pub fn on_rtcp(&mut self, now: Time, bytes: &[u8], out: &mut Vec<Vec<u8>>) {
        let Ok(compound) = Compound::parse(bytes) else {
            return;
        };
        for packet in compound.iter().flatten() {
            match packet {
                Packet::Pli(pli) => {
                    if let Some(at) = self.encoding_of(pli.media_ssrc) {
                        self.encodings[at].key_wanted = true;
                        self.key_requests.push((now, at as u32));
                    }
                }
                Packet::Nack(nack) => {
                    let Some(at) = self.encoding_of(nack.media_ssrc) else {
                        continue;
                    };
                    for sequence in nack.sequence_numbers() {
                        self.repair(at, sequence, out);
                    }
                }
                _ => {}
            }
        }
    }

    fn encoding_of(&self, ssrc: u32) -> Option<usize> {
        (0..self.encodings.len())
            .find(|at| video_ssrc(self.client, self.encodings[*at].index) == ssrc)
    }

    fn repair(&mut self, at: usize, sequence: u16, out: &mut Vec<Vec<u8>>) {
        let history = &mut self.encodings[at].history;
        let Some(place) = history.iter().position(|sent| sent.sequence == sequence) else {
            return;
        };
        let Some(sent) = history.remove(place) else {
            return;
        };
        let repair = self.encodings[at].repair_sequence;
        self.encodings[at].repair_sequence = repair.wrapping_add(1);
        let packet = self.packet(at, &sent, Some(repair));
        out.push(packet);
        self.repaired += 1;
        self.encodings[at].history.insert(place, sent);
    }
}
