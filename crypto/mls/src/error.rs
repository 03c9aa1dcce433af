//! What can go wrong in a group, by whose fault it is.

use sealcast_group_wire::WireError;
use sealcast_sframe::SealError;
use thiserror::Error;

/// A message of the delivery service that was not taken. The member is as before, unless the
/// variant says otherwise.
#[derive(Debug, Error)]
pub enum HandleError {
    /// Not in the format between members and delivery service.
    #[error("wire: {0}")]
    Wire(#[from] WireError),
    /// Not an MLS message, or not of the kind its place calls for.
    #[error("mls-format: {0}")]
    MlsFormat(&'static str),
    /// A proposal, Welcome or group that this member will not have.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The member has no group to which the message could apply.
    #[error("no-group")]
    NoGroup,
    /// The MLS library failed where it should not: no randomness, or a bug.
    #[error("library: {0}")]
    Library(String),
}

impl HandleError {
    /// A stable word for counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Wire(_) => "wire",
            Self::MlsFormat(_) => "mls-format",
            Self::Refused(refusal) => refusal.code(),
            Self::NoGroup => "no-group",
            Self::Library(_) => "library",
        }
    }

    pub(crate) fn library(error: impl std::fmt::Debug) -> Self {
        Self::Library(format!("{error:?}"))
    }
}

/// Why a member refuses a proposal, a commit or a group. Somebody else's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// MLS itself finds it invalid.
    #[error("invalid {rule}: {detail}")]
    Invalid {
        /// What about it, in a word: `signature`, `epoch`, `confirmation-tag`, …
        rule: &'static str,
        /// The library's words.
        detail: String,
    },
    /// Not from a member of the group: an external commit.
    #[error("not by a member")]
    NotByMember,
    /// Changes the group in a way that the delivery service did not propose.
    #[error("not proposed by the delivery service")]
    NotProposed,
    /// A proposal other than Add and Remove.
    #[error("proposal of a kind that is not in use")]
    ProposalKind,
    /// A commit without an update path, which would renew no key.
    #[error("commit without update path")]
    NoUpdatePath,
    /// The committer changed its credential or signature key.
    #[error("committer changed its identity")]
    IdentityChanged,
    /// A member whom the issuer does not vouch for.
    #[error("unverified member: {0}")]
    UnverifiedMember(String),
    /// Group parameters other than the agreed ones (suite, id, external sender).
    #[error("group parameters")]
    Parameters,
    /// More members than a group may have.
    #[error("group too large")]
    TooLarge,
    /// More proposals in one epoch than a member keeps.
    #[error("too many proposals")]
    TooMany,
}

impl Refusal {
    /// A stable word for counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { rule, .. } => rule,
            Self::NotByMember => "not-by-member",
            Self::NotProposed => "not-proposed",
            Self::ProposalKind => "proposal-kind",
            Self::NoUpdatePath => "no-update-path",
            Self::IdentityChanged => "identity-changed",
            Self::UnverifiedMember(_) => "unverified-member",
            Self::Parameters => "parameters",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
        }
    }
}

/// Media or metadata that cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// Not in a group yet, or no longer.
    #[error("no-group: no key to seal with")]
    NoGroup,
    /// More contexts than [`crate::MAX_CONTEXTS`] in one epoch.
    #[error("contexts: too many encoders in one epoch")]
    Contexts,
    /// More than [`crate::MAX_METADATA_LEN`] bytes.
    #[error("too-long: {0} bytes of metadata")]
    TooLong(usize),
    /// The sealer refused.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Metadata that was not opened. The fault of its sender or of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// Ends before header and tag.
    #[error("short")]
    Short,
    /// Of another version, too long, or padded wrongly.
    #[error("malformed")]
    Malformed,
    /// From an epoch whose key is not held, or from beyond the tree.
    #[error("unknown-key: epoch {epoch}, leaf {leaf}")]
    UnknownKey {
        /// Epoch that the message claims.
        epoch: u64,
        /// Leaf that the message claims.
        leaf: u16,
    },
    /// Opened before, or too old to tell.
    #[error("replayed")]
    Replayed,
    /// The tag does not match.
    #[error("auth")]
    Auth,
}
