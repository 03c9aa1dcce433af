//! The tap: takes the SRTP keys out of str0m's DTLS, and its datagrams where the session sends
//! them itself.
//!
//! str0m asks its [`DtlsProvider`] for a DTLS instance while an `Rtc` is built. Ours hands out
//! dimpl, as str0m's own provider does, with these differences: all sessions share one
//! `dimpl::Config` (building one costs 0.9 ms), and the exported keying material goes to the
//! session alone. str0m never has a key, so no two SRTP contexts ever share a key and a nonce, and
//! it builds no ciphers of its own (9 KB a session). Datagrams that are tapped need no pair of
//! candidates from str0m's ICE agent, which then holds nothing (5 KB).
//!
//! The native client of the load tester taps its keys in the same way, and leaves ICE to str0m.

use crate::limits::DTLS_WAITING;
use sealcast_srtp::Profile;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};
use zeroize::Zeroizing;

/// SRTP keys as the DTLS exporter yields them (RFC 5764 §4.2). Wiped when dropped.
pub struct TappedKeys {
    /// The negotiated profile.
    pub profile: Profile,
    /// Both sides' master keys and salts, for [`sealcast_srtp::MasterKey::pair_from_dtls`].
    pub material: Zeroizing<Vec<u8>>,
}

/// Where arrives what is tapped of one session. Locked when DTLS has something to say, which is
/// seldom once it is connected.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Tapped>>);

#[derive(Default)]
struct Tapped {
    keys: Option<TappedKeys>,
    /// What DTLS wants sent; `None` where str0m sends it.
    datagrams: Option<VecDeque<Vec<u8>>>,
}

impl Tap {
    /// A tap for datagrams too: str0m sends none.
    #[must_use]
    pub fn with_datagrams() -> Self {
        let tap = Tap::default();
        tap.lock().datagrams = Some(VecDeque::new());
        tap
    }

    /// Takes the keys, once they have arrived. Trust them after str0m's `Event::Connected` alone,
    /// when the peer's certificate has been checked.
    pub fn take_keys(&self) -> Option<TappedKeys> {
        self.lock().keys.take()
    }

    /// The next datagram to send.
    pub(crate) fn take_datagram(&self) -> Option<Vec<u8>> {
        self.lock().datagrams.as_mut()?.pop_front()
    }

    /// Takes a datagram over from str0m, if datagrams are tapped.
    fn put_datagram(&self, datagram: &[u8]) -> bool {
        let mut tapped = self.lock();
        let Some(datagrams) = &mut tapped.datagrams else {
            return false;
        };
        // Nobody to send to: the flight is repeated by then.
        if datagrams.len() >= DTLS_WAITING {
            datagrams.pop_front();
        }
        datagrams.push_back(datagram.to_vec());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Tapped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// What the next DTLS instance that is built on this thread is to use.
struct Handoff {
    config: Arc<dimpl::Config>,
    tap: Tap,
}

thread_local! {
    /// str0m's provider is one static for all sessions and is told nothing of whom it builds for.
    /// `build_with` sets this, builds, and clears it.
    static HANDOFF: RefCell<Option<Handoff>> = const { RefCell::new(None) };
}

/// Runs `build`, in which one DTLS instance is built with `config` and tapped by `tap`.
pub fn build_with<T>(config: &Arc<dimpl::Config>, tap: &Tap, build: impl FnOnce() -> T) -> T {
    HANDOFF.set(Some(Handoff {
        config: Arc::clone(config),
        tap: tap.clone(),
    }));
    let built = build();
    HANDOFF.set(None);
    built
}

/// The `dtls_provider` to put into str0m's `CryptoProvider`.
pub static TAP: TapProvider = TapProvider;

/// Makes DTLS instances within [`build_with`], and nowhere else.
#[derive(Debug)]
pub struct TapProvider;

impl DtlsProvider for TapProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None // The context brings its own.
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let Handoff { config, tap } = HANDOFF
            .take()
            .ok_or_else(|| CryptoError::Other("DTLS built outside of a session".into()))?;
        let cert = cert.clone();
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, cert, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert, now),
            _ => dimpl::Dtls::new_auto(config, cert, now),
        };
        Ok(Box::new(TapDtls { dtls, tap }))
    }
}

