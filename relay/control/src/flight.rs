//! What the flight recorders of the shards hold, for operators: the slowest packets of the last
//! minute, where their time went, and percentiles of every stage since start.
//!
//! Rooms and tracks are told by their pseudonyms, as in the log; there are no addresses.

use crate::rooms::Rooms;
use sealcast_model::flight::FLIGHT_SECONDS;
use sealcast_model::{FlightRecord, ShardId, ShardStats, Snapshot, Source, Stage, Time};
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Reads the flight recorders of a relay's shards.
pub struct FlightReader {
    shards: Vec<(ShardId, Arc<ShardStats>)>,
    now: Box<dyn Fn() -> Time + Send + Sync>,
}

/// What is known at one moment.
#[derive(Debug, Serialize)]
pub struct FlightReport {
    window_seconds: usize,
    shards: Vec<ShardReport>,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    shard: u16,
    /// Since start, by source.
    dwell: Vec<SourceReport>,
    slowest: Vec<Slow>,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    source: &'static str,
    stages: Vec<StageReport>,
}

#[derive(Debug, Serialize)]
struct StageReport {
    stage: &'static str,
    packets: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

/// Packets of one track that arrived together and left by one call.
#[derive(Debug, Serialize)]
struct Slow {
    ago_seconds: f64,
    /// Absent when the room has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    track: String,
    source: &'static str,
    transport: &'static str,
    packets: u32,
    bytes: u16,
    total_us: f64,
    /// In the socket's buffer; `wake_up_us` of it until the shard's sleeping thread ran.
    kernel_queue_us: f64,
    wake_up_us: f64,
    relay_us: f64,
    /// In the send call.
    send_us: f64,
    /// Of the batch: position of the run, runs, datagrams.
    batch: [u32; 3],
}

impl FlightReader {
    /// Reads the recorders of `shards`, whose clock is `now`.
    #[must_use]
    pub fn new(
        shards: Vec<(ShardId, Arc<ShardStats>)>,
        now: impl Fn() -> Time + Send + Sync + 'static,
    ) -> Self {
        FlightReader {
            shards,
            now: Box::new(now),
        }
    }

    /// What they hold now.
    #[must_use]
    pub fn report(&self, rooms: &Rooms) -> FlightReport {
        let now = (self.now)();
        let shards = self.shards.iter().map(|(id, stats)| ShardReport {
            shard: id.0,
            dwell: Source::ALL
                .into_iter()
                .filter_map(|source| source_report(stats, source))
                .collect(),
            slowest: stats
                .flight
                .slowest(now)
                .iter()
                .map(|record| Slow::new(record, now, rooms))
                .collect(),
        });
        FlightReport {
            window_seconds: FLIGHT_SECONDS,
            shards: shards.collect(),
        }
    }
}

/// `None` if the shard has forwarded nothing of the source.
fn source_report(stats: &ShardStats, source: Source) -> Option<SourceReport> {
    let media = stats.media(source);
    let whole = media.dwell.snapshot();
    if whole.count() == 0 {
        return None;
    }
    let mut stages = vec![stage_report("dwell", &whole)];
    stages.extend(Stage::ALL.map(|s| stage_report(s.as_str(), &media.stage(s).snapshot())));
    Some(SourceReport {
        source: source.as_str(),
        stages,
    })
}

fn stage_report(stage: &'static str, of: &Snapshot) -> StageReport {
    let at = |q| micros(of.quantile(q));
    StageReport {
        stage,
        packets: of.count(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: micros(of.max()),
    }
}

impl Slow {
    fn new(record: &FlightRecord, now: Time, rooms: &Rooms) -> Slow {
        Slow {
            ago_seconds: (now - record.done).as_millis() as f64 / 1e3,
            room: rooms.room_of(record.track).map(|room| room.to_string()),
            track: record.track.to_string(),
            source: record.source.as_str(),
            transport: if record.tcp { "tcp" } else { "udp" },
            packets: record.packets,
            bytes: record.size,
            total_us: micros(record.total()),
            kernel_queue_us: micros(record.read - record.received),
            wake_up_us: micros(record.wake_up()),
            relay_us: micros(record.started - record.read),
            send_us: micros(record.done - record.started),
            batch: [record.position.into(), record.runs.into(), record.datagrams],
        }
    }
}

impl FlightReport {
    /// A page for people. It needs nothing from anywhere else.
    #[must_use]
    pub fn page(&self) -> String {
        let mut out = String::from(HEAD);
        for shard in &self.shards {
            let _ = write!(out, "<h2>Shard {}</h2><table>{DWELL_HEAD}", shard.shard);
            for source in &shard.dwell {
                for s in &source.stages {
                    let _ = write!(
                        out,
                        "<tr><td>{}<td>{}<td>{}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}",
                        source.source,
                        s.stage,
                        s.packets,
                        s.p50_us,
                        s.p90_us,
                        s.p99_us,
                        s.p999_us,
                        s.max_us
                    );
                }
            }
            let _ = write!(out, "</table><table>{SLOW_HEAD}");
            for s in &shard.slowest {
                let _ = write!(
                    out,
                    "<tr><td>{:.1}<td>{}<td>{}<td>{}<td>{}<td>{} × {}<td>{:.1}<td>{:.1}<td>{:.1}\
                     <td>{:.1}<td>{:.1}<td>{} of {} ({})",
                    s.ago_seconds,
                    s.room.as_deref().unwrap_or("ended"),
                    s.track,
                    s.source,
                    s.transport,
                    s.packets,
                    s.bytes,
                    s.total_us,
                    s.kernel_queue_us,
                    s.wake_up_us,
                    s.relay_us,
                    s.send_us,
                    s.batch[0],
                    s.batch[1],
                    s.batch[2]
                );
            }
            out.push_str("</table>");
        }
        out
    }
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Slowest packets</title>\
<style>body{font:14px/1.4 system-ui;margin:2em}table{border-collapse:collapse;margin:0 0 2em}\
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}\
td{font-variant-numeric:tabular-nums}</style>\
<h1>Slowest packets of the last minute</h1>\
<p>Times in microseconds. Percentiles are since start.";

const DWELL_HEAD: &str = "<tr><th>source<th>stage<th>packets<th>p50<th>p90<th>p99<th>p99.9<th>max";

const SLOW_HEAD: &str = "<tr><th>seconds ago<th>room<th>track<th>source<th>transport\
<th>packets × bytes<th>total<th>kernel queue<th>of it wake-up<th>relay<th>send call\
<th>run of batch (datagrams)";

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}
