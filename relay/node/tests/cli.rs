//! The binary as an operator meets it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than anything here takes, unless it never happens.
const PATIENCE: Duration = Duration::from_secs(60);

fn sealcast(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sealcast"))
        .args(args)
        .output();
    output.expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A directory of the test's own, with a file in it.
fn dir(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// A configuration that can be served: HS256, any free port, sockets on loopback.
fn production(dir: &Path) -> String {
    write(dir, "secret", "0123456789abcdef0123456789abcdef\n");
    write(
        dir,
        "sealcast.toml",
        r#"
[http]
listen = ["127.0.0.1:0"]
[auth]
algorithm = "HS256"
issuer = "the-app"
keys = [{ kid = "a", file = "secret" }]
[rooms]
sealed = "optional"
[media]
bind = ["127.0.0.1"]
udp_port = 0
tcp_port = 0
shards = 1
[shutdown]
notice = "0ms"
[log]
format = "json"
"#,
    )
}

#[test]
fn five_faults_are_five_errors() {
    let dir = dir("five_faults");
    let config = write(
        &dir,
        "sealcast.toml",
        r#"
[http]
tls = "files"
max_conections = 5
[auth]
issuer = "app"
keys = [{ file = "missing.pem" }]
[rooms]
grace = "1 fortnight"
[media]
udp_port = 70000
"#,
    );
    let output = sealcast(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 5, "{told}");
    for (key, value, allowed) in [
        (
            "http.tls",
            "\"files\"",
            "http.certificate and http.key must be set",
        ),
        ("http.max_conections", "5", "max_connections"),
        ("auth.keys", "\"missing.pem\"", "cannot be read"),
        ("rooms.grace", "\"1 fortnight\"", "from \"1s\" to \"10m\""),
        ("media.udp_port", "70000", "from 0 to 65535"),
    ] {
        let line = lines
            .iter()
            .find(|l| l.starts_with(&format!("error: {key} = {value}: ")));
        let line = line.unwrap_or_else(|| panic!("{key} in\n{told}"));
        assert!(line.contains(allowed), "{line}");
    }
    assert!(stdout(&output).is_empty());
}

#[test]
fn a_configuration_without_keys_does_not_start() {
    let dir = dir("without_keys");
    let config = write(&dir, "sealcast.toml", "[auth]\nissuer = \"app\"\n");
    for command in ["check", "serve"] {
        let output = sealcast(&[command, "--config", &config]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(
            stderr(&output),
            "error: auth.keys = []: must name 1 to 16 keys; without any nobody can join\n"
        );
    }
    assert_eq!(
        sealcast(&["serve"]).status.code(),
        Some(2),
        "neither --config nor --dev"
    );
    let missing = sealcast(&["serve", "--config", "/nonexistent/sealcast.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("cannot be read"));
}

#[test]
fn a_correct_configuration_is_ok() {
    let config = production(&dir("correct"));
    let output = sealcast(&["check", "--config", &config]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn the_default_configuration_is_printed() {
    let printed = stdout(&sealcast(&["config"]));
    assert_eq!(printed, include_str!("../../../config/sealcast.toml"));
}

#[test]
fn the_version_is_printed() {
    let version = stdout(&sealcast(&["--version"]));
    assert_eq!(version, format!("sealcast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn tokens_are_checked_before_they_are_made() {
    for (args, complaint) in [
        (vec!["token", "--room", "a b"], "--room"),
        (vec!["token", "--room", "r", "--ttl", "0"], "--ttl"),
        (vec!["token", "--room", "r", "--ttl", "999999999"], "--ttl"),
        (vec!["token", "--room", "r", "--subject", ""], "--subject"),
        (
            vec!["token", "--room", "r", "--publish", "drone"],
            "--publish",
        ),
    ] {
        let output = sealcast(&args);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(complaint), "{}", stderr(&output));
    }
    let token = stdout(&sealcast(&["token", "--room", "r"]));
    assert_eq!(token.trim().split('.').count(), 3);
}

/// A running relay.
struct Relay {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: Vec<String>,
    addr: String,
}

impl Relay {
    fn start(args: &[&str]) -> Relay {
        Relay::run(Command::new(env!("CARGO_BIN_EXE_sealcast")).args(args))
    }

    fn run(command: &mut Command) -> Relay {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        let mut relay = Relay {
            child,
            lines,
            log: Vec::new(),
            addr: String::new(),
        };
        let ready = relay.until("is ready");
        let url = ready.split("http://").nth(1).expect("a URL");
        relay.addr = url.trim_end_matches('/').to_owned();
        relay
    }

    /// Reads the log up to a line with `text`.
    fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{text} in {:#?}", self.log));
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// An HTTP request; the status and everything after it.
    fn request(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let text = format!(
            "{head}\r\nhost: relay\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let status = response.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap(), response)
    }

    /// Sends a signal and waits for the end.
    fn stop(mut self, signal: &str) -> (Option<i32>, Vec<String>) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push(line);
        }
        (
            self.child.wait().unwrap().code(),
            std::mem::take(&mut self.log),
        )
    }
}

impl Drop for Relay {
    /// A failed test leaves no relay behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn development_says_what_it_is_and_stops_on_a_signal() {
    let relay = Relay::start(&["serve", "--dev"]);
    assert!(
        relay.log.iter().any(|l| l.contains("DEVELOPMENT MODE")),
        "{:#?}",
        relay.log
    );
    assert_eq!(relay.request("GET /readyz HTTP/1.1", "").0, 200);
    let (_, config) = relay.request("GET /v1/config HTTP/1.1", "");
    assert!(config.contains("\"development\":true"), "{config}");
    let (_, metrics) = relay.request("GET /metrics HTTP/1.1", "");
    assert!(
        metrics.contains("sealcast_sessions{shard=\"0\"} 0"),
        "{metrics}"
    );
    let (code, log) = relay.stop("-TERM");
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(log.iter().any(|l| l.contains("stopped")), "{log:#?}");
}

#[test]
fn shards_keep_to_the_cores_that_the_process_may_use() {
    let allowed = sealcast_io::usable_cores().unwrap();
    let core = allowed.last().unwrap().to_string();
    let dir = dir("affinity");
    let config = production(&dir);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("shards = 1", "shards = 0")).unwrap();
    // As CPUAffinity= of systemd does.
    let relay = Relay::run(Command::new("taskset").args([
        "--cpu-list",
        &core,
        env!("CARGO_BIN_EXE_sealcast"),
        "serve",
        "--config",
        &config,
    ]));
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.child.id())).unwrap();
    let shards: Vec<String> = threads
        .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .filter(|status| status.starts_with("Name:\tshard-"))
        .collect();
    assert_eq!(shards.len(), 1, "one for each core that it may use");
    assert!(
        shards[0].contains(&format!("Cpus_allowed_list:\t{core}\n")),
        "{}",
        shards[0]
    );
    assert_eq!(relay.stop("-TERM").0, Some(0));
}

#[test]
fn production_takes_its_own_tokens_and_no_development_ones() {
    let dir = dir("production");
    let config = production(&dir);
    let relay = Relay::start(&["serve", "--config", &config]);
    assert_eq!(relay.request("POST /dev/token HTTP/1.1", "{}").0, 404);
    let post = |token: &str| {
        let head = format!(
            "POST /whip/r HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/sdp",
            token.trim()
        );
        relay.request(&head, "no SDP").0
    };
    let own = sealcast(&["token", "--config", &config, "--room", "r", "--unsealed"]);
    assert!(own.status.success(), "{}", stderr(&own));
    assert_eq!(
        post(&stdout(&own)),
        400,
        "the token is taken, the SDP is not"
    );
    let development = sealcast(&["token", "--room", "r", "--unsealed"]);
    assert_eq!(post(&stdout(&development)), 401);
    let (code, log) = relay.stop("-INT");
    assert_eq!(code, Some(0), "{log:#?}");
    let json = log.iter().filter(|l| l.starts_with('{'));
    for line in json {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let all = log.join("\n");
    assert!(
        !all.contains("sealcast-token") && !all.contains("eyJ"),
        "{all}"
    );
}

/// Where log and errors go to a disk that is full, as with `>> relay.log 2>&1`.
#[test]
fn a_full_disk_loses_the_log_and_nothing_else() {
    let dir = dir("full");
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listen.local_addr().unwrap();
    drop(listen);
    let config = production(&dir);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("127.0.0.1:0", &address.to_string());
    std::fs::write(&config, text).unwrap();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_sealcast"))
        .args(["serve", "--config", &config])
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let mut healthy = false;
    for _ in 0..PATIENCE.as_millis() / 20 {
        healthy = is_healthy(address);
        if healthy || child.try_wait().unwrap().is_some() {
            break;
        }
        pause();
    }
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let ended = child.wait().unwrap();
    assert!(healthy && sent.success(), "{ended}");
    assert_eq!(ended.code(), Some(0));
}

fn is_healthy(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let mut answer = String::new();
    let asked = write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test waits for another process"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
