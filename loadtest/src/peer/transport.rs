//! The client's end of a WebRTC transport: full ICE, DTLS and SCTP by str0m, keys tapped for our
//! own SRTP.

use super::Outbox;
use sealcast_model::Time;
use sealcast_session::tap::{TAP, Tap, build_with};
use sealcast_srtp::{Backend, Inbound, KeyError, MasterKey, Outbound, Profile};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::{DtlsCert, Fingerprint};
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::{DtlsVersion, ProtocolVersion};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::{Candidate, Event, IceConnectionState, IceCreds, Input, Output, Rtc, RtcConfig};

/// Label of the relay's data channel (PROTOCOL.md §8).
const CHANNEL_LABEL: &str = "sealcast";

/// Resolution of the transport's timers.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// UDP.
    Udp,
    /// ICE-TCP, opened by the client, framed by RFC 4571.
    Tcp,
}

/// Where a datagram goes or came from, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// UDP or TCP.
    pub proto: Proto,
    /// The client's address, as it was given as a candidate.
    pub local: SocketAddr,
    /// The relay's address.
    pub remote: SocketAddr,
}

/// What all peers of a process share. Cheap to clone.
#[derive(Clone)]
pub struct PeerContext(Arc<Shared>);

struct Shared {
    epoch: Instant,
    srtp: Backend,
    version: DtlsVersion,
    certificate: DtlsCert,
    crypto: Arc<CryptoProvider>,
    dtls: Arc<dimpl::Config>,
}

/// Why a context could not be built.
#[derive(Debug, thiserror::Error)]
#[error("DTLS set-up: {0}")]
pub struct ContextError(String);

impl PeerContext {
    /// A context with a certificate for all its peers. `epoch` is the `Instant` of [`Time::ZERO`].
    ///
    /// # Errors
    /// [`ContextError`] if the DTLS library refuses.
    pub fn new(epoch: Instant, srtp: Backend) -> Result<PeerContext, ContextError> {
        let error = |e: &dyn std::fmt::Display| ContextError(e.to_string());
        let certificate =
            dimpl::certificate::generate_self_signed_certificate().map_err(|e| error(&e))?;
        let dtls = dimpl::Config::builder()
            .with_crypto_provider(str0m_aws_lc_rs::dimpl_crypto_provider())
            .build()
            .map_err(|e| error(&e))?;
        let mut crypto = str0m::crypto::from_feature_flags();
        crypto.dtls_provider = &TAP;
        Ok(PeerContext(Arc::new(Shared {
            epoch,
            srtp,
            version: DtlsVersion::Auto,
            certificate,
            crypto: Arc::new(crypto),
            dtls: Arc::new(dtls),
        })))
    }

    fn instant(&self, t: Time) -> Instant {
        self.0.epoch + Duration::from_nanos(t.as_nanos())
    }

    fn time(&self, t: Instant) -> Time {
        Time::ZERO + t.saturating_duration_since(self.0.epoch)
    }
}

/// The remote side, from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    pub(super) fingerprint: [u8; 32],
    pub(super) candidates: Vec<(Proto, SocketAddr)>,
    /// The remote side waits for our ClientHello.
    pub(super) dtls_passive: bool,
    pub(super) data: bool,
}

/// What our offer says of the transport.
pub(super) struct Local {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    pub(super) fingerprint: [u8; 32],
}

pub(super) enum TransportEvent {
    IceConnected,
    Connected {
        dtls: &'static str,
        profile: Profile,
        srtp: Box<Srtp>,
    },
    DataOpen,
    Data {
        binary: bool,
        data: Vec<u8>,
    },
    Closed,
    Failed(String),
}

/// Both directions' contexts. The streams are kept with the senders.
pub(super) struct Srtp {
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
}

pub(super) struct Transport {
    ctx: PeerContext,
    rtc: Rtc,
    timeout: Time,
    keys: Tap,
    /// Learnt from the DTLS that str0m sends: the pair it nominated.
    route: Option<Route>,
    dtls_client: bool,
    channel: Option<ChannelId>,
    closed: bool,
    events: VecDeque<TransportEvent>,
}

impl Transport {
    /// A transport with these local addresses, idle until [`Transport::connect`].
    pub(super) fn new(
        now: Time,
        ctx: &PeerContext,
        locals: &[(Proto, SocketAddr)],
    ) -> Result<Transport, String> {
        let keys = Tap::default();
        let config = RtcConfig::new()
            .set_crypto_provider(ctx.0.crypto.clone())
            .set_dtls_cert(ctx.0.certificate.clone())
            .set_dtls_version(ctx.0.version)
            .clear_codecs()
            .clear_extension_map();
        let start = ctx.instant(now);
        let mut rtc = build_with(&ctx.0.dtls, &keys, || config.build(start));
        for (proto, addr) in locals {
            rtc.add_local_candidate(candidate(*proto, *addr, TcpType::Active)?);
        }
        Ok(Transport {
            ctx: ctx.clone(),
            rtc,
            timeout: Time::NEVER,
            keys,
            route: None,
            dtls_client: true,
            channel: None,
            closed: false,
            events: VecDeque::new(),
        })
    }

    pub(super) fn local(&mut self) -> Local {
        let api = self.rtc.direct_api();
        let IceCreds { ufrag, pass: pwd } = api.local_ice_credentials();
        let mut fingerprint = [0; 32];
        let bytes = &api.local_dtls_fingerprint().bytes;
        fingerprint[..bytes.len().min(32)].copy_from_slice(&bytes[..bytes.len().min(32)]);
        Local {
            ufrag,
            pwd,
            fingerprint,
        }
    }

