//! The load tester against a relay whose faults are made on purpose: each must be found, and none
//! where there is none. The relay is the real one, of production configuration; a proxy between it
//! and the clients' media has the faults.
//!
//! Judged are counts and figures that a busy machine does not change; where times matter, they are
//! compared with those of the same run without the fault.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails to start processes has failed; real processes need the real clock"
)]

use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Runs one after the other: each wants a core.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The relay's binary: `SEALCAST_BIN`, or the one beside the load tester, built if need be.
fn relay_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEALCAST_BIN") {
        return path.into();
    }
    let load = Path::new(env!("CARGO_BIN_EXE_sealcast-load"));
    let relay = load.with_file_name("sealcast");
    if !relay.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "-p", "sealcast"])
            .status();
        assert!(built.unwrap().success());
    }
    relay
}

struct Relay {
    child: Child,
    dir: PathBuf,
    http: SocketAddr,
    media: SocketAddr,
}

impl Relay {
    fn start() -> Relay {
        static NTH: AtomicU64 = AtomicU64::new(0);
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sealcast-load-{}-{nth}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("secret"),
            "a secret of more than thirty-two bytes for tests",
        )
        .unwrap();
        // Free now; nobody else on this machine asks the kernel for exactly these.
        let http = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let media = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let config = format!(
            "[http]\nlisten = [\"{http}\"]\n\
             [auth]\nalgorithm = \"HS256\"\nissuer = \"test\"\nkeys = [{{ file = \"secret\" }}]\n\
             [rooms]\nsealed = \"optional\"\n\
             [media]\nbind = [\"127.0.0.1\"]\nannounce_loopback = true\nudp_port = {}\ntcp = false\nshards = 1\n\
             pin = false\n",
            media.port()
        );
        fs::write(dir.join("sealcast.toml"), config).unwrap();
        let log = fs::File::create(dir.join("relay.log")).unwrap();
        let child = Command::new(relay_binary())
            .args(["serve", "--config"])
            .arg(dir.join("sealcast.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let relay = Relay {
            child,
            dir,
            http,
            media,
        };
        let patience = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(http).is_err() {
            let log = || fs::read_to_string(relay.dir.join("relay.log")).unwrap();
            assert!(
                Instant::now() < patience,
                "the relay did not start: {}",
                log()
            );
            thread::sleep(Duration::from_millis(50));
        }
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has then told.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What the proxy does to RTP from relay to clients.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Every 100th packet.
    Drop,
    Delay(Duration),
    /// One byte in each 10,000th packet.
    Corrupt,
    /// Once, after this many packets, for this long.
    Freeze(u64, Duration),
}

/// A UDP proxy in front of the relay's media port. Its threads end with the test's process.
fn proxy(relay: SocketAddr, fault: Fault) -> (SocketAddr, Arc<AtomicU64>) {
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = front.local_addr().unwrap();
    let faults = Arc::new(AtomicU64::new(0));
    let (count, made) = (Arc::new(AtomicU64::new(0)), Arc::clone(&faults));
    let (later, deliver) = channel::<(Instant, SocketAddr, Vec<u8>)>();
    let back = front.try_clone().unwrap();
    thread::spawn(move || {
        for (at, to, packet) in deliver {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            back.send_to(&packet, to).unwrap();
        }
    });
    let thaw = Arc::new(Mutex::new(Instant::now()));
    thread::spawn(move || {
        let mut sockets: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((len, client)) = front.recv_from(&mut buffer) {
            let upstream = sockets.entry(client).or_insert_with(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(relay).unwrap();
                let (socket2, later) = (socket.try_clone().unwrap(), later.clone());
                let (count, made, thaw) =
                    (Arc::clone(&count), Arc::clone(&made), Arc::clone(&thaw));
                thread::spawn(move || {
                    let mut buffer = vec![0; 65_536];
                    while let Ok(len) = socket2.recv(&mut buffer) {
                        let mut packet = buffer[..len].to_vec();
                        let delay = meddle(fault, &mut packet, &count, &made, &thaw);
                        if let Some(at) = delay {
                            later.send((at, client, packet)).unwrap();
                        }
                    }
                });
                socket
            });
            // The relay may have gone.
            let _ = upstream.send(&buffer[..len]);
        }
    });
    (addr, faults)
}

