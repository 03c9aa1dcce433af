//! The client's side of PROTOCOL.md §3–6: JSON over a WebSocket.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// PROTOCOL.md §3.
const SUBPROTOCOL: &str = "sealcast.v1";

/// A response that takes longer is given up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Room events kept while a response is awaited; a relay that sends more is not sound.
const MAX_EVENTS: usize = 100_000;

/// What went wrong with signalling.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The URL is none, or not `ws:`.
    #[error("not a WebSocket URL: {0}")]
    Url(String),
    /// The socket failed or was closed.
    #[error("WebSocket: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The relay closed the socket.
    #[error("the relay closed the socket: {0}")]
    Closed(String),
    /// The relay refused a request.
    #[error("the relay answered {code}: {message}")]
    Refused {
        /// The code of PROTOCOL.md §3.1.
        code: String,
        /// For developers.
        message: String,
    },
    /// The relay sent something that the protocol does not have.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// No response in time.
    #[error("no response to {0}")]
    Timeout(&'static str),
}

impl From<tungstenite::Error> for SignalError {
    fn from(e: tungstenite::Error) -> Self {
        SignalError::Socket(Box::new(e))
    }
}

/// A track as snapshots and events show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Whose it is.
    pub participant: String,
    /// Its id.
    pub track: String,
    /// `audio`, `camera`, `screen` or `imaging`.
    pub source: String,
    /// Nothing is forwarded of it.
    pub muted: bool,
}

/// The snapshot of a room at joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Our id.
    pub participant: String,
    /// The other participants.
    pub participants: Vec<String>,
    /// Their tracks.
    pub tracks: Vec<TrackInfo>,
    /// For resuming.
    pub resume_token: String,
    /// MLS cipher suite of the room's group, if it has one.
    pub group_suite: Option<u16>,
}

/// What a slot is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// Its MID.
    pub mid: String,
    /// The track; none: nothing.
    pub track: Option<String>,
    /// Pixels it is shown at; none: as large as there is.
    pub size: Option<(u16, u16)>,
}

/// A message without an id.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalEvent {
    /// Somebody joined.
    ParticipantJoined(String),
    /// Somebody left.
    ParticipantLeft {
        /// Who.
        participant: String,
        /// Why.
        reason: String,
    },
    /// A track can be shown.
    TrackPublished(TrackInfo),
    /// A track is gone.
    TrackUnpublished {
        /// Which.
        track: String,
        /// Why.
        reason: String,
    },
    /// ICE and DTLS are done, as the relay sees it.
    MediaConnected,
    /// The media session ended.
    MediaClosed(String),
    /// A message of the delivery service.
    Group(Vec<u8>),
    /// A sealed message of another participant.
    Sealed(Vec<u8>),
    /// Anything else, as it came.
    Other(Value),
}

/// A byte stream to a server.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A signalling connection.
pub struct Signal {
    socket: WebSocketStream<Box<dyn Io>>,
    next_id: u64,
    events: VecDeque<SignalEvent>,
}

