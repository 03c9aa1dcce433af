//! Hop-by-hop protection of RTP and RTCP: SRTP (RFC 3711) with AES-GCM (RFC 7714).
//!
//! One [`Inbound`] and one [`Outbound`] context per DTLS-SRTP session, each built from a
//! [`MasterKey`]. Packets open in place, or from one buffer into another; they are sealed out of
//! place, so that a payload received once is read once per receiver and copied nowhere else.
//!
//! ```text
//! DTLS exporter ── MasterKey::pair_from_dtls ──┬─► Inbound   open_rtp · open_rtp_to · open_rtcp
//!                                              └─► Outbound  stream · seal_rtp · seal_rtcp
//! ```
//!
//! Invariants:
//! * No bytes from the network make anything here panic, or grow beyond [`limits`]. State for an
//!   SSRC exists only once one of its packets has authenticated.
//! * Nothing is allocated per packet, neither here nor inside the libraries.
//! * An outgoing packet index is sealed once. Sealing it a second time is an error unless the
//!   caller says, by [`Outbound::reseal_rtp`], that it repeats the same packet.
//!
//! The arithmetic is done by aws-lc-rs or by OpenSSL, chosen at start ([`Backend`]); this crate
//! holds the packet format, the key derivation, the index estimate and the replay windows.
//!
//! Not supported, because WebRTC does not negotiate them: MKI, a key derivation rate other than
//! zero, SRTCP without encryption, and encrypted header extensions (RFC 6904, RFC 9335).

mod backend;
mod error;
mod inbound;
mod index;
mod iv;
mod key;
mod outbound;
mod packet;
mod profile;
mod replay;
#[cfg(test)]
mod tests;

pub use backend::{Backend, UnknownBackend};
pub use error::{KeyError, OpenError, SealError};
pub use inbound::{Inbound, OpenedRtp};
pub use index::MAX_RTP_INDEX;
pub use key::MasterKey;
pub use outbound::{Outbound, OutboundStream};
pub use profile::Profile;

/// Every limit of this crate, with its reason.
pub mod limits {
    /// Packets, counted back from the newest, within which a late packet is told apart from a
    /// replayed one. RFC 3711 §3.3.2 asks for at least 64; 1,024 is one second of a 10 Mbit/s
    /// stream, which covers a packet repaired after several round trips.
    pub const REPLAY_WINDOW: u64 = 1_024;

    /// Longest packet opened or sealed, bytes: the largest UDP payload. Keeps one packet's AES
    /// counter far from its 2^16 blocks (RFC 3711 §4.1.1).
    pub const MAX_PACKET: usize = 65_535;

    /// SSRCs that one session may send to us, by default, counted separately for RTP and RTCP.
    /// Sixteen tracks with three layers and their RTX come to 96.
    pub const INBOUND_SSRCS: usize = 128;

    /// SSRCs that we may send in one session, by default: 128 receive slots with RTX, and the
    /// same again for slots that were closed and opened anew.
    pub const OUTBOUND_SSRCS: usize = 512;
}
