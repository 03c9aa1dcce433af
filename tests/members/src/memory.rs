//! Looks for byte strings in another process's memory.

use memchr::memmem::Finder;
use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;

/// Read at a time.
const CHUNK: usize = 4 << 20;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    /// For messages.
    pub name: String,
    /// At least eight bytes: fewer are found by chance.
    pub bytes: Vec<u8>,
}

/// The names of those needles that are in the readable memory of a process, and how many bytes were
/// searched. Needs the right to trace it: root, or its parent.
///
/// # Panics
/// If the process is gone, or may not be looked at.
pub fn scan(pid: u32, needles: &[Needle]) -> (Vec<String>, usize) {
    assert!(needles.iter().all(|needle| needle.bytes.len() >= 8));
    let mut finders: Vec<_> = needles
        .iter()
        .map(|needle| (needle, Finder::new(&needle.bytes)))
        .collect();
    let overlap = needles
        .iter()
        .map(|needle| needle.bytes.len())
        .max()
        .unwrap_or(1)
        - 1;
    let maps = read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory may be read");
    let mut buffer = vec![0; CHUNK + overlap];
    let (mut found, mut searched) = (Vec::new(), 0);
    for (start, end) in maps.lines().filter_map(readable) {
        let mut at = start;
        while at < end {
            let want = buffer.len().min(usize::try_from(end - at).unwrap());
            // A page of a device, or one that was given back meanwhile, cannot be read.
            let got = memory.read_at(&mut buffer[..want], at).unwrap_or(0);
            searched += got.min(CHUNK);
            finders.retain(|(needle, finder)| {
                let here = finder.find(&buffer[..got]).is_some();
                if here {
                    found.push(needle.name.clone());
                }
                !here
            });
            at += CHUNK as u64;
        }
    }
    (found, searched)
}

/// The range of a line of `/proc/PID/maps`, if it can be read.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_readable = fields.next()?.starts_with('r');
    let is_special = line.ends_with("[vvar]") || line.ends_with("[vsyscall]");
    let hex = |text| u64::from_str_radix(text, 16).ok();
    (is_readable && !is_special).then_some((hex(start)?, hex(end)?))
}
