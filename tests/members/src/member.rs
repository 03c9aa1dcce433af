//! One participant: a signalling socket, a member of the group, and numbered frames of its own that
//! the test hands to the others, as the relay would.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, Member, MemberConfig, MemberKey};
use sealcast_sframe::OpenError;
use sealcast_sframe::layout::Codec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How often each member seals a frame.
const FRAME_INTERVAL: Duration = Duration::from_millis(200);

/// The encoder that frames come from.
const CONTEXT: u16 = 7;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A sealed frame on its way to everybody else.
#[derive(Clone, Debug)]
pub struct Frame {
    from: usize,
    number: u32,
    sent: Instant,
    sealed: Arc<[u8]>,
}

/// Bytes of signalling payload: JSON, as it crosses the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the member to the relay.
    pub up: usize,
    /// From the relay to the member.
    pub down: usize,
    /// Of `up`, requests to the delivery service.
    pub group_up: usize,
    /// Of `down`, messages of the delivery service.
    pub group_down: usize,
}

/// A member's group as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Its epoch.
    pub epoch: Option<u64>,
    /// The epoch that it seals with.
    pub sending: Option<u64>,
    /// The epoch authenticator, which is the same for all who agree on the group.
    pub authenticator: Option<Vec<u8>>,
    /// How many are in it.
    pub members: usize,
    /// Signalling so far.
    pub traffic: Traffic,
}

/// What became of one sender's frames at one receiver, from the first that it opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    /// Opened.
    pub opened: u32,
    /// Not opened.
    pub lost: u32,
    /// Longest time between the first frame of a gap and the next that opened, by when they were
    /// sealed.
    pub longest_loss: Duration,
    gap_since: Option<Instant>,
}

/// What a member has to tell at its end.
#[derive(Clone, Debug)]
pub struct Join {
    /// From opening the socket until it had the group's keys.
    pub took: Duration,
    /// By sender.
    pub watched: BTreeMap<usize, Watched>,
    /// Sealed messages of others, opened.
    pub heard: Vec<Vec<u8>>,
    /// Codes of requests that the relay refused, messages that the member refused, and events that
    /// are no epoch.
    pub surprises: Vec<String>,
}

/// A member that runs by itself.
pub struct Peer {
    /// Its group, whenever that changes.
    pub state: watch::Receiver<GroupState>,
    asks: mpsc::Sender<Ask>,
    task: JoinHandle<Join>,
}

/// What the test wants of a member that runs.
enum Ask {
    /// Every secret it holds now.
    Secrets(oneshot::Sender<Vec<(String, Vec<u8>)>>),
    /// New keys.
    Rotate,
    /// A sealed message to everybody.
    Say(Vec<u8>),
    Stop,
}

impl Peer {
    /// Joins with `token`, as number `id` of those whose frames go through `frames`.
    pub fn join(id: usize, url: String, token: String, frames: broadcast::Sender<Frame>) -> Peer {
        let (told, state) = watch::channel(GroupState::default());
        let (asks, asked) = mpsc::channel(8);
        let task = tokio::spawn(async move {
            let running = Running::join(id, &url, &token, frames, told).await;
            running.run(asked).await
        });
        Peer { state, asks, task }
    }

    /// Ends the member and hears what it has to tell.
    pub async fn stop(self) -> Join {
        self.ask(Ask::Stop).await;
        self.task.await.unwrap()
    }

    /// Every secret that it holds now, with what it is.
    pub async fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        let (reply, secrets) = oneshot::channel();
        self.ask(Ask::Secrets(reply)).await;
        secrets.await.expect("the member runs")
    }

    /// Asks the group for new keys.
    pub async fn rotate(&self) {
        self.ask(Ask::Rotate).await;
    }

    /// Sends a sealed message to everybody.
    pub async fn say(&self, content: Vec<u8>) {
        self.ask(Ask::Say(content)).await;
    }

    async fn ask(&self, ask: Ask) {
        // It listens until it has been told to stop.
        assert!(self.asks.send(ask).await.is_ok(), "the member runs");
    }
}

struct Running {
    id: usize,
    socket: Socket,
    member: Member,
    began: Instant,
    took: Option<Duration>,
    next_request: u64,
    next_frame: u32,
    frames: broadcast::Sender<Frame>,
    watched: BTreeMap<usize, Watched>,
    told: watch::Sender<GroupState>,
    traffic: Traffic,
    surprises: Vec<String>,
    heard: Vec<Vec<u8>>,
}

impl Running {
    async fn join(
        id: usize,
        url: &str,
        token: &str,
        frames: broadcast::Sender<Frame>,
        told: watch::Sender<GroupState>,
    ) -> Running {
        let began = Instant::now();
        let request =
            ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol("sealcast.v1");
        let (socket, _) = connect_async(request).await.unwrap();
        let key = MemberKey::generate(GroupSuite::X25519).unwrap();
        let claim = Claim::Id(format!("member-{id}"));
        let mut running = Running {
            id,
            socket,
            member: Member::new(unix(), MemberConfig::default(), key, &claim).unwrap(),
            began,
            took: None,
            next_request: 2,
            next_frame: 0,
            frames,
            watched: BTreeMap::new(),
            told,
            traffic: Traffic::default(),
            surprises: Vec::new(),
            heard: Vec::new(),
        };
        let join = json!({"type": "join", "id": 1, "protocol": 1, "token": token}).to_string();
        running.traffic.up += join.len();
        running.socket.send(Message::text(join)).await.unwrap();
        running
    }

