//! The active speaker and the loudest few of a room.
//!
//! Levels are smoothed twice: fast, to hear that somebody speaks, and slow, to tell a speaker from
//! a cough. Both work on loudness above silence, in steps of fixed length, so that the result
//! follows from the packets alone.

use sealcast_model::Time;
use sealcast_rtp::ext::AudioLevel;
use std::time::Duration;

/// Length of a step. Opus sends a packet each 20 ms.
const STEP: Duration = Duration::from_millis(20);

/// Loudness is decibels above this (−dBov); below is silence.
const SILENCE: u8 = 70;

/// Weights of a step, of 256: a fast average of 0.1 s and a slow one of 0.6 s; falling, the slow
/// one takes 1.5 s, so that a pause between words is no pause.
const FAST: i32 = 48;
const SLOW_RISE: i32 = 8;
const SLOW_FALL: i32 = 3;

/// Packets that are not sent (DTX, mute) are steps of silence; after this many nothing is left.
const MAX_SILENT_STEPS: u64 = 500;

/// A challenger takes the floor when it was this much louder (slow average, dB) ...
const MARGIN: i32 = 6;
/// ... for this long without a break. One who is alone needs no margin.
const CHALLENGE: Duration = Duration::from_millis(400);

/// A track keeps its place among the loudest for this long after it was loud enough.
const KEEP: Duration = Duration::from_secs(2);

/// Least fast average of one who counts as speaking, dB above silence.
const SPEAKING: i32 = 10;

/// Fixed point of the averages.
const ONE: i32 = 256;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeakerChange<K> {
    /// Who speaks now; `None` in a room that has been silent from the start, or when the speaker
    /// has left.
    pub speaker: Option<K>,
}

#[derive(Clone, Copy, Debug)]
struct Voice<K> {
    key: K,
    /// Averages in dB above silence, times `ONE`.
    fast: i32,
    slow: i32,
    /// The step up to which the averages reach.
    step: u64,
    /// Last time it was among the loudest by its own right.
    kept_until: Time,
    among_loudest: bool,
}

/// Tells the active speaker of a room, and its `loudest` tracks.
///
/// Contract: [`add`](Self::add) and [`remove`](Self::remove) tracks; [`on_level`](Self::on_level)
/// for each packet; [`update`](Self::update) about ten times a second.
#[derive(Debug)]
pub struct ActiveSpeaker<K> {
    voices: Vec<Voice<K>>,
    loudest: usize,
    speaker: Option<K>,
    challenge: Option<(K, Time)>,
}

impl<K: Copy + Eq> ActiveSpeaker<K> {
    /// A room of which the `loudest` tracks are to be told, at least 1.
    #[must_use]
    pub fn new(loudest: usize) -> Self {
        ActiveSpeaker {
            voices: Vec::new(),
            loudest: loudest.max(1),
            speaker: None,
            challenge: None,
        }
    }

    /// A track is published. Nothing happens if it is known.
    pub fn add(&mut self, now: Time, key: K) {
        if self.voices.iter().all(|v| v.key != key) {
            let voice = Voice {
                key,
                fast: 0,
                slow: 0,
                step: step(now),
                kept_until: Time::ZERO,
                among_loudest: false,
            };
            self.voices.push(voice);
        }
    }

    /// A track ends.
    pub fn remove(&mut self, key: K) {
        self.voices.retain(|v| v.key != key);
        self.speaker = self.speaker.filter(|k| *k != key);
        self.challenge = self.challenge.filter(|(k, _)| *k != key);
    }

    /// A packet of a track carries this level.
    pub fn on_level(&mut self, now: Time, key: K, level: AudioLevel) {
        if let Some(voice) = self.voices.iter_mut().find(|v| v.key == key) {
            let loudness = i32::from(SILENCE.saturating_sub(level.minus_dbov)) * ONE;
            voice.advance(step(now));
            voice.add(loudness);
        }
    }

    /// Who speaks.
    #[must_use]
    pub fn speaker(&self) -> Option<K> {
        self.speaker
    }

    /// The tracks that it knows.
    pub fn tracks(&self) -> impl Iterator<Item = K> {
        self.voices.iter().map(|voice| voice.key)
    }