impl Signal {
    /// Opens a WebSocket to `url`, `ws://host:port/v1/signal`.
    ///
    /// # Errors
    /// [`SignalError::Url`] or [`SignalError::Socket`].
    pub async fn connect(url: &str) -> Result<Signal, SignalError> {
        let uri: Uri = url.parse().map_err(|_| SignalError::Url(url.to_owned()))?;
        let (host, port) = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("ws"))
            .map(|host| (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80)))
            .ok_or_else(|| SignalError::Url(url.to_owned()))?;
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(tungstenite::Error::Io)?;
        Signal::over(Box::new(stream), uri.clone()).await
    }

    /// Opens a WebSocket on a stream to the server of `uri`, TLS already done.
    ///
    /// # Errors
    /// [`SignalError::Socket`].
    pub async fn over(stream: Box<dyn Io>, uri: Uri) -> Result<Signal, SignalError> {
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
        let (socket, _) = client_async(request, stream).await?;
        Ok(Signal {
            socket,
            next_id: 1,
            events: VecDeque::new(),
        })
    }

    /// Joins the token's room.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn join(&mut self, token: &str) -> Result<Joined, SignalError> {
        let client = concat!("sealcast-load/", env!("CARGO_PKG_VERSION"));
        let request = json!({"type": "join", "protocol": 1, "token": token, "client": client});
        let response = self.request("joined", request).await?;
        let (mut participants, mut tracks) = (vec![], vec![]);
        for other in response["participants"].as_array().into_iter().flatten() {
            let participant = text(other, "participant")?;
            for track in other["tracks"].as_array().into_iter().flatten() {
                tracks.push(track_info(&participant, track)?);
            }
            participants.push(participant);
        }
        Ok(Joined {
            participant: text(&response, "participant")?,
            resume_token: text(&response, "resume_token")?,
            group_suite: group_suite(&response)?,
            participants,
            tracks,
        })
    }

    /// Sends an offer; the answer's SDP.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn offer(&mut self, sdp: &str) -> Result<String, SignalError> {
        let response = self
            .request("answer", json!({"type": "offer", "sdp": sdp}))
            .await?;
        text(&response, "sdp")
    }

    /// Publishes the sending m-line `mid`; the track's id.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn publish(
        &mut self,
        mid: usize,
        source: &str,
        seal_contexts: &[u64],
    ) -> Result<String, SignalError> {
        let mut request = json!({"type": "publish", "mid": mid.to_string(), "source": source});
        if !seal_contexts.is_empty() {
            request["seal"] = json!({"contexts": seal_contexts});
        }
        let response = self.request("published", request).await?;
        text(&response, "track")
    }

    /// Shows tracks in slots.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn assign(&mut self, slots: &[SlotRequest]) -> Result<(), SignalError> {
        let entry = |slot: &SlotRequest| {
            let mut entry = json!({"mid": slot.mid, "track": slot.track});
            if let Some((width, height)) = slot.size {
                entry["size"] = json!([width, height]);
            }
            entry
        };
        let assign: Vec<Value> = slots.iter().map(entry).collect();
        self.acknowledged(json!({"type": "slots", "assign": assign}))
            .await
    }

    /// Sends a message to the delivery service.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn group(&mut self, message: &[u8]) -> Result<(), SignalError> {
        let data = BASE64.encode(message);
        self.acknowledged(json!({"type": "group", "data": data}))
            .await
    }

    /// Sends a sealed message to all other participants.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn sealed(&mut self, message: &[u8]) -> Result<(), SignalError> {
        let data = BASE64.encode(message);
        self.acknowledged(json!({"type": "sealed", "data": data}))
            .await
    }

    async fn acknowledged(&mut self, request: Value) -> Result<(), SignalError> {
        self.request("ok", request).await.map(|_| ())
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// [`SignalError`].
    pub async fn leave(&mut self) -> Result<(), SignalError> {
        self.request("left", json!({"type": "leave"}))
            .await
            .map(|_| ())
    }

    /// The next event. Waiting here also answers the relay's pings.
    ///
    /// # Errors
    /// [`SignalError`] once the socket is closed.
    pub async fn next_event(&mut self) -> Result<SignalEvent, SignalError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let message = self.receive().await?;
            if message.get("id").is_some() {
                return Err(SignalError::Protocol("a response to no request".into()));
            }
            self.take_event(message)?;
        }
    }

    /// Sends a request and waits for its response, of type `expect`.
    async fn request(
        &mut self,
        expect: &'static str,
        mut request: Value,
    ) -> Result<Value, SignalError> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        self.socket.send(Message::text(request.to_string())).await?;
        let response = async {
            loop {
                let message = self.receive().await?;
                match message.get("id").and_then(Value::as_u64) {
                    Some(got) if got == id => return check(expect, message),
                    Some(_) => {
                        return Err(SignalError::Protocol("a response to no request".into()));
                    }
                    None => self.take_event(message)?,
                }
            }
        };
        tokio::time::timeout(RESPONSE_TIMEOUT, response)
            .await
            .map_err(|_| SignalError::Timeout(expect))?
    }

    async fn receive(&mut self) -> Result<Value, SignalError> {
        loop {
            let message = self.socket.next().await;
            match message.ok_or_else(|| SignalError::Closed("without a word".into()))?? {
                Message::Text(text) => {
                    return serde_json::from_str(&text)
                        .map_err(|e| SignalError::Protocol(e.to_string()));
                }
                Message::Close(frame) => {
                    let why = frame.map_or("without a word".into(), |f| f.to_string());
                    return Err(SignalError::Closed(why));
                }
                Message::Ping(_) | Message::Pong(_) => {} // Answered by the library.
                Message::Binary(_) | Message::Frame(_) => {
                    return Err(SignalError::Protocol("a binary message".into()));
                }
            }
        }
    }

    fn take_event(&mut self, message: Value) -> Result<(), SignalError> {
        if message["type"] == "error" {
            return Err(refused(&message));
        }
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event(message)?);
        }
        Ok(())
    }
}

fn check(expect: &str, message: Value) -> Result<Value, SignalError> {
    match message["type"].as_str() {
        Some(kind) if kind == expect => Ok(message),
        Some("error") => Err(refused(&message)),
        other => Err(SignalError::Protocol(format!(
            "{other:?} in response to {expect}"
        ))),
    }
}

fn refused(message: &Value) -> SignalError {
    let field = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    SignalError::Refused {
        code: field("code"),
        message: field("message"),
    }
}

fn text(value: &Value, field: &'static str) -> Result<String, SignalError> {
    let text = value[field].as_str().map(str::to_owned);
    text.ok_or_else(|| SignalError::Protocol(format!("{} without {field}", value["type"])))
}

fn group_suite(joined: &Value) -> Result<Option<u16>, SignalError> {
    if joined["keys"] != "group" {
        return Ok(None);
    }
    let suite = joined["group_suite"].as_u64();
    let suite = suite.and_then(|s| u16::try_from(s).ok());
    let missing = || SignalError::Protocol("joined without group_suite".into());
    suite.map(Some).ok_or_else(missing)
}

