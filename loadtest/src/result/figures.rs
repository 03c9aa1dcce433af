//! Figures: everything that a target can be set for, computed from windows.
//!
//! A figure's name is a counter's (`misrouted`), a distribution's with a statistic
//! (`video.frame_latency.p99`), or one of the derived ones in [`DERIVED`].
//!
//! Latencies, freezes and rates are those of the windows that were measured; joins, failures and
//! deliveries are those of the whole run.

use super::{Counter, Hist, Latencies, Phase, RelaySample, Window};
use crate::mos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// 0..=1.
    Share,
    /// Bits per second.
    BitsPerSecond,
    /// A number of things.
    Count,
    /// A number of things in a second.
    PerSecond,
    /// 1..=5.
    Score,
    /// Cores.
    Cores,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In the unit's base.
    pub value: f64,
    /// The unit.
    pub unit: Unit,
}

/// Derived figures: name, unit, and what it is.
pub const DERIVED: &[(&str, Unit, &str)] = &[
    (
        "loss",
        Unit::Share,
        "Packets that never came, not even again.",
    ),
    (
        "network_loss",
        Unit::Share,
        "Packets that did not come the first time.",
    ),
    (
        "delivery",
        Unit::Share,
        "Frames received of those that were sent to slots.",
    ),
    ("audio.delivery", Unit::Share, "The same, of audio."),
    ("video.delivery", Unit::Share, "The same, of video."),
    (
        "pointer.delivery",
        Unit::Share,
        "Pointer positions received of those that were sent.",
    ),
    (
        "audio.concealed",
        Unit::Share,
        "Audio frames that were lost or too late to be heard.",
    ),
    ("freezes", Unit::Count, "Times that a picture stood still."),
    (
        "freeze_time",
        Unit::Seconds,
        "How long pictures stood still, added up.",
    ),
    ("freeze_share", Unit::Share, "The same, of viewing time."),
    (
        "pause_share",
        Unit::Share,
        "Of the time that pictures were to be seen, that in which the relay paused them for want of bandwidth.",
    ),
    ("freeze_longest", Unit::Seconds, "The longest of them."),
    (
        "mos",
        Unit::Score,
        "Estimated listening quality by ITU-T G.107, of audio.",
    ),
    (
        "bitrate_in",
        Unit::BitsPerSecond,
        "RTP payload received by all clients.",
    ),
    (
        "bitrate_out",
        Unit::BitsPerSecond,
        "RTP payload sent by all clients.",
    ),
    (
        "packet_rate_in",
        Unit::PerSecond,
        "RTP packets received by all clients.",
    ),
    (
        "packet_rate_out",
        Unit::PerSecond,
        "RTP packets sent by all clients.",
    ),
    ("connected", Unit::Count, "Clients connected, at the most."),
    (
        "generator.cpu",
        Unit::Cores,
        "CPU that the generator's media threads used.",
    ),
    (
        "generator.cpu_per_packet",
        Unit::Seconds,
        "The same, by datagram sent or received.",
    ),
    (
        "relay.dwell.p50",
        Unit::Seconds,
        "Time inside the relay, by its own metrics: upper bound of the bucket.",
    ),
    ("relay.dwell.p99", Unit::Seconds, "The same."),
    ("relay.dwell.mean", Unit::Seconds, "The same, mean."),
    (
        "relay.drops",
        Unit::Count,
        "Packets that the relay says it dropped.",
    ),
    (
        "relay.cpu",
        Unit::Cores,
        "CPU that the relay used, where it says.",
    ),
];

/// Statistics of a distribution: name and quantile.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p100", 1.0),
];

/// Figures of some windows.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    hists: BTreeMap<Hist, Latencies>,
    measured: BTreeMap<Counter, u64>,
    all: BTreeMap<Counter, u64>,
    measured_for: Duration,
    connected: u64,
    relay: Relay,
}

/// What the relay's figures changed by.
#[derive(Clone, Debug, Default)]
struct Relay {
    dwell: Vec<(Option<f64>, f64)>,
    dwell_sum: Option<f64>,
    drops: Option<f64>,
    cpu: Option<f64>,
}

