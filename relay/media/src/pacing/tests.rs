use super::*;
use proptest::prelude::*;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn pacer(rate: u64) -> Pacer<u32> {
    let mut pacer = Pacer::new();
    pacer.set_rate(Time::ZERO, Some(rate));
    pacer
}

/// Sends packets as the engine does: at once if they may, else they wait. Gives those that left.
fn send(pacer: &mut Pacer<u32>, now: Time, sizes: &[u16]) -> usize {
    let mut left = 0;
    for (i, bytes) in sizes.iter().enumerate() {
        if pacer.may_pass(now) {
            pacer.on_sent(now, *bytes);
            left += 1;
        } else {
            let order = |_: &u32| Order::Before;
            pacer.hold(now, *bytes, i as u32, order).expect("room");
        }
    }
    left
}

/// Everything that leaves until `end`, with its time in microseconds.
fn run(pacer: &mut Pacer<u32>, mut now: Time, end: Time, bytes: u16) -> Vec<(u64, Departure<u32>)> {
    let mut left = Vec::new();
    loop {
        while let Some(departure) = pacer.poll(now) {
            let bytes = match departure {
                Departure::Packet(_) => bytes,
                Departure::Padding => PADDING_BYTES,
            };
            pacer.on_sent(now, bytes);
            left.push((now.as_micros(), departure));
        }
        let next = pacer.poll_timeout();
        assert!(next > now, "a pacer that gives nothing has nothing due");
        if next > end {
            return left;
        }
        now = next;
    }
}

#[test]
fn a_frame_with_room_passes() {
    let mut pacer = pacer(2_000_000);
    for frame in 0..30 {
        let now = ms(1_000 + frame * 33);
        assert_eq!(
            send(&mut pacer, now, &[1_200; 6]),
            6,
            "frame {frame}: 1.75 Mbit/s"
        );
    }
}

#[test]
fn without_a_rate_everything_passes() {
    let mut pacer = Pacer::new();
    assert_eq!(send(&mut pacer, ms(5), &[1_200; 1_000]), 1_000);
    // What was sent before there was a rate is no debt.
    pacer.set_rate(ms(6), Some(100_000));
    assert_eq!(send(&mut pacer, ms(6), &[1_200; 2]), 2);
}

#[test]
fn a_rate_that_is_taken_away_lets_everything_go() {
    let mut pacer = pacer(100_000);
    assert!(send(&mut pacer, ms(0), &[1_200; 20]) < 20);
    pacer.set_rate(ms(1), None);
    run(&mut pacer, ms(1), ms(1), 1_200);
    assert!(pacer.is_empty());
}

#[test]
fn a_key_frame_is_spread_at_a_multiple_of_the_rate() {
    let mut pacer = pacer(2_000_000);
    // 72 kB: 288 ms of the estimate. 40 ms of it are 10,000 bytes: nine packets, the last of which
    // exceeds them.
    assert_eq!(send(&mut pacer, ms(0), &[1_200; 60]), 9);
    let left = run(&mut pacer, ms(0), ms(1_000), 1_200);
    assert_eq!(left.len(), 51);
    let last = left.last().expect("sent").0;
    assert!(
        (150_000..175_000).contains(&last),
        "61,200 bytes at 3 Mbit/s take 163 ms, not {last} µs"
    );
    let gaps: Vec<_> = left.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap < 4_000), "{gaps:?}");
}

#[test]
fn what_overtakes_takes_its_part() {
    let mut alone = pacer(500_000);
    send(&mut alone, ms(0), &[1_200; 20]);
    let mut shared = pacer(500_000);
    send(&mut shared, ms(0), &[1_200; 20]);
    // Audio and retransmissions are sent without asking.
    for _ in 0..5 {
        shared.on_sent(ms(0), 1_200);
    }
    let until = ms(100);
    let (alone, shared) = (
        run(&mut alone, ms(0), until, 1_200).len(),
        run(&mut shared, ms(0), until, 1_200).len(),
    );
    assert!(shared + 3 <= alone, "{shared} {alone}");
}

#[test]
fn nothing_waits_longer_than_a_quarter_second() {
    let mut pacer = pacer(100_000);
    send(&mut pacer, ms(0), &[1_200; 200]);
    let left = run(&mut pacer, ms(0), ms(5_000), 1_200);
    assert!(
        left.last().is_some_and(|(at, _)| *at <= 260_000),
        "{:?}",
        left.last()
    );
}

