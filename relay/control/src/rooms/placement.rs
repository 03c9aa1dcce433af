//! On which shard somebody is placed.
//!
//! A shard's load is the larger of two shares: of its thread's time that it works, and of the
//! packets that one core forwards. Both are smoothed, and those placed a moment ago count as load
//! that is still to come. Shards whose loads differ by less than a margin are taken for equal, so
//! that noise decides nothing; among equals the one with the fewest participants takes the next.
//!
//! Pure: readings of counters and the time between them are arguments.

use std::time::Duration;

/// Packets a second that are taken for a full core, until its busy share says otherwise.
const FULL_PACKETS: f64 = 300_000.0;

/// Loads that differ by less are equal.
const MARGIN: f64 = 0.05;

/// What a participant who has just been placed is taken to cost, until it shows.
const NEWCOMER: f64 = 0.002;

/// A newcomer shows by then.
const NEWCOMER_TIME: Duration = Duration::from_secs(10);

/// Weight of a reading of one second.
const SMOOTHING: f64 = 0.3;

/// A shard's counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Nanoseconds that its thread has worked.
    pub(crate) busy_nanos: u64,
    /// Packets that it has forwarded.
    pub(crate) forwarded: u64,
}

/// What is known of one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardLoad {
    last: Option<Reading>,
    busy: f64,
    packets_per_second: f64,
    participants: usize,
    /// Those who came lately, and how long ago.
    newcomers: Vec<Duration>,
}

impl ShardLoad {
    /// Takes a reading, `elapsed` after the one before.
    pub(crate) fn read(&mut self, reading: Reading, elapsed: Duration) {
        self.newcomers.retain_mut(|age| {
            *age += elapsed;
            *age < NEWCOMER_TIME
        });
        let seconds = elapsed.as_secs_f64();
        let Some(last) = self.last.replace(reading).filter(|_| seconds > 0.0) else {
            return;
        };
        let busy = reading.busy_nanos.saturating_sub(last.busy_nanos) as f64 / 1e9 / seconds;
        let packets = reading.forwarded.saturating_sub(last.forwarded) as f64 / seconds;
        let weight = 1.0 - (1.0 - SMOOTHING).powf(seconds);
        self.busy += (busy.min(1.0) - self.busy) * weight;
        self.packets_per_second += (packets - self.packets_per_second) * weight;
    }

    /// Somebody is placed here.
    pub(crate) fn occupy(&mut self) {
        self.participants += 1;
        self.newcomers.push(Duration::ZERO);
    }

    /// Somebody who was placed here is gone.
    pub(crate) fn vacate(&mut self) {
        self.participants = self.participants.saturating_sub(1);
        if self.newcomers.len() > self.participants {
            self.newcomers.pop();
        }
    }

    /// Its share of a core, 0 to somewhat above 1.
    fn share(&self) -> f64 {
        let measured = self.busy.max(self.packets_per_second / FULL_PACKETS);
        measured + NEWCOMER * self.newcomers.len() as f64
    }
}

/// What a room may have on one shard before newcomers are placed on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Participants of the room.
    pub participants: usize,
    /// Packets a second that the shard forwards, of all its rooms.
    pub packets_per_second: u64,
}

impl Spread {
    /// Rooms stay on one shard.
    pub const NEVER: Spread = Spread {
        participants: usize::MAX,
        packets_per_second: u64::MAX,
    };
}

/// The least loaded of `among`; the first of equals. `None` if there is none.
pub(crate) fn least_loaded(
    loads: &[ShardLoad],
    among: impl Iterator<Item = usize> + Clone,
) -> Option<usize> {
    let of = |shard: usize| loads.get(shard).map(|load| (shard, load));
    let least = among.clone().filter_map(of).map(|(_, load)| load.share());
    let least = least.fold(f64::INFINITY, f64::min);
    among
        .filter_map(of)
        .filter(|(_, load)| load.share() <= least + MARGIN)
        .min_by_key(|(shard, load)| (load.participants, *shard))
        .map(|(shard, _)| shard)
}

