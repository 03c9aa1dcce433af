//! What must hold for every packet that leaves the engine, and the hash of all of them.

use crate::packet::{NO_FRAME, Tag, VP8_RTX};
use sealcast_media::{Egress, PacketMeta, PeerKey};
use sealcast_rtp::RtpHeader;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// A publisher's stream: publisher and encoding.
type Source = (u32, u32);

/// One outgoing stream: what was sent under which number.
#[derive(Debug, Default)]
struct Outgoing {
    /// With the step in which it was.
    by_index: BTreeMap<u64, (Tag, u64)>,
    numbers: BTreeMap<(Source, u32), u64>,
    repairs: BTreeSet<u64>,
    /// Numbers since the last look.
    fresh: Vec<u64>,
    /// The starts of key frames that were sent of each source, and in which steps.
    keys: BTreeMap<Source, Vec<(u32, u64)>>,
}

/// What the relay received of a publisher's stream.
#[derive(Debug, Default)]
struct Incoming {
    /// The step in which each number came, and whether one after it had come before.
    numbers: BTreeMap<u32, (u64, bool)>,
    /// The numbers of each frame.
    frames: BTreeMap<u32, Vec<u32>>,
}

/// Records what leaves, and judges it.
#[derive(Debug)]
pub struct Checker {
    /// What is to go on the links: receiver and bytes.
    pub out: Vec<(u32, Vec<u8>)>,
    rooms: BTreeMap<u32, u32>,
    incoming: BTreeMap<Source, Incoming>,
    outgoing: BTreeMap<(u32, u32), Outgoing>,
    step: u64,
    hash: u64,
    fault: Option<String>,
    /// RTP packets that left.
    pub packets: u64,
    /// Retransmissions among them; padding left out.
    pub repairs: u64,
    /// RTP bytes that left, by receiver.
    pub bytes: BTreeMap<u32, u64>,
}

impl Default for Checker {
    fn default() -> Self {
        Checker {
            out: Vec::new(),
            rooms: BTreeMap::new(),
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            step: 0,
            // FNV-1a.
            hash: 0xcbf2_9ce4_8422_2325,
            fault: None,
            packets: 0,
            repairs: 0,
            bytes: BTreeMap::new(),
        }
    }
}

impl Checker {
    /// A client is in this room.
    pub fn joined(&mut self, client: u32, room: u32) {
        self.rooms.insert(client, room);
        self.outgoing.retain(|(to, _), _| *to != client);
    }

    /// The relay received this packet.
    pub fn received(&mut self, bytes: &[u8]) {
        let Ok(header) = RtpHeader::parse(bytes) else {
            return;
        };
        if let Some(tag) = Tag::read(header.payload(bytes)) {
            let incoming = self
                .incoming
                .entry((tag.publisher, tag.encoding))
                .or_default();
            let newest = incoming.numbers.last_key_value().map(|(number, _)| *number);
            if let Entry::Vacant(place) = incoming.numbers.entry(tag.number) {
                place.insert((self.step, newest > Some(tag.number)));
                incoming
                    .frames
                    .entry(tag.frame)
                    .or_default()
                    .push(tag.number);
            }
        }
    }