impl Figures {
    /// Figures of these windows and of the relay's samples meanwhile.
    #[must_use]
    pub fn new<'a>(
        windows: impl IntoIterator<Item = &'a Window>,
        relay: &[RelaySample],
    ) -> Figures {
        let mut figures = Figures::default();
        let mut parts: BTreeMap<Hist, Vec<&'a Latencies>> = BTreeMap::new();
        for window in windows {
            let measured = window.phase == Phase::Measure;
            figures.connected = figures.connected.max(window.connected);
            for (counter, n) in &window.counters {
                *figures.all.entry(*counter).or_default() += n;
                if measured {
                    *figures.measured.entry(*counter).or_default() += n;
                }
            }
            for (hist, latencies) in &window.hists {
                if measured || hist.name().starts_with("join.") {
                    parts.entry(*hist).or_default().push(latencies);
                }
            }
            if measured {
                figures.measured_for += window.length();
            }
        }
        figures.hists = parts
            .into_iter()
            .map(|(hist, parts)| (hist, Latencies::merged(parts)))
            .collect();
        figures.relay = Relay::new(relay);
        figures
    }

    /// The figure of this name. `Err` if there is no such figure, `Ok(None)` if there is and
    /// nothing was measured.
    ///
    /// # Errors
    /// [`UnknownFigure`].
    pub fn get(&self, name: &str) -> Result<Option<Figure>, UnknownFigure> {
        let unit = unit_of(name).ok_or_else(|| UnknownFigure(name.to_owned()))?;
        let value = self
            .derived(name)
            .or_else(|| self.statistic(name))
            .or_else(|| Counter::from_name(name).map(|c| Some(self.total(c) as f64)))
            .flatten();
        Ok(value.map(|value| Figure { value, unit }))
    }

    /// The unit of the figure of this name.
    ///
    /// # Errors
    /// [`UnknownFigure`].
    pub fn unit(&self, name: &str) -> Result<Unit, UnknownFigure> {
        unit_of(name).ok_or_else(|| UnknownFigure(name.to_owned()))
    }

    /// The value of a figure that is known to exist; `None` if nothing was measured.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.get(name).ok().flatten().map(|f| f.value)
    }

    /// A distribution by its name; `frame_latency` and `packet_latency` are those of audio and
    /// video together, `generator.lag` that of every kind of lag.
    #[must_use]
    pub fn distribution(&self, name: &str) -> Option<Latencies> {
        let parts = parts_of(name)?;
        Some(Latencies::merged(
            parts.iter().filter_map(|h| self.hists.get(h)),
        ))
    }

    /// A count over the whole run.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.all.get(&counter).copied().unwrap_or(0)
    }

    /// For how long was measured.
    #[must_use]
    pub fn measured_for(&self) -> Duration {
        self.measured_for
    }

    fn statistic(&self, name: &str) -> Option<Option<f64>> {
        let (distribution, statistic) = split_statistic(name)?;
        let h = self.distribution(distribution)?;
        let seconds = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
        Some(match statistic {
            Statistic::Quantile(q) => seconds(h.quantile(q)),
            Statistic::Max => seconds(h.max()),
            Statistic::Mean => seconds(h.mean()),
            Statistic::Count => Some(h.count() as f64),
        })
    }

    /// `None`: not a derived figure; `Some(None)`: nothing to derive it from.
    fn derived(&self, name: &str) -> Option<Option<f64>> {
        use Counter as C;
        let all = |c: Counter| self.total(c) as f64;
        let rate = |c: Counter, factor: f64| {
            let seconds = self.measured_for.as_secs_f64();
            let n = self.measured.get(&c).copied().unwrap_or(0) as f64;
            (seconds > 0.0).then(|| n * factor / seconds)
        };
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let freezes = self.hists.get(&Hist::Freeze);
        let datagrams = self.measured.get(&C::DatagramsSent).copied().unwrap_or(0)
            + self
                .measured
                .get(&C::DatagramsReceived)
                .copied()
                .unwrap_or(0);
        let (audio, video) = (all(C::AudioExpected), all(C::VideoExpected));
        let sent = all(C::PacketsReceived) + all(C::Repaired) + all(C::PacketsLost);
        Some(match name {
            "loss" => share(all(C::PacketsLost), sent),
            "network_loss" => share(all(C::PacketsLost) + all(C::Repaired), sent),
            "delivery" => share(all(C::AudioReceived) + all(C::VideoReceived), audio + video),
            "audio.delivery" => share(all(C::AudioReceived), audio),
            "video.delivery" => share(all(C::VideoReceived), video),
            "pointer.delivery" => share(all(C::PointersReceived), all(C::PointersExpected)),
            "audio.concealed" => self.concealed(),
            "freezes" => Some(freezes.map_or(0, Latencies::count) as f64),
            "freeze_time" => Some(freezes.map_or(0.0, |f| f.sum().as_secs_f64())),
            "freeze_longest" => Some(
                freezes
                    .and_then(Latencies::max)
                    .map_or(0.0, |d| d.as_secs_f64()),
            ),
            "freeze_share" => share(
                freezes.map_or(0.0, |f| f.sum().as_secs_f64() * 1_000.0),
                self.measured
                    .get(&C::VideoShownMillis)
                    .copied()
                    .unwrap_or(0) as f64,
            ),
            "pause_share" => {
                let measured = |c| self.measured.get(&c).copied().unwrap_or(0) as f64;
                let (paused, shown) = (measured(C::PausedMillis), measured(C::VideoShownMillis));
                share(paused, paused + shown)
            }
            "mos" => self.mos(),
            "bitrate_in" => rate(C::OctetsReceived, 8.0),
            "bitrate_out" => rate(C::OctetsSent, 8.0),
            "packet_rate_in" => rate(C::PacketsReceived, 1.0),
            "packet_rate_out" => rate(C::PacketsSent, 1.0),
            "connected" => Some(self.connected as f64),
            "generator.cpu" => rate(C::CpuMicros, 1e-6),
            "generator.cpu_per_packet" => share(
                self.measured.get(&C::CpuMicros).copied().unwrap_or(0) as f64 * 1e-6,
                datagrams as f64,
            ),
            "relay.dwell.p50" => self.relay.dwell_quantile(0.5),
            "relay.dwell.p99" => self.relay.dwell_quantile(0.99),
            "relay.dwell.mean" => self.relay.dwell_mean(),
            "relay.drops" => self.relay.drops,
            "relay.cpu" => self.relay.cpu,
            _ => return None,
        })
    }

    fn concealed(&self) -> Option<f64> {
        let expected = self.total(Counter::AudioExpected);
        let missing = expected.saturating_sub(self.total(Counter::AudioReceived));
        let late = self.total(Counter::AudioLate);
        (expected > 0).then(|| ((missing + late) as f64 / expected as f64).min(1.0))
    }

    fn mos(&self) -> Option<f64> {
        let network = self.hists.get(&Hist::AudioFrame)?.mean()?;
        let buffer = self
            .hists
            .get(&Hist::AudioBuffer)
            .and_then(Latencies::mean)
            .unwrap_or_default();
        Some(mos::estimate(network + buffer, self.concealed()?))
    }
}

