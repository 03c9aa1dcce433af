//! What can be wrong with an offer. The peer is at fault in every case.

use std::fmt;

/// An offer that the relay refuses: which rule it broke, and on which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdpError {
    /// 1-based line of the offer, where one line is to blame.
    pub line: Option<u32>,
    /// The broken rule.
    pub kind: SdpErrorKind,
}

/// A rule that an offer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpErrorKind {
    /// Over [`super::limits::SDP_BYTES`].
    #[error("the SDP is over 128 KiB")]
    TooLarge,
    /// Over [`super::limits::MEDIA_SECTIONS`].
    #[error("the SDP has over 160 m-lines")]
    TooManyMediaSections,
    /// Over [`super::limits::LINE_BYTES`].
    #[error("the line is over 4,096 bytes")]
    LineTooLong,
    /// A list is longer than its limit.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Not `x=value`, or the first line is not `v=0`.
    #[error("not an SDP line")]
    NotSdp,
    /// A field of a line that the relay reads is malformed.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The offer lacks something that PROTOCOL.md §5 requires.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The offer asks for something that the relay does not do.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Two values that must be the same are not.
    #[error("{0} differs between m-lines")]
    Inconsistent(&'static str),
    /// A later offer changed what must stay.
    #[error("a later offer must not change {0}")]
    Changed(&'static str),
    /// No m-line is left after negotiation.
    #[error("nothing in the offer can be accepted")]
    NothingAcceptable,
}

impl SdpErrorKind {
    /// Every metric label that [`SdpErrorKind::reason`] yields.
    pub const REASONS: [&'static str; 9] = [
        "too_large",
        "too_many",
        "syntax",
        "malformed",
        "missing",
        "unsupported",
        "inconsistent",
        "changed",
        "nothing_acceptable",
    ];

    /// Its metric label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            SdpErrorKind::TooLarge | SdpErrorKind::LineTooLong => "too_large",
            SdpErrorKind::TooManyMediaSections | SdpErrorKind::TooMany(_) => "too_many",
            SdpErrorKind::NotSdp => "syntax",
            SdpErrorKind::Malformed(_) => "malformed",
            SdpErrorKind::Missing(_) => "missing",
            SdpErrorKind::Unsupported(_) => "unsupported",
            SdpErrorKind::Inconsistent(_) => "inconsistent",
            SdpErrorKind::Changed(_) => "changed",
            SdpErrorKind::NothingAcceptable => "nothing_acceptable",
        }
    }

    /// Whether the offer exceeds a size that PROTOCOL.md §3.1 answers with `sdp_too_large`.
    #[must_use]
    pub const fn is_size(self) -> bool {
        matches!(
            self,
            SdpErrorKind::TooLarge | SdpErrorKind::TooManyMediaSections
        )
    }

    /// This rule, broken on `line`.
    pub(super) const fn at(self, line: u32) -> SdpError {
        SdpError {
            line: Some(line),
            kind: self,
        }
    }
}

impl From<SdpErrorKind> for SdpError {
    fn from(kind: SdpErrorKind) -> Self {
        SdpError { line: None, kind }
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl std::error::Error for SdpError {}
