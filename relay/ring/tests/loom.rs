//! The ring and the lane under every interleaving of their two threads: the same source, compiled
//! against loom's atomics and cells.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    unsafe_code,
    reason = "the crate's own source, of which each test uses a part"
)]

mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "../src/lane.rs"]
mod lane;
#[path = "../src/ring.rs"]
mod ring;

use lane::{BufferPool, Refused, lane};
use loom::thread;
use ring::ring;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Explores the interleavings with at most three involuntary switches: what needs more differs
/// from one that does not by repeating it.
fn explore(f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(f);
}

#[test]
fn values_arrive_in_order_and_once() {
    explore(|| {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            let mut pushed = Vec::new();
            for n in 0..4u32 {
                if producer.push(Box::new(n)).is_ok() {
                    pushed.push(n);
                }
            }
            pushed
        });
        let mut popped = Vec::new();
        for _ in 0..3 {
            popped.extend(consumer.pop().map(|n| *n));
        }
        let pushed = sender.join().unwrap();
        popped.extend(std::iter::from_fn(|| consumer.pop()).map(|n| *n));
        assert_eq!(popped, pushed);
    });
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn what_nobody_took_is_dropped_once_whoever_leaves_last() {
    explore(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = ring(2);
        let counter = Arc::clone(&dropped);
        let sender = thread::spawn(move || {
            for _ in 0..3 {
                let _ = producer.push(Counted(Arc::clone(&counter)));
            }
        });
        drop(consumer.pop());
        drop(consumer);
        sender.join().unwrap();
        assert_eq!(dropped.load(SeqCst), 3);
    });
}

#[test]
fn buffers_come_back_to_their_pool_with_what_was_in_them_read() {
    explore(|| {
        let mut pool = BufferPool::new(1, 4);
        pool.fill();
        let (mut sender, mut receiver) = lane::<u8>(2, 1);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..2 {
                receiver.receive(|message, payload| {
                    assert_eq!(
                        payload, [message; 3],
                        "a buffer was written while it was lent"
                    );
                    seen.push(message);
                });
            }
            (seen, receiver)
        });
        let mut sent = Vec::new();
        for n in 1..=3 {
            match sender.send(&mut pool, n, &[n; 3], 0) {
                Ok(()) => sent.push(n),
                Err(refused) => assert_eq!(refused, Refused::NoBuffer),
            }
        }
        let (mut seen, mut receiver) = reader.join().unwrap();
        while receiver.receive(|message, _| seen.push(message)) {}
        assert_eq!(seen, sent);
        sender.reclaim(&mut pool);
        assert_eq!(pool.available(), pool.limit(), "no buffer is lost");
    });
}