/// When to deliver the packet, if at all.
fn meddle(
    fault: Fault,
    packet: &mut [u8],
    count: &AtomicU64,
    made: &AtomicU64,
    thaw: &Mutex<Instant>,
) -> Option<Instant> {
    let now = Instant::now();
    // RFC 7983: 128 to 191 is RTP or RTCP; RFC 5761 §4: payload types 64 to 95 are RTCP's.
    let rtp = (128..192).contains(&packet[0]) && !(64..96).contains(&(packet[1] & 0x7f));
    if !rtp {
        return Some(now);
    }
    let n = count.fetch_add(1, Ordering::Relaxed) + 1;
    match fault {
        Fault::None => Some(now),
        Fault::Drop if n.is_multiple_of(100) => {
            made.fetch_add(1, Ordering::Relaxed);
            None
        }
        Fault::Drop => Some(now),
        Fault::Delay(d) => Some(now + d),
        Fault::Corrupt => {
            if n.is_multiple_of(10_000) {
                made.fetch_add(1, Ordering::Relaxed);
                packet[packet.len() / 2] ^= 0x10;
            }
            Some(now)
        }
        Fault::Freeze(after, d) => {
            let mut thaw = thaw.lock().unwrap();
            if n == after {
                made.fetch_add(1, Ordering::Relaxed);
                *thaw = now + d;
            }
            Some(now.max(*thaw))
        }
    }
}

const SCENARIO: &str = r#"
name = "test"
about = "A short consult."
joins_per_second = 20
warm_up = 2
duration = 6
slo = []
limits = { max_ms = 60000.0, p99_ms = 60000.0, socket_drops = 1.0 }

[[roles]]
name = "participant"
count = 4
audio_slots = 3
video_slots = 3
audio = { bitrate = 40000, speaking = 0.5 }
video = { width = 640, height = 360, fps = 30, bitrate = 1500000, key_factor = 6.0 }
"#;

struct Run {
    code: i32,
    result: Value,
    told: String,
}

impl Run {
    /// A counter over all windows.
    fn count(&self, name: &str) -> u64 {
        let windows = self.result["windows"].as_array().unwrap();
        windows
            .iter()
            .filter_map(|w| w["counters"][name].as_u64())
            .sum()
    }

    /// Pairs of microseconds and count of the measured windows.
    fn samples(&self, name: &str) -> Vec<(u64, u64)> {
        let windows = self.result["windows"].as_array().unwrap();
        let measured = windows.iter().filter(|w| w["phase"] == "measure");
        let mut pairs: Vec<(u64, u64)> = measured
            .filter_map(|w| w["hists"][name].as_array())
            .flatten()
            .map(|p| (p[0].as_u64().unwrap(), p[1].as_u64().unwrap()))
            .collect();
        pairs.sort_unstable();
        pairs
    }

    /// The median, microseconds.
    fn median(&self, name: &str) -> f64 {
        let samples = self.samples(name);
        let total: u64 = samples.iter().map(|s| s.1).sum();
        assert!(total > 100, "{name}: {total} samples\n{}", self.told);
        let mut seen = 0;
        let middle = samples.iter().find(|(_, n)| {
            seen += n;
            seen * 2 >= total
        });
        middle.unwrap().0 as f64
    }
}

