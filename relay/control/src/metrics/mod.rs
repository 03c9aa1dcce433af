//! What operators see: the control plane's own counters and, read when asked, those of every
//! shard. No label holds anything that tells a room, a person or an address.

mod process;
mod shards;

use crate::refusal::Refusal;
use crate::rooms::TrackReport;
use crate::sdp::{Role, SdpErrorKind};
use crate::token::TokenError;
use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use sealcast_delivery::{Counters, DeliveryError};
use sealcast_model::{CommandError, ShardId, ShardStats};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The relay's metrics.
pub struct Metrics {
    registry: Registry,
    /// Names of what [`Metrics::new`] registered: a family without a series yet is not gathered.
    names: BTreeSet<String>,
    participants: IntGaugeVec,
    sockets: IntGauge,
    sockets_closed: IntCounterVec,
    requests: IntCounterVec,
    resumes: IntCounterVec,
    tokens_refused: IntCounterVec,
    tokens_accepted: IntCounter,
    sdp_refused: IntCounterVec,
    whip: IntCounterVec,
    connected: IntCounterVec,
    shard_refused: IntCounterVec,
    groups: IntGauge,
    group_events: IntCounterVec,
    group_messages: IntCounterVec,
    sealed_messages: IntCounterVec,
    client_frames: IntCounterVec,
    connections: IntGauge,
    connections_refused: IntCounterVec,
    connection_errors: IntCounterVec,
}

/// The metrics could not be set up: two have one name. A bug.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// Why a signalling socket ended, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEnd {
    /// The client closed it or vanished.
    Client,
    /// The relay closed it, after an error or on leaving.
    Relay,
    /// No `join` in time.
    JoinTimeout,
    /// Silent for too long.
    Idle,
    /// The client reads too slowly.
    TooSlow,
}

impl SocketEnd {
    const ALL: [SocketEnd; 5] = [
        SocketEnd::Client,
        SocketEnd::Relay,
        SocketEnd::JoinTimeout,
        SocketEnd::Idle,
        SocketEnd::TooSlow,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            SocketEnd::Client => "client",
            SocketEnd::Relay => "relay",
            SocketEnd::JoinTimeout => "join_timeout",
            SocketEnd::Idle => "idle",
            SocketEnd::TooSlow => "too_slow",
        }
    }
}

/// Why a connection was refused or broken off, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// `http.max_connections`.
    Limit,
    /// `http.max_connections_per_ip`.
    LimitPerIp,
    /// The TLS handshake failed.
    Tls,
    /// The TLS handshake took too long.
    TlsTimeout,
    /// Headers took too long.
    HeaderTimeout,
    /// Malformed or oversized HTTP.
    Protocol,
    /// A body took too long.
    BodyTimeout,
    /// A body over its limit.
    BodyTooLarge,
}

impl ConnectionEnd {
    const ALL: [ConnectionEnd; 8] = [
        ConnectionEnd::Limit,
        ConnectionEnd::LimitPerIp,
        ConnectionEnd::Tls,
        ConnectionEnd::TlsTimeout,
        ConnectionEnd::HeaderTimeout,
        ConnectionEnd::Protocol,
        ConnectionEnd::BodyTimeout,
        ConnectionEnd::BodyTooLarge,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            ConnectionEnd::Limit => "limit",
            ConnectionEnd::LimitPerIp => "limit_per_ip",
            ConnectionEnd::Tls => "tls",
            ConnectionEnd::TlsTimeout => "tls_timeout",
            ConnectionEnd::HeaderTimeout => "header_timeout",
            ConnectionEnd::Protocol => "protocol",
            ConnectionEnd::BodyTimeout => "body_timeout",
            ConnectionEnd::BodyTooLarge => "body_too_large",
        }
    }

    const fn is_refusal(self) -> bool {
        matches!(self, ConnectionEnd::Limit | ConnectionEnd::LimitPerIp)
    }
}