enum Statistic {
    Quantile(f64),
    Max,
    Mean,
    Count,
}

fn split_statistic(name: &str) -> Option<(&str, Statistic)> {
    for (suffix, q) in QUANTILES {
        if let Some(base) = name.strip_suffix(suffix).and_then(|b| b.strip_suffix('.')) {
            return Some((base, Statistic::Quantile(q)));
        }
    }
    let (base, statistic) = name.rsplit_once('.')?;
    let statistic = match statistic {
        "max" => Statistic::Max,
        "mean" => Statistic::Mean,
        "count" => Statistic::Count,
        _ => return None,
    };
    Some((base, statistic))
}

fn parts_of(distribution: &str) -> Option<Vec<Hist>> {
    Some(match distribution {
        "frame_latency" => vec![Hist::AudioFrame, Hist::VideoFrame],
        "packet_latency" => vec![Hist::AudioPacket, Hist::VideoPacket],
        "generator.lag" => vec![Hist::SendLag, Hist::ReceiveLag],
        name => vec![Hist::from_name(name)?],
    })
}

/// The unit of the figure of this name, if there is one.
fn unit_of(name: &str) -> Option<Unit> {
    if let Some((_, unit, _)) = DERIVED.iter().find(|(n, _, _)| *n == name) {
        return Some(*unit);
    }
    if Counter::from_name(name).is_some() {
        return Some(Unit::Count);
    }
    let (distribution, statistic) = split_statistic(name)?;
    parts_of(distribution)?;
    Some(match statistic {
        Statistic::Count => Unit::Count,
        _ => Unit::Seconds,
    })
}