    /// The hash of everything that has left.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn blame(&mut self, fault: impl FnOnce() -> String) {
        if self.fault.is_none() {
            self.fault = Some(fault());
        }
    }

    fn on_media(&mut self, to: u32, ssrc: u32, index: u64, tag: Tag) {
        if self.rooms.get(&to) != Some(&tag.room) {
            self.blame(|| format!("{to} got a packet of another room: {tag:?}"));
        }
        let source = (tag.publisher, tag.encoding);
        let outgoing = self.outgoing.entry((to, ssrc)).or_default();
        let again = outgoing.numbers.insert((source, tag.number), index);
        let taken = outgoing.by_index.insert(index, (tag, self.step));
        outgoing.fresh.push(index);
        if tag.depends_on == NO_FRAME && tag.packet == 0 {
            let keys = outgoing.keys.entry(source).or_default();
            keys.push((tag.number, self.step));
        }
        if let Some(before) = again {
            self.blame(|| format!("{to} got {tag:?} twice, as {before} and {index}"));
        }
        if let Some((other, _)) = taken {
            self.blame(|| format!("{to} got {tag:?} and {other:?} under one number, {index}"));
        }
    }

    fn on_repair(&mut self, to: u32, ssrc: u32, index: u64, payload: &[u8]) {
        // Model sessions number retransmission streams 512 above their slots.
        let outgoing = self.outgoing.entry((to, ssrc - 512)).or_default();
        let repeated = !outgoing.repairs.insert(index);
        if repeated {
            self.blame(|| format!("{to}: retransmission number {index} used twice"));
        }
        let Some((number, payload)) = payload.split_first_chunk::<2>() else {
            return;
        };
        self.repairs += 1;
        let number = u16::from_be_bytes(*number);
        let sent = self.outgoing.get(&(to, ssrc - 512)).and_then(|outgoing| {
            let newest = *outgoing.by_index.last_key_value()?.0;
            let back = u64::from((newest as u16).wrapping_sub(number));
            outgoing.by_index.get(&newest.checked_sub(back)?).copied()
        });
        let Some(again) = Tag::read(payload) else {
            return;
        };
        match sent {
            Some((tag, _)) if tag == again => {}
            None if self.fills(to, ssrc - 512, number, again) => {}
            _ => self.blame(|| format!("{to}: {again:?} sent again as {number}, once {sent:?}")),
        }
    }

    /// A packet whose place was left for it is sent for the first time, because it was asked for.
    /// It fits there if its neighbours do.
    fn fills(&mut self, to: u32, ssrc: u32, number: u16, tag: Tag) -> bool {
        let step = self.step;
        let Some(outgoing) = self.outgoing.get_mut(&(to, ssrc)) else {
            return false;
        };
        let Some((newest, _)) = outgoing.by_index.last_key_value() else {
            return false;
        };
        let back = u64::from((*newest as u16).wrapping_sub(number));
        let Some(index) = newest.checked_sub(back) else {
            return false;
        };
        let source = |tag: &Tag| (tag.publisher, tag.encoding);
        let fits = |other: Option<(&u64, &(Tag, u64))>, before: bool| {
            other.is_none_or(|(_, (other, _))| {
                source(other) != source(&tag) || (other.number < tag.number) == before
            })
        };
        let sound = fits(outgoing.by_index.range(..index).next_back(), true)
            && fits(outgoing.by_index.range(index + 1..).next(), false)
            && !outgoing.numbers.contains_key(&(source(&tag), tag.number));
        outgoing.by_index.insert(index, (tag, step));
        outgoing.numbers.insert((source(&tag), tag.number), index);
        sound
    }

    /// Judges what left since the last call.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn judge(&mut self) -> Result<(), String> {
        self.step += 1;
        let mut faults = Vec::new();
        for ((to, _), outgoing) in &mut self.outgoing {
            let fresh = std::mem::take(&mut outgoing.fresh);
            for index in fresh {
                let before = outgoing.by_index.range(..index).next_back();
                let after = outgoing.by_index.range(index + 1..).next();
                let Some(sent) = outgoing.by_index.get(&index) else {
                    continue;
                };
                let this = (&index, sent);
                for pair in [before.map(|b| (b, this)), after.map(|a| (this, a))] {
                    let Some(((i, a), (j, b))) = pair else {
                        continue;
                    };
                    faults.extend(
                        gap(&self.incoming, outgoing, (*i, a), (*j, b))
                            .map(|f| format!("{to}: {f}")),
                    );
                }
                faults.extend(lacks(&self.incoming, outgoing, sent).map(|f| format!("{to}: {f}")));
            }
        }
        match self.fault.take().or_else(|| faults.into_iter().next()) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

impl Outgoing {
    /// Whether a packet that came in this step was there before the start of the key frame with
    /// which its stream was joined, although it follows it. It can be had by asking, but is not
    /// sent unasked.
    fn overtook(&self, source: Source, number: u32, step: u64) -> bool {
        let keys = self.keys.get(&source).into_iter().flatten();
        let mut joins = keys.filter(|(start, _)| number > *start);
        joins.any(|(_, joined)| step <= *joined)
    }
}

