//! Figures, merging and outcomes on windows made by hand.

use super::*;

fn window(phase: Phase, frame_ms: u64) -> Window {
    let mut recorder = Recorder::new();
    recorder.record_n(Duration::from_millis(frame_ms), 10);
    let latencies = recorder.take();
    Window {
        length_ms: 1_000,
        phase,
        connected: 3,
        hists: BTreeMap::from([
            (Hist::VideoFrame, latencies.clone()),
            (Hist::JoinTotal, latencies),
        ]),
        counters: BTreeMap::from([
            (Counter::OctetsReceived, 125_000),
            (Counter::VideoExpected, 10),
            (Counter::VideoReceived, 9),
            (Counter::PacketsReceived, 96),
            (Counter::Repaired, 3),
            (Counter::PacketsLost, 1),
        ]),
        ..Window::default()
    }
}

#[test]
fn latencies_are_of_what_was_measured_and_joins_of_the_whole_run() {
    let windows = [window(Phase::Start, 900), window(Phase::Measure, 20)];
    let figures = Figures::new(&windows, &[]);
    let value = |name| figures.value(name).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() < b * 0.002;
    assert!(close(value("frame_latency.max"), 0.020));
    assert!(close(value("join.total.max"), 0.900));
    assert!(close(value("bitrate_in"), 1e6));
    assert!(close(value("delivery"), 0.9) && close(value("loss"), 0.01));
    assert!(close(value("network_loss"), 0.04));
    assert_eq!(value("frame_latency.count"), 10.0);
    assert_eq!(figures.get("audio.frame_latency.p99"), Ok(None));
    assert_eq!(figures.get("audio.delivery"), Ok(None));
    assert!(figures.get("frame_latency.p98").is_err() && figures.get("delivry").is_err());
}

#[test]
fn every_figure_has_a_unit_and_every_derived_one_a_value_or_none() {
    let figures = Figures::new(&[window(Phase::Measure, 20)], &[]);
    for (name, unit, _) in DERIVED {
        if let Some(figure) = figures.get(name).unwrap() {
            assert_eq!(figure.unit, *unit);
        }
        assert!(!unit.format(0.25).is_empty());
    }
    for counter in Counter::ALL {
        assert!(figures.get(counter.name()).unwrap().is_some());
    }
    for hist in Hist::ALL {
        for statistic in ["p50", "p99.9", "max", "mean", "count"] {
            figures
                .get(&format!("{}.{statistic}", hist.name()))
                .unwrap();
        }
    }
}

#[test]
fn the_relay_is_measured_between_samples() {
    let sample = |at_ms, n: f64, cpu: f64| RelaySample {
        at_ms,
        values: BTreeMap::from([
            ("sealcast_dropped_total{reason=\"muted\"}".to_owned(), n),
            ("sealcast_dwell_seconds_sum".to_owned(), n * 0.001),
            ("process_cpu_seconds_total".to_owned(), cpu),
        ]),
        buckets: BTreeMap::from([(
            DWELL.to_owned(),
            vec![(Some(0.0005), n), (Some(0.001), n * 1.9), (None, n * 2.0)],
        )]),
    };
    let figures = Figures::new(&[], &[sample(0, 100.0, 1.0), sample(2_000, 200.0, 2.0)]);
    assert_eq!(figures.value("relay.drops"), Some(100.0));
    assert_eq!(figures.value("relay.cpu"), Some(0.5));
    assert_eq!(figures.value("relay.dwell.p50"), Some(0.0005));
    assert_eq!(figures.value("relay.dwell.p99"), Some(0.001));
    assert_eq!(figures.value("relay.dwell.mean"), Some(0.0005));
}

#[test]
fn a_generator_that_lagged_makes_the_run_invalid() {
    let mut run = RunResult {
        format: FORMAT,
        windows: vec![window(Phase::Measure, 20)],
        ..RunResult::default()
    };
    let judge = |run: &RunResult| Validity::judge(Limits::default(), &run.windows);
    run.validity = judge(&run);
    assert_eq!(run.outcome(), Outcome::Passed);
    let mut recorder = Recorder::new();
    recorder.record_n(Duration::from_micros(50), 10_000);
    recorder.record(Duration::from_millis(500));
    run.windows[0]
        .hists
        .insert(Hist::ReceiveLag, recorder.take());
    run.validity = judge(&run);
    assert_eq!(run.validity.faults.len(), 1, "{:?}", run.validity);
    assert_eq!(run.outcome(), Outcome::Invalid);
    assert_eq!(RunResult::default().outcome(), Outcome::CouldNotRun);
    let nobody_in = RunResult {
        windows: vec![Window {
            phase: Phase::Measure,
            counters: BTreeMap::from([(Counter::JoinStarted, 4)]),
            ..Window::default()
        }],
        ..RunResult::default()
    };
    assert_eq!(nobody_in.outcome(), Outcome::CouldNotRun);
}

#[test]
fn lasting_overload_and_lost_datagrams_are_found_too() {
    let mut lagging = window(Phase::Measure, 20);
    let mut recorder = Recorder::new();
    recorder.record_n(Duration::from_millis(30), 100);
    lagging.hists.insert(Hist::SendLag, recorder.take());
    lagging.counters.insert(Counter::SocketDrops, 1);
    lagging.counters.insert(Counter::SendErrors, 1);
    let faults = Validity::judge(Limits::default(), &[lagging]).faults;
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn generators_merge() {
    let run = RunResult {
        format: FORMAT,
        windows: vec![window(Phase::Measure, 20)],
        ..RunResult::default()
    };
    let mut other = run.clone();
    other.windows.push(window(Phase::Drain, 30));
    other.validity.faults.push("lag".into());
    let mut merged = run.clone();
    merged.merge(other);
    assert_eq!(merged.windows.len(), 2);
    assert_eq!(merged.windows[0].connected, 6);
    assert_eq!(merged.windows[0].hists[&Hist::VideoFrame].count(), 20);
    assert_eq!(merged.outcome(), Outcome::Invalid);
    let json = serde_json::to_string(&merged).unwrap();
    assert_eq!(serde_json::from_str::<RunResult>(&json).unwrap(), merged);
}
