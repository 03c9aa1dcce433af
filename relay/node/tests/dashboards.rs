//! Dashboards and alert rules ask for metrics that the relay exports, by labels that they have.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

use sealcast_control::metrics::Metrics;
use sealcast_model::{ShardId, ShardStats};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Labels that Prometheus adds when it scrapes, and those of histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];

struct Exported {
    names: BTreeSet<String>,
    /// Label pairs of every series that exists from the start, by name.
    series: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

fn exported() -> Exported {
    let metrics = Metrics::new("1").unwrap();
    let stats = Arc::new(ShardStats::default());
    metrics.export_shards(vec![(ShardId(0), stats)]).unwrap();
    let text = String::from_utf8(metrics.text()).unwrap();
    let mut names = metrics.names();
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, matchers) = selector(line);
        names.insert(name.to_owned());
        let labels = matchers.into_iter().map(|(label, _, value)| (label, value));
        series
            .entry(name.to_owned())
            .or_default()
            .push(labels.collect());
    }
    // Named for the thread, which a test has none of.
    let shard = BTreeMap::from([("shard".to_owned(), "0".to_owned())]);
    names.insert("sealcast_shard_cpu_seconds_total".to_owned());
    series.insert("sealcast_shard_cpu_seconds_total".to_owned(), vec![shard]);
    Exported { names, series }
}

/// A condition on a label: name, operator, value.
type Matcher = (String, String, String);

/// A name with what is asked of its labels, at the beginning of a line or an expression.
fn selector(text: &str) -> (&str, Vec<Matcher>) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let inside = rest.strip_prefix('{').and_then(|r| r.split_once('}'));
    let pairs = inside.map_or("", |(inside, _)| inside).split(',');
    let matchers = pairs.filter(|p| !p.is_empty()).map(|pair| {
        let (left, value) = pair.split_once('"').unwrap();
        let label = left.trim_end_matches(['=', '!', '~']);
        let operator = left[label.len()..].to_owned();
        (
            label.to_owned(),
            operator,
            value.trim_end_matches('"').to_owned(),
        )
    });
    (name, matchers.collect())
}

/// Checks every metric of an expression and says how many there were.
fn check(expression: &str, exported: &Exported) -> usize {
    let mut found = 0;
    let starts = ["sealcast_", "process_"]
        .iter()
        .flat_map(|prefix| expression.match_indices(prefix).map(|(at, _)| at));
    for at in starts {
        let before = expression[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let (name, matchers) = selector(&expression[at..]);
        assert!(exported.names.contains(name), "no {name}: {expression}");
        found += 1;
        let Some(series) = exported.series.get(name) else {
            continue;
        };
        for (label, operator, value) in &matchers {
            if ADDED.contains(&label.as_str()) {
                continue;
            }
            let values: BTreeSet<_> = series.iter().filter_map(|s| s.get(label)).collect();
            assert!(
                !values.is_empty(),
                "{name} has no label {label}: {expression}"
            );
            let known = |value: &str| value.starts_with('$') || values.iter().any(|v| *v == value);
            let each = value.split('|').filter(|_| operator.starts_with('='));
            for value in each {
                assert!(
                    known(value),
                    "{name} has no {label}=\"{value}\": {expression}"
                );
            }
        }
    }
    // What is grouped by must be a label of something in the expression.
    for (_, rest) in expression
        .match_indices("by (")
        .map(|(at, m)| expression.split_at(at + m.len()))
    {
        let (labels, _) = rest.split_once(')').unwrap();
        for label in labels
            .split(',')
            .map(str::trim)
            .filter(|l| !ADDED.contains(l))
        {
            let has = |name: &str| {
                let series = exported.series.get(name);
                series.is_none_or(|s| s.iter().any(|s| s.contains_key(label)))
            };
            let (name, _) = selector(&expression[expression.find("sealcast_").unwrap()..]);
            assert!(has(name), "{name} has no label {label}: {expression}");
        }
    }
    found
}

fn read(path: &str) -> String {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Every string under the key `expr` or `query`.
fn expressions<'a>(value: &'a serde_json::Value, out: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" => out.push(text),
                    _ => expressions(value, out),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| expressions(v, out)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_what_is_exported() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("config/dashboards/sealcast.json")).unwrap();
    let exported = exported();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let metrics: usize = found.iter().map(|e| check(e, &exported)).sum();
    assert!(metrics > 50, "{metrics} metrics");
    for panel in dashboard["panels"].as_array().unwrap() {
        let queries = panel["targets"].as_array().map_or(0, Vec::len);
        assert!(panel["type"] == "row" || queries > 0, "{}", panel["title"]);
    }
}

#[test]
fn alerts_watch_what_is_exported() {
    let exported = exported();
    let text = read("config/alerts/sealcast.yml");
    let rules: Vec<_> = text.split("- alert: ").skip(1).collect();
    for rule in &rules {
        let line = rule.lines().find_map(|l| l.trim().strip_prefix("expr: "));
        let expression = line.unwrap_or_else(|| panic!("no expression: {rule}"));
        let own = expression == "up{job=\"sealcast\"} == 0";
        assert!(own || check(expression, &exported) > 0, "{expression}");
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"));
        assert!(rule.contains("summary: "), "{rule}");
    }
    assert!(rules.len() >= 12);
}

#[test]
fn a_wrong_name_or_label_is_found() {
    let exported = exported();
    for wrong in [
        "rate(sealcast_nonsense_total[5m])",
        "rate(sealcast_dropped_total{reason=\"nonsense\"}[5m])",
        "rate(sealcast_dropped_total{reason=~\"oversize|nonsense\"}[5m])",
        "rate(sealcast_dropped_total{nonsense=\"x\"}[5m])",
        "sum by (nonsense) (rate(sealcast_dropped_total[5m]))",
    ] {
        assert!(
            std::panic::catch_unwind(|| check(wrong, &exported)).is_err(),
            "{wrong}"
        );
    }
    assert_eq!(
        check(
            "sum by (shard) (sealcast_sessions{shard=~\"$shard\"})",
            &exported
        ),
        1
    );
}
