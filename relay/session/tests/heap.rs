//! What a session costs in heap, and that sealing and opening cost none.

mod common;

use common::{Setup, World, context, params, rtp_header, start_client, udp};
use sealcast_heap::{allocations, held_by};
use sealcast_model::{SessionId, Time};
use sealcast_session::Session;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use str0m::RtcConfig;

/// An idle session, connected with data channel; what AWS-LC allocates in C is counted.
#[test]
fn an_idle_session_takes_less_than_40_kib_of_heap() {
    let mut world = World::connected(Setup::default());
    world.run(Duration::from_secs(60));
    world.outputs = vec![];

    let epoch = common::epoch();
    let ctx = context(epoch, sealcast_srtp::Backend::AwsLcRs);
    let mut other = RtcConfig::new().build(epoch);
    let params = params(&mut other, true);
    start_client(&mut other, &params, &ctx);
    let spare = Session::new(Time::ZERO, &ctx, SessionId(8), &params).unwrap();

    let heap = held_by(std::mem::replace(&mut world.session, spare));
    println!(
        "idle session: {heap} B heap + {} B struct",
        size_of::<Session>()
    );
    assert!(heap < 40 * 1_024, "{heap} B");
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    let mut world = World::connected(Setup::default());
    let caught = Rc::new(RefCell::new(vec![]));
    let catch = caught.clone();
    world.client_sends_rtp(0, &[7; 1_000]);
    world
        .session
        .seal_rtp(&rtp_header(0), &[7; 1_000], &mut [0; 1_200])
        .unwrap();
    world.tamper = Box::new(move |_, _, packet| {
        catch.borrow_mut().push(packet.to_vec());
        false
    });
    for seq in 1..200 {
        world.client_sends_rtp(seq, &[7; 1_000]);
    }
    let mut from_client = caught.take();
    from_client.retain(|p| p[0] >= 128 && !(192..=223).contains(&p[1]));
    assert!(from_client.len() >= 199);
    let from = udp(common::addr(common::CLIENT));
    let mut out = [0; 1_200];
    let made = allocations(|| {
        for (seq, packet) in (1u16..).zip(&mut from_client) {
            world
                .session
                .seal_rtp(&rtp_header(seq), &[7; 1_000], &mut out)
                .unwrap();
            world.session.open_rtp(world.now, &from, packet).unwrap();
            assert!(world.session.path().is_some());
        }
    });
    assert_eq!(made, 0);
}
