//! Every configuration key, in one table: its name, its kind, its default, what it is for.
//!
//! `config/sealcast.toml` is this table, written out; a test compares the two. A key that nothing
//! reads is a field that nothing reads, which does not compile.

use super::value::{KeyFile, Number, Setting, Time, words};
use super::{Fault, show};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use toml::{Table, Value};

/// A key of the table.
pub(crate) struct Key {
    /// `section.name`.
    pub(crate) name: &'static str,
    /// As it stands in the file.
    pub(crate) default: &'static str,
    /// What it is for, a line each.
    pub(crate) help: &'static [&'static str],
    /// What is allowed.
    pub(crate) allowed: fn() -> String,
}

macro_rules! schema {
    ($($name:literal $field:ident: $kind:ty = $default:literal, $($help:literal)+;)*) => {
        /// The configuration, each field named after its key.
        #[derive(Clone, Debug)]
        pub(crate) struct Settings { $(#[doc = $name] pub(crate) $field: $kind,)* }

        /// All keys, in the order of the file.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            name: $name,
            default: $default,
            help: &[$($help),*],
            allowed: <$kind as Setting>::allowed,
        },)*];

        /// Reads a file's table and appends every value that is not allowed to `faults`. Absent
        /// keys have their default, and so have faulty ones, so that the rest can be checked.
        pub(super) fn read(table: &Table, faults: &mut Vec<Fault>) -> Option<Settings> {
            Some(Settings { $($field: one(table, $name, $default, faults)?,)* })
        }
    };
}

fn one<T: Setting>(table: &Table, name: &str, default: &str, faults: &mut Vec<Fault>) -> Option<T> {
    let (section, key) = name.split_once('.')?;
    if let Some(given) = table.get(section).and_then(|s| s.get(key)) {
        if let Some(value) = T::read(given) {
            return Some(value);
        }
        let rule = format!("must be {}", T::allowed());
        faults.push(Fault::new(name, &show(given), &rule));
    }
    T::read(&literal(default)?)
}

/// A default of the table as a value.
pub(crate) fn literal(default: &str) -> Option<Value> {
    let mut table: Table = format!("x = {default}").parse().ok()?;
    table.remove("x")
}

words! {
    /// Where HTTP's certificate comes from.
    Tls {
        /// Plain HTTP.
        Off = "off",
        /// PEM files.
        Files = "files",
        /// Made at start.
        SelfSigned = "self-signed",
    }
}

words! {
    /// Algorithms of tokens.
    TokenAlgorithm {
        /// ECDSA P-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
        /// HMAC SHA-256.
        Hs256 = "HS256",
    }
}

words! {
    /// Whether unsealed media is possible at all.
    Sealed {
        /// Never.
        Required = "required",
        /// With a grant.
        Optional = "optional",
    }
}

words! {
    /// Where rooms' keys come from.
    Keys {
        /// A group per room (MLS); links with a key go on working.
        Group = "group",
        /// The join link alone.
        Link = "link",
    }
}

words! {
    /// MLS cipher suites of groups.
    GroupSuite {
        /// Curve25519.
        X25519 = "X25519",
        /// P-256.
        P256 = "P-256",
    }
}

words! {
    /// Audio codecs that the relay routes.
    AudioCodec {
        /// RFC 7587.
        Opus = "opus",
        /// RFC 2198.
        Red = "red",
    }
}

words! {
    /// Video codecs that the relay routes.
    VideoCodec {
        /// RFC 7741.
        Vp8 = "VP8",
        /// RFC 9628.
        Vp9 = "VP9",
        /// AV1.
        Av1 = "AV1",
        /// RFC 6184.
        H264 = "H264",
    }
}

words! {
    /// SRTP back ends.
    SrtpBackend {
        /// AWS-LC.
        AwsLcRs = "aws-lc-rs",
        /// The system's OpenSSL.
        OpenSsl = "openssl",
    }
}

words! {
    /// Forms of the log.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines, an object a line.
        Json = "json",
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Bugs and failures.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And who came and went, by pseudonym.
        Info = "info",
        /// And why.
        Debug = "debug",
    }
}

