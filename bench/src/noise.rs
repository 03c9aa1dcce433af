//! What the machine alone adds to latency: how late a thread's timer runs.
//!
//! No relay can be on time on a core that the scheduler, the hypervisor or an interrupt keeps from
//! it. A thread that does nothing but sleep says how often and for how long that happens.

use crate::{Result, clock, cpu};
use sealcast_model::{Histogram, Snapshot};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that sleeps and records how late it wakes.
pub struct Noise {
    late: Arc<Histogram>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Noise {
    /// Starts it on `cpu`; it wakes every `interval`, with this real-time priority, or 0 for none.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(cpu: usize, interval: Duration, priority: u8) -> Result<Noise> {
        let (late, stop) = (Arc::new(Histogram::default()), Arc::default());
        let (record, stopped): (_, Arc<AtomicBool>) = (Arc::clone(&late), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("noise".into())
            .spawn(move || {
                cpu::pin_to(cpu)?;
                cpu::prioritise(priority)?;
                while !stopped.load(Relaxed) {
                    let due = clock::now() + interval;
                    clock::sleep(interval);
                    record.record(clock::now().saturating_duration_since(due), 1);
                }
                Ok(())
            })?;
        Ok(Noise {
            late,
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it, and says how late it was.
    ///
    /// # Errors
    /// If it could not run on its CPU, or with its priority.
    pub fn stop(mut self) -> Result<Snapshot> {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(self.late.snapshot())
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_never_early() {
        let noise = Noise::start(0, Duration::from_micros(200), 0).unwrap();
        while noise.late.snapshot().count() < 20 {
            clock::sleep(Duration::from_millis(1));
        }
        let late = noise.stop().unwrap();
        assert!(late.count() >= 20 && late.max() > Duration::ZERO);
    }
}
