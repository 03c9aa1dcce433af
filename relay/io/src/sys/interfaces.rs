//! The addresses of this machine.

use super::addr::ip_of;
use super::check;
use std::io;
use std::net::IpAddr;

/// Addresses of the interfaces that are up, loopback and IPv6 link-local ones left out: what a
/// relay that is bound to an unspecified address can be reached at.
///
/// # Errors
/// What `getifaddrs` reports.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the pointer is valid for writes; the list is freed below.
    check(unsafe { libc::getifaddrs(&mut list) })?;
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: not null, so an element of the list, which is not freed yet.
        let entry = unsafe { &*next };
        let up = entry.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        // SAFETY: getifaddrs fills in null or the address of an interface, whole.
        let address = unsafe { ip_of(entry.ifa_addr) };
        if let Some(ip) = address.filter(|ip| up && is_reachable(*ip) && !found.contains(ip)) {
            found.push(ip);
        }
        next = entry.ifa_next;
    }
    // SAFETY: getifaddrs gave us this list, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_what_may_be_announced() {
        let addresses = interface_addresses().unwrap();
        assert!(
            addresses.iter().all(|ip| is_reachable(*ip)),
            "{addresses:?}"
        );
        assert!(!is_reachable("127.0.0.1".parse().unwrap()));
        assert!(!is_reachable("fe80::1".parse().unwrap()));
        assert!(is_reachable("2001:db8::1".parse().unwrap()));
    }
}