    /// Whether a track is among the loudest, and so to be forwarded. In a room of no more tracks
    /// than are forwarded, all are.
    #[must_use]
    pub fn is_among_loudest(&self, key: K) -> bool {
        self.voices.len() <= self.loudest
            || self.voices.iter().any(|v| v.key == key && v.among_loudest)
    }

    /// Looks at all tracks anew. Tells if the speaker changed.
    pub fn update(&mut self, now: Time) -> Option<SpeakerChange<K>> {
        for voice in &mut self.voices {
            voice.advance(step(now));
        }
        self.choose_loudest(now);
        let before = self.speaker;
        self.choose_speaker(now);
        (self.speaker != before).then_some(SpeakerChange {
            speaker: self.speaker,
        })
    }

    /// Those who speak take the places, loudest first; then those who spoke lately keep theirs.
    fn choose_loudest(&mut self, now: Time) {
        for voice in &mut self.voices {
            if voice.fast >= SPEAKING * ONE {
                voice.kept_until = now + KEEP;
            }
        }
        // Not much larger than a room: a sort by rank, without allocation.
        self.voices.sort_by_key(|v| std::cmp::Reverse(v.rank(now)));
        for (place, voice) in self.voices.iter_mut().enumerate() {
            voice.among_loudest = place < self.loudest && voice.kept_until > now;
        }
    }

    fn choose_speaker(&mut self, now: Time) {
        let loudest = self
            .voices
            .iter()
            .filter(|v| v.fast >= SPEAKING * ONE)
            .max_by_key(|v| v.slow);
        let Some(loudest) = loudest.copied() else {
            self.challenge = None;
            return;
        };
        let current = self
            .speaker
            .and_then(|key| self.voices.iter().find(|v| v.key == key));
        let wins = match current {
            Some(current) if current.key == loudest.key => false,
            Some(current) => {
                loudest.slow >= current.slow + MARGIN * ONE || current.slow < SPEAKING * ONE
            }
            None => true,
        };
        if !wins {
            self.challenge = None;
            return;
        }
        match self.challenge {
            Some((key, since)) if key == loudest.key => {
                if now - since >= CHALLENGE {
                    self.speaker = Some(loudest.key);
                    self.challenge = None;
                }
            }
            _ => self.challenge = Some((loudest.key, now)),
        }
    }
}

impl<K> Voice<K> {
    /// Order among the loudest: who has a place now stays before an equal.
    fn rank(&self, now: Time) -> (bool, bool, i32) {
        let speaking = self.fast >= SPEAKING * ONE;
        (
            speaking || (self.among_loudest && self.kept_until > now),
            speaking,
            self.slow,
        )
    }

    /// Fills the steps before `until` with silence.
    fn advance(&mut self, until: u64) {
        // The step of a packet that is only just due may still come.
        let missing = until.saturating_sub(self.step).saturating_sub(1);
        if missing > MAX_SILENT_STEPS {
            (self.fast, self.slow) = (0, 0);
        } else {
            for _ in 0..missing {
                self.mix(0);
            }
        }
        self.step = self.step.max(until.saturating_sub(1));
    }

    fn add(&mut self, loudness: i32) {
        self.mix(loudness);
        self.step += 1;
    }

    fn mix(&mut self, loudness: i32) {
        self.fast += (loudness - self.fast) * FAST / 256;
        let weight = if loudness > self.slow {
            SLOW_RISE
        } else {
            SLOW_FALL
        };
        // Rounded towards silence, so that the average gets there.
        self.slow += ((loudness - self.slow) * weight).div_euclid(256);
    }
}

