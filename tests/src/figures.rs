//! The figures of docs/QUALITY.md: each a case of its own, printed as a row of a table.
//!
//! They follow from their seeds, so whoever prints them again gets the same.

use crate::payload::Format;
use crate::publisher::Picture;
use crate::session::{AUDIO_SLOTS, Profile};
use crate::world::{Work, World};
use sealcast_media::PeerKey;
use sealcast_model::limits::KEYFRAME_REQUEST_INTERVAL;
use sealcast_model::{Counter, Source, Time};
use sealcast_netsim::{LinkConfig, Loss, Rate};
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
    steps()?;
    shared_link()?;
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

fn capped(bits_per_second: u64) -> LinkConfig {
    LinkConfig {
        rate: Some(Rate {
            bits_per_second,
            queue_bytes: (bits_per_second / 8 / 2).max(60_000),
        }),
        ..path(0.0)
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

/// The delay over the path's own below which 95 % of packets stayed.
fn queue_p95(delays: &[(Time, Duration)], from: u64, to: u64) -> Duration {
    let window = Time::from_millis(from * 1_000)..Time::from_millis(to * 1_000);
    let within = delays.iter().filter(|(at, _)| window.contains(at));
    let mut delays: Vec<_> = within.map(|(_, d)| d.saturating_sub(2 * DELAY)).collect();
    delays.sort_unstable();
    let place = delays.len() * 95 / 100;
    delays.get(place).copied().unwrap_or_default()
}

/// Cameras in the case of capacity steps: together they ask for more than the path ever carries,
/// so that what is received shows what it carries.
const CAMERAS: u32 = 4;
const SMALL_SIMULCAST: Picture = Picture {
    bitrates: [60_000, 250_000, 900_000],
    packet_bytes: 1_100,
    format: Format::VP8_L1T2,
};

/// A room of cameras, and nobody who watches yet. Viewers have keys from 101 on.
fn cameras(seed: u64) -> Result<World, String> {
    let mut world = World::new(seed);
    for key in 1..=CAMERAS {
        let back = world.add_down(path(0.0));
        let links = (path(0.0), back);
        let profile = profile(true, 1);
        world.join(key, 1, profile, SMALL_SIMULCAST, Source::Camera, links)?;
    }
    Ok(world)
}

/// A client that sends no video watches all cameras over this link from the relay.
fn viewer(world: &mut World, key: u32, down: usize) -> Result<(), String> {
    let links = (path(0.0), down);
    let profile = profile(false, CAMERAS as u16);
    world.join(key, 1, profile, HD, Source::Camera, links)?;
    if let Some(client) = world.client(key) {
        client.publisher.video = false;
    }
    for (slot, camera) in (0..).zip(1..=CAMERAS) {
        world.show(key, false, slot, Some(camera))?;
    }
    world.show(key, true, 0, Some(1))
}

/// What was seen of a viewer's path at a time.
struct Sample {
    at: Time,
    media_bytes: u64,
    estimate: u64,
}

fn sample(world: &mut World, key: u32) -> Sample {
    let estimate = world.engine.path_estimate(PeerKey(key)).unwrap_or(0);
    let at = world.now;
    let client = world.client(key);
    Sample {
        at,
        media_bytes: client.map_or(0, |client| client.subscriber.media_bytes),
        estimate,
    }
}

/// Four simulcast cameras over a path of 3, then 0.5, then 3 Mbit/s, 20 s each.
fn steps() -> Result<(), String> {
    const PHASES: [(u64, u64); 3] = [(3_000_000, 0), (500_000, 20), (3_000_000, 40)];
    let mut world = cameras(1)?;
    let down = world.add_down(capped(PHASES[0].0));
    viewer(&mut world, 101, down)?;
    let mut samples = Vec::new();
    for tenth in 0..600 {
        if let Some((capacity, _)) = PHASES.iter().find(|(_, from)| from * 10 == tenth) {
            world.downs[down].set_config(capped(*capacity));
        }
        world.run(Duration::from_millis(100))?;
        samples.push(sample(&mut world, 101));
    }
    let delays = world
        .client(101)
        .map_or_else(Vec::new, |client| client.subscriber.delays.clone());
    let case = "Four simulcasts of 60, 250 and 900 kbit/s over 3, 0.5 and 3 Mbit/s, 20 s each";
    for ((capacity, from), required) in PHASES.into_iter().zip(["", "3 s", "10 s"]) {
        // The clock starts at one second.
        let (begin, end) = (from + 1, from + 21);
        let name = format!("at {} Mbit/s", capacity as f64 / 1e6);
        let within = |sample: &&Sample| {
            let share = sample.estimate as f64 / capacity as f64;
            (0.85..=1.15).contains(&share)
        };
        let start = Time::from_millis(begin * 1_000);
        let phase = || samples.iter().filter(move |s| s.at > start).take(200);
        let reached = phase().find(within);
        let value = reached.map_or("never".to_owned(), |sample| {
            let seconds = (sample.at - start).as_secs_f64();
            let rest = phase().filter(|s| s.at >= sample.at);
            let (all, good) = (rest.clone().count(), rest.filter(within).count());
            format!(
                "after {seconds:.1} s; then {} % of the time",
                100 * good / all
            )
        });
        let figure = format!("estimate within 15 %, {name}");
        row(case, &figure, &value, required);
        let queue = queue_p95(&delays, begin + 1, end).as_millis();
        let figure = format!("queue delay after the first second, p95, {name}");
        row(case, &figure, &format!("{queue} ms"), "< 300 ms");
    }
    let capacity: u64 = PHASES.iter().map(|(rate, _)| rate * 20 / 8).sum();
    let got = samples.last().map_or(0, |sample| sample.media_bytes);
    let value = format!("{:.1} %", 100.0 * got as f64 / capacity as f64);
    row(case, "goodput of 60 s, of capacity", &value, "≥ 85 %");
    Ok(())
}

/// Two viewers behind one link, the second one ten seconds late.
fn shared_link() -> Result<(), String> {
    const CAPACITY: u64 = 3_000_000;
    let mut world = cameras(2)?;
    let down = world.add_down(capped(CAPACITY));
    viewer(&mut world, 101, down)?;
    world.run(Duration::from_secs(10))?;
    viewer(&mut world, 102, down)?;
    world.run(Duration::from_secs(20))?;
    let before = [sample(&mut world, 101), sample(&mut world, 102)];
    world.run(Duration::from_secs(60))?;
    let after = [sample(&mut world, 101), sample(&mut world, 102)];
    let [a, b] = [0, 1].map(|n| (after[n].media_bytes - before[n].media_bytes) as f64 * 8.0 / 60.0);
    let case = "Two viewers of these cameras behind one link of 3 Mbit/s, 60 s";
    let share = 100.0 * (a - b).abs() / a.max(b);
    let value = format!(
        "{:.0} and {:.0} kbit/s: {share:.0} % apart",
        a / 1_000.0,
        b / 1_000.0
    );
    row(case, "received", &value, "≤ 30 % apart");
    let used = format!("{:.0} %", 100.0 * (a + b) / CAPACITY as f64);
    row(case, "of the link", &used, "");
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
