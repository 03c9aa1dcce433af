//! Counts what a test program takes from the heap: allocations, and bytes in use.
//!
//! A counting `GlobalAlloc` would not see what AWS-LC and OpenSSL allocate in C, so this
//! interposes `malloc` itself, which glibc allows. Rust's system allocator calls it too; a program
//! with another one counts only C here. A program that links this crate counts, whether or not it
//! asks.
//!
//! A block counts as the bytes that may be used of it, which is what was asked for and up to 24
//! bytes more.

#![cfg(target_env = "gnu")]
#![expect(
    unsafe_code,
    reason = "interposing malloc is the only way to see a C library's allocations"
)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Allocations made, growth of a block included.
    pub allocations: u64,
    /// Bytes allocated and not freed. Less than none for a thread that frees what others allocated.
    pub live: i64,
}

thread_local! {
    static OWN: Cell<Count> = const { Cell::new(Count { allocations: 0, live: 0 }) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

/// What this thread has allocated and freed.
#[must_use]
pub fn thread() -> Count {
    OWN.get()
}

/// What all threads have.
#[must_use]
pub fn process() -> Count {
    Count {
        allocations: ALLOCATIONS.load(Relaxed),
        live: LIVE.load(Relaxed),
    }
}

/// Allocations that this thread makes while `work` runs.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = thread().allocations;
    work();
    thread().allocations - before
}

/// Bytes that dropping `value` gives back.
pub fn held_by<T>(value: T) -> i64 {
    let before = thread().live;
    drop(value);
    before - thread().live
}

fn add(allocations: u64, bytes: i64) {
    ALLOCATIONS.fetch_add(allocations, Relaxed);
    LIVE.fetch_add(bytes, Relaxed);
    // A thread that ends has lost its own count, and nobody reads it.
    let _ = OWN.try_with(|own| {
        let Count {
            allocations: before,
            live,
        } = own.get();
        own.set(Count {
            allocations: before + allocations,
            live: live + bytes,
        });
    });
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

/// Bytes of a block, 0 for none.
///
/// # Safety
/// `block` is null or a live block of glibc's.
unsafe fn size_of_block(block: *mut c_void) -> i64 {
    // SAFETY: by this function's contract; null is allowed.
    unsafe { libc::malloc_usable_size(block) as i64 }
}

/// Counts a block that was just made.
fn made(block: *mut c_void) -> *mut c_void {
    // SAFETY: the callers have it from glibc, or null.
    add(1, unsafe { size_of_block(block) });
    block
}

// SAFETY: this and the ones below have the C library's own signatures and contracts, and only
// forward to its implementation, whose blocks none but `free` below gives back.
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size is allowed.
    made(unsafe { __libc_malloc(size) })
}

// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
extern "C" fn calloc(members: usize, size: usize) -> *mut c_void {
    // SAFETY: any count and size are allowed.
    made(unsafe { __libc_calloc(members, size) })
}

// SAFETY: as `malloc`; `old` is the caller's to vouch for, as with the C library's `realloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: by this function's contract.
    let before = unsafe { size_of_block(old) };
    // SAFETY: by this function's contract.
    let new = unsafe { __libc_realloc(old, size) };
    // Where it fails, the old block stays as it is; a size of 0 frees it.
    if !new.is_null() || size == 0 {
        add(0, -before);
    }
    made(new)
}

// SAFETY: as `malloc`; `block` is the caller's to vouch for, as with the C library's `free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: by this function's contract.
    add(0, -unsafe { size_of_block(block) });
    // SAFETY: by this function's contract.
    unsafe { __libc_free(block) }
}

// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: any size is allowed; glibc rounds an alignment up to a power of two.
    made(unsafe { __libc_memalign(alignment, size) })
}

// SAFETY: as `memalign`.
#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    memalign(alignment, size)
}

// SAFETY: as `memalign`; `out` is the caller's to vouch for.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = memalign(alignment, size);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: by this function's contract it can be written to.
    unsafe { *out = block };
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc, dealloc, realloc};
    use std::hint::black_box;

    #[test]
    fn what_is_kept_counts_and_what_is_freed_does_not() {
        let before = thread();
        let kept = black_box(vec![1u8; 1_000]);
        drop(black_box(vec![1u8; 5_000]));
        let now = thread();
        assert_eq!(now.allocations - before.allocations, 2);
        assert!((1_000..1_032).contains(&(now.live - before.live)));
        assert!((1_000..1_032).contains(&held_by(kept)));
        assert_eq!(thread().live, before.live);
    }

    #[test]
    fn blocks_that_grow_or_are_aligned_count() {
        let before = thread().live;
        let layout = Layout::from_size_align(300, 64).unwrap();
        // SAFETY: the layout is not empty, and the blocks go back with their own.
        unsafe {
            let block = alloc(layout);
            assert!(thread().live - before >= 300);
            let block = realloc(block, layout, 9_000);
            assert!((9_000..9_200).contains(&(thread().live - before)));
            dealloc(block, Layout::from_size_align(9_000, 64).unwrap());
        }
        assert_eq!(thread().live, before);
        let mut text = String::from("x");
        assert_eq!(allocations(|| text.reserve(2_000)), 1);
    }

    #[test]
    fn other_threads_count_for_the_process_alone() {
        let (own, all) = (thread(), process());
        let theirs = std::thread::spawn(|| allocations(|| drop(black_box(vec![1u8; 77]))));
        assert_eq!(theirs.join().unwrap(), 1);
        assert!(process().allocations > all.allocations);
        // Starting a thread allocates here; freeing what it left behind does, too.
        assert!(thread().allocations - own.allocations < 100);
    }
}
