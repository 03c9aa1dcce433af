//! A session as the media plane sees it: the m-lines it sends on, its slots, its clocks.

use crate::bwe::{CcfbReceiver, ReceiveEstimator, TwccReceiver};
use crate::header::extension_map;
use crate::sync::PeerClock;
use sealcast_model::limits::{
    CODECS_PER_MEDIA, EXTENSIONS_PER_SESSION, RIDS_PER_MEDIA, SLOTS_PER_SESSION, SSRCS_PER_SESSION,
    TRACKS_PER_SESSION,
};
use sealcast_model::{
    CodecParams, CommandError, HeaderExtension, MediaKind, Mid, ParticipantId, ReceiveMedia, Rid,
    SessionId, SessionMedia, ShardId, SlotId, SlotMedia, Time,
};
use sealcast_rtp::ExtensionMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// What an SSRC of a publisher carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The stream.
    pub(crate) stream: u32,
    /// It carries retransmissions of the stream (RFC 4588).
    pub(crate) rtx: bool,
}

/// An m-line on which the client sends.
#[derive(Debug)]
pub(crate) struct SendingMedia {
    pub(crate) mid: Mid,
    pub(crate) kind: MediaKind,
    pub(crate) codecs: Vec<CodecParams>,
    pub(crate) rids: Vec<Rid>,
    /// Its streams: one for each RID, or one.
    pub(crate) encodings: Vec<u32>,
    /// What it carries, once published.
    pub(crate) track: Option<u32>,
}

impl SendingMedia {
    /// Index of the codec with this payload type.
    #[inline]
    pub(crate) fn codec(&self, payload_type: u8) -> Option<usize> {
        self.codecs
            .iter()
            .position(|codec| codec.pt == payload_type)
    }

    /// Index of the codec whose retransmissions have this payload type.
    #[inline]
    pub(crate) fn codec_of_rtx(&self, payload_type: u8) -> Option<usize> {
        self.codecs
            .iter()
            .position(|codec| codec.rtx_pt == Some(payload_type))
    }
}

/// An m-line on which the client receives.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    pub(crate) mid: Mid,
    pub(crate) kind: MediaKind,
    pub(crate) codecs: Vec<CodecParams>,
    pub(crate) ssrc: u32,
    /// SSRC of its retransmissions, if negotiated.
    pub(crate) rtx_ssrc: Option<u32>,
    /// Its sending side, from its first assignment on.
    pub(crate) subscription: Option<u32>,
}

impl Slot {
    pub(crate) fn new(media: &SlotMedia) -> Self {
        Slot {
            id: media.slot,
            mid: media.mid,
            kind: media.kind,
            codecs: media.codecs.clone(),
            ssrc: media.ssrc,
            rtx_ssrc: media.rtx_ssrc,
            subscription: None,
        }
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) session: SessionId,
    /// Canonical name of everything its participant sends (RFC 3550 §6.5.1): the pseudonym.
    pub(crate) cname: String,
    pub(crate) room: u32,
    pub(crate) connected: bool,
    /// What is sent to it costs more to seal than what is sent to others.
    pub(crate) seals_slowly: bool,
    /// Where its session is, if that is another shard: this is then its mirror.
    pub(crate) mirror: Option<ShardId>,
    pub(crate) extensions: ExtensionMap,
    pub(crate) extmap_allow_mixed: bool,
    pub(crate) rtcp_rsize: bool,
    pub(crate) sending: Vec<SendingMedia>,
    pub(crate) slots: Vec<Slot>,
    /// SSRCs that the client sends on, sorted.
    ssrcs: Vec<(u32, Binding)>,
    /// The relay's own SSRC towards this client, for reports and feedback.
    pub(crate) feedback_ssrc: u32,
    pub(crate) clock: PeerClock,
    /// By its reports on what it is sent.
    pub(crate) round_trip: Option<Duration>,
    /// By the time that lost packets took to come once asked for.
    repair_time: Option<Duration>,
    /// What it is told of how its packets arrive.
    pub(crate) arrivals: Option<Box<Arrivals>>,
    /// Deadline of the feedback timer that is set.
    pub(crate) arrivals_timer: Time,
    /// The stream of its newest packet: feedback has to name one.
    pub(crate) arrivals_ssrc: u32,
    /// When the next report is due.
    pub(crate) report_at: Time,
    /// Changes of its slots so far.
    pub(crate) revision: u32,
}

