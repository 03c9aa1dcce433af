//! Calls over real sockets: every transport, and what strangers may do to them.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod net;

use net::{Caller, Relay, audience, config, pause, play, run_for, run_until};
use sealcast_model::{Counter, Event, Gauge, MediaKind, Source, TransportKind};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

fn call(bind: &str, links: &[bool]) -> (Relay, Vec<Caller>) {
    let relay = Relay::start(&config(bind));
    let mut callers = audience(&relay, links);
    play(&mut callers, 16, 160);
    for caller in &callers[1..] {
        let audio = caller.client.received_of(MediaKind::Audio);
        assert!(!audio.is_empty());
        let video = caller.client.received_of(MediaKind::Video);
        assert!(video.iter().all(|p| p.payload.len() == 1_100));
    }
    let stats = &relay.port.stats;
    assert_eq!(stats.get(Counter::SessionPanics), 0);
    let dwell = stats.media(Source::Camera).dwell.snapshot();
    assert!(dwell.count() >= 160 && dwell.sum_nanos() > 0);
    (relay, callers)
}

#[test]
fn calls_over_ipv4() {
    let (relay, _callers) = call("127.0.0.1:0", &[false; 3]);
    let stats = &relay.port.stats;
    let (calls, datagrams) = (
        stats.get(Counter::SendCalls),
        stats.get(Counter::DatagramsOut),
    );
    assert!(
        datagrams > 2 * calls,
        "{datagrams} datagrams by {calls} calls"
    );
    relay.stop();
}

#[test]
fn calls_over_ipv6() {
    call("[::1]:0", &[false; 3]).0.stop();
}

#[test]
fn calls_over_tcp_and_udp() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let (relay, callers) = call(bind, &[true, true, false]);
        assert_eq!(relay.port.stats.gauge(Gauge::TcpConnections), 2);
        drop(callers);
        relay.stop();
    }
}

#[test]
fn connected_sessions_say_by_what() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let callers = [true, false].into_iter().enumerate();
    let mut callers: Vec<Caller> = callers
        .map(|(i, tcp)| Caller::new(&relay, i as u32, 1, tcp))
        .collect();
    run_until(&mut callers, |c| {
        c.iter().all(|c| c.client.channel.is_some())
    });
    let mut seen = Vec::new();
    for event in relay.stop() {
        if let Event::SessionConnected {
            session, transport, ..
        } = event
        {
            seen.push((session.0, transport));
        }
    }
    seen.sort_by_key(|(session, _)| *session);
    assert_eq!(seen, [(1, TransportKind::Tcp), (2, TransportKind::Udp)]);
}

#[test]
fn a_frame_of_more_packets_than_one_call_takes() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut callers = audience(&relay, &[false; 2]);
    play(&mut callers, 100, 300);
    relay.stop();
}

#[test]
fn without_offload() {
    let mut config = config("127.0.0.1:0");
    (config.gso, config.gro) = (false, false);
    let relay = Relay::start(&config);
    let mut callers = audience(&relay, &[false; 3]);
    play(&mut callers, 16, 160);
    relay.stop();
}

#[test]
fn with_packets_that_wait_for_each_other() {
    let mut config = config("127.0.0.1:0");
    config.coalesce = Duration::from_secs(60);
    let relay = Relay::start(&config);
    let mut callers = audience(&relay, &[false, false, true]);
    // Were the limit not in force, nothing would ever arrive.
    play(&mut callers, 16, 160);
    relay.stop();
}

#[test]
fn connections_that_do_nothing_are_closed() {
    let mut config = config("127.0.0.1:0");
    config.tcp_unused = Duration::from_millis(100);
    let relay = Relay::start(&config);
    let mut silent = TcpStream::connect(relay.port.tcp[0]).unwrap();
    // One that sends byte by byte, and never a frame.
    let mut slow = TcpStream::connect(relay.port.tcp[0]).unwrap();
    slow.write_all(&[5]).unwrap();
    for stream in [&mut silent, &mut slow] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let end = stream.read(&mut [0; 1]);
        assert!(
            matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
        );
    }
    assert_eq!(relay.port.stats.get(Counter::TcpExpired), 2);
    relay.stop();
}

#[test]
fn idle_connections_make_room_for_a_call() {
    let mut config = config("127.0.0.1:0");
    config.tcp_connections = 3;
    let relay = Relay::start(&config);
    let strangers: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(relay.port.tcp[0]).unwrap())
        .collect();
    let mut callers = audience(&relay, &[true, true]);
    play(&mut callers, 2, 10);
    let more: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(relay.port.tcp[0]).unwrap())
        .collect();
    play(&mut callers, 2, 20);
    assert_eq!(relay.port.stats.gauge(Gauge::TcpConnections), 3);
    drop((strangers, more));
    relay.stop();
}

#[test]
fn a_frame_too_long_ends_the_connection() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut stream = TcpStream::connect(relay.port.tcp[0]).unwrap();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let end = stream.read(&mut [0; 1]);
    assert!(!matches!(end, Ok(1)));
    assert_eq!(relay.port.stats.get(Counter::DropTcpFraming), 1);
    relay.stop();
}

#[test]
fn a_receiver_that_does_not_read_loses_packets_and_stops_nobody() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut callers = audience(&relay, &[false, false, true]);
    let mut deaf = callers.pop().unwrap();
    let stats = &relay.port.stats;
    let mut rounds = 0;
    while stats.get(Counter::DropTcpBackpressure) == 0 {
        rounds += 1;
        assert!(rounds < 2_000, "the queue has no end");
        let count = callers[1].client.received_of(MediaKind::Video).len();
        play(&mut callers, 16, count + 8);
    }
    // It takes up again what is left of its stream.
    let before = deaf.client.received.len();
    run_for(std::slice::from_mut(&mut deaf), Duration::from_millis(300));
    assert!(deaf.client.received.len() > before + 20);
    relay.stop();
}

#[test]
fn noise_on_every_socket_changes_nothing() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut callers = audience(&relay, &[false; 2]);
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..2_000u32 {
        let len = (i * 7 % 1_600) as usize;
        let bytes: Vec<u8> = (0..len).map(|j| (j as u32 * 31 + i) as u8).collect();
        let _ = noise.send_to(&bytes, relay.port.udp[0]);
        if i % 100 == 0 {
            pause(Duration::from_millis(1));
        }
    }
    play(&mut callers, 4, 40);
    assert!(relay.port.stats.get(Counter::DropUnknownProtocol) > 100);
    let closed = relay.stop().into_iter();
    let early = closed.filter(|e| {
        matches!(e, Event::SessionClosed { reason, .. } if *reason != sealcast_model::CloseReason::Stopping)
    });
    assert_eq!(early.count(), 0);
}

#[test]
fn two_shards_forward() {
    let relays: Vec<Relay> = (0..2)
        .map(|_| Relay::start(&config("127.0.0.1:0")))
        .collect();
    let mut rooms: Vec<_> = relays.iter().map(|r| audience(r, &[false; 3])).collect();
    for _ in 0..5 {
        for room in &mut rooms {
            let count = room[1].client.received_of(MediaKind::Video).len();
            play(room, 4, count + 8);
        }
    }
    for relay in relays {
        assert!(
            relay
                .port
                .stats
                .media(Source::Camera)
                .packets_out
                .load(std::sync::atomic::Ordering::Relaxed)
                >= 80
        );
        relay.stop();
    }
}
