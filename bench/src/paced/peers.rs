//! What others were measured to spend, as published, and what ours is to be.
//!
//! None of it was measured here: those figures are of other machines, whose kernel took several
//! times as long for a datagram as a quiet one of today does. What a datagram cost there, with and
//! without segmentation, is kept with them, so that a cost can be put in their terms.

/// What one datagram that is sent alone took there, nanoseconds: 3.3 to 3.9 µs for the kernel.
const KERNEL_SINGLE: f64 = 3_600.0;
/// What one of eight segments of a message took there.
const KERNEL_OF_EIGHT: f64 = 1_200.0;
/// What sealing took there, per packet.
const SEALING: f64 = 270.0;
/// The floor of single datagrams there.
pub const FLOOR_SINGLE: f64 = KERNEL_SINGLE + SEALING;

/// The floor there of messages of so many segments, nanoseconds per datagram: one part of the
/// kernel's cost is paid per message, the other per datagram.
#[must_use]
pub fn reference_floor(segments: f64) -> f64 {
    let per_message = (KERNEL_SINGLE - KERNEL_OF_EIGHT) / (1.0 - 1.0 / 8.0);
    let per_datagram = KERNEL_SINGLE - per_message;
    per_datagram + per_message / segments.max(1.0) + SEALING
}

/// No packet may be lost up to this share of a core.
pub const NO_LOSS_TO: f64 = 0.9;

/// A relay and its cost, µs of whole-process CPU per forwarded packet; a range where published so.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// The cost, or the least of the range.
    pub micros: f64,
    /// The most of the range.
    pub to: Option<f64>,
    /// Packets per second out, if it is of another rate than the shape's.
    pub at: Option<f64>,
}

impl Peer {
    const fn new(name: &'static str, micros: f64) -> Peer {
        Peer {
            name,
            micros,
            to: None,
            at: None,
        }
    }

    const fn to(self, to: f64) -> Peer {
        Peer {
            to: Some(to),
            ..self
        }
    }

    const fn at(self, at: f64) -> Peer {
        Peer {
            at: Some(at),
            ..self
        }
    }
}

/// A paced shape.
#[derive(Debug)]
pub struct Paced {
    /// Receivers × packets per second in.
    pub shape: &'static str,
    /// µs per packet that ours is to take at most.
    pub goal: f64,
    /// What others take.
    pub peers: &'static [Peer],
}

const MEDIASOUP: Peer = Peer::new("mediasoup", 6.2).at(80_000.0);

/// The shapes that others were measured in.
pub const PACED: [Paced; 4] = [
    Paced {
        shape: "20×500",
        goal: 5.5,
        peers: &[
            Peer::new("PulseBeam", 11.2),
            MEDIASOUP,
            Peer::new("Signal-Calling-Service", 18.0),
            Peer::new("Janus", 16.0).to(23.0),
        ],
    },
    Paced {
        shape: "20×2000",
        goal: 3.0,
        peers: &[
            Peer::new("PulseBeam", 6.3),
            MEDIASOUP,
            Peer::new("Signal-Calling-Service", 11.5),
            Peer::new("Janus", 10.0).to(15.0),
        ],
    },
    Paced {
        shape: "100×100",
        goal: 8.0,
        peers: &[
            Peer::new("PulseBeam", 19.8),
            MEDIASOUP,
            Peer::new("Signal-Calling-Service", 15.6),
            Peer::new("Janus", 31.0),
        ],
    },
    Paced {
        shape: "100×400",
        goal: 4.5,
        peers: &[
            Peer::new("PulseBeam", 9.8),
            MEDIASOUP,
            Peer::new("Signal-Calling-Service", 11.7),
            Peer::new("Janus", 12.0).to(25.0),
        ],
    },
];

/// What a relay is to cost when it is full.
#[derive(Debug)]
pub struct Saturated {
    /// Receivers.
    pub receivers: usize,
    /// µs per packet that ours is to take at most.
    pub goal: f64,
}

/// The sizes that are saturated.
pub const SATURATED: [Saturated; 2] = [
    Saturated {
        receivers: 20,
        goal: 1.5,
    },
    Saturated {
        receivers: 100,
        goal: 1.8,
    },
];

/// What others take when they are full, with the rate out at which they are.
pub const FULL_PEERS: [Peer; 4] = [
    Peer::new("PulseBeam, 20 receivers", 2.2).at(340_000.0),
    Peer::new("PulseBeam, 100 receivers", 3.5).at(260_000.0),
    Peer::new("mediasoup", 5.0).at(200_000.0),
    Peer::new("Signal-Calling-Service", 8.5).at(115_000.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_floor_is_what_was_measured_there() {
        assert!((reference_floor(1.0) - FLOOR_SINGLE).abs() < 1e-6);
        assert!((reference_floor(8.0) - 1_470.0).abs() < 1e-6);
        assert!(reference_floor(64.0) > SEALING && reference_floor(64.0) < reference_floor(8.0));
    }
}
