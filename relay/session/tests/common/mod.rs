//! A WebRTC client made of str0m alone, and a network between it and a session under a virtual
//! clock.
//!
//! The client's SRTP is str0m's, so what the two exchange checks our keys and our SRTP against
//! an independent implementation.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

use sealcast_model::{CloseReason, SessionId, Time, WebRtcParams};
use sealcast_session::{Path, Refusal, Session, SessionContext, SessionOutput, Transport};
use sealcast_srtp::Backend;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::{DtlsVersion, Fingerprint};
use str0m::media::MediaKind;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

pub(crate) const RELAY: &str = "203.0.113.1:7000";
pub(crate) const CLIENT: &str = "198.51.100.1:1111";
pub(crate) const MID: &str = "0";
/// SSRC that the client sends on, and the one that the relay sends on.
pub(crate) const UP: u32 = 0x0a0a_0a0a;
pub(crate) const DOWN: u32 = 0x0b0b_0b0b;
/// VP8 in str0m's default codecs.
pub(crate) const PT: u8 = 96;

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn udp(remote: SocketAddr) -> Path {
    Path {
        transport: Transport::Udp,
        local: addr(RELAY),
        remote,
    }
}

pub(crate) fn epoch() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock is virtual from here on"
    )]
    Instant::now()
}

/// Called on every packet before it reaches the relay; false drops it.
pub(crate) type Tamper = Box<dyn FnMut(&mut Session, Time, &[u8]) -> bool>;

/// What the two sides did, and the wire between them.
pub(crate) struct World {
    pub(crate) epoch: Instant,
    pub(crate) now: Time,
    pub(crate) client: Rtc,
    client_timeout: Time,
    pub(crate) session: Session,
    pub(crate) channel: Option<ChannelId>,
    /// The client's address as the relay sees it; change it to rebind the NAT.
    pub(crate) client_addr: SocketAddr,
    pub(crate) transport: Transport,
    /// Nothing the client sends arrives any more.
    pub(crate) client_silent: bool,
    pub(crate) client_failed: Option<String>,
    pub(crate) client_events: Vec<Event>,
    pub(crate) outputs: Vec<SessionOutput>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) opened: Vec<Vec<u8>>,
    /// Opened SRTCP packets.
    pub(crate) opened_rtcp: usize,
    pub(crate) tamper: Tamper,
}

pub(crate) struct Setup {
    pub(crate) version: DtlsVersion,
    pub(crate) backend: Backend,
    pub(crate) sctp: bool,
    pub(crate) wrong_fingerprint: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            version: DtlsVersion::Auto,
            backend: Backend::AwsLcRs,
            sctp: true,
            wrong_fingerprint: false,
        }
    }
}

pub(crate) fn context(epoch: Instant, backend: Backend) -> SessionContext {
    SessionContext::generate(epoch, backend).unwrap()
}

/// Parameters as the control plane would have taken them from `client`'s offer.
pub(crate) fn params(client: &mut Rtc, sctp: bool) -> WebRtcParams {
    let api = client.direct_api();
    let creds = api.local_ice_credentials();
    let fingerprint = api.local_dtls_fingerprint().bytes.clone();
    WebRtcParams {
        local_ufrag: "relayufrag".into(),
        local_pwd: "relay-password-with-22-chars".into(),
        remote_ufrag: creds.ufrag,
        remote_pwd: creds.pass,
        remote_fingerprint: fingerprint.try_into().unwrap(),
        sctp_port: sctp.then_some(5_000),
    }
}

