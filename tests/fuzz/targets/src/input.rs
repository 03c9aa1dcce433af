//! Reading a row of operations from a fuzzer's bytes.

/// The bytes that are left.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte, if there is one.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number of two bytes; 0 at the end.
    pub fn number(&mut self) -> usize {
        let (high, low) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// As many bytes as the next one says, or as are left.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// Changes up to four bytes of a message, or cuts it short.
    pub fn edit(&mut self, message: &mut Vec<u8>) {
        let edits = self.byte().unwrap_or(0);
        for _ in 0..edits % 5 {
            let (at, change) = (self.number(), self.byte().unwrap_or(0));
            if !message.is_empty() {
                let at = at % message.len();
                message[at] ^= change;
            }
        }
        if edits & 0x80 != 0 {
            let len = self.number();
            message.truncate(len);
        }
    }
}
