//! One HTML file: no script, no network, plots inline, light and dark, down to a phone's width.

use super::junit::escape;
use super::plot::{Line, Plot, XAxis};
use super::terminal::{DISTRIBUTIONS, STATISTICS, SUMMARY, figure};
use crate::result::{
    Counter, DERIVED, DWELL, Figures, Hist, Latencies, Outcome, Phase, RelaySample, RunResult,
    Window,
};
use std::fmt::Write as _;
use std::time::Duration;

const STYLE: &str = include_str!("report.css");

/// The file.
#[must_use]
pub fn render(result: &RunResult) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    let _ = page(&mut s, result);
    s
}

fn page(s: &mut String, r: &RunResult) -> std::fmt::Result {
    let outcome = r.outcome();
    let title = escape(&format!(
        "{} – {}",
        r.scenario.name,
        outcome.label().to_lowercase()
    ));
    write!(
        s,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head><body><main>"
    )?;
    header(s, r, outcome)?;
    verdicts(s, r)?;
    if outcome != Outcome::CouldNotRun {
        let figures = r.figures();
        tiles(s, &figures)?;
        plots(s, r, &figures)?;
        distributions(s, &figures)?;
        groups(s, &figures)?;
        steps(s, r)?;
        relay(s, r)?;
    }
    details(s, r)?;
    write!(s, "</main></body></html>")
}

fn header(s: &mut String, r: &RunResult, outcome: Outcome) -> std::fmt::Result {
    let class = match outcome {
        Outcome::Passed => "ok",
        Outcome::Missed => "bad",
        Outcome::Invalid | Outcome::CouldNotRun => "unsure",
    };
    let measured = r.figures().measured_for().as_secs_f64();
    let explain = match outcome {
        Outcome::Passed => "Every target was met, and the generator kept up.",
        Outcome::Missed => {
            "At least one target was missed. The generator kept up, so the relay or the network is the reason."
        }
        Outcome::Invalid => "The generator was the bottleneck: this run says nothing of the relay.",
        Outcome::CouldNotRun => "Nothing was measured.",
    };
    write!(
        s,
        "<header><h1>{}</h1><p class=\"about\">{}</p>\
         <p class=\"outcome {class}\"><b>{}</b> {explain}</p>\
         <p class=\"meta\">{} · {} clients · {measured:.0} s measured · {} UTC</p></header>",
        escape(&r.scenario.name),
        escape(&r.scenario.about),
        outcome.label(),
        escape(&r.meta.target),
        r.meta.clients,
        date(r.meta.started),
    )
}

fn verdicts(s: &mut String, r: &RunResult) -> std::fmt::Result {
    for fault in &r.validity.faults {
        write!(
            s,
            "<p class=\"note unsure\"><b>Invalid</b> {}</p>",
            escape(fault)
        )?;
    }
    for lack in &r.not_supported {
        write!(
            s,
            "<p class=\"note unsure\"><b>Not supported</b> {}</p>",
            escape(lack)
        )?;
    }
    for (error, n) in &r.errors {
        write!(
            s,
            "<p class=\"note bad\"><b>{n} ×</b> {}</p>",
            escape(error)
        )?;
    }
    if r.verdicts.is_empty() {
        return Ok(());
    }
    write!(
        s,
        "<section><h2>Targets</h2><table class=\"targets\"><tbody>"
    )?;
    for v in &r.verdicts {
        let (class, word) = if v.met {
            ("ok", "met")
        } else {
            ("bad", "missed")
        };
        let measured = v.measured.as_deref().unwrap_or("not measured");
        write!(
            s,
            "<tr><td><span class=\"badge {class}\">{word}</span></td><td><code>{}</code></td><td class=\"n\">{}</td></tr>",
            escape(&v.target),
            escape(measured)
        )?;
    }
    write!(s, "</tbody></table></section>")
}

fn tiles(s: &mut String, figures: &Figures) -> std::fmt::Result {
    write!(s, "<section class=\"tiles\">")?;
    for (name, label) in [
        ("video.frame_latency.p99", "video frame latency, p99"),
        ("audio.frame_latency.p99", "audio frame latency, p99"),
        ("join.total.p99", "time to join, p99"),
        ("delivery", "frames delivered"),
        ("freezes", "freezes"),
        ("mos", "estimated MOS (G.107)"),
        ("bitrate_in", "received"),
        ("relay.dwell.p99", "relay dwell, p99, at most"),
    ] {
        let value = escape(&figure(figures, name));
        write!(s, "<div><b>{value}</b><span>{label}</span></div>")?;
    }
    write!(s, "</section>")
}

