//! One sending m-line: a source, its encodings, their seals, packets and retransmissions.

use super::keys::Keys;
use super::rtp::{Link, MAX_PAYLOAD, RtpStream};
use crate::model::{Codec, OpusModel, OpusParams, Packetizer, Payload, VideoModel, VideoParams};
use sealcast_model::{NtpClock, Time};
use sealcast_netsim::Rng;
use sealcast_rtp::rtcp::SenderInfo;
use sealcast_sframe::{KeyError, Kid, Sealer, layout};
use sealcast_srtp::Outbound;
use std::time::Duration;

/// Retransmissions answered for one NACK.
const MAX_RESENT: usize = 64;

/// RIDs of a simulcast's encodings, smallest first, as browsers' applications name them.
const RIDS: [&str; 3] = ["q", "h", "f"];

/// What a sender does.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderParams {
    /// Opus audio.
    Audio(OpusParams),
    /// Video.
    Video(VideoParams),
    /// Video in two or three encodings (RFC 8853), smallest first. Where the relay does not
    /// take that, the largest is sent alone. Their rates of frames are that of the largest.
    Simulcast(Vec<VideoParams>),
}

impl SenderParams {
    /// Its codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        match self {
            SenderParams::Audio(_) => Codec::Opus,
            SenderParams::Video(p) => p.codec,
            SenderParams::Simulcast(all) => all.last().map_or(Codec::Vp8, |p| p.codec),
        }
    }
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Pictures, or audio frames, that were sent in one encoding or more.
    pub pictures: u64,
    /// Frames sent, in all encodings.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Packets sent, retransmissions left out.
    pub packets: u64,
    /// Payload bytes of those.
    pub octets: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets asked for again.
    pub nacked: u64,
    /// Key-frame requests received.
    pub key_requests: u64,
    /// Encodings that the relay asked to stop or to go on with.
    pub switches: u64,
    /// How late frames were generated, summed up.
    pub lag: Duration,
    /// How late the latest frame was generated.
    pub worst_lag: Duration,
}

enum Encoder {
    Opus(OpusModel),
    Video(VideoModel),
}

/// One encoding of a source, from encoder to RTP.
struct Encoding {
    /// Its name in its frames.
    name: u64,
    encoder: Encoder,
    /// Where frames are sealed; of its epoch and leaf the sealer knows better.
    kid: Option<Kid>,
    sealer: Option<Sealer>,
    packetizer: Packetizer,
    rtp: RtpStream,
    /// Negotiated, and wanted by the relay.
    active: bool,
}

/// An m-line that sends.
pub(super) struct Sender {
    codec: Codec,
    /// When the next frame is due; `None` while not sending.
    due: Option<Time>,
    interval: Duration,
    /// Of the next picture.
    number: u64,
    encodings: Vec<Encoding>,
    buffers: Buffers,
    stats: SendStats,
}

/// Used again for each frame.
#[derive(Default)]
struct Buffers {
    frame: Vec<u8>,
    sealed: Vec<u8>,
    packet: Vec<u8>,
}

impl Sender {
    /// A sender that is idle until [`Sender::start`].
    pub(super) fn new(
        params: &SenderParams,
        mid: &str,
        keys: Option<&mut Keys>,
        rng: &mut Rng,
    ) -> Result<Sender, KeyError> {
        let codec = params.codec();
        let mut maker = Maker { mid, keys, rng };
        let encodings = match params {
            SenderParams::Audio(p) => vec![maker.audio(*p)?],
            SenderParams::Video(p) => vec![maker.video(*p, None)?],
            SenderParams::Simulcast(all) => {
                let fps = all.last().map_or(30, |p| p.fps);
                let rids = RIDS.iter().skip(RIDS.len().saturating_sub(all.len()));
                all.iter()
                    .zip(rids)
                    .map(|(p, rid)| maker.video(VideoParams { fps, ..*p }, Some(rid)))
                    .collect::<Result<_, _>>()?
            }
        };
        let interval = encodings.first().map(|e| match &e.encoder {
            Encoder::Opus(model) => model.interval(),
            Encoder::Video(model) => model.interval(),
        });
        Ok(Sender {
            codec,
            due: None,
            interval: interval.unwrap_or(Duration::from_secs(1)),
            number: 0,
            encodings,
            buffers: Buffers::default(),
            stats: SendStats::default(),
        })
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// SSRC of the first encoding.
    pub(super) fn ssrc(&self) -> u32 {
        self.encodings.first().map_or(0, |e| e.rtp.ssrc)
    }

    /// SSRC and that of retransmissions, of a sender that has one encoding.
    pub(super) fn ssrcs(&self) -> Option<(u32, u32)> {
        match &self.encodings[..] {
            [only] => Some((only.rtp.ssrc, only.rtp.rtx_ssrc)),
            _ => None,
        }
    }

    /// RIDs of a simulcast.
    pub(super) fn rids(&self) -> Vec<&'static str> {
        self.encodings.iter().filter_map(|e| e.rtp.rid).collect()
    }

