//! The relay under test: a process in development mode, on ports of the kernel's choice.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A relay that does not start, or answer, within this time never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay. It ends when this is dropped.
pub struct Relay {
    /// Killed on drop.
    child: Child,
    http: SocketAddr,
    written: Arc<Mutex<String>>,
}

impl Relay {
    /// Starts the binary that `SEALCAST_BIN` names, or the one beside the test, built if need be.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Relay {
        let mut child = Command::new(binary())
            .args(["serve", "--dev"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the relay starts");
        let written = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(keep(errors, Arc::clone(&written)));
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, url)) = line.split_once("Consult page: http://") {
                    return url.trim_end_matches('/').parse().unwrap();
                }
            }
            panic!("the relay ended at start");
        };
        let http = timeout(PATIENCE, ready).await.expect("the relay is ready");
        tokio::spawn(keep(lines, Arc::clone(&written)));
        Relay {
            child,
            http,
            written,
        }
    }

    /// Its process.
    ///
    /// # Panics
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the relay runs")
    }

    /// What it has written: its log.
    pub fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// Its metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        );
        self.exchange(&request).await
    }

    /// Where it takes signalling.
    pub fn signal_url(&self) -> String {
        format!("ws://{}/v1/signal", self.http)
    }

    /// A token for `room` with all the usual grants.
    pub async fn token(&self, room: &str) -> String {
        let body = json!({ "room": room }).to_string();
        let request = format!(
            "POST /dev/token HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.http,
            body.len()
        );
        let reply: Value = serde_json::from_str(&self.exchange(&request).await).unwrap();
        reply["token"].as_str().expect("a token").to_owned()
    }

    /// Value of a series of its metrics, named as Prometheus writes it; 0 where there is none yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(name, _)| *name == series);
        found.map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// One HTTP exchange; the body of the response, which must be 200 and not chunked.
    async fn exchange(&self, request: &str) -> String {
        let work = async {
            let mut stream = TcpStream::connect(self.http).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            let (head, body) = response.split_once("\r\n\r\n").expect("an HTTP response");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
            body.to_owned()
        };
        timeout(PATIENCE, work).await.expect("an answer in time")
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEALCAST_BIN") {
        return path.into();
    }
    // target/debug/deps/test-…: the relay is two levels up.
    let test = std::env::current_exe().unwrap();
    let relay = test.ancestors().nth(2).unwrap().join("sealcast");
    if !relay.exists() {
        let mut build = std::process::Command::new(env!("CARGO"));
        let built = build.args(["build", "-p", "sealcast"]).status();
        assert!(built.unwrap().success(), "the relay is built");
    }
    relay
}

/// Keeps what the relay writes, which must not wait for a full pipe either.
async fn keep(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>, written: Arc<Mutex<String>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut written = written.lock().unwrap();
        written.push_str(&line);
        written.push('\n');
    }
}