fn load(relay: &Relay, scenario: &str, arguments: &[&str]) -> (Command, PathBuf) {
    static NTH: AtomicU64 = AtomicU64::new(0);
    let nth = NTH.fetch_add(1, Ordering::Relaxed);
    let (toml, json) = (
        relay.dir.join(format!("{nth}.toml")),
        relay.dir.join(format!("{nth}.json")),
    );
    fs::write(&toml, scenario).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealcast-load"));
    command
        .arg("run")
        .arg(&toml)
        .args(["--against", &format!("http://{}", relay.http)])
        .args([
            "--algorithm",
            "HS256",
            "--issuer",
            "test",
            "--audience",
            "sealcast",
            "--key",
        ])
        .arg(relay.dir.join("secret"))
        .arg("--json")
        .arg(&json)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (command, json)
}

fn finish(child: Child, json: &Path) -> Run {
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let result = fs::read(json).unwrap_or_else(|e| panic!("{e}: {told}"));
    Run {
        code: output.status.code().unwrap(),
        result: serde_json::from_slice(&result).unwrap(),
        told,
    }
}

fn run_through(fault: Fault, slo: &[&str]) -> (Run, u64) {
    let relay = Relay::start();
    let (front, faults) = proxy(relay.media, fault);
    let front = front.to_string();
    let mut arguments = vec!["--media-address", &front];
    slo.iter()
        .for_each(|target| arguments.extend(["--slo", target]));
    let (mut command, json) = load(&relay, SCENARIO, &arguments);
    let run = finish(command.spawn().unwrap(), &json);
    (run, faults.load(Ordering::Relaxed))
}

#[test]
fn a_sound_relay_passes() {
    let _turn = alone();
    let targets = [
        "delivery > 99%",
        "srtp_failures = 0",
        "seal_failures = 0",
        "misrouted = 0",
        "silent_slots = 0",
        "join_failures = 0",
        "sessions_lost = 0",
    ];
    let (run, _) = run_through(Fault::None, &targets);
    assert_eq!(run.code, 0, "{}", run.told);
    assert_eq!(run.count("joins_done"), 4);
    assert!(run.count("video.frames_received") > 4 * 3 * 100);
    assert!(
        !run.result["relay"].as_array().unwrap().is_empty(),
        "metrics were scraped"
    );
}

#[test]
fn one_packet_in_a_hundred_dropped_is_found() {
    let _turn = alone();
    let (run, dropped) = run_through(Fault::Drop, &["network_loss < 0.5%"]);
    assert_eq!(run.code, 1, "{}", run.told);
    let missing = run.count("packets_lost") + run.count("packets_repaired");
    // Retransmissions may be dropped too, and asked for again.
    assert!(
        missing > dropped / 2 && missing < dropped * 3,
        "{missing} of {dropped}"
    );
}

#[test]
fn five_milliseconds_more_are_found() {
    let _turn = alone();
    let (sound, _) = run_through(Fault::None, &[]);
    let (slow, _) = run_through(Fault::Delay(Duration::from_millis(5)), &[]);
    let more = slow.median("audio.frame_latency") - sound.median("audio.frame_latency");
    assert!((4_500.0..7_000.0).contains(&more), "{more} µs");
}

#[test]
fn a_byte_in_ten_thousand_packets_is_found() {
    let _turn = alone();
    let (run, corrupted) = run_through(Fault::Corrupt, &["srtp_failures = 0"]);
    assert!(corrupted > 0, "{}", run.told);
    assert_eq!(
        (run.code, run.count("srtp_failures")),
        (1, corrupted),
        "{}",
        run.told
    );
}

#[test]
fn a_freeze_of_300_ms_is_found() {
    let _turn = alone();
    let fault = Fault::Freeze(13_000, Duration::from_millis(300));
    let (run, made) = run_through(fault, &["freezes = 0"]);
    assert_eq!((run.code, made), (1, 1), "{}", run.told);
    let freezes = run.samples("freeze");
    let long = freezes
        .iter()
        .filter(|(us, _)| (250_000..700_000).contains(us));
    // Every one of the twelve pictures stood still, but for those that were between two frames.
    assert!(long.map(|f| f.1).sum::<u64>() >= 8, "{freezes:?}");
}

