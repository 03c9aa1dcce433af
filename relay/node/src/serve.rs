//! A relay's life: shards and listeners up, a signal, everything down in order.

use crate::addresses::Announcement;
use crate::config::check::{backend, codecs};
use crate::config::schema::Sealed;
use crate::config::{Checked, Settings};
use sealcast_control::flight::FlightReader;
use sealcast_control::http::server::Server;
use sealcast_control::http::{self, App, HttpConfig};
use sealcast_control::metrics::{Metrics, MetricsError};
use sealcast_control::rooms::{Rooms, RoomsConfig, ShardPort, Spread};
use sealcast_control::sdp::MediaPolicy;
use sealcast_control::token::Minter;
use sealcast_io::{
    Bind, Clock, MediaConfig, Mesh, SessionContext, ShardConfig, ShardIoConfig, ShardThread,
};
use sealcast_model::limits::EVENT_QUEUE;
use sealcast_model::{Event, ShardId};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// The version that the relay tells.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often a stopping relay looks whether clients and shards are gone.
const STOP_POLL: Duration = Duration::from_millis(10);

/// Why a relay cannot run. The operator or the system is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A listener.
    #[error("listening on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A shard.
    #[error(transparent)]
    Shard(#[from] sealcast_io::StartError),
    /// The DTLS certificate.
    #[error("{0}")]
    Context(String),
    /// No address to announce.
    #[error("there is no address to announce: set media.bind or media.public_addresses")]
    NoAddress,
    /// The delivery service's key.
    #[error(transparent)]
    Delivery(#[from] crate::delivery::SeedError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Threads, signals, interfaces.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs a relay until a signal. `minter`: development mode.
pub(crate) fn run(checked: Checked, minter: Option<Minter>) -> Result<(), ServeError> {
    let runtime = runtime(&checked.settings)?;
    let deadline = checked.settings.shutdown_deadline.get();
    let result = runtime.block_on(serve(checked, minter));
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(deadline.min(Duration::from_millis(500)));
    result
}

/// Signalling beside pinned shards needs little, and must not starve them: a quarter of the
/// cores, but two threads, so that one long parse delays nobody.
fn runtime(settings: &Settings) -> io::Result<Runtime> {
    let threads = match settings.runtime_worker_threads.get() {
        0 => (sealcast_io::usable_cores()?.len() / 4).max(2),
        n => usize::try_from(n).unwrap_or(2),
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("control")
        .enable_all()
        .build()
}

async fn serve(checked: Checked, minter: Option<Minter>) -> Result<(), ServeError> {
    // Before anything that takes time, so that a signal during start is not lost.
    let mut signals = Signals::new()?;
    let Checked {
        settings,
        verifier,
        tls,
        dtls,
    } = checked;
    let development = minter.is_some();
    let metrics = Metrics::new(VERSION)?;
    let shards = Shards::start(&settings, dtls)?;
    let stats = || shards.ports.iter().map(|p| (p.id, Arc::clone(&p.stats)));
    metrics.export_shards(stats().collect())?;
    let clock = shards.clock;
    let flight = FlightReader::new(stats().collect(), move || clock.now());
    let rooms = Rooms::with_group_keys(
        rooms_config(&settings),
        media_policy(&settings),
        shards.fingerprint,
        shards.ports.clone(),
        Arc::clone(&metrics),
        tokio::runtime::Handle::current(),
        crate::delivery::key(&settings)?,
    );
    let threads = shards.bridge(&rooms)?;
    let app = Arc::new(App {
        rooms,
        verifier,
        development: minter,
        metrics,
        flight,
        config: http_config(&settings),
        version: VERSION,
    });
    let (stop, stopping) = watch::channel(false);
    let https = tls.is_some();
    let servers = listen(&settings, &app, tls, development).await?;
    let url = servers.url(https);
    let mut running = servers.run(&stopping);
    if development {
        tracing::warn!(
            "DEVELOPMENT MODE: built-in keys; whoever reaches this relay can join any room"
        );
    } else if !https {
        tracing::warn!(
            "HTTP without TLS: browsers give a camera to localhost only, unless a proxy adds TLS"
        );
    }
    // A relay serves whether or not anybody can read this: `println!` would panic on a full disk.
    let _unread = writeln!(
        io::stdout(),
        "sealcast {VERSION} is ready. Consult page: {url}"
    );

    signals.wait().await;
    let deadline = Instant::now() + settings.shutdown_deadline.get();
    let stopped = async {
        app.rooms.stop(settings.shutdown_notice.get()).await;
        stop.send_replace(true);
        while app.metrics.open_sockets() > 0 {
            sleep(STOP_POLL).await;
        }
        while running.join_next().await.is_some() {}
        app.rooms.stop_shards();
        join(threads).await;
    };
    tokio::select! {
        result = timeout_at(deadline, stopped) => match result {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("shutdown.deadline passed; ending what is still open"),
        },
        () = signals.wait() => tracing::warn!("a second signal; ending at once"),
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

/// Running shards, before the control plane listens to them.
struct Shards {
    clock: Clock,
    fingerprint: [u8; 32],
    ports: Vec<ShardPort>,
    threads: Vec<(ShardThread, Receiver<Event>)>,
}

impl Shards {
    fn start(settings: &Settings, dtls: Option<(Vec<u8>, Vec<u8>)>) -> Result<Self, ServeError> {
        let clock = Clock::start();
        let srtp = backend(settings.srtp_backend);
        let context = match dtls {
            Some((cert, key)) => SessionContext::from_pem(clock.epoch(), srtp, &cert, &key),
            None => SessionContext::generate(clock.epoch(), srtp),
        };
        let context = context.map_err(|e| ServeError::Context(e.to_string()))?;
        let cores = sealcast_io::usable_cores()?;
        let count = match usize::try_from(settings.media_shards.get()) {
            Ok(0) | Err(_) => cores.len().max(1),
            Ok(count) => count,
        };
        let announcement = Announcement::new(
            &settings.media_public_addresses,
            settings.media_announce_loopback,
        )?;
        let mut shards = Shards {
            clock,
            fingerprint: context.fingerprint_sha256(),
            ports: Vec::new(),
            threads: Vec::new(),
        };
        let meshes = Mesh::of(u16::try_from(count).map_err(io::Error::other)?);
        let mut shared_port = None;
        for (index, mut mesh) in meshes.into_iter().enumerate() {
            let core = cores.get(index).copied().filter(|_| settings.media_pin);
            let mut config = shard_config(settings, index, core)?;
            if settings.media_single_port {
                mesh.share_port();
                config.share_port = true;
                let port = shared_port.unwrap_or(settings.media_udp_port.get() as u16);
                config
                    .udp
                    .iter_mut()
                    .for_each(|bind| bind.addr.set_port(port));
            }
            let (events, inbox) = sync_channel(EVENT_QUEUE);
            let sink = Box::new(move |_: ShardId, event| offer(&events, event));
            let thread = ShardThread::spawn_in(&config, context.clone(), clock, sink, Some(mesh))?;
            shared_port = thread.port.udp.first().map(SocketAddr::port);
            let port = ShardPort {
                id: thread.port.id,
                commands: thread.port.commands.clone(),
                udp: announcement.of(&thread.port.udp),
                tcp: announcement.of(&thread.port.tcp),
                stats: Arc::clone(&thread.port.stats),
            };
            if port.udp.is_empty() {
                return Err(ServeError::NoAddress);
            }
            tracing::info!(shard = index, core, udp = ?port.udp, tcp = ?port.tcp, "shard started");
            shards.ports.push(port);
            shards.threads.push((thread, inbox));
        }
        Ok(shards)
    }

    /// Hands each shard's events to the control plane, on a thread that may wait for a lock
    /// where the shard's own must not.
    fn bridge(self, rooms: &Arc<Rooms>) -> io::Result<Vec<ShardThread>> {
        let mut threads = Vec::with_capacity(self.threads.len());
        for (thread, inbox) in self.threads {
            let rooms = Arc::clone(rooms);
            std::thread::Builder::new()
                .name(format!("events-{}", thread.port.id.0))
                .spawn(move || {
                    for event in inbox {
                        rooms.handle_event(event);
                    }
                    rooms.shard_ended();
                })?;
            threads.push(thread);
        }
        Ok(threads)
    }
}

/// Puts an event into a shard's queue, or gives it back for later.
fn offer(queue: &SyncSender<Event>, event: Event) -> Result<(), Event> {
    match queue.try_send(event) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(event)) => Err(event),
        // The control plane is gone, and with it everyone who could want to know.
        Err(TrySendError::Disconnected(_)) => Ok(()),
    }
}

fn shard_config(
    settings: &Settings,
    index: usize,
    core: Option<usize>,
) -> Result<ShardIoConfig, ServeError> {
    let id = u16::try_from(index).map_err(|_| io::Error::other("too many shards"))?;
    let port = |base: u64| match u16::try_from(base) {
        Ok(0) | Err(_) => 0,
        Ok(base) => base.saturating_add(id),
    };
    let binds = |port: u16| -> Vec<Bind> {
        let ips = settings.media_bind.iter();
        ips.map(|ip| Bind::new(SocketAddr::new(*ip, port)))
            .collect()
    };
    let mut config = ShardIoConfig::new(ShardId(id));
    config.core = core;
    config.realtime_priority = u8::try_from(settings.media_realtime_priority.get()).unwrap_or(0);
    config.shard = ShardConfig {
        media: MediaConfig {
            rooms: settings.media_max_sessions.size(),
            peers: settings.media_max_sessions.size(),
            tracks: settings.media_max_tracks.size(),
            subscriptions: settings.media_max_subscriptions.size(),
            loudest: settings.media_loudest.size(),
        },
        pool_packets: settings.media_pool_packets.size(),
        seed: seed()?,
    };
    config.udp = binds(port(settings.media_udp_port.get()));
    if settings.media_tcp {
        config.tcp = binds(port(settings.media_tcp_port.get()));
    }
    config.receive_buffer = settings.media_receive_buffer.size();
    config.send_buffer = settings.media_send_buffer.size();
    config.receive_batch = settings.media_receive_batch.size();
    config.gso = settings.media_gso;
    config.gro = settings.media_gro;
    config.coalesce = Duration::from_micros(settings.media_coalesce.get());
    config.stamp_interval = u32::try_from(settings.media_stamp_interval.get()).unwrap_or(u32::MAX);
    config.hardware_stamps = settings.media_hardware_stamps;
    config.tcp_connections = settings.media_tcp_connections.size();
    Ok(config)
}

/// SSRCs and sequence numbers must not be guessable (RFC 3550 §5.1, RFC 7667), so each shard's
/// generator starts at random.
fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn rooms_config(settings: &Settings) -> RoomsConfig {
    RoomsConfig {
        grace: settings.rooms_grace.get(),
        sealed_required: settings.rooms_sealed == Sealed::Required,
        max_participants_per_room: settings.rooms_max_participants_per_room.size(),
        max_participants: settings.rooms_max_participants.size(),
        spread: Spread {
            participants: settings.rooms_spread_participants.size(),
            packets_per_second: settings.rooms_spread_packets.get(),
        },
    }
}

fn media_policy(settings: &Settings) -> MediaPolicy {
    let (audio, video) = codecs(&settings.media_audio_codecs, &settings.media_video_codecs);
    MediaPolicy {
        audio,
        video,
        repair: settings.media_repair,
        transport_cc: settings.media_transport_cc,
        simulcast: settings.media_simulcast,
    }
}

fn http_config(settings: &Settings) -> HttpConfig {
    HttpConfig {
        header_timeout: settings.http_header_timeout.get(),
        body_timeout: settings.http_body_timeout.get(),
        max_connections: settings.http_max_connections.size(),
        max_connections_per_ip: settings.http_max_connections_per_ip.size(),
        frame_ancestors: settings.http_frame_ancestors.clone(),
    }
}

/// Bound servers.
struct Servers(Vec<(SocketAddr, Server)>);

impl Servers {
    /// The consult page's URL: of the first listener, by a name that a browser on this machine
    /// can use.
    fn url(&self, https: bool) -> String {
        let scheme = if https { "https" } else { "http" };
        let Some((addr, _)) = self.0.first() else {
            return String::new();
        };
        let host = match addr.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{scheme}://{host}:{}/", addr.port())
    }

    fn run(self, stopping: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut set = JoinSet::new();
        for (_, server) in self.0 {
            set.spawn(server.run(stopping.clone()));
        }
        set
    }
}

async fn listen(
    settings: &Settings,
    app: &Arc<App>,
    tls: Option<Arc<rustls::ServerConfig>>,
    development: bool,
) -> Result<Servers, ServeError> {
    let mut clients = http::router(Arc::clone(app));
    let mut operators = http::operator_router(Arc::clone(app));
    let inspection = http::inspection_router(Arc::clone(app));
    if settings.http_operator_listen.is_none() {
        clients = clients.merge(operators.clone());
        if development {
            clients = clients.merge(inspection);
        }
    } else {
        operators = operators.merge(inspection);
    }
    let server = |listener, tls, router| {
        let config = app.config.clone();
        Server::new(listener, tls, router, config, Arc::clone(&app.metrics))
    };
    let mut servers = Vec::new();
    for addr in &settings.http_listen {
        let listener = match TcpListener::bind(addr).await {
            // Several relays in development share a machine; the log says where each is.
            Err(e) if development && e.kind() == io::ErrorKind::AddrInUse => {
                TcpListener::bind(SocketAddr::new(addr.ip(), 0)).await
            }
            bound => bound,
        };
        let listener = listener.map_err(|e| ServeError::Listen(*addr, e))?;
        let local = listener.local_addr()?;
        servers.push((local, server(listener, tls.clone(), clients.clone())));
    }
    if let Some(addr) = settings.http_operator_listen {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|e| ServeError::Listen(addr, e))?;
        let local = listener.local_addr()?;
        servers.push((local, server(listener, None, operators)));
    }
    Ok(Servers(servers))
}

/// Waits until every shard's thread has ended.
async fn join(threads: Vec<ShardThread>) {
    for thread in threads {
        while !thread.is_finished() {
            // A full queue may have swallowed the first request.
            let _ = thread.stop();
            sleep(STOP_POLL).await;
        }
        let shard = thread.port.id.0;
        if let Err(error) = thread.join() {
            tracing::error!(shard, %error, "a shard failed");
        }
    }
}
