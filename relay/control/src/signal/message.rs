//! Requests (PROTOCOL.md §3–§6) as values. What passes [`decode`] has the right
//! shape; whether it may be done is for the rooms to say.

use crate::limits;
use crate::refusal::{Code, Refusal};
use crate::rooms::{PublishRequest, SlotRequest, TrackReport};
use crate::token::source_from_str;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealcast_model::limits::DATA_MESSAGE_MAX;
use sealcast_model::{CommandError, Mid, ParticipantId, TrackId};
use serde::Deserialize;

/// The protocol's version.
pub(super) const PROTOCOL: u64 = 1;

/// Largest request id: what a JavaScript number holds exactly.
const MAX_ID: u64 = (1 << 53) - 1;

/// A request with its id.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) id: u64,
    /// The request's type, for metrics: a name of the protocol, never one that a client made up.
    pub(super) name: &'static str,
    pub(super) request: Request,
}

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Request {
    Join {
        token: String,
        room: Option<String>,
    },
    Resume {
        resume_token: String,
    },
    Leave,
    Offer {
        sdp: String,
        restart: bool,
    },
    Publish(PublishRequest),
    Unpublish {
        track: TrackId,
    },
    Mute {
        track: TrackId,
        muted: bool,
    },
    Slots(Vec<SlotRequest>),
    Remove {
        participant: ParticipantId,
    },
    Group {
        data: Vec<u8>,
    },
    Sealed {
        to: Option<ParticipantId>,
        data: String,
    },
    Report(Vec<TrackReport>),
}

/// Why a text is not a request: what to answer, and to which id where it has one.
#[derive(Debug)]
pub(super) struct Undecodable {
    pub(super) id: Option<u64>,
    /// As in [`Envelope`].
    pub(super) name: &'static str,
    pub(super) refusal: Refusal,
}

/// Reads a message.
///
/// # Errors
/// `bad_message`, `unknown_type`, `unsupported_version`, or the error that a malformed id or MID
/// means: there is no such thing.
pub(super) fn decode(text: &str) -> Result<Envelope, Undecodable> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
        id: u64,
    }
    let head: Head = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(error) => {
            return Err(Undecodable {
                id: id_of(text),
                name: "unknown",
                refusal: bad(&error),
            });
        }
    };
    let undecodable = |name, refusal| Undecodable {
        id: Some(head.id),
        name,
        refusal,
    };
    if head.id > MAX_ID {
        let refusal = Refusal::new(Code::BadMessage, "id is over 2^53-1");
        return Err(undecodable("unknown", refusal));
    }
    let (name, request) = match head.r#type.as_str() {
        "join" => ("join", join(text)),
        "resume" => ("resume", resume(text)),
        "leave" => ("leave", Ok(Request::Leave)),
        "offer" => ("offer", offer(text)),
        "publish" => ("publish", publish(text)),
        "unpublish" => ("unpublish", unpublish(text)),
        "mute" => ("mute", mute(text)),
        "slots" => ("slots", slots(text)),
        "remove" => ("remove", remove(text)),
        "group" => ("group", group(text)),
        "sealed" => ("sealed", sealed(text)),
        "report" => ("report", report(text)),
        _ => {
            let refusal = Refusal::new(Code::UnknownType, "version 1 has no request of this type");
            return Err(undecodable("unknown", refusal));
        }
    };
    match request {
        Ok(request) => Ok(Envelope {
            id: head.id,
            name,
            request,
        }),
        Err(refusal) => Err(undecodable(name, refusal)),
    }
}

/// The id of a message that is otherwise unreadable, so that its sender can match the error.
pub(super) fn id_of(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Id {
        id: u64,
    }
    let id: Id = serde_json::from_str(text).ok()?;
    (id.id <= MAX_ID).then_some(id.id)
}

/// serde's messages name fields and types of ours; what they may quote of the client's text goes
/// back to that client alone.
fn bad(error: &serde_json::Error) -> Refusal {
    Refusal {
        code: Code::BadMessage,
        message: error.to_string().into(),
    }
}

fn fields<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|e| bad(&e))
}

fn check_version(protocol: u64) -> Result<(), Refusal> {
    if protocol == PROTOCOL {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::UnsupportedVersion,
            "this relay speaks version 1",
        ))
    }
}

fn join(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Join {
        protocol: u64,
        #[serde(default)]
        token: String,
        #[serde(default)]
        room: Option<String>,
    }
    let m: Join = fields(text)?;
    check_version(m.protocol)?;
    Ok(Request::Join {
        token: m.token,
        room: m.room,
    })
}