/// Where the next participant of a room is placed that has `placed` participants on each shard.
/// `None` if there is no shard.
pub(crate) fn place(loads: &[ShardLoad], placed: &[usize], spread: Spread) -> Option<usize> {
    let on = |shard: &usize| placed.get(*shard).is_some_and(|there| *there > 0);
    let has_room = |shard: &usize| {
        let load = loads.get(*shard);
        placed
            .get(*shard)
            .is_some_and(|there| *there < spread.participants)
            && load.is_some_and(|l| l.packets_per_second <= spread.packets_per_second as f64)
    };
    let all = 0..loads.len();
    // Together with as many as possible: each further shard costs a copy of every packet.
    let together = all.clone().filter(on).filter(has_room);
    let together = together.max_by_key(|shard| (placed.get(*shard), std::cmp::Reverse(*shard)));
    together
        .or_else(|| least_loaded(loads, all.clone().filter(|shard| !on(shard))))
        .or_else(|| least_loaded(loads, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(shares: &[(f64, usize)]) -> Vec<ShardLoad> {
        let load = |(busy, participants): &(f64, usize)| ShardLoad {
            busy: *busy,
            participants: *participants,
            ..ShardLoad::default()
        };
        shares.iter().map(load).collect()
    }

    const SPREAD: Spread = Spread {
        participants: 10,
        packets_per_second: 100_000,
    };

    #[test]
    fn rooms_go_where_there_is_least_to_do() {
        let choose = |shares: &[(f64, usize)]| least_loaded(&loads(shares), 0..shares.len());
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[(0.0, 0), (0.0, 0)]), Some(0));
        assert_eq!(
            choose(&[(0.5, 3), (0.2, 90)]),
            Some(1),
            "work counts, not heads"
        );
        assert_eq!(
            choose(&[(0.22, 3), (0.2, 90)]),
            Some(0),
            "unless work is the same"
        );
        assert_eq!(choose(&[(0.9, 1), (0.31, 9), (0.3, 8), (0.34, 8)]), Some(2));
    }

    #[test]
    fn many_who_come_at_once_are_spread_before_they_cost_anything() {
        let mut loads = loads(&[(0.10, 50), (0.0, 0), (0.0, 0)]);
        let mut placed = [0; 3];
        for _ in 0..120 {
            let shard = least_loaded(&loads, 0..3).unwrap();
            loads[shard].occupy();
            placed[shard] += 1;
        }
        assert_eq!(
            placed,
            [7, 57, 56],
            "first the idle ones, then by heads, of which the first has 50"
        );
    }

    #[test]
    fn load_is_read_from_counters_and_smoothed() {
        let mut load = ShardLoad::default();
        let second = Duration::from_secs(1);
        let reading = |n: u64| Reading {
            busy_nanos: n * 400_000_000,
            forwarded: n * 30_000,
        };
        load.read(reading(5), Duration::ZERO);
        assert_eq!(load.share(), 0.0, "one reading says nothing");
        load.read(reading(6), second);
        assert!((load.share() - 0.4 * SMOOTHING).abs() < 1e-9);
        for n in 7..40 {
            load.read(reading(n), second);
        }
        assert!((load.share() - 0.4).abs() < 1e-3, "{}", load.share());
        assert!((load.packets_per_second - 30_000.0).abs() < 1.0);
        // A single long interval weighs as much as the short ones that it spans.
        let mut rare = load.clone();
        for _ in 0..5 {
            load.read(reading(39), second);
        }
        rare.read(reading(39), second * 5);
        assert!((load.share() - rare.share()).abs() < 1e-9);
    }

    #[test]
    fn newcomers_count_until_they_show_or_leave() {
        let mut load = ShardLoad::default();
        load.occupy();
        load.occupy();
        assert!((load.share() - 2.0 * NEWCOMER).abs() < 1e-12);
        load.vacate();
        assert!((load.share() - NEWCOMER).abs() < 1e-12);
        load.read(Reading::default(), NEWCOMER_TIME);
        assert_eq!((load.share(), load.participants), (0.0, 1));
        load.vacate();
        load.vacate();
        assert_eq!(load.participants, 0);
    }

    #[test]
    fn a_room_stays_together_until_its_shard_is_full() {
        let mut loads = loads(&[(0.4, 10), (0.0, 0), (0.1, 3)]);
        assert_eq!(place(&loads, &[0, 0, 0], SPREAD), Some(1), "a new room");
        assert_eq!(
            place(&loads, &[9, 0, 0], SPREAD),
            Some(0),
            "its shard is busy, but has room"
        );
        assert_eq!(
            place(&loads, &[10, 0, 0], SPREAD),
            Some(1),
            "one shard more"
        );
        assert_eq!(place(&loads, &[10, 3, 0], SPREAD), Some(1));
        assert_eq!(
            place(&loads, &[8, 9, 0], SPREAD),
            Some(1),
            "with most of the others"
        );
        assert_eq!(place(&loads, &[10, 10, 0], SPREAD), Some(2));
        assert_eq!(
            place(&loads, &[10, 10, 10], SPREAD),
            Some(1),
            "beyond, by load alone"
        );
        loads[0].packets_per_second = 100_001.0;
        assert_eq!(
            place(&loads, &[2, 0, 0], SPREAD),
            Some(1),
            "too many packets there"
        );
        assert_eq!(place(&loads, &[2, 0, 0], Spread::NEVER), Some(0));
        assert_eq!(place(&[], &[], SPREAD), None);
    }
}
