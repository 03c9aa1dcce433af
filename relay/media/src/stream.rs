//! An incoming RTP stream: one encoding of one m-line (RFC 7656 §2.1.10).

use crate::frame::attaches_structure;
use crate::inbox::Row;
use crate::keyframe::KeyframeRequester;
use crate::layers::{DecodeTargets, DescribedFrame, FrameLayers, UnreadableFrame};
use crate::limits::SEQUENCE_DROPOUT;
use crate::meter::LayerMeter;
use crate::reception::Reception;
use crate::repair::{NackGenerator, PacketHistory};
use crate::rewriter::StreamLife;
use crate::seal::SealCheck;
use crate::sync::{ClockPoint, PeerClock};
use crate::window::{Arrival, ReceiveWindow};
use sealcast_model::{NtpClock, PacketBuf, Time};
use sealcast_rtp::SeqExtender;
use sealcast_rtp::dd::{DependencyDescriptor, DescriptorReader, MandatoryFields};

/// A sender report of the stream, for LSR and DLSR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderReportSeen {
    /// What it says about the clocks, in the publisher's NTP time.
    pub(crate) point: ClockPoint,
    /// When it arrived.
    pub(crate) arrived: Time,
}

/// The first packet of a stream's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstPacket {
    pub(crate) received: Time,
    /// Its arrival as relay NTP time, and its timestamp: all that is known of the stream's clock
    /// before a sender report.
    pub(crate) point: ClockPoint,
}

/// What is known of a stream from its dependency descriptors.
#[derive(Debug, Default)]
struct Descriptors {
    reader: DescriptorReader,
    /// Reads late frames of the structure before.
    past: Option<Box<DescriptorReader>>,
    frame_numbers: SeqExtender,
    /// Newest packet that carried one.
    newest: Option<u64>,
    targets: Option<DecodeTargets>,
    /// Counts changes of the structure.
    structure: u32,
    /// The frame with which it came.
    since: u64,
    /// Counts changes of `targets`.
    version: u32,
}

impl Descriptors {
    fn read(&mut self, sequence: u64, descriptor: &[u8]) -> FrameLayers {
        let Ok(mandatory) = MandatoryFields::parse(descriptor) else {
            return FrameLayers::Unreadable(UnreadableFrame {
                number: None,
                is_past: false,
                ends_frame: false,
            });
        };
        let unreadable = |number, is_past| {
            FrameLayers::Unreadable(UnreadableFrame {
                number: Some(number),
                is_past,
                ends_frame: mandatory.end_of_frame,
            })
        };
        let in_order = self.newest.is_none_or(|newest| sequence > newest);
        if in_order {
            self.newest = Some(sequence);
        }
        let mut number = self.frame_numbers.peek(mandatory.frame_number);
        let attaches = attaches_structure(descriptor);
        if number < self.since {
            if !(in_order && attaches) {
                // Its templates are those of another structure, whatever their ids say now.
                let read = self
                    .past
                    .as_mut()
                    .and_then(|past| past.read(descriptor).ok());
                return match read {
                    Some(read) => described(read, number, self.structure.wrapping_sub(1)),
                    None => unreadable(number, true),
                };
            }
            // An encoder that starts anew may number anew: what comes later is newer all the same.
            number = self.frame_numbers.advance(mandatory.frame_number);
        }
        let before = attaches.then(|| self.reader.clone());
        let Ok(read) = self.reader.read(descriptor) else {
            return unreadable(number, false);
        };
        self.frame_numbers.extend(mandatory.frame_number);
        // Most key frames repeat it.
        if let Some(before) = before.filter(|b| b.structure() != self.reader.structure()) {
            self.structure = self.structure.wrapping_add(1);
            self.since = number;
            self.past = before.structure().is_some().then(|| Box::new(before));
        }
        if let (Some(active), Some(structure)) =
            (read.active_decode_targets, self.reader.structure())
        {
            self.version = self.version.wrapping_add(1);
            let targets = DecodeTargets::new(structure, active, self.structure, self.version);
            self.targets = Some(targets);
        }
        described(read, number, self.structure)
    }
}

impl Descriptors {
    /// As [`read`](Descriptors::read), of a descriptor that was read before.
    fn peek(&self, descriptor: &[u8]) -> FrameLayers {
        let fields = MandatoryFields::parse(descriptor).ok();
        let number = fields.map(|fields| self.frame_numbers.peek(fields.frame_number));
        let is_past = number.is_some_and(|number| number < self.since);
        let (reader, structure) = match is_past {
            true => (self.past.as_deref(), self.structure.wrapping_sub(1)),
            false => (Some(&self.reader), self.structure),
        };
        let read = reader.and_then(|reader| reader.peek(descriptor).ok());
        match read.zip(number) {
            Some((read, number)) => described(read, number, structure),
            None => FrameLayers::Unreadable(UnreadableFrame {
                number,
                is_past,
                ends_frame: fields.is_some_and(|fields| fields.end_of_frame),
            }),
        }
    }
}