fn resume(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Resume {
        protocol: u64,
        resume_token: String,
    }
    let m: Resume = fields(text)?;
    check_version(m.protocol)?;
    Ok(Request::Resume {
        resume_token: m.resume_token,
    })
}

fn offer(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Offer {
        sdp: String,
        #[serde(default)]
        restart: bool,
    }
    let m: Offer = fields(text)?;
    Ok(Request::Offer {
        sdp: m.sdp,
        restart: m.restart,
    })
}

fn publish(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Publish {
        mid: String,
        source: String,
        #[serde(default)]
        seal: Option<Seal>,
    }
    #[derive(Deserialize)]
    struct Seal {
        contexts: Vec<u64>,
    }
    let m: Publish = fields(text)?;
    let source = source_from_str(&m.source).ok_or(Refusal::new(
        Code::BadMessage,
        "source must be audio, camera, screen or imaging",
    ))?;
    let contexts = m.seal.map(|s| s.contexts);
    if let Some(contexts) = &contexts {
        // A KID has 64 bits, of which a context takes those from 24 up.
        let fits = contexts.iter().all(|c| *c < 1 << 40);
        if !fits || contexts.is_empty() || contexts.len() > limits::CONTEXTS {
            return Err(Refusal::new(
                Code::BadMessage,
                "seal.contexts must hold 1 to 8 numbers below 2^40",
            ));
        }
    }
    Ok(Request::Publish(PublishRequest {
        mid: mid(&m.mid)?,
        source,
        contexts,
    }))
}

fn unpublish(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Unpublish {
        track: String,
    }
    let m: Unpublish = fields(text)?;
    Ok(Request::Unpublish {
        track: track(&m.track)?,
    })
}

fn mute(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Mute {
        track: String,
        muted: bool,
    }
    let m: Mute = fields(text)?;
    Ok(Request::Mute {
        track: track(&m.track)?,
        muted: m.muted,
    })
}

fn slots(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Slots {
        assign: Vec<Slot>,
    }
    #[derive(Deserialize)]
    struct Slot {
        mid: String,
        track: Option<String>,
        /// Width and height.
        size: Option<(u16, u16)>,
    }
    let m: Slots = fields(text)?;
    if m.assign.len() > limits::ASSIGNMENTS {
        return Err(Refusal::new(Code::Limit, "128 slots at once"));
    }
    let slots = m.assign.iter().map(|s| {
        Ok(SlotRequest {
            mid: mid(&s.mid)?,
            track: s.track.as_deref().map(track).transpose()?,
            size: s.size,
        })
    });
    slots.collect::<Result<_, Refusal>>().map(Request::Slots)
}

fn remove(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Remove {
        participant: String,
    }
    let m: Remove = fields(text)?;
    Ok(Request::Remove {
        participant: participant(&m.participant)?,
    })
}

fn group(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Group {
        data: String,
    }
    let m: Group = fields(text)?;
    let data = STANDARD.decode(&m.data).map_err(|_| NOT_BASE64)?;
    Ok(Request::Group { data })
}

fn sealed(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Sealed {
        #[serde(default)]
        to: Option<String>,
        data: String,
    }
    let m: Sealed = fields(text)?;
    let len = STANDARD.decode(&m.data).map_err(|_| NOT_BASE64)?.len();
    if len > DATA_MESSAGE_MAX {
        return Err(Refusal::new(Code::Limit, "a sealed message is over 16 KiB"));
    }
    Ok(Request::Sealed {
        to: m.to.as_deref().map(participant).transpose()?,
        data: m.data,
    })
}

fn report(text: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Report {
        receiving: Vec<Received>,
    }
    #[derive(Deserialize)]
    struct Received {
        track: String,
        #[serde(default)]
        opened: u32,
        #[serde(default)]
        unknown_key: u32,
        #[serde(default)]
        altered: u32,
        #[serde(default)]
        misattributed: u32,
        #[serde(default)]
        malformed: u32,
        #[serde(default)]
        failing: bool,
    }
    let m: Report = fields(text)?;
    if m.receiving.len() > limits::ASSIGNMENTS {
        return Err(Refusal::new(Code::Limit, "128 tracks at once"));
    }
    let believed = |frames: u32| frames.min(limits::REPORTED_FRAMES);
    let reports = m.receiving.iter().map(|r| {
        Ok(TrackReport {
            track: track(&r.track)?,
            opened: believed(r.opened),
            unknown_key: believed(r.unknown_key),
            altered: believed(r.altered),
            misattributed: believed(r.misattributed),
            malformed: believed(r.malformed),
            failing: r.failing,
        })
    });
    reports.collect::<Result<_, Refusal>>().map(Request::Report)
}

