//! Bandwidth of subscribers: feedback, who gets which layers of what, and probes.
//!
//! Only paths whose client gives feedback are controlled; the others get everything. A diagnostic
//! track is sent whole or not at all, and if not, its client and a counter are told.

use super::Engine;
use super::departures::plan_departure;
use super::repair::retransmission;
use crate::api::{Egress, MediaEvent, PacketMeta, PeerKey};
use crate::bwe::Subscription as Wish;
use crate::bwe::{Decision, Estimator, LayerRate, MAX_LAYERS, Priority, RequestId};
use crate::downlink::{Control, Downlink};
use crate::header::{Elements, PacketFields};
use crate::layers::Layers;
use crate::limits::{ALLOCATION_INTERVAL, HEADER_MAX, PADDING_PER_TURN};
use crate::meter::{SPATIAL, TEMPORAL};
use crate::pacing::PADDING_BYTES;
use crate::slab::Slab;
use crate::stream::RtpStream;
use crate::subscription::{Pause, Subscription};
use crate::timers::Timer;
use crate::track::Track;
use sealcast_model::{Counter, MediaKind, Source, Time};
use sealcast_rtp::ext::AbsSendTime;
use sealcast_rtp::set_sequence_number;

/// The least that an audio track is taken to cost, bits per second: Opus as browsers send it, with
/// headers. With redundancy, or in stereo, it is measured to cost more; in silence it costs less,
/// which nobody is to count on.
const AUDIO_RATE: u64 = 50_000;

/// Where not everything fits a path, audio is sent without redundancy if, with it, it would take
/// more than one part in this many of it: repeating what may not have been lost is worth less than a
/// picture.
const REDUNDANCY_SHARE: u64 = 4;

/// Content of a padding packet. RFC 3550 §5.1: "The last octet of the padding contains a count of
/// how many padding octets should be ignored, including itself."
const PADDING: [u8; PADDING_BYTES as usize] = {
    let mut bytes = [0; PADDING_BYTES as usize];
    bytes[PADDING_BYTES as usize - 1] = PADDING_BYTES as u8;
    bytes
};

/// The padding bit (RFC 3550 §5.1).
const PADDING_BIT: u8 = 0x20;

/// What a subscription may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) subscription: u32,
    layers: Option<Layers>,
    pause: Pause,
}

impl Engine {
    pub(super) fn control(&mut self, key: u32) -> Option<&mut Control> {
        self.downlinks.get_mut(key as usize)?.control.as_deref_mut()
    }

    /// A subscriber is shown its first track: its path is to be controlled from now on.
    pub(super) fn begin_control(&mut self, now: Time, key: u32) {
        let connected = self.peer(key).is_some_and(|peer| peer.connected);
        let downlink = self.downlinks.get_mut(key as usize);
        if downlink.is_some_and(Downlink::begin_control) && connected {
            self.timers.set(now, Timer::Bandwidth(key));
        }
    }

    /// A subscriber's feedback arrived.
    pub(super) fn on_path_feedback(&mut self, key: u32, tell: impl FnOnce(&mut Estimator)) {
        let Some(control) = self.control(key) else {
            return;
        };
        control.heard = true;
        tell(&mut control.estimator);
        self.list(key);
        while let Some(lost) = self.control(key).and_then(|c| c.estimator.poll_lost()) {
            self.on_lost(key, lost);
        }
    }

    /// Divides a peer's bandwidth anew with the next flush: there is something else to divide it
    /// among.
    pub(super) fn reallocate(&mut self, key: u32) {
        if let Some(control) = self.control(key) {
            control.stale = true;
            self.list(key);
        }
    }

    fn list(&mut self, key: u32) {
        if let Some(control) = self.control(key)
            && !std::mem::replace(&mut control.listed, true)
        {
            self.allocating.push(key);
        }
    }

    /// A controlled path's regular turn.
    pub(super) fn on_bandwidth_turn(&mut self, now: Time, key: u32) {
        let connected = self.peer(key).is_some_and(|peer| peer.connected);
        let Some(control) = self.control(key).filter(|_| connected) else {
            return;
        };
        if control.heard {
            control.estimator.handle_timeout(now);
        }
        if let Some(bitrate) = control.news(now) {
            let peer = PeerKey(key);
            self.events
                .push_back(MediaEvent::PathEstimated { peer, bitrate });
        }
        self.list(key);
        self.timers
            .set(now + ALLOCATION_INTERVAL, Timer::Bandwidth(key));
    }

    pub(super) fn allocate_all(&mut self, now: Time) {
        let mut listed = std::mem::take(&mut self.allocating);
        for key in listed.drain(..) {
            self.allocate(now, key);
        }
        debug_assert!(self.allocating.is_empty(), "grants list nobody");
        self.allocating = listed;
    }

