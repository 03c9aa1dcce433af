//! The terminal: a line of progress for each window, and a summary.

use crate::result::{Counter, Figures, Hist, Outcome, Phase, RunResult, Unit, Window};
use crate::run::Progress;
use std::fmt::Write as _;
use std::time::Duration;

/// One line about a window.
#[must_use]
pub fn progress(progress: &Progress<'_>) -> String {
    let w = progress.window;
    let seconds = w.length().as_secs_f64().max(0.001);
    let rate = |c| Unit::BitsPerSecond.format(w.count(c) as f64 * 8.0 / seconds);
    let phase = match w.phase {
        Phase::Start => "start  ",
        Phase::Measure => "measure",
        Phase::Drain => "drain  ",
    };
    let latency = quantile(w, &[Hist::AudioFrame, Hist::VideoFrame]);
    let lag = quantile(w, &[Hist::SendLag, Hist::ReceiveLag]);
    let lost = w.count(Counter::PacketsLost);
    let total = lost + w.count(Counter::PacketsReceived) + w.count(Counter::Repaired);
    let freezes = w.hists.get(&Hist::Freeze).map_or(0, |f| f.count());
    let cores = w.count(Counter::CpuMicros) as f64 * 1e-6 / seconds;
    let mut line = format!(
        "{:>5.0}/{:.0} s  {phase}  {}/{} clients  in {}  out {}  frames p99 {latency}  loss {:.2} %  \
         freezes {freezes}  lag p99 {lag}  cpu {cores:.2}",
        (w.start_ms + w.length_ms) as f64 / 1_000.0,
        progress.end_ms as f64 / 1_000.0,
        w.connected,
        progress.clients,
        rate(Counter::OctetsReceived),
        rate(Counter::OctetsSent),
        lost as f64 * 100.0 / total.max(1) as f64,
    );
    for (counter, name) in [
        (Counter::JoinFailed, "failed joins"),
        (Counter::SealFailures, "seal failures"),
        (Counter::Misrouted, "misrouted"),
        (Counter::SrtpFailures, "bad packets"),
        (Counter::SilentSlots, "silent slots"),
    ] {
        let n = w.count(counter);
        if n > 0 {
            // Writing to a String cannot fail.
            let _ = write!(line, "  {name} {n}");
        }
    }
    line
}

fn quantile(w: &Window, hists: &[Hist]) -> String {
    let parts = hists.iter().filter_map(|h| w.hists.get(h));
    let merged = crate::result::Latencies::merged(parts);
    merged.quantile(0.99).map_or("–".to_owned(), time)
}

fn time(d: Duration) -> String {
    Unit::Seconds.format(d.as_secs_f64())
}

/// Figures that every summary shows, by group.
pub const SUMMARY: &[(&str, &[&str])] = &[
    (
        "Joins",
        &["joins", "join_failures", "sessions_lost", "connected"],
    ),
    (
        "Media",
        &[
            "bitrate_out",
            "bitrate_in",
            "packet_rate_in",
            "delivery",
            "loss",
            "network_loss",
            "packets_repaired",
            "nacks",
            "plis",
            "layer_changes",
            "pauses",
        ],
    ),
    (
        "Repair and layers of senders",
        &[
            "retransmitted",
            "key_requests",
            "key_frames_sent",
            "encoding_switches",
        ],
    ),
    (
        "What people see and hear",
        &[
            "freezes",
            "freeze_time",
            "freeze_longest",
            "freeze_share",
            "pause_share",
            "audio.concealed",
            "mos",
        ],
    ),
    (
        "Correctness",
        &[
            "seal_failures",
            "content_failures",
            "frames_repeated",
            "misrouted",
            "silent_slots",
            "srtp_failures",
            "packets_unparsable",
        ],
    ),
    (
        "Group keys",
        &[
            "group.epochs",
            "frames_without_key",
            "group.resets",
            "group.refused",
            "group.errors",
            "messages_opened",
            "messages_unopened",
        ],
    ),
    (
        "Pointers",
        &["pointer.delivery", "pointer.received", "pointer.unsent"],
    ),
    (
        "Relay",
        &[
            "relay.dwell.p50",
            "relay.dwell.p99",
            "relay.dwell.mean",
            "relay.drops",
            "relay.cpu",
        ],
    ),
    (
        "Generator",
        &[
            "generator.lag.p99",
            "generator.lag.max",
            "generator.socket_drops",
            "generator.cpu",
            "generator.cpu_per_packet",
        ],
    ),
];

/// Distributions that every summary shows.
pub const DISTRIBUTIONS: &[&str] = &[
    "join.http",
    "join.ice",
    "join.dtls",
    "join.first_packet",
    "join.first_frame",
    "join.keys",
    "join.total",
    "audio.packet_latency",
    "audio.frame_latency",
    "video.packet_latency",
    "video.frame_latency",
    "slot_change",
    "pointer.latency",
    "group.rekey",
];

/// Statistics of a distribution in tables.
pub const STATISTICS: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// A figure for people; a dash if nothing was measured.
#[must_use]
pub fn figure(figures: &Figures, name: &str) -> String {
    let figure = figures.get(name).ok().flatten();
    figure.map_or("–".to_owned(), |f| f.unit.format(f.value))
}

/// The whole run.
#[must_use]
pub fn summary(result: &RunResult) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = summarize(&mut s, result);
    s
}

fn summarize(s: &mut String, result: &RunResult) -> std::fmt::Result {
    let figures = result.figures();
    let m = &result.meta;
    writeln!(
        s,
        "\n{} against {}: {} clients",
        result.scenario.name, m.target, m.clients
    )?;
    if result.outcome() != Outcome::CouldNotRun {
        write!(s, "\n{:<22}", "")?;
        STATISTICS.iter().try_for_each(|st| write!(s, "{st:>11}"))?;
        writeln!(s)?;
        for name in DISTRIBUTIONS {
            if figures.distribution(name).is_none_or(|d| d.is_empty()) {
                continue;
            }
            write!(s, "{name:<22}")?;
            for statistic in STATISTICS {
                write!(
                    s,
                    "{:>11}",
                    figure(&figures, &format!("{name}.{statistic}"))
                )?;
            }
            writeln!(s)?;
        }
        for (group, names) in SUMMARY {
            let told: Vec<String> = names
                .iter()
                .map(|name| format!("{name} {}", figure(&figures, name)))
                .collect();
            writeln!(s, "\n{group}\n  {}", told.join("   "))?;
        }
        writeln!(
            s,
            "  (mos is estimated by ITU-T G.107, with the loss behaviour of G.711)"
        )?;
    }
    for step in &result.steps {
        let verdict = if step.passed { "held" } else { "broke" };
        writeln!(s, "step: load {:<5} {verdict}", step.load)?;
    }
    for lack in &result.not_supported {
        writeln!(s, "\nNOT SUPPORTED  {lack}")?;
    }
    for (error, n) in &result.errors {
        writeln!(s, "\n{n} × {error}")?;
    }
    writeln!(s)?;
    for v in &result.verdicts {
        let (mark, measured) = (
            if v.met { "met   " } else { "MISSED" },
            v.measured.as_deref(),
        );
        writeln!(
            s,
            "{mark}  {:<38} {}",
            v.target,
            measured.unwrap_or("not measured")
        )?;
    }
    for fault in &result.validity.faults {
        writeln!(s, "INVALID  {fault}")?;
    }
    writeln!(s, "\n{}", result.outcome().label())
}