    pub(super) fn stats(&self) -> SendStats {
        let mut stats = self.stats;
        for encoding in &self.encodings {
            let rtp = encoding.rtp.stats();
            stats.packets += rtp.packets;
            stats.octets += rtp.octets;
            stats.retransmitted += rtp.retransmitted;
        }
        stats
    }

    /// The names of its encodings in their frames.
    pub(super) fn streams(&self) -> impl Iterator<Item = u64> {
        self.encodings.iter().map(|e| e.name)
    }

    /// What the relay must be told of the seal (PROTOCOL.md §7.2).
    pub(super) fn seal_contexts(&self) -> impl Iterator<Item = u64> {
        self.encodings
            .iter()
            .filter_map(|e| e.kid.map(Kid::context))
    }

    /// Takes what was negotiated: payload types, and which encodings of a simulcast.
    pub(super) fn negotiated(&mut self, pt: u8, rtx_pt: Option<u8>, rids: &[String]) {
        let last = self.encodings.len().saturating_sub(1);
        for (n, encoding) in self.encodings.iter_mut().enumerate() {
            encoding.rtp.pt = pt;
            encoding.rtp.rtx_pt = rtx_pt;
            let rid = encoding.rtp.rid;
            encoding.active = if rids.is_empty() {
                n == last
            } else {
                rid.is_some_and(|rid| rids.iter().any(|r| r == rid))
            };
            if rids.is_empty() {
                encoding.rtp.rid = None;
            }
        }
    }

    /// The relay says which encodings anybody gets, in the offer's order. One that starts again
    /// starts with a key frame.
    pub(super) fn set_active(&mut self, active: &[bool]) {
        for (encoding, active) in self.encodings.iter_mut().zip(active) {
            if encoding.rtp.rid.is_some() && encoding.active != *active {
                encoding.active = *active;
                self.stats.switches += 1;
                encoding.request_key_frame();
            }
        }
    }

    /// Seals with the keys of this epoch from the next frame on.
    pub(super) fn rekey(&mut self, keys: &Keys, epoch: u64) -> Result<(), KeyError> {
        for encoding in &mut self.encodings {
            if let Some(kid) = encoding.kid {
                let sealer = keys.sealer(kid, Some(epoch))?;
                // The same key again would begin with the same nonces again.
                let same = |s: &Sealer| sealer.as_ref().is_some_and(|new| new.kid() == s.kid());
                if !encoding.sealer.as_ref().is_some_and(same) {
                    encoding.sealer = sealer;
                }
            }
        }
        Ok(())
    }

    /// There are no keys: nothing is sent.
    pub(super) fn forget_keys(&mut self) {
        for encoding in &mut self.encodings {
            encoding.sealer = None;
        }
    }

    /// SRTP keys are there. Frames that were due before are left out.
    pub(super) fn connect(&mut self, now: Time, srtp: &mut Outbound) {
        self.due = self.due.map(|due| due.max(now));
        for encoding in &mut self.encodings {
            encoding.rtp.connect(srtp);
        }
    }