fn step(now: Time) -> u64 {
    now.as_nanos() / STEP.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOUD: u8 = 25;

    struct Room {
        speaker: ActiveSpeaker<u32>,
        now: Time,
        changes: Vec<(u64, Option<u32>)>,
    }

    impl Room {
        fn new(tracks: u32, loudest: usize) -> Self {
            let mut speaker = ActiveSpeaker::new(loudest);
            (0..tracks).for_each(|key| speaker.add(Time::ZERO, key));
            Room {
                speaker,
                now: Time::ZERO,
                changes: Vec::new(),
            }
        }

        /// Everybody in `levels` sends a packet each 20 ms; others send nothing.
        fn run(&mut self, millis: u64, levels: &[(u32, u8)]) {
            for _ in 0..millis / 20 {
                self.now += STEP;
                for (key, minus_dbov) in levels {
                    let level = AudioLevel {
                        voice_activity: true,
                        minus_dbov: *minus_dbov,
                    };
                    self.speaker.on_level(self.now, *key, level);
                }
                if self.now.as_millis().is_multiple_of(100)
                    && let Some(change) = self.speaker.update(self.now)
                {
                    self.changes.push((self.now.as_millis(), change.speaker));
                }
            }
        }
    }

    #[test]
    fn who_speaks_takes_the_floor_within_a_second_and_keeps_it_in_silence() {
        let mut room = Room::new(3, 3);
        room.run(2_000, &[]);
        assert_eq!(room.changes, []);
        room.run(1_000, &[(1, LOUD)]);
        assert_eq!(room.changes.len(), 1);
        assert_eq!(room.speaker.speaker(), Some(1));
        room.run(10_000, &[]);
        assert_eq!(room.changes.len(), 1);
        room.run(1_000, &[(2, LOUD), (1, 100)]);
        assert_eq!(room.speaker.speaker(), Some(2));
    }

    #[test]
    fn a_cough_does_not_take_the_floor_and_a_pause_does_not_lose_it() {
        let mut room = Room::new(2, 2);
        room.run(3_000, &[(0, LOUD)]);
        room.run(200, &[(0, LOUD), (1, 5)]);
        room.run(1_000, &[(0, LOUD)]);
        // A pause for breath, with somebody breathing into their microphone.
        room.run(500, &[(1, 55)]);
        room.run(1_000, &[(0, LOUD)]);
        assert_eq!(room.changes.len(), 1);
        assert_eq!(room.speaker.speaker(), Some(0));
    }

    #[test]
    fn only_the_loudest_are_forwarded_and_places_are_kept_for_a_while() {
        let mut room = Room::new(10, 3);
        room.run(1_000, &[(4, LOUD), (7, 40), (9, 50), (2, 66)]);
        let loudest = |room: &Room| {
            (0..10)
                .filter(|k| room.speaker.is_among_loudest(*k))
                .collect::<Vec<_>>()
        };
        assert_eq!(loudest(&room), [4, 7, 9]);
        room.run(1_500, &[(4, LOUD)]);
        assert_eq!(loudest(&room), [4, 7, 9]);
        room.run(1_000, &[(4, LOUD)]);
        assert_eq!(loudest(&room), [4]);
        // A new voice gets a place within a tenth of a second or two.
        room.run(200, &[(4, LOUD), (0, LOUD)]);
        assert_eq!(loudest(&room), [0, 4]);
    }

    #[test]
    fn one_who_leaves_is_forgotten() {
        let mut room = Room::new(2, 1);
        room.run(2_000, &[(1, LOUD)]);
        room.speaker.remove(1);
        assert_eq!(room.speaker.speaker(), None);
        assert!(room.speaker.is_among_loudest(0));
        room.run(2_000, &[(1, LOUD), (0, 90)]);
        assert_eq!(room.speaker.speaker(), None);
    }

    proptest! {
        #[test]
        fn the_speaker_speaks_and_places_are_limited(
            phases in prop::collection::vec((prop::collection::vec(0u8..=127, 6), 1u64..30), 1..20),
        ) {
            let mut room = Room::new(6, 2);
            let mut audible = [0; 6];
            for (levels, tenths) in phases {
                let levels: Vec<_> = (0u32..).zip(levels).filter(|(_, l)| *l < 120).collect();
                let before = room.speaker.speaker();
                room.run(tenths * 100, &levels);
                for (key, _) in levels.iter().filter(|(_, level)| *level < SILENCE) {
                    audible[*key as usize] = room.now.as_millis();
                }
                let among = (0..6).filter(|k| room.speaker.is_among_loudest(*k)).count();
                prop_assert!(among <= 2);
                let after = room.speaker.speaker();
                if let Some(speaker) = after.filter(|_| after != before) {
                    // Who takes the floor was audible in this phase, or just before it.
                    prop_assert!(audible[speaker as usize] + tenths * 100 + 500 >= room.now.as_millis());
                }
                // Alone and loud for long enough, anybody has it.
                if let [(key, level)] = levels.as_slice() && *level < 40 && tenths >= 25 {
                    prop_assert_eq!(after, Some(*key));
                }
            }
        }
    }
}
