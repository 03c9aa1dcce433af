//! Counters and histograms of one shard: one table that names them, one writer, many readers.
//!
//! A shard's thread is the only writer, so an increment is a relaxed load and store, with no
//! locked instruction. The control plane reads them for `/metrics`.

use crate::command::CloseReason;
use crate::flight::FlightRecorder;
use crate::histogram::{Histogram, bump};
use crate::media::Source;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One time series: metric name, help text, and label pairs beside `shard`.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Prometheus metric name.
    pub name: &'static str,
    /// Help text; the first of a name counts.
    pub help: &'static str,
    /// Labels of this series.
    pub labels: &'static [(&'static str, &'static str)],
}

macro_rules! series {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal $help:literal $([$($k:literal : $v:literal),*])?;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $kind { $(#[doc = $help] $variant,)* }

        impl $kind {
            /// Every series, in declaration order.
            pub const ALL: &'static [$kind] = &[$($kind::$variant,)*];
            /// How it is exported.
            #[must_use]
            pub const fn series(self) -> Series {
                match self {
                    $($kind::$variant => Series { name: $name, help: $help, labels: &[$($(($k, $v)),*)?] },)*
                }
            }
        }
    };
}

series! {
    /// Monotonic counters. Media counters by source are in [`ShardStats::media`].
    Counter {
        DatagramsIn = "sealcast_datagrams_received_total" "Datagrams received.";
        DatagramsOut = "sealcast_datagrams_sent_total" "Datagrams handed to the kernel.";
        ReceiveCalls = "sealcast_receive_calls_total" "Receive system calls.";
        SendCalls = "sealcast_send_calls_total" "Send system calls.";
        MessagesOut = "sealcast_messages_sent_total" "Messages handed to the kernel, each of one datagram or of several that it cuts up.";
        SendErrors = "sealcast_send_errors_total" "Datagrams the kernel refused.";
        Wakeups = "sealcast_wakeups_total" "Times the shard's thread woke.";
        BusyNanos = "sealcast_busy_nanoseconds_total" "Time that the shard's thread worked instead of waiting.";
        DropOversize = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "oversize"];
        DropUnknownProtocol = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unknown_protocol"];
        DropUnknownSource = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unknown_source"];
        DropStunMalformed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "stun_malformed"];
        DropStunUnknownUser = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "stun_unknown_user"];
        DropStunUnauthenticated = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "stun_unauthenticated"];
        DropDtlsUnvalidated = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "dtls_unvalidated_path"];
        DropDtlsMalformed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "dtls_malformed"];
        DropSrtpNoKeys = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "srtp_before_keys"];
        DropSrtpAuth = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "srtp_auth"];
        DropSrtpReplay = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "srtp_replay"];
        DropSrtpMalformed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "srtp_malformed"];
        DropRtpMalformed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "rtp_malformed"];
        DropRtcpMalformed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "rtcp_malformed"];
        DropUnknownSsrc = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unknown_ssrc"];
        DropUnknownPayload = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unknown_payload_type"];
        DropNotPublished = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "not_published"];
        DropDuplicate = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "duplicate"];
        DropMuted = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "muted"];
        DropUnsealed = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unsealed"];
        DropCodec = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "codec_not_negotiated"];
        DropPoolEmpty = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "pool_empty"];
        DropPaced = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "pacer"];
        DropNoPath = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "no_path"];
        DropTcpBackpressure = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "tcp_backpressure"];
        DropTcpFraming = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "tcp_framing"];
        DropDataMessage = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "data_message"];
        DropDataRate = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "data_rate"];
        DropEgressFull = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "egress_full"];
        DropUnsealable = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "unsealable"];
        DropSendBuffer = "sealcast_dropped_total" "Packets dropped, by reason." ["reason": "send_buffer"];
        RtcpInSr = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "sr"];
        RtcpInRr = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "rr"];
        RtcpInNack = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "nack"];
        RtcpInPli = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "pli"];
        RtcpInFir = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "fir"];
        RtcpInTwcc = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "twcc"];
        RtcpInRemb = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "remb"];
        RtcpInCcfb = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "ccfb"];
        RtcpInBye = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "bye"];
        RtcpInOther = "sealcast_rtcp_received_total" "RTCP packets received, by type." ["type": "other"];
        RtcpOutSr = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "sr"];
        RtcpOutRr = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "rr"];
        RtcpOutNack = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "nack"];
        RtcpOutPli = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "pli"];
        RtcpOutFir = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "fir"];
        RtcpOutTwcc = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "twcc"];
        RtcpOutCcfb = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "ccfb"];
        RtcpOutRemb = "sealcast_rtcp_sent_total" "RTCP packets sent, by type." ["type": "remb"];
        RetransmitSent = "sealcast_retransmissions_total" "Packets that subscribers asked for again, by outcome." ["outcome": "sent"];
        RetransmitTooSoon = "sealcast_retransmissions_total" "Packets that subscribers asked for again, by outcome." ["outcome": "too_soon"];
        RetransmitOverBudget = "sealcast_retransmissions_total" "Packets that subscribers asked for again, by outcome." ["outcome": "over_budget"];
        RetransmitGone = "sealcast_retransmissions_total" "Packets that subscribers asked for again, by outcome." ["outcome": "gone"];
        Paced = "sealcast_paced_total" "Packets of video that waited for room on their subscriber's path.";
        PaddingSent = "sealcast_padding_sent_total" "Padding packets sent to probe subscribers' paths.";
        DiagnosticPaused = "sealcast_diagnostic_pauses_total" "Diagnostic tracks paused for a subscriber whose path does not carry them whole.";
        RepairsReceived = "sealcast_repairs_received_total" "Lost packets that publishers sent again in time.";
        SessionsConnected = "sealcast_sessions_connected_total" "Sessions that finished ICE and DTLS.";
        SessionPanics = "sealcast_session_panics_total" "Bugs contained to one session.";
        PathChanges = "sealcast_path_changes_total" "Sessions that moved to another address.";
        TracksBlocked = "sealcast_tracks_blocked_total" "Tracks blocked because their media was not sealed.";
        StampedIn = "sealcast_receive_stamps_total" "Datagrams received, by the timestamp that came with them." ["stamp": "software"];
        StampedInHardware = "sealcast_receive_stamps_total" "Datagrams received, by the timestamp that came with them." ["stamp": "hardware"];
        UnstampedIn = "sealcast_receive_stamps_total" "Datagrams received, by the timestamp that came with them." ["stamp": "none"];
        StampedOut = "sealcast_transmit_stamps_total" "Messages whose transmit timestamp was asked for, by outcome." ["outcome": "stamped"];
        StampLost = "sealcast_transmit_stamps_total" "Messages whose transmit timestamp was asked for, by outcome." ["outcome": "lost"];
        GsoRefused = "sealcast_gso_refused_total" "Send batches that the kernel would not segment, sent one by one.";
        TcpAccepted = "sealcast_ice_tcp_accepted_total" "ICE-TCP connections accepted.";
        TcpRefused = "sealcast_ice_tcp_refused_total" "ICE-TCP connections refused at the limit.";
        TcpExpired = "sealcast_ice_tcp_expired_total" "ICE-TCP connections closed because no session used them.";
        MeshSent = "sealcast_mesh_messages_total" "Messages between shards about rooms on several of them, by outcome." ["outcome": "sent"];
        MeshFull = "sealcast_mesh_messages_total" "Messages between shards about rooms on several of them, by outcome." ["outcome": "ring_full"];
        MeshNoBuffer = "sealcast_mesh_messages_total" "Messages between shards about rooms on several of them, by outcome." ["outcome": "no_buffer"];
        MeshReceived = "sealcast_mesh_received_total" "Messages taken from other shards.";
        MeshRoutesFull = "sealcast_mesh_routes_refused_total" "5-tuples of other shards that a shard had no room to note, where shards share a port.";
        HandedOn = "sealcast_handed_on_total" "Datagrams handed on to the shard whose they are, where shards share a port.";
        MeshRepaired = "sealcast_mesh_repairs_total" "Packets that another shard missed and asked for, by outcome." ["outcome": "sent"];
        MeshUnrepaired = "sealcast_mesh_repairs_total" "Packets that another shard missed and asked for, by outcome." ["outcome": "gone"];
        EventsDropped = "sealcast_events_dropped_total" "Events to the control plane lost to a full queue.";
    }
}

