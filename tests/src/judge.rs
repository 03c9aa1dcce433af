//! What must hold between the packets of one outgoing stream: a naive model that looks at what was
//! received and what was sent, and not at how the relay came to it.

use crate::packet::Tag;
use crate::sent::{Pictures, Sent};
use std::collections::{BTreeMap, BTreeSet};

/// A publisher's stream: publisher and encoding.
pub(crate) type Source = (u32, u32);

/// A packet that the relay received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The step in which it came.
    pub(crate) step: u64,
    /// One after it had come before.
    pub(crate) late: bool,
    /// The decode targets that its frame is part of.
    pub(crate) targets: u32,
    /// It came more than a second after its capture, when what was decided of its picture may be
    /// forgotten.
    pub(crate) stale: bool,
    /// It goes on with a frame whose start had not come, and neither had the start of any frame: it
    /// could not be told to be sealed.
    pub(crate) unjudged: bool,
}

/// What the relay received of a publisher's stream.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) numbers: BTreeMap<u32, Seen>,
    /// The numbers of each frame.
    pub(crate) frames: BTreeMap<u32, Vec<u32>>,
    /// The sealed start of a frame has come.
    pub(crate) opened: bool,
}

/// One outgoing stream: what was sent under which number.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) by_index: BTreeMap<u64, Sent>,
    pub(crate) numbers: BTreeMap<(Source, u32), u64>,
    pub(crate) repairs: BTreeSet<u64>,
    /// Numbers since the last look.
    pub(crate) fresh: Vec<u64>,
    /// The starts of key frames that were sent of each source, and in which steps.
    pub(crate) keys: BTreeMap<Source, Vec<(u32, u64)>>,
    /// What packets told of active decode targets, by index.
    active: BTreeMap<u64, u32>,
}

impl Incoming {
    /// Whether a packet had come before this step, could have been sent, and was not.
    fn lacks(&self, outgoing: &Outgoing, source: Source, number: u32, step: u64) -> bool {
        self.numbers.get(&number).is_some_and(|seen| {
            !outgoing.numbers.contains_key(&(source, number))
                && seen.step < step
                && !seen.stale
                && !seen.unjudged
                && !outgoing.overtook(source, number, seen.step)
        })
    }
}

impl Outgoing {
    /// Notes a packet; gives what was sent under its number before.
    pub(crate) fn insert(&mut self, index: u64, sent: Sent) -> Option<Sent> {
        if let Some(active) = sent.active {
            self.active.insert(index, active);
        }
        self.by_index.insert(index, sent)
    }

    /// The index not above the newest that ends in these 16 bits.
    pub(crate) fn nearest(&self, number: u16) -> Option<u64> {
        let newest = *self.by_index.last_key_value()?.0;
        newest.checked_sub(u64::from((newest as u16).wrapping_sub(number)))
    }

    /// A packet whose place was left for it is sent for the first time, because it was asked for.
    /// It fits there if its neighbours do.
    pub(crate) fn fill(&mut self, index: u64, sent: Sent) -> bool {
        let tag = sent.tag;
        let fits = |other: Option<(&u64, &Sent)>, before: bool| {
            other.is_none_or(|(_, other)| {
                source(&other.tag) != source(&tag) || (other.tag.number < tag.number) == before
            })
        };
        let sound = fits(self.by_index.range(..index).next_back(), true)
            && fits(self.by_index.range(index + 1..).next(), false)
            && !self.numbers.contains_key(&(source(&tag), tag.number));
        self.insert(index, sent);
        self.numbers.insert((source(&tag), tag.number), index);
        sound
    }

    /// Whether a packet that came in this step was there before the start of the key frame with
    /// which its stream was joined, although it follows it. It can be had by asking, but is not
    /// sent unasked.
    fn overtook(&self, source: Source, number: u32, step: u64) -> bool {
        let keys = self.keys.get(&source).into_iter().flatten();
        let mut joins = keys.filter(|(start, _)| number > *start);
        joins.any(|(_, joined)| step <= *joined)
    }

    /// What a receiver takes to be active at this packet. AV1 RTP specification, appendix A.4: an
    /// update "is valid until the next update in RTP packet sequence number order".
    fn active_at(&self, index: u64) -> Option<u32> {
        let told = self.active.range(..=index).next_back();
        told.map(|(_, active)| *active)
    }
}

fn source(tag: &Tag) -> Source {
    (tag.publisher, tag.encoding)
}

