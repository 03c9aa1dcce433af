//! A relay of production configuration, the load tester as a process, and servers that run beside
//! them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "each test binary uses a part; a helper that fails is a failed test; real processes \
              need the real clock"
)]

pub(crate) mod proxy;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one after the other: each wants a core.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The relay's binary: `SEALCAST_BIN`, or the one beside the load tester, built if need be.
pub(crate) fn relay_binary() -> PathBuf {
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

/// A directory that goes with its owner.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        static NTH: AtomicU64 = AtomicU64::new(0);
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sealcast-load-{}-{nth}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with its owner.
pub(crate) struct Helper(pub(crate) Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that is free now; nobody else on this machine asks the kernel for exactly this one.
pub(crate) fn free_tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// Waits until a process listens there; `why` tells what went wrong if it does not.
pub(crate) fn await_listener(helper: &mut Helper, at: SocketAddr, why: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at).is_err() {
        let ended = helper.0.try_wait().unwrap();
        assert!(ended.is_none(), "ended with {ended:?}: {}", why());
        assert!(Instant::now() < deadline, "nobody at {at}: {}", why());
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) struct Relay {
    _child: Helper,
    pub(crate) dir: Dir,
    pub(crate) http: SocketAddr,
    pub(crate) media: SocketAddr,
}

impl Relay {
    pub(crate) fn start() -> Relay {
        let dir = Dir::new();
        let secret = "a secret of more than thirty-two bytes for tests";
        fs::write(dir.join("secret"), secret).unwrap();
        let (http, media) = (free_tcp(), free_udp());
        let config = format!(
            "[http]\nlisten = [\"{http}\"]\n\
             [auth]\nalgorithm = \"HS256\"\nissuer = \"test\"\nkeys = [{{ file = \"secret\" }}]\n\
             [rooms]\nsealed = \"optional\"\n\
             [media]\nbind = [\"127.0.0.1\"]\nannounce_loopback = true\nudp_port = {}\n\
             tcp = false\nshards = 1\npin = false\n",
            media.port()
        );
        fs::write(dir.join("sealcast.toml"), config).unwrap();
        let log = fs::File::create(dir.join("relay.log")).unwrap();
        let child = Command::new(relay_binary())
            .args(["serve", "--config"])
            .arg(dir.join("sealcast.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut child = Helper(child.unwrap());
        await_listener(&mut child, http, || {
            fs::read_to_string(dir.join("relay.log")).unwrap()
        });
        Relay {
            _child: child,
            dir,
            http,
            media,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.http)
    }

    /// The arguments that make tokens for this relay.
    pub(crate) fn access(&self) -> Vec<String> {
        let secret = self.dir.join("secret").display().to_string();
        let access = ["--algorithm", "HS256", "--issuer", "test", "--key", &secret];
        let audience = ["--audience", "sealcast"];
        access
            .iter()
            .chain(&audience)
            .map(|a| (*a).to_owned())
            .collect()
    }

    /// The load tester with tokens of this relay.
    pub(crate) fn load(&self, scenario: &str, arguments: &[&str]) -> Load {
        let mut load = Load::new(&self.dir, scenario, &self.url(""));
        load.command.args(self.access()).args(arguments);
        load
    }
}

/// The load tester, about to run.
pub(crate) struct Load {
    pub(crate) command: Command,
    pub(crate) json: PathBuf,
}

impl Load {
    /// Runs this scenario, a built-in one's name or TOML, against a server.
    pub(crate) fn new(dir: &Dir, scenario: &str, against: &str) -> Load {
        static NTH: AtomicU64 = AtomicU64::new(0);
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let json = dir.join(&format!("{nth}.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealcast-load"));
        command.arg("run");
        if scenario.contains('\n') {
            let toml = dir.join(&format!("{nth}.toml"));
            fs::write(&toml, scenario).unwrap();
            command.arg(toml);
        } else {
            command.arg(scenario);
        }
        command
            .args(["--against", against, "--json"])
            .arg(&json)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Load { command, json }
    }

    /// The same as the last arguments of another command.
    pub(crate) fn inside(self, mut outer: Command) -> Load {
        outer
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Load {
            command: outer,
            json: self.json,
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Run {
        let child = self.command.spawn().unwrap();
        self.finish(child)
    }

    /// Runs it to its end. When it has measured so many windows, `act` is given its process id.
    pub(crate) fn run_and(mut self, windows: usize, act: impl FnOnce(u32)) -> Run {
        let mut child = self.command.spawn().unwrap();
        let mut progress = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        while told.matches("measure").count() < windows {
            assert_ne!(progress.read_line(&mut told).unwrap(), 0, "{told}");
        }
        act(child.id());
        progress.read_to_string(&mut told).unwrap();
        let mut run = self.finish(child);
        run.told.push_str(&told);
        run
    }

    /// Waits for the end of a run that was started.
    pub(crate) fn finish(&self, child: Child) -> Run {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let result = fs::read(&self.json).unwrap_or_else(|e| panic!("{e}: {told}"));
        Run {
            code: output.status.code().unwrap(),
            result: serde_json::from_slice(&result).unwrap(),
            told,
        }
    }
}

pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) result: Value,
    pub(crate) told: String,
}

impl Run {
    fn windows(&self) -> &Vec<Value> {
        self.result["windows"].as_array().unwrap()
    }

    /// A counter over all windows.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let counts = self.windows().iter();
        counts.filter_map(|w| w["counters"][name].as_u64()).sum()
    }

    /// Pairs of microseconds and count, ascending, of each measured window.
    pub(crate) fn samples_by_window(&self, name: &str) -> Vec<Vec<(u64, u64)>> {
        let measured = self.windows().iter().filter(|w| w["phase"] == "measure");
        let pair = |p: &Value| (p[0].as_u64().unwrap(), p[1].as_u64().unwrap());
        measured
            .map(|w| {
                let pairs = w["hists"][name].as_array();
                pairs.into_iter().flatten().map(pair).collect()
            })
            .collect()
    }

    /// The same of all measured windows together.
    pub(crate) fn samples(&self, name: &str) -> Vec<(u64, u64)> {
        let mut pairs = self.samples_by_window(name).concat();
        pairs.sort_unstable();
        pairs
    }

    /// Whether the target that begins like this was met.
    pub(crate) fn met(&self, target: &str) -> bool {
        let verdicts = self.result["verdicts"].as_array().unwrap();
        let begins = |v: &&Value| v["target"].as_str().is_some_and(|t| t.starts_with(target));
        let verdict = verdicts.iter().find(begins);
        verdict.unwrap_or_else(|| panic!("no target {target}: {}", self.told))["met"] == true
    }
}

/// The sample of rank `q` of pairs of value and count, ascending.
pub(crate) fn quantile(samples: &[(u64, u64)], q: f64) -> f64 {
    let total: u64 = samples.iter().map(|s| s.1).sum();
    let rank = (total as f64 * q).ceil().max(1.0) as u64;
    let mut seen = 0;
    let at = samples.iter().find(|(_, n)| {
        seen += n;
        seen >= rank
    });
    at.map_or(f64::NAN, |s| s.0 as f64)
}

/// Four people who see and hear each other for a few seconds, on however slow a machine.
pub(crate) const CONSULT: &str = r#"
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

pub(crate) const BROADCAST: &str = r#"
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
