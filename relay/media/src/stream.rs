//! An incoming RTP stream: one encoding of one m-line (RFC 7656 §2.1.10).

use crate::inbox::Row;
use crate::keyframe::KeyframeRequester;
use crate::layers::{DecodeTargets, DescribedFrame, FrameLayers};
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
use sealcast_rtp::dd::DescriptorReader;

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
    frame_numbers: SeqExtender,
    targets: Option<DecodeTargets>,
    version: u32,
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

    /// Starts a new life on `ssrc`: nothing of the numbers before holds any more.
    pub(crate) fn restart(&mut self, ssrc: Option<u32>) {
        self.ssrc = ssrc;
        self.epoch = self.epoch.wrapping_add(1);
        self.extender = SeqExtender::new();
        self.window = ReceiveWindow::new();
        self.reception = Reception::default();
        self.sender_report = None;
        self.first = None;
        if let Some(nacks) = &mut self.nacks {
            *nacks = NackGenerator::new();
        }
        if let Some(descriptors) = self.descriptors.as_deref_mut() {
            descriptors.reader = DescriptorReader::new();
            descriptors.frame_numbers = SeqExtender::new();
            descriptors.targets = None;
        }
    }

    /// Reads a dependency descriptor.
    pub(crate) fn describe(&mut self, descriptor: &[u8]) -> FrameLayers {
        let descriptors = self.descriptors.get_or_insert_default();
        let Ok(read) = descriptors.reader.read(descriptor) else {
            return FrameLayers::Unreadable;
        };
        if let (Some(active), Some(structure)) =
            (read.active_decode_targets, descriptors.reader.structure())
        {
            descriptors.version = descriptors.version.wrapping_add(1);
            descriptors.targets = Some(DecodeTargets::new(structure, active, descriptors.version));
        }
        FrameLayers::Described(DescribedFrame {
            number: descriptors
                .frame_numbers
                .extend(read.mandatory.frame_number),
            frame: read.frame,
            has_structure: read.has_structure,
            ends_frame: read.mandatory.end_of_frame,
        })
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