/// A line over windows.
fn over_time(r: &RunResult, name: &str, f: impl Fn(&Window) -> Option<f64>) -> Line {
    let points = r.windows.iter().map(|w| {
        let middle = (w.start_ms as f64 + w.length_ms as f64 / 2.0) / 1_000.0;
        (middle, f(w))
    });
    Line {
        name: name.to_owned(),
        points: points.collect(),
    }
}

fn ms(d: Option<Duration>) -> Option<f64> {
    d.map(|d| d.as_secs_f64() * 1_000.0)
}

fn quantile_of(hists: &'static [Hist], q: f64) -> impl Fn(&Window) -> Option<f64> {
    move |w| ms(Latencies::merged(hists.iter().filter_map(|h| w.hists.get(h))).quantile(q))
}

fn rate(counter: Counter, factor: f64) -> impl Fn(&Window) -> Option<f64> {
    move |w| Some(w.count(counter) as f64 * factor / w.length().as_secs_f64().max(1e-9))
}

fn plots(s: &mut String, r: &RunResult, figures: &Figures) -> std::fmt::Result {
    let shaded: Vec<(f64, f64)> = r
        .windows
        .iter()
        .filter(|w| w.phase != Phase::Measure)
        .map(|w| {
            (
                w.start_ms as f64 / 1e3,
                (w.start_ms + w.length_ms) as f64 / 1e3,
            )
        })
        .collect();
    let time = |title: &'static str, unit: &'static str, lines: Vec<Line>| Plot {
        title,
        unit,
        x: XAxis::Time,
        lines,
        bound: None,
        shaded: shaded.clone(),
    };
    let latency = |title, hists: &'static [Hist]| {
        let lines = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
        let lines = lines.map(|(name, q)| over_time(r, name, quantile_of(hists, q)));
        time(title, "ms", lines.into())
    };
    let mut plots = vec![
        latency("Video frame latency", &[Hist::VideoFrame]),
        latency("Audio frame latency", &[Hist::AudioFrame]),
        distribution_plot(figures),
        dwell_plot(r, time("End to end, and inside the relay", "ms", vec![])),
        time(
            "Bit rate",
            "Mbit/s",
            vec![
                over_time(r, "received", rate(Counter::OctetsReceived, 8e-6)),
                over_time(r, "sent", rate(Counter::OctetsSent, 8e-6)),
            ],
        ),
        time(
            "Packets lost and repaired",
            "per second",
            vec![
                over_time(r, "lost", rate(Counter::PacketsLost, 1.0)),
                over_time(r, "repaired", rate(Counter::Repaired, 1.0)),
                over_time(r, "key frames asked for", rate(Counter::Plis, 1.0)),
            ],
        ),
        time(
            "Freezes",
            "ms per second of run",
            vec![over_time(r, "standing still", |w| {
                let frozen = w
                    .hists
                    .get(&Hist::Freeze)
                    .map_or(Duration::ZERO, Latencies::sum);
                Some(frozen.as_secs_f64() * 1_000.0 / w.length().as_secs_f64().max(1e-9))
            })],
        ),
        time(
            "Clients",
            "connected",
            vec![over_time(r, "connected", |w| Some(w.connected as f64))],
        ),
        time(
            "Generator lag",
            "ms",
            vec![
                over_time(
                    r,
                    "p99",
                    quantile_of(&[Hist::SendLag, Hist::ReceiveLag], 0.99),
                ),
                over_time(
                    r,
                    "max",
                    quantile_of(&[Hist::SendLag, Hist::ReceiveLag], 1.0),
                ),
            ],
        ),
        time(
            "Generator CPU",
            "cores",
            vec![
                over_time(r, "media", rate(Counter::CpuMicros, 1e-6)),
                over_time(r, "the rest", rate(Counter::ControlCpuMicros, 1e-6)),
            ],
        ),
    ];
    let has_data = |p: &Plot<'_>| {
        p.lines
            .iter()
            .flat_map(|l| &l.points)
            .any(|(_, y)| y.is_some_and(|y| y > 0.0))
    };
    // Lag and freezes at zero are worth seeing; latencies of media that was not sent are not.
    plots.retain(|p| has_data(p) || matches!(p.title, "Freezes" | "Packets lost and repaired"));
    if let Some(lag) = plots.iter_mut().find(|p| p.title == "Generator lag") {
        let allowed = r.validity.limits.max_ms;
        lag.bound = Some((allowed, format!("allowed: {allowed} ms")));
    }
    write!(
        s,
        "<section><h2>Over time</h2><p class=\"hint\">Shaded: joining, warm-up and drain, which are not judged.</p><div class=\"plots\">"
    )?;
    for plot in &plots {
        s.push_str(&plot.render());
    }
    write!(s, "</div></section>")
}