const NOT_BASE64: Refusal = Refusal::new(Code::BadMessage, "data must be base64");

fn participant(text: &str) -> Result<ParticipantId, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            Code::BadMessage,
            "participant must be PA_ and 16 hex digits",
        )
    })
}

fn track(text: &str) -> Result<TrackId, Refusal> {
    text.parse().map_err(|_| CommandError::NoTrack.into())
}

fn mid(text: &str) -> Result<Mid, Refusal> {
    Mid::new(text.as_bytes()).ok_or_else(|| CommandError::NoSlot.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> (Option<u64>, Code) {
        let e = decode(text).err().unwrap_or_else(|| panic!("{text}"));
        (e.id, e.refusal.code)
    }

    #[test]
    fn malformed_requests_are_told_apart() {
        for (text, id, code) in [
            ("", None, Code::BadMessage),
            ("[]", None, Code::BadMessage),
            ("null", None, Code::BadMessage),
            ("{}", None, Code::BadMessage),
            (r#"{"id":3}"#, Some(3), Code::BadMessage),
            (r#"{"type":"leave"}"#, None, Code::BadMessage),
            (r#"{"type":"leave","id":-1}"#, None, Code::BadMessage),
            (r#"{"type":"leave","id":1.5}"#, None, Code::BadMessage),
            (
                r#"{"type":"leave","id":9007199254740992}"#,
                Some(9_007_199_254_740_992),
                Code::BadMessage,
            ),
            (r#"{"type":"dance","id":1}"#, Some(1), Code::UnknownType),
            (
                r#"{"type":"join","id":1,"protocol":2,"token":"x"}"#,
                Some(1),
                Code::UnsupportedVersion,
            ),
            (
                r#"{"type":"join","id":1,"protocol":"1"}"#,
                Some(1),
                Code::BadMessage,
            ),
            (r#"{"type":"offer","id":1}"#, Some(1), Code::BadMessage),
            (
                r#"{"type":"unpublish","id":1,"track":"x"}"#,
                Some(1),
                Code::NoTrack,
            ),
            (
                r#"{"type":"publish","id":1,"mid":"0","source":"drone"}"#,
                Some(1),
                Code::BadMessage,
            ),
            (
                r#"{"type":"publish","id":1,"mid":"","source":"audio"}"#,
                Some(1),
                Code::NoSlot,
            ),
            (
                r#"{"type":"publish","id":1,"mid":"0","source":"audio","seal":{"contexts":[]}}"#,
                Some(1),
                Code::BadMessage,
            ),
            (
                r#"{"type":"publish","id":1,"mid":"0","source":"audio","seal":{"contexts":[1099511627776]}}"#,
                Some(1),
                Code::BadMessage,
            ),
            (
                r#"{"type":"slots","id":1,"assign":[{"track":null}]}"#,
                Some(1),
                Code::BadMessage,
            ),
            (
                r#"{"type":"slots","id":1,"assign":[{"mid":"3","track":null,"size":[640,-1]}]}"#,
                Some(1),
                Code::BadMessage,
            ),
            (
                r#"{"type":"remove","id":1,"participant":"TR_0000000000000000"}"#,
                Some(1),
                Code::BadMessage,
            ),
        ] {
            assert_eq!(refused(text), (id, code), "{text}");
        }
        let deep = "[".repeat(200_000);
        assert_eq!(refused(&deep).1, Code::BadMessage);
        let many = format!(
            r#"{{"type":"slots","id":1,"assign":[{}]}}"#,
            vec![r#"{"mid":"0","track":null}"#; 129].join(",")
        );
        assert_eq!(refused(&many), (Some(1), Code::Limit));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let e =
            decode(r#"{"type":"mute","id":7,"track":"TR_00000000000000ff","muted":true,"x":[{}]}"#)
                .unwrap();
        assert!(matches!(
            e.request,
            Request::Mute {
                track: TrackId(255),
                muted: true
            }
        ));
        assert_eq!((e.id, e.name), (7, "mute"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}", kind in "join|offer|publish|slots") {
            let _ = decode(&text);
            let _ = decode(&format!(r#"{{"type":"{kind}","id":1,{text}}}"#));
        }
    }
}