    /// Sends the first frame at `first`, the others on schedule.
    pub(super) fn start(&mut self, first: Time) {
        self.due = Some(first);
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// When the next frame is due.
    pub(super) fn poll_timeout(&self) -> Time {
        self.due.unwrap_or(Time::NEVER)
    }

    /// Somebody needs a key frame of the encoding with this SSRC.
    pub(super) fn on_key_request(&mut self, ssrc: u32) {
        for encoding in self.encodings.iter_mut().filter(|e| e.rtp.ssrc == ssrc) {
            self.stats.key_requests += 1;
            encoding.request_key_frame();
        }
    }

    /// Sends every frame that is due, each with the time at which it should have left: a
    /// generator that runs late shows as latency, not as a lower rate.
    pub(super) fn handle_timeout(&mut self, link: &mut Link<'_>) {
        while let Some(due) = self.due.filter(|due| *due <= link.now) {
            self.due = Some(due + self.interval);
            let Sender {
                codec,
                number,
                encodings,
                buffers,
                stats,
                ..
            } = self;
            let mut sent = false;
            for encoding in encodings.iter_mut().filter(|e| e.can_send()) {
                let payload = match &mut encoding.encoder {
                    Encoder::Opus(model) => model.encode(due, &mut buffers.frame),
                    Encoder::Video(model) => Some(model.encode(due, *number, &mut buffers.frame)),
                };
                if let Some(payload) = payload
                    && encoding.send(*codec, link, due, &payload, buffers)
                {
                    sent = true;
                    stats.frames += 1;
                    stats.key_frames += u64::from(payload.key && codec.is_video());
                }
            }
            if sent {
                *number += 1;
                stats.pictures += 1;
                let lag = link.now.saturating_since(due);
                stats.lag += lag;
                stats.worst_lag = stats.worst_lag.max(lag);
            }
        }
    }

    /// Answers a NACK for the encoding with this SSRC.
    pub(super) fn on_nack(
        &mut self,
        link: &mut Link<'_>,
        ssrc: u32,
        seqs: impl Iterator<Item = u16>,
    ) {
        let Some(encoding) = self.encodings.iter_mut().find(|e| e.rtp.ssrc == ssrc) else {
            return;
        };
        for (n, seq) in seqs.enumerate() {
            self.stats.nacked += 1;
            if n < MAX_RESENT {
                encoding.rtp.resend(link, seq);
            }
        }
    }

    /// The sender's part of reports, for each encoding that has sent.
    pub(super) fn reports(&self, now: Time, clock: &NtpClock) -> impl Iterator<Item = SenderInfo> {
        let (ntp, rate) = (clock.at(now), self.codec.clock_rate());
        self.encodings
            .iter()
            .filter_map(move |e| e.rtp.report(now, ntp, rate))
    }
}

impl Encoding {
    /// Negotiated, wanted, and with a key if it needs one.
    fn can_send(&self) -> bool {
        self.active && (self.kid.is_none() || self.sealer.is_some())
    }

    fn request_key_frame(&mut self) {
        if let Encoder::Video(model) = &mut self.encoder {
            model.request_key_frame();
        }
    }

    /// Seals and sends a frame; false if it could not be sealed.
    fn send(
        &mut self,
        codec: Codec,
        link: &mut Link<'_>,
        due: Time,
        payload: &Payload,
        buffers: &mut Buffers,
    ) -> bool {
        let Buffers {
            frame,
            sealed,
            packet,
        } = buffers;
        let frame: &[u8] = match &mut self.sealer {
            None => frame,
            Some(sealer) => match layout::seal(codec.layout(), sealer, frame, sealed) {
                Ok(()) => sealed,
                Err(e) => {
                    // The key is used up: a scenario that runs this long must renew it.
                    tracing::warn!(error = %e, "frame not sealed");
                    return false;
                }
            },
        };
        let rtp = &mut self.rtp;
        rtp.begin_frame(due, payload);
        let mut first = true;
        self.packetizer
            .packetize(frame, payload.key, packet, |data, last| {
                let extensions = rtp.frame_extensions(payload, first, last);
                rtp.send(link, payload, last, &extensions, data);
                first = false;
            });
        true
    }
}

/// Makes encodings, each with random numbers of its own.
struct Maker<'a> {
    mid: &'a str,
    keys: Option<&'a mut Keys>,
    rng: &'a mut Rng,
}

impl Maker<'_> {
    fn audio(&mut self, params: OpusParams) -> Result<Encoding, KeyError> {
        let encoder = |name, seed| Encoder::Opus(OpusModel::new(params, name, seed));
        self.encoding(Codec::Opus, None, None, encoder)
    }

    fn video(
        &mut self,
        params: VideoParams,
        rid: Option<&'static str>,
    ) -> Result<Encoding, KeyError> {
        let size = Some((params.width, params.height));
        let encoder = |name, seed| Encoder::Video(VideoModel::new(params, name, seed));
        self.encoding(params.codec, rid, size, encoder)
    }

    fn encoding(
        &mut self,
        codec: Codec,
        rid: Option<&'static str>,
        size: Option<(u16, u16)>,
        encoder: impl FnOnce(u64, u64) -> Encoder,
    ) -> Result<Encoding, KeyError> {
        let rng = &mut *self.rng;
        let kid = self.keys.as_mut().map(|keys| keys.new_kid(rng));
        let sealer = match (&self.keys, kid) {
            // Of a group's epoch nothing is known yet.
            (Some(keys), Some(kid)) => keys.sealer(kid, None)?,
            _ => None,
        };
        let ssrcs = (rng.next_u64() as u32, rng.next_u64() as u32);
        let (name, seed) = (rng.next_u64(), rng.next_u64());
        // Encoders of H.264 send no dependency descriptor.
        let described = size.filter(|_| codec != Codec::H264);
        Ok(Encoding {
            name,
            encoder: encoder(name, seed),
            kid,
            sealer,
            packetizer: Packetizer::new(codec, MAX_PAYLOAD, seed as u16, size.unwrap_or((0, 0))),
            rtp: RtpStream::new(self.mid.to_owned(), rid, ssrcs, described, seed),
            active: true,
        })
    }
}
