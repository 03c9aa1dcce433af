//! What the relay says when it does not do what a client asked for: the codes of PROTOCOL.md
//! §3.1, what each does to the socket, and the HTTP status that WHIP and WHEP give for it.

use crate::rooms::message;
use crate::sdp::{SdpError, SdpErrorKind};
use crate::token::TokenError;
use axum::extract::ws::Utf8Bytes;
use sealcast_model::CommandError;
use serde::Serialize;
use std::borrow::Cow;

/// An error code of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not JSON, not an object, a field missing or of the wrong type.
    BadMessage,
    /// The type is not of this version.
    UnknownType,
    /// Message over the limit.
    TooLarge,
    /// Too many requests.
    RateLimited,
    /// `protocol` is not 1.
    UnsupportedVersion,
    /// Token missing, malformed, or not by this relay's rules.
    Unauthorized,
    /// `exp` has passed or `nbf` is ahead.
    TokenExpired,
    /// The grants do not allow it.
    Forbidden,
    /// The token is for another room.
    WrongRoom,
    /// A request before `join`.
    NotJoined,
    /// A second `join` or `resume`.
    AlreadyJoined,
    /// No participant for this resume token.
    ResumeUnknown,
    /// The room's or the relay's limit of participants.
    RoomFull,
    /// SDP malformed or against the rules.
    BadSdp,
    /// SDP over its limits.
    SdpTooLarge,
    /// No media session.
    NoSession,
    /// No such track.
    NoTrack,
    /// No such slot.
    NoSlot,
    /// The m-line already carries a track.
    MidInUse,
    /// The receiver did not negotiate the track's codec, or an offer has nothing that the relay
    /// takes.
    CodecUnsupported,
    /// A limit is reached.
    Limit,
    /// Overloaded.
    Busy,
    /// The room demands sealed media.
    Unsealed,
    /// A group message that the delivery service did not take.
    BadGroup,
    /// The relay is stopping.
    GoingAway,
    /// A bug in the relay.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 26] = [
        Code::BadMessage,
        Code::UnknownType,
        Code::TooLarge,
        Code::RateLimited,
        Code::UnsupportedVersion,
        Code::Unauthorized,
        Code::TokenExpired,
        Code::Forbidden,
        Code::WrongRoom,
        Code::NotJoined,
        Code::AlreadyJoined,
        Code::ResumeUnknown,
        Code::RoomFull,
        Code::BadSdp,
        Code::SdpTooLarge,
        Code::NoSession,
        Code::NoTrack,
        Code::NoSlot,
        Code::MidInUse,
        Code::CodecUnsupported,
        Code::Limit,
        Code::Busy,
        Code::Unsealed,
        Code::BadGroup,
        Code::GoingAway,
        Code::Internal,
    ];

    /// Its name on the wire and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadMessage => "bad_message",
            Code::UnknownType => "unknown_type",
            Code::TooLarge => "too_large",
            Code::RateLimited => "rate_limited",
            Code::UnsupportedVersion => "unsupported_version",
            Code::Unauthorized => "unauthorized",
            Code::TokenExpired => "token_expired",
            Code::Forbidden => "forbidden",
            Code::WrongRoom => "wrong_room",
            Code::NotJoined => "not_joined",
            Code::AlreadyJoined => "already_joined",
            Code::ResumeUnknown => "resume_unknown",
            Code::RoomFull => "room_full",
            Code::BadSdp => "bad_sdp",
            Code::SdpTooLarge => "sdp_too_large",
            Code::NoSession => "no_session",
            Code::NoTrack => "no_track",
            Code::NoSlot => "no_slot",
            Code::MidInUse => "mid_in_use",
            Code::CodecUnsupported => "codec_unsupported",
            Code::Limit => "limit",
            Code::Busy => "busy",
            Code::Unsealed => "unsealed",
            Code::BadGroup => "bad_group",
            Code::GoingAway => "going_away",
            Code::Internal => "internal",
        }
    }

    /// The WebSocket close code that follows, where the socket does not stay.
    #[must_use]
    pub const fn close(self) -> Option<u16> {
        match self {
            Code::TooLarge => Some(1009),
            Code::GoingAway => Some(1001),
            Code::UnsupportedVersion | Code::NotJoined => Some(4400),
            Code::Unauthorized | Code::TokenExpired => Some(4401),
            Code::WrongRoom => Some(4403),
            Code::ResumeUnknown => Some(4404),
            Code::RoomFull => Some(4429),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn retry(self) -> bool {
        matches!(
            self,
            Code::RateLimited | Code::RoomFull | Code::Busy | Code::GoingAway
        )
    }

    /// The HTTP status of WHIP and WHEP (PROTOCOL.md §9).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Code::Unauthorized | Code::TokenExpired => 401,
            Code::Forbidden | Code::WrongRoom | Code::Unsealed => 403,
            Code::ResumeUnknown | Code::NoSession => 404,
            Code::CodecUnsupported => 406,
            Code::TooLarge | Code::SdpTooLarge => 413,
            Code::RateLimited | Code::RoomFull | Code::Limit => 429,
            Code::Busy | Code::GoingAway => 503,
            Code::Internal => 500,
            _ => 400,
        }
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For developers. Never holds anything private.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a fixed message.
    #[must_use]
    pub const fn new(code: Code, message: &'static str) -> Self {
        Refusal {
            code,
            message: Cow::Borrowed(message),
        }
    }

    /// The refusal as a message: the response to request `id`, or the last word before a close.
    pub(crate) fn message(&self, id: Option<u64>) -> Utf8Bytes {
        #[derive(Serialize)]
        struct Error<'a> {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
            code: &'static str,
            message: &'a str,
            retry: bool,
        }
        message(&Error {
            r#type: "error",
            id,
            code: self.code.as_str(),
            message: &self.message,
            retry: self.code.retry(),
        })
    }

    /// The participant or its session vanished while a request was under way.
    pub(crate) const NO_SESSION: Refusal =
        Refusal::new(Code::NoSession, "there is no media session; send an offer");

    /// The relay takes nothing new.
    pub(crate) const GOING_AWAY: Refusal = Refusal::new(Code::GoingAway, "the relay is stopping");
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NoSession => Refusal::NO_SESSION,
            CommandError::NoTrack => Refusal::new(Code::NoTrack, "no such track"),
            CommandError::NoSlot => Refusal::new(Code::NoSlot, "no such slot, or of another kind"),
            CommandError::MidInUse => {
                Refusal::new(Code::MidInUse, "the m-line already carries a track")
            }
            CommandError::CodecUnsupported => Refusal::new(
                Code::CodecUnsupported,
                "the slot did not negotiate the track's codec",
            ),
            CommandError::Limit => Refusal::new(Code::Limit, "a limit of the shard is reached"),
            CommandError::Busy => Refusal::new(Code::Busy, "the relay is overloaded"),
            CommandError::Invalid => Refusal::new(Code::Internal, "the relay contradicted itself"),
        }
    }
}

