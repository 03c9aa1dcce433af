//! A media thread with its meter.
//!
//! Peers' events come while the loop works on a peer, and jobs of ours make it do so: whoever holds
//! the meter then cannot be asked for it again. So events are queued, and taken by whoever gets
//! the meter next.

use super::meter::Meter;
use super::registry::Registry;
use crate::driver::{Clock, MediaLoop, MediaThread, StartError, ThreadGone};
use crate::peer::{PeerContext, PeerEvent};
use sealcast_model::Time;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Worker {
    thread: MediaThread,
    meter: Mutex<Meter>,
    pending: Mutex<Vec<(Time, u64, PeerEvent)>>,
}

impl Worker {
    pub(super) fn spawn(
        name: &str,
        clock: Clock,
        ctx: PeerContext,
        registry: Arc<Registry>,
    ) -> Result<Arc<Worker>, StartError> {
        Ok(Arc::new(Worker {
            thread: MediaThread::spawn(name, clock, ctx)?,
            meter: Mutex::new(Meter::new(registry)),
            pending: Mutex::new(Vec::new()),
        }))
    }

    /// Takes an event, on the media thread.
    pub(super) fn on_event(&self, now: Time, key: u64, event: PeerEvent) {
        lock(&self.pending).push((now, key, event));
        match self.meter.try_lock() {
            Ok(mut meter) => self.take_events(&mut meter),
            Err(std::sync::TryLockError::Poisoned(e)) => self.take_events(&mut e.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => {}
        }
    }

    /// Does something with the meter, from any thread.
    pub(super) fn with_meter<R>(&self, f: impl FnOnce(&mut Meter) -> R) -> R {
        let mut meter = lock(&self.meter);
        self.take_events(&mut meter);
        let result = f(&mut meter);
        self.take_events(&mut meter);
        result
    }

    /// Runs a job on the media thread, with the meter.
    pub(super) fn post(
        worker: &Arc<Worker>,
        clock: Clock,
        job: impl FnOnce(&mut MediaLoop, &mut Meter, Time) + Send + 'static,
    ) -> Result<(), ThreadGone> {
        let on_thread = Arc::downgrade(worker);
        worker.thread.post(move |media| {
            // The thread itself must not be the last to hold its own handle.
            if let Some(worker) = on_thread.upgrade() {
                worker.with_meter(|meter| job(media, meter, clock.now()));
            }
        })
    }

    fn take_events(&self, meter: &mut Meter) {
        for (now, key, event) in std::mem::take(&mut *lock(&self.pending)) {
            meter.on_event(now, key, event);
        }
    }
}

/// A poisoned lock means that a thread panicked; its figures are still worth having.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
