//! Programs that end when they should: within their time, and with the one that started them.
//!
//! Each runs in a process group of its own. When its time is over, or when this process is told to
//! end (SIGINT, SIGTERM, SIGHUP), the whole group is killed, so that nothing it started is left.

#![expect(unsafe_code, reason = "signals")]

use crate::{Result, clock};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether a program has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// What this process may be told to end by.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The process group that runs now. Held while one starts, so that a signal finds it or stops it
/// from starting.
static RUNNING: Mutex<Option<libc::pid_t>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<libc::pid_t>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal to end also ends what [`run`] has started. Call it first of all, while
/// there is one thread.
///
/// # Errors
/// If the system refuses.
pub fn end_together() -> Result<()> {
    // SAFETY: all-zero bytes are a valid set, which the next call empties anyway.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, the signals exist.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
    }
    // SAFETY: reads the set; threads that start from now on inherit the mask.
    if unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0
    {
        return Err(io::Error::last_os_error().into());
    }
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut signal = 0;
            // SAFETY: reads the set, writes one number, both of this thread.
            unsafe { libc::sigwait(&raw const set, &raw mut signal) };
            // Held to the end: nothing starts any more.
            let running = running();
            if let Some(group) = *running {
                kill(group);
            }
            eprintln!("ended by signal {signal}");
            std::process::exit(128 + signal);
        })?;
    Ok(())
}

fn kill(group: libc::pid_t) {
    // SAFETY: no pointers. The group is our child's, which is not reaped before it is forgotten.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

/// Runs a program to its end.
///
/// # Errors
/// If it does not start, or takes longer than `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let start = clock::now();
    let mut child = {
        let mut running = running();
        let child = unblocked(command.process_group(0)).spawn()?;
        *running = Some(libc::pid_t::try_from(child.id())?);
        child
    };
    let ended = loop {
        let mut running = running();
        let ended = child.try_wait()?;
        if ended.is_some() || start.elapsed() > limit {
            // What it started and left behind ends with it.
            if let Some(group) = running.take() {
                kill(group);
            }
            break ended;
        }
        drop(running);
        clock::sleep(GLANCE);
    };
    match ended {
        Some(status) => Ok(status),
        None => {
            child.wait()?;
            Err(format!("it took longer than {} s", limit.as_secs()).into())
        }
    }
}

/// A program that can be told to end, though this process blocks the signals.
fn unblocked(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only functions that are safe for signal handlers are called.
    unsafe {
        command.pre_exec(|| {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            match libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Whether a process runs; what was killed and not yet reaped does not.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// One test, since programs run one at a time.
    #[test]
    fn programs_end_with_all_they_started() {
        let long = Duration::from_secs(60);
        assert!(run(&mut shell("exit 0"), long).unwrap().success());
        assert_eq!(run(&mut shell("exit 3"), long).unwrap().code(), Some(3));

        let note = std::env::temp_dir().join(format!("sealcast-process-{}", std::process::id()));
        for (script, limit) in [
            (
                "sleep 600 & echo $! > $NOTE; wait",
                Duration::from_millis(500),
            ),
            ("sleep 600 & echo $! > $NOTE", long),
        ] {
            let ended = run(shell(script).env("NOTE", &note), limit);
            assert_eq!(ended.is_err(), limit < long, "{script}");
            let grandchild = std::fs::read_to_string(&note).unwrap();
            let start = clock::now();
            while runs(grandchild.trim()) {
                assert!(start.elapsed() < long, "{script}: something is left");
                clock::sleep(GLANCE);
            }
        }
        std::fs::remove_file(&note).unwrap();
    }
}
