//! Ancillary data of `sendmsg` and `recvmsg` (cmsg(3)), written and read with plain byte copies.

/// Bytes of a `cmsghdr`: length, level, type.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Room for all ancillary data of one message: segment size, packet info of IPv6 and timestamps
/// take 24 + 40 + 64 bytes; an overflow of the receive queue another 24. In an error queue: the
/// error with an IPv6 address, 64, and timestamps.
const CONTROL: usize = 192;

/// A control buffer, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; CONTROL],
    len: usize,
}

/// The kernel aligns each message to the size of a `size_t`.
const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

impl Control {
    pub(super) const EMPTY: Control = Control {
        bytes: [0; CONTROL],
        len: 0,
    };

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a message. Ignored if there is no room, which the callers' few messages never use up.
    pub(super) fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let end = self.len + align(HEADER + data.len());
        debug_assert!(end <= CONTROL, "too much ancillary data");
        let Some(out) = self.bytes.get_mut(self.len..end) else {
            return;
        };
        let (header, body) = out.split_at_mut(HEADER);
        let (len, rest) = header.split_at_mut(size_of::<usize>());
        len.copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        body[..data.len()].copy_from_slice(data);
        body[data.len()..].fill(0);
        self.len = end;
    }

    /// For the kernel to read or write: pointer and capacity.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// Bytes in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes there are.
    pub(super) const fn capacity() -> usize {
        CONTROL
    }

    /// What the kernel wrote, `len` bytes of it: level, type and data of each message.
    pub(super) fn messages(
        &self,
        len: usize,
    ) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
        let mut rest = self.bytes.get(..len).unwrap_or_default();
        std::iter::from_fn(move || {
            let (total, after) = rest.split_first_chunk::<{ size_of::<usize>() }>()?;
            let (level, after) = after.split_first_chunk::<4>()?;
            let (kind, _) = after.split_first_chunk::<4>()?;
            let total = usize::from_ne_bytes(*total);
            let data = rest.get(HEADER..total)?;
            rest = rest.get(align(total)..).unwrap_or_default();
            Some((
                libc::c_int::from_ne_bytes(*level),
                libc::c_int::from_ne_bytes(*kind),
                data,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_round_trip() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[3, 4]);
        control.push(5, 6, &[7; 20]);
        let read: Vec<_> = control.messages(control.len()).collect();
        assert_eq!(read, [(1, 2, &[3u8, 4][..]), (5, 6, &[7; 20][..])]);
        assert_eq!(control.len() % 8, 0);
        control.clear();
        assert_eq!(control.messages(control.len()).count(), 0);
    }

    #[test]
    fn the_layout_is_the_c_librarys() {
        // SAFETY: CMSG_SPACE and CMSG_LEN only calculate.
        let (space, len) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        assert_eq!(align(HEADER + 2), space as usize);
        assert_eq!(HEADER + 2, len as usize);
        assert_eq!(HEADER, size_of::<usize>() + 8);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::array::uniform32(any::<u8>()), len in 0usize..200) {
            let mut control = Control::EMPTY;
            for (i, b) in control.bytes.iter_mut().enumerate() {
                *b = bytes[i % 32];
            }
            prop_assert!(control.messages(len).count() <= CONTROL / HEADER);
        }
    }
}
