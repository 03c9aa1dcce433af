//! WHIP and WHEP: our own relay, and servers that are not ours.
#![allow(
    clippy::unwrap_used,
    reason = "a test that fails to start processes has failed"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{BROADCAST, Dir, Helper, Load, Relay, alone, await_listener, free_tcp};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Installs what a folder's lock file names, as `make test` does.
fn need_npm(folder: &Path) {
    if !folder.join("node_modules").exists() {
        let installed = Command::new("npm")
            .args(["ci", "--silent"])
            .current_dir(folder)
            .status();
        assert!(installed.unwrap().success());
    }
}

#[test]
fn whip_and_whep_of_our_own() {
    let _turn = alone();
    let relay = Relay::start();
    let (whip, whep) = (relay.url("whip/{room}"), relay.url("whep/{room}"));
    let run = relay
        .load(BROADCAST, &["--whip", &whip, "--whep", &whep])
        .run();
    assert_eq!(run.code, 0, "{}", run.told);
    assert!(run.count("video.frames_received") > 3 * 100, "{}", run.told);
}

/// Janus, by Debian's packages `janus` and `simple-whip-server` and npm's `janus-whep-server`.
#[test]
fn whip_and_whep_of_janus() {
    let _turn = alone();
    let whip = [
        "/usr/share/simple-whip-server",
        ".cache/debian/usr/share/simple-whip-server",
    ]
    .map(|path| repository(path).join("src"))
    .into_iter()
    .find(|path| path.join("server.js").exists())
    .expect("simple-whip-server of Debian: run scripts/setup.sh test");
    let janus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/janus");
    need_npm(&janus);
    // Janus uses no loopback address: a network namespace has one that is the same everywhere.
    let address = "192.0.2.1";
    let network = format!(
        "ip link set lo up; ip link add janus0 type veth peer name janus1; ip link set janus1 up; \
         ip addr add {address}/24 dev janus0; ip link set janus0 up; exec \"$@\""
    );
    let urls = "exec \"$@\" --whip \"$WHIP_URL\" --whep \"$WHEP_URL\"";
    let mut inside = Command::new("unshare");
    inside
        .args(["--net", "sh", "-ec", &network, "sh", "node"])
        .arg(janus.join("sfu.mjs"))
        .arg(whip)
        .args([address, "sh", "-c", urls, "sh"]);
    let dir = Dir::new();
    let mut load = Load::new(&dir, BROADCAST, &format!("http://{address}"));
    load.command.arg("--no-token");
    let load = load.inside(inside);
    let run = load.run();
    assert_eq!(run.code, 0, "{}", run.told);
    assert_eq!(run.count("joins_done"), 4, "{}", run.told);
    assert!(run.count("video.frames_received") > 3 * 100, "{}", run.told);
    assert!(run.count("audio.frames_received") > 3 * 100, "{}", run.told);
}

/// A server on werift; `fault` is one of its own.
fn load_werift(scenario: &str, fault: &str) -> support::Run {
    need_npm(&repository("tests/interop"));
    let at = free_tcp();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/werift_sfu.mjs");
    let server = Command::new("node")
        .arg(script)
        .args([&at.port().to_string(), fault])
        .spawn();
    let mut server = Helper(server.unwrap());
    await_listener(&mut server, at, || "the server does not listen".to_owned());
    let dir = Dir::new();
    let mut load = Load::new(&dir, scenario, &format!("http://{at}"));
    load.command
        .arg("--no-token")
        .args(["--whip", &format!("http://{at}/whip/{{room}}")])
        .args(["--whep", &format!("http://{at}/whep/{{room}}")]);
    load.run()
}

#[test]
fn whip_and_whep_of_a_server_on_werift() {
    let _turn = alone();
    let run = load_werift(BROADCAST, "none");
    assert_eq!(run.code, 0, "{}", run.told);
    assert!(run.count("video.frames_received") > 3 * 100, "{}", run.told);
}

#[test]
fn a_server_that_forwards_to_the_wrong_room_is_found() {
    let _turn = alone();
    let two = BROADCAST.replace("joins_per_second", "rooms = 2\njoins_per_second");
    let two = two.replace("count = 3", "count = 1");
    let run = load_werift(&two, "wrong-room");
    assert_eq!(run.code, 1, "{}", run.told);
    assert!(!run.met("misrouted"), "{}", run.told);
    assert!(run.count("misrouted") > 100, "{}", run.told);
    // What comes is whole: nothing but its room is wrong.
    assert_eq!(run.count("content_failures"), 0, "{}", run.told);
}
