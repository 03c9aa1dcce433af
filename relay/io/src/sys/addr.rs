//! Socket addresses as the kernel wants them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An IPv4 or IPv6 socket address in the kernel's layout.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddr {
    /// Bytes of the largest address.
    pub(super) const LEN: libc::socklen_t = size_of::<RawAddr>() as libc::socklen_t;

    /// The IPv6 unspecified address; also what is not filled in yet.
    pub(super) const EMPTY: RawAddr = RawAddr {
        v6: libc::sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// The address and its length in bytes.
    pub(super) fn new(addr: &SocketAddr) -> (RawAddr, libc::socklen_t) {
        let mut raw = RawAddr::EMPTY;
        match addr {
            SocketAddr::V4(a) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(a.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(a) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: a.ip().octets(),
                    },
                    sin6_scope_id: a.scope_id(),
                };
                (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// The address, or `None` if it is of another family.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: every bit pattern is valid for both variants, which hold only integers, and the
        // union is always wholly initialised (EMPTY fills the larger one). Both begin with the
        // family.
        let family = unsafe { self.v4.sin_family };
        match libc::c_int::from(family) {
            libc::AF_INET => {
                // SAFETY: as above; the family says that it is this one.
                let a = unsafe { &self.v4 };
                let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::from((ip, u16::from_be(a.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above; the family says that it is this one.
                let a = unsafe { &self.v6 };
                // The flow label is the sender's to choose; it is not part of who they are.
                Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(a.sin6_addr.s6_addr),
                    u16::from_be(a.sin6_port),
                    0,
                    a.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}

/// The IP address of a `sockaddr` in the kernel's or the C library's memory.
///
/// # Safety
/// `addr` is null or points to a `sockaddr` that is as long as its family demands.
pub(super) unsafe fn ip_of(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: not null, so by contract a sockaddr, which begins with the family. It may not be
    // aligned for the longer types, so it is read unaligned.
    let family = unsafe { (&raw const (*addr).sa_family).read_unaligned() };
    let mut raw = RawAddr::EMPTY;
    match libc::c_int::from(family) {
        // SAFETY: the family says how long it is.
        libc::AF_INET => raw.v4 = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() },
        // SAFETY: as above.
        libc::AF_INET6 => raw.v6 = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() },
        _ => return None,
    }
    raw.get().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1:4096", "[2001:db8::1]:443", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            let (raw, len) = RawAddr::new(&addr);
            assert_eq!(raw.get(), Some(addr));
            assert!(len <= RawAddr::LEN);
        }
        assert_eq!(RawAddr::EMPTY.get(), None);
    }
}