fn described(read: DependencyDescriptor, number: u64, structure: u32) -> FrameLayers {
    FrameLayers::Described(DescribedFrame {
        number,
        frame: read.frame,
        structure,
        active: read.active_decode_targets,
        has_structure: read.has_structure,
        ends_frame: read.mandatory.end_of_frame,
    })
}

/// One incoming stream. It outlives its SSRC: a publisher that comes back with another one starts
/// a new life of the same stream.
#[derive(Debug)]
pub(crate) struct RtpStream {
    /// The publishing peer.
    pub(crate) peer: u32,
    /// Index of the m-line among those the peer sends on.
    pub(crate) media: u16,
    /// Index of the encoding in the m-line, in the offer's order.
    pub(crate) encoding: u8,
    pub(crate) clock_rate: u32,
    /// The track that it belongs to, once published.
    pub(crate) track: Option<u32>,
    /// Its SSRC, once known.
    pub(crate) ssrc: Option<u32>,
    epoch: u32,
    /// The life that its home has given it, if it is a mirror's.
    pub(crate) mirror_life: u32,
    extender: SeqExtender,
    window: ReceiveWindow,
    pub(crate) reception: Reception,
    pub(crate) sender_report: Option<SenderReportSeen>,
    pub(crate) first: Option<FirstPacket>,
    pub(crate) last_packet: Option<Time>,
    pub(crate) keyframes: KeyframeRequester,
    /// Deadline of the key-frame timer that is set.
    pub(crate) keyframe_timer: Time,
    pub(crate) seal: SealCheck,
    /// Pixels of the latest key frame, where the codec shows them.
    pub(crate) pixels: Option<u32>,
    /// What its layers cost.
    pub(crate) meter: LayerMeter,
    /// Its publisher was told that nobody wants it.
    pub(crate) unwanted: bool,
    /// Since when nobody gets it.
    pub(crate) idle_since: Option<Time>,
    /// Some 4 KiB, made with the first descriptor.
    descriptors: Option<Box<Descriptors>>,
    /// Sequence number and timestamp of the newest packet of media.
    previous: Option<(u64, u32)>,
    /// It sends: its newest packet is not older than
    /// [`ENCODING_IDLE`](crate::limits::ENCODING_IDLE).
    pub(crate) active: bool,
    /// What is missing of it, where its publisher sends again what is lost.
    pub(crate) nacks: Option<NackGenerator>,
    /// Deadline of the NACK timer that is set.
    pub(crate) nack_timer: Time,
    /// What its subscribers may ask for again, and the life that it belongs to.
    pub(crate) history: Option<(u32, PacketHistory<Held>)>,
    /// What arrived since the last flush.
    pub(crate) row: Row,
}

/// A packet in a stream's history: enough to read it again when it is asked for.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) buf: PacketBuf,
    /// Bytes of the packet in its slot.
    pub(crate) len: u16,
    /// Bytes in front of the codec's own payload.
    pub(crate) framing: u8,
    /// Index of its codec in the publisher's m-line.
    pub(crate) codec: u8,
    /// When it was forwarded.
    pub(crate) forwarded: Time,
    /// It came after packets that follow it: receivers may have missed it before it was sent.
    pub(crate) late: bool,
}

impl RtpStream {
    pub(crate) fn new(peer: u32, media: u16, encoding: u8, clock_rate: u32) -> Self {
        RtpStream {
            peer,
            media,
            encoding,
            clock_rate,
            track: None,
            ssrc: None,
            epoch: 0,
            mirror_life: 0,
            extender: SeqExtender::new(),
            window: ReceiveWindow::new(),
            reception: Reception::default(),
            sender_report: None,
            first: None,
            last_packet: None,
            keyframes: KeyframeRequester::default(),
            keyframe_timer: Time::NEVER,
            seal: SealCheck::default(),
            pixels: None,
            meter: LayerMeter::default(),
            unwanted: false,
            idle_since: None,
            descriptors: None,
            previous: None,
            active: false,
            nacks: None,
            nack_timer: Time::NEVER,
            history: None,
            row: Row::EMPTY,
        }
    }

    /// What a rewriter knows the stream by. `index` is the stream's own.
    pub(crate) fn life(&self, index: u32) -> StreamLife {
        StreamLife {
            stream: index,
            epoch: self.epoch,
        }
    }

    /// The stream's clock in relay NTP time, once a sender report has tied it to the publisher's.
    pub(crate) fn clock_point(&self, publisher: PeerClock) -> Option<ClockPoint> {
        let point = self.sender_report?.point;
        Some(ClockPoint {
            ntp: publisher.to_relay(point.ntp)?,
            timestamp: point.timestamp,
        })
    }

