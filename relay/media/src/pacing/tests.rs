use super::*;
use proptest::prelude::*;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn queue(pacer: &mut Pacer<u32>, now: Time, class: Class, sizes: &[u16]) {
    for (i, bytes) in sizes.iter().enumerate() {
        pacer.enqueue(now, class, *bytes, i as u32).expect("room");
    }
}

/// Everything that leaves until `end`, with its time in microseconds.
fn run(pacer: &mut Pacer<u32>, mut now: Time, end: Time) -> Vec<(u64, Departure<u32>)> {
    let mut left = Vec::new();
    loop {
        while let Some(departure) = pacer.poll(now) {
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
fn a_frame_with_room_leaves_at_once() {
    let mut pacer = Pacer::new(2_000_000);
    for frame in 0..30 {
        let now = ms(1_000 + frame * 33);
        queue(&mut pacer, now, Class::Video, &[1_200; 6]); // 1.75 Mbit/s
        let left = run(&mut pacer, now, now);
        assert_eq!(left.len(), 6, "frame {frame}");
    }
}

#[test]
fn a_key_frame_is_spread_at_a_multiple_of_the_rate() {
    let mut pacer = Pacer::new(2_000_000);
    queue(&mut pacer, ms(0), Class::Video, &[1_200; 60]); // 72 kB: 288 ms of the estimate
    let left = run(&mut pacer, ms(0), ms(1_000));
    assert_eq!(left.len(), 60);
    let at_once = left.iter().filter(|(at, _)| *at == 0).count();
    // 40 ms of 2 Mbit/s are 10,000 bytes: nine packets, the last of which exceeds them.
    assert_eq!(at_once, 9);
    let last = left.last().expect("sent").0;
    assert!(
        (80_000..110_000).contains(&last),
        "61,200 bytes at 5 Mbit/s take 98 ms, not {last} µs"
    );
    let gaps: Vec<_> = left.windows(2).skip(8).map(|w| w[1].0 - w[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap < 3_000), "{gaps:?}");
}

#[test]
fn audio_overtakes_and_retransmissions_go_before_video() {
    let mut pacer = Pacer::new(500_000);
    queue(&mut pacer, ms(0), Class::Video, &[1_200; 20]);
    run(&mut pacer, ms(0), ms(0));
    pacer
        .enqueue(ms(1), Class::Retransmission, 1_200, 100)
        .expect("room");
    pacer.enqueue(ms(1), Class::Audio, 100, 200).expect("room");
    let left = run(&mut pacer, ms(1), ms(2_000));
    assert_eq!(
        left[0],
        (
            1_000,
            Departure::Packet {
                packet: 200,
                probe: None
            }
        )
    );
    assert!(matches!(
        left[1],
        (_, Departure::Packet { packet: 100, .. })
    ));
}

#[test]
fn nothing_waits_longer_than_a_quarter_second() {
    let mut pacer = Pacer::new(100_000);
    queue(&mut pacer, ms(0), Class::Video, &[1_200; 200]);
    let left = run(&mut pacer, ms(0), ms(5_000));
    assert_eq!(left.len(), 200);
    assert!(
        left.last().is_some_and(|(at, _)| *at <= 260_000),
        "{:?}",
        left.last()
    );
}

#[test]
fn a_probe_is_filled_with_padding_at_its_rate_and_ends() {
    let mut pacer: Pacer<u32> = Pacer::new(500_000);
    let cluster = ProbeCluster {
        id: ProbeId(7),
        rate: 2_000_000,
        min_packets: 5,
        min_bytes: 10_000,
    };
    // Without media there is no stream to pad.
    pacer.start_probe(ms(0), cluster);
    assert_eq!(run(&mut pacer, ms(0), ms(100)), []);
    queue(&mut pacer, ms(200), Class::Video, &[1_200; 2]);
    pacer.start_probe(ms(200), cluster);
    let left = run(&mut pacer, ms(200), ms(1_000));
    let probe = Some(ProbeId(7));
    assert_eq!(left[0].1, Departure::Packet { packet: 0, probe });
    assert_eq!(left[1].1, Departure::Packet { packet: 1, probe });
    let padding = left
        .iter()
        .filter(|(_, d)| *d == Departure::Padding { probe: ProbeId(7) })
        .count();
    assert_eq!(padding, left.len() - 2);
    let bytes = 2 * 1_200 + padding as u64 * u64::from(PADDING_BYTES);
    assert!((10_000..10_300).contains(&bytes), "{bytes}");
    let micros = left.last().expect("sent").0 - 200_000;
    let rate = (bytes - u64::from(PADDING_BYTES)) * 8_000_000 / micros;
    assert!((1_950_000..2_050_000).contains(&rate), "{rate}");
    assert_eq!(pacer.poll_timeout(), Time::NEVER);
}

#[test]
fn a_full_queue_gives_packets_back_and_retain_takes_them_out() {
    let mut pacer = Pacer::new(1_000);
    for i in 0..MAX_QUEUED as u32 {
        pacer.enqueue(ms(0), Class::Video, 10, i).expect("room");
    }
    assert_eq!(
        pacer.enqueue(ms(0), Class::Audio, 10, 9_999),
        Err(QueueFull(9_999))
    );
    let mut dropped = Vec::new();
    pacer.retain(|packet| packet % 2 == 0, |packet| dropped.push(packet));
    assert_eq!(
        (dropped.len(), pacer.len(), pacer.queued_bytes()),
        (MAX_QUEUED / 2, MAX_QUEUED / 2, 10_240)
    );
    assert_eq!(
        pacer.poll(ms(0)),
        Some(Departure::Packet {
            packet: 0,
            probe: None
        })
    );
    assert_eq!(
        pacer.poll(ms(0)),
        Some(Departure::Packet {
            packet: 2,
            probe: None
        })
    );
}

proptest! {
    #[test]
    fn every_packet_leaves_once_in_the_order_of_its_class(
        rate in 50_000u64..5_000_000,
        packets in prop::collection::vec((0u64..30_000, 0usize..3, 40u16..1_300), 1..200),
    ) {
        let classes = [Class::Audio, Class::Retransmission, Class::Video];
        let mut pacer = Pacer::new(rate);
        let mut now = ms(1);
        let mut left = Vec::new();
        let mut queued = [Vec::new(), Vec::new(), Vec::new()];
        for (id, (wait, class, bytes)) in packets.iter().enumerate() {
            let until = now + Duration::from_micros(*wait);
            left.extend(run(&mut pacer, now, until));
            now = until;
            pacer.enqueue(now, classes[*class], *bytes, id as u32).expect("room");
            queued[*class].push((id as u32, now.as_micros()));
        }
        left.extend(run(&mut pacer, now, now + Duration::from_secs(10)));
        prop_assert!(pacer.is_empty());
        prop_assert_eq!(pacer.queued_bytes(), 0);
        prop_assert_eq!(left.len(), packets.len());
        for (class, queued) in queued.iter().enumerate() {
            let of_class: Vec<_> = left.iter().filter_map(|(at, departure)| match departure {
                Departure::Packet { packet, .. } if packets[*packet as usize].1 == class => Some((*packet, *at)),
                _ => None,
            }).collect();
            prop_assert!(of_class.iter().map(|d| d.0).eq(queued.iter().map(|q| q.0)), "order within a class");
            for ((_, at), (_, since)) in of_class.iter().zip(queued) {
                prop_assert!(at >= since && at - since <= 300_000, "waited {} µs", at - since);
                prop_assert!(class != 0 || at == since, "audio waited");
            }
        }
    }
}