    fn allocate(&mut self, now: Time, key: u32) {
        let Some(control) = self
            .downlinks
            .get_mut(key as usize)
            .and_then(|downlink| downlink.control.as_deref_mut())
        else {
            return;
        };
        control.listed = false;
        let available = control.available(now);
        let rested = now - control.allocated_at >= ALLOCATION_INTERVAL;
        if !rested && !control.stale && available >= control.allocated {
            // A probe that follows from what the last one found does not wait.
            return self.probe(now, key);
        }
        (control.allocated_at, control.allocated, control.stale) = (now, available, false);
        let Some(peer) = self.peers.get(key as usize).and_then(Option::as_deref) else {
            return;
        };
        let slots = || (0..).zip(peer.slots.iter().map(|slot| slot.subscription));
        let (mut least, mut audio) = (0, 0);
        for (at, subscription) in slots() {
            let sub = subscription.and_then(|s| self.subscriptions.get(s));
            let track = sub.and_then(|sub| self.tracks.get(sub.track?));
            audio += track.map_or(0, |track| redundant_audio(track, &self.streams));
            match sub.and_then(|sub| wish(&self.tracks, &self.streams, sub, at)) {
                Some(wish) => {
                    least += least_of(&wish);
                    control.allocator.set(wish);
                }
                None => control.allocator.remove(RequestId(at)),
            }
        }
        // The word of a client that has no better lowers layers and stops nothing: many a REMB is
        // less than what comes.
        let available = match control.has_only_estimates() {
            true => available.max(least.saturating_add(least / 4)),
            false => available,
        };
        let demand = control.allocator.demand();
        control.lean = is_lean(audio, demand, available, control.lean);
        // What is asked for must be found with the allocator's margin to spare.
        control
            .estimator
            .set_demand(demand.saturating_add(demand / 4));
        let mut grants = std::mem::take(&mut self.grants);
        // At first nothing is known of the path. What flows, and the first probes, tell.
        let settled = !control.is_starting(now);
        if settled {
            control.allocator.allocate(now, available, |_| ());
        }
        for (at, subscription) in slots() {
            let Some(subscription) = subscription.filter(|_| settled) else {
                continue;
            };
            if let Some((wish, decision)) = control.allocator.get(RequestId(at)) {
                let simulcast = self
                    .subscriptions
                    .get(subscription)
                    .and_then(|sub| self.tracks.get(sub.track?))
                    .is_some_and(|track| track.encodings.len() > 1);
                grants.push(grant(subscription, wish, decision, simulcast));
            }
        }
        if let Some(control) = self.control(key) {
            control.set_pace(now);
        }
        self.probe(now, key);
        for grant in grants.drain(..) {
            self.apply(grant);
        }
        self.grants = grants;
    }

    /// Starts a probe of a peer's path if it is time for one.
    fn probe(&mut self, now: Time, key: u32) {
        let probes = self.can_probe(key);
        let downlink = self.downlinks.get_mut(key as usize);
        if let Some(control) = downlink.and_then(|d| d.control.as_deref_mut()) {
            if probes {
                control.poll_probe(now);
            }
            plan_departure(&mut self.timers, now, key, control);
        }
    }

    /// Stops or resumes what is not looked at, on a path that is not controlled.
    pub(super) fn hide(&mut self, subscription: u32, hidden: bool) {
        self.apply(Grant {
            subscription,
            layers: (!hidden).then_some(Layers::ALL),
            pause: if hidden { Pause::Hidden } else { Pause::None },
        });
    }

    /// Puts a grant in force.
    fn apply(&mut self, grant: Grant) {
        let Some(sub) = self.subscriptions.get_mut(grant.subscription) else {
            return;
        };
        let before = std::mem::replace(&mut sub.pause, grant.pause);
        let limited = grant
            .layers
            .is_some_and(|layers| std::mem::replace(&mut sub.granted, layers) != layers);
        if limited {
            sub.set_limit();
        }
        if before != grant.pause && grant.pause != Pause::None {
            // What is missed leaves no gap.
            sub.rewriter.detach();
        }
        if grant.pause == Pause::None && (limited || before != Pause::None) {
            self.retarget_one(grant.subscription, before != Pause::None);
        }
        if before.is_told() != grant.pause.is_told() {
            if grant.pause == Pause::Diagnostic {
                self.stats.add(Counter::DiagnosticPaused, 1);
            }
            self.announce_slot(grant.subscription);
        }
    }

    /// Whether there is a stream whose retransmission stream can carry padding.
    fn can_probe(&self, key: u32) -> bool {
        self.padded(key).is_some()
    }

