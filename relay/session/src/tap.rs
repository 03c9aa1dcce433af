//! The key tap: takes the SRTP keys out of str0m's DTLS.
//!
//! str0m asks its [`DtlsProvider`] for a DTLS instance while an `Rtc` is built. Ours hands out
//! dimpl, as str0m's own provider does, with two differences: all sessions share one
//! `dimpl::Config` (building one costs 0.9 ms), and the exported keying material goes to the
//! session. str0m gets random bytes of the same length in its place, so that whatever it might
//! do with them, no two SRTP contexts ever share a key and a nonce.
//!
//! The native client of the load tester taps its keys in the same way.

use sealcast_srtp::Profile;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use zeroize::Zeroizing;

/// SRTP keys as the DTLS exporter yields them (RFC 5764 §4.2). Wiped when dropped.
pub struct TappedKeys {
    /// The negotiated profile.
    pub profile: Profile,
    /// Both sides' master keys and salts, for [`sealcast_srtp::MasterKey::pair_from_dtls`].
    pub material: Zeroizing<Vec<u8>>,
}

/// Where one session's keys arrive. Locked twice in a session's life.
#[derive(Clone, Default)]
pub struct KeySlot(Arc<Mutex<Option<TappedKeys>>>);

impl KeySlot {
    /// Takes the keys, once they have arrived. Trust them after str0m's `Event::Connected` alone,
    /// when the peer's certificate has been checked.
    pub fn take(&self) -> Option<TappedKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, keys: TappedKeys) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }
}

impl fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySlot")
    }
}

/// What the next DTLS instance that is built on this thread is to use.
struct Handoff {
    config: Arc<dimpl::Config>,
    slot: KeySlot,
}

thread_local! {
    /// str0m's provider is one static for all sessions and is told nothing of whom it builds for.
    /// `build_with` sets this, builds, and clears it.
    static HANDOFF: RefCell<Option<Handoff>> = const { RefCell::new(None) };
}

/// Runs `build`, in which one DTLS instance is built with `config`; its keys will go to `slot`.
pub fn build_with<T>(config: &Arc<dimpl::Config>, slot: &KeySlot, build: impl FnOnce() -> T) -> T {
    HANDOFF.set(Some(Handoff {
        config: Arc::clone(config),
        slot: slot.clone(),
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
        let Handoff { config, slot } = HANDOFF
            .take()
            .ok_or_else(|| CryptoError::Other("DTLS built outside of a session".into()))?;
        let cert = cert.clone();
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, cert, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert, now),
            _ => dimpl::Dtls::new_auto(config, cert, now),
        };
        Ok(Box::new(TapDtls { dtls, slot }))
    }
}

struct TapDtls {
    dtls: dimpl::Dtls,
    slot: KeySlot,
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
                let Some(decoy) = decoy(material.len()) else {
                    // Without randomness there is no security to be had: end the session.
                    return DtlsOutput::CloseNotify;
                };
                if let Some(known) = our_profile(profile) {
                    let material = Zeroizing::new(material.to_vec());
                    self.slot.put(TappedKeys {
                        profile: known,
                        material,
                    });
                }
                DtlsOutput::KeyingMaterial(decoy, profile)
            }
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

/// Random keying material.
fn decoy(len: usize) -> Option<KeyingMaterial> {
    let mut bytes = Zeroizing::new(vec![0; len]);
    openssl::rand::rand_bytes(&mut bytes).ok()?;
    Some(KeyingMaterial::new(&bytes))
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
    fn decoys_are_random_and_of_the_same_length() {
        let (a, b) = (decoy(88).unwrap(), decoy(88).unwrap());
        assert_eq!((a.len(), b.len()), (88, 88));
        assert_ne!(a[..], b[..]);
    }

    #[test]
    fn a_handoff_serves_one_instance() {
        let config = Arc::new(dimpl::Config::builder().build().unwrap());
        let cert = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let new = |now| TAP.new_dtls(&cert, now, DtlsVersion::Auto, None);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        assert!(new(now).is_err(), "nobody asked for it");
        let (first, second) = build_with(&config, &KeySlot::default(), || (new(now), new(now)));
        assert!(first.is_ok());
        assert!(second.is_err());
    }

    /// Runs a handshake between two tapped instances; what each handed on as keying material.
    fn handshake(version: DtlsVersion) -> [(KeySlot, Vec<u8>); 2] {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let config = dimpl::Config::builder().use_server_cookie(false);
        let config = Arc::new(config.build().unwrap());
        let mut sides = [true, false].map(|client| {
            let slot = KeySlot::default();
            let cert = dimpl::certificate::generate_self_signed_certificate().unwrap();
            let mut dtls =
                build_with(&config, &slot, || TAP.new_dtls(&cert, now, version, None)).unwrap();
            dtls.set_active(client);
            dtls.handle_timeout(now).unwrap();
            (slot, vec![], dtls)
        });
        for turn in 0..40 {
            let [a, b] = &mut sides;
            let (from, to) = if turn % 2 == 0 { (a, b) } else { (b, a) };
            let mut buf = [0; 2_000];
            loop {
                match from.2.poll_output(&mut buf) {
                    DtlsOutput::Packet(packet) => to.2.handle_packet(packet).unwrap(),
                    DtlsOutput::KeyingMaterial(material, _) => from.1 = material.to_vec(),
                    DtlsOutput::Timeout(_) => break,
                    _ => {}
                }
            }
        }
        sides.map(|(slot, handed_on, _)| (slot, handed_on))
    }

    #[test]
    fn both_sides_tap_the_same_keys_and_hand_on_others() {
        for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
            let [(client, to_client), (server, to_server)] = handshake(version);
            let (client, server) = (client.take().unwrap(), server.take().unwrap());
            assert_eq!(client.profile, server.profile);
            assert_eq!(client.material, server.material);
            for handed_on in [&to_client, &to_server] {
                assert_eq!(handed_on.len(), client.material.len());
                assert_ne!(handed_on, &*client.material);
            }
            assert_ne!(to_client, to_server);
        }
    }
}
