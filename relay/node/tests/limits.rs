//! docs/LIMITS.md is every limit of the relay: those in the sources and those in the configuration.
//! This test writes it (`SEALCAST_WRITE_DOCS=1 cargo test -p sealcast --test limits`) and compares.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

use sealcast_control::metrics::Metrics;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// Where limits stand, with a heading.
const SOURCES: [(&str, &str); 8] = [
    ("Media sessions and packets", "relay/model/src/limits.rs"),
    ("Signalling and HTTP", "relay/control/src/limits.rs"),
    ("SDP", "relay/control/src/sdp/mod.rs"),
    ("ICE, DTLS and data channels", "relay/session/src/limits.rs"),
    ("Media", "relay/media/src/limits.rs"),
    ("Shards", "relay/shard/src/limits.rs"),
    ("Sockets", "relay/io/src/limits.rs"),
    ("Group keys", "relay/delivery/src/limits.rs"),
];

/// What is counted when a limit is hit. The others are times and sizes that nobody exceeds: what
/// is more waits, is cut off or makes room by itself.
const COUNTED: &[(&str, &str)] = &[
    (
        "DATAGRAM_MAX",
        "sealcast_dropped_total{reason=\"oversize\"}",
    ),
    (
        "SLOTS_PER_SESSION",
        "sealcast_sdp_refused_total{reason=\"too_many\"}",
    ),
    (
        "TRACKS_PER_SESSION",
        "sealcast_sdp_refused_total{reason=\"too_many\"}",
    ),
    (
        "SSRCS_PER_SESSION",
        "sealcast_sdp_refused_total{reason=\"too_many\"}",
    ),
    (
        "RIDS_PER_MEDIA",
        "sealcast_sdp_refused_total{reason=\"too_many\"}",
    ),
    (
        "DATA_MESSAGE_MAX",
        "sealcast_dropped_total{reason=\"data_message\"}",
    ),
    (
        "COMMAND_QUEUE",
        "sealcast_shard_requests_refused_total{error=\"busy\"}",
    ),
    ("EVENT_QUEUE", "sealcast_events_dropped_total"),
    (
        "MESH_LANE",
        "sealcast_mesh_messages_total{outcome=\"ring_full\"}",
    ),
    (
        "MESH_BUFFERS",
        "sealcast_mesh_messages_total{outcome=\"no_buffer\"}",
    ),
    ("MESH_ROUTES", "sealcast_mesh_routes_refused_total"),
    (
        "CONNECT_DEADLINE",
        "sealcast_sessions_closed_total{reason=\"connect_timeout\"}",
    ),
    (
        "CONSENT_TIMEOUT",
        "sealcast_sessions_closed_total{reason=\"consent_lost\"}",
    ),
    (
        "JOIN_DEADLINE",
        "sealcast_signal_sockets_closed_total{cause=\"join_timeout\"}",
    ),
    (
        "IDLE_TIMEOUT",
        "sealcast_signal_sockets_closed_total{cause=\"idle\"}",
    ),
    (
        "WRITE_TIMEOUT",
        "sealcast_signal_sockets_closed_total{cause=\"too_slow\"}",
    ),
    (
        "OUT_QUEUE",
        "sealcast_signal_sockets_closed_total{cause=\"too_slow\"}",
    ),
    (
        "OUT_QUEUE_BYTES",
        "sealcast_signal_sockets_closed_total{cause=\"too_slow\"}",
    ),
    (
        "REQUESTS_PER_SECOND",
        "sealcast_signal_requests_total{result=\"rate_limited\"}",
    ),
    (
        "REQUEST_BURST",
        "sealcast_signal_requests_total{result=\"rate_limited\"}",
    ),
    (
        "OUTSTANDING",
        "sealcast_signal_requests_total{result=\"rate_limited\"}",
    ),
    (
        "SEALED_PER_SECOND",
        "sealcast_signal_requests_total{result=\"rate_limited\"}",
    ),
    (
        "SEALED_BURST",
        "sealcast_signal_requests_total{result=\"rate_limited\"}",
    ),
    (
        "SHARD_REPLY",
        "sealcast_shard_requests_refused_total{error=\"busy\"}",
    ),
    (
        "TOKEN_BYTES",
        "sealcast_tokens_refused_total{reason=\"malformed\"}",
    ),
    (
        "HTTP_HEADERS",
        "sealcast_http_errors_total{cause=\"protocol\"}",
    ),
    (
        "HTTP_HEADER_BYTES",
        "sealcast_http_errors_total{cause=\"protocol\"}",
    ),
    (
        "SMALL_BODY",
        "sealcast_http_errors_total{cause=\"body_too_large\"}",
    ),
    (
        "TLS_HANDSHAKE",
        "sealcast_http_errors_total{cause=\"tls_timeout\"}",
    ),
    (
        "SDP_BYTES",
        "sealcast_sdp_refused_total{reason=\"too_large\"}",
    ),
    (
        "MEDIA_SECTIONS",
        "sealcast_sdp_refused_total{reason=\"too_many\"}",
    ),
    (
        "LINE_BYTES",
        "sealcast_sdp_refused_total{reason=\"too_large\"}",
    ),
    ("ENTRIES", "sealcast_sdp_refused_total{reason=\"too_many\"}"),
    ("SEAL_VIOLATIONS", "sealcast_tracks_blocked_total"),
    ("INBOX_MAX", "sealcast_dropped_total{reason=\"pool_empty\"}"),
    ("PACED_MAX", "sealcast_dropped_total{reason=\"pacer\"}"),
    ("EVENTS", "sealcast_events_dropped_total"),
    ("EVENT_DATA_BYTES", "sealcast_events_dropped_total"),
    (
        "SEND_WAIT",
        "sealcast_dropped_total{reason=\"send_buffer\"}",
    ),
    (
        "STAMP_PATIENCE",
        "sealcast_transmit_stamps_total{outcome=\"lost\"}",
    ),
    (
        "TCP_SEND_QUEUE",
        "sealcast_dropped_total{reason=\"tcp_backpressure\"}",
    ),
    ("TCP_UNUSED", "sealcast_ice_tcp_expired_total"),
    (
        "BURST",
        "sealcast_group_messages_total{result=\"rate_limited\"}",
    ),
    (
        "RATE",
        "sealcast_group_messages_total{result=\"rate_limited\"}",
    ),
    (
        "STALLED_AFTER",
        "sealcast_group_events_total{event=\"stalled\"}",
    ),
    (
        "http.header_timeout",
        "sealcast_http_errors_total{cause=\"header_timeout\"}",
    ),
    (
        "http.body_timeout",
        "sealcast_http_errors_total{cause=\"body_timeout\"}",
    ),
    (
        "http.max_connections",
        "sealcast_http_connections_refused_total{limit=\"limit\"}",
    ),
    (
        "http.max_connections_per_ip",
        "sealcast_http_connections_refused_total{limit=\"limit_per_ip\"}",
    ),
    (
        "auth.max_token_ttl",
        "sealcast_tokens_refused_total{reason=\"lifetime\"}",
    ),
    (
        "rooms.max_participants_per_room",
        "sealcast_signal_requests_total{result=\"room_full\"}",
    ),
    (
        "rooms.max_participants",
        "sealcast_signal_requests_total{result=\"room_full\"}",
    ),
    ("media.tcp_connections", "sealcast_ice_tcp_refused_total"),
    (
        "media.max_sessions",
        "sealcast_shard_requests_refused_total{error=\"limit\"}",
    ),
    (
        "media.max_tracks",
        "sealcast_shard_requests_refused_total{error=\"limit\"}",
    ),
    (
        "media.max_subscriptions",
        "sealcast_shard_requests_refused_total{error=\"limit\"}",
    ),
    (
        "media.pool_packets",
        "sealcast_dropped_total{reason=\"pool_empty\"}",
    ),
    (
        "media.send_buffer",
        "sealcast_dropped_total{reason=\"send_buffer\"}",
    ),
];

