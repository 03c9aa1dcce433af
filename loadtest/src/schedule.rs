//! The open-loop schedule: when every client is to join and leave, fixed before the run begins.
//!
//! Nothing that the relay does moves an intended time. Joins are measured from it, so a relay (or
//! a generator) that falls behind shows as latency and not as a lower load.

use crate::scenario::{Ramp, Scenario};
use sealcast_netsim::Rng;
use std::time::Duration;

/// Which part of the clients this generator drives: whole rooms, so that both ends of every
/// stream are on one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This generator, 0..`of`.
    pub index: u64,
    /// Generators.
    pub of: u64,
}

impl Share {
    /// All of them.
    pub const ALL: Share = Share { index: 0, of: 1 };
}

/// One stay of a client, in time from the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// When it is to join.
    pub from: Duration,
    /// When it is to leave; `None`: at the end of the run.
    pub until: Option<Duration>,
}

/// A client of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Number within the whole scenario.
    pub id: u64,
    /// Its room.
    pub room: u64,
    /// Index of its role.
    pub role: usize,
    /// When it is there.
    pub stays: Vec<Stay>,
    /// When it asks for another track in a slot.
    pub slot_changes: Vec<Duration>,
}

/// A step of the ramp, in time from the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Rooms.
    pub load: u64,
    /// Judged from here.
    pub from: Duration,
    /// To here; the next step begins then.
    pub to: Duration,
}

/// Everybody's times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// This generator's clients.
    pub clients: Vec<ClientPlan>,
    /// Measuring begins.
    pub measure_from: Duration,
    /// Senders stop.
    pub measure_to: Duration,
    /// Clients leave.
    pub end: Duration,
    /// Steps of a ramp; empty without.
    pub steps: Vec<StepPlan>,
}

/// What is in flight when senders stop has this long to arrive: several rounds of repair.
pub const DRAIN: Duration = Duration::from_secs(1);

impl Plan {
    /// The plan of a scenario that was checked. It follows from `seed`.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64, share: Share) -> Plan {
        let seconds = Duration::from_secs_f64;
        // Windows are either measured or not: what is judged begins and ends with one.
        let align = |d: Duration| {
            let windows = (d.as_secs_f64() / scenario.window - 1e-6).ceil().max(0.0);
            seconds(windows * scenario.window)
        };
        let per_room = scenario.clients_per_room();
        let warm_up = seconds(scenario.warm_up);
        let spacing = 1.0 / scenario.joins_per_second;
        let joining = |clients: u64| seconds(clients as f64 * spacing);
        let (steps, measure_from, measure_to) = match &scenario.ramp {
            None => {
                let from = align(joining(scenario.clients()) + warm_up);
                (vec![], from, align(from + seconds(scenario.duration)))
            }
            Some(ramp) => {
                let steps = ramp_steps(ramp, align, |rooms| joining(rooms * per_room) + warm_up);
                let end = steps.last().map_or(warm_up, |s| s.to);
                (steps, Duration::ZERO, end)
            }
        };
        let mut clients = Vec::new();
        let mut nth = 0u64;
        for (room, base) in room_starts(scenario, &steps) {
            for id in room * per_room..(room + 1) * per_room {
                let from =
                    base + seconds((nth - first_of_base(&steps, room, per_room)) as f64 * spacing);
                nth += 1;
                if room % share.of == share.index {
                    clients.push(ClientPlan {
                        id,
                        room,
                        role: role_of(scenario, id % per_room),
                        stays: vec![Stay { from, until: None }],
                        slot_changes: vec![],
                    });
                }
            }
        }
        let mut plan = Plan {
            clients,
            measure_from,
            measure_to,
            end: measure_to + DRAIN,
            steps,
        };
        plan.churn(scenario, seed);
        plan
    }

    /// Waves of reconnections and slot changes while measuring.
    fn churn(&mut self, scenario: &Scenario, seed: u64) {
        let Some(churn) = &scenario.churn else { return };
        let (from, to) = (self.measure_from, self.measure_to);
        for client in &mut self.clients {
            // Each client has its own generator: a share of the clients has the times of the whole.
            let mut rng = Rng::new(seed ^ client.id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut wave = from;
            while wave + Duration::from_secs_f64(churn.within) <= to {
                if rng.chance(churn.share) {
                    let at = wave + Duration::from_secs_f64(churn.within * rng.unit());
                    if let Some(stay) = client.stays.last_mut() {
                        stay.until = Some(at);
                    }
                    client.stays.push(Stay {
                        from: at,
                        until: None,
                    });
                }
                wave += Duration::from_secs_f64(churn.every);
            }
            if churn.slot_changes > 0.0 {
                let mut at = from;
                loop {
                    // Exponential gaps: changes come independently of each other.
                    let gap = -(1.0 - rng.unit()).ln() / churn.slot_changes;
                    at += Duration::from_secs_f64(gap.min(1e6));
                    if at >= to {
                        break;
                    }
                    client.slot_changes.push(at);
                }
            }
        }
    }
}

