//! Which addresses clients are told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the configuration says of addresses.
pub(crate) struct Announcement<'a> {
    /// `media.public_addresses`.
    pub(crate) public: &'a [IpAddr],
    /// `media.announce_loopback`.
    pub(crate) loopback: bool,
    /// Those of the machine's interfaces.
    pub(crate) interfaces: Vec<IpAddr>,
}

impl<'a> Announcement<'a> {
    /// Reads the interfaces.
    ///
    /// # Errors
    /// If the system does not say what they are.
    pub(crate) fn new(public: &'a [IpAddr], loopback: bool) -> io::Result<Self> {
        Ok(Announcement {
            public,
            loopback,
            interfaces: sealcast_io::interface_addresses()?,
        })
    }

    /// The addresses that clients reach sockets at which are bound to `bound`: public ones of
    /// the same family where there are any; else the bound one, or for an unspecified one those
    /// of the interfaces.
    pub(crate) fn of(&self, bound: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut out: Vec<SocketAddr> = Vec::new();
        for addr in bound {
            for ip in self.ips(addr.ip()) {
                let announced = SocketAddr::new(ip, addr.port());
                if !out.contains(&announced) {
                    out.push(announced);
                }
            }
        }
        out
    }

    fn ips(&self, bound: IpAddr) -> Vec<IpAddr> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == bound.is_ipv4();
        let public: Vec<IpAddr> = self.public.iter().filter(same_family).copied().collect();
        if !public.is_empty() {
            return public;
        }
        if !bound.is_unspecified() {
            return vec![bound];
        }
        let mut ips: Vec<IpAddr> = self
            .interfaces
            .iter()
            .filter(same_family)
            .copied()
            .collect();
        if self.loopback {
            ips.push(match bound {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        ips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn unspecified_addresses_stand_for_the_interfaces() {
        let announcement = Announcement {
            public: &[],
            loopback: true,
            interfaces: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        };
        assert_eq!(
            announcement.of(&addrs(&["0.0.0.0:7900", "[::]:7900"])),
            addrs(&[
                "192.0.2.1:7900",
                "127.0.0.1:7900",
                "[2001:db8::1]:7900",
                "[::1]:7900"
            ])
        );
        assert_eq!(
            announcement.of(&addrs(&["10.0.0.5:1"])),
            addrs(&["10.0.0.5:1"])
        );
    }

    #[test]
    fn public_addresses_replace_those_of_their_family() {
        let public = ["203.0.113.9".parse().unwrap()];
        let announcement = Announcement {
            public: &public,
            loopback: true,
            interfaces: vec!["2001:db8::1".parse().unwrap()],
        };
        assert_eq!(
            announcement.of(&addrs(&["10.0.0.5:7900", "[::]:7900"])),
            addrs(&["203.0.113.9:7900", "[2001:db8::1]:7900", "[::1]:7900"])
        );
    }
}
