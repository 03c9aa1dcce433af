//! Any datagram as compound RTCP: every packet is walked whole.

use sealcast_rtp::rtcp::{Compound, Packet};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(compound) = Compound::parse(bytes) else {
        return;
    };
    let _ = compound.is_reduced_size();
    let mut packets = 0;
    for packet in compound {
        packets += 1;
        // Each yields no more than its bytes can name; the densest are NACKs, 17 numbers in four bytes.
        let yielded = match packet {
            Err(_) | Ok(Packet::Pli(_) | Packet::Other { .. }) => 0,
            Ok(Packet::SenderReport(p)) => p.blocks().count(),
            Ok(Packet::ReceiverReport(p)) => p.blocks().count(),
            Ok(Packet::Sdes(p)) => p.items().count() + p.cnames().count(),
            Ok(Packet::Bye(p)) => p.ssrcs().count(),
            Ok(Packet::Nack(p)) => p.sequence_numbers().count(),
            Ok(Packet::TransportFeedback(_)) => 0, // the target `twcc`
            Ok(Packet::CongestionFeedback(p)) => p.reports().count(),
            Ok(Packet::Fir(p)) => p.entries().count(),
            Ok(Packet::Remb(p)) => p.ssrcs().count(),
            Ok(_) => unreachable!("all packets are listed"),
        };
        assert!(yielded <= bytes.len() * 17 / 4);
    }
    assert!(packets > 0 && packets <= bytes.len() / 4);
}
