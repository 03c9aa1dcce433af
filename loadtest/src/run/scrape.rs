//! The relay's `/metrics`, in the Prometheus text format, summed up over shards and instances.

use crate::result::RelaySample;
use std::collections::BTreeMap;

/// Series kept of one scrape; a relay that has more is not ours.
const MAX_SERIES: usize = 4_000;

/// Labels that series are summed up over.
const SUMMED: [&str; 2] = ["shard", "source"];

/// Reads a scrape. Lines that do not parse are left out: other relays' metrics are theirs.
pub(super) fn parse(text: &str, at_ms: u64) -> RelaySample {
    let mut sample = RelaySample {
        at_ms,
        ..RelaySample::default()
    };
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((name, labels, value)) = series(line) else {
            continue;
        };
        if let Some(histogram) = name.strip_suffix("_bucket") {
            add_bucket(&mut sample, histogram, &labels, value);
            continue;
        }
        let kept: Vec<String> = labels
            .iter()
            .filter(|(k, _)| !SUMMED.contains(k))
            .map(|(k, v)| format!("{k}=\"{v}\""))
            .collect();
        let key = if kept.is_empty() {
            name.to_owned()
        } else {
            format!("{name}{{{}}}", kept.join(","))
        };
        if sample.values.len() < MAX_SERIES || sample.values.contains_key(&key) {
            *sample.values.entry(key).or_default() += value;
        }
    }
    sample
}

fn add_bucket(sample: &mut RelaySample, name: &str, labels: &BTreeMap<&str, &str>, value: f64) {
    let Some(bound) = labels.get("le") else {
        return;
    };
    let bound = match *bound {
        "+Inf" => None,
        bound => match bound.parse::<f64>() {
            Ok(bound) => Some(bound),
            Err(_) => return,
        },
    };
    if sample.buckets.len() >= MAX_SERIES {
        return;
    }
    let buckets = sample.buckets.entry(name.to_owned()).or_default();
    match buckets.iter_mut().find(|(b, _)| *b == bound) {
        Some((_, n)) => *n += value,
        None => {
            buckets.push((bound, value));
            let order = |b: &Option<f64>| b.unwrap_or(f64::INFINITY);
            buckets.sort_by(|(a, _), (b, _)| order(a).total_cmp(&order(b)));
        }
    }
}

/// `name{a="b",..} value [timestamp]`.
fn series(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (head, rest) = match line.split_once('{') {
        None => {
            let (name, rest) = line.split_once(' ')?;
            return Some((name, BTreeMap::new(), number(rest)?));
        }
        Some(parts) => parts,
    };
    let (labels, rest) = rest.rsplit_once('}')?;
    let mut map = BTreeMap::new();
    let mut text = labels;
    while let Some((name, after)) = text.split_once("=\"") {
        // Escaped quotes are not told apart; none of the labels that are used has any.
        let (value, after) = after.split_once('"')?;
        map.insert(name.trim_start_matches(','), value);
        text = after;
    }
    Some((head, map, number(rest)?))
}

fn number(text: &str) -> Option<f64> {
    let value: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shards_are_summed_up() {
        let text = "# HELP x\n# TYPE x counter\n\
            sealcast_dropped_total{reason=\"muted\",shard=\"0\"} 3\n\
            sealcast_dropped_total{reason=\"muted\",shard=\"1\"} 4 1700000000\n\
            sealcast_dropped_total{reason=\"srtp_auth\",shard=\"1\"} 1\n\
            process_cpu_seconds_total 1.5\nbroken{ 1\nnan NaN\n\
            sealcast_dwell_seconds_bucket{shard=\"0\",source=\"audio\",le=\"+Inf\"} 5\n\
            sealcast_dwell_seconds_bucket{shard=\"0\",source=\"audio\",le=\"0.001\"} 2\n\
            sealcast_dwell_seconds_bucket{shard=\"1\",source=\"camera\",le=\"0.001\"} 2\n";
        let sample = parse(text, 7);
        assert_eq!(
            sample.values["sealcast_dropped_total{reason=\"muted\"}"],
            7.0
        );
        assert_eq!(sample.values["process_cpu_seconds_total"], 1.5);
        assert_eq!(sample.values.len(), 3, "{:?}", sample.values);
        let dwell = &sample.buckets["sealcast_dwell_seconds"];
        assert_eq!(*dwell, [(Some(0.001), 4.0), (None, 5.0)]);
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "([a-z_]{1,5}(\\{[a-z=\",]{0,9}\\})? ?[0-9.+-]{0,4}\n?){0,5}", other in ".{0,60}") {
            parse(&text, 0);
            parse(&other, 0);
        }
    }
}