/// Judges a packet that was sent: what is wrong, and how many packets of whom were left out in
/// front of it.
pub(crate) fn judge(
    incoming: &BTreeMap<Source, Incoming>,
    outgoing: &Outgoing,
    index: u64,
) -> (Option<String>, Option<(u32, u64)>) {
    let Some(sent) = outgoing.by_index.get(&index) else {
        return (None, None);
    };
    let this = (index, sent);
    let before = outgoing.by_index.range(..index).next_back();
    let after = outgoing.by_index.range(index + 1..).next();
    let pairs = [
        before.map(|(i, before)| Pair::new(incoming, outgoing, (*i, before), this)),
        after.map(|(j, after)| Pair::new(incoming, outgoing, this, (*j, after))),
    ];
    let mut faults = pairs.iter().flatten().filter_map(Pair::fault);
    let fault = faults
        .next()
        .or_else(|| start(outgoing, this))
        .or_else(|| withheld(incoming, outgoing, sent))
        .or_else(|| pairs.iter().flatten().find_map(Pair::cut));
    let left_out = pairs[0].as_ref().map(|pair| pair.left_out().count() as u64);
    (fault, left_out.map(|packets| (sent.tag.publisher, packets)))
}

/// The first packet of a stream, or of a source of it, starts a key frame.
fn start(outgoing: &Outgoing, (index, sent): (u64, &Sent)) -> Option<String> {
    let before = outgoing.by_index.range(..index).next_back();
    let joins = before.is_none_or(|(_, before)| source(&before.tag) != source(&sent.tag));
    let tag = sent.tag;
    (joins && !tag.is_audio() && !(tag.is_key() && tag.packet == 0))
        .then(|| format!("joined without the start of a key frame: {tag:?}"))
}

/// Whether the relay withheld something that this packet's frame depends on, or an earlier part of
/// it. Its later parts may still wait to be sent; [`Pair::cut`] asks for them.
fn withheld(
    incoming: &BTreeMap<Source, Incoming>,
    outgoing: &Outgoing,
    sent: &Sent,
) -> Option<String> {
    let tag = sent.tag;
    let source = source(&tag);
    let incoming = incoming.get(&source)?;
    let needed = tag.references().chain([tag.frame]);
    let mut numbers = needed
        .filter_map(|frame| incoming.frames.get(&frame))
        .flatten()
        .filter(|number| **number < tag.number);
    let withheld = numbers.find(|number| incoming.lacks(outgoing, source, **number, sent.step))?;
    Some(format!("{tag:?} without {withheld}, which it depends on"))
}

/// Two neighbours on the line of outgoing numbers.
struct Pair<'a> {
    incoming: Option<&'a Incoming>,
    outgoing: &'a Outgoing,
    i: u64,
    a: &'a Sent,
    j: u64,
    b: &'a Sent,
}

