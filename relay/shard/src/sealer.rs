//! Where packets leave the media plane: sealed for their receiver, straight into the batch.

use crate::egress::{EgressBatch, Outbox};
use crate::mesh::{Letter, Mesh};
use crate::sessions::Sessions;
use sealcast_media::{Egress, Mirror, PacketMeta, PeerKey};
use sealcast_model::limits::DATAGRAM_MAX;
use sealcast_model::{Counter, ShardId, ShardStats};
use sealcast_session::{MediaKeys, Session};

/// Seals into a batch, and sends the batch whenever it is full.
pub(crate) struct Sealer<'a, O: Outbox> {
    sessions: &'a mut Sessions,
    batch: &'a mut EgressBatch,
    outbox: &'a mut O,
    stats: &'a ShardStats,
    mesh: Option<&'a mut Mesh>,
    current: Option<u32>,
    /// The sessions that were prepared for last, the newest first.
    prepared: [Option<u32>; 2],
}

impl<'a, O: Outbox> Sealer<'a, O> {
    pub(crate) fn new(
        sessions: &'a mut Sessions,
        batch: &'a mut EgressBatch,
        outbox: &'a mut O,
        stats: &'a ShardStats,
        mesh: Option<&'a mut Mesh>,
    ) -> Self {
        batch.close_run();
        Sealer {
            sessions,
            batch,
            outbox,
            stats,
            mesh,
            current: None,
            prepared: [None; 2],
        }
    }

    /// The session that was being sealed for last: who is to blame for a panic.
    pub(crate) fn current(&self) -> Option<u32> {
        self.current
    }

    /// Seals one packet with `seal` into the batch. `len` is its length, `overhead` what sealing
    /// adds. One look at the session, and no copy of its path unless a run begins with it.
    #[inline]
    fn seal<E>(
        &mut self,
        to: PeerKey,
        len: usize,
        overhead: impl FnOnce(&MediaKeys) -> usize,
        meta: Option<&PacketMeta>,
        seal: impl FnOnce(&mut MediaKeys, &mut [u8]) -> Result<usize, E>,
    ) {
        self.current = Some(to.0);
        let Some(entry) = self.sessions.get_mut(to.0) else {
            return;
        };
        let (path, keys) = match entry.session.egress() {
            (None, _) => return self.stats.add(Counter::DropNoPath, 1),
            (_, None) => return self.stats.add(Counter::DropUnsealable, 1),
            (Some(path), Some(keys)) => (path, keys),
        };
        let max = len + overhead(keys);
        let mut out = self.batch.space(max);
        if out.is_none() {
            if max > DATAGRAM_MAX {
                return self.stats.add(Counter::DropOversize, 1);
            }
            self.batch.send(self.outbox, self.stats);
            out = self.batch.space(max);
        }
        let Some(out) = out else {
            return self.stats.add(Counter::DropEgressFull, 1);
        };
        match seal(keys, out) {
            Ok(len) => self.batch.commit(to.0, path, len, meta),
            Err(_) => self.stats.add(Counter::DropUnsealable, 1),
        }
    }
}

impl<O: Outbox> Egress for Sealer<'_, O> {
    #[inline]
    fn rtp(&mut self, to: PeerKey, _index: u64, header: &[u8], payload: &[u8], meta: PacketMeta) {
        let len = header.len() + payload.len();
        let overhead = MediaKeys::rtp_overhead;
        self.seal(to, len, overhead, Some(&meta), |keys, out| {
            // The SRTP context derives the same index from the sequence number.
            keys.seal_rtp(header, payload, out)
        });
    }

    fn rtcp(&mut self, to: PeerKey, packet: &[u8]) {
        let overhead = MediaKeys::rtcp_overhead;
        self.seal(to, packet.len(), overhead, None, |keys, out| {
            keys.seal_rtcp(packet, out)
        });
    }

    fn release(&mut self) {
        self.batch.send(self.outbox, self.stats);
        if let Some(mesh) = self.mesh.as_deref_mut() {
            mesh.ring();
        }
    }

    /// Step by step, since each finds what the next one fetches by reading what it has fetched.
    #[inline]
    fn prepare(&mut self, to: PeerKey) {
        let session = |key| self.sessions.get(key).map(|entry| &entry.session);
        let fetch = |at| self.outbox.prefetch(at);
        let [second, third] = self.prepared;
        if let Some(hot) = third.and_then(session).and_then(Session::hot_stream) {
            hot.into_iter().for_each(fetch);
        }
        if let Some(hot) = second.and_then(session).and_then(Session::hot_keys) {
            hot.into_iter().for_each(fetch);
        }
        if let Some(first) = session(to.0) {
            first.hot().into_iter().for_each(fetch);
        }
        self.prepared = [Some(to.0), second];
    }

    #[inline]
    fn prefetch(&self, address: *const u8) {
        self.outbox.prefetch(address);
    }

    fn mirror(&mut self, to: ShardId, message: &Mirror, packet: &[u8]) -> bool {
        let Some(mesh) = self.mesh.as_deref_mut() else {
            return false;
        };
        mesh.send(to, Letter::Media(*message), packet, self.stats)
    }
}
