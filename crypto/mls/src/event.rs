//! What a member tells the application.

use serde::Serialize;

/// Events that wait for the application. Beyond that the oldest goes; state can always be asked
/// for ([`crate::Member::members`], [`crate::Member::epoch`]).
pub const MAX_EVENTS: usize = 256;

/// Something happened in the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A new epoch began: somebody joined or left, or the keys were rotated. The first one means
    /// that this member is in.
    Epoch {
        /// The epoch.
        epoch: u64,
        /// Leaves of members who are new.
        joined: Vec<u16>,
        /// Leaves of members who are gone.
        left: Vec<u16>,
    },
    /// Frames and metadata are sealed with this epoch's keys from now on.
    Sending {
        /// The epoch.
        epoch: u64,
    },
    /// The relay proposed a member for whom the issuer does not vouch. It was not added.
    MemberDeclined {
        /// What the credential claims to be.
        identity: String,
        /// Why it is not believed.
        reason: String,
    },
    /// A commit was refused. This member stays in its epoch.
    CommitRefused {
        /// The epoch that the commit would have ended.
        epoch: u64,
        /// Leaf of the committer, if it is a member.
        committer: Option<u16>,
        /// Why.
        reason: String,
    },
    /// A group was refused: it holds somebody for whom the issuer does not vouch, or is not as the
    /// relay announced it.
    GroupRefused {
        /// Why.
        reason: String,
    },
    /// This member was removed from the group. Its keys are gone.
    Removed,
    /// The group state was dropped, at the relay's word or by a fault. Its keys are gone; the
    /// member asks to be added again.
    Reset,
    /// The other members declined to add this one.
    NotAdmitted,
}