impl<'a> Pair<'a> {
    fn new(
        incoming: &'a BTreeMap<Source, Incoming>,
        outgoing: &'a Outgoing,
        (i, a): (u64, &'a Sent),
        (j, b): (u64, &'a Sent),
    ) -> Self {
        Pair {
            incoming: incoming.get(&source(&a.tag)),
            outgoing,
            i,
            a,
            j,
            b,
        }
    }

    fn is_of_one_source(&self) -> bool {
        source(&self.a.tag) == source(&self.b.tag)
    }

    /// Whether the second one may be the first after a pause, in which the first one was cut off.
    fn joins(&self) -> bool {
        self.b.tag.is_key() && self.b.tag.packet == 0
    }

    fn holes(&self) -> u64 {
        self.j - self.i - 1
    }

    fn fault(&self) -> Option<String> {
        let fault = match self.is_of_one_source() {
            true => self
                .order()
                .or_else(|| self.picture())
                .or_else(|| self.activity()),
            false => self.change(),
        };
        let fault = fault.or_else(|| self.numbers())?;
        let Pair { i, a, j, b, .. } = self;
        Some(format!("{fault}: {a:?} as {i}, {b:?} as {j}"))
    }

    /// Whether the neighbours leave a gap that nothing lost on the way to the relay explains.
    fn order(&self) -> Option<String> {
        let (a, b) = (self.a.tag, self.b.tag);
        if b.number <= a.number {
            return Some("out of order".to_owned());
        }
        let lost = u64::from(b.number - a.number - 1) - self.left_out().count() as u64;
        let holes = self.holes();
        (holes > lost).then(|| format!("{holes} numbers left out, {lost} lost"))
    }

    /// The same where the second one is of another source: the last ones of the old source may
    /// have been lost, or have come before the start of the key frame with which it was joined.
    fn change(&self) -> Option<String> {
        let numbers = &self.incoming?.numbers;
        let a = self.a.tag.number;
        let of = source(&self.a.tag);
        let rest = numbers.range(a + 1..);
        let newest = numbers.last_key_value().map_or(a, |(n, _)| *n);
        let received = rest.filter(|(number, seen)| {
            !seen.late && !self.outgoing.overtook(of, **number, seen.step)
        });
        let received = received.count() as u64;
        let lost = u64::from(newest.saturating_sub(a)).saturating_sub(received);
        let holes = self.holes();
        (holes > lost).then(|| format!("{holes} numbers left out, {lost} lost"))
    }

    /// What the relay had between the two when it sent the second one.
    fn left_out(&self) -> impl Iterator<Item = &Seen> {
        let of_one = self.is_of_one_source();
        let source = source(&self.b.tag);
        let range = match of_one {
            true => self.a.tag.number + 1..self.b.tag.number.max(self.a.tag.number + 1),
            false => 0..0,
        };
        let between = self
            .incoming
            .into_iter()
            .flat_map(move |incoming| incoming.numbers.range(range.clone()));
        between
            .filter(move |(number, seen)| {
                // The place of what comes late is taken, or was left for it, whatever becomes of
                // it.
                !seen.late
                    && seen.step < self.b.step
                    && !self.outgoing.overtook(source, **number, seen.step)
            })
            .map(|(_, seen)| seen)
    }

    /// Whether the first one's frame lacks parts behind it that the relay had when it sent the second
    /// one. What waited may be dropped, and the stream goes on with a key frame then.
    fn cut(&self) -> Option<String> {
        if !self.is_of_one_source() || self.joins() {
            return None;
        }
        let incoming = self.incoming?;
        let (a, b) = (self.a.tag, self.b.tag);
        let parts = incoming.frames.get(&a.frame)?.iter();
        let mut parts = parts.filter(|part| (a.number + 1..b.number).contains(*part));
        let source = source(&a);
        let part = parts.find(|part| incoming.lacks(self.outgoing, source, **part, self.b.step))?;
        Some(format!("{a:?} goes on without {part}, a part of its frame"))
    }

    /// Whether a picture ends once, and with the last packet that its receiver gets of it.
    fn picture(&self) -> Option<String> {
        let (a, b) = (self.a, self.b);
        if a.tag.is_audio() {
            return None;
        }
        let same = a.tag.captured == b.tag.captured;
        if same != (a.timestamp == b.timestamp) {
            return Some("timestamps do not tell pictures apart".to_owned());
        }
        if same && a.marker {
            return Some("goes on after the end of its picture".to_owned());
        }
        let ends = a.marker && a.tag.packet + 1 == a.tag.packets;
        let range = a.tag.number + 1..b.tag.number;
        let between = self
            .incoming
            .into_iter()
            .flat_map(|i| i.numbers.range(range.clone()));
        let unjudged = between.into_iter().any(|(_, seen)| seen.unjudged);
        (!same && self.holes() == 0 && !ends && !unjudged && !self.joins())
            .then(|| "has no end of its picture".to_owned())
    }

    /// Whether a frame was withheld although its receiver takes a decode target that it is part of
    /// to be active (appendix A.4).
    fn activity(&self) -> Option<String> {
        let outgoing = self.outgoing;
        self.b.frame_number?;
        let active = outgoing.active_at(self.i)? & outgoing.active_at(self.j)?;
        let mut left_out = self.left_out();
        left_out
            .find(|seen| {
                self.holes() == 0 && !self.joins() && !seen.unjudged && seen.targets & active != 0
            })
            .map(|seen| {
                format!(
                    "targets {:b} are active, {:b} left out",
                    active, seen.targets
                )
            })
    }

    /// Whether timestamps, frame numbers and picture ids count on.
    fn numbers(&self) -> Option<String> {
        let (a, b) = (self.a, self.b);
        let of_one = self.is_of_one_source();
        let joins = self.joins();
        if (b.timestamp.wrapping_sub(a.timestamp) as i32) < i32::from(!of_one) {
            return Some("timestamps run backward".to_owned());
        }
        let counts =
            |step: u32, own: u32, mask: u32| of_one && step == own & mask || joins && step == 1;
        if let (Some(x), Some(y)) = (a.frame_number, b.frame_number)
            && !counts(
                y.wrapping_sub(x).into(),
                b.tag.frame.wrapping_sub(a.tag.frame),
                0xffff,
            )
        {
            return Some("frame numbers do not count on".to_owned());
        }
        let (x, y) = (a.pictures?, b.pictures?);
        self.picture_ids(x, y, counts)
    }

    fn picture_ids(
        &self,
        x: Pictures,
        y: Pictures,
        counts: impl Fn(u32, u32, u32) -> bool,
    ) -> Option<String> {
        if x.closed_up != y.closed_up {
            return None;
        }
        let (a, b) = (self.a.tag, self.b.tag);
        let step = u32::from(y.id.wrapping_sub(x.id) & 0x7fff);
        let own = b.picture.wrapping_sub(a.picture);
        // VP8 has no way to tell a receiver what was left out on purpose.
        let holes = self.holes();
        let fits = match (x.closed_up, self.is_of_one_source()) {
            (false, _) => counts(step, own, 0x7fff),
            (true, true) if holes > 0 => step <= own,
            (true, true) => step == u32::from(own > 0),
            // Pictures that were lost had a place.
            (true, false) => (1..=1 + holes).contains(&step.into()),
        };
        if !fits {
            return Some(format!("picture ids do not count on: {step} for {own}"));
        }
        let base = u32::from(y.base?.wrapping_sub(x.base?));
        let own = b.base_pictures.wrapping_sub(a.base_pictures);
        (!counts(base, own, 0xff)).then(|| format!("TL0PICIDX does not count on: {base} for {own}"))
    }
}