impl From<SdpError> for Refusal {
    fn from(error: SdpError) -> Self {
        let code = match error.kind {
            SdpErrorKind::NothingAcceptable => Code::CodecUnsupported,
            kind if kind.is_size() => Code::SdpTooLarge,
            _ => Code::BadSdp,
        };
        Refusal {
            code,
            message: Cow::Owned(error.to_string()),
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired | TokenError::NotYetValid => Code::TokenExpired,
            TokenError::WrongRoom => Code::WrongRoom,
            _ => Code::Unauthorized,
        };
        Refusal {
            code,
            message: Cow::Owned(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROTOCOL.md is the contract: its table and this file must say the same.
    #[test]
    fn the_table_of_the_protocol_is_obeyed() {
        let page = include_str!("../../../docs/PROTOCOL.md");
        let section = page
            .split("### 3.1 Errors")
            .nth(1)
            .and_then(|s| s.split("\n## ").next())
            .unwrap();
        let mut rows = 0;
        for row in section.lines().filter(|l| l.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`');
            let code = Code::ALL.iter().find(|c| c.as_str() == name);
            let code = code.unwrap_or_else(|| panic!("{name} has no code"));
            let close = cells[3]
                .strip_prefix("closes, ")
                .map(|c| c.parse().unwrap());
            assert_eq!(code.close(), close, "{name}");
            rows += 1;
        }
        assert_eq!(rows, Code::ALL.len());
    }
}