impl Metrics {
    /// All metrics at zero. `version` labels `sealcast_build_info`.
    ///
    /// # Errors
    /// [`MetricsError`] if two metrics have one name.
    pub fn new(version: &str) -> Result<Arc<Self>, MetricsError> {
        let registry = Registry::new();
        let names = RefCell::new(BTreeSet::new());
        let counters = |name: &str, help: &str, labels: &[&str]| {
            names.borrow_mut().insert(name.to_owned());
            let c = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(c.clone()))?;
            Ok::<_, prometheus::Error>(c)
        };
        let gauge = |name: &str, help: &str| {
            let g = IntGauge::new(name, help)?;
            registry.register(Box::new(g.clone()))?;
            Ok::<_, prometheus::Error>(g)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            names.borrow_mut().insert(name.to_owned());
            let g = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(g.clone()))?;
            Ok::<_, prometheus::Error>(g)
        };
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        let tokens_accepted = IntCounter::new(
            "sealcast_tokens_accepted_total",
            "Tokens that opened a room.",
        )?;
        registry.register(Box::new(tokens_accepted.clone()))?;
        let build = gauges("sealcast_build_info", "Always 1.", &["version"])?;
        build.with_label_values(&[version]).set(1);
        let metrics = Metrics {
            participants: gauges(
                "sealcast_participants",
                "Participants, by how they joined.",
                &["role"],
            )?,
            sockets: gauge("sealcast_signal_sockets", "Signalling sockets open.")?,
            sockets_closed: counters(
                "sealcast_signal_sockets_closed_total",
                "Signalling sockets closed, by cause.",
                &["cause"],
            )?,
            requests: counters(
                "sealcast_signal_requests_total",
                "Signalling requests, by type and result.",
                &["type", "result"],
            )?,
            resumes: counters(
                "sealcast_signal_resumes_total",
                "Attempts to resume, by result.",
                &["result"],
            )?,
            tokens_refused: counters(
                "sealcast_tokens_refused_total",
                "Tokens refused, by reason.",
                &["reason"],
            )?,
            tokens_accepted,
            sdp_refused: counters(
                "sealcast_sdp_refused_total",
                "Offers refused, by reason.",
                &["reason"],
            )?,
            whip: counters(
                "sealcast_whip_requests_total",
                "WHIP and WHEP requests, by endpoint, method and status.",
                &["endpoint", "method", "status"],
            )?,
            connected: counters(
                "sealcast_media_connected_total",
                "Media sessions connected, by what they negotiated.",
                &["transport", "dtls", "srtp"],
            )?,
            shard_refused: counters(
                "sealcast_shard_requests_refused_total",
                "Commands that a shard refused or did not take, by error.",
                &["error"],
            )?,
            groups: gauge("sealcast_groups", "Rooms with an MLS group.")?,
            group_events: counters(
                "sealcast_group_events_total",
                "What delivery services did, by kind.",
                &["event"],
            )?,
            group_messages: counters(
                "sealcast_group_messages_total",
                "Clients' messages to delivery services, by result.",
                &["result"],
            )?,
            sealed_messages: counters(
                "sealcast_sealed_messages_total",
                "Sealed messages handed on, by lane.",
                &["lane"],
            )?,
            client_frames: counters(
                "sealcast_client_frames_total",
                "Frames that clients say they opened, or could not, by result.",
                &["result"],
            )?,
            connections: gauge("sealcast_http_connections", "HTTP connections open.")?,
            connections_refused: counters(
                "sealcast_http_connections_refused_total",
                "HTTP connections refused, by limit.",
                &["limit"],
            )?,
            connection_errors: counters(
                "sealcast_http_errors_total",
                "HTTP connections and requests broken off, by cause.",
                &["cause"],
            )?,
            registry: registry.clone(),
            names: names.into_inner(),
        };
        metrics.start_at_zero();
        Ok(Arc::new(metrics))
    }

    /// Makes series that alerts watch exist before their first event.
    fn start_at_zero(&self) {
        for role in [Role::Interactive, Role::Publisher, Role::Player] {
            self.participants
                .with_label_values(&[role_name(role)])
                .set(0);
        }
        self.group_events(&Counters::default(), &Counters::default());
        self.client_frames(&TrackReport::NOTHING);
        for code in DeliveryError::CODES {
            self.group_messages.with_label_values(&[code]);
        }
        for lane in ["signalling", "data_channel"] {
            self.sealed_messages.with_label_values(&[lane]);
        }
        for error in TokenError::ALL {
            self.tokens_refused.with_label_values(&[error.reason()]);
        }
        for reason in SdpErrorKind::REASONS {
            self.sdp_refused.with_label_values(&[reason]);
        }
        for end in SocketEnd::ALL {
            self.sockets_closed.with_label_values(&[end.as_str()]);
        }
        for end in ConnectionEnd::ALL {
            self.of(end).with_label_values(&[end.as_str()]);
        }
        for error in COMMAND_ERRORS {
            self.shard_refused
                .with_label_values(&[command_error_name(error)]);
        }
    }

    /// Adds the shards' counters to what is exported.
    ///
    /// # Errors
    /// [`MetricsError`] if called twice.
    pub fn export_shards(
        &self,
        shards: Vec<(ShardId, Arc<ShardStats>)>,
    ) -> Result<(), MetricsError> {
        Ok(self
            .registry
            .register(Box::new(shards::ShardCollector::new(shards)?))?)
    }

    /// Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics could not be written");
        }
        out
    }

    /// Names of all metrics that are exported or will be.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let families = self.registry.gather();
        let gathered = families.iter().map(|f| f.name().to_owned());
        self.names.iter().cloned().chain(gathered).collect()
    }

    /// Signalling sockets open now.
    #[must_use]
    pub fn open_sockets(&self) -> i64 {
        self.sockets.get()
    }

    pub(crate) fn participant_joined(&self, role: Role) {
        self.participants
            .with_label_values(&[role_name(role)])
            .inc();
    }

    pub(crate) fn participant_left(&self, role: Role) {
        self.participants
            .with_label_values(&[role_name(role)])
            .dec();
    }

    pub(crate) fn socket_opened(&self) {
        self.sockets.inc();
    }

    pub(crate) fn socket_closed(&self, end: SocketEnd) {
        self.sockets.dec();
        self.sockets_closed.with_label_values(&[end.as_str()]).inc();
    }

    /// What happened between two readings of a delivery service's counters.
    pub(crate) fn group_events(&self, before: &Counters, now: &Counters) {
        for ((event, before), (_, now)) in group_events(before).into_iter().zip(group_events(now)) {
            let events = self.group_events.with_label_values(&[event]);
            events.inc_by(now.saturating_sub(before));
        }
    }

    pub(crate) fn group_active(&self, active: bool) {
        if active {
            self.groups.inc();
        } else {
            self.groups.dec();
        }
    }

    /// `refused` is the code of a delivery error.
    pub(crate) fn group_message(&self, refused: Option<&'static str>) {
        let result = refused.unwrap_or("ok");
        self.group_messages.with_label_values(&[result]).inc();
    }

    /// `lane`: `signalling` or `data_channel`.
    pub(crate) fn sealed_message(&self, lane: &'static str) {
        self.sealed_messages.with_label_values(&[lane]).inc();
    }

    pub(crate) fn client_frames(&self, report: &TrackReport) {
        for (result, frames) in report.by_result() {
            let counter = self.client_frames.with_label_values(&[result]);
            counter.inc_by(u64::from(frames));
        }
    }

    /// `request` must be a name from the protocol, never one that a client made up.
    pub(crate) fn request<T>(&self, request: &'static str, result: &Result<T, Refusal>) {
        let result = match result {
            Ok(_) => "ok",
            Err(refusal) => refusal.code.as_str(),
        };
        self.requests.with_label_values(&[request, result]).inc();
    }

    pub(crate) fn resumed(&self, ok: bool) {
        let result = if ok { "ok" } else { "unknown" };
        self.resumes.with_label_values(&[result]).inc();
    }

    pub(crate) fn token<T>(&self, result: &Result<T, TokenError>) {
        match result {
            Ok(_) => self.tokens_accepted.inc(),
            Err(error) => self
                .tokens_refused
                .with_label_values(&[error.reason()])
                .inc(),
        }
    }

    pub(crate) fn sdp_refused(&self, kind: SdpErrorKind) {
        self.sdp_refused.with_label_values(&[kind.reason()]).inc();
    }

    pub(crate) fn whip(&self, endpoint: &'static str, method: &'static str, status: u16) {
        let labels = [endpoint, method, &status.to_string()];
        self.whip.with_label_values(&labels).inc();
    }

    pub(crate) fn connected(&self, transport: &str, dtls: &str, srtp: &str) {
        self.connected
            .with_label_values(&[transport, dtls, srtp])
            .inc();
    }

    pub(crate) fn shard_refused(&self, error: CommandError) {
        let error = command_error_name(error);
        self.shard_refused.with_label_values(&[error]).inc();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_ended(&self, end: ConnectionEnd) {
        self.of(end).with_label_values(&[end.as_str()]).inc();
    }

    /// What counts ends of this kind.
    fn of(&self, end: ConnectionEnd) -> &IntCounterVec {
        if end.is_refusal() {
            &self.connections_refused
        } else {
            &self.connection_errors
        }
    }
}

