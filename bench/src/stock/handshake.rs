//! Connects one session of the stock SFU with a client, in memory and on a virtual clock.

use crate::Result;
use crate::shape::Traffic;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Input, Output, Rtc, RtcConfig};

/// A handshake that has not ended after this much virtual time never will.
const DEADLINE: Duration = Duration::from_secs(10);
/// Virtual time between a publisher's frames. Short, so that its session outlives the run without
/// an answer to its consent checks.
const FRAME_INTERVAL: Duration = Duration::from_micros(10);

/// A connected session.
pub(super) struct Connected {
    /// The SFU's side.
    pub(super) rtc: Rtc,
    /// SSRCs of the tracks towards the client, in order.
    pub(super) ssrcs: Vec<Ssrc>,
    /// The payload type of everything.
    pub(super) pt: Pt,
    /// The client's side, if it publishes.
    pub(super) sender: Option<Sender>,
    /// The virtual time at the end.
    pub(super) now: Instant,
}

/// One side of a session with datagrams on their way to it.
struct Side {
    rtc: Rtc,
    address: SocketAddr,
    inbox: VecDeque<Vec<u8>>,
    timeout: Instant,
}

impl Side {
    fn new(address: SocketAddr, lite: bool, now: Instant) -> Result<Side> {
        let config = RtcConfig::new()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_vp8(true)
            .set_ice_lite(lite);
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp")?);
        Ok(Side {
            rtc,
            address,
            inbox: VecDeque::new(),
            timeout: now,
        })
    }

    /// Takes in what has arrived and hands out what it answers.
    fn advance(&mut self, from: SocketAddr, now: Instant) -> Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        while let Some(datagram) = self.inbox.pop_front() {
            let receive = Receive {
                proto: Protocol::Udp,
                source: from,
                destination: self.address,
                contents: datagram.as_slice().try_into()?,
            };
            self.rtc.handle_input(Input::Receive(now, receive))?;
            self.poll(&mut out)?;
        }
        if self.timeout <= now {
            self.rtc.handle_input(Input::Timeout(now))?;
        }
        self.poll(&mut out)?;
        Ok(out)
    }

    fn poll(&mut self, out: &mut Vec<Vec<u8>>) -> Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(timeout) => {
                    self.timeout = timeout;
                    return Ok(());
                }
                Output::Transmit(transmit) => out.push(transmit.contents.to_vec()),
                Output::Event(_) => {}
            }
        }
    }
}

/// Connects an SFU at `local` with a client at `remote`, which receives `tracks` tracks and may
/// publish one.
pub(super) fn connect(
    local: SocketAddr,
    remote: SocketAddr,
    tracks: usize,
    publishes: bool,
    mut now: Instant,
) -> Result<Connected> {
    let mut sfu = Side::new(local, true, now)?;
    let mut client = Side::new(remote, false, now)?;
    let mut api = sfu.rtc.sdp_api();
    let mids: Vec<_> = (0..tracks)
        .map(|_| api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None))
        .collect();
    let published =
        publishes.then(|| api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None));
    let (offer, pending) = api.apply().ok_or("nothing to offer")?;
    let answer = client.rtc.sdp_api().accept_offer(offer)?;
    sfu.rtc.sdp_api().accept_answer(pending, answer)?;

    let deadline = now + DEADLINE;
    let mut settled = None;
    while settled.is_none_or(|at| now < at) {
        let answers = sfu.advance(remote, now)?;
        client.inbox.extend(answers);
        let answers = client.advance(local, now)?;
        sfu.inbox.extend(answers);
        if sfu.inbox.is_empty() && client.inbox.is_empty() {
            let next = sfu.timeout.min(client.timeout);
            now = next.clamp(
                now + Duration::from_millis(1),
                now + Duration::from_millis(50),
            );
        }
        if settled.is_none() && sfu.rtc.is_connected() && client.rtc.is_connected() {
            settled = Some(now + Duration::from_millis(100));
        }
        if now > deadline {
            return Err("a session did not connect".into());
        }
    }

    let pt = sfu
        .rtc
        .codec_config()
        .find(|p| p.spec().codec == Codec::Vp8)
        .ok_or("VP8 was not negotiated")?
        .pt();
    let mut ssrcs = Vec::new();
    for mid in mids {
        let mut api = sfu.rtc.direct_api();
        let stream = api
            .stream_tx_by_mid(mid, None)
            .ok_or("a track without stream")?;
        stream.set_unpaced(true);
        ssrcs.push(stream.ssrc());
    }
    let sender = match published {
        Some(mid) => {
            let mut api = client.rtc.direct_api();
            let stream = api
                .stream_tx_by_mid(mid, None)
                .ok_or("a publisher without stream")?;
            stream.set_unpaced(true);
            let ssrc = stream.ssrc();
            Some(Sender {
                side: client,
                ssrc,
                pt,
                now,
                seq: 1_000,
                timestamp: 0,
            })
        }
        None => None,
    };
    Ok(Connected {
        rtc: sfu.rtc,
        ssrcs,
        pt,
        sender,
        now,
    })
}

/// A publisher's end of a session: makes SRTP packets.
pub(super) struct Sender {
    side: Side,
    ssrc: Ssrc,
    pt: Pt,
    now: Instant,
    seq: u64,
    timestamp: u32,
}

impl Sender {
    /// The next `frames` frames of `traffic`, as they go over the wire.
    pub(super) fn seal_packets(
        &mut self,
        traffic: &Traffic,
        frames: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::with_capacity(frames * traffic.frame);
        let payload = vec![0x5a; traffic.payload];
        for _ in 0..frames {
            self.now += FRAME_INTERVAL;
            self.timestamp = self.timestamp.wrapping_add(3_000);
            for i in 0..traffic.frame {
                let mut api = self.side.rtc.direct_api();
                let stream = api.stream_tx(&self.ssrc).ok_or("the stream is gone")?;
                let packet = RtpWrite::new(
                    self.pt,
                    self.seq.into(),
                    self.timestamp,
                    self.now,
                    payload.clone(),
                );
                stream.write_rtp(packet.marker(i + 1 == traffic.frame).nackable(false));
                self.seq += 1;
                self.side.rtc.handle_input(Input::Timeout(self.now))?;
                let mut out = Vec::new();
                self.side.poll(&mut out)?;
                packets.extend(out.into_iter().filter(|d| super::is_media(d, self.pt)));
            }
        }
        if packets.len() != frames * traffic.frame {
            return Err("the publisher did not send what it was given".into());
        }
        Ok(packets)
    }
}
