//! ICE candidates (RFC 8839 §5.1, RFC 6544 §4.5), host type only: all that a lite agent offers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A host candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1–32 ice-chars; equal for candidates of one base address and protocol.
    pub foundation: String,
    /// 1–2³¹−1.
    pub priority: u32,
    /// Transport.
    pub protocol: CandidateProtocol,
    /// Address.
    pub addr: SocketAddr,
}

/// A candidate's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateProtocol {
    /// UDP.
    Udp,
    /// TCP, the peer connects (RFC 6544).
    TcpPassive,
}

/// RFC 8445 §5.1.2.2 recommends 126 for host candidates.
const TYPE_PREFERENCE_HOST: u32 = 126;

/// RFC 6544 §4.2: "the direction-pref for passive host candidates" is 4, in the upper three bits
/// of the local preference; and TCP candidates should rank below UDP ones, which a lower type
/// preference ensures.
const TYPE_PREFERENCE_TCP: u32 = 105;
const DIRECTION_PREFERENCE_PASSIVE: u32 = 4;

/// Candidates for these addresses, in descending priority: UDP before TCP, and within each in
/// the order given, but IPv6 before IPv4 (RFC 8421 §4 asks not to let one family starve).
#[must_use]
pub fn host_candidates(udp: &[SocketAddr], tcp: &[SocketAddr]) -> Vec<Candidate> {
    let by_family = |addrs: &[SocketAddr]| {
        let mut sorted = addrs.to_vec();
        sorted.sort_by_key(|a| a.is_ipv4());
        sorted
    };
    let mut out: Vec<Candidate> = Vec::with_capacity(udp.len() + tcp.len());
    for (i, addr) in by_family(udp).into_iter().enumerate() {
        let local = 65_535 - u32::try_from(i).unwrap_or(65_535).min(65_535);
        out.push(candidate(
            out.len(),
            CandidateProtocol::Udp,
            TYPE_PREFERENCE_HOST,
            local,
            addr,
        ));
    }
    for (i, addr) in by_family(tcp).into_iter().enumerate() {
        let other = 8_191 - u32::try_from(i).unwrap_or(8_191).min(8_191);
        let local = (DIRECTION_PREFERENCE_PASSIVE << 13) + other;
        out.push(candidate(
            out.len(),
            CandidateProtocol::TcpPassive,
            TYPE_PREFERENCE_TCP,
            local,
            addr,
        ));
    }
    out
}

/// RFC 8445 §5.1.2.1: priority = 2^24·type + 2^8·local + (256 − component), component 1.
fn candidate(
    index: usize,
    protocol: CandidateProtocol,
    type_preference: u32,
    local: u32,
    addr: SocketAddr,
) -> Candidate {
    Candidate {
        foundation: (index + 1).to_string(),
        priority: (type_preference << 24) + (local << 8) + 255,
        protocol,
        addr,
    }
}

impl Candidate {
    /// Reads the value of an `a=candidate` line. `None` for what is not component 1, host, and
    /// an IP address: names (mDNS), reflexive and relayed candidates mean nothing to a lite
    /// agent, which never sends a check.
    pub(super) fn parse(value: &str) -> Option<Candidate> {
        let mut fields = value.split_ascii_whitespace();
        let foundation = fields.next()?;
        if fields.next()? != "1" || foundation.len() > 32 {
            return None;
        }
        let transport = fields.next()?;
        let priority = fields.next()?.parse().ok()?;
        let ip: IpAddr = fields.next()?.parse().ok()?;
        let port = fields.next()?.parse().ok()?;
        if (fields.next()?, fields.next()?) != ("typ", "host") {
            return None;
        }
        let mut tcp_type = None;
        while let Some(key) = fields.next() {
            let value = fields.next()?;
            if key == "tcptype" {
                tcp_type = Some(value);
            }
        }
        let protocol = if transport.eq_ignore_ascii_case("udp") {
            CandidateProtocol::Udp
        } else if transport.eq_ignore_ascii_case("tcp") && tcp_type == Some("passive") {
            CandidateProtocol::TcpPassive
        } else {
            return None;
        };
        Some(Candidate {
            foundation: foundation.to_owned(),
            priority,
            protocol,
            addr: SocketAddr::new(ip, port),
        })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, tcp_type) = match self.protocol {
            CandidateProtocol::Udp => ("udp", ""),
            CandidateProtocol::TcpPassive => ("tcp", " tcptype passive"),
        };
        write!(
            f,
            "{} 1 {transport} {} {} {} typ host{tcp_type}",
            self.foundation,
            self.priority,
            self.addr.ip(),
            self.addr.port(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_ranks_above_tcp_and_ipv6_above_ipv4() {
        let v4: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        let list = host_candidates(&[v4, v6], &[v4]);
        let order: Vec<_> = list.iter().map(|c| (c.protocol, c.addr)).collect();
        assert_eq!(
            order,
            [
                (CandidateProtocol::Udp, v6),
                (CandidateProtocol::Udp, v4),
                (CandidateProtocol::TcpPassive, v4)
            ]
        );
        assert!(list.windows(2).all(|w| w[0].priority > w[1].priority));
        assert_eq!(list[0].priority, 2_130_706_431, "the value browsers use");
        for c in list {
            assert_eq!(Candidate::parse(&c.to_string()), Some(c));
        }
    }

    #[test]
    fn skips_what_a_lite_agent_cannot_use() {
        for line in [
            "",
            "1 1 udp",
            "1 2 udp 1 192.0.2.1 5 typ host",
            "1 1 udp 1 4f3a.local 5 typ host",
            "1 1 udp 1 192.0.2.1 5 typ srflx raddr 0.0.0.0 rport 0",
            "1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
        ] {
            assert_eq!(Candidate::parse(line), None, "{line}");
        }
    }
}
