//! Which rule of MLS a message breaks, in a word: for counters, next to the library's own words for
//! the log.

use crate::error::Refusal;
use openmls::group::{ProcessMessageError, StageCommitError, ValidationError, WelcomeError};
use std::fmt::Debug;

/// A proposal or commit that MLS itself finds invalid.
pub(crate) fn handshake<S: Debug>(error: &ProcessMessageError<S>) -> Refusal {
    let rule = match error {
        ProcessMessageError::ValidationError(error) => validation(error),
        ProcessMessageError::InvalidCommit(error) => commit(error),
        ProcessMessageError::IncompatibleWireFormat => "wire-format",
        ProcessMessageError::UnauthorizedExternalCommitMessage => "sender",
        ProcessMessageError::UnsupportedProposalType => "proposal",
        _ => "other",
    };
    invalid(rule, error)
}

/// A Welcome that MLS itself finds invalid.
pub(crate) fn welcome<S: Debug>(error: &WelcomeError<S>) -> Refusal {
    let rule = match error {
        WelcomeError::NoMatchingKeyPackage | WelcomeError::JoinerSecretNotFound => "key-package",
        WelcomeError::GroupSecrets(_)
        | WelcomeError::GroupInfo(_)
        | WelcomeError::UnableToDecrypt
        | WelcomeError::MalformedWelcomeMessage => "decryption",
        WelcomeError::ConfirmationTagMismatch => "confirmation-tag",
        WelcomeError::InvalidGroupInfoSignature => "signature",
        WelcomeError::CiphersuiteMismatch | WelcomeError::UnsupportedCiphersuite(_) => "suite",
        WelcomeError::MissingRatchetTree
        | WelcomeError::PublicTreeError(_)
        | WelcomeError::PublicGroupError(_)
        | WelcomeError::LeafNodeValidation(_)
        | WelcomeError::NoMatchingEncryptionKey
        | WelcomeError::UnknownSender => "tree",
        _ => "other",
    };
    invalid(rule, error)
}

/// What the library refuses for a reason that has no word of its own.
pub(crate) fn other(error: &dyn Debug) -> Refusal {
    invalid("other", error)
}

fn validation(error: &ValidationError) -> &'static str {
    match error {
        ValidationError::WrongEpoch | ValidationError::NoPastEpochData => "epoch",
        ValidationError::WrongGroupId => "group-id",
        ValidationError::InvalidSignature | ValidationError::InvalidLeafNodeSignature => {
            "signature"
        }
        ValidationError::MissingMembershipTag | ValidationError::InvalidMembershipTag => {
            "membership-tag"
        }
        ValidationError::MissingConfirmationTag => "confirmation-tag",
        ValidationError::UnknownMember
        | ValidationError::InvalidSenderType
        | ValidationError::UnauthorizedExternalSender
        | ValidationError::NoExternalSendersExtension => "sender",
        ValidationError::KeyPackageVerifyError(_) => "key-package",
        ValidationError::UpdatePathError(_) | ValidationError::NoPath => "update-path",
        _ => "other",
    }
}

fn commit(error: &StageCommitError) -> &'static str {
    match error {
        StageCommitError::EpochMismatch => "epoch",
        StageCommitError::ConfirmationTagMissing | StageCommitError::ConfirmationTagMismatch => {
            "confirmation-tag"
        }
        StageCommitError::MissingProposal | StageCommitError::ProposalValidationError(_) => {
            "proposal"
        }
        StageCommitError::UpdatePathError(_)
        | StageCommitError::VerifiedUpdatePathError(_)
        | StageCommitError::RequiredPathNotFound
        | StageCommitError::MissingDecryptionKey => "update-path",
        StageCommitError::PathLeafNodeVerificationFailure
        | StageCommitError::LeafNodeValidation(_) => "leaf",
        StageCommitError::OwnCommitMismatch
        | StageCommitError::InconsistentSenderIndex
        | StageCommitError::SenderTypeExternal
        | StageCommitError::SenderTypeNewMemberProposal => "sender",
        _ => "other",
    }
}

fn invalid(rule: &'static str, error: &dyn Debug) -> Refusal {
    Refusal::Invalid {
        rule,
        detail: format!("{error:?}"),
    }
}
