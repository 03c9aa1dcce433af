//! Whole runs of the load tester: the gate of the documentation, what it says when it cannot run,
//! and several machines.
#![allow(
    clippy::unwrap_used,
    reason = "a test that fails to start processes has failed"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{CONSULT, Dir, Helper, Relay, alone, await_listener, free_tcp, relay_binary};

/// The steps of the workflow in docs/LOADTEST.md: their lines, and the commands they run.
fn gate() -> (usize, Vec<String>) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/LOADTEST.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, yaml) = docs.split_once("```yaml\n").unwrap();
    let (yaml, _) = yaml.split_once("```").unwrap();
    let (_, steps) = yaml.split_once("steps:\n").unwrap();
    let mut commands: Vec<String> = vec![];
    let mut folded = false;
    for line in steps.lines() {
        if let Some(command) = line.trim_start().strip_prefix("- run: ") {
            // ">" folds the lines that follow into one.
            folded = command == ">";
            commands.push(if folded { "" } else { command }.to_owned());
        } else if line.trim_start().starts_with("- ") {
            folded = false;
        } else if let (true, Some(command)) = (folded, commands.last_mut()) {
            command.push_str(line.trim());
            command.push(' ');
        }
    }
    (steps.lines().count() + 1, commands)
}

#[test]
fn the_gate_of_the_documentation_works_to_the_letter() {
    let _turn = alone();
    let (lines, commands) = gate();
    assert!(lines <= 10, "{lines} lines");
    let [build, serve, load] = &commands[..] else {
        panic!("{commands:?}")
    };
    // What the first step builds was built for this test.
    assert_eq!(build, "cargo build --release -p sealcast -p sealcast-load");
    let dir = Dir::new();
    let bin = dir.join("target/release");
    fs::create_dir_all(&bin).unwrap();
    let tester = PathBuf::from(env!("CARGO_BIN_EXE_sealcast-load"));
    for (name, path) in [("sealcast", relay_binary()), ("sealcast-load", tester)] {
        std::os::unix::fs::symlink(path, bin.join(name)).unwrap();
    }
    // The development relay has fixed ports: it gets a network of its own, and ends with it.
    let script = format!("ip link set lo up\n{serve}\n{load}\n");
    let output = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "bash", "-ec"])
        .arg(script)
        .current_dir(&dir.0)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // Latency is that of a busy machine; everything else is as on any other.
    let slow = [
        "pause_share",
        "frame_latency",
        "packet_latency",
        "join.total",
        "mos",
        "freeze_share",
    ];
    let missed = told.lines().filter_map(|l| l.strip_prefix("MISSED"));
    let missed: Vec<&str> = missed
        .filter(|l| !slow.iter().any(|s| l.trim_start().starts_with(s)))
        .collect();
    assert_eq!(missed, Vec::<&str>::new(), "{told}");
    let code = output.status.code().unwrap();
    assert!(code <= 2, "exit code {code}: {told}");
    let saved = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert!(saved("load.xml").contains("<testsuite"), "{told}");
    assert!(saved("load.html").contains("</html>"), "{told}");
    assert!(saved("load.json").starts_with('{'), "{told}");
}

/// A consult in simulcast over a network that loses packets in both directions.
#[test]
fn repair_works_both_ways_and_groups_rekey() {
    let _turn = alone();
    let relay = Relay::start();
    let smaller = "simulcast = [{ width = 320, height = 180, bitrate = 150000 }]";
    let scenario = CONSULT.replace(
        "key_factor = 6.0 }",
        &format!("key_factor = 6.0, {smaller} }}"),
    );
    let lossy = |direction| {
        let loss = "loss = { model = \"uniform\", probability = 0.02 }";
        format!("[impairment.{direction}]\ndelay = 10.0\n{loss}\n")
    };
    let scenario = format!("{scenario}\n{}{}", lossy("up"), lossy("down"));
    let run = relay.load(&scenario, &[]).run();
    assert!(run.code <= 1, "{}", run.told);
    // The relay repaired what its clients missed, and they what it missed.
    for count in [
        "packets_repaired",
        "nacks",
        "retransmitted",
        "video.frames_received",
    ] {
        assert!(run.count(count) > 0, "{count}: {}", run.told);
    }
    // Four who join one after the other: the first makes the group, each other begins an epoch for
    // all who are there, unless two were added at once.
    assert!(run.count("group.epochs") > 4, "{}", run.told);
    for count in [
        "seal_failures",
        "content_failures",
        "misrouted",
        "group.errors",
    ] {
        assert_eq!(run.count(count), 0, "{count}: {}", run.told);
    }
}

#[test]
fn pointers_cross_the_data_channel() {
    let _turn = alone();
    let relay = Relay::start();
    let run = relay.load("pointer", &["--duration", "4"]).run();
    assert!(run.code <= 2, "{}", run.told);
    let (sent, received) = (run.count("pointer.expected"), run.count("pointer.received"));
    // Six people, each 60 a second to five others, for four seconds of measuring and some before.
    assert!(sent >= 6 * 5 * 60 * 4 * 9 / 10, "{sent}: {}", run.told);
    assert!(
        received <= sent && received * 100 >= sent * 95,
        "{received} of {sent}: {}",
        run.told
    );
    // The first ones may come before the channel is open.
    assert!(run.count("pointer.unsent") * 20 < sent, "{}", run.told);
}

#[test]
fn what_cannot_run_says_so() {
    let _turn = alone();
    let relay = Relay::start();
    let mut load = relay.load(CONSULT, &["--only-slo", "--slo", "los < 1%"]);
    let output = load.command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no figure is called"));
    assert!(!load.json.exists());
    let needs = CONSULT.replace("slo = []", "slo = []\nneeds = [\"objects\"]");
    let run = relay.load(&needs, &[]).run();
    assert_eq!(run.code, 3);
    assert!(run.told.contains("NOT SUPPORTED"), "{}", run.told);
    assert_eq!(run.result["not_supported"].as_array().unwrap().len(), 1);
}

#[test]
fn two_agents_share_the_rooms() {
    let _turn = alone();
    let relay = Relay::start();
    let secret = relay.dir.join("agents");
    fs::write(&secret, "sixteen characters and more").unwrap();
    let agent = |name: &str| {
        let at = free_tcp();
        let listen = at.to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_sealcast-load"))
            .args(["agent", "--name", name, "--listen", &listen, "--secret"])
            .arg(&secret)
            .args(relay.access())
            .spawn();
        let mut child = Helper(child.unwrap());
        await_listener(&mut child, at, || format!("{name} does not listen"));
        (child, listen)
    };
    let ((_a, first), (_b, second)) = (agent("a"), agent("b"));
    let scenario = CONSULT.replace("joins_per_second", "rooms = 2\njoins_per_second");
    let arguments = ["--agent", &first, "--agent", &second, "--agent-secret"];
    let mut load = relay.load(&scenario, &arguments);
    load.command.arg(&secret);
    let run = load.run();
    assert_eq!(run.code, 0, "{}", run.told);
    assert_eq!(run.count("joins_done"), 8, "{}", run.told);
    let generators = run.result["meta"]["generators"].as_array().unwrap();
    assert_eq!(generators.len(), 2);
    // The wrong secret opens nothing.
    fs::write(&secret, "sixteen other characters").unwrap();
    let mut load = relay.load(&scenario, &arguments);
    let output = load.command.arg(&secret).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("secret"));
}