schema! {
    "http.listen" http_listen: Vec<SocketAddr> = r#"["0.0.0.0:7880"]"#,
        "Addresses for the consult page, signalling, WHIP and WHEP.";
    "http.operator_listen" http_operator_listen: Option<SocketAddr> = r#""""#,
        "An address of its own, plain HTTP, for /metrics, /healthz and /readyz."
        "Without one they are served on http.listen, where everybody sees them.";
    "http.tls" http_tls: Tls = r#""off""#,
        "Browsers give a page camera and microphone over HTTPS only, localhost excepted. \"off\" is"
        "for development and for a TLS proxy in front; \"self-signed\" is for development.";
    "http.certificate" http_certificate: Option<PathBuf> = r#""""#,
        "With tls = \"files\": the certificate chain, PEM, the relay's own certificate first.";
    "http.key" http_key: Option<PathBuf> = r#""""#,
        "With tls = \"files\": its private key, PEM, not encrypted.";
    "http.header_timeout" http_header_timeout: Time<100, 60_000> = r#""10s""#,
        "A request's headers must arrive within this time; also how long an idle connection stays.";
    "http.body_timeout" http_body_timeout: Time<100, 60_000> = r#""10s""#,
        "A request's body must arrive within this time.";
    "http.max_connections" http_max_connections: Number<1, 1_000_000> = "10000",
        "Connections at once, signalling sockets included. Each takes a file descriptor.";
    "http.max_connections_per_ip" http_max_connections_per_ip: Number<0, 1_000_000> = "256",
        "Connections of one address at once. 0: no limit, for a proxy in front.";
    "http.frame_ancestors" http_frame_ancestors: Vec<String> = "[]",
        "Origins whose pages may show the consult page in a frame, like \"https://clinic.example\".";

    "auth.algorithm" auth_algorithm: TokenAlgorithm = r#""ES256""#,
        "The one algorithm that tokens are signed with. A token's own word for it is never taken.";
    "auth.issuer" auth_issuer: String = r#""""#,
        "Tokens must have this `iss`. Must be set.";
    "auth.audience" auth_audience: String = r#""sealcast""#,
        "Tokens must have this in `aud`.";
    "auth.max_token_ttl" auth_max_token_ttl: Time<1_000, 604_800_000> = r#""24h""#,
        "A token may expire at most this far in the future.";
    "auth.keys" auth_keys: Vec<KeyFile> = "[]",
        "Keys that tokens are verified with, 1 to 16. For ES256 and EdDSA public keys in PEM suffice;"
        "for HS256 a file with a secret of at least 32 bytes. Must be set.";

    "rooms.sealed" rooms_sealed: Sealed = r#""required""#,
        "\"required\": every track must be sealed (SFrame), and is checked for it. \"optional\": tokens"
        "with the grant `unsealed` may publish media as it is, which WHIP devices need.";
    "rooms.keys" rooms_keys: Keys = r#""group""#,
        "\"group\": rooms have group keys (MLS), which change as people come and go; whoever joins with"
        "a link that carries a key uses that instead. \"link\": links' keys only.";
    "rooms.group_suite" rooms_group_suite: GroupSuite = r#""X25519""#,
        "MLS cipher suite of groups: X25519 with Ed25519, or P-256 for sites bound to NIST curves.";
    "rooms.delivery_seed" rooms_delivery_seed: Option<PathBuf> = r#""""#,
        "File with the 32 bytes that the delivery service's signature key is made from; made at start"
        "if it is not there. With it, groups go on when the relay restarts; without, they start over.";
    "rooms.grace" rooms_grace: Time<1_000, 600_000> = r#""30s""#,
        "How long a participant stays when its signalling socket drops, and its tracks when its"
        "media session ends.";
    "rooms.max_participants_per_room" rooms_max_participants_per_room: Number<1, 10_000> = "200",
        "Participants of one room, WHIP and WHEP included.";
    "rooms.max_participants" rooms_max_participants: Number<1, 1_000_000> = "4096",
        "Participants of the relay.";
    "rooms.spread_participants" rooms_spread_participants: Number<1, 1_000_000> = "100",
        "Participants of one room on one shard. Who comes then is placed on another shard, which gets"
        "each packet of the room once and sends it on to its own.";
    "rooms.spread_packets" rooms_spread_packets: Number<1, 1_000_000_000> = "200000",
        "Packets a second that a shard forwards, of all rooms, above which newcomers to its rooms"
        "are placed on another.";

    "media.bind" media_bind: Vec<IpAddr> = r#"["0.0.0.0"]"#,
        "Addresses that media sockets are bound to. Add \"::\" for IPv6.";
    "media.public_addresses" media_public_addresses: Vec<IpAddr> = "[]",
        "Addresses that clients reach the relay at, where they are not those it is bound to (1:1 NAT)."
        "Without any, those bound to are announced; for \"0.0.0.0\" and \"::\" those of the interfaces.";
    "media.announce_loopback" media_announce_loopback: bool = "false",
        "For \"0.0.0.0\" and \"::\", announce loopback addresses too. For clients on the same machine.";
    "media.udp_port" media_udp_port: Number<0, 65_535> = "7900",
        "UDP port of the first shard; the next shard has the next port. 0: any free ports.";
    "media.tcp" media_tcp: bool = "true",
        "Offer ICE-TCP, for clients whose network passes no UDP.";
    "media.tcp_port" media_tcp_port: Number<0, 65_535> = "7900",
        "TCP port of the first shard; the next shard has the next port. 0: any free ports.";
    "media.tcp_connections" media_tcp_connections: Number<1, 100_000> = "1024",
        "ICE-TCP connections of each shard.";
    "media.shards" media_shards: Number<0, 256> = "0",
        "Shards: threads that forward packets. 0: one for each core that the process may use.";
    "media.single_port" media_single_port: bool = "false",
        "All shards share media.udp_port, for networks that open one port only. Most packets that"
        "clients send then cross from core to core.";
    "media.pin" media_pin: bool = "true",
        "Keep each shard on a core of its own. Only with at most as many shards as cores.";
    "media.realtime_priority" media_realtime_priority: Number<0, 99> = "0",
        "Real-time priority of the shards' threads (SCHED_FIFO), where the system permits it; else they"
        "run without and the log says so. 0: none. For cores that are the shards' own.";
    "media.audio_codecs" media_audio_codecs: Vec<AudioCodec> = r#"["opus", "red"]"#,
        "Audio codecs that are negotiated. \"red\" is Opus in which each packet repeats the one before,"
        "for those who offer it; it is of no use without \"opus\".";
    "media.video_codecs" media_video_codecs: Vec<VideoCodec> = r#"["VP8", "VP9", "AV1", "H264"]"#,
        "Video codecs that are negotiated. The order does not matter: the sender's counts.";
    "media.repair" media_repair: bool = "true",
        "Negotiate retransmission (NACK and RTX).";
    "media.transport_cc" media_transport_cc: bool = "true",
        "Negotiate congestion control: transport-wide, or by REMB with clients that know only that.";
    "media.simulcast" media_simulcast: bool = "true",
        "Negotiate simulcast.";
    "media.max_sessions" media_max_sessions: Number<1, 65_535> = "4096",
        "Media sessions of each shard.";
    "media.max_tracks" media_max_tracks: Number<1, 1_000_000> = "16384",
        "Published tracks of each shard.";
    "media.max_subscriptions" media_max_subscriptions: Number<1, 10_000_000> = "131072",
        "Slots of each shard that show a track.";
    "media.loudest" media_loudest: Number<1, 64> = "8",
        "Voices of a room that are forwarded: the loudest, of those whose packets tell their level.";
    "media.pool_packets" media_pool_packets: Number<1_024, 10_000_000> = "43690",
        "Packets that each shard can hold at once, 1,536 bytes each: between arrival and forwarding,"
        "and as recent history of each track.";
    "media.receive_buffer" media_receive_buffer: Number<65_536, 1_073_741_824> = "4194304",
        "Bytes of each UDP socket's receive buffer. The kernel caps it at net.core.rmem_max.";
    "media.send_buffer" media_send_buffer: Number<65_536, 1_073_741_824> = "4194304",
        "Bytes of each UDP socket's send buffer. The kernel caps it at net.core.wmem_max.";
    "media.receive_batch" media_receive_batch: Number<1, 1_024> = "64",
        "Messages taken by one receive call.";
    "media.gso" media_gso: bool = "true",
        "Hand runs of datagrams to the kernel in one piece (UDP_SEGMENT).";
    "media.gro" media_gro: bool = "true",
        "Take runs of datagrams from the kernel in one piece (UDP_GRO).";
    "media.coalesce" media_coalesce: Number<0, 1_000> = "0",
        "Microseconds that the first datagram to arrive waits for others, so that they leave in fewer"
        "system calls: less CPU at low rates, for as much delay. 0: nothing waits.";
    "media.stamp_interval" media_stamp_interval: Number<0, 1_000_000_000> = "128",
        "One message in so many, on average, is asked when it reached the network device: dwell from"
        "kernel to kernel. Each costs a system call. 0: none.";
    "media.hardware_stamps" media_hardware_stamps: bool = "false",
        "Believe receive timestamps of network cards. Only where they are switched on (hwstamp_ctl)"
        "and the card's clock follows the system's (phc2sys).";

    "srtp.backend" srtp_backend: SrtpBackend = r#""aws-lc-rs""#,
        "What encrypts media between client and relay. \"openssl\" is the system's, for sites that"
        "must use its FIPS provider; it is slower.";

    "dtls.certificate" dtls_certificate: Option<PathBuf> = r#""""#,
        "Certificate of media sessions, PEM, ECDSA P-256 or P-384. Clients learn its fingerprint from"
        "signalling, so a new one at each start, which is the default, is as good.";
    "dtls.key" dtls_key: Option<PathBuf> = r#""""#,
        "Its private key, PEM, not encrypted.";

    "runtime.worker_threads" runtime_worker_threads: Number<0, 256> = "0",
        "Threads for signalling, beside the shards. 0: a quarter of the cores, at least 2.";

    "shutdown.notice" shutdown_notice: Time<0, 600_000> = r#""1s""#,
        "On SIGTERM clients are told, and calls go on for this time.";
    "shutdown.deadline" shutdown_deadline: Time<1_000, 900_000> = r#""10s""#,
        "After this time, the notice included, the relay ends whatever is still open.";

    "log.format" log_format: LogFormat = r#""text""#,
        "\"json\" writes one object a line. Names of rooms, tokens, subjects, SDP and addresses of"
        "clients are never logged.";
    "log.level" log_level: LogLevel = r#""info""#,
        "The least important messages that are logged.";
}
