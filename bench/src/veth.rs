//! A network namespace behind a pair of virtual Ethernet devices, for what loopback does not show.

#![expect(
    unsafe_code,
    reason = "a system call that the standard library does not offer"
)]

use crate::Result;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;

/// A network namespace, and a pair of devices that leads there. Both go with this.
pub struct Veth {
    namespace: String,
    device: String,
}

impl Veth {
    /// This end's address.
    pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 231, 77, 1);
    /// The address in the namespace.
    pub const THERE: Ipv4Addr = Ipv4Addr::new(10, 231, 77, 2);

    /// Makes both, which takes root.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn new() -> Result<Veth> {
        let id = std::process::id();
        let veth = Veth {
            namespace: format!("sealcast-zc-{id}"),
            device: format!("szc{id}"),
        };
        let (ns, device) = (&veth.namespace, &veth.device);
        ip(&format!("netns add {ns}"))?;
        ip(&format!(
            "link add {device} type veth peer name there netns {ns}"
        ))?;
        ip(&format!("addr add {}/30 dev {device}", Veth::HERE))?;
        ip(&format!("link set {device} up"))?;
        ip(&format!("-n {ns} addr add {}/30 dev there", Veth::THERE))?;
        ip(&format!("-n {ns} link set there up"))?;
        Ok(veth)
    }

    /// Runs `f` in the namespace, on a thread of its own.
    ///
    /// # Errors
    /// Those of `f`, and if the namespace cannot be entered.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: changes the calling thread's namespace, and nothing else.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error().into());
                }
                f()
            });
            thread.join().map_err(|_| "the thread panicked")?
        })
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // The pair of devices goes with it.
        if let Err(error) = ip(&format!("netns del {}", self.namespace)) {
            eprintln!("{} is left behind: {error}", self.device);
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {status}").into())
    }
}
