//! Packets that wait: what does not fit a subscriber's path at once is held by its pacer, and
//! leaves from the history of its stream.

use super::Engine;
use super::egress::{Run, attach, joinable};
use super::legs::Legs;
use super::tracks::want_keyframe;
use crate::api::Egress;
use crate::downlink::{Control, Paced};
use crate::inbox::Entry;
use crate::limits::HEADER_MAX;
use crate::meter::WIRE_OVERHEAD;
use crate::pacing::{Departure, Order, QueueFull};
use crate::stream::RtpStream;
use crate::subscription::Subscription;
use crate::timers::{Timer, Timers};
use sealcast_model::{Counter, MediaKind, PacketPool, Time};

/// Sees to it that a path's pacer is polled when it wants to be.
pub(super) fn plan_departure(timers: &mut Timers, now: Time, key: u32, control: &mut Control) {
    let due = control.pacer.poll_timeout().max(now);
    if due < control.pace_timer {
        control.pace_timer = timers.set(due, Timer::Pace(key));
    }
}

impl Run<'_> {
    /// Has entries of a row wait for one subscription; whether it lacks a key frame to start with.
    /// Subscriptions that have to do without what waited for them go to `overrun`.
    pub(super) fn hold<'e>(
        &self,
        subscription: u32,
        sub: &Subscription,
        control: &mut Control,
        entries: impl Iterator<Item = &'e Entry>,
        overrun: &mut Vec<u32>,
    ) -> bool {
        let (life, turns) = (self.life, sub.rewriter.turns());
        let of_this =
            |p: &Paced| p.subscription == subscription && p.life == life && p.turns == turns;
        let attached = sub.rewriter.source() == Some(life);
        let mut joined = attached || control.pacer.waiting().rev().any(of_this);
        // What comes late has been sent.
        let late = |entry: &&Entry| sub.rewriter.has_passed(life, entry.sequence);
        for entry in entries.filter(|entry| !late(entry)) {
            let packet = entry.packet.as_ref().map(|(_, packet)| packet);
            joined = joined || packet.is_some_and(|packet| joinable(sub, packet));
            if !joined {
                continue;
            }
            let bytes = packet.map_or(0, |packet| packet.len + WIRE_OVERHEAD as u16);
            let mut paced = Paced {
                subscription,
                turns,
                life,
                sequence: entry.sequence,
                packet: packet.cloned(),
            };
            let order = |waiting: &Paced| match of_this(waiting) {
                true if waiting.sequence <= entry.sequence => Order::Before,
                true => Order::After,
                false => Order::Free,
            };
            while let Err(QueueFull(refused)) = control.pacer.hold(self.now, bytes, paced, order) {
                let victim = control.pacer.waiting().next().map(|p| p.subscription);
                let victim = victim.unwrap_or(subscription);
                let before = control.pacer.len();
                control.pacer.retain(|p| p.subscription != victim);
                let dropped = before - control.pacer.len();
                self.stats.add(Counter::DropPaced, dropped as u64);
                overrun.push(victim);
                if victim == subscription {
                    self.stats.add(Counter::DropPaced, 1);
                    return false;
                }
                paced = refused;
            }
            self.stats.add(Counter::Paced, u64::from(packet.is_some()));
        }
        !joined
    }
}

impl Engine {
    /// Sends what has waited long enough.
    pub(super) fn depart_all<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        legs: Legs,
    ) {
        let departing = std::mem::take(&mut self.departing);
        for key in &departing {
            if self.legs_of(*key) != legs {
                continue;
            }
            while let Some(paced) = self.next_departure(now, *key) {
                self.depart(now, *key, paced, pool, egress);
            }
        }
        // Padding follows, when media has had its turn.
        self.departing = departing;
        self.void_overrun();
    }

    fn next_departure(&mut self, now: Time, key: u32) -> Option<Paced> {
        let pacer = &mut self.control(key)?.pacer;
        if pacer.is_empty() {
            return None;
        }
        match pacer.poll(now)? {
            Departure::Packet(paced) => Some(paced),
            Departure::Padding => None,
        }
    }

    /// Sends a packet that has waited, unless what it waited for is over.
    fn depart<E: Egress>(
        &mut self,
        now: Time,
        key: u32,
        paced: Paced,
        pool: &mut PacketPool,
        egress: &mut E,
    ) {
        let Paced {
            subscription,
            turns,
            life,
            sequence,
            packet,
        } = paced;
        let stream = self.streams.get(life.stream);
        let Some(stream) = stream.filter(|stream| stream.life(life.stream) == life) else {
            return;
        };
        let track = stream.track.and_then(|track| self.tracks.get(track));
        let Some(track) = track.filter(|track| track.forwards()) else {
            return;
        };
        let Some(sub) = self.subscriptions.get_mut(subscription).filter(|sub| {
            sub.peer == key
                && sub.forwards()
                && sub.track == stream.track
                && sub.rewriter.turns() == turns
        }) else {
            return;
        };
        let attached = sub.rewriter.source() == Some(life);
        if sub.rewriter.has_passed(life, sequence) {
            // It was overtaken when the pool ran low, and can be had by asking.
            return;
        }
        let Some(packet) = packet else {
            if attached {
                sub.rewriter.skip(sequence);
            }
            return;
        };
        let history = stream.history.as_ref();
        let held = history
            .filter(|(epoch, _)| *epoch == life.epoch)
            .and_then(|(_, history)| history.get(sequence));
        let publisher = self
            .peers
            .get(stream.peer as usize)
            .and_then(Option::as_deref);
        let targets = RtpStream::decode_targets(stream);
        let run = Run::new(now, life, &self.stats, track, publisher, targets);
        if !attached {
            let joins = sub.target == Some(life.stream) && joinable(sub, &packet);
            if !joins || held.is_none() {
                return;
            }
            attach(
                sub,
                &run,
                sequence,
                &packet,
                &self.streams,
                publisher,
                &self.clock,
            );
        }
        let Some(held) = held else {
            self.stats.add(Counter::DropPaced, 1);
            self.overrun.push(subscription);
            return;
        };
        let Some(downlink) = self.downlinks.get_mut(key as usize) else {
            return;
        };
        let mut header = [0; HEADER_MAX];
        let sent = run.send_packet(
            sub,
            downlink,
            sequence,
            &held.buf,
            &packet,
            &mut header,
            pool,
            egress,
        );
        self.stats
            .media(track.source)
            .forwarded(u64::from(sent.is_some()), sent.unwrap_or(0));
        if sub.layers.take_keyframe_wish() {
            want_keyframe(&mut self.streams, &mut self.asking, life.stream);
        }
    }

    /// Has subscriptions whose packets were dropped while they waited start again with a key frame:
    /// frames that depend on those are of no use, and parts of frames even less.
    pub(super) fn void_overrun(&mut self) {
        for subscription in self.overrun.drain(..) {
            let Some(sub) = self.subscriptions.get_mut(subscription) else {
                continue;
            };
            sub.rewriter.detach();
            if let Some(stream) = sub.awaited().filter(|_| sub.kind == MediaKind::Video) {
                want_keyframe(&mut self.streams, &mut self.asking, stream);
            }
        }
    }
}