#[test]
fn a_probe_is_filled_with_padding_at_its_rate_and_ends() {
    let mut pacer = pacer(500_000);
    let cluster = ProbeCluster {
        id: ProbeId(7),
        rate: 2_000_000,
        min_packets: 5,
        min_bytes: 10_000,
    };
    pacer.start_probe(ms(200), cluster);
    assert_eq!(pacer.on_sent(ms(200), 1_200), Some(ProbeId(7)), "media");
    let left = run(&mut pacer, ms(200), ms(1_000), 0);
    assert!(left.iter().all(|(_, d)| *d == Departure::Padding));
    let bytes = 1_200 + left.len() as u64 * u64::from(PADDING_BYTES);
    assert!((10_000..10_300).contains(&bytes), "{bytes}");
    let micros = left.last().expect("sent").0 - 200_000;
    let rate = (bytes - u64::from(PADDING_BYTES)) * 8_000_000 / micros;
    assert!((1_950_000..2_050_000).contains(&rate), "{rate}");
    assert_eq!(pacer.poll_timeout(), Time::NEVER);
    assert_eq!(pacer.on_sent(ms(300), 1_200), None, "it is over");
}

#[test]
fn a_full_queue_gives_packets_back_and_retain_takes_them_out() {
    let mut pacer = pacer(1_000);
    let order = |_: &u32| Order::Before;
    for i in 0..PACED_MAX as u32 {
        pacer.hold(ms(0), 10, i, order).expect("room");
    }
    assert_eq!(pacer.hold(ms(0), 10, 9_999, order), Err(QueueFull(9_999)));
    pacer.retain(|packet| packet % 2 == 0);
    assert_eq!(
        (pacer.len(), pacer.queued_bytes()),
        (PACED_MAX / 2, PACED_MAX as u64 * 5)
    );
    assert_eq!(pacer.poll(ms(0)), Some(Departure::Packet(0)));
    assert_eq!(pacer.poll(ms(0)), Some(Departure::Packet(2)));
}

proptest! {
    /// Two streams whose packets come slightly out of order: each leaves once, within the time
    /// allowed, and those of a stream that wait together in the order of their numbers.
    #[test]
    fn every_packet_leaves_once_and_in_order(
        rate in 50_000u64..5_000_000,
        packets in prop::collection::vec((0u64..30_000, 0u32..2, 0u32..4, 40u16..1_300), 1..200),
    ) {
        let mut pacer: Pacer<(u32, u32)> = Pacer::new();
        pacer.set_rate(Time::ZERO, Some(rate));
        let mut now = ms(1);
        let mut left = Vec::new();
        let mut came = Vec::new();
        let depart = |pacer: &mut Pacer<(u32, u32)>, mut now: Time, end: Time, left: &mut Vec<(u64, (u32, u32))>| {
            loop {
                while let Some(departure) = pacer.poll(now) {
                    let Departure::Packet(packet) = departure else { panic!("no probe, no padding") };
                    pacer.on_sent(now, 600);
                    left.push((now.as_micros(), packet));
                }
                let next = pacer.poll_timeout();
                assert!(next > now);
                if next > end { return }
                now = next;
            }
        };
        for (n, (wait, stream, late, bytes)) in packets.iter().enumerate() {
            let until = now + Duration::from_micros(*wait);
            depart(&mut pacer, now, until, &mut left);
            now = until;
            // Up to three places behind where it should have come.
            let packet = (*stream, (n as u32 * 10).saturating_sub(late * 11));
            came.push((now.as_micros(), packet));
            if pacer.may_pass(now) {
                pacer.on_sent(now, *bytes);
                left.push((now.as_micros(), packet));
                continue;
            }
            // The shadow: the place behind all that must go before, found the slow way.
            let waiting: Vec<_> = pacer.waiting().copied().collect();
            let order = |other: &(u32, u32)| match other.0 == packet.0 {
                true if other.1 <= packet.1 => Order::Before,
                true => Order::After,
                false => Order::Free,
            };
            let behind = waiting.iter().rposition(|other| order(other) == Order::Before).map_or(0, |at| at + 1);
            let place = waiting[behind..].iter().position(|other| order(other) == Order::After);
            pacer.hold(now, *bytes, packet, order).expect("room");
            let mut expected = waiting;
            let place = place.map_or(expected.len(), |at| behind + at);
            expected.insert(place, packet);
            prop_assert!(pacer.waiting().eq(expected.iter()));
        }
        depart(&mut pacer, now, now + Duration::from_secs(10), &mut left);
        prop_assert!(pacer.is_empty());
        prop_assert_eq!(pacer.queued_bytes(), 0);
        prop_assert_eq!(left.len(), came.len());
        let mut gone: Vec<_> = left.iter().map(|(_, packet)| *packet).collect();
        let mut expected: Vec<_> = came.iter().map(|(_, packet)| *packet).collect();
        gone.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(gone, expected);
        let last = came.last().expect("some").0;
        prop_assert!(left.iter().all(|(at, _)| *at <= last + 300_000));
    }
}
