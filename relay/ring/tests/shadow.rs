//! The ring against a queue that anybody can see is right, and the lane on real threads.

use proptest::prelude::*;
use sealcast_ring::{BufferPool, Refused, lane, ring};
use std::collections::VecDeque;

proptest! {
    /// Whatever is pushed and popped, the ring does what a bounded queue does, across any number of
    /// turns around its slots.
    #[test]
    fn a_ring_is_a_bounded_queue(capacity in 1usize..9, pushes in prop::collection::vec(any::<bool>(), 0..200)) {
        let (mut producer, mut consumer) = ring(capacity);
        let mut shadow = VecDeque::new();
        for (n, push) in pushes.into_iter().enumerate() {
            if push {
                let full = shadow.len() == producer.capacity();
                prop_assert_eq!(producer.push(Box::new(n)), if full { Err(Box::new(n)) } else { Ok(()) });
                if !full {
                    shadow.push_back(n);
                }
            } else {
                prop_assert_eq!(consumer.pop().map(|n| *n), shadow.pop_front());
            }
            prop_assert_eq!(producer.free(usize::MAX), producer.capacity() - shadow.len());
        }
    }
}

#[test]
fn a_lane_refuses_rather_than_wait_and_keeps_a_reserve() {
    let mut pool = BufferPool::new(3, 8);
    pool.fill();
    let (mut sender, mut receiver) = lane::<u32>(4, 3);
    assert_eq!(sender.send(&mut pool, 0, &[0; 9], 0), Err(Refused::TooLong));
    assert_eq!(pool.available(), 3, "a refused payload costs no buffer");
    for n in 0..3 {
        assert_eq!(sender.send(&mut pool, n, &[n as u8; 8], 1), Ok(()));
    }
    assert_eq!(sender.send(&mut pool, 3, &[1], 0), Err(Refused::NoBuffer));
    assert_eq!(
        sender.send(&mut pool, 3, &[], 1),
        Err(Refused::Full),
        "the reserve is kept"
    );
    assert_eq!(
        sender.send(&mut pool, 3, &[], 0),
        Ok(()),
        "and given to who may have it"
    );
    assert_eq!(sender.send(&mut pool, 4, &[], 0), Err(Refused::Full));
    for n in 0..4u32 {
        let payload = if n < 3 { vec![n as u8; 8] } else { Vec::new() };
        assert!(receiver.receive(|message, bytes| assert_eq!((message, bytes), (n, &payload[..]))));
    }
    assert!(!receiver.receive(|_, _| unreachable!()));
    assert_eq!(
        sender.send(&mut pool, 5, &[1], 0),
        Ok(()),
        "a buffer came back when one was needed"
    );
}

/// Two threads and a million messages: each arrives once, in order, as it was sent.
#[test]
fn a_lane_between_threads_neither_loses_nor_repeats() {
    const MESSAGES: u32 = 1_000_000;
    let mut pool = BufferPool::new(64, 16);
    pool.fill();
    let (mut sender, mut receiver) = lane::<u32>(128, 64);
    let reader = std::thread::spawn(move || {
        let mut next = 0;
        while next < MESSAGES {
            let got = receiver.receive(|message, payload| {
                assert_eq!(message, next);
                assert!(payload.iter().all(|b| *b == message as u8));
                assert_eq!(payload.len(), message as usize % 17);
                next += 1;
            });
            if !got {
                std::thread::yield_now();
            }
        }
    });
    for n in 0..MESSAGES {
        let payload = [n as u8; 16];
        while sender
            .send(&mut pool, n, &payload[..n as usize % 17], 0)
            .is_err()
        {
            std::thread::yield_now();
        }
    }
    reader.join().unwrap();
    sender.reclaim(&mut pool);
    assert_eq!(pool.available(), 64);
}
