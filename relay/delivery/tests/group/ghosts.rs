//! Members that nobody vouches for, and relays that would have them in.

use crate::room::Room;
use openmls::prelude::{
    BasicCredential, CredentialWithKey, ExternalProposal, GroupId, KeyPackage, OpenMlsProvider,
    SenderExtensionIndex,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealcast_group_wire::ToMember;
use sealcast_mls::identity::{Claim, Identity, Issuer, IssuerKey};
use sealcast_mls::{Event, GroupSuite, MemberKey};

use self::issuer::TestIssuer;

mod issuer {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use ed25519_dalek::Signer as _;
    use serde_json::json;

    pub(super) struct TestIssuer(ed25519_dalek::SigningKey);

    impl TestIssuer {
        pub(super) fn new(seed: u8) -> Self {
            Self(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
        }

        pub(super) fn verifier(&self) -> Issuer {
            let x = BASE64_URL_SAFE_NO_PAD.encode(self.0.verifying_key().as_bytes());
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
            Issuer {
                issuer: "https://clinic.example".into(),
                audience: "sealcast-identity".into(),
                room: "consult".into(),
                keys: vec![IssuerKey::from_jwk(&jwk.to_string()).unwrap()],
            }
        }

        pub(super) fn assertion(&self, subject: &str, key: &MemberKey) -> Claim {
            let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
            let claims = json!({
                "iss": "https://clinic.example", "aud": "sealcast-identity", "room": "consult",
                "sub": subject, "exp": 1_800_000_600, "cnf": { "jwk": key.public_jwk() },
            });
            let signed = format!("{}.{}", part(json!({ "alg": "EdDSA" })), part(claims));
            let signature =
                BASE64_URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).to_bytes());
            Claim::Assertion(format!("{signed}.{signature}"))
        }
    }
}

fn room_with_issuer() -> (Room, TestIssuer) {
    let issuer = TestIssuer::new(1);
    let mut room = Room::new(GroupSuite::X25519);
    room.config.issuer = Some(issuer.verifier());
    for id in 1..=3 {
        let key = MemberKey::generate(room.suite).unwrap();
        let claim = issuer.assertion(&format!("p-{id}"), &key);
        room.join_as(id, key, &claim);
    }
    room.run_until(3000, |room| room.converged(1..=3));
    (room, issuer)
}

#[test]
fn verified_members_show_as_such() {
    let (room, _) = room_with_issuer();
    for client in room.clients.values() {
        let members = client.member.members();
        let verified = |identity: &Identity| matches!(identity, Identity::Verified(_));
        assert!(members.iter().all(|member| verified(&member.identity)));
        assert_eq!(members.iter().filter(|member| member.own).count(), 1);
    }
}

#[test]
fn assertions_that_expire_keep_who_is_in_and_let_nobody_new_in() {
    let (mut room, issuer) = room_with_issuer();
    let early = MemberKey::generate(room.suite).unwrap();
    let claim = issuer.assertion("early", &early);
    room.run(300_000);
    room.join_as(4, early, &claim);
    room.run_until(3000, |room| room.converged(1..=4));
    room.run(400_000);
    let late = MemberKey::generate(room.suite).unwrap();
    let claim = issuer.assertion("late", &late);
    room.join_as(5, late, &claim);
    room.run(3000);
    assert!(
        room.events(5).contains(&Event::NotAdmitted),
        "{}",
        room.describe()
    );
    assert!(room.converged(1..=4));
}

#[test]
fn a_ghost_that_the_relay_proposes_is_declined_by_everybody_and_shown() {
    let (mut room, _) = room_with_issuer();
    let before = room.epoch(1);
    // The relay lets somebody in whom the issuer does not know, and one with a forged assertion.
    room.join(66);
    let key = MemberKey::generate(room.suite).unwrap();
    let forged = TestIssuer::new(2).assertion("p-1", &key);
    room.join_as(67, key, &forged);
    room.run(20_000);
    for id in 1..=3 {
        let declined = |event: &&Event| matches!(event, Event::MemberDeclined { .. });
        let declined: Vec<_> = room.events(id).iter().filter(declined).collect();
        assert_eq!(declined.len(), 2, "{declined:?}");
        assert!(declined.iter().any(
            |event| matches!(event, Event::MemberDeclined { identity, .. } if identity == "p-66")
        ));
    }
    for ghost in [66, 67] {
        assert_eq!(room.epoch(ghost), None);
        assert!(room.events(ghost).contains(&Event::NotAdmitted));
    }
    assert_eq!(room.epoch(1), before);
    assert!(room.converged(1..=3));
    assert_eq!(room.service.counters().stalled, 0);
}

#[test]
fn proposals_of_anybody_but_the_delivery_service_are_refused() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3000, |room| room.converged([1, 2]));
    let provider = OpenMlsRustCrypto::default();
    let suite = sealcast_delivery::SUITES[0];
    let pair = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"id:ghost".to_vec()).into(),
        signature_key: pair.public().into(),
    };
    let ghost = KeyPackage::builder()
        .build(suite, &provider, &pair, credential)
        .unwrap();
    let epoch = room.epoch(1).unwrap();
    let proposal = ExternalProposal::new_add::<OpenMlsRustCrypto>(
        ghost.into_key_package(),
        GroupId::from_slice(&room.member(1).group_id().unwrap()),
        epoch.into(),
        &pair,
        SenderExtensionIndex::new(0),
    )
    .unwrap();
    let message = proposal.to_bytes().unwrap().into();
    room.inject(1, ToMember::Proposal { message }.encode().unwrap());
    room.run(3000);
    assert_eq!(room.clients[&1].refused.len(), 1);
    assert_eq!(room.epoch(1), Some(epoch));
    assert!(provider.storage().values.read().is_ok());
}