series! {
    /// Values that go up and down.
    Gauge {
        Sessions = "sealcast_sessions" "Sessions open.";
        Rooms = "sealcast_rooms" "Rooms with a participant.";
        Tracks = "sealcast_tracks" "Tracks published.";
        MirroredTracks = "sealcast_mirrored_tracks" "Tracks of other shards that can be shown here.";
        Subscriptions = "sealcast_subscriptions" "Slots that show a track.";
        TcpConnections = "sealcast_ice_tcp_connections" "ICE-TCP connections open.";
        PoolFree = "sealcast_packet_pool_free" "Free packet-pool slots.";
        PoolCapacity = "sealcast_packet_pool_capacity" "All packet-pool slots.";
    }
}

/// Media counters of one source.
#[derive(Debug, Default)]
pub struct MediaStats {
    /// RTP packets received.
    pub packets_in: AtomicU64,
    /// RTP bytes received, header included, seal and SRTP tag excluded.
    pub bytes_in: AtomicU64,
    /// RTP packets forwarded.
    pub packets_out: AtomicU64,
    /// RTP bytes forwarded.
    pub bytes_out: AtomicU64,
    /// From the kernel's receipt to the end of the send call. Every packet that the kernel took.
    pub dwell: Histogram,
    /// Its parts, by [`Stage`].
    pub stages: [Histogram; Stage::ALL.len()],
}