/// A full-ICE client that is about to connect to a relay with these parameters.
pub(crate) fn start_client(
    client: &mut Rtc,
    params: &WebRtcParams,
    ctx: &SessionContext,
) -> Option<ChannelId> {
    client.add_local_candidate(Candidate::host(addr(CLIENT), "udp").unwrap());
    client.add_remote_candidate(Candidate::host(addr(RELAY), "udp").unwrap());
    let mut api = client.direct_api();
    api.set_ice_controlling(true);
    api.set_remote_ice_credentials(IceCreds {
        ufrag: params.local_ufrag.clone(),
        pass: params.local_pwd.clone(),
    });
    api.set_remote_fingerprint(Fingerprint {
        hash_func: "sha-256".into(),
        bytes: ctx.fingerprint_sha256().to_vec(),
    });
    api.declare_media(MID.into(), MediaKind::Video);
    api.declare_stream_tx(UP.into(), None, MID.into(), None);
    api.expect_stream_rx(DOWN.into(), None, MID.into(), None);
    api.start_dtls(true).unwrap();
    params.sctp_port.map(|_| {
        api.start_sctp(true);
        api.create_data_channel(ChannelConfig {
            label: "sealcast".into(),
            ..Default::default()
        })
    })
}

impl World {
    pub(crate) fn new(setup: Setup) -> World {
        let epoch = epoch();
        let now = Time::from_millis(1_000);
        let ctx = context(epoch, setup.backend);
        let start = epoch + Duration::from_nanos(now.as_nanos());
        let mut client = RtcConfig::new()
            .set_rtp_mode(true)
            .set_dtls_version(setup.version)
            .build(start);
        let mut params = params(&mut client, setup.sctp);
        if setup.wrong_fingerprint {
            params.remote_fingerprint[7] ^= 1;
        }
        let channel = start_client(&mut client, &params, &ctx);
        let session = Session::new(now, &ctx, SessionId(7), &params).unwrap();
        World {
            epoch,
            now,
            client,
            client_timeout: now,
            session,
            channel,
            client_addr: addr(CLIENT),
            transport: Transport::Udp,
            client_silent: false,
            client_failed: None,
            client_events: vec![],
            outputs: vec![],
            refusals: vec![],
            opened: vec![],
            opened_rtcp: 0,
            tamper: Box::new(|_, _, _| true),
        }
    }

    /// One that has connected and opened its data channel.
    pub(crate) fn connected(setup: Setup) -> World {
        let mut world = World::new(setup);
        world.run(Duration::from_secs(3));
        assert!(
            world.session.is_connected(),
            "{:?} {:?}",
            world.outputs,
            world.refusals
        );
        assert!(world.data_open());
        world
    }

    pub(crate) fn instant(&self, t: Time) -> Instant {
        self.epoch + Duration::from_nanos(t.as_nanos())
    }

    pub(crate) fn client_path(&self) -> Path {
        Path {
            transport: self.transport,
            ..udp(self.client_addr)
        }
    }

    pub(crate) fn connected_as(&self) -> Option<(&'static str, &'static str)> {
        self.outputs.iter().find_map(|o| match o {
            SessionOutput::Connected { dtls, srtp_profile } => Some((*dtls, srtp_profile.name())),
            _ => None,
        })
    }

    pub(crate) fn data_open(&self) -> bool {
        self.outputs
            .iter()
            .any(|o| matches!(o, SessionOutput::DataOpen))
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.outputs.iter().find_map(|o| match o {
            SessionOutput::Closed(reason) => Some(*reason),
            _ => None,
        })
    }

    /// Advances the virtual clock by `d`, carrying every packet at once.
    pub(crate) fn run(&mut self, d: Duration) {
        let end = self.now + d;
        loop {
            while self.exchange() {}
            let next = self.client_timeout.min(self.session.poll_timeout());
            if next > end {
                break;
            }
            self.now = next.max(self.now + Duration::from_millis(1));
            if self.now > end {
                break;
            }
        }
        self.now = end;
    }

    /// Runs due timers and carries what they produce. True if anything was carried.
    pub(crate) fn exchange(&mut self) -> bool {
        if self.client_timeout <= self.now {
            self.client
                .handle_input(Input::Timeout(self.instant(self.now)))
                .unwrap();
        }
        let mut carried = false;
        for packet in self.poll_client() {
            carried = true;
            self.session_receives(&packet);
        }
        if self.session.poll_timeout() <= self.now {
            self.session.handle_timeout(self.now);
        }
        carried | self.carry_outputs()
    }

