//! The figures of docs/QUALITY.md: each a case of its own, printed as a row of a table.
//!
//! They follow from their seeds, so whoever prints them again gets the same.

use crate::bandwidth::{self, capped};
use crate::payload::Format;
use crate::publisher::Picture;
use crate::session::{AUDIO_SLOTS, Profile};
use crate::world::{Work, World};
use sealcast_model::limits::KEYFRAME_REQUEST_INTERVAL;
use sealcast_model::{Counter, Source, Time};
use sealcast_netsim::{LinkConfig, Loss};
use std::collections::BTreeMap;
use std::time::Duration;

/// One way between a client and the relay: 50 ms there and back. With half of it, 50 ms there and
/// back between clients.
const DELAY: Duration = Duration::from_millis(25);
/// A frame is in time if it is whole this long after its capture.
const IN_TIME: Duration = Duration::from_millis(250);

const HD: Picture = Picture {
    bitrates: [1_700_000; 3],
    packet_bytes: 1_100,
    format: Format::VP8,
};
const SIMULCAST: Picture = Picture {
    bitrates: [150_000, 500_000, 1_700_000],
    packet_bytes: 1_100,
    format: Format::VP8,
};

/// Measures and prints all of them.
///
/// # Errors
/// A run that broke an invariant.
pub fn print() -> Result<(), String> {
    println!("| Case | Figure | Value | Required |\n|---|---|---|---|");
    for one_way in [DELAY / 2, DELAY] {
        for (percent, required) in [(2, "≥ 99.99 %"), (10, "≥ 99.9 %")] {
            loss(percent, one_way, required)?;
        }
    }
    storm()?;
    bandwidth()?;
    room()?;
    silence()?;
    neighbours()
}

fn row(case: &str, figure: &str, value: &str, required: &str) {
    println!("| {case} | {figure} | {value} | {required} |");
}

fn path(loss: f64) -> LinkConfig {
    LinkConfig {
        delay: DELAY,
        loss: match loss > 0.0 {
            true => Loss::Uniform { probability: loss },
            false => Loss::None,
        },
        ..LinkConfig::default()
    }
}

fn profile(simulcast: bool, video_slots: u16) -> Profile {
    Profile {
        simulcast,
        controlled: true,
        video_slots,
    }
}

/// A camera, and a client that watches it.
fn call(seed: u64, picture: Picture, up: LinkConfig, down: LinkConfig) -> Result<World, String> {
    let mut world = World::new(seed);
    let simulcast = picture.bitrates[0] != picture.bitrates[2];
    let back = world.add_down(path(0.0));
    let links = (up, back);
    world.join(1, 1, profile(simulcast, 1), picture, Source::Camera, links)?;
    watch(&mut world, 2, 1, down)?;
    // Two who hear each other, so that the relay knows the round trip to both.
    world.show(1, true, 0, Some(2))?;
    world.show(2, true, 0, Some(1))?;
    Ok(world)
}

/// A client that sends no video joins, and watches `whose`.
fn watch(world: &mut World, key: u32, whose: u32, down: LinkConfig) -> Result<(), String> {
    let link = world.add_down(down);
    let up = LinkConfig { rate: None, ..down };
    world.join(key, 1, profile(false, 1), HD, Source::Camera, (up, link))?;
    if let Some(client) = world.client(key) {
        client.publisher.video = false;
    }
    world.show(key, false, 0, Some(whose))
}

