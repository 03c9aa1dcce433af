//! What a thread spends, split into user and system time.
//!
//! The kernel's own split is sampled at the timer tick, which is too coarse for runs
//! of a fraction of a second. Where the machine has hardware counters the split is that of cycles
//! in user and in kernel mode, applied to the exact CPU time; elsewhere it is the sampled one, and
//! the report says so.

#![expect(
    unsafe_code,
    reason = "perf_event_open, clock_gettime and sched_setaffinity"
)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::FromRawFd;

/// What a stretch of work cost its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// CPU time in user mode, nanoseconds.
    pub user_ns: f64,
    /// CPU time in the kernel, nanoseconds.
    pub system_ns: f64,
    /// Instructions in user mode, where the machine counts them.
    pub user_instructions: Option<u64>,
}

impl Cost {
    /// User and system time together, nanoseconds.
    #[must_use]
    pub fn total_ns(&self) -> f64 {
        self.user_ns + self.system_ns
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Cost) -> Cost {
        let instructions = self.user_instructions.zip(other.user_instructions);
        Cost {
            user_ns: self.user_ns + other.user_ns,
            system_ns: self.system_ns + other.system_ns,
            user_instructions: instructions.map(|(a, b)| a + b),
        }
    }
}

/// How user and system time are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// By cycles that the CPU counted.
    Cycles,
    /// By the kernel's sampling at the timer tick.
    Ticks,
}

impl Split {
    /// For the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Split::Cycles => "cycles counted by the CPU",
            Split::Ticks => "ticks sampled by the kernel",
        }
    }
}

/// Meters one thread of this process. One meter per thread: the CPU has few counters, and more
/// meters would share them by turns.
pub struct Meter {
    thread: ThreadId,
    counters: Option<Counters>,
}

/// A thread, as the kernel numbers it.
#[derive(Clone, Copy, Debug)]
pub struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread.
    #[must_use]
    pub fn current() -> ThreadId {
        // SAFETY: no arguments, cannot fail.
        ThreadId(unsafe { libc::gettid() })
    }
}

/// Where a meter stood.
#[derive(Clone, Copy)]
pub struct Reading {
    cpu_ns: u64,
    user: u64,
    kernel: u64,
    instructions: Option<u64>,
}

impl Meter {
    /// A meter of a living thread of this process.
    #[must_use]
    pub fn open(thread: ThreadId) -> Meter {
        Meter {
            thread,
            counters: Counters::open(thread).ok(),
        }
    }

    /// How this meter tells user from system time.
    #[must_use]
    pub fn split(&self) -> Split {
        if self.counters.is_some() {
            Split::Cycles
        } else {
            Split::Ticks
        }
    }

    /// Reads the meter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read(&mut self) -> io::Result<Reading> {
        let cpu_ns = cpu_ns(self.thread)?;
        Ok(match &mut self.counters {
            Some(counters) => Reading {
                cpu_ns,
                user: counters.user_cycles.read()?,
                kernel: counters.kernel_cycles.read()?,
                instructions: Some(counters.user_instructions.read()?),
            },
            None => {
                let (user, kernel) = sampled_ticks(self.thread)?;
                Reading {
                    cpu_ns,
                    user,
                    kernel,
                    instructions: None,
                }
            }
        })
    }
}

impl Reading {
    /// What was spent from `self` to `end`.
    #[must_use]
    pub fn until(&self, end: &Reading) -> Cost {
        let total = end.cpu_ns.saturating_sub(self.cpu_ns) as f64;
        let user = end.user.saturating_sub(self.user) as f64;
        let kernel = end.kernel.saturating_sub(self.kernel) as f64;
        let user_share = if user + kernel > 0.0 {
            user / (user + kernel)
        } else {
            1.0
        };
        Cost {
            user_ns: total * user_share,
            system_ns: total * (1.0 - user_share),
            user_instructions: end.instructions.zip(self.instructions).map(|(e, s)| e - s),
        }
    }
}

struct Counters {
    user_cycles: Counter,
    kernel_cycles: Counter,
    user_instructions: Counter,
}

impl Counters {
    fn open(thread: ThreadId) -> io::Result<Counters> {
        Ok(Counters {
            user_cycles: Counter::open(thread, HW_CPU_CYCLES, EXCLUDE_KERNEL)?,
            kernel_cycles: Counter::open(thread, HW_CPU_CYCLES, EXCLUDE_USER)?,
            user_instructions: Counter::open(thread, HW_INSTRUCTIONS, EXCLUDE_KERNEL)?,
        })
    }
}

