//! A relay that proposes without end: what a member keeps of it has a limit.

use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, ExternalProposal, GroupEpoch, GroupId,
    KeyPackage, SenderExtensionIndex,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealcast_group_wire::{GROUP_ID_LEN, MAX_MEMBERS, ToMember};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, Member, MemberConfig, MemberKey};
use std::time::Duration;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const GROUP: [u8; GROUP_ID_LEN] = [7; GROUP_ID_LEN];
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// A proposal to add somebody new, by whoever holds the delivery service's key.
fn add(provider: &OpenMlsRustCrypto, relay: &SignatureKeyPair) -> Vec<u8> {
    let key = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"id:one-of-many".to_vec()).into(),
        signature_key: key.public().into(),
    };
    let key_package = KeyPackage::builder()
        .build(SUITE, provider, &key, credential)
        .unwrap();
    let message = ExternalProposal::new_add::<OpenMlsRustCrypto>(
        key_package.into_key_package(),
        GroupId::from_slice(&GROUP),
        GroupEpoch::from(0),
        relay,
        SenderExtensionIndex::new(0),
    )
    .unwrap()
    .to_bytes()
    .unwrap();
    let message = message.into();
    ToMember::Proposal { message }.encode().unwrap()
}

#[test]
fn proposals_without_end_are_refused_and_counted() {
    let provider = OpenMlsRustCrypto::default();
    let relay = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let key = MemberKey::generate(GroupSuite::X25519).unwrap();
    let claim = Claim::Id("one".into());
    let mut member = Member::new(NOW, MemberConfig::default(), key, &claim).unwrap();
    let create = ToMember::Create {
        group_id: GROUP.to_vec().into(),
        suite: GroupSuite::X25519.number(),
        external_sender: relay.public().to_vec().into(),
    };
    member
        .handle_message(NOW, &create.encode().unwrap())
        .unwrap();
    let kept = 2 * MAX_MEMBERS;
    for _ in 0..kept {
        member.handle_message(NOW, &add(&provider, &relay)).unwrap();
    }
    for _ in 0..3 {
        let refused = member.handle_message(NOW, &add(&provider, &relay));
        assert_eq!(refused.unwrap_err().code(), "too-many");
    }
    let refused = &member.handshake_stats().refused;
    assert_eq!(refused["proposal"]["too-many"], 3);
}
