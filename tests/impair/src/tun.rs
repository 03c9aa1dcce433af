//! TUN devices in other network namespaces.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::process::Command;
use std::time::Duration;

/// Name of the device in each namespace.
const DEVICE: &str = "imp0";
/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: bare IP packets.
const FLAGS: u16 = 0x1001;

/// Makes a TUN device with these addresses in a named namespace, up and non-blocking.
pub(crate) fn open(namespace: &str, addresses: &[&str]) -> Result<File> {
    let home = File::open("/proc/self/ns/net")?;
    enter(&File::open(format!("/run/netns/{namespace}"))?)?;
    let made = make(addresses);
    // Back home in any case: the second device must not be made in the first namespace.
    enter(&home)?;
    made
}

fn enter(namespace: &File) -> Result<()> {
    // SAFETY: setns takes an open descriptor, which `namespace` owns, and no pointers.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

fn make(addresses: &[&str]) -> Result<File> {
    let path = CString::new("/dev/net/tun")?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let fd = unsafe {
        libc::open(
            path.as_ptr(),
            libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and nobody else owns it.
    let tun = unsafe { File::from_raw_fd(fd) };
    // struct ifreq: 16 bytes of name, then the flags; 40 bytes in all on 64-bit Linux.
    let mut request = [0u8; 40];
    request[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    // SAFETY: `request` is as long as struct ifreq and lives through the call.
    if unsafe { libc::ioctl(fd, TUNSETIFF, request.as_mut_ptr()) } != 0 {
        return Err(Error::last_os_error());
    }
    for address in addresses {
        run(&["addr", "add", address, "dev", DEVICE, "nodad"])
            .or_else(|_| run(&["addr", "add", address, "dev", DEVICE]))?;
    }
    run(&[
        "link",
        "set",
        DEVICE,
        "up",
        "mtu",
        "1500",
        "txqueuelen",
        "10000",
    ])?;
    Ok(tun)
}

fn run(args: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(args)
        .stderr(std::process::Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::other(format!("ip {} failed", args.join(" "))))
    }
}

/// Waits until one of the descriptors is readable, or `wait` is over.
pub(crate) fn wait_readable(fds: [RawFd; 2], wait: Duration) -> Result<()> {
    let mut polls = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = libc::timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    // SAFETY: `polls` and `timeout` live through the call; a null signal mask means none is set.
    let n = unsafe { libc::ppoll(polls.as_mut_ptr(), 2, &timeout, std::ptr::null()) };
    match n {
        -1 if Error::last_os_error().kind() != ErrorKind::Interrupted => {
            Err(Error::last_os_error())
        }
        _ => Ok(()),
    }
}

/// The next packet's length, or `None` if none waits.
pub(crate) fn read(mut tun: &File, buffer: &mut [u8]) -> Result<Option<usize>> {
    match tun.read(buffer) {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Hands a packet to the namespace. What its kernel refuses is lost, as on a wire.
pub(crate) fn write(mut tun: &File, packet: &[u8]) -> Result<()> {
    match tun.write(packet) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput) => Ok(()),
        Err(e) => Err(e),
    }
}