    /// The subscription that padding goes with.
    fn padded(&self, key: u32) -> Option<u32> {
        let peer = self.peer(key).filter(|peer| peer.connected)?;
        let downlink = self.downlinks.get(key as usize)?;
        peer.slots
            .iter()
            .filter(|slot| slot.kind == MediaKind::Video && slot.rtx_ssrc.is_some())
            .filter_map(|slot| slot.subscription)
            .find(|s| {
                self.subscriptions.get(*s).is_some_and(|sub| {
                    sub.track.is_some()
                        && downlink.notes(sub.template.numbers_transport())
                        && sub.payload_types.any_rtx().is_some()
                })
            })
    }

    /// Sends the padding that probes want, where no media waits that could take its place.
    pub(super) fn send_probes<E: Egress>(&mut self, now: Time, egress: &mut E) {
        let mut departing = std::mem::take(&mut self.departing);
        for key in departing.drain(..) {
            for _ in 0..PADDING_PER_TURN {
                let pacer = self.control(key).map(|control| &mut control.pacer);
                let due = pacer.filter(|p| p.is_empty()).and_then(|p| p.poll(now));
                if due.is_none() {
                    break;
                }
                if self.pad(now, key, egress).is_none() {
                    if let Some(control) = self.control(key) {
                        control.pacer.stop_probe();
                    }
                    break;
                }
            }
            let downlink = self.downlinks.get_mut(key as usize);
            if let Some(control) = downlink.and_then(|d| d.control.as_deref_mut()) {
                plan_departure(&mut self.timers, now, key, control);
            }
        }
        self.departing = departing;
    }

    /// Sends one packet of padding on a retransmission stream, where it disturbs no numbering.
    fn pad<E: Egress>(&mut self, now: Time, key: u32, egress: &mut E) -> Option<()> {
        let index = self.padded(key)?;
        let first = self.prng.next_u32() as u16;
        let sub = self.subscriptions.get_mut(index)?;
        let receiver = self.peers.get(key as usize)?.as_deref()?;
        let rtx_ssrc = receiver.slots.get(usize::from(sub.slot))?.rtx_ssrc?;
        let payload_type = sub.payload_types.any_rtx()?;
        let timestamp = sub.rewriter.peek_timestamp(0);
        let retransmission = retransmission(sub, receiver, first)?;
        let downlink = self.downlinks.get_mut(key as usize)?;
        let fields = PacketFields {
            marker: false,
            payload_type,
            sequence_number: 0,
            timestamp,
            send_time: AbsSendTime::from_micros(now.as_micros()).to_bytes(),
            transport_cc: downlink.next(),
            frame_number: None,
            active_targets: None,
            capture_offset: 0,
        };
        let mut out = [0; HEADER_MAX];
        let template = &retransmission.template;
        let len = template.write(&mut out, &fields, &[], &Elements::default());
        let packet_index = retransmission.sender.take_index();
        let header = out.get_mut(..len)?;
        *header.first_mut()? |= PADDING_BIT;
        if !set_sequence_number(header, packet_index as u16) {
            return None;
        }
        let meta = PacketMeta {
            source: Source::Camera,
            track: None,
            received: now,
            read: now,
        };
        egress.rtp(PeerKey(key), packet_index, header, &PADDING, meta);
        downlink.on_sent(now, rtx_ssrc, packet_index as u16, len + PADDING.len());
        self.stats.add(Counter::PaddingSent, 1);
        Some(())
    }
}

fn grant(subscription: u32, wish: &Wish, decision: Decision, simulcast: bool) -> Grant {
    let (layers, pause) = match decision {
        Decision::Send { layer } => (Some(limit(wish, layer, simulcast)), Pause::None),
        Decision::Unwanted => (None, Pause::Hidden),
        Decision::Paused => (None, Pause::Bandwidth),
        Decision::DiagnosticPaused => (None, Pause::Diagnostic),
    };
    Grant {
        subscription,
        layers,
        pause,
    }
}

/// What a subscription wants of its subscriber's bandwidth; `None` while that is unknown.
fn wish(
    tracks: &Slab<Track>,
    streams: &Slab<RtpStream>,
    sub: &Subscription,
    at: u32,
) -> Option<Wish> {
    let track = tracks.get(sub.track?).filter(|t| !t.muted && !t.blocked)?;
    let mut layers = [LayerRate::default(); MAX_LAYERS];
    let priority = match track.source {
        Source::Audio => Priority::Audio,
        Source::Imaging => Priority::Diagnostic,
        Source::Screen => Priority::ActiveSpeaker,
        Source::Camera if track.speaking => Priority::ActiveSpeaker,
        Source::Camera => Priority::Other,
    };
    let layer_count = if priority == Priority::Audio {
        layers[0].bitrate = audio_rate(track, streams);
        1
    } else {
        fill(&mut layers, track, streams, sub.cap);
        MAX_LAYERS as u8
    };
    if layers.iter().all(|layer| layer.bitrate == 0) {
        return None;
    }
    let mut wish = Wish {
        id: RequestId(at),
        priority,
        layers,
        layer_count,
        wanted_height: sub.wanted,
        required_layer: 0,
    };
    if priority == Priority::Diagnostic {
        // Whole: what its place on the screen can show, at the full frame rate.
        wish.required_layer = wish.highest_useful().unwrap_or(0) as u8;
    }
    Some(wish)
}