const HEAD: &str = "# Limits

Everything that a client, a network or an operator can make grow has a limit, with a reason. This
page is made from the sources and the configuration by a test (`cargo test -p sealcast --test
limits`), which fails when it is out of date. \"Counted by\" is the metric that grows when a limit is
hit; where there is none, the limit is an interval, or what exceeds it waits or makes room.

";

struct Limit {
    name: String,
    value: String,
    reason: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The public constants of a file, with their documentation.
fn constants(source: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut docs = String::new();
    let mut statement = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            let _ = write!(
                docs,
                "{}{}",
                if docs.is_empty() { "" } else { " " },
                doc.trim()
            );
        } else if !statement.is_empty() || line.starts_with("pub const ") {
            statement.push_str(line);
            if !line.ends_with(';') {
                continue;
            }
            let declared = statement
                .trim_start_matches("pub const ")
                .trim_end_matches(';');
            let (name, rest) = declared.split_once(": ").unwrap();
            let (kind, value) = rest.split_once('=').unwrap();
            // Those of a function or a table are no limits.
            if matches!(
                kind.trim(),
                "usize" | "u64" | "u32" | "u16" | "u8" | "Duration"
            ) {
                limits.push(Limit {
                    name: name.to_owned(),
                    value: pretty(value.trim()),
                    reason: plain(&std::mem::take(&mut docs)),
                });
            }
            statement.clear();
            docs.clear();
        } else {
            docs.clear();
        }
    }
    limits
}

/// A value as people write it.
fn pretty(value: &str) -> String {
    let number = |text: &str| text.trim().trim_end_matches(')').replace('_', ",");
    for (call, unit) in [("secs", "s"), ("millis", "ms"), ("micros", "µs")] {
        if let Some(rest) = value.strip_prefix(&format!("Duration::from_{call}(")) {
            return format!("{} {unit}", number(rest));
        }
    }
    let last = value.rsplit("::").next().unwrap_or(value);
    number(last).replace('*', "×")
}

