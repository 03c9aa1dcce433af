//! What a shard does with commands of the control plane.

use crate::notices::Notices;
use crate::sessions::{DataMeter, Entry};
use crate::shard::Shard;
use sealcast_media::PeerKey;
use sealcast_model::{
    CloseReason, Command, CommandError, Counter, Event, Gauge, MirrorSession, ParticipantId,
    RequestId, RoomId, SessionId, SessionMedia, SlotSize, Time, WebRtcParams,
};
use sealcast_rtp::rtcp::RtcpWriter;
use sealcast_session::{Session, SessionError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Slots named in one BYE: the five bits of its count (RFC 3550 §6.6).
const SSRCS_PER_BYE: usize = 31;

/// Canonical name in a BYE: the relay's own, for it leaves with all slots at once.
const BYE_CNAME: &[u8] = b"relay";

impl Shard {
    /// Carries a command out. What it causes to be sent leaves with the next
    /// [`flush`](Shard::flush). A bug that it sets off costs the session it is about.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        let (request, session) = about(&command);
        let carried_out = catch_unwind(AssertUnwindSafe(|| self.carry_out(now, command)));
        if carried_out.is_err() {
            match session.and_then(|id| self.by_id.get(&id)).copied() {
                Some(key) => self.contain(now, key),
                None => self.count(Counter::SessionPanics),
            }
            if let Some(request) = request {
                self.reply(request, Err(CommandError::Busy));
            }
        }
        self.take_media_events(now);
    }

    fn carry_out(&mut self, now: Time, command: Command) {
        match command {
            Command::OpenSession {
                request,
                session,
                participant,
                room,
                webrtc,
                media,
            } => {
                let result = self.open(now, session, participant, room, &webrtc, &media);
                self.reply(request, result);
            }
            Command::UpdateMedia {
                request,
                session,
                media,
            } => {
                let result = self.update(now, session, &media);
                self.reply(request, result);
            }
            Command::CloseSession { session, reason } => {
                if let Some(key) = self.by_id.get(&session).copied() {
                    self.close(now, key, reason);
                } else if let Some(key) = self.mirrors.remove(&session) {
                    self.media.remove_peer(now, &mut self.pool, PeerKey(key));
                    self.sessions.release(key);
                }
            }
            Command::Mirror(mirror) => {
                if let Err(error) = self.mirror(now, &mirror) {
                    tracing::warn!(session = %mirror.session, %error, "session not mirrored");
                }
            }
            Command::MirrorTrack(publish) => {
                let mirrored = self
                    .mirrors
                    .get(&publish.session)
                    .ok_or(CommandError::NoSession)
                    .and_then(|key| self.media.publish(now, PeerKey(*key), &publish));
                if let Err(error) = mirrored {
                    tracing::warn!(track = %publish.track, %error, "track not mirrored");
                }
            }
            Command::Publish { request, publish } => {
                let result = self
                    .key(publish.session)
                    .and_then(|key| self.media.publish(now, PeerKey(key), &publish));
                self.reply(request, result);
            }
            Command::Unpublish { track } => self.media.unpublish(now, &mut self.pool, track),
            Command::SetMuted { track, muted } => self.media.set_muted(now, track, muted),
            Command::AssignSlots {
                request,
                session,
                assign,
            } => {
                let result = self
                    .key(session)
                    .and_then(|key| self.media.assign_slots(now, PeerKey(key), &assign));
                self.reply(request, result);
            }
            Command::SizeSlots { session, sizes } => {
                if let Ok(key) = self.key(session) {
                    self.size_slots(now, key, &sizes);
                }
            }
            Command::SendData {
                sessions,
                binary,
                data,
            } => {
                for session in sessions {
                    self.send_data(now, session, binary, &data);
                }
            }
            Command::Stop => self.stop(now),
        }
    }

    /// Adds or renegotiates the mirror of a session on another shard.
    fn mirror(&mut self, now: Time, mirror: &MirrorSession) -> Result<(), CommandError> {
        if let Some(key) = self.mirrors.get(&mirror.session) {
            return self.media.update_mirror(now, PeerKey(*key), &mirror.media);
        }
        let key = self.sessions.reserve();
        let added = self.media.add_mirror(
            now,
            PeerKey(key),
            mirror.session,
            mirror.participant,
            mirror.room,
            &mirror.media,
            mirror.home,
        );
        match added {
            Ok(()) => {
                self.mirrors.insert(mirror.session, key);
            }
            Err(_) => self.sessions.release(key),
        }
        added
    }

    fn size_slots(&mut self, now: Time, key: u32, sizes: &[SlotSize]) {
        for size in sizes {
            let (width, height) = (size.width, size.height);
            // A slot that was renegotiated away meanwhile has no size.
            let _ = self
                .media
                .size_slot(now, PeerKey(key), size.slot, width, height);
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<(), CommandError>) {
        self.events.push(Event::Reply { request, result });
    }

    fn key(&self, session: SessionId) -> Result<u32, CommandError> {
        let key = self.by_id.get(&session).copied();
        key.ok_or(CommandError::NoSession)
    }

    fn open(
        &mut self,
        now: Time,
        id: SessionId,
        participant: ParticipantId,
        room: RoomId,
        webrtc: &WebRtcParams,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        if self.stopping {
            return Err(CommandError::Busy);
        }
        if self.sessions.len() >= self.config.media.peers {
            return Err(CommandError::Limit);
        }
        if self.by_id.contains_key(&id) {
            return Err(CommandError::Invalid);
        }
        let session = Session::new(now, &self.context, id, webrtc).map_err(|e| {
            tracing::warn!(session = %id, error = %e, "session refused");
            match e {
                SessionError::IceCredentials => CommandError::Invalid,
                _ => CommandError::Busy,
            }
        })?;
        let key = self.sessions.next_key();
        if !self.demux.add_ufrag(&webrtc.local_ufrag, key) {
            return Err(CommandError::Invalid);
        }
        let added = self
            .media
            .add_peer(now, PeerKey(key), id, participant, room, media);
        if let Err(e) = added {
            self.demux.remove_ufrag(&webrtc.local_ufrag);
            return Err(e);
        }
        self.sessions.insert(Entry {
            session,
            id,
            ufrag: webrtc.local_ufrag.as_str().into(),
            paths: Vec::new(),
            notices: Notices::default(),
            slot_ssrcs: slot_ssrcs(media),
            had_path: false,
            closing: None,
            data_in: DataMeter::new(now),
            #[cfg(test)]
            sabotaged: false,
        });
        self.by_id.insert(id, key);
        self.stats.set(Gauge::Sessions, self.sessions.len() as u64);
        // Arms the timer and sends what there is to send.
        self.drive(now, key, |_| ());
        Ok(())
    }

    fn update(
        &mut self,
        now: Time,
        session: SessionId,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        let key = self.key(session)?;
        self.media.update_peer(now, PeerKey(key), media)?;
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.slot_ssrcs = slot_ssrcs(media);
        }
        Ok(())
    }

    fn send_data(&mut self, now: Time, session: SessionId, binary: bool, data: &[u8]) {
        let Ok(key) = self.key(session) else { return };
        let result = self.drive(now, key, |s| s.send_data(now, binary, data));
        if let Some(Err(_)) = result {
            self.count(Counter::DropDataMessage);
        }
    }

    /// Says goodbye to a client: RTCP BYE for its slots, DTLS close_notify.
    fn close(&mut self, now: Time, key: u32, reason: CloseReason) {
        self.send_bye(now, key);
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        entry.closing = Some(reason);
        self.drive(now, key, |s| s.close(now, reason));
        // A session that did not say so itself is over all the same.
        self.remove_session(now, key, reason);
    }

    fn send_bye(&mut self, now: Time, key: u32) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let ssrcs = std::mem::take(&mut entry.slot_ssrcs);
        let Some(path) = entry.session.path().copied() else {
            return;
        };
        for ssrcs in ssrcs.chunks(SSRCS_PER_BYE) {
            let mut plain = [0; 256];
            let mut writer = RtcpWriter::new(&mut plain);
            // RFC 3550 §6.1: "The first RTCP packet in the compound packet MUST always be a report
            // packet", and "An SDES packet containing a CNAME item MUST be included in each
            // compound RTCP packet". 31 sources make 152 bytes, so all fit.
            let written = writer
                .receiver_report(ssrcs[0], &[])
                .and_then(|()| writer.sdes_cname(ssrcs[0], BYE_CNAME))
                .and_then(|()| writer.bye(ssrcs, b""));
            let len = writer.len();
            if written.is_err() {
                return;
            }
            let mut sealed = [0; 512];
            let step = self.sessions.step(key, |session| {
                session.seal_rtcp(plain.get(..len).unwrap_or_default(), &mut sealed)
            });
            let Some(Ok(len)) = self.settle(now, key, step) else {
                return;
            };
            if !self
                .batch
                .append(&path, sealed.get(..len).unwrap_or_default())
            {
                return self.count(Counter::DropEgressFull);
            }
        }
    }

    fn stop(&mut self, now: Time) {
        self.stopping = true;
        let keys: Vec<u32> = self.sessions.keys().collect();
        for key in keys {
            self.close(now, key, CloseReason::Stopping);
        }
    }
}

/// The request a command is to be answered by, and the session that bears the blame for it.
fn about(command: &Command) -> (Option<RequestId>, Option<SessionId>) {
    match command {
        Command::OpenSession {
            request, session, ..
        }
        | Command::UpdateMedia {
            request, session, ..
        }
        | Command::AssignSlots {
            request, session, ..
        } => (Some(*request), Some(*session)),
        Command::Publish { request, publish } => (Some(*request), Some(publish.session)),
        Command::CloseSession { session, .. } | Command::SizeSlots { session, .. } => {
            (None, Some(*session))
        }
        // A step of a session that panics is contained where it is made.
        Command::SendData { .. }
        | Command::Unpublish { .. }
        | Command::SetMuted { .. }
        | Command::Mirror(_)
        | Command::MirrorTrack(_)
        | Command::Stop => (None, None),
    }
}

fn slot_ssrcs(media: &SessionMedia) -> Vec<u32> {
    media.slots.iter().map(|slot| slot.ssrc).collect()
}