/// What a track costs at the least that it can be shown with.
fn least_of(wish: &Wish) -> u64 {
    let cost = |layer: usize| wish.layers.get(layer).map_or(0, |layer| layer.bitrate);
    if wish.priority == Priority::Diagnostic {
        return cost(wish.required_layer.into());
    }
    let sent = wish.layers.iter().map(|layer| layer.bitrate);
    sent.filter(|rate| *rate > 0).min().unwrap_or(0)
}

/// What an audio track costs as it comes, redundancy included.
fn audio_rate(track: &Track, streams: &Slab<RtpStream>) -> u64 {
    let streams = track.encodings.iter().filter_map(|e| streams.get(*e));
    let measured = streams.map(|stream| stream.meter.rate(0, 0)).max();
    measured.unwrap_or(0).max(AUDIO_RATE)
}

/// What of that reaches a subscriber now.
fn redundant_audio(track: &Track, streams: &Slab<RtpStream>) -> u64 {
    let heard = track.source == Source::Audio && track.audible && !track.muted && !track.blocked;
    if heard { audio_rate(track, streams) } else { 0 }
}

/// Whether audio is to go without redundancy on a path that carries `available` bits per second,
/// where `audio` is its rate with redundancy and `demand` that of everything; `lean` if it does so
/// until now.
fn is_lean(audio: u64, demand: u64, available: u64, lean: bool) -> bool {
    // What was too much is tried again with something to spare.
    let spare = |rate: u64| if lean { rate + rate / 8 } else { rate };
    spare(demand) > available && spare(audio).saturating_mul(REDUNDANCY_SHARE) > available
}

/// The layers of a track that are sent, or would be if asked for: index `spatial × TEMPORAL +
/// temporal`. Those that cost no more than one below them are left out.
fn fill(
    layers: &mut [LayerRate; MAX_LAYERS],
    track: &Track,
    streams: &Slab<RtpStream>,
    cap: Layers,
) {
    let simulcast = track.encodings.len() > 1;
    for stream in track.encodings.iter().filter_map(|e| streams.get(*e)) {
        if !stream.meter.is_measured() || simulcast && !(stream.active || stream.unwanted) {
            continue;
        }
        let spatials = if simulcast {
            let rank = track.rank(streams, stream);
            rank..rank + 1
        } else {
            0..SPATIAL
        };
        for spatial in spatials {
            for temporal in 0..TEMPORAL {
                let (bitrate, height) = if simulcast {
                    (stream.meter.rate_of_encoding(temporal), stream.side())
                } else {
                    (
                        stream.meter.rate(spatial, temporal),
                        stream.side_of(spatial as u8),
                    )
                };
                let within = spatial <= usize::from(cap.spatial)
                    && temporal <= usize::from(cap.temporal)
                    || (spatial, temporal) == (0, 0);
                if let Some(layer) = layers
                    .get_mut(spatial * TEMPORAL + temporal)
                    .filter(|_| within)
                {
                    *layer = LayerRate {
                        bitrate,
                        height,
                        spatial: spatial as u8,
                    };
                }
            }
        }
    }
    let mut most = 0;
    for layer in layers {
        if layer.bitrate <= most {
            layer.bitrate = 0;
        }
        most = most.max(layer.bitrate);
    }
}

/// The limit that stands for a layer: without bounds where there is nothing above it.
fn limit(wish: &Wish, layer: u8, simulcast: bool) -> Layers {
    let (spatial, temporal) = (usize::from(layer) / TEMPORAL, usize::from(layer) % TEMPORAL);
    let sent = |spatial: usize, temporal: usize| {
        wish.layers
            .get(spatial * TEMPORAL + temporal)
            .is_some_and(|layer| layer.bitrate > 0)
    };
    let above =
        (spatial + 1..SPATIAL).any(|spatial| (0..TEMPORAL).any(|temporal| sent(spatial, temporal)));
    let faster = (temporal + 1..TEMPORAL).any(|temporal| sent(spatial, temporal));
    Layers {
        spatial: if above || simulcast {
            spatial as u8
        } else {
            u8::MAX
        },
        temporal: if faster { temporal as u8 } else { u8::MAX },
    }
}