/// Latency over percentiles, p0 to p99.99 as far as there are samples for it.
fn distribution_plot(figures: &Figures) -> Plot<'static> {
    let line = |name: &str, distribution: &str| {
        let h = figures.distribution(distribution).unwrap_or_default();
        // A percentile needs a hundred samples beyond its decade to be more than the maximum.
        let nines = (h.count().max(1) as f64).log10().min(4.0);
        let points = (0..=80)
            .map(|n| f64::from(n) * 0.05)
            .filter(|x| *x <= nines)
            .map(|x| (x, ms(h.quantile(1.0 - 10f64.powf(-x)))));
        Line {
            name: name.to_owned(),
            points: points.collect(),
        }
    };
    Plot {
        title: "Latency by percentile",
        unit: "ms",
        x: XAxis::Nines,
        lines: vec![
            line("video frames", "video.frame_latency"),
            line("audio frames", "audio.frame_latency"),
        ],
        bound: None,
        shaded: vec![],
    }
}

/// The mean of end-to-end latency, and the mean of dwell between two scrapes.
fn dwell_plot<'a>(r: &RunResult, mut plot: Plot<'a>) -> Plot<'a> {
    let mean = |w: &Window| {
        let hists = [Hist::AudioPacket, Hist::VideoPacket];
        ms(Latencies::merged(hists.iter().filter_map(|h| w.hists.get(h))).mean())
    };
    let dwell = r.relay.windows(2).map(|pair| {
        let [a, b] = pair else { return (0.0, None) };
        let change = |name: &str| Some(b.values.get(name)? - a.values.get(name)?);
        let count = change(&format!("{DWELL}_count")).filter(|n| *n > 0.0);
        let mean = change(&format!("{DWELL}_sum"))
            .zip(count)
            .map(|(sum, n)| sum / n * 1_000.0);
        ((a.at_ms + b.at_ms) as f64 / 2_000.0, mean)
    });
    plot.lines = vec![
        over_time(r, "packets, end to end, mean", mean),
        Line {
            name: "dwell by the relay's metrics, mean".to_owned(),
            points: dwell.collect(),
        },
    ];
    plot
}

fn distributions(s: &mut String, figures: &Figures) -> std::fmt::Result {
    write!(
        s,
        "<section><h2>Distributions</h2><div class=\"scroll\"><table class=\"dist\"><thead><tr><th></th>"
    )?;
    STATISTICS
        .iter()
        .try_for_each(|name| write!(s, "<th class=\"n\">{name}</th>"))?;
    write!(s, "<th class=\"n\">samples</th></tr></thead><tbody>")?;
    for name in DISTRIBUTIONS {
        let Some(h) = figures.distribution(name).filter(|h| !h.is_empty()) else {
            continue;
        };
        let help = Hist::from_name(name).map_or("", Hist::help);
        write!(
            s,
            "<tr><td title=\"{}\"><code>{name}</code></td>",
            escape(help)
        )?;
        for statistic in STATISTICS {
            let value = figure(figures, &format!("{name}.{statistic}"));
            write!(s, "<td class=\"n\">{}</td>", escape(&value))?;
        }
        write!(s, "<td class=\"n\">{}</td></tr>", h.count())?;
    }
    write!(s, "</tbody></table></div></section>")
}

fn groups(s: &mut String, figures: &Figures) -> std::fmt::Result {
    write!(s, "<section><h2>Figures</h2><div class=\"groups\">")?;
    for (group, names) in SUMMARY {
        write!(s, "<div><h3>{group}</h3><table><tbody>")?;
        for name in *names {
            let value = escape(&figure(figures, name));
            write!(
                s,
                "<tr><td title=\"{}\"><code>{name}</code></td><td class=\"n\">{value}</td></tr>",
                escape(help(name))
            )?;
        }
        write!(s, "</tbody></table></div>")?;
    }
    write!(s, "</div></section>")
}

