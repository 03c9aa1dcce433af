//! Big-endian reads and writes that return `None` or an error where indexing would panic.

use crate::WriteError;

/// The `u16` at `at`, in network byte order.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 24-bit value at `at`, in network byte order.
#[inline]
pub(crate) fn be24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// The `u32` at `at`, in network byte order.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The `u64` at `at`, in network byte order.
#[inline]
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Overwrites `bytes[at..at + value.len()]`, if it exists.
#[inline]
#[must_use]
pub(crate) fn overwrite(bytes: &mut [u8], at: usize, value: &[u8]) -> bool {
    match at
        .checked_add(value.len())
        .and_then(|end| bytes.get_mut(at..end))
    {
        Some(place) => {
            place.copy_from_slice(value);
            true
        }
        None => false,
    }
}

/// An append-only cursor over a caller's slice.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Out<'a> {
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Room for `n` more bytes, which become part of the output.
    #[inline]
    pub(crate) fn reserve(&mut self, n: usize) -> Result<&mut [u8], WriteError> {
        let end = self.len.checked_add(n).ok_or(WriteError::NoRoom)?;
        let place = self.buf.get_mut(self.len..end).ok_or(WriteError::NoRoom)?;
        self.len = end;
        Ok(place)
    }

    #[inline]
    pub(crate) fn put(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.reserve(value.len())?.copy_from_slice(value);
        Ok(())
    }

    #[inline]
    pub(crate) fn put8(&mut self, value: u8) -> Result<(), WriteError> {
        self.put(&[value])
    }

    #[inline]
    pub(crate) fn put16(&mut self, value: u16) -> Result<(), WriteError> {
        self.put(&value.to_be_bytes())
    }

    #[inline]
    pub(crate) fn put32(&mut self, value: u32) -> Result<(), WriteError> {
        self.put(&value.to_be_bytes())
    }

    /// Writes zeros up to the next multiple of four bytes counted from `start`.
    pub(crate) fn pad_to_word(&mut self, start: usize) -> Result<(), WriteError> {
        while !(self.len - start).is_multiple_of(4) {
            self.put8(0)?;
        }
        Ok(())
    }

    /// Overwrites bytes already written.
    #[inline]
    pub(crate) fn patch(&mut self, at: usize, value: &[u8]) -> Result<(), WriteError> {
        if overwrite(self.buf.get_mut(..self.len).unwrap_or_default(), at, value) {
            Ok(())
        } else {
            Err(WriteError::NoRoom)
        }
    }

    /// Sets bits of a byte already written.
    #[inline]
    pub(crate) fn set_bits(&mut self, at: usize, bits: u8) {
        if let Some(byte) = self.buf.get_mut(at).filter(|_| at < self.len) {
            *byte |= bits;
        }
    }

    /// Forgets everything written after `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
