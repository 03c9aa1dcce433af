//! What a session's client is told about its slots (docs/PROTOCOL.md §8).
//!
//! Each slot keeps only its newest state, so a client that reads slowly is never owed more than
//! one message for each slot.

use sealcast_model::limits::{SEALED_BURST, SEALED_PER_SECOND};
use sealcast_model::{Mid, SlotId, TrackId};
use std::fmt::Write;

/// The state of one slot, as the client is to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    pub(crate) slot: SlotId,
    pub(crate) mid: Mid,
    pub(crate) track: Option<TrackId>,
    /// Nothing of the track comes, for want of bandwidth.
    pub(crate) paused: bool,
    pub(crate) revision: u32,
}

/// What else a client is told, each with its newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Who speaks.
    Speaker(Option<TrackId>),
    /// Which encodings of an m-line anybody gets: bits, and how many there are.
    Encodings { mid: Mid, active: u8, count: u8 },
    /// What the path to it carries, in bits per second.
    Estimate(u64),
    /// It says too much on the data channel.
    DataRate,
}

impl Notice {
    /// Whether this makes the other one obsolete.
    fn replaces(&self, other: &Notice) -> bool {
        match (self, other) {
            (Notice::Speaker(_), Notice::Speaker(_))
            | (Notice::Estimate(_), Notice::Estimate(_))
            | (Notice::DataRate, Notice::DataRate) => true,
            (Notice::Encodings { mid: a, .. }, Notice::Encodings { mid: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Slot states of one session and which of them the client has not been sent.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// The data channel is open.
    open: bool,
    slots: Vec<(SlotState, Unsent)>,
    unsent: usize,
    /// Other notices, newest last; at most one for each m-line and two beside.
    others: Vec<Notice>,
    text: String,
}

type Unsent = bool;

impl Notices {
    /// A slot shows something else.
    pub(crate) fn set(&mut self, state: SlotState) {
        match self.slots.iter_mut().find(|(s, _)| s.slot == state.slot) {
            Some((current, unsent)) => {
                if state.revision >= current.revision {
                    *current = state;
                    self.unsent += usize::from(!*unsent);
                    *unsent = true;
                }
            }
            None => {
                self.slots.push((state, true));
                self.unsent += 1;
            }
        }
    }

    /// Something else is to be told.
    pub(crate) fn tell(&mut self, notice: Notice) {
        self.others.retain(|other| !notice.replaces(other));
        self.others.push(notice);
    }

    /// The channel opened: every slot that shows a track is to be told.
    ///
    /// Protocol §8: "On opening the channel the client gets one `slot` message for each slot that
    /// shows a track."
    pub(crate) fn channel_opened(&mut self) {
        self.open = true;
        self.unsent = 0;
        for (state, unsent) in &mut self.slots {
            *unsent = state.track.is_some();
            self.unsent += usize::from(*unsent);
        }
    }

    /// Whether something can be sent.
    pub(crate) fn pending(&self) -> bool {
        self.open && (self.unsent > 0 || !self.others.is_empty())
    }

    /// Offers what is unsent to `send`, in order of revision, until it refuses.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(&[u8]) -> bool) {
        while self.pending() {
            let next = self
                .slots
                .iter_mut()
                .filter(|(_, unsent)| *unsent)
                .min_by_key(|(state, _)| state.revision);
            let Some((state, unsent)) = next else {
                return self.flush_others(send);
            };
            self.text.clear();
            write_notice(&mut self.text, state);
            if !send(self.text.as_bytes()) {
                return;
            }
            *unsent = false;
            self.unsent -= 1;
        }
    }

    fn flush_others(&mut self, mut send: impl FnMut(&[u8]) -> bool) {
        while let Some(notice) = self.others.first() {
            self.text.clear();
            write_other(&mut self.text, notice);
            if !send(self.text.as_bytes()) {
                return;
            }
            self.others.remove(0);
        }
    }
}

/// Appends a MID. It is visible ASCII, of which JSON escapes two (RFC 8259 §7).
fn write_mid(out: &mut String, mid: Mid) {
    for c in mid.as_str().chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

fn write_other(out: &mut String, notice: &Notice) {
    // Writing to a String does not fail.
    let _ = match notice {
        Notice::Speaker(Some(track)) => write!(out, r#"{{"type":"speaker","track":"{track}"}}"#),
        Notice::Estimate(bitrate) => {
            write!(out, r#"{{"type":"estimate","bitrate":{bitrate}}}"#)
        }
        Notice::Speaker(None) => write!(out, r#"{{"type":"speaker","track":null}}"#),
        Notice::Encodings { mid, active, count } => {
            out.push_str(r#"{"type":"encodings","mid":""#);
            write_mid(out, *mid);
            out.push_str(r#"","active":["#);
            for place in 0..*count {
                let comma = if place > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{}", active >> place & 1 == 1);
            }
            write!(out, "]}}")
        }
        Notice::DataRate => write!(
            out,
            r#"{{"type":"error","code":"rate_limited","message":"{SEALED_PER_SECOND} data messages a second, {SEALED_BURST} at once","retry":true}}"#
        ),
    };
}

/// Writes the notice as JSON.
fn write_notice(out: &mut String, state: &SlotState) {
    out.push_str(r#"{"type":"slot","mid":""#);
    write_mid(out, state.mid);
    // Writing to a String does not fail.
    let _ = match state.track {
        Some(track) => write!(out, r#"","track":"{track}""#),
        None => write!(out, r#"","track":null"#),
    };
    if state.paused {
        out.push_str(r#","paused":true"#);
    }
    let _ = write!(out, r#","revision":{}}}"#, state.revision);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(slot: u16, track: Option<u64>, revision: u32) -> SlotState {
        SlotState {
            slot: SlotId(slot),
            mid: Mid::new(slot.to_string().as_bytes()).unwrap(),
            track: track.map(TrackId),
            paused: false,
            revision,
        }
    }

    fn sent(notices: &mut Notices, room: usize) -> Vec<String> {
        let mut out = Vec::new();
        notices.flush(|text| {
            if out.len() < room {
                out.push(String::from_utf8(text.to_vec()).unwrap());
                true
            } else {
                false
            }
        });
        out
    }

    #[test]
    fn the_notice_is_as_specified() {
        let mut text = String::new();
        write_notice(&mut text, &state(3, Some(0xab), 7));
        assert_eq!(
            text,
            r#"{"type":"slot","mid":"3","track":"TR_00000000000000ab","revision":7}"#
        );
        text.clear();
        let paused = SlotState {
            paused: true,
            ..state(3, Some(0xab), 8)
        };
        write_notice(&mut text, &paused);
        assert!(
            text.ends_with(r#"ab","paused":true,"revision":8}"#),
            "{text}"
        );
        text.clear();
        let odd = SlotState {
            mid: Mid::new(br#"a"\b"#).unwrap(),
            ..state(3, None, 8)
        };
        write_notice(&mut text, &odd);
        assert_eq!(
            text,
            r#"{"type":"slot","mid":"a\"\\b","track":null,"revision":8}"#
        );
    }

    #[test]
    fn other_notices_follow_the_slots_and_only_the_newest_of_each() {
        let mut notices = Notices::default();
        notices.tell(Notice::Speaker(Some(TrackId(1))));
        let encodings = |mid: &[u8], active| Notice::Encodings {
            mid: Mid::new(mid).unwrap(),
            active,
            count: 3,
        };
        notices.tell(encodings(b"1", 0b001));
        notices.tell(encodings(b"2", 0b111));
        notices.tell(encodings(b"1", 0b011));
        notices.tell(Notice::Estimate(2_000_000));
        notices.tell(Notice::Speaker(None));
        notices.tell(Notice::Estimate(500_000));
        assert!(!notices.pending());
        notices.channel_opened();
        notices.set(state(0, Some(1), 1));
        let told = sent(&mut notices, 2);
        assert!(told[0].starts_with(r#"{"type":"slot""#));
        assert_eq!(
            told[1],
            r#"{"type":"encodings","mid":"2","active":[true,true,true]}"#
        );
        let rest = sent(&mut notices, 9);
        assert_eq!(
            rest,
            [
                r#"{"type":"encodings","mid":"1","active":[true,true,false]}"#,
                r#"{"type":"speaker","track":null}"#,
                r#"{"type":"estimate","bitrate":500000}"#
            ]
        );
        assert!(!notices.pending());
    }

    #[test]
    fn waits_for_the_channel_and_then_tells_the_newest_state() {
        let mut notices = Notices::default();
        notices.set(state(0, Some(1), 1));
        notices.set(state(1, Some(2), 2));
        notices.set(state(1, None, 3));
        notices.set(state(0, Some(9), 4));
        assert!(sent(&mut notices, 9).is_empty());
        notices.channel_opened();
        let told = sent(&mut notices, 9);
        assert_eq!(told.len(), 1, "an empty slot need not be told: {told:?}");
        assert!(told[0].contains(r#""revision":4"#));
    }

    #[test]
    fn a_slow_channel_gets_the_rest_later_in_order() {
        let mut notices = Notices::default();
        notices.channel_opened();
        for i in 0..5 {
            notices.set(state(i, Some(1), 10 - u32::from(i)));
        }
        assert_eq!(sent(&mut notices, 2).len(), 2);
        notices.set(state(0, None, 11));
        let rest = sent(&mut notices, 9);
        let revisions: Vec<_> = rest.iter().map(|t| t.rsplit(':').next().unwrap()).collect();
        assert_eq!(revisions, ["8}", "9}", "11}"]);
        assert!(!notices.pending());
    }
}
