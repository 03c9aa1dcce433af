//! Where packets leave the media plane: sealed for their receiver, straight into the batch.

use crate::egress::{EgressBatch, Outbox};
use crate::sessions::Sessions;
use sealcast_media::{Egress, PacketMeta, PeerKey};
use sealcast_model::limits::DATAGRAM_MAX;
use sealcast_model::{Counter, ShardStats};

/// Seals into a batch, and sends the batch whenever it is full.
pub(crate) struct Sealer<'a, O: Outbox> {
    sessions: &'a mut Sessions,
    batch: &'a mut EgressBatch,
    outbox: &'a mut O,
    stats: &'a ShardStats,
    current: Option<u32>,
}

impl<'a, O: Outbox> Sealer<'a, O> {
    pub(crate) fn new(
        sessions: &'a mut Sessions,
        batch: &'a mut EgressBatch,
        outbox: &'a mut O,
        stats: &'a ShardStats,
    ) -> Self {
        batch.close_run();
        Sealer {
            sessions,
            batch,
            outbox,
            stats,
            current: None,
        }
    }

    /// The session that was being sealed for last: who is to blame for a panic.
    pub(crate) fn current(&self) -> Option<u32> {
        self.current
    }

    fn count(&self, counter: Counter) {
        self.stats.add(counter, 1);
    }

    /// Seals one packet with `seal` into the batch; `max` bounds its sealed length.
    #[inline]
    fn seal<E>(
        &mut self,
        to: PeerKey,
        max: usize,
        meta: Option<PacketMeta>,
        seal: impl FnOnce(&mut sealcast_session::Session, &mut [u8]) -> Result<usize, E>,
    ) {
        self.current = Some(to.0);
        let Some(entry) = self.sessions.get_mut(to.0) else {
            return;
        };
        let Some(path) = entry.session.path().copied() else {
            return self.count(Counter::DropNoPath);
        };
        if max > DATAGRAM_MAX {
            return self.count(Counter::DropOversize);
        }
        if self.batch.space(max).is_none() {
            self.batch.send(self.outbox, self.stats);
        }
        let Some(out) = self.batch.space(max) else {
            return self.count(Counter::DropEgressFull);
        };
        match seal(&mut entry.session, out) {
            Ok(len) => self.batch.commit(to.0, &path, len, meta),
            Err(_) => self.count(Counter::DropUnsealable),
        }
    }
}

impl<O: Outbox> Egress for Sealer<'_, O> {
    #[inline]
    fn rtp(&mut self, to: PeerKey, _index: u64, header: &[u8], payload: &[u8], meta: PacketMeta) {
        let overhead = self
            .sessions
            .get(to.0)
            .map_or(0, |e| e.session.rtp_overhead());
        let max = header.len() + payload.len() + overhead;
        self.seal(to, max, Some(meta), |session, out| {
            // The SRTP context derives the same index from the sequence number.
            session.seal_rtp(header, payload, out)
        });
    }

    fn rtcp(&mut self, to: PeerKey, packet: &[u8]) {
        let overhead = self
            .sessions
            .get(to.0)
            .map_or(0, |e| e.session.rtcp_overhead());
        let max = packet.len() + overhead;
        self.seal(to, max, None, |session, out| session.seal_rtcp(packet, out));
    }
}
