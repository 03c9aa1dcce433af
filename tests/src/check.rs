//! What must hold for every packet that leaves the engine, and the hash of all of them.

use crate::judge::{Incoming, Outgoing, Seen, Source, judge};
use crate::packet::{Tag, codec_of, is_repair};
use crate::sent::Sent;
use sealcast_media::{Egress, PacketMeta, PeerKey};
use sealcast_model::Time;
use sealcast_rtp::RtpHeader;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

/// How late a packet may come and still be forwarded if its picture is.
const STALE: Duration = Duration::from_secs(1);

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
    /// Packets that were left out between others of their stream, by publisher.
    pub left_out: BTreeMap<u32, u64>,
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
            left_out: BTreeMap::new(),
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
    pub fn received(&mut self, now: Time, bytes: &[u8]) {
        let Ok(header) = RtpHeader::parse(bytes) else {
            return;
        };
        if let Some(tag) = Tag::read(header.payload(bytes)) {
            let codec = codec_of(header.payload_type);
            let incoming = self
                .incoming
                .entry((tag.publisher, tag.encoding))
                .or_default();
            let newest = incoming.numbers.last_key_value().map(|(number, _)| *number);
            if let Entry::Vacant(place) = incoming.numbers.entry(tag.number) {
                place.insert(Seen {
                    step: self.step,
                    late: newest > Some(tag.number),
                    targets: tag.targets,
                    stale: now - tag.captured_at() > STALE,
                    unjudged: !incoming.opened && !tag.starts_seal(codec),
                });
                incoming.opened |= tag.starts_seal(codec);
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

    fn on_media(&mut self, to: u32, ssrc: u32, index: u64, sent: Sent) {
        let tag = sent.tag;
        if self.rooms.get(&to) != Some(&tag.room) {
            self.blame(|| format!("{to} got a packet of another room: {tag:?}"));
        }
        let source: Source = (tag.publisher, tag.encoding);
        let outgoing = self.outgoing.entry((to, ssrc)).or_default();
        let again = outgoing.numbers.insert((source, tag.number), index);
        let taken = outgoing.insert(index, sent);
        outgoing.fresh.push(index);
        if tag.is_key() && tag.packet == 0 {
            let keys = outgoing.keys.entry(source).or_default();
            keys.push((tag.number, sent.step));
        }
        if let Some(before) = again {
            self.blame(|| format!("{to} got {tag:?} twice, as {before} and {index}"));
        }
        if let Some(other) = taken {
            self.blame(|| format!("{to} got {sent:?} and {other:?} under one number, {index}"));
        }
    }

    fn on_repair(&mut self, to: u32, ssrc: u32, index: u64, bytes: &[u8], header: &RtpHeader) {
        // Model sessions number retransmission streams 512 above their slots.
        let ssrc = ssrc - 512;
        let outgoing = self.outgoing.entry((to, ssrc)).or_default();
        let repeated = !outgoing.repairs.insert(index);
        if repeated {
            self.blame(|| format!("{to}: retransmission number {index} used twice"));
        }
        let Some((number, payload)) = header.payload(bytes).split_first_chunk::<2>() else {
            return;
        };
        self.repairs += 1;
        let number = u16::from_be_bytes(*number);
        let Some(outgoing) = self.outgoing.get_mut(&(to, ssrc)) else {
            return;
        };
        let Some(again) = Sent::read(header, bytes, payload, self.step) else {
            return;
        };
        let index = outgoing.nearest(number);
        let sent = index.and_then(|index| outgoing.by_index.get(&index).copied());
        match (index, sent) {
            (_, Some(sent)) if sent.equals(&again) => {}
            (Some(index), None) if outgoing.fill(index, again) => {}
            _ => {
                self.blame(|| format!("{to}: {again:?} sent again as {number}, once {sent:?}"));
            }
        }
    }

    /// Judges what left since the last call.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn judge(&mut self) -> Result<(), String> {
        self.step += 1;
        let mut faults = Vec::new();
        for ((to, _), outgoing) in &mut self.outgoing {
            for index in std::mem::take(&mut outgoing.fresh) {
                let (fault, left_out) = judge(&self.incoming, outgoing, index);
                faults.extend(fault.map(|fault| format!("{to}: {fault}")));
                if let Some((publisher, packets)) = left_out {
                    *self.left_out.entry(publisher).or_default() += packets;
                }
            }
        }
        match self.fault.take().or_else(|| faults.into_iter().next()) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
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
                match Sent::read(&parsed, &bytes, payload, self.step) {
                    _ if is_repair(parsed.payload_type) => {
                        self.on_repair(to.0, parsed.ssrc, index, &bytes, &parsed);
                    }
                    Some(sent) => self.on_media(to.0, parsed.ssrc, index, sent),
                    None => self.blame(|| "a packet that nobody made".to_owned()),
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
