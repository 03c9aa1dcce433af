//! Identifiers. All of them are random pseudonyms; none can be traced to a person.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:016x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                let hex = s.strip_prefix($prefix).ok_or(ParseIdError)?;
                let canonical = hex.len() == 16
                    && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !canonical {
                    return Err(ParseIdError);
                }
                u64::from_str_radix(hex, 16).map($name).map_err(|_| ParseIdError)
            }
        }
    };
}

id!(
    /// A room. Its name is known to the control plane alone.
    RoomId, "RM_");
id!(
    /// A participant of one room: one join, from `join` to `leave`.
    ParticipantId, "PA_");
id!(
    /// A transport session: one WebRTC peer connection or one QUIC connection.
    SessionId, "SE_");
id!(
    /// A published track.
    TrackId, "TR_");

/// The text is not an identifier of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of the expected kind")]
pub struct ParseIdError;

/// Pairs a [`Command`](crate::Command) with the [`Event::Reply`](crate::Event::Reply) to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The index of a core's engine, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The index of a receive slot within one session, `0..limits::SLOTS_PER_SESSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_do_not_mix() {
        let id = TrackId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "TR_0123456789abcdef");
        assert_eq!("TR_0123456789abcdef".parse(), Ok(id));
        for bad in [
            "",
            "TR_",
            "PA_0123456789abcdef",
            "TR_0123456789ABCDEF",
            "TR_+123456789abcdef",
        ] {
            assert_eq!(bad.parse::<TrackId>(), Err(ParseIdError), "{bad}");
        }
    }
}