/// What a figure is.
fn help(name: &str) -> &'static str {
    let derived = DERIVED.iter().find(|(n, _, _)| *n == name);
    let counter = Counter::from_name(name).map(Counter::help);
    derived.map(|(_, _, help)| *help).or(counter).unwrap_or("")
}

fn steps(s: &mut String, r: &RunResult) -> std::fmt::Result {
    if r.steps.is_empty() {
        return Ok(());
    }
    let good = r.steps.iter().filter(|s| s.passed).map(|s| s.load).max();
    let good = good.map_or("none".to_owned(), |g| g.to_string());
    write!(
        s,
        "<section><h2>Ramp</h2><p>Last load at which every target held: <b>{good}</b> rooms.</p>\
         <div class=\"scroll\"><table><thead><tr><th class=\"n\">rooms</th><th></th><th>missed</th></tr></thead><tbody>"
    )?;
    for step in &r.steps {
        let (class, word) = if step.passed {
            ("ok", "held")
        } else {
            ("bad", "broke")
        };
        let missed: Vec<String> = step
            .verdicts
            .iter()
            .filter(|v| !v.met)
            .map(|v| {
                format!(
                    "{} ({})",
                    v.target,
                    v.measured.as_deref().unwrap_or("not measured")
                )
            })
            .collect();
        write!(
            s,
            "<tr><td class=\"n\">{}</td><td><span class=\"badge {class}\">{word}</span></td><td>{}</td></tr>",
            step.load,
            escape(&missed.join(", "))
        )?;
    }
    write!(s, "</tbody></table></div></section>")
}

/// What of the relay's own counters changed.
fn relay(s: &mut String, r: &RunResult) -> std::fmt::Result {
    let (Some(first), Some(last)) = (r.relay.first(), r.relay.last()) else {
        return write!(
            s,
            "<section><h2>The relay's own counters</h2><p class=\"hint\">It gave none.</p></section>"
        );
    };
    let change = |name: &String, sample: &RelaySample| sample.values.get(name).copied();
    let rows = last
        .values
        .keys()
        .filter(|n| n.contains("_total"))
        .filter_map(|name| {
            let by = change(name, last)? - change(name, first).unwrap_or(0.0);
            (by != 0.0).then_some((name, by))
        });
    write!(
        s,
        "<section><details><summary>The relay's own counters, changes during the run</summary>\
         <div class=\"scroll\"><table><tbody>"
    )?;
    for (name, by) in rows {
        write!(
            s,
            "<tr><td><code>{}</code></td><td class=\"n\">{by}</td></tr>",
            escape(name)
        )?;
    }
    write!(s, "</tbody></table></div></details></section>")
}

fn details(s: &mut String, r: &RunResult) -> std::fmt::Result {
    let toml = toml::to_string(&r.scenario).unwrap_or_else(|e| e.to_string());
    let version = r.meta.target_version.as_deref().unwrap_or("unknown");
    write!(
        s,
        "<section><details><summary>How it was run</summary><p>sealcast-load {} · relay {} · seed {} · {}</p><pre>{}</pre></details></section>",
        escape(&r.meta.version),
        escape(version),
        r.meta.seed,
        r.meta
            .generators
            .iter()
            .map(|g| escape(&format!(
                "{} ({} cores, {} media threads)",
                g.name, g.cores, g.threads
            )))
            .collect::<Vec<_>>()
            .join(" · "),
        escape(&toml),
    )?;
    write!(
        s,
        "<footer>Packet latency is that of a frame's first packet. Latencies count from when a frame was due, \
         so a generator that ran late shows in them. MOS is estimated by ITU-T G.107 from delay and loss, \
         with the loss behaviour of G.711, and is no measurement of what people heard.</footer>"
    )
}

/// A date from Unix seconds (civil-from-days, proleptic Gregorian).
fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m) = (seconds / 3_600, seconds % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_795_372_740), "2026-11-22 18:39");
    }

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let result = RunResult {
            errors: [("<script>alert(1)</script>".to_owned(), 1)].into(),
            ..RunResult::default()
        };
        let html = render(&result);
        assert!(
            !html.contains("<script") && !html.contains("http://") && !html.contains("https://")
        );
        assert!(html.contains("&lt;script&gt;"));
    }
}
