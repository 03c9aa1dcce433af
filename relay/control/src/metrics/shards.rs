//! Reads the shards' counters when Prometheus asks. Shards never know that they are read.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge as GaugeValue, Histogram as HistogramValue, LabelPair,
    Metric, MetricFamily, MetricType,
};
use sealcast_model::histogram::BUCKETS_MICROS;
use sealcast_model::stats::MediaStats;
use sealcast_model::{CloseReason, Counter, Gauge, Histogram, ShardId, ShardStats, Source, Stage};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) struct ShardCollector {
    shards: Vec<(String, Arc<ShardStats>)>,
    descs: Vec<Desc>,
}

/// A counter of [`MediaStats`] with its name and help.
type MediaCounter = (&'static str, &'static str, fn(&MediaStats) -> &AtomicU64);

const MEDIA: [MediaCounter; 4] = [
    (
        "sealcast_rtp_packets_received_total",
        "RTP packets received, by source.",
        |m| &m.packets_in,
    ),
    (
        "sealcast_rtp_bytes_received_total",
        "RTP bytes received, header included, SRTP tag excluded, by source.",
        |m| &m.bytes_in,
    ),
    (
        "sealcast_rtp_packets_sent_total",
        "RTP packets forwarded, by source.",
        |m| &m.packets_out,
    ),
    (
        "sealcast_rtp_bytes_sent_total",
        "RTP bytes forwarded, header included, SRTP tag excluded, by source.",
        |m| &m.bytes_out,
    ),
];

const DWELL: (&str, &str) = (
    "sealcast_dwell_seconds",
    "Time from a packet's receipt by the kernel to the end of the call that sent it, by source.",
);
const STAGES: (&str, &str) = (
    "sealcast_dwell_stage_seconds",
    "Parts of dwell, by source and stage: kernel_queue, relay, wire; and total, kernel to kernel. \
     The last two are of packets whose transmit timestamp was sampled.",
);
const LAG: (&str, &str) = (
    "sealcast_loop_lag_seconds",
    "How late a shard's timers ran.",
);
const CLOSED: (&str, &str) = (
    "sealcast_sessions_closed_total",
    "Media sessions closed, by reason.",
);

impl ShardCollector {
    pub(super) fn new(shards: Vec<(ShardId, Arc<ShardStats>)>) -> Result<Self, prometheus::Error> {
        let shards: Vec<_> = shards
            .into_iter()
            .map(|(id, stats)| (id.0.to_string(), stats))
            .collect();
        let mut collector = ShardCollector {
            shards,
            descs: Vec::new(),
        };
        // The registry wants to know each family beforehand, to keep names apart.
        for family in collector.collect() {
            let labels = family.get_metric().first().map(|m| {
                let names = m.get_label().iter().map(|l| l.name().to_owned());
                names.collect::<Vec<_>>()
            });
            collector.descs.push(Desc::new(
                family.name().to_owned(),
                family.help().to_owned(),
                labels.unwrap_or_default(),
                HashMap::new(),
            )?);
        }
        Ok(collector)
    }
}

impl Collector for ShardCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::default();
        for (shard, stats) in &self.shards {
            for counter in Counter::ALL {
                let series = counter.series();
                let labels = labels(shard, series.labels);
                out.counter(series.name, series.help, labels, stats.get(*counter));
            }
            for gauge in Gauge::ALL {
                let series = gauge.series();
                let labels = labels(shard, series.labels);
                out.gauge(series.name, series.help, labels, stats.gauge(*gauge));
            }
            for reason in CloseReason::ALL {
                let labels = labels(shard, &[("reason", reason.as_str())]);
                out.counter(CLOSED.0, CLOSED.1, labels, stats.closed_count(reason));
            }
            for source in Source::ALL {
                let of = stats.media(source);
                let with_source = || labels(shard, &[("source", source.as_str())]);
                for (name, help, read) in MEDIA {
                    out.counter(name, help, with_source(), read(of).load(Relaxed));
                }
                out.histogram(DWELL, with_source(), &of.dwell);
                for stage in Stage::ALL {
                    let labels = [("source", source.as_str()), ("stage", stage.as_str())];
                    out.histogram(STAGES, self::labels(shard, &labels), of.stage(stage));
                }
            }
            out.histogram(LAG, labels(shard, &[]), &stats.loop_lag);
        }
        out.0
    }
}