    /// Takes a sequence number; returns it extended, or `None` for a repetition or one that is
    /// too old. A jump that cannot be loss starts a new life.
    pub(crate) fn sequence(&mut self, number: u16) -> Option<u64> {
        if let Some(newest) = self.extender.newest()
            && self.extender.peek(number) > newest + SEQUENCE_DROPOUT
        {
            self.restart(self.ssrc);
        }
        let sequence = self.extender.extend(number);
        (self.window.insert(sequence) != Arrival::Stale).then_some(sequence)
    }

    /// As [`sequence`](RtpStream::sequence), for a packet that is sent again: `number` is the one
    /// of the original, which cannot start a new life.
    pub(crate) fn repaired(&mut self, number: u16) -> Option<u64> {
        let newest = self.extender.newest()?;
        if self.extender.peek(number) > newest + SEQUENCE_DROPOUT {
            return None;
        }
        let sequence = self.extender.extend(number);
        (self.window.insert(sequence) != Arrival::Stale).then_some(sequence)
    }

    /// Takes an extended sequence number that the stream's home has given; false for a repetition
    /// or one that is too old.
    pub(crate) fn mirrored(&mut self, sequence: u64) -> bool {
        self.window.insert(sequence) != Arrival::Stale
    }

    /// The extended sequence number that `number` most likely stands for.
    pub(crate) fn extended(&self, number: u16) -> u64 {
        self.extender.peek(number)
    }

    /// Notes the arrival of a packet for reports and clocks.
    pub(crate) fn on_arrival(
        &mut self,
        sequence: u64,
        timestamp: u32,
        received: Time,
        clock: &NtpClock,
    ) {
        self.reception
            .on_packet(sequence, timestamp, received, self.clock_rate);
        self.last_packet = Some(received);
        if self.first.is_none() {
            let point = ClockPoint {
                ntp: clock.at(received),
                timestamp,
            };
            self.first = Some(FirstPacket { received, point });
        }
    }

    /// Takes note of a packet of media; returns whether it is known to be the first of its frame,
    /// because the packet before it is of another.
    pub(crate) fn starts_frame(&mut self, sequence: u64, timestamp: u32) -> bool {
        let previous = self.previous;
        if previous.is_none_or(|(newest, _)| sequence > newest) {
            self.previous = Some((sequence, timestamp));
        }
        previous.is_some_and(|(before, at)| before + 1 == sequence && at != timestamp)
    }

    /// Starts a new life on `ssrc`: nothing of the numbers before holds any more.
    pub(crate) fn restart(&mut self, ssrc: Option<u32>) {
        self.ssrc = ssrc;
        self.epoch = self.epoch.wrapping_add(1);
        self.extender = SeqExtender::new();
        self.window = ReceiveWindow::new();
        self.reception = Reception::default();
        self.sender_report = None;
        self.first = None;
        self.previous = None;
        if let Some(nacks) = &mut self.nacks {
            *nacks = NackGenerator::new();
        }
        if let Some(descriptors) = self.descriptors.as_deref_mut() {
            descriptors.reader = DescriptorReader::new();
            descriptors.past = None;
            descriptors.frame_numbers = SeqExtender::new();
            descriptors.newest = None;
            descriptors.targets = None;
            descriptors.since = 0;
        }
    }

    /// Reads the dependency descriptor of the packet `sequence`.
    pub(crate) fn describe(&mut self, sequence: u64, descriptor: &[u8]) -> FrameLayers {
        self.descriptors
            .get_or_insert_default()
            .read(sequence, descriptor)
    }

    /// As [`describe`](RtpStream::describe), of a packet that was described before.
    pub(crate) fn describe_again(&self, descriptor: &[u8]) -> Option<FrameLayers> {
        Some(self.descriptors.as_ref()?.peek(descriptor))
    }

    /// How large its pictures are: the side of a square of as many pixels, 0 if unknown.
    pub(crate) fn side(&self) -> u16 {
        let pixels = self.pixels.or_else(|| {
            let structure = self.descriptors.as_ref()?.reader.structure()?;
            let (width, height) = (0..=3).rev().find_map(|s| structure.resolution(s))?;
            Some(u32::from(width) * u32::from(height))
        });
        pixels.map_or(0, |pixels| pixels.isqrt() as u16)
    }

    /// As [`side`](RtpStream::side), of a spatial layer.
    pub(crate) fn side_of(&self, spatial: u8) -> u16 {
        let resolution = self
            .descriptors
            .as_ref()
            .and_then(|d| d.reader.structure()?.resolution(spatial));
        resolution.map_or(0, |(w, h)| (u32::from(w) * u32::from(h)).isqrt() as u16)
    }

    /// The decode targets that its descriptors told of.
    pub(crate) fn decode_targets(&self) -> Option<&DecodeTargets> {
        self.descriptors.as_ref()?.targets.as_ref()
    }
}
