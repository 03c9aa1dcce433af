//! Accepts connections and serves HTTP/1.1 on them, within limits: so many connections, so many
//! of one address, so long for a handshake and for headers.

use super::HttpConfig;
use crate::limits;
use crate::metrics::{ConnectionEnd, Metrics};
use axum::Router;
use dashmap::DashMap;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// After this time without progress on sent data the kernel gives a connection up: a client
/// that stops reading must not hold a response in memory for ever.
const STALLED: Duration = Duration::from_secs(30);

/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP or HTTPS server on one listener.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    shared: Arc<Shared>,
}

/// What all connections of a server share.
struct Shared {
    config: HttpConfig,
    metrics: Arc<Metrics>,
    open: AtomicUsize,
    per_ip: DashMap<IpAddr, usize>,
}

impl Server {
    /// A server of `router` on `listener`; HTTPS with `tls`.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        router: Router,
        config: HttpConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        Server {
            listener,
            tls: tls.map(TlsAcceptor::from),
            router,
            shared: Arc::new(Shared {
                config,
                metrics,
                open: AtomicUsize::new(0),
                per_ip: DashMap::new(),
            }),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` becomes true, then closes the listener, lets each connection finish
    /// the request it is at, and returns when all have or the future is dropped.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Server {
            listener,
            tls,
            router,
            shared,
        } = self;
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
                // Ended connections are taken out as they end, so that the set does not grow.
                Some(_) = connections.join_next() => continue,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let permit = match Permit::take(&shared, peer.ip()) {
                Ok(permit) => permit,
                Err(limit) => {
                    shared.metrics.connection_ended(limit);
                    continue;
                }
            };
            let connection = Connection {
                tls: tls.clone(),
                router: router.clone(),
                shared: Arc::clone(&shared),
                stop: stop.clone(),
            };
            connections.spawn(connection.serve(stream, permit));
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// Waits until stopping begins, or until nobody is left who could begin it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts a connection while it lives.
struct Permit {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Permit {
    fn take(shared: &Arc<Shared>, ip: IpAddr) -> Result<Permit, ConnectionEnd> {
        if shared.open.fetch_add(1, Relaxed) >= shared.config.max_connections {
            shared.open.fetch_sub(1, Relaxed);
            return Err(ConnectionEnd::Limit);
        }
        let limit = shared.config.max_connections_per_ip;
        let mut of_ip = shared.per_ip.entry(ip).or_insert(0);
        if limit > 0 && *of_ip >= limit {
            shared.open.fetch_sub(1, Relaxed);
            return Err(ConnectionEnd::LimitPerIp);
        }
        *of_ip += 1;
        drop(of_ip);
        shared.metrics.connection_opened();
        Ok(Permit {
            shared: Arc::clone(shared),
            ip,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(mut of_ip) = self.shared.per_ip.get_mut(&self.ip) {
            *of_ip -= 1;
        }
        self.shared
            .per_ip
            .remove_if(&self.ip, |_, of_ip| *of_ip == 0);
        self.shared.open.fetch_sub(1, Relaxed);
        self.shared.metrics.connection_closed();
    }
}

/// A stream that carries its permit along, so that it counts for as long as it is open, upgraded
/// to a WebSocket or not.
struct Counted {
    stream: TcpStream,
    _permit: Permit,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, permit: Permit) {
        // Signalling messages are small and urgent. Neither option is worth failing for.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED));
        let stream = Counted {
            stream,
            _permit: permit,
        };
        let Some(tls) = self.tls.clone() else {
            return self.http(stream).await;
        };
        match timeout(limits::TLS_HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(_)) => self.shared.metrics.connection_ended(ConnectionEnd::Tls),
            Err(_) => self
                .shared
                .metrics
                .connection_ended(ConnectionEnd::TlsTimeout),
        }
    }

    async fn http<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.config.header_timeout)
            .max_headers(limits::HTTP_HEADERS)
            .max_buf_size(limits::HTTP_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            let end = if error.is_timeout() {
                ConnectionEnd::HeaderTimeout
            } else if error.is_parse() || error.is_incomplete_message() {
                ConnectionEnd::Protocol
            } else {
                // The peer went away.
                return;
            };
            self.shared.metrics.connection_ended(end);
        }
    }
}