    /// Starts ICE towards the remote side of the answer.
    pub(super) fn connect(
        &mut self,
        now: Time,
        remote: &Remote,
        out: &mut Outbox,
    ) -> Result<(), String> {
        for (proto, addr) in &remote.candidates {
            self.rtc
                .add_remote_candidate(candidate(*proto, *addr, TcpType::Passive)?);
        }
        self.dtls_client = remote.dtls_passive;
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: remote.ufrag.clone(),
            pass: remote.pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: remote.fingerprint.to_vec(),
        });
        api.start_dtls(self.dtls_client)
            .map_err(|e| e.to_string())?;
        if remote.data {
            api.start_sctp(self.dtls_client);
            let label = CHANNEL_LABEL.into();
            self.channel = Some(api.create_data_channel(ChannelConfig {
                label,
                ..Default::default()
            }));
        }
        self.drive(now, out);
        Ok(())
    }

    /// The pair that media takes, once DTLS has used it.
    pub(super) fn route(&self) -> Option<Route> {
        self.route
    }

    /// Takes STUN or DTLS.
    pub(super) fn handle_packet(
        &mut self,
        now: Time,
        from: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) {
        let Ok(contents) = packet.try_into() else {
            return; // Not ours to judge: the relay's tests count what it sends.
        };
        let receive = Receive {
            proto: protocol(from.proto),
            source: from.remote,
            destination: from.local,
            contents,
        };
        // A packet that does not parse is lost; DTLS and SCTP send it again.
        let _ = self
            .rtc
            .handle_input(Input::Receive(self.ctx.instant(now), receive));
        self.drive(now, out);
    }

    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if now >= self.timeout {
            self.drive(now, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.timeout
    }

    pub(super) fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Queues a data-channel message; false if there is no channel or its buffer is full.
    pub(super) fn send_data(
        &mut self,
        now: Time,
        binary: bool,
        data: &[u8],
        out: &mut Outbox,
    ) -> bool {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else {
            return false;
        };
        let taken = channel.write(binary, data).unwrap_or(false);
        self.drive(now, out);
        taken
    }

    pub(super) fn close(&mut self, now: Time, out: &mut Outbox) {
        // A handshake that is not done has nobody to tell.
        let _ = self.rtc.close();
        self.drive(now, out);
        self.end(None);
    }

    fn drive(&mut self, now: Time, out: &mut Outbox) {
        if self.closed {
            return;
        }
        if let Err(e) = self.rtc.handle_input(Input::Timeout(self.ctx.instant(now))) {
            tracing::debug!(error = %e, "timer failed");
        }
        while !self.closed {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(t)) => {
                    self.timeout = self.ctx.time(t).max(now + TIMER_STEP);
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let proto = match t.proto {
                        Protocol::Udp => Proto::Udp,
                        _ => Proto::Tcp,
                    };
                    let route = Route {
                        proto,
                        local: t.source,
                        remote: t.destination,
                    };
                    // Only what is not STUN goes over the nominated pair.
                    if t.contents.first().is_some_and(|b| (20..=63).contains(b)) {
                        self.route = Some(route);
                    }
                    out.push(route, &t.contents);
                }
                Ok(Output::Event(event)) => self.on_event(event),
                Err(e) => self.end(Some(e.to_string())),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::IceConnectionStateChange(
                IceConnectionState::Connected | IceConnectionState::Completed,
            ) => self.events.push_back(TransportEvent::IceConnected),
            Event::Connected => match self.srtp() {
                Ok((profile, srtp)) => {
                    let version = self.rtc.direct_api().dtls_protocol_version();
                    let dtls = match version {
                        Some(ProtocolVersion::DTLS1_3) => "1.3",
                        _ => "1.2",
                    };
                    let srtp = Box::new(srtp);
                    self.events.push_back(TransportEvent::Connected {
                        dtls,
                        profile,
                        srtp,
                    });
                }
                Err(e) => self.end(Some(e)),
            },
            Event::ChannelOpen(id, _) if Some(id) == self.channel => {
                self.events.push_back(TransportEvent::DataOpen);
            }
            Event::ChannelData(d) if Some(d.id) == self.channel => {
                self.events.push_back(TransportEvent::Data {
                    binary: d.binary,
                    data: d.data,
                });
            }
            Event::Closed => self.end(None),
            _ => {}
        }
    }

    fn srtp(&mut self) -> Result<(Profile, Srtp), String> {
        let keys = self.keys.take_keys().ok_or("no SRTP profile negotiated")?;
        let contexts = || -> Result<Srtp, KeyError> {
            let (client, server) = MasterKey::pair_from_dtls(keys.profile, &keys.material)?;
            let (ours, theirs) = if self.dtls_client {
                (client, server)
            } else {
                (server, client)
            };
            Ok(Srtp {
                inbound: Inbound::new(self.ctx.0.srtp, &theirs)?,
                outbound: Outbound::new(self.ctx.0.srtp, &ours)?,
            })
        };
        contexts()
            .map(|srtp| (keys.profile, srtp))
            .map_err(|e| e.to_string())
    }

    fn end(&mut self, error: Option<String>) {
        if !self.closed {
            self.closed = true;
            self.timeout = Time::NEVER;
            self.events.push_back(match error {
                Some(e) => TransportEvent::Failed(e),
                None => TransportEvent::Closed,
            });
        }
    }
}

fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Udp => Protocol::Udp,
        Proto::Tcp => Protocol::Tcp,
    }
}

fn candidate(proto: Proto, addr: SocketAddr, tcp: TcpType) -> Result<Candidate, String> {
    match proto {
        Proto::Udp => Candidate::builder().udp().host(addr).build(),
        Proto::Tcp => Candidate::builder().tcp().host(addr).tcptype(tcp).build(),
    }
    .map_err(|e| e.to_string())
}
