//! A member under a relay that says whatever it likes: raw bytes, and messages of the right form
//! with any content, in any order.

use crate::input::Input;
use sealcast_group_wire::{GROUP_ID_LEN, MAX_MESSAGE_LEN, ToMember, ToService, Why};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, MAX_EVENTS, Member, MemberConfig, MemberKey};
use std::time::Duration;

const NOW: Duration = Duration::from_secs(1_800_000_000);

/// Operations of one run.
const MAX_STEPS: usize = 48;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let key = MemberKey::generate(GroupSuite::X25519).expect("randomness");
    let claim = Claim::Id("fuzz".into());
    let mut member = Member::new(NOW, MemberConfig::default(), key, &claim).expect("a claim");
    let mut now = NOW;
    let mut sent = vec![vec![1]];
    for _ in 0..MAX_STEPS {
        let Some(op) = input.byte() else {
            break;
        };
        let epoch = member.epoch();
        let counted = counted(&member);
        let message = match op % 16 {
            0 => input.bytes().to_vec(),
            1 => encode(&ToMember::Create {
                group_id: vec![7; GROUP_ID_LEN].into(),
                suite: GroupSuite::X25519.number(),
                external_sender: vec![9; 32].into(),
            }),
            2 => encode(&ToMember::SendGroupInfo),
            3 => encode(&ToMember::SendKeyPackages),
            4 => encode(&ToMember::Proposal {
                message: input.bytes().to_vec().into(),
            }),
            5 => encode(&ToMember::Commit {
                message: own_commit(&sent).unwrap_or_default().into(),
            }),
            6 => encode(&ToMember::Welcome {
                message: input.bytes().to_vec().into(),
            }),
            7 => encode(&ToMember::AllReady {
                epoch: u64::from(input.byte().unwrap_or(0)),
            }),
            8 => encode(&ToMember::Stale {
                epoch: u64::from(input.byte().unwrap_or(0)),
                why: [Why::Lost, Why::TooSoon, Why::Invalid][usize::from(op >> 4) % 3],
            }),
            9 => encode(&ToMember::Reset),
            10 => encode(&ToMember::NotAdmitted),
            11 => {
                // Its own commit, changed on the way.
                let mut commit = own_commit(&sent).unwrap_or_default();
                input.edit(&mut commit);
                encode(&ToMember::Commit {
                    message: commit.into(),
                })
            }
            12 => {
                member.request_rotation();
                continue;
            }
            13 => {
                member.handle_connected(now).expect("no fault of its own");
                continue;
            }
            _ => {
                now += Duration::from_millis(250 * u64::from(op));
                let _ = member.handle_timeout(now);
                drain(&mut member, &mut sent);
                continue;
            }
        };
        let result = member.handle_message(now, &message);
        assert_eq!(self::counted(&member), counted + 1, "{result:?}");
        if op % 16 == 4 || op % 16 == 6 {
            assert_eq!(member.epoch(), epoch, "a stranger's bytes change nothing");
        }
        drain(&mut member, &mut sent);
    }
}

fn encode(message: &ToMember) -> Vec<u8> {
    message.encode().expect("short")
}

/// Messages that were taken or refused.
fn counted(member: &Member) -> u64 {
    let stats = member.handshake_stats();
    stats.taken + stats.refused_total()
}

fn drain(member: &mut Member, sent: &mut Vec<Vec<u8>>) {
    while let Some(message) = member.poll_outgoing() {
        assert!(message.len() <= MAX_MESSAGE_LEN);
        ToService::decode(&message).expect("a member sends what the service reads");
        sent.push(message);
    }
    let events = std::iter::from_fn(|| member.poll_event()).count();
    assert!(events <= MAX_EVENTS);
}

/// The commit that the member sent last.
fn own_commit(sent: &[Vec<u8>]) -> Option<Vec<u8>> {
    sent.iter()
        .rev()
        .find_map(|message| match ToService::decode(message) {
            Ok(ToService::Commit { commit, .. }) => Some(commit.as_slice().to_vec()),
            _ => None,
        })
}
