//! The relay under test: a process in development mode, on ports of the kernel's choice.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A relay that does not start, or answer, within this time never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay. It ends when this is dropped.
pub struct Relay {
    /// Held for its end: the child is killed on drop.
    _child: Child,
    http: SocketAddr,
}

impl Relay {
    /// Starts the binary that `SEALCAST_BIN` names.
    ///
    /// # Panics
    /// If it is not set, or the relay does not start.
    pub async fn start() -> Relay {
        let binary = std::env::var_os("SEALCAST_BIN")
            .expect("SEALCAST_BIN names the relay's binary: cargo build -p sealcast");
        let mut child = Command::new(binary)
            .args(["serve", "--dev"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the relay starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, url)) = line.split_once("Consult page: http://") {
                    return url.trim_end_matches('/').parse().unwrap();
                }
            }
            panic!("the relay ended at start");
        };
        let http = timeout(PATIENCE, ready).await.expect("the relay is ready");
        // Whatever else it prints is read, lest it wait for a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Relay {
            _child: child,
            http,
        }
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
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        );
        let text = self.exchange(&request).await;
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