/// Of the frames that `from` captured between two seconds: how many there were, and how many
/// reached `to` in time.
fn in_time(world: &mut World, from: u32, to: u32, seconds: (u64, u64)) -> (usize, usize) {
    let window = Time::from_millis(seconds.0 * 1_000)..Time::from_millis(seconds.1 * 1_000);
    let frames: Vec<_> = world.client(from).map_or_else(Vec::new, |client| {
        let frames = client.publisher.frames.iter();
        frames.filter(|f| window.contains(&f.2)).copied().collect()
    });
    let shown: BTreeMap<_, _> = world.client(to).map_or_else(BTreeMap::new, |client| {
        let whole = client.subscriber.whole.iter();
        whole
            .filter(|whole| whole.tag.publisher == from)
            .map(|shown| ((shown.tag.encoding, shown.tag.frame), shown.at))
            .collect()
    });
    let good = frames.iter().filter(|(encoding, frame, captured)| {
        let at = shown.get(&(*encoding, *frame));
        at.is_some_and(|at| *at - *captured <= IN_TIME)
    });
    (frames.len(), good.count())
}

fn loss(percent: u32, one_way: Duration, required: &str) -> Result<(), String> {
    let lost = f64::from(percent) / 100.0;
    let (mut all, mut good, mut repairs, mut packets, mut plis) = (0, 0, 0, 0, 0);
    for seed in 0..10 {
        let lossy = LinkConfig {
            delay: one_way,
            ..path(lost)
        };
        let mut world = call(seed, HD, lossy, lossy)?;
        world.run(Duration::from_secs(61))?;
        let (frames, in_time) = in_time(&mut world, 1, 2, (1, 61));
        (all, good) = (all + frames, good + in_time);
        repairs += world.stats.get(Counter::RetransmitSent);
        let camera = world.client(1).map_or(0, |c| c.publisher.sent);
        packets += camera;
        plis += world
            .client(1)
            .map_or(0, |c| c.publisher.key_requests.len());
    }
    let rtt = 2 * one_way;
    let case = format!(
        "{percent} % loss up and down, {} ms RTT to the relay on each side, 720p30, 10 × 60 s",
        rtt.as_millis()
    );
    let share = 100.0 * good as f64 / all as f64;
    let figure = "frames whole within 250 ms of capture";
    row(&case, figure, &format!("{share:.3} % of {all}"), required);
    let overhead = repairs as f64 / packets as f64 / lost;
    let figure = "retransmissions to the subscriber";
    let value = format!("{overhead:.2} × loss");
    row(&case, figure, &value, "≤ 1.3 × loss");
    row(
        &case,
        "key frames asked of the publisher",
        &format!("{plis}"),
        "",
    );
    Ok(())
}

/// Five receivers ask for key frames as fast as they can.
fn storm() -> Result<(), String> {
    let mut world = call(1, HD, path(0.02), path(0.02))?;
    for key in 3..=6 {
        watch(&mut world, key, 1, path(0.02))?;
    }
    for client in &mut world.clients {
        client.subscriber.nagging = true;
    }
    world.run(Duration::from_secs(30))?;
    let asked: u64 = world.clients.iter().map(|c| c.subscriber.plis).sum();
    let upstream = world.client(1).map_or_else(Vec::new, |client| {
        let requests = client.publisher.key_requests.iter();
        requests.map(|(at, _)| *at).collect()
    });
    let closest = upstream.windows(2).map(|pair| pair[1] - pair[0]).min();
    let case = format!("5 receivers send {asked} PLIs in 30 s");
    let value = format!(
        "{}, none closer than {} ms",
        upstream.len(),
        closest.unwrap_or_default().as_millis()
    );
    let required = format!("1 in {} ms", KEYFRAME_REQUEST_INTERVAL.as_millis());
    row(&case, "PLIs to the publisher", &value, &required);
    Ok(())
}

/// Seeds of the bandwidth cases: none of those on which anything was tuned (0 to 19).
const SEEDS: std::ops::Range<u64> = 100..120;

/// Prints the cases in which a path is too narrow.
///
/// # Errors
/// A run that broke an invariant.
pub fn bandwidth() -> Result<(), String> {
    for (picture, layers) in [
        (bandwidth::TEMPORAL, "two temporal layers"),
        (bandwidth::PLAIN, "one temporal layer"),
    ] {
        let cameras = format!("Four simulcasts of 60, 250 and 900 kbit/s, {layers} each");
        steps(picture, &cameras)?;
        shared_link(picture, &cameras)?;
    }
    Ok(())
}