fn data(message: &Value) -> Result<Vec<u8>, SignalError> {
    let data = text(message, "data")?;
    let decoded = BASE64.decode(data);
    decoded.map_err(|e| SignalError::Protocol(format!("{}: {e}", message["type"])))
}

fn track_info(participant: &str, track: &Value) -> Result<TrackInfo, SignalError> {
    Ok(TrackInfo {
        participant: participant.to_owned(),
        track: text(track, "track")?,
        source: text(track, "source")?,
        muted: track["muted"].as_bool().unwrap_or_default(),
    })
}

fn event(message: Value) -> Result<SignalEvent, SignalError> {
    Ok(match message["type"].as_str().unwrap_or_default() {
        "participant_joined" => SignalEvent::ParticipantJoined(text(&message, "participant")?),
        "participant_left" => SignalEvent::ParticipantLeft {
            participant: text(&message, "participant")?,
            reason: text(&message, "reason")?,
        },
        "track_published" => {
            SignalEvent::TrackPublished(track_info(&text(&message, "participant")?, &message)?)
        }
        "track_unpublished" => SignalEvent::TrackUnpublished {
            track: text(&message, "track")?,
            reason: text(&message, "reason")?,
        },
        "media_connected" => SignalEvent::MediaConnected,
        "media_closed" => SignalEvent::MediaClosed(text(&message, "reason")?),
        "group" => SignalEvent::Group(data(&message)?),
        "sealed" => SignalEvent::Sealed(data(&message)?),
        _ => SignalEvent::Other(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::accept_hdr_async;
    use tungstenite::handshake::server::{ErrorResponse, Request, Response};

    #[expect(clippy::result_large_err, reason = "the library's signature")]
    fn choose_protocol(offer: &Request, mut answer: Response) -> Result<Response, ErrorResponse> {
        let offered = offer.headers()["sec-websocket-protocol"].clone();
        answer
            .headers_mut()
            .insert("sec-websocket-protocol", offered);
        Ok(answer)
    }

    /// Serves one socket by a script: for each request, what to send back (with its id where
    /// `"id"` stands).
    async fn relay(script: Vec<Vec<Value>>) -> (String, tokio::task::JoinHandle<Vec<Value>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/signal", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_hdr_async(stream, choose_protocol).await.unwrap();
            let mut seen = vec![];
            for answers in script {
                let Some(Ok(Message::Text(request))) = socket.next().await else {
                    break;
                };
                let request: Value = serde_json::from_str(&request).unwrap();
                for mut answer in answers {
                    if answer.get("id").is_some() {
                        answer["id"] = request["id"].clone();
                    }
                    socket
                        .send(Message::text(answer.to_string()))
                        .await
                        .unwrap();
                }
                seen.push(request);
            }
            seen
        });
        (url, served)
    }

    #[tokio::test]
    async fn speaks_the_protocol() {
        let joined = json!({"type": "joined", "id": 0, "participant": "PA_1", "resume_token": "r",
            "participants": [{"participant": "PA_2", "tracks":
                [{"track": "TR_1", "source": "audio", "muted": true}]}]});
        let (url, served) = relay(vec![
            vec![joined],
            vec![
                json!({"type": "track_published", "participant": "PA_2", "track": "TR_2",
                    "source": "camera", "muted": false, "seq": 4}),
                json!({"type": "published", "id": 0, "track": "TR_3"}),
            ],
            vec![json!({"type": "error", "id": 0, "code": "no_slot", "message": "none"})],
        ])
        .await;
        let mut signal = Signal::connect(&url).await.unwrap();
        let snapshot = signal.join("token").await.unwrap();
        assert_eq!(snapshot.participants, ["PA_2"]);
        assert!(snapshot.tracks[0].muted);
        assert_eq!(signal.publish(1, "camera", &[77]).await.unwrap(), "TR_3");
        let nothing = SlotRequest {
            mid: "5".into(),
            track: None,
            size: Some((640, 360)),
        };
        let refused = signal.assign(&[nothing]).await.unwrap_err();
        assert!(matches!(refused, SignalError::Refused { code, .. } if code == "no_slot"));
        // The event that overtook the response was kept.
        let SignalEvent::TrackPublished(track) = signal.next_event().await.unwrap() else {
            panic!()
        };
        assert_eq!(
            (track.track.as_str(), track.source.as_str()),
            ("TR_2", "camera")
        );
        let seen = served.await.unwrap();
        assert_eq!(seen[0]["token"], "token");
        assert_eq!(seen[1]["seal"], json!({"contexts": [77]}));
        assert_eq!(
            seen[2]["assign"],
            json!([{"mid": "5", "track": null, "size": [640, 360]}])
        );
        assert!(matches!(
            signal.next_event().await,
            Err(SignalError::Closed(_) | SignalError::Socket(_))
        ));
    }
}
