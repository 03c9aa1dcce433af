//! The delivery service under participants who say whatever they like: raw bytes, genuine messages
//! of two members of a group, and those changed on the way, in any order, with time passing and
//! participants coming and going.

use crate::input::Input;
use sealcast_delivery::{DeliveryKey, DeliveryService, SUITES};
use sealcast_group_wire::{MAX_MEMBERS, MAX_MESSAGE_LEN, ToMember, ToService};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, Member, MemberConfig, MemberKey};
use sealcast_model::{ParticipantId, Time};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const START: Duration = Duration::from_secs(1_800_000_000);
const PARTICIPANTS: u64 = 4;

/// Operations of one run.
const MAX_STEPS: usize = 64;

/// Messages that one input may call for: each participant can be sent a few of its own, and a log of
/// 16 epochs to catch up with.
const MAX_OUTPUTS: usize = 256;

/// The target.
pub fn run(bytes: &[u8]) {
    let genuine = GENUINE.get_or_init(record);
    let mut input = Input(bytes);
    let mut service = DeliveryService::new(key());
    let mut joined = BTreeSet::new();
    for id in 0..2 {
        service.handle_join(Time::ZERO, ParticipantId(id));
        joined.insert(id);
    }
    let mut now = Time::ZERO;
    for _ in 0..MAX_STEPS {
        let Some(op) = input.byte() else {
            break;
        };
        let who = u64::from(op >> 3) % PARTICIPANTS;
        let id = ParticipantId(who);
        let recorded = |input: &mut Input<'_>| {
            let which = usize::from(input.byte().unwrap_or(0));
            genuine[which % genuine.len()].clone()
        };
        let message = match op & 7 {
            0 => Some(input.bytes().to_vec()),
            1 => Some([&[1], input.bytes()].concat()),
            2 => Some(recorded(&mut input)),
            3 => {
                let mut message = recorded(&mut input);
                input.edit(&mut message);
                Some(message)
            }
            4 => {
                now += Duration::from_millis(100 * u64::from(input.byte().unwrap_or(0)));
                service.handle_timeout(now);
                None
            }
            5 => {
                service.handle_join(now, id);
                joined.insert(who);
                None
            }
            6 => {
                service.handle_disconnect(now, id);
                None
            }
            _ => {
                service.handle_leave(now, id);
                joined.remove(&who);
                None
            }
        };
        if let Some(message) = message {
            let result = service.handle_message(now, id, &message);
            assert!(joined.contains(&who) || result.is_err());
        }
        check(&mut service, &joined);
    }
}

fn check(service: &mut DeliveryService, joined: &BTreeSet<u64>) {
    let mut outputs = 0;
    while let Some(output) = service.poll_output() {
        outputs += 1;
        assert!(outputs <= MAX_OUTPUTS);
        assert!(output.message.len() <= MAX_MESSAGE_LEN);
        ToMember::decode(&output.message).expect("the service sends what members read");
        assert!(output.to.iter().all(|id| joined.contains(&id.0)));
    }
    assert!(
        service
            .group()
            .is_none_or(|(_, members)| (1..=MAX_MEMBERS).contains(&members))
    );
    let _ = service.poll_timeout();
}

/// What two members of a group say to a relay that has been restarted: it finds the group again, and
/// goes on with it.
static GENUINE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

fn key() -> Arc<DeliveryKey> {
    Arc::new(DeliveryKey::from_seed(SUITES[0], &[1; 32]).expect("a suite in use"))
}

fn record() -> Vec<Vec<u8>> {
    let mut service = DeliveryService::new(key());
    let mut members: Vec<_> = (0..3).map(member).collect();
    let mut outsider = members.pop().expect("the third");
    for id in 0..2 {
        service.handle_join(Time::ZERO, ParticipantId(id));
    }
    let mut genuine = Vec::new();
    for step in 0..60 {
        let (now, unix) = (Time::from_millis(step * 50), at(step * 50));
        for (id, member) in members.iter_mut().enumerate() {
            let _ = member.handle_timeout(unix);
            while let Some(message) = member.poll_outgoing() {
                let _ = service.handle_message(now, ParticipantId(id as u64), &message);
                genuine.push(message);
            }
        }
        service.handle_timeout(now);
        while let Some(output) = service.poll_output() {
            for ParticipantId(id) in output.to {
                let _ = members[id as usize].handle_message(unix, &output.message);
            }
        }
    }
    assert_eq!(service.group().map(|(_, members)| members), Some(2));
    // The relay restarts: who is back says what it holds, and one of them what the group is.
    for member in members.iter_mut().rev() {
        member.handle_connected(at(3000)).expect("no fault");
        let group_info = ToMember::SendGroupInfo.encode().expect("short");
        member.handle_message(at(3000), &group_info).expect("asked");
        member.request_rotation();
        member.handle_timeout(at(3000)).expect("no fault");
        genuine.splice(0..0, std::iter::from_fn(|| member.poll_outgoing()));
    }
    genuine.extend(std::iter::from_fn(|| outsider.poll_outgoing()));
    let epoch = service.group().map_or(0, |(epoch, _)| epoch);
    genuine.push(ToService::Refused { epoch }.encode().expect("short"));
    genuine
}

fn at(millis: u64) -> Duration {
    START + Duration::from_millis(millis)
}

fn member(number: u64) -> Member {
    let key = MemberKey::generate(GroupSuite::X25519).expect("randomness");
    let claim = Claim::Id(format!("fuzz-{number}"));
    Member::new(START, MemberConfig::default(), key, &claim).expect("a claim")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genuine_messages_take_up_the_group_and_go_on() {
        let genuine = record();
        let mut service = DeliveryService::new(key());
        let [first, second] = [ParticipantId(0), ParticipantId(1)];
        for id in [first, second] {
            service.handle_join(Time::ZERO, id);
        }
        // Hello, GroupInfo and a commit of either.
        let (of_first, of_second) = (&genuine[..3], &genuine[3..6]);
        service
            .handle_message(Time::ZERO, first, &of_first[0])
            .expect("Hello");
        service
            .handle_message(Time::ZERO, second, &of_second[0])
            .expect("Hello");
        let later = Time::from_millis(2500);
        service.handle_timeout(later);
        let taken = service.handle_message(later, first, &of_first[1]).is_ok()
            || service.handle_message(later, second, &of_second[1]).is_ok();
        assert!(taken);
        assert_eq!(service.group().map(|(_, members)| members), Some(2));
        let later = Time::from_millis(3000);
        service
            .handle_message(later, first, &of_first[2])
            .expect("a commit");
        assert_eq!(service.counters().commits, 1);
    }
}
