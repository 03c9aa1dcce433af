//! The messages between a member of a room's group and the relay's delivery service: what MLS
//! (RFC 9420) leaves to "the application". MLS messages travel inside, opaque to this crate.
//!
//! Each message is one version byte followed by its body in the TLS presentation language, as MLS
//! itself is written. Signalling carries it as it is.
//!
//! The limits of group size and message length are here because both ends obey them.

#![forbid(unsafe_code)]

use thiserror::Error;
use tls_codec::{Deserialize, Serialize, TlsDeserialize, TlsSerialize, TlsSize, VLBytes};

/// Version of this format, the first byte of every message.
pub const VERSION: u8 = 1;

/// Members of one group. The ratchet tree goes out with every Welcome; with credentials of 1 KiB it
/// takes 1.3 KiB a member.
pub const MAX_MEMBERS: usize = 128;

/// Longest message in bytes: a Welcome to a full group. In base64 it fits a signalling message of
/// 256 KiB.
pub const MAX_MESSAGE_LEN: usize = 184 * 1024;

/// Longest KeyPackage in bytes: keys and signatures take 400, the credential the rest.
pub const MAX_KEY_PACKAGE_LEN: usize = 2048;

/// KeyPackages in one message, and in store per participant. Each serves one join; one is used at
/// once, one when the participant has to be added again.
pub const MAX_KEY_PACKAGES: usize = 4;

/// Length of a group id in bytes.
pub const GROUP_ID_LEN: usize = 16;

/// Identity in the basic credential of the delivery service, as it stands among the group's external
/// senders.
pub const DELIVERY_SERVICE_IDENTITY: &[u8] = b"sealcast delivery service";

/// From a participant to the delivery service.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum ToService {
    /// First message of a connection.
    #[tls_codec(discriminant = 1)]
    Hello {
        /// The group state that the participant still holds.
        resume: Option<Resume>,
        /// One-time KeyPackages (MLSMessage, `mls_key_package`), all with the same signature key.
        key_packages: Vec<VLBytes>,
    },
    /// More one-time KeyPackages.
    KeyPackages {
        /// As in [`ToService::Hello`].
        key_packages: Vec<VLBytes>,
    },
    /// The group's public state (MLSMessage, `mls_group_info`, ratchet tree included), as asked for
    /// by [`ToMember::Create`] or [`ToMember::SendGroupInfo`].
    GroupInfo {
        /// The MLSMessage.
        message: VLBytes,
    },
    /// A commit (MLSMessage, `mls_public_message`).
    Commit {
        /// The MLSMessage.
        commit: VLBytes,
        /// Welcome for those it adds (MLSMessage, `mls_welcome`).
        welcome: Option<VLBytes>,
    },
    /// The participant holds the keys of this epoch.
    Ready {
        /// The epoch.
        epoch: u64,
        /// As in [`Resume`].
        confirmation_tag: VLBytes,
    },
    /// The participant refused the commit that would have ended this epoch, and stays in it.
    Refused {
        /// The epoch.
        epoch: u64,
    },
    /// The participant will not commit to adding the owner of this signature key: it has no
    /// identity that the application's issuer vouches for.
    Declined {
        /// Signature key of the KeyPackage proposed.
        signature_key: VLBytes,
    },
}

/// Group state that a participant still holds.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
pub struct Resume {
    /// The group.
    pub group_id: VLBytes,
    /// Its epoch.
    pub epoch: u64,
    /// The epoch's confirmation tag (RFC 9420 §8.1, TLS-encoded), which tells it from an epoch of
    /// the same number that was undone.
    pub confirmation_tag: VLBytes,
}

/// From the delivery service to a participant.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum ToMember {
    /// There is no group: create one and send its [`ToService::GroupInfo`].
    #[tls_codec(discriminant = 1)]
    Create {
        /// Id of the new group.
        group_id: VLBytes,
        /// MLS cipher suite.
        suite: u16,
        /// Signature key of the delivery service, the group's only external sender.
        external_sender: VLBytes,
    },
    /// The relay lost the group's public state: send [`ToService::GroupInfo`].
    SendGroupInfo,
    /// KeyPackages are used up: send more.
    SendKeyPackages,
    /// A proposal of the delivery service (MLSMessage, `mls_public_message`).
    Proposal {
        /// The MLSMessage.
        message: VLBytes,
    },
    /// The commit that ends an epoch, to every member, the committer included.
    Commit {
        /// The MLSMessage.
        message: VLBytes,
    },
    /// The participant's commit was not taken.
    Stale {
        /// Epoch of the commit.
        epoch: u64,
        /// Why.
        why: Why,
    },
    /// The way into the group (MLSMessage, `mls_welcome`), to those a commit adds.
    Welcome {
        /// The MLSMessage.
        message: VLBytes,
    },
    /// Every connected member is [`ToService::Ready`] for this epoch.
    AllReady {
        /// The epoch.
        epoch: u64,
    },
    /// The participant's group state is of no use: drop it and say [`ToService::Hello`] anew.
    Reset,
    /// The members declined to add the participant.
    NotAdmitted,
}

