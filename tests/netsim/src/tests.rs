use super::*;
use proptest::prelude::*;

fn drain(link: &mut Link<u32>) -> Vec<(Time, u32)> {
    let mut out = Vec::new();
    while link.poll_timeout() < Time::NEVER {
        let now = link.poll_timeout();
        out.extend(link.pop(now).map(|p| (now, p)));
    }
    out
}

fn every_ms(link: &mut Link<u32>, n: u32, bytes: usize) {
    (0..n).for_each(|i| link.push(Time::from_millis(u64::from(i)), i, bytes));
}

#[test]
fn a_clean_link_is_transparent() {
    let mut link = Link::new(LinkConfig::default(), 1);
    every_ms(&mut link, 10, 1_000);
    let got = drain(&mut link);
    assert_eq!(
        got,
        (0..10)
            .map(|i| (Time::from_millis(u64::from(i)), i))
            .collect::<Vec<_>>()
    );
}

#[test]
fn delay_and_rate_add_up() {
    let rate = Some(Rate {
        bits_per_second: 8_000,
        queue_bytes: 10_000,
    });
    let config = LinkConfig {
        delay: Duration::from_millis(50),
        rate,
        ..Default::default()
    };
    let mut link = Link::new(config, 1);
    link.push(Time::ZERO, 0, 100); // 100 ms on the wire
    link.push(Time::ZERO, 1, 100);
    assert_eq!(
        drain(&mut link),
        [(Time::from_millis(150), 0), (Time::from_millis(250), 1)]
    );
}

#[test]
fn a_full_queue_drops_the_tail() {
    let rate = Some(Rate {
        bits_per_second: 8_000,
        queue_bytes: 250,
    });
    let mut link = Link::new(
        LinkConfig {
            rate,
            ..Default::default()
        },
        1,
    );
    (0..5).for_each(|i| link.push(Time::ZERO, i, 100));
    assert_eq!(link.stats().overflowed, 3);
    assert_eq!(drain(&mut link).len(), 2);
}

#[test]
fn loss_models_lose_what_they_say() {
    for (loss, expected) in [
        (Loss::Uniform { probability: 0.1 }, 0.1),
        // Stationary share of the bad state: 0.02 / (0.02 + 0.18) = 0.1; half is lost there.
        (
            Loss::Burst {
                enter: 0.02,
                leave: 0.18,
                inside: 0.5,
                outside: 0.0,
            },
            0.05,
        ),
    ] {
        let mut link = Link::new(
            LinkConfig {
                loss,
                ..Default::default()
            },
            7,
        );
        for i in 0..100_000 {
            link.push(Time::ZERO, i, 100);
            link.pop(Time::ZERO);
        }
        let share = link.stats().lost as f64 / 100_000.0;
        assert!((share - expected).abs() < 0.005, "{loss:?}: {share}");
    }
}

#[test]
fn ranges_are_checked() {
    assert!(LinkConfig::default().check().is_ok());
    let bad = LinkConfig {
        duplicate: 1.5,
        ..Default::default()
    };
    assert_eq!(bad.check(), Err(ConfigError("duplicate")));
}

proptest! {
    /// Same seed, same trace; nothing lost without being counted; jitter never reorders.
    #[test]
    fn deterministic_and_accounted(
        seed: u64, loss in 0.0..0.5f64, duplicate in 0.0..0.3f64, reorder in 0.0..0.3f64,
        jitter in 0u64..40, n in 1u32..300,
    ) {
        let config = LinkConfig {
            loss: Loss::Uniform { probability: loss },
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(jitter),
            duplicate, reorder, rate: None,
        };
        let run = |config| {
            let mut link = Link::new(config, seed);
            every_ms(&mut link, n, 500);
            let stats = link.stats();
            (drain(&mut link), stats)
        };
        let (trace, stats) = run(config);
        prop_assert_eq!(&(trace.clone(), stats), &run(config));
        prop_assert_eq!(stats.offered, stats.accepted - stats.duplicated + stats.lost + stats.overflowed);
        prop_assert_eq!(trace.len() as u64, stats.accepted);
        let (ordered, _) = run(LinkConfig { reorder: 0.0, ..config });
        prop_assert!(ordered.windows(2).all(|w| w[0].1 <= w[1].1));
    }
}
