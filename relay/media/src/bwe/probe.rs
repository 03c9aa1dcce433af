//! Probe clusters: short runs of packets at a higher rate, to learn whether the path carries it.

use super::PacketResult;
use sealcast_model::Time;
use std::time::Duration;

/// A cluster's least length in time, and in packets. Longer than the jitter of a good path.
const CLUSTER_TIME: Duration = Duration::from_millis(40);
const CLUSTER_PACKETS: u32 = 5;

/// Share of a cluster's packets and bytes that must have arrived for a result.
const RECEIVED_SHARE: f64 = 0.8;

/// A receive rate over this times the send rate is an artefact of batching, not of the path.
const MAX_RATIO: f64 = 2.0;
/// A receive rate below this times the send rate means that the path was full ...
const FULL_RATIO: f64 = 0.9;
/// ... and its capacity is taken as this much of what came through.
const FULL_SHARE: f64 = 0.95;

/// Clusters whose results are awaited at once. They are sent one after the other.
const CLUSTERS: usize = 4;

/// Names a cluster within its estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeId(pub u16);

/// A cluster for the pacer to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeCluster {
    /// To be put on its packets.
    pub id: ProbeId,
    /// Bits per second to send at.
    pub rate: u64,
    /// Least number of packets.
    pub min_packets: u32,
    /// Least number of bytes.
    pub min_bytes: u64,
}

impl ProbeCluster {
    pub(super) fn new(id: ProbeId, rate: u64) -> Self {
        let min_bytes = rate / 8 * CLUSTER_TIME.as_millis() as u64 / 1_000;
        ProbeCluster {
            id,
            rate,
            min_packets: CLUSTER_PACKETS,
            min_bytes,
        }
    }
}

/// Gathers the results of clusters.
#[derive(Debug, Default)]
pub(super) struct ProbeResults {
    clusters: [Option<Cluster>; CLUSTERS],
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cluster {
    plan: ProbeCluster,
    packets: u32,
    bytes: u64,
    first_sent: Time,
    last_sent: Time,
    last_sent_bytes: u64,
    first_arrival: i64,
    first_arrival_bytes: u64,
    last_arrival: i64,
}

impl ProbeResults {
    /// A cluster was handed to the pacer. The oldest awaited one is given up for it.
    pub(super) fn expect(&mut self, plan: ProbeCluster) {
        self.clusters[self.next % CLUSTERS] = Some(Cluster {
            plan,
            packets: 0,
            bytes: 0,
            first_sent: Time::NEVER,
            last_sent: Time::ZERO,
            last_sent_bytes: 0,
            first_arrival: i64::MAX,
            first_arrival_bytes: 0,
            last_arrival: i64::MIN,
        });
        self.next += 1;
    }

    /// A packet of a cluster arrived. Gives the rate that the path has shown (bits per second) and
    /// the rate of the cluster, once enough has arrived, and again as more does.
    pub(super) fn on_packet(&mut self, id: ProbeId, result: &PacketResult) -> Option<(u64, u64)> {
        let arrival = result.arrival?;
        let cluster = self
            .clusters
            .iter_mut()
            .flatten()
            .find(|c| c.plan.id == id)?;
        cluster.add(result.sent, arrival, u64::from(result.bytes));
        cluster.rate().map(|rate| (rate, cluster.plan.rate))
    }
}

impl Cluster {
    fn add(&mut self, sent: Time, arrival: i64, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
        self.first_sent = self.first_sent.min(sent);
        if sent >= self.last_sent {
            (self.last_sent, self.last_sent_bytes) = (sent, bytes);
        }
        if arrival < self.first_arrival {
            (self.first_arrival, self.first_arrival_bytes) = (arrival, bytes);
        }
        self.last_arrival = self.last_arrival.max(arrival);
    }

    fn rate(&self) -> Option<u64> {
        if f64::from(self.packets) < f64::from(self.plan.min_packets) * RECEIVED_SHARE
            || (self.bytes as f64) < self.plan.min_bytes as f64 * RECEIVED_SHARE
        {
            return None;
        }
        let sent_over = (self.last_sent - self.first_sent).as_secs_f64();
        let received_over = (self.last_arrival - self.first_arrival) as f64 / 1_000_000.0;
        if sent_over <= 0.0 || received_over <= 0.0 {
            return None;
        }
        // N packets span N - 1 gaps: the last one sent and the first one received fill none.
        let sent = (self.bytes - self.last_sent_bytes) as f64 * 8.0 / sent_over;
        let received = (self.bytes - self.first_arrival_bytes) as f64 * 8.0 / received_over;
        if received > MAX_RATIO * sent {
            return None;
        }
        let rate = if received < FULL_RATIO * sent {
            FULL_SHARE * received
        } else {
            sent.min(received)
        };
        Some(rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a cluster at 2 Mbit/s through a path that spaces packets by `spacing` µs at least.
    fn probe(spacing: i64, lost: u64) -> Option<u64> {
        let plan = ProbeCluster::new(ProbeId(3), 2_000_000);
        let mut results = ProbeResults::default();
        results.expect(plan);
        let (mut arrival, mut found) = (0, None);
        let packets = plan.min_bytes.div_ceil(1_000);
        for i in 0..packets {
            let sent = Time::from_micros(i * 4_000);
            arrival = (arrival + spacing).max(i as i64 * 4_000 + 20_000);
            let received = (i >= lost).then_some(arrival);
            let result = PacketResult {
                number: i,
                ssrc: 1,
                sequence_number: i as u16,
                sent,
                arrival: received,
                bytes: 1_000,
                probe: Some(plan.id),
            };
            assert_eq!(results.on_packet(ProbeId(4), &result), None);
            found = results.on_packet(plan.id, &result).or(found);
        }
        assert!(found.is_none_or(|(_, rate)| rate == 2_000_000));
        found.map(|(rate, _)| rate)
    }

    #[test]
    fn a_path_that_carries_the_cluster_shows_its_rate() {
        let rate = probe(0, 0).expect("result");
        assert!((1_950_000..2_050_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_path_that_does_not_shows_its_own() {
        // 1,000 bytes every 8 ms are 1 Mbit/s.
        let rate = probe(8_000, 0).expect("result");
        assert!((900_000..1_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn too_much_loss_shows_nothing() {
        assert!(probe(0, 2).is_some());
        assert_eq!(probe(0, 3), None);
    }
}