/// `PERF_COUNT_HW_CPU_CYCLES` and `PERF_COUNT_HW_INSTRUCTIONS` of `linux/perf_event.h`.
const HW_CPU_CYCLES: u64 = 0;
const HW_INSTRUCTIONS: u64 = 1;
/// Bits of `perf_event_attr`'s flags.
const EXCLUDE_USER: u64 = 1 << 4;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HV: u64 = 1 << 6;
/// `PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING`.
const FORMAT_WITH_TIMES: u64 = 0b11;

/// The first published version of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`), which every
/// kernel accepts.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// One hardware counter of one thread.
struct Counter(File);

impl Counter {
    fn open(thread: ThreadId, config: u64, exclude: u64) -> io::Result<Counter> {
        let attr = PerfEventAttr {
            size: size_of::<PerfEventAttr>() as u32,
            config,
            read_format: FORMAT_WITH_TIMES,
            flags: exclude | EXCLUDE_HV,
            ..PerfEventAttr::default()
        };
        let (any_cpu, no_group, no_flags) = (-1, -1, 0);
        // SAFETY: the kernel reads `attr.size` bytes of `attr`, which lives across the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                thread.0,
                any_cpu,
                no_group,
                no_flags,
            )
        };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
        Ok(Counter(unsafe { File::from_raw_fd(fd) }))
    }

    /// The count, scaled up if the CPU's few counters were shared with somebody else's.
    fn read(&mut self) -> io::Result<u64> {
        let mut record = [0; 24];
        self.0.read_exact(&mut record)?;
        let [value, enabled, running] = [0, 8, 16].map(|at| {
            record[at..]
                .first_chunk()
                .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        });
        if enabled == 0 {
            // The thread has not run since the counter was opened.
            return Ok(0);
        }
        if running == 0 {
            return Err(io::Error::other("the CPU never counted for us"));
        }
        Ok((u128::from(value) * u128::from(enabled) / u128::from(running)) as u64)
    }
}

/// CPU time of a thread, nanoseconds.
fn cpu_ns(thread: ThreadId) -> io::Result<u64> {
    // The kernel's encoding of a thread's scheduler clock: CPUCLOCK_PERTHREAD_MASK (4) and
    // CPUCLOCK_SCHED (2) under the inverted number.
    clock_ns((!thread.0 << 3) | 6)
}

/// CPU time of all threads of this process, those that have ended included, nanoseconds.
///
/// # Errors
/// If the kernel refuses.
pub fn process_ns() -> io::Result<u64> {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which is ours; it checks the clock.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// User and system time of a thread as sampled at the timer tick, in any unit common to both.
fn sampled_ticks(thread: ThreadId) -> io::Result<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", thread.0))?;
    // Fields 14 and 15 of proc(5); the second, in parentheses, may contain blanks.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user, system)),
        _ => Err(io::Error::other("/proc/self/task/*/stat has another form")),
    }
}

/// Runs the calling thread with this real-time priority; 0: as any other.
///
/// # Errors
/// If the system does not permit it.
pub fn prioritise(priority: u8) -> io::Result<()> {
    match priority {
        0 => Ok(()),
        priority => sealcast_io::run_realtime(priority),
    }
}

/// Pins the calling thread, and what it starts from now on, to one CPU.
///
/// # Errors
/// If this process may not run on that CPU.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: all-zero bytes are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET ignores numbers beyond the set, and the set is ours.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads `size_of(set)` bytes of the set.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn the_kernel_samples_this_thread() {
        sampled_ticks(ThreadId::current()).unwrap();
        let other = std::thread::spawn(|| cpu_ns(ThreadId::current()));
        assert!(other.join().unwrap().unwrap() > 0);
    }

    #[test]
    fn work_is_metered_where_it_happens() {
        let mut meter = Meter::open(ThreadId::current());
        let start = meter.read().unwrap();
        let mut x = 1u64;
        for i in 0..20_000_000u64 {
            x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
        }
        let computed = start.until(&meter.read().unwrap());
        assert!(computed.user_ns > 1e6, "{computed:?}");
        if meter.split() == Split::Cycles {
            assert!(computed.user_ns > 5.0 * computed.system_ns, "{computed:?}");
            let start = meter.read().unwrap();
            for _ in 0..3_000 {
                black_box(std::fs::metadata("/proc/self/stat").unwrap());
            }
            let called = start.until(&meter.read().unwrap());
            assert!(called.system_ns > called.user_ns, "{called:?}");
        }
    }
}
