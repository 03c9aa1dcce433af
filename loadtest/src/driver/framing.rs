//! RFC 4571 framing: a 16-bit length before each packet on a TCP connection.

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    buffer: Vec<u8>,
    /// Bytes at the front that were handed out.
    taken: usize,
}

impl Deframer {
    /// Appends what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. At most one frame of 64 KiB is kept back.
    pub(super) fn next_frame(&mut self) -> Option<&mut [u8]> {
        let rest = self.buffer.get(self.taken..)?;
        let (head, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*head));
        if rest.len() < len {
            return None;
        }
        let start = self.taken + 2;
        self.taken = start + len;
        self.buffer.get_mut(start..start + len)
    }
}

/// Appends a frame; false if it is too long for the format.
pub(super) fn append_frame(out: &mut Vec<u8>, packet: &[u8]) -> bool {
    let Ok(len) = u16::try_from(packet.len()) else {
        return false;
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(packet);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_segmentation(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut stream = vec![];
            for frame in &frames {
                prop_assert!(append_frame(&mut stream, frame));
            }
            let mut deframer = Deframer::default();
            let mut got = vec![];
            let mut cuts = cuts.iter().cycle();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                deframer.push(now);
                while let Some(frame) = deframer.next_frame() {
                    got.push(frame.to_vec());
                }
                rest = later;
            }
            prop_assert_eq!(got, frames);
        }
    }
}