/// Why a commit was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserialize, TlsSize)]
#[repr(u8)]
pub enum Why {
    /// Another commit ended the epoch first: process it, then commit to what is left.
    Lost = 1,
    /// Too soon after the last one: try again.
    TooSoon = 2,
    /// It breaks the rules.
    Invalid = 3,
}

/// Bytes that are no message of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Longer than [`MAX_MESSAGE_LEN`].
    #[error("too-long: {0} bytes")]
    TooLong(usize),
    /// Of another version.
    #[error("version: {0}")]
    Version(u8),
    /// Breaks the format.
    #[error("malformed")]
    Malformed,
    /// More KeyPackages than [`MAX_KEY_PACKAGES`], or one longer than [`MAX_KEY_PACKAGE_LEN`].
    #[error("key-packages")]
    KeyPackages,
}

impl ToService {
    /// The message as bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let message = decode(bytes)?;
        if let Self::Hello { key_packages, .. } | Self::KeyPackages { key_packages } = &message {
            let fits = |package: &VLBytes| package.as_slice().len() <= MAX_KEY_PACKAGE_LEN;
            if key_packages.len() > MAX_KEY_PACKAGES || !key_packages.iter().all(fits) {
                return Err(WireError::KeyPackages);
            }
        }
        Ok(message)
    }
}

impl ToMember {
    /// The message as bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![VERSION];
    message
        .tls_serialize(&mut bytes)
        .map_err(|_| WireError::Malformed)?;
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(WireError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

fn decode<T: Deserialize>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(WireError::TooLong(bytes.len()));
    }
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            // From a reader: the codec's other way in asserts, in debug builds, that no field ends
            // early.
            T::tls_deserialize_exact(body).map_err(|_| WireError::Malformed)
        }
        Some((&version, _)) => Err(WireError::Version(version)),
        None => Err(WireError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(content: &[u8]) -> VLBytes {
        content.to_vec().into()
    }

    #[test]
    fn messages_round_trip_and_refuse_any_cut() {
        let to_service = [
            ToService::Hello {
                resume: Some(Resume {
                    group_id: bytes(&[7; GROUP_ID_LEN]),
                    epoch: 9,
                    confirmation_tag: bytes(b"tag"),
                }),
                key_packages: vec![bytes(b"one"), bytes(b"two")],
            },
            ToService::Commit {
                commit: bytes(b"commit"),
                welcome: None,
            },
            ToService::Refused { epoch: u64::MAX },
        ];
        for message in to_service {
            let encoded = message.encode().unwrap();
            assert_eq!(ToService::decode(&encoded).unwrap(), message);
            for cut in 0..encoded.len() {
                assert!(ToService::decode(&encoded[..cut]).is_err());
            }
            let longer = [&encoded[..], &[0]].concat();
            assert_eq!(ToService::decode(&longer), Err(WireError::Malformed));
        }
        let stale = ToMember::Stale {
            epoch: 3,
            why: Why::Lost,
        };
        assert_eq!(ToMember::decode(&stale.encode().unwrap()), Ok(stale));
    }

    #[test]
    fn discriminants_are_the_documented_ones() {
        assert_eq!(
            ToService::Refused { epoch: 1 }.encode().unwrap()[..2],
            [1, 6]
        );
        assert_eq!(
            ToMember::Create {
                group_id: bytes(b""),
                suite: 1,
                external_sender: bytes(b"")
            }
            .encode()
            .unwrap()[1],
            1
        );
        assert_eq!(ToMember::NotAdmitted.encode().unwrap(), [1, 10]);
    }

    #[test]
    fn limits_hold() {
        let many = ToService::KeyPackages {
            key_packages: vec![bytes(b""); MAX_KEY_PACKAGES + 1],
        };
        let long = ToService::KeyPackages {
            key_packages: vec![bytes(&[0; MAX_KEY_PACKAGE_LEN + 1])],
        };
        for message in [many, long] {
            let encoded = message.encode().unwrap();
            assert_eq!(ToService::decode(&encoded), Err(WireError::KeyPackages));
        }
        let huge = ToService::GroupInfo {
            message: bytes(&vec![0; MAX_MESSAGE_LEN]),
        };
        assert!(matches!(huge.encode(), Err(WireError::TooLong(_))));
        assert!(matches!(
            ToService::decode(&vec![1; MAX_MESSAGE_LEN + 1]),
            Err(WireError::TooLong(_))
        ));
        assert_eq!(ToMember::decode(&[2, 2]), Err(WireError::Version(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = ToService::decode(&bytes);
            let _ = ToMember::decode(&bytes);
        }
    }
}