/// Whether two neighbours leave a gap that nothing lost on the way to the relay explains.
fn gap(
    incoming: &BTreeMap<Source, Incoming>,
    outgoing: &Outgoing,
    (i, (a, _)): (u64, &(Tag, u64)),
    (j, (b, sent)): (u64, &(Tag, u64)),
) -> Option<String> {
    let holes = j - i - 1;
    let source = (a.publisher, a.encoding);
    let numbers = &incoming.get(&source)?.numbers;
    if source != (b.publisher, b.encoding) {
        // The last ones of the old source may have been lost.
        let rest = numbers.range(a.number + 1..);
        let newest = numbers.last_key_value().map_or(a.number, |(n, _)| *n);
        let received = rest.filter(|(_, (_, late))| !late).count() as u64;
        let lost = u64::from(newest.saturating_sub(a.number)).saturating_sub(received);
        return (holes > lost)
            .then(|| format!("{holes} numbers left out between {a:?} and {b:?}, {lost} lost"));
    }
    if b.number <= a.number {
        return Some(format!("out of order: {a:?} as {i}, {b:?} as {j}"));
    }
    let between = u64::from(b.number - a.number - 1);
    let received = numbers
        .range(a.number + 1..b.number)
        .filter(|(number, (step, late))| {
            // The place of what comes late is taken, or was left for it, whatever becomes of it.
            !late && step < sent && !outgoing.overtook(source, **number, *step)
        })
        .count() as u64;
    (holes > between - received)
        .then(|| format!("{holes} numbers left out between {a:?} and {b:?}, {received} received"))
}

/// Whether the relay withheld something that this packet's frame depends on.
fn lacks(
    incoming: &BTreeMap<Source, Incoming>,
    outgoing: &Outgoing,
    (tag, sent): &(Tag, u64),
) -> Option<String> {
    if tag.depends_on == NO_FRAME {
        return None;
    }
    let source = (tag.publisher, tag.encoding);
    let incoming = incoming.get(&source)?;
    let withheld = incoming
        .frames
        .get(&tag.depends_on)?
        .iter()
        .find(|number| {
            let (step, _) = incoming.numbers.get(number).copied().unwrap_or_default();
            !outgoing.numbers.contains_key(&(source, **number))
                && step < *sent
                && !outgoing.overtook(source, **number, step)
        })?;
    Some(format!("{tag:?} without {withheld}, which it depends on"))
}

impl Egress for Checker {
    fn rtp(&mut self, to: PeerKey, index: u64, header: &[u8], payload: &[u8], _: PacketMeta) {
        let bytes = [header, payload].concat();
        self.mix(&to.0.to_be_bytes());
        self.mix(&index.to_be_bytes());
        self.mix(&bytes);
        self.packets += 1;
        *self.bytes.entry(to.0).or_default() += bytes.len() as u64;
        match RtpHeader::parse(&bytes) {
            Err(error) => self.blame(|| format!("a header that does not parse: {error:?}")),
            Ok(parsed) => {
                if parsed.sequence_number != index as u16 {
                    self.blame(|| format!("index {index} on {}", parsed.sequence_number));
                }
                let payload = parsed.payload(&bytes);
                let tag = Tag::read(payload);
                match (parsed.payload_type, tag) {
                    (VP8_RTX, _) => self.on_repair(to.0, parsed.ssrc, index, payload),
                    (_, Some(tag)) => self.on_media(to.0, parsed.ssrc, index, tag),
                    (_, None) => self.blame(|| "a packet that nobody made".to_owned()),
                }
            }
        }
        self.out.push((to.0, bytes));
    }

    fn rtcp(&mut self, to: PeerKey, packet: &[u8]) {
        self.mix(&to.0.to_be_bytes());
        self.mix(packet);
        self.out.push((to.0, packet.to_vec()));
    }
}