#[test]
fn media_of_another_room_is_found() {
    let _turn = alone();
    let relay = Relay::start();
    let scenario = SCENARIO.replace("joins_per_second", "rooms = 2\njoins_per_second");
    // One client of room 0 gets a token that puts it into room 1.
    let token = format!(
        "[ $SUBJECT = load-2 ] && ROOM=${{ROOM%-0}}-1; exec {} token --config {} --room $ROOM --publish $PUBLISH",
        relay_binary().display(),
        relay.dir.join("sealcast.toml").display()
    );
    let (toml, json) = (relay.dir.join("wrong.toml"), relay.dir.join("wrong.json"));
    fs::write(&toml, scenario).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sealcast-load"))
        .arg("run")
        .arg(&toml)
        .args([
            "--against",
            &format!("http://{}", relay.http),
            "--token-command",
            &token,
        ])
        .args(["--slo", "seal_failures = 0", "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let run = finish(child.unwrap(), &json);
    assert_eq!(run.code, 1, "{}", run.told);
    assert!(run.count("seal_failures") > 100, "{}", run.told);
}

#[test]
fn a_paused_generator_makes_the_run_invalid() {
    let _turn = alone();
    let relay = Relay::start();
    let limits = ["--max-lag", "400", "--max-lag-p99", "60000"];
    let (mut command, json) = load(&relay, SCENARIO, &limits);
    let child = command.spawn().unwrap();
    thread::sleep(Duration::from_secs(5));
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    thread::sleep(Duration::from_millis(500));
    signal("-CONT");
    let run = finish(child, &json);
    assert_eq!(run.code, 2, "{}", run.told);
    let faults = run.result["validity"]["faults"].to_string();
    assert!(faults.contains("timers ran late"), "{faults}");
}

#[test]
fn latencies_agree_with_the_configured_network() {
    let _turn = alone();
    let relay = Relay::start();
    let path = |direction, delay| format!("[impairment.{direction}]\ndelay = {delay}.0\n");
    let far = format!("{SCENARIO}\n{}{}", path("up", 60), path("down", 90));
    let (mut command, json) = load(&relay, &far, &[]);
    let run = finish(command.spawn().unwrap(), &json);
    let median = run.median("audio.frame_latency");
    assert!((142_500.0..157_500.0).contains(&median), "{median} µs");
    let lossy =
        format!("{SCENARIO}\n[impairment.down.loss]\nmodel = \"uniform\"\nprobability = 0.02\n");
    let (mut command, json) = load(&relay, &lossy, &[]);
    let run = finish(command.spawn().unwrap(), &json);
    let expected = run.count("audio.frames_expected") as f64;
    let share = 1.0 - run.count("audio.frames_received") as f64 / expected;
    // 2 % of some 4,000 frames: three standard deviations are 0.7 %.
    assert!((0.012..0.028).contains(&share), "{share}");
}

#[test]
fn what_cannot_run_says_so() {
    let _turn = alone();
    let relay = Relay::start();
    let (mut command, json) = load(&relay, SCENARIO, &["--only-slo", "--slo", "los < 1%"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no figure is called"));
    assert!(!json.exists());
    let needs = SCENARIO.replace("slo = []", "slo = []\nneeds = [\"messages\"]");
    let (mut command, json) = load(&relay, &needs, &[]);
    let run = finish(command.spawn().unwrap(), &json);
    assert_eq!(run.code, 3);
    assert!(run.told.contains("NOT SUPPORTED"), "{}", run.told);
    assert_eq!(run.result["not_supported"].as_array().unwrap().len(), 1);
}

/// A helper process that ends with the test.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_agents_share_the_rooms() {
    let _turn = alone();
    let relay = Relay::start();
    let secret = relay.dir.join("agents");
    fs::write(&secret, "sixteen characters and more").unwrap();
    let agent = |name: &str| {
        let at = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sealcast-load"))
            .args([
                "agent",
                "--name",
                name,
                "--listen",
                &at.to_string(),
                "--secret",
            ])
            .arg(&secret)
            .args([
                "--algorithm",
                "HS256",
                "--issuer",
                "test",
                "--audience",
                "sealcast",
                "--key",
            ])
            .arg(relay.dir.join("secret"))
            .spawn();
        let patience = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(at).is_err() {
            assert!(Instant::now() < patience, "{name} does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        (Helper(child.unwrap()), at.to_string())
    };
    let ((_a, first), (_b, second)) = (agent("a"), agent("b"));
    let scenario = SCENARIO.replace("joins_per_second", "rooms = 2\njoins_per_second");
    let arguments = ["--agent", &first, "--agent", &second, "--agent-secret"];
    let (mut command, json) = load(&relay, &scenario, &arguments);
    command.arg(&secret);
    let run = finish(command.spawn().unwrap(), &json);
    assert_eq!(run.code, 0, "{}", run.told);
    assert_eq!(run.count("joins_done"), 8, "{}", run.told);
    assert_eq!(
        run.result["meta"]["generators"].as_array().unwrap().len(),
        2
    );
    // The wrong secret opens nothing.
    fs::write(&secret, "sixteen other characters").unwrap();
    let (mut command, _) = load(&relay, &scenario, &arguments);
    let output = command.arg(&secret).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("secret"));
}

const BROADCAST: &str = r#"
name = "broadcast"
about = "One sends, three watch."
joins_per_second = 5
warm_up = 2
duration = 6
slo = [
    "delivery > 98%",
    "content_failures = 0",
    "misrouted = 0",
    "silent_slots = 0",
    "join_failures = 0",
]
limits = { max_ms = 60000.0, p99_ms = 60000.0, socket_drops = 1.0 }

[[roles]]
name = "speaker"
count = 1
audio = { bitrate = 40000, speaking = 0.5 }
video = { width = 640, height = 360, fps = 30, bitrate = 500000, key_factor = 6.0 }

[[roles]]
name = "viewer"
count = 3
audio_slots = 1
video_slots = 1
"#;

#[test]
fn whip_and_whep_of_our_own() {
    let _turn = alone();
    let relay = Relay::start();
    let at = |path: &str| format!("http://{}/{path}/{{room}}", relay.http);
    let (whip, whep) = (at("whip"), at("whep"));
    let (mut command, json) = load(&relay, BROADCAST, &["--whip", &whip, "--whep", &whep]);
    let run = finish(command.spawn().unwrap(), &json);
    assert_eq!(run.code, 0, "{}", run.told);
    assert!(run.count("video.frames_received") > 3 * 100, "{}", run.told);
}

#[test]
fn whip_and_whep_of_another_sfu() {
    let _turn = alone();
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop");
    if !interop.join("node_modules/werift").exists() {
        // As `make test` does.
        let installed = Command::new("npm")
            .args(["ci", "--silent"])
            .current_dir(&interop)
            .status();
        assert!(installed.unwrap().success());
    }
    let at = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/werift_sfu.mjs");
    let server = Command::new("node")
        .arg(script)
        .arg(at.port().to_string())
        .spawn();
    let _server = Helper(server.unwrap());
    let patience = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(at).is_err() {
        assert!(Instant::now() < patience, "the server does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    let dir = std::env::temp_dir().join(format!("sealcast-whip-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (toml, json) = (dir.join("broadcast.toml"), dir.join("result.json"));
    fs::write(&toml, BROADCAST).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sealcast-load"))
        .arg("run")
        .arg(&toml)
        .args(["--against", &format!("http://{at}"), "--no-token"])
        .args(["--whip", &format!("http://{at}/whip/{{room}}")])
        .args(["--whep", &format!("http://{at}/whep/{{room}}")])
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let run = finish(child.unwrap(), &json);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(run.code, 0, "{}", run.told);
    assert!(run.count("video.frames_received") > 3 * 100, "{}", run.told);
}