impl Peer {
    pub(crate) fn new(
        session: SessionId,
        participant: ParticipantId,
        room: u32,
        feedback_ssrc: u32,
        media: &SessionMedia,
    ) -> Self {
        Peer {
            session,
            cname: participant.to_string(),
            room,
            connected: false,
            seals_slowly: false,
            mirror: None,
            extensions: extension_map(&media.extensions),
            extmap_allow_mixed: media.extmap_allow_mixed,
            rtcp_rsize: media.rtcp_rsize,
            sending: Vec::new(),
            slots: Vec::new(),
            ssrcs: Vec::new(),
            feedback_ssrc,
            clock: PeerClock::default(),
            round_trip: None,
            repair_time: None,
            arrivals: Arrivals::wanted(media).map(Box::new),
            arrivals_timer: Time::NEVER,
            arrivals_ssrc: 0,
            report_at: Time::NEVER,
            revision: 0,
        }
    }

    /// What an SSRC that the client sends on carries.
    #[inline]
    pub(crate) fn binding(&self, ssrc: u32) -> Option<Binding> {
        let at = self.ssrcs.binary_search_by_key(&ssrc, |(s, _)| *s).ok()?;
        Some(self.ssrcs[at].1)
    }

    /// Binds an SSRC. What carried the same before is forgotten. `false` if there are too many.
    pub(crate) fn bind(&mut self, ssrc: u32, binding: Binding) -> bool {
        self.ssrcs.retain(|(s, b)| *s != ssrc && *b != binding);
        if self.ssrcs.len() >= SSRCS_PER_SESSION {
            return false;
        }
        let at = self.ssrcs.partition_point(|(s, _)| *s < ssrc);
        self.ssrcs.insert(at, (ssrc, binding));
        true
    }

    /// Forgets the SSRCs of a stream.
    pub(crate) fn unbind(&mut self, stream: u32) {
        self.ssrcs.retain(|(_, binding)| binding.stream != stream);
    }

    /// The m-line that a packet belongs to: by its MID, else by a payload type that no other
    /// m-line uses (RFC 8843 §9.2).
    pub(crate) fn media_of(&self, mid: Option<&[u8]>, payload_type: u8) -> Option<usize> {
        if let Some(mid) = mid {
            return self
                .sending
                .iter()
                .position(|media| media.mid.as_bytes() == mid);
        }
        let takes = |media: &SendingMedia| {
            media.codec(payload_type).is_some() || media.codec_of_rtx(payload_type).is_some()
        };
        let mut candidates = self
            .sending
            .iter()
            .enumerate()
            .filter(|(_, media)| takes(media));
        let (index, _) = candidates.next()?;
        candidates.next().is_none().then_some(index)
    }

    /// Index of a slot.
    pub(crate) fn slot(&self, id: SlotId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    /// A packet that the client was asked for once came this long after.
    pub(crate) fn note_repair_time(&mut self, time: Duration) {
        self.repair_time = Some(match self.repair_time {
            None => time,
            Some(smoothed) => (smoothed * 7 + time) / 8,
        });
    }

    /// Round trip to the client as a publisher; `None` before anything told.
    pub(crate) fn uplink_round_trip(&self) -> Option<Duration> {
        self.round_trip.or(self.repair_time)
    }

    /// The SSRCs that it sends media on, retransmissions left out.
    pub(crate) fn media_ssrcs(&self) -> impl Iterator<Item = u32> {
        let media = self.ssrcs.iter().filter(|(_, binding)| !binding.rtx);
        media.map(|(ssrc, _)| *ssrc)
    }

    /// The subscription that sends on `ssrc` to this client.
    pub(crate) fn subscription(&self, ssrc: u32) -> Option<u32> {
        self.slots
            .iter()
            .find(|slot| slot.ssrc == ssrc)?
            .subscription
    }

    /// The subscriptions of its slots.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter_map(|slot| slot.subscription)
    }

