//! Cache lines: what is fetched ahead of its use is named by them.

/// Bytes that a processor fetches at once, on x86-64 and most of AArch64.
pub(crate) const LINE: usize = 64;

/// The lines that hold the first `bytes` of what lies at `at`, the beginning of a line. None of them
/// is read.
#[inline]
pub(crate) fn lines(at: *const u8, bytes: usize) -> impl Iterator<Item = *const u8> {
    (0..bytes.div_ceil(LINE)).map(move |line| at.wrapping_add(line * LINE))
}