/// Median and worst of a figure of all seeds; `worst` says which of two is worse.
fn spread(mut of: Vec<f64>, worst: fn(f64, f64) -> f64, unit: &str, decimals: usize) -> String {
    of.sort_by(f64::total_cmp);
    let median = of.get(of.len() / 2).copied().unwrap_or(f64::NAN);
    let worst = of.into_iter().reduce(worst).unwrap_or(f64::NAN);
    format!("{median:.decimals$} {unit}, worst {worst:.decimals$} {unit}")
}

fn steps(picture: Picture, cameras: &str) -> Result<(), String> {
    let runs: Vec<_> = SEEDS
        .map(|seed| bandwidth::steps(seed, picture))
        .collect::<Result<_, _>>()?;
    let case = format!("{cameras}, over 3, 0.5 and 3 Mbit/s, 20 s each");
    let phases = bandwidth::PHASES.iter().enumerate();
    for ((at, (capacity, _)), required) in phases.zip(["", "3 s", "10 s"]) {
        let name = format!("at {} Mbit/s", *capacity as f64 / 1e6);
        let of = |figure: fn(&bandwidth::Phase) -> f64| -> Vec<f64> {
            runs.iter().map(|run| figure(&run.phases[at])).collect()
        };
        let settled = |phase: &bandwidth::Phase| {
            let settled = phase.settled;
            settled.map_or(f64::INFINITY, |after| after.as_secs_f64())
        };
        let value = spread(of(settled), f64::max, "s", 1);
        row(
            &case,
            &format!("estimate within 15 %, {name}: after"),
            &value,
            required,
        );
        let value = spread(
            of(|phase| 100.0 * phase.within),
            f64::min,
            "% of the time",
            0,
        );
        row(&case, &format!("... and from then on, {name}"), &value, "");
        let queue = |phase: &bandwidth::Phase| phase.queue_p95.as_secs_f64() * 1e3;
        let value = spread(of(queue), f64::max, "ms", 0);
        let figure = format!("queue delay after the first second, p95, {name}");
        row(&case, &figure, &value, "< 300 ms");
    }
    let goodput: Vec<f64> = runs.iter().map(|run| 100.0 * run.goodput).collect();
    let value = spread(goodput, f64::min, "%", 1);
    row(&case, "goodput of 60 s, of capacity", &value, "≥ 85 %");
    let best = 100.0 * bandwidth::best_goodput(picture)?;
    let figure = "the most that layers fill of it, without a moment's loss";
    row(&case, figure, &format!("{best:.1} %"), "");
    Ok(())
}

/// Two viewers behind one link, the second one ten seconds late.
fn shared_link(picture: Picture, cameras: &str) -> Result<(), String> {
    let runs: Vec<_> = SEEDS
        .map(|seed| bandwidth::shared(seed, picture))
        .collect::<Result<_, _>>()?;
    let case = format!("{cameras}, two viewers behind one link of 3 Mbit/s, 60 s");
    let apart = runs.iter().map(|run| 100.0 * run.apart()).collect();
    let value = spread(apart, f64::max, "% apart", 0);
    row(&case, "received", &value, "≤ 30 % apart");
    let used = runs.iter().map(|run| 100.0 * run.used()).collect();
    row(&case, "of the link", &spread(used, f64::min, "%", 0), "");
    Ok(())
}

