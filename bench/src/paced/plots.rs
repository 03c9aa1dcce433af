//! The plots of the paced measurement.

use super::peers::{FULL_PEERS, PACED, Peer, SATURATED};
use super::{Kind, Point, Report};
use crate::report::chart::{Bar, Series, bars, lines};
use crate::report::{Page, short};

/// Colours: the shard's user and system time, the floor, others, and the scaled cost.
const USER: usize = 0;
const SYSTEM: usize = 1;
const FLOOR: usize = 4;
const OTHERS: usize = 3;
const SCALED: usize = 5;

impl Report {
    /// The page: cost beside others', cost and loss over rate, calls per arrival.
    #[must_use]
    pub fn page(&self) -> Page {
        let introduction = "CPU time of a relay's whole process per forwarded packet of 1,100 \
             bytes, with real DTLS-SRTP receivers that give feedback. Figures of other relays are \
             as published, from another machine, on which a datagram alone cost the kernel \
             several times what it costs here; \"scaled\" puts our cost in that machine's terms.";
        let mut page = Page::new("Paced and saturated", introduction);
        if self.points.iter().any(|p| p.kind == Kind::Paced) {
            page = page
                .plot(
                    "µs per forwarded packet at set rates",
                    "Receivers × packets per second in, single packets. The mark across our bar is the goal.",
                    &self.paced_bars(),
                )
                .plot(
                    "Wake-ups and system calls per packet that arrives",
                    "Of the shard's thread. Feedback is what makes them more than one.",
                    &self.call_bars(),
                );
        }
        if self.points.iter().any(|p| p.kind == Kind::Saturating) {
            page = page
                .plot(
                    "Cost over rate, up to saturation",
                    "As a core fills up, arrivals are taken several at a time and leave segmented.",
                    &lines(
                        &self.cost_series(),
                        ("packets per second out", "µs per packet"),
                    ),
                )
                .plot(
                    "Loss over rate",
                    "In the relay, and behind it in the sockets of receivers, who share one core.",
                    &lines(&self.loss_series(), ("packets per second out", "% lost")),
                );
        }
        page
    }

    fn paced_bars(&self) -> String {
        let mut rows = Vec::new();
        for point in self.points.iter().filter(|p| p.kind == Kind::Paced) {
            let known = PACED.iter().find(|of| of.shape == point.shape);
            let goal = known.map(|of| of.goal);
            let other = point.process_ns - point.user_ns;
            rows.push(Bar {
                label: format!("{} · Sealcast", point.shape),
                parts: vec![(point.user_ns / 1e3, USER), (other / 1e3, SYSTEM)],
                goal,
                note: format!(
                    "{} µs, goal {}",
                    short(point.process_ns / 1e3),
                    goal.map_or_else(|| "none".into(), short)
                ),
                begins_group: true,
                ..Bar::default()
            });
            let single = |label: &str, nanos: f64, colour| Bar {
                label: format!("{} · {label}", point.shape),
                parts: vec![(nanos / 1e3, colour)],
                note: format!("{} µs", short(nanos / 1e3)),
                ..Bar::default()
            };
            rows.push(single("floor of the same batches", point.floor_ns, FLOOR));
            if let Some(resting) = point.resting_floor_ns {
                rows.push(single("floor that sleeps between frames", resting, FLOOR));
            }
            rows.push(single(
                "Sealcast, scaled to the others' floor",
                point.scaled_ns(),
                SCALED,
            ));
            let peers = known.map_or(&[][..], |of| of.peers);
            rows.extend(peers.iter().map(|peer| peer_bar(&point.shape, peer)));
        }
        let legend = [
            ("user", USER),
            ("system and other threads", SYSTEM),
            ("floor", FLOOR),
            ("scaled", SCALED),
            ("published, another machine", OTHERS),
        ];
        bars(&rows, &legend)
    }

    fn call_bars(&self) -> String {
        let mut rows = Vec::new();
        for point in self.points.iter().filter(|p| p.kind == Kind::Paced) {
            let counts = [
                ("wake-ups", point.wakeups, USER),
                ("receive calls", point.receive_calls, 2),
                ("send calls", point.send_calls, FLOOR),
                (
                    "feedback and checks that arrive",
                    point.other_datagrams,
                    OTHERS,
                ),
            ];
            for (i, (what, count, colour)) in counts.into_iter().enumerate() {
                rows.push(Bar {
                    label: format!("{} · {what}", point.shape),
                    parts: vec![(count, colour)],
                    note: short(count),
                    begins_group: i == 0,
                    ..Bar::default()
                });
            }
        }
        bars(&rows, &[])
    }

    /// A line of each size.
    fn over_rate(
        &self,
        name: &str,
        colours: [usize; 2],
        of: impl Fn(&Point) -> Option<f64>,
    ) -> Vec<Series> {
        let sizes = SATURATED.iter().zip(colours);
        let series = sizes.map(|(size, colour)| {
            let points = self.saturating(size.receivers);
            Series {
                name: format!("{name}, {} receivers", size.receivers),
                points: points
                    .filter_map(|p| Some((p.out_per_second, of(p)?)))
                    .collect(),
                colour,
                joined: true,
            }
        });
        series.filter(|s| !s.points.is_empty()).collect()
    }

    fn cost_series(&self) -> Vec<Series> {
        let mut series = self.over_rate("Sealcast", [0, 2], |p| Some(p.process_ns / 1e3));
        series.extend(self.over_rate("floor", [4, 1], |p| Some(p.floor_ns / 1e3)));
        series.extend(FULL_PEERS.iter().filter_map(|peer| {
            Some(Series {
                name: format!("{}, published", peer.name),
                points: vec![(peer.at?, peer.micros)],
                colour: OTHERS,
                joined: false,
            })
        }));
        series
    }

    fn loss_series(&self) -> Vec<Series> {
        // Media under way when counting began makes a share less than nothing.
        let percent = |share: f64| 100.0 * share.max(0.0);
        let mut series = self.over_rate("relay", [0, 2], |p| p.lost.map(percent));
        let sockets = self.over_rate("receivers' sockets", [4, 1], |p| p.untaken.map(percent));
        series.extend(sockets);
        series
    }
}

fn peer_bar(shape: &str, peer: &Peer) -> Bar {
    let range = match peer.to {
        Some(to) => format!("{}–{}", short(peer.micros), short(to)),
        None => short(peer.micros),
    };
    let rate = peer
        .at
        .map_or_else(String::new, |at| format!(", at {at:.0}/s out"));
    Bar {
        label: format!("{shape} · {}", peer.name),
        parts: vec![(peer.micros, OTHERS)],
        until: peer.to,
        note: format!("{range} µs{rate}, published"),
        ..Bar::default()
    }
}
