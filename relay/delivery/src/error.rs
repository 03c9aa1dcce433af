//! Why a participant's message was not taken. The participant's fault in every case but the last.

use sealcast_group_wire::WireError;
use thiserror::Error;

/// A message that was not taken. Nothing has changed for the group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeliveryError {
    /// More messages than [`crate::limits::RATE`] allows.
    #[error("rate")]
    Rate,
    /// The sender has not joined the room.
    #[error("unknown-participant")]
    UnknownParticipant,
    /// Not in the format of `sealcast-group-wire`.
    #[error("wire: {0}")]
    Wire(#[from] WireError),
    /// Not an MLS message, or not of the kind its place calls for.
    #[error("mls-format: {0}")]
    MlsFormat(&'static str),
    /// A KeyPackage that does not verify, is of another suite, or of another's signature key.
    #[error("key-package: {0}")]
    KeyPackage(&'static str),
    /// GroupInfo that was not asked for, or is not of the group in question.
    #[error("group-info: {0}")]
    GroupInfo(&'static str),
    /// A commit that breaks MLS or the rules of this service.
    #[error("commit: {0}")]
    Commit(String),
    /// There is no group that the message could be about.
    #[error("no-group")]
    NoGroup,
    /// The MLS library failed where it should not.
    #[error("library: {0}")]
    Library(String),
}

impl DeliveryError {
    pub(crate) fn library(error: impl std::fmt::Debug) -> Self {
        Self::Library(format!("{error:?}"))
    }

    /// Every word that [`code`](Self::code) has, for counters to start at zero.
    pub const CODES: [&'static str; 9] = [
        "rate",
        "unknown-participant",
        "wire",
        "mls-format",
        "key-package",
        "group-info",
        "commit",
        "no-group",
        "library",
    ];

    /// A stable word for counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::UnknownParticipant => "unknown-participant",
            Self::Wire(_) => "wire",
            Self::MlsFormat(_) => "mls-format",
            Self::KeyPackage(_) => "key-package",
            Self::GroupInfo(_) => "group-info",
            Self::Commit(_) => "commit",
            Self::NoGroup => "no-group",
            Self::Library(_) => "library",
        }
    }
}