/// A room of 50 in which nobody says or shows anything: microphones with DTX, cameras off.
fn silence() -> Result<(), String> {
    let mut world = World::new(50);
    for key in 1..=50 {
        let down = world.add_down(path(0.0));
        let links = (path(0.0), down);
        world.join(key, 1, profile(false, 9), HD, Source::Camera, links)?;
    }
    for key in 1..=50u32 {
        let others = (1..50).map(|n| (key + n - 1) % 50 + 1);
        for (slot, whose) in (0..9).zip(others.clone()) {
            world.show(key, false, slot, Some(whose))?;
        }
        for (slot, whose) in (0..AUDIO_SLOTS).zip(others) {
            world.show(key, true, slot, Some(whose))?;
        }
        if let Some(client) = world.client(key) {
            client.publisher.video = false;
            client.publisher.silent = true;
        }
    }
    world.run(Duration::from_secs(5))?;
    world.work = Work::default();
    world.run(Duration::from_secs(60))?;
    let Work { time, wake_ups } = world.work;
    let case = "A room of 50, nobody speaks (DTX) and no camera is on";
    let share = format!("{:.2} % of a core", 100.0 * time.as_secs_f64() / 60.0);
    row(
        case,
        "engine, on the machine that printed this",
        &share,
        "< 1 %",
    );
    let value = format!("{} a second", wake_ups / 60);
    row(case, "timer wake-ups", &value, "");
    Ok(())
}

/// Rooms of several sizes whose clients show nine pictures each.
fn room() -> Result<(), String> {
    for size in [10, 25, 50] {
        let mut world = World::new(size.into());
        let small = Picture {
            bitrates: [200_000; 3],
            ..HD
        };
        for key in 1..=size {
            let down = world.add_down(path(0.0));
            let links = (path(0.0), down);
            world.join(key, 1, profile(false, 9), small, Source::Camera, links)?;
        }
        for key in 1..=size {
            let others = (1..size).map(|n| (key + n - 1) % size + 1);
            for (slot, whose) in (0..9).zip(others.clone()) {
                world.show(key, false, slot, Some(whose))?;
            }
            for (slot, whose) in (0..AUDIO_SLOTS).zip(others) {
                world.show(key, true, slot, Some(whose))?;
            }
        }
        world.run(Duration::from_secs(4))?;
        let before: u64 = world.checker.bytes.values().sum();
        world.run(Duration::from_secs(2))?;
        let sent = world.checker.bytes.values().sum::<u64>() - before;
        let kbits = sent as f64 * 8.0 / 2.0 / 1_000.0 / f64::from(size);
        let case = format!("Room of {size}, 9 pictures of 200 kbit/s each");
        row(
            &case,
            "sent to each client",
            &format!("{kbits:.0} kbit/s"),
            "follows slots",
        );
    }
    Ok(())
}

/// Somebody's bad path is nobody else's.
fn neighbours() -> Result<(), String> {
    let mut world = call(7, SIMULCAST, path(0.0), capped(400_000))?;
    watch(&mut world, 3, 1, path(0.0))?;
    world.run(Duration::from_secs(30))?;
    let best = |world: &mut World, key| {
        let newest = world
            .client(key)
            .and_then(|client| client.subscriber.shown.last().copied());
        newest.map_or("nothing".to_owned(), |s| {
            format!("encoding {}", s.tag.encoding)
        })
    };
    let case = "A simulcast to one subscriber at 0.4 Mbit/s and one on a good path";
    let value = format!("{} and {}", best(&mut world, 2), best(&mut world, 3));
    row(case, "shown", &value, "the largest, 2, on the good path");

    let mut world = call(8, HD, path(0.2), path(0.0))?;
    let down = world.add_down(path(0.0));
    let links = (path(0.0), down);
    world.join(4, 1, profile(false, 1), HD, Source::Camera, links)?;
    watch(&mut world, 5, 4, path(0.0))?;
    world.run(Duration::from_secs(30))?;
    let (all, good) = in_time(&mut world, 4, 5, (3, 30));
    let case = "Another publisher in the room loses 20 % on its way";
    let value = format!("{:.3} % of {all}", 100.0 * good as f64 / all as f64);
    row(
        case,
        "frames in time of those with good paths",
        &value,
        "100 %",
    );
    Ok(())
}
