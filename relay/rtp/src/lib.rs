//! RTP, RTCP, header extensions and payload descriptors: parsed without copying, written in place.
//!
//! Everything here is a pure function of a byte slice. Nothing allocates, nothing panics on any input, and nothing
//! looks at sealed payload beyond the descriptor that RFC 7741, RFC 9628, RFC 6184 or the AV1 RTP specification
//! leaves in the clear.
//!
//! Parsed values are small and `Copy` where they can be: [`RtpHeader`] keeps offsets instead of a borrow, so a packet
//! may be opened, rewritten and forwarded while its header is held.
#![forbid(unsafe_code)]

mod bits;
mod bytes;
pub mod dd;
pub mod demux;
mod error;
pub mod ext;
mod header;
pub mod ntp;
pub mod payload;
pub mod rtcp;
pub mod seq;

pub use error::{ParseError, WriteError};
pub use ext::{Extension, ExtensionKind, ExtensionMap, Extensions};
pub use header::{
    FIXED_HEADER_LEN, HeaderFields, HeaderWriter, RtpHeader, set_marker, set_payload_type,
    set_sequence_number, set_ssrc, set_timestamp, write_header,
};
pub use ntp::NtpTime;
pub use seq::SeqExtender;
