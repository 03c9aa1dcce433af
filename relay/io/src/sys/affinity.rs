//! Which cores the process may use, pinning a thread to one of them, and its priority there.

use super::check;
use std::io;

/// The cores that the calling thread may run on, ascending. Respects `CPUAffinity=` of systemd,
/// taskset and cpusets.
///
/// # Errors
/// What `sched_getaffinity` reports: more cores than `CPU_SETSIZE` (1,024).
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let set = current()?;
    Ok((0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect())
}

/// Keeps the calling thread on `core`, which must be one of [`usable_cores`].
pub(crate) fn pin_to_core(core: usize) -> io::Result<()> {
    if !usable_cores()?.contains(&core) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the process may not run on this core",
        ));
    }
    let mut set = empty();
    // SAFETY: usable_cores yields indices below CPU_SETSIZE only.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid for the size given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }).map(drop)
}

/// Runs the calling thread by `SCHED_FIFO` at this priority, 1..=99: whenever it has something to do
/// and no thread of a higher one has. Threads that it starts do not inherit that.
///
/// # Errors
/// What `sched_setscheduler` reports: not permitted (`RLIMIT_RTPRIO`, `CAP_SYS_NICE`), or no such
/// priority.
pub fn run_realtime(priority: u8) -> io::Result<()> {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: the parameters are valid for reads; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &parameters) }).map(drop)
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is valid and means "no core".
    unsafe { std::mem::zeroed() }
}

fn current() -> io::Result<libc::cpu_set_t> {
    let mut set = empty();
    // SAFETY: the set is valid for writes of the size given; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) })?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_the_threads_own_or_refused() {
        let policies = std::thread::spawn(|| {
            let own = || {
                // SAFETY: 0 is the calling thread.
                unsafe { libc::sched_getscheduler(0) }
            };
            let result = run_realtime(1);
            let other = std::thread::spawn(own).join().unwrap();
            (result, own() & !libc::SCHED_RESET_ON_FORK, other)
        });
        let (result, own, other) = policies.join().unwrap();
        assert_eq!(other, libc::SCHED_OTHER, "it is not inherited");
        match result {
            Ok(()) => assert_eq!(own, libc::SCHED_FIFO),
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::PermissionDenied);
                assert_eq!(own, libc::SCHED_OTHER);
            }
        }
        let refused = std::thread::spawn(|| run_realtime(100)).join().unwrap();
        assert!(refused.is_err(), "there is no such priority");
    }

    #[test]
    fn pins_to_an_allowed_core_and_no_other() {
        let cores = usable_cores().unwrap();
        let last = *cores.last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin_to_core(last).unwrap();
            usable_cores().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        let refused = std::thread::spawn(|| pin_to_core(1_023)).join().unwrap();
        assert!(refused.is_err() || cores.contains(&1_023));
        assert!(pin_to_core(usize::MAX).is_err());
    }
}