/// Documentation without its links.
fn plain(docs: &str) -> String {
    let mut out = String::new();
    let mut rest = docs;
    while let Some((before, after)) = rest.split_once("[`") {
        out.push_str(before);
        let (name, after) = after.split_once("`]").unwrap();
        let short = name.rsplit("::").next().unwrap_or(name);
        let _ = write!(out, "`{short}`");
        // The target of a link with one of its own.
        rest = match after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    out.push_str(rest);
    out.replace('|', "\\|")
}

/// The keys of the configuration that are numbers or times, with their comments.
fn keys(config: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let (mut section, mut docs, mut allowed) = (String::new(), Vec::new(), String::new());
    for line in config.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some(rule) = line.strip_prefix("# Allowed: ") {
            allowed = rule.trim_end_matches('.').to_owned();
        } else if let Some(doc) = line.strip_prefix("# ") {
            docs.push(doc);
        } else if let Some((key, value)) = line.split_once(" = ") {
            let numeric = ["a whole number ", "a time "];
            if let Some(range) = numeric.iter().find_map(|n| allowed.strip_prefix(n)) {
                limits.push(Limit {
                    name: format!("{section}.{key}"),
                    value: format!("{} ({})", value.trim_matches('"'), range.replace('"', "")),
                    reason: docs.join(" "),
                });
            }
            docs.clear();
            allowed.clear();
        } else {
            docs.clear();
        }
    }
    limits
}

fn table(
    out: &mut String,
    heading: &str,
    path: &str,
    limits: &[Limit],
    counted: &BTreeMap<&str, &str>,
) {
    let _ = write!(
        out,
        "## {heading}\n\nIn `{path}`.\n\n| Limit | Value | Counted by | Reason |\n|---|---|---|---|\n"
    );
    for Limit {
        name,
        value,
        reason,
    } in limits
    {
        assert!(!reason.is_empty(), "{name} has no reason");
        let metric = counted.get(name.as_str());
        let metric = metric.map_or("—".to_owned(), |m| {
            format!("`{}`", m.strip_prefix("sealcast_").unwrap_or(m))
        });
        let _ = writeln!(out, "| `{name}` | {value} | {metric} | {reason} |");
    }
    out.push('\n');
}

#[test]
fn limits_md_is_what_the_sources_say() {
    let counted: BTreeMap<_, _> = COUNTED.iter().copied().collect();
    let mut out = HEAD.to_owned();
    let mut names = BTreeSet::new();
    let mut add = |heading: &str, path: &str, limits: Vec<Limit>| {
        assert!(!limits.is_empty(), "{path} has no limits");
        names.extend(limits.iter().map(|l| l.name.clone()));
        table(&mut out, heading, path, &limits, &counted);
    };
    let config = "config/sealcast.toml";
    add("Set by operators", config, keys(&read(config)));
    for (heading, path) in SOURCES {
        add(heading, path, constants(&read(path)));
    }
    let exported = Metrics::new("1").unwrap().names();
    for (limit, metric) in &counted {
        assert!(names.contains(*limit), "{limit} is no limit");
        let name = metric.split('{').next().unwrap();
        let exported = exported.contains(name) || sealcast_shard_metric(name);
        assert!(exported, "{limit}: the relay exports no {name}");
    }
    let out = format!("{}\n", out.trim_end());
    let path = root().join("docs/LIMITS.md");
    if std::env::var_os("SEALCAST_WRITE_DOCS").is_some() {
        std::fs::write(&path, &out).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == out,
        "docs/LIMITS.md is out of date: SEALCAST_WRITE_DOCS=1 cargo test -p sealcast --test limits"
    );
}

/// Whether a shard counts under this name.
fn sealcast_shard_metric(name: &str) -> bool {
    let counters = sealcast_model::Counter::ALL.iter().map(|c| c.series().name);
    let gauges = sealcast_model::Gauge::ALL.iter().map(|g| g.series().name);
    counters.chain(gauges).any(|n| n == name) || name == "sealcast_sessions_closed_total"
}

#[test]
fn links_and_durations_are_made_readable() {
    let source = "/// At most [`a::B`] of\n/// [`c`](d::e), see.\npub const X_Y: Duration = Duration::from_millis(1_500);\n\
                  /// R.\npub const Z: usize = 256 * 1_024;\npub const T: [u8; 2] = [1, 2];";
    let limits = constants(source);
    let [x, z] = &limits[..] else { panic!() };
    assert_eq!((x.name.as_str(), x.value.as_str()), ("X_Y", "1,500 ms"));
    assert_eq!(x.reason, "At most `B` of `c`, see.");
    assert_eq!((z.name.as_str(), z.value.as_str()), ("Z", "256 × 1,024"));
}
