//! A sealed metadata message: any bytes; one that was sealed, and is changed on the way; and any
//! content, which comes back as it was.

use crate::input::Input;
use sealcast_group_wire::{GROUP_ID_LEN, ToMember};
use sealcast_mls::client::Content;
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, MAX_METADATA_LEN, Member, MemberConfig, MemberKey};
use std::cell::RefCell;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(1_800_000_000);

thread_local! {
    /// One that is alone in its group, and opens what it sealed itself.
    static MEMBER: RefCell<Member> = RefCell::new(alone());
}

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let Some(way) = input.byte() else {
        return;
    };
    MEMBER.with_borrow_mut(|member| match way % 3 {
        0 => {
            let refused = member.metadata_stats().refused_total();
            assert!(member.open_metadata(input.0).is_err(), "nobody sealed it");
            assert_eq!(member.metadata_stats().refused_total(), refused + 1);
        }
        1 => {
            let sealed = member.seal_metadata(input.0);
            let Ok(sealed) = sealed else {
                assert!(input.0.len() > MAX_METADATA_LEN);
                return;
            };
            let opened = member.open_metadata(&sealed).expect("it was sealed");
            assert_eq!(opened.content, input.0);
            assert!(member.open_metadata(&sealed).is_err(), "once");
            if let Some(content) = Content::decode(input.0) {
                let again = Content::decode(&content.encode());
                assert_eq!(again, Some(content));
            }
        }
        _ => {
            let genuine = member.seal_metadata(b"hello").expect("short");
            let mut changed = genuine.clone();
            input.edit(&mut changed);
            let opened = member.open_metadata(&changed);
            assert_eq!(opened.is_ok(), changed == genuine);
        }
    });
}

fn alone() -> Member {
    let key = MemberKey::generate(GroupSuite::X25519).expect("randomness");
    let claim = Claim::Id("fuzz".into());
    let mut member = Member::new(NOW, MemberConfig::default(), key, &claim).expect("a claim");
    let create = ToMember::Create {
        group_id: vec![7; GROUP_ID_LEN].into(),
        suite: GroupSuite::X25519.number(),
        external_sender: vec![9; 32].into(),
    };
    let create = create.encode().expect("short");
    member.handle_message(NOW, &create).expect("parameters");
    member
}