/// A delivery service's counters with their labels.
const fn group_events(c: &Counters) -> [(&'static str, u64); 7] {
    [
        ("commit", c.commits),
        ("stale_commit", c.stale_commits),
        ("invalid_commit", c.invalid_commits),
        ("undone", c.undone),
        ("added_again", c.added_again),
        ("rebuilt", c.rebuilt),
        ("stalled", c.stalled),
    ]
}

/// Every error of a shard.
const COMMAND_ERRORS: [CommandError; 8] = [
    CommandError::NoSession,
    CommandError::NoTrack,
    CommandError::NoSlot,
    CommandError::MidInUse,
    CommandError::CodecUnsupported,
    CommandError::Limit,
    CommandError::Busy,
    CommandError::Invalid,
];

const fn command_error_name(error: CommandError) -> &'static str {
    match error {
        CommandError::NoSession => "no_session",
        CommandError::NoTrack => "no_track",
        CommandError::NoSlot => "no_slot",
        CommandError::MidInUse => "mid_in_use",
        CommandError::CodecUnsupported => "codec_unsupported",
        CommandError::Limit => "limit",
        CommandError::Busy => "busy",
        CommandError::Invalid => "invalid",
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Interactive => "interactive",
        Role::Publisher => "whip",
        Role::Player => "whep",
    }
}