/// What str0m gets in place of what was taken from it: application data without a byte, which its
/// SCTP drops as too short (RFC 9260 §3: "The SCTP common header" has 12). It goes on polling.
const NOTHING: DtlsOutput<'static> = DtlsOutput::ApplicationData(&[]);

struct TapDtls {
    dtls: dimpl::Dtls,
    tap: Tap,
}

impl fmt::Debug for TapDtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TapDtls")
    }
}

impl DtlsInstance for TapDtls {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.dtls.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, profile) => {
                if let Some(profile) = our_profile(profile) {
                    let material = Zeroizing::new(material.to_vec());
                    self.tap.lock().keys = Some(TappedKeys { profile, material });
                }
                NOTHING
            }
            DtlsOutput::Packet(datagram) if self.tap.put_datagram(datagram) => NOTHING,
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

fn our_profile(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handoff_serves_one_instance() {
        let config = Arc::new(dimpl::Config::builder().build().unwrap());
        let cert = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let new = |now| TAP.new_dtls(&cert, now, DtlsVersion::Auto, None);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        assert!(new(now).is_err(), "nobody asked for it");
        let (first, second) = build_with(&config, &Tap::default(), || (new(now), new(now)));
        assert!(first.is_ok());
        assert!(second.is_err());
    }

    /// Runs a handshake between two tapped instances; the taps, and the output that each still
    /// gave beside datagrams and timers.
    fn handshake(version: DtlsVersion, taps: [Tap; 2]) -> [(Tap, Vec<String>); 2] {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let config = dimpl::Config::builder().use_server_cookie(false);
        let config = Arc::new(config.build().unwrap());
        let mut client = true;
        let mut sides = taps.map(|tap| {
            let cert = dimpl::certificate::generate_self_signed_certificate().unwrap();
            let mut dtls =
                build_with(&config, &tap, || TAP.new_dtls(&cert, now, version, None)).unwrap();
            dtls.set_active(std::mem::take(&mut client));
            dtls.handle_timeout(now).unwrap();
            (tap, vec![], dtls)
        });
        for turn in 0..40 {
            let [a, b] = &mut sides;
            let (from, to) = if turn % 2 == 0 { (a, b) } else { (b, a) };
            let mut buf = [0; 2_000];
            loop {
                match from.2.poll_output(&mut buf) {
                    DtlsOutput::Packet(packet) => to.2.handle_packet(packet).unwrap(),
                    DtlsOutput::Timeout(_) => break,
                    other => from.1.push(format!("{other:?}")),
                }
            }
            while let Some(datagram) = from.0.take_datagram() {
                to.2.handle_packet(&datagram).unwrap();
            }
        }
        sides.map(|(tap, others, _)| (tap, others))
    }

    #[test]
    fn both_sides_tap_the_same_keys_and_hand_on_none() {
        for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
            let taps = [Tap::default(), Tap::with_datagrams()];
            let [(client, to_client), (server, to_server)] = handshake(version, taps);
            let (client, server) = (client.take_keys().unwrap(), server.take_keys().unwrap());
            assert_eq!(client.profile, server.profile);
            assert_eq!(client.material, server.material);
            for handed_on in [to_client, to_server] {
                assert!(handed_on.iter().any(|o| o == "Connected"), "{handed_on:?}");
                assert!(
                    !handed_on.iter().any(|o| o.contains("Keying")),
                    "{handed_on:?}"
                );
            }
        }
    }

    #[test]
    fn datagrams_that_nobody_takes_are_bounded() {
        let tap = Tap::with_datagrams();
        for n in 0..1_000_u16 {
            assert!(tap.put_datagram(&n.to_be_bytes()));
        }
        let kept: Vec<_> = std::iter::from_fn(|| tap.take_datagram()).collect();
        assert_eq!(kept.len(), DTLS_WAITING);
        assert_eq!(kept.last(), Some(&999_u16.to_be_bytes().to_vec()));
        assert!(!Tap::default().put_datagram(&[1]));
    }
}
