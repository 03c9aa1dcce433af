//! The page: one bar per measurement, user time beside system time, grouped by shape.

use super::{Report, Row};
use std::fmt::Write as _;

const BAR: usize = 16;
const GAP: usize = 10;
const LABEL: usize = 390;
const WIDTH: usize = 720;

/// A self-contained HTML page.
pub(super) fn page(report: &Report, table: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><title>CPU per forwarded packet</title>\
         <style>body{{font:14px system-ui,sans-serif;margin:2em;color:#1b2330;background:#fff}}\
         svg text{{font:11px system-ui,sans-serif;fill:currentColor}}pre{{font-size:11px}}\
         .u{{fill:#2c6fbb}}.s{{fill:#a9bdd3}}\
         @media(prefers-color-scheme:dark){{body{{color:#dde3ea;background:#14181d}}\
         .u{{fill:#6aa9ef}}.s{{fill:#45566a}}}}</style>\
         <h1>CPU per forwarded packet</h1><p>{}. Thread CPU time, median of {} repetitions. Dark: \
         user; light: system.</p>{}<pre>{}</pre>\n",
        escape(&report.machine),
        report.repetitions,
        bars(&report.rows),
        escape(table)
    )
}

fn bars(rows: &[Row]) -> String {
    let longest = rows.iter().map(|r| r.total_ns.median).fold(1.0, f64::max);
    let scale = WIDTH as f64 / longest;
    let mut out = String::new();
    let mut y = 0;
    let mut group = "";
    for row in rows {
        if row.contender == "floor" || group != row.topology {
            y += GAP;
            group = row.topology;
        }
        let (user, system) = (row.user_ns * scale, row.system_ns * scale);
        let ratio = row
            .total_ratio
            .map_or_else(String::new, |r| format!(", ×{r:.2}"));
        let label = format!(
            "{} · {} · {} · {} · {}",
            row.topology, row.traffic, row.profile, row.backend, row.contender
        );
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "<text x={} y={} text-anchor=end>{}</text>\
             <rect class=u x={LABEL} y={y} width={user:.1} height={height} />\
             <rect class=s x={system_x:.1} y={y} width={system:.1} height={height} />\
             <text x={:.1} y={}>{:.0} ns{ratio}</text>",
            LABEL - 6,
            y + BAR - 5,
            escape(&label),
            LABEL as f64 + user + system + 6.0,
            y + BAR - 5,
            row.total_ns.median,
            height = BAR - 2,
            system_x = LABEL as f64 + user,
        );
        y += BAR;
    }
    let width = LABEL + WIDTH + 110;
    format!("<svg width={width} height={} role=img>{out}</svg>", y + GAP)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