    async fn run(mut self, mut asked: mpsc::Receiver<Ask>) -> Join {
        let mut ticks = interval(FRAME_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut others = self.frames.subscribe();
        let mut joined = false;
        loop {
            let due = self.member.poll_timeout().map(|at| {
                let wait = at.saturating_sub(unix());
                Instant::now() + wait
            });
            tokio::select! {
                message = self.socket.next() => {
                    let message = message.expect("the relay keeps the socket").unwrap();
                    joined |= self.on_message(&message);
                }
                frame = others.recv() => self.on_frame(&frame.expect("frames are taken in time")),
                _ = ticks.tick() => self.send_frame(),
                () = async {
                    match due {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => self.member.handle_timeout(unix()).unwrap(),
                ask = asked.recv() => match ask {
                    Some(Ask::Secrets(reply)) => {
                        // The test may have given up waiting, and fails for that.
                        let _ = reply.send(self.member.expose_secrets());
                    }
                    Some(Ask::Rotate) => self.member.request_rotation(),
                    Some(Ask::Say(content)) => self.say(&content).await,
                    Some(Ask::Stop) | None => break,
                },
            }
            if joined {
                self.drain().await;
            }
        }
        for watched in self.watched.values_mut() {
            // What is missing at the end has been missing until now.
            let missing = watched.gap_since.map_or(Duration::ZERO, |at| at.elapsed());
            watched.longest_loss = watched.longest_loss.max(missing);
        }
        Join {
            took: self.took.expect("it was in"),
            watched: self.watched,
            heard: self.heard,
            surprises: self.surprises,
        }
    }

    /// Takes in what the relay says; whether it is that we have joined.
    fn on_message(&mut self, message: &Message) -> bool {
        let Message::Text(text) = message else {
            return false;
        };
        self.traffic.down += text.len();
        let message: Value = serde_json::from_str(text).unwrap();
        match message["type"].as_str().unwrap() {
            "joined" => return true,
            "group" => {
                self.traffic.group_down += text.len();
                let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
                if let Err(error) = self.member.handle_message(unix(), &data) {
                    self.surprises.push(error.to_string());
                }
            }
            "sealed" => {
                let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
                match self.member.open_metadata(&data) {
                    Ok(opened) => self.heard.push(opened.content),
                    Err(error) => self.surprises.push(error.to_string()),
                }
            }
            "error" => self.surprises.push(text.to_string()),
            _ => {}
        }
        false
    }

    /// Sends what is to be sent, and tells how things stand.
    async fn drain(&mut self) {
        while let Some(message) = self.member.poll_outgoing() {
            let data = STANDARD.encode(message);
            let request = json!({"type": "group", "id": self.next_request, "data": data});
            self.next_request += 1;
            let text = request.to_string();
            self.traffic.up += text.len();
            self.traffic.group_up += text.len();
            self.socket.send(Message::text(text)).await.unwrap();
        }
        while let Some(event) = self.member.poll_event() {
            use sealcast_mls::Event::{Epoch, Sending};
            if !matches!(event, Epoch { .. } | Sending { .. }) {
                self.surprises.push(format!("{event:?}"));
            }
        }
        if self.member.sending_epoch().is_some() {
            self.took.get_or_insert_with(|| self.began.elapsed());
        }
        let state = GroupState {
            epoch: self.member.epoch(),
            sending: self.member.sending_epoch(),
            authenticator: self.member.epoch_authenticator().map(<[u8]>::to_vec),
            members: self.member.members().len(),
            traffic: self.traffic,
        };
        self.told.send_if_modified(|told| {
            let changed = *told != state;
            *told = state;
            changed
        });
    }

    async fn say(&mut self, content: &[u8]) {
        let data = STANDARD.encode(self.member.seal_metadata(content).unwrap());
        let request = json!({"type": "sealed", "id": self.next_request, "data": data});
        self.next_request += 1;
        let text = request.to_string();
        self.traffic.up += text.len();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    fn send_frame(&mut self) {
        let mut sealed = Vec::new();
        let body = self.next_frame.to_be_bytes();
        if self
            .member
            .seal_frame(CONTEXT, Codec::Opus, &body, &mut sealed)
            .is_ok()
        {
            let frame = Frame {
                from: self.id,
                number: self.next_frame,
                sent: Instant::now(),
                sealed: sealed.into(),
            };
            self.next_frame += 1;
            // Nobody listens while this is the only one.
            let _ = self.frames.send(frame);
        }
    }

    fn on_frame(&mut self, frame: &Frame) {
        if frame.from == self.id {
            return;
        }
        let mut sealed = frame.sealed.to_vec();
        let opened = self.member.open_frame(Codec::Opus, &mut sealed);
        match opened {
            Ok(Some(media)) => {
                assert_eq!(sealed[media.opened.frame], frame.number.to_be_bytes());
                let watched = self.watched.entry(frame.from).or_default();
                watched.opened += 1;
                if let Some(since) = watched.gap_since.take() {
                    watched.longest_loss = watched.longest_loss.max(frame.sent - since);
                }
            }
            Ok(None) => panic!("no frame is empty"),
            Err(error) => {
                assert!(
                    matches!(error, OpenError::UnknownKid(_)),
                    "a frame that nobody altered: {error}"
                );
                if let Some(watched) = self.watched.get_mut(&frame.from) {
                    watched.lost += 1;
                    watched.gap_since.get_or_insert(frame.sent);
                }
            }
        }
    }
}

/// The members' clock.
fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
