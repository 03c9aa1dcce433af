//! Messages of clients on their data channels: handed on, limited, and answered where they are too
//! many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/world.rs"]
mod world;

use sealcast_model::limits::{SEALED_BURST, SEALED_PER_SECOND};
use sealcast_model::{Command, Counter, Event, SessionId};
use std::time::Duration;
use world::World;

fn say(world: &mut World, client: usize, times: u32) {
    for n in 0..times {
        let client = &mut world.clients[client];
        let mut channel = client.rtc.channel(client.channel.unwrap()).unwrap();
        assert!(
            channel
                .write(true, format!("message {n}").as_bytes())
                .unwrap()
        );
        world.run(Duration::from_micros(1));
    }
}

fn heard(world: &World, from: SessionId) -> usize {
    let of = |event: &&Event| matches!(event, Event::Data { session, .. } if *session == from);
    world.events.iter().filter(of).count()
}

#[test]
fn who_says_too_much_is_not_heard_and_is_told_so_once() {
    let mut world = World::room(2);
    let (a, b) = (world.clients[0].session(), world.clients[1].session());
    let before = world.clients[0].notices.len();
    say(&mut world, 0, SEALED_BURST + 30);
    world.run(Duration::from_millis(20));
    let passed = heard(&world, a);
    assert!(
        (SEALED_BURST as usize..SEALED_BURST as usize + 5).contains(&passed),
        "{passed}"
    );
    let dropped = world.stats.get(Counter::DropDataRate) as usize;
    assert_eq!(passed + dropped, SEALED_BURST as usize + 30);
    let told = &world.clients[0].notices[before..];
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(r#""type":"error","code":"rate_limited""#),
        "{told:?}"
    );

    // Another one is heard meanwhile, and the first again once it has been silent for a while.
    say(&mut world, 1, 1);
    world.run(Duration::from_millis(20));
    assert_eq!(heard(&world, b), 1);
    world.run(Duration::from_secs(1));
    say(&mut world, 0, SEALED_PER_SECOND / 2);
    world.run(Duration::from_millis(20));
    assert_eq!(heard(&world, a), passed + SEALED_PER_SECOND as usize / 2);
    assert_eq!(world.clients[0].notices.len(), before + 1);
}

#[test]
fn one_command_reaches_several_and_counts_whom_it_does_not() {
    let mut world = World::room(3);
    let sessions: Vec<SessionId> = world.clients[1..].iter().map(|c| c.session()).collect();
    let before = world.stats.get(Counter::DropDataMessage);
    world.command(Command::SendData {
        sessions: [sessions.clone(), vec![SessionId(0xdead)]].concat(),
        binary: true,
        data: b"for two".to_vec(),
    });
    let got = |world: &World, client: usize| {
        let notices = world.clients[client].notices.iter();
        notices.filter(|text| *text == "for two").count()
    };
    assert_eq!([got(&world, 0), got(&world, 1), got(&world, 2)], [0, 1, 1]);
    // A client that reads nothing is owed no more than its channel takes.
    world.clients[1].dead = true;
    for _ in 0..40 {
        world.command(Command::SendData {
            sessions: sessions.clone(),
            binary: true,
            data: vec![b'x'; 16 * 1024],
        });
    }
    assert!(world.stats.get(Counter::DropDataMessage) > before);
    assert_eq!(
        world.clients[2]
            .notices
            .iter()
            .filter(|text| text.len() == 16 * 1024)
            .count(),
        40
    );
}