/// Families under construction: a family is one name over all shards and labels.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    fn push(&mut self, name: &str, help: &str, kind: MetricType, metric: Metric) {
        if let Some(family) = self.0.iter_mut().find(|f| f.name() == name) {
            family.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        self.0.push(family);
    }

    pub(super) fn into_vec(self) -> Vec<MetricFamily> {
        self.0
    }

    fn counter(&mut self, name: &str, help: &str, labels: Vec<LabelPair>, value: u64) {
        self.counter_of((name, help), labels, value as f64);
    }

    pub(super) fn counter_of(
        &mut self,
        (name, help): (&str, &str),
        labels: Vec<LabelPair>,
        value: f64,
    ) {
        let mut counter = CounterValue::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: Vec<LabelPair>, value: u64) {
        let mut gauge = GaugeValue::default();
        gauge.set_value(value as f64);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    fn histogram(&mut self, (name, help): (&str, &str), labels: Vec<LabelPair>, of: &Histogram) {
        let of = of.snapshot();
        let mut value = HistogramValue::default();
        let mut buckets = Vec::with_capacity(BUCKETS_MICROS.len());
        for (bound, cumulative) in BUCKETS_MICROS.iter().zip(of.at_most(&BUCKETS_MICROS)) {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e6);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        value.set_bucket(buckets);
        value.set_sample_count(of.count());
        value.set_sample_sum(of.sum_nanos() as f64 / 1e9);
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(value);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }
}

pub(super) fn labels(shard: &str, more: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |name: &str, value: &str| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    };
    let mut out: Vec<LabelPair> = more.iter().map(|(n, v)| pair(n, v)).collect();
    out.push(pair("shard", shard));
    // Prometheus' registry expects label pairs in the order of their names.
    out.sort_by(|a, b| a.name().cmp(b.name()));
    out
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_text_says_what_the_shards_counted() {
        let metrics = Metrics::new("9.9.9").unwrap();
        let (a, b) = (
            Arc::new(ShardStats::default()),
            Arc::new(ShardStats::default()),
        );
        a.add(Counter::DropSrtpAuth, 7);
        b.set(Gauge::Sessions, 3);
        b.closed(CloseReason::ConsentLost);
        a.media(Source::Imaging).forwarded(5, 500);
        a.media(Source::Imaging)
            .dwell
            .record(Duration::from_micros(15), 4);
        a.media(Source::Imaging)
            .dwell
            .record(Duration::from_secs(1), 1);
        metrics
            .export_shards(vec![(ShardId(0), a), (ShardId(1), b)])
            .unwrap();
        let text = String::from_utf8(metrics.text()).unwrap();
        for line in [
            "sealcast_build_info{version=\"9.9.9\"} 1",
            "sealcast_dropped_total{reason=\"srtp_auth\",shard=\"0\"} 7",
            "sealcast_dropped_total{reason=\"srtp_auth\",shard=\"1\"} 0",
            "sealcast_sessions{shard=\"1\"} 3",
            "sealcast_sessions_closed_total{reason=\"consent_lost\",shard=\"1\"} 1",
            "sealcast_rtp_packets_sent_total{shard=\"0\",source=\"imaging\"} 5",
            "sealcast_rtp_bytes_sent_total{shard=\"0\",source=\"imaging\"} 500",
            "sealcast_dwell_seconds_bucket{shard=\"0\",source=\"imaging\",le=\"0.00001\"} 0",
            "sealcast_dwell_seconds_bucket{shard=\"0\",source=\"imaging\",le=\"0.00002\"} 4",
            "sealcast_dwell_seconds_bucket{shard=\"0\",source=\"imaging\",le=\"0.1\"} 4",
            "sealcast_dwell_seconds_bucket{shard=\"0\",source=\"imaging\",le=\"+Inf\"} 5",
            "sealcast_dwell_seconds_sum{shard=\"0\",source=\"imaging\"} 1.00006",
            "sealcast_dwell_seconds_count{shard=\"0\",source=\"imaging\"} 5",
            "sealcast_tokens_refused_total{reason=\"expired\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    /// A scraper's view: every sample belongs to a family announced before, once.
    #[test]
    fn the_exposition_parses() {
        let metrics = Metrics::new("1").unwrap();
        let stats = Arc::new(ShardStats::default());
        metrics.export_shards(vec![(ShardId(0), stats)]).unwrap();
        let text = String::from_utf8(metrics.text()).unwrap();
        let mut family = String::new();
        let mut seen = std::collections::HashSet::new();
        let mut samples = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(seen.insert(family.clone()), "{family} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(&family), "{line} in {family}");
                value.parse::<f64>().unwrap();
                assert!(samples.insert(series.to_owned()), "{series} twice");
            }
        }
        assert!(samples.len() > 100);
    }
}