    /// The streams that it sends.
    pub(crate) fn streams(&self) -> impl Iterator<Item = u32> {
        self.sending
            .iter()
            .flat_map(|media| media.encodings.iter().copied())
    }
}

/// How a client learns what its path to the relay carries.
#[derive(Debug)]
pub(crate) enum Arrivals {
    /// By its own estimator, from transport-wide feedback.
    Transport(TwccReceiver),
    /// By its own estimator, from feedback of RFC 8888.
    Congestion(CcfbReceiver),
    /// It is told (REMB).
    Estimated(ReceiveEstimator),
}

impl Arrivals {
    /// What a session with these m-lines is to be given.
    pub(crate) fn wanted(media: &SessionMedia) -> Option<Self> {
        let any = |wants: fn(&CodecParams) -> bool| {
            media.receive.iter().flat_map(|m| &m.codecs).any(wants)
        };
        let has = |wanted| media.extensions.iter().any(|(_, kind)| *kind == wanted);
        if any(|codec| codec.transport_cc) && has(HeaderExtension::TransportCc) {
            return Some(Arrivals::Transport(TwccReceiver::new()));
        }
        if any(|codec| codec.ccfb) {
            return Some(Arrivals::Congestion(CcfbReceiver::default()));
        }
        (any(|codec| codec.remb) && has(HeaderExtension::AbsSendTime))
            .then(|| Arrivals::Estimated(ReceiveEstimator::default()))
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        match self {
            Arrivals::Transport(receiver) => receiver.poll_timeout(),
            Arrivals::Congestion(receiver) => receiver.poll_timeout(),
            Arrivals::Estimated(estimator) => estimator.poll_timeout(),
        }
    }

    /// Puts what is wanted now in the place of what there is, if it is another.
    pub(crate) fn update(this: &mut Option<Box<Self>>, media: &SessionMedia) {
        let wanted = Self::wanted(media);
        let kind = |arrivals: Option<&Self>| arrivals.map(std::mem::discriminant);
        if kind(wanted.as_ref()) != kind(this.as_deref()) {
            *this = wanted.map(Box::new);
        }
    }
}

/// Checks what was negotiated against the limits, and that its names are unique.
///
/// # Errors
/// [`CommandError::Limit`] or [`CommandError::Invalid`].
pub(crate) fn validate(media: &SessionMedia) -> Result<(), CommandError> {
    let too_long = media.receive.len() > TRACKS_PER_SESSION
        || media.slots.len() > SLOTS_PER_SESSION
        || media.extensions.len() > EXTENSIONS_PER_SESSION
        || media
            .receive
            .iter()
            .any(|m| m.rids.len() > RIDS_PER_MEDIA || m.codecs.len() > CODECS_PER_MEDIA)
        || media
            .slots
            .iter()
            .any(|s| s.codecs.len() > CODECS_PER_MEDIA)
        || announced(&media.receive).count() > SSRCS_PER_SESSION;
    if too_long {
        return Err(CommandError::Limit);
    }
    let mids = media
        .receive
        .iter()
        .map(|m| m.mid)
        .chain(media.slots.iter().map(|s| s.mid));
    let slot_ssrcs = media
        .slots
        .iter()
        .flat_map(|s| [Some(s.ssrc), s.rtx_ssrc])
        .flatten();
    let codecs = media
        .receive
        .iter()
        .map(|m| &m.codecs)
        .chain(media.slots.iter().map(|s| &s.codecs));
    let sound = all_unique(mids)
        && all_unique(media.slots.iter().map(|s| s.slot))
        && all_unique(slot_ssrcs)
        && all_unique(announced(&media.receive))
        && media
            .receive
            .iter()
            .all(|m| all_unique(m.rids.iter().copied()))
        && media.extensions.iter().all(|(id, _)| *id != 0)
        && codecs.flatten().all(|c| c.pt < 0x80);
    if sound {
        Ok(())
    } else {
        Err(CommandError::Invalid)
    }
}

/// The SSRCs named in an offer.
fn announced(media: &[ReceiveMedia]) -> impl Iterator<Item = u32> {
    media
        .iter()
        .flat_map(|m| m.ssrcs.iter())
        .flat_map(|s| [Some(s.ssrc), s.rtx])
        .flatten()
}

fn all_unique<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}