/// No figure has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no figure is called {0:?}; `sealcast-load figures` lists them")]
pub struct UnknownFigure(pub String);

impl Relay {
    fn new(samples: &[RelaySample]) -> Relay {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Relay::default();
        };
        let change = |name: &str| Some(last.values.get(name)? - first.values.get(name)?);
        let drops = |s: &RelaySample| {
            let dropped = |(k, _): &(&String, &f64)| k.starts_with("sealcast_dropped_total{");
            let series: Vec<f64> = s.values.iter().filter(dropped).map(|(_, v)| *v).collect();
            (!series.is_empty()).then(|| series.iter().sum::<f64>())
        };
        let empty = Vec::new();
        let before = first.buckets.get(DWELL).unwrap_or(&empty);
        let after = last.buckets.get(DWELL).unwrap_or(&empty);
        let dwell = after
            .iter()
            .map(|(bound, n)| {
                let was = before
                    .iter()
                    .find(|(b, _)| b == bound)
                    .map_or(0.0, |(_, n)| *n);
                (*bound, n - was)
            })
            .collect();
        let seconds = (last.at_ms.saturating_sub(first.at_ms)) as f64 / 1_000.0;
        Relay {
            dwell,
            dwell_sum: change("sealcast_dwell_seconds_sum"),
            drops: drops(last).zip(drops(first)).map(|(b, a)| b - a),
            cpu: change("process_cpu_seconds_total")
                .filter(|_| seconds > 0.0)
                .map(|c| c / seconds),
        }
    }

    /// Upper bound of the bucket with rank `q`; infinity is the highest bound that is told.
    fn dwell_quantile(&self, q: f64) -> Option<f64> {
        let total = self.dwell.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        let highest = self.dwell.iter().rev().find_map(|(bound, _)| *bound)?;
        let (bound, _) = self.dwell.iter().find(|(_, n)| *n >= q * total)?;
        Some(bound.unwrap_or(highest))
    }

    fn dwell_mean(&self) -> Option<f64> {
        let total = self.dwell.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        Some(self.dwell_sum? / total)
    }
}

/// The relay's histogram of dwell.
pub const DWELL: &str = "sealcast_dwell_seconds";

impl Unit {
    /// A value of this unit for people.
    #[must_use]
    pub fn format(self, value: f64) -> String {
        let scaled = |value: f64, steps: &[(f64, &str)]| {
            let (factor, name) = steps
                .iter()
                .find(|(factor, _)| value.abs() >= *factor)
                .or(steps.last())
                .copied()
                .unwrap_or((1.0, ""));
            let v = value / factor;
            let digits = match v.abs() {
                v if v >= 100.0 => 0,
                v if v >= 10.0 => 1,
                _ => 2,
            };
            format!("{v:.digits$} {name}").trim_end().to_owned()
        };
        match self {
            _ if value == 0.0 && self == Unit::Seconds => "0 ms".to_owned(),
            Unit::Seconds => scaled(value, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
            Unit::Share => format!("{:.3} %", value * 100.0),
            Unit::BitsPerSecond => scaled(
                value,
                &[
                    (1e9, "Gbit/s"),
                    (1e6, "Mbit/s"),
                    (1e3, "kbit/s"),
                    (1.0, "bit/s"),
                ],
            ),
            Unit::Count => format!("{value:.0}"),
            Unit::PerSecond => scaled(value, &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
            Unit::Score => format!("{value:.2}"),
            Unit::Cores => format!("{value:.2} cores"),
        }
    }
}