fn ramp_steps(
    ramp: &Ramp,
    align: impl Fn(Duration) -> Duration,
    settle: impl Fn(u64) -> Duration,
) -> Vec<StepPlan> {
    let mut steps = Vec::new();
    let (mut load, mut begin) = (ramp.start, Duration::ZERO);
    let mut added = ramp.start;
    while load <= ramp.max {
        let from = align(begin + settle(added));
        let to = align(from + Duration::from_secs_f64(ramp.hold));
        steps.push(StepPlan { load, from, to });
        begin = to;
        added = ramp.step;
        load += ramp.step;
    }
    steps
}

/// Rooms with the time from which their clients join.
fn room_starts(scenario: &Scenario, steps: &[StepPlan]) -> Vec<(u64, Duration)> {
    if steps.is_empty() {
        return (0..scenario.rooms)
            .map(|room| (room, Duration::ZERO))
            .collect();
    }
    let mut starts = Vec::new();
    let (mut begin, mut room) = (Duration::ZERO, 0);
    for step in steps {
        starts.extend((room..step.load).map(|room| (room, begin)));
        (room, begin) = (step.load, step.to);
    }
    starts
}

/// The first client that joins in the same step as this room's.
fn first_of_base(steps: &[StepPlan], room: u64, per_room: u64) -> u64 {
    steps
        .iter()
        .map(|s| s.load)
        .take_while(|load| *load <= room)
        .last()
        .unwrap_or(0)
        * per_room
}

/// The role of the n-th client of a room.
fn role_of(scenario: &Scenario, mut n: u64) -> usize {
    for (index, role) in scenario.roles.iter().enumerate() {
        if n < role.count {
            return index;
        }
        n -= role.count;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(d: Duration) -> u128 {
        d.as_millis()
    }

    #[test]
    fn joins_are_evenly_spaced_and_roles_are_filled() {
        let mut webinar = Scenario::load("webinar").unwrap();
        webinar.rooms = 2;
        let plan = Plan::new(&webinar, 1, Share::ALL);
        assert_eq!(plan.clients.len(), 202);
        for (n, client) in plan.clients.iter().enumerate() {
            assert_eq!(ms(client.stays[0].from), 20 * n as u128);
            assert_eq!(client.role, usize::from(n % 101 != 0));
            assert_eq!(client.room, n as u64 / 101);
        }
        // 9.04 s, and then to the next window.
        assert_eq!(ms(plan.measure_from), 10_000);
    }

    #[test]
    fn shares_are_whole_rooms_and_make_up_the_whole() {
        let mut churn = Scenario::load("churn").unwrap();
        churn.rooms = 5;
        let whole = Plan::new(&churn, 7, Share::ALL);
        let mut parts: Vec<ClientPlan> = (0..3)
            .flat_map(|index| Plan::new(&churn, 7, Share { index, of: 3 }).clients)
            .collect();
        parts.sort_by_key(|c| c.id);
        assert_eq!(parts, whole.clients);
    }

    #[test]
    fn churn_reconnects_its_share_within_its_time() {
        let mut churn = Scenario::load("churn").unwrap();
        churn.rooms = 250;
        churn.joins_per_second = 1_000.0;
        let plan = Plan::new(&churn, 7, Share::ALL);
        let waves = 3.0;
        let again: usize = plan.clients.iter().map(|c| c.stays.len() - 1).sum();
        let share = again as f64 / plan.clients.len() as f64 / waves;
        assert!((0.27..0.33).contains(&share), "{share}");
        for client in &plan.clients {
            for pair in client.stays.windows(2) {
                assert_eq!(pair[0].until, Some(pair[1].from));
                let into = (pair[1].from - plan.measure_from).as_secs_f64() % 20.0;
                assert!(into < 10.0 && pair[1].from < plan.measure_to);
            }
        }
        let changes: usize = plan.clients.iter().map(|c| c.slot_changes.len()).sum();
        let rate = changes as f64 / 1_000.0 / 60.0;
        assert!((0.09..0.11).contains(&rate), "{rate}");
    }

    #[test]
    fn a_ramp_adds_rooms_step_by_step() {
        let ramp = Scenario::load("ramp").unwrap();
        let plan = Plan::new(&ramp, 1, Share::ALL);
        assert_eq!(plan.steps.len(), 64);
        assert_eq!(plan.clients.len(), 256);
        for (n, step) in plan.steps.iter().enumerate() {
            assert_eq!(step.load, n as u64 + 1);
            assert_eq!(ms(step.to - step.from), 10_000);
        }
        for client in &plan.clients {
            // Room n joins when step n - 1 is over, and before step n is judged.
            let step = plan.steps[client.room as usize];
            let begin = client
                .room
                .checked_sub(1)
                .map_or(Duration::ZERO, |n| plan.steps[n as usize].to);
            let from = client.stays[0].from;
            assert!(
                from >= begin && from + Duration::from_secs(3) <= step.from,
                "{client:?}"
            );
        }
        assert_eq!(plan.measure_to, plan.steps[63].to);
    }
}
