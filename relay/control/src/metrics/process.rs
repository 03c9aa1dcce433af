//! The process as the system sees it: CPU time, memory, file descriptors, threads.
//!
//! The names are those that Prometheus' client libraries agree on. CPU time has the resolution that
//! the system gives, so that a load test of seconds can be accounted for; that of a shard's thread
//! has nanoseconds, and says how much of its core is left.

use super::shards::Families;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use std::collections::HashMap;
use std::fs;

/// Ticks of a second in /proc: USER_HZ, 100 wherever Linux has a 64-bit ABI.
const TICKS: f64 = 100.0;

/// Family names with their help.
const CPU: (&str, &str) = (
    "process_cpu_seconds_total",
    "User and system CPU time of the process.",
);
const RESIDENT: (&str, &str) = (
    "process_resident_memory_bytes",
    "Memory of the process that is backed by RAM.",
);
const FILES: (&str, &str) = ("process_open_fds", "Open file descriptors.");
const FILES_MAX: (&str, &str) = ("process_max_fds", "Limit of open file descriptors.");
const THREADS: (&str, &str) = ("process_threads", "Threads.");
const SHARD_CPU: (&str, &str) = (
    "sealcast_shard_cpu_seconds_total",
    "CPU time of a shard's thread.",
);

pub(super) struct ProcessCollector {
    descs: Vec<Desc>,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let desc = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let mut descs = vec![desc(SHARD_CPU, &["shard"])?];
        for plain in [CPU, RESIDENT, FILES, FILES_MAX, THREADS] {
            descs.push(desc(plain, &[])?);
        }
        Ok(ProcessCollector { descs })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    /// What the system does not tell is left out.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::default();
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(cpu) {
            out.counter_of(CPU, Vec::new(), seconds);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = field(&status, "VmRSS:") {
            out.gauge(
                RESIDENT.0,
                RESIDENT.1,
                Vec::new(),
                kib.saturating_mul(1_024),
            );
        }
        if let Some(threads) = field(&status, "Threads:") {
            out.gauge(THREADS.0, THREADS.1, Vec::new(), threads);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            out.gauge(FILES.0, FILES.1, Vec::new(), files.count() as u64);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = field(&limits, "Max open files") {
            out.gauge(FILES_MAX.0, FILES_MAX.1, Vec::new(), most);
        }
        for (shard, seconds) in shard_threads() {
            out.counter_of(SHARD_CPU, super::shards::labels(&shard, &[]), seconds);
        }
        out.into_vec()
    }
}

/// CPU seconds in the text of /proc/self/stat (proc_pid_stat(5)): fields 14 and 15. The second
/// field, in parentheses, may hold anything.
fn cpu(stat: String) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS)
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Shards by number with the CPU seconds of their threads, which are named for them.
fn shard_threads() -> Vec<(String, f64)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let mut shards: Vec<_> = tasks
        .flatten()
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let shard = name.trim_end().strip_prefix("shard-")?.to_owned();
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanos: u64 = stat.split(' ').next()?.parse().ok()?;
            Some((shard, nanos as f64 / 1e9))
        })
        .collect();
    shards.sort_by(|a, b| a.0.cmp(&b.0));
    shards.dedup_by(|a, b| a.0 == b.0);
    shards
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_one_field() {
        let stat = "7 (a ) 1 2) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 5";
        assert_eq!(cpu(stat.to_owned()), Some(3.0));
        assert_eq!(cpu("7 (a) S 1".to_owned()), None);
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t3\n", "Threads:"), Some(3));
        assert_eq!(field("VmRSS:\t  x kB\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let (runs, running) = std::sync::mpsc::channel();
        let shard = std::thread::Builder::new()
            .name("shard-11".into())
            .spawn(move || {
                // A thread takes its name itself, before it runs this.
                runs.send(()).unwrap();
                wait.recv()
            });
        running.recv().unwrap();
        let text = String::from_utf8(Metrics::new("1").unwrap().text()).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}\n{text}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        assert!(value("process_threads ") >= 2.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("sealcast_shard_cpu_seconds_total{shard=\"11\"} ") >= 0.0);
        drop(stop);
        assert!(shard.unwrap().join().unwrap().is_err());
    }
}