/// A part of the time that a packet spends in the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// From the kernel's receive timestamp to the end of the call that read the packet. Every
    /// packet that was stamped.
    KernelQueue,
    /// From there to the beginning of the send call. Every packet that the kernel took.
    Relay,
    /// From there to the kernel's transmit timestamp. Packets of sampled messages.
    Wire,
    /// From the receive timestamp to the transmit timestamp. Packets of sampled messages.
    Total,
}

impl Stage {
    /// Every stage, in the order that packets go through them, and their sum.
    pub const ALL: [Stage; 4] = [Stage::KernelQueue, Stage::Relay, Stage::Wire, Stage::Total];

    /// The stage's name in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::KernelQueue => "kernel_queue",
            Stage::Relay => "relay",
            Stage::Wire => "wire",
            Stage::Total => "total",
        }
    }
}

/// Everything one shard counts. On cache lines of its own (two, since processors fetch pairs), or
/// what another thread writes beside it would be written into this shard's cache, packet by packet.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardStats {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
    closed: [AtomicU64; CloseReason::ALL.len()],
    media: [MediaStats; Source::ALL.len()],
    /// How late the shard's timers ran.
    pub loop_lag: Histogram,
    /// The slowest packets of the last minute.
    pub flight: FlightRecorder,
}

impl Default for ShardStats {
    fn default() -> Self {
        ShardStats {
            counters: std::array::from_fn(|_| AtomicU64::default()),
            gauges: std::array::from_fn(|_| AtomicU64::default()),
            closed: std::array::from_fn(|_| AtomicU64::default()),
            media: std::array::from_fn(|_| MediaStats::default()),
            loop_lag: Histogram::default(),
            flight: FlightRecorder::default(),
        }
    }
}

impl ShardStats {
    /// Adds `n` to a counter. Only the shard's own thread may call this.
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.counters[counter as usize], n);
    }

    /// Reads a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// Sets a gauge. Only the shard's own thread may call this.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].store(value, Relaxed);
    }

    /// Reads a gauge.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].load(Relaxed)
    }

    /// Counts a closed session. Only the shard's own thread may call this.
    pub fn closed(&self, reason: CloseReason) {
        bump(&self.closed[reason as usize], 1);
    }

    /// Sessions closed for this reason.
    #[must_use]
    pub fn closed_count(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Relaxed)
    }

    /// Counters of one source.
    #[must_use]
    pub fn media(&self, source: Source) -> &MediaStats {
        &self.media[source as usize]
    }
}

impl MediaStats {
    /// The histogram of one stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }

    /// Counts received packets. Only the shard's own thread may call this.
    pub fn received(&self, packets: u64, bytes: u64) {
        bump(&self.packets_in, packets);
        bump(&self.bytes_in, bytes);
    }

    /// Counts forwarded packets. Only the shard's own thread may call this.
    pub fn forwarded(&self, packets: u64, bytes: u64) {
        bump(&self.packets_out, packets);
        bump(&self.bytes_out, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_exported_once() {
        let mut seen = std::collections::HashSet::new();
        for c in Counter::ALL {
            assert!(
                seen.insert(format!("{:?}", (c.series().name, c.series().labels))),
                "{c:?}"
            );
        }
        for g in Gauge::ALL {
            assert!(
                seen.insert(format!("{:?}", (g.series().name, g.series().labels))),
                "{g:?}"
            );
        }
    }
}