    /// Moves the session's outputs to the client and into the log.
    pub(crate) fn carry_outputs(&mut self) -> bool {
        let mut to_client = VecDeque::new();
        while let Some(output) = self.session.poll_output() {
            if let SessionOutput::Transmit { path, bytes } = &output
                && *path == self.client_path()
            {
                to_client.push_back(bytes.clone());
            }
            self.outputs.push(output);
        }
        let carried = !to_client.is_empty();
        for packet in to_client {
            self.client_receives(&packet);
        }
        carried
    }

    /// Everything the client wants sent.
    pub(crate) fn poll_client(&mut self) -> Vec<Vec<u8>> {
        let mut packets = vec![];
        loop {
            let output = match self.client.poll_output() {
                Ok(output) => output,
                Err(e) => {
                    // For instance, its handshake timed out. It says no more.
                    self.client_failed = Some(e.to_string());
                    self.client_timeout = Time::NEVER;
                    return packets;
                }
            };
            match output {
                Output::Timeout(t) => {
                    self.client_timeout = Time::ZERO + t.saturating_duration_since(self.epoch);
                    return packets;
                }
                Output::Transmit(t) => packets.push(t.contents.to_vec()),
                Output::Event(e) => self.client_events.push(e),
            }
        }
    }

    pub(crate) fn client_receives(&mut self, packet: &[u8]) {
        let receive = Receive {
            proto: Protocol::Udp,
            source: addr(RELAY),
            // The NAT translates back.
            destination: addr(CLIENT),
            contents: packet.try_into().unwrap(),
        };
        self.client
            .handle_input(Input::Receive(self.instant(self.now), receive))
            .unwrap();
    }

    /// Demultiplexes a client's packet as a shard would.
    pub(crate) fn session_receives(&mut self, packet: &[u8]) {
        if self.client_silent || !(self.tamper)(&mut self.session, self.now, packet) {
            return;
        }
        let from = self.client_path();
        let result = match (packet[0], packet[1]) {
            (128..=191, 192..=223) => {
                let mut packet = packet.to_vec();
                let opened = self.session.open_rtcp(self.now, &from, &mut packet);
                opened.map(|_| self.opened_rtcp += 1)
            }
            (128..=191, _) => {
                let mut packet = packet.to_vec();
                self.session
                    .open_rtp(self.now, &from, &mut packet)
                    .map(|len| {
                        packet.truncate(len);
                        self.opened.push(packet);
                    })
            }
            _ => self.session.handle_packet(self.now, from, packet),
        };
        if let Err(refusal) = result {
            self.refusals.push(refusal);
        }
    }

    /// Has the client send one RTP packet with its own SRTP.
    pub(crate) fn client_sends_rtp(&mut self, seq: u64, payload: &[u8]) {
        let now = self.instant(self.now);
        let ssrc: Ssrc = UP.into();
        let mut api = self.client.direct_api();
        let stream = api.stream_tx(&ssrc).unwrap();
        stream.write_rtp(RtpWrite::new(
            PT.into(),
            seq.into(),
            90_000,
            now,
            payload.to_vec(),
        ));
        self.client_timeout = self.now;
        self.exchange();
    }

    /// Seals an RTP packet and has the client's str0m open it.
    pub(crate) fn relay_sends_rtp(&mut self, seq: u16, payload: &[u8]) {
        let mut out = [0; 1_500];
        let header = rtp_header(seq);
        let len = self.session.seal_rtp(&header, payload, &mut out).unwrap();
        assert_eq!(
            len,
            header.len() + payload.len() + self.session.rtp_overhead()
        );
        self.client_receives(&out[..len]);
        self.poll_client();
    }

    /// RTP packets that came out of the client's str0m.
    pub(crate) fn client_rtp(&self) -> Vec<&RtpPacket> {
        self.client_events
            .iter()
            .filter_map(|e| match e {
                Event::RtpPacket(p) => Some(p),
                _ => None,
            })
            .collect()
    }
}

/// A header as the media plane writes it.
pub(crate) fn rtp_header(seq: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = 0x80;
    header[1] = PT;
    header[2..4].copy_from_slice(&seq.to_be_bytes());
    header[4..8].copy_from_slice(&3_000u32.to_be_bytes());
    header[8..12].copy_from_slice(&DOWN.to_be_bytes());
    header
}
