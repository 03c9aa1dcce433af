//! The little of STUN (RFC 8489) that an ICE-lite relay needs: route a request to its session,
//! authenticate it, answer it.

use crate::refusal::Refusal;
use sealcast_model::WebRtcParams;
use std::net::SocketAddr;
use str0m::crypto::CryptoProvider;
use str0m::ice::StunMessage;

/// RFC 8489 §5.
const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_INDICATION: [u8; 2] = [0x00, 0x11];
/// RFC 8489 §14.3.
const USERNAME: u16 = 0x0006;

/// Longest reply: header, XOR-MAPPED-ADDRESS for IPv6, MESSAGE-INTEGRITY, FINGERPRINT.
const REPLY_MAX: usize = HEADER_LEN + 24 + 24 + 8;

/// The local user fragment that a STUN binding request is for: the part of USERNAME before the
/// colon (RFC 8445 §7.2.2). Routes a first packet to its session; authenticates nothing.
#[must_use]
pub fn stun_username(packet: &[u8]) -> Option<&str> {
    let (header, mut attributes) = packet.split_at_checked(HEADER_LEN)?;
    if !header.starts_with(&BINDING_REQUEST) || header.get(4..8)? != MAGIC_COOKIE {
        return None;
    }
    loop {
        let (head, rest) = attributes.split_first_chunk::<4>()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if kind == USERNAME {
            let username = std::str::from_utf8(rest.get(..len)?).ok()?;
            return username
                .split_once(':')
                .map(|(local, _)| local)
                .filter(|l| !l.is_empty());
        }
        // RFC 8489 §14: attributes are padded to a multiple of 4 bytes.
        attributes = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// A binding request that was sent by somebody who knows both sides' credentials.
pub(crate) struct AuthenticRequest<'a> {
    message: StunMessage<'a>,
}

/// What a packet in STUN's range turned out to be.
pub(crate) enum Stun<'a> {
    /// To be answered.
    Request(AuthenticRequest<'a>),
    /// A keepalive, to be ignored (RFC 8445 §11).
    Indication,
}

impl<'a> Stun<'a> {
    /// Parses and authenticates.
    pub(crate) fn parse(
        crypto: &CryptoProvider,
        params: &WebRtcParams,
        packet: &'a [u8],
    ) -> Result<Stun<'a>, Refusal> {
        if packet.starts_with(&BINDING_INDICATION) {
            return Ok(Stun::Indication);
        }
        let message = StunMessage::parse(packet).map_err(|_| Refusal::StunMalformed)?;
        // An ICE-lite agent sends no requests, so a response answers none of ours. RFC 8445 §6.1.1:
        // the full agent takes the controlling role; one that does not is not a client of ours.
        if !message.is_binding_request() || message.ice_controlled().is_some() {
            return Err(Refusal::StunMalformed);
        }
        let (local, remote) = message.split_username().ok_or(Refusal::StunMalformed)?;
        if local != params.local_ufrag || remote != params.remote_ufrag {
            return Err(Refusal::StunUnauthenticated);
        }
        // RFC 8445 §7.2.2: "the password is of the peer": for a request to us, our own.
        if !message.verify(params.local_pwd.as_bytes(), |key, parts| {
            hmac(crypto, key, parts)
        }) {
            return Err(Refusal::StunUnauthenticated);
        }
        Ok(Stun::Request(AuthenticRequest { message }))
    }
}

impl AuthenticRequest<'_> {
    /// The client nominates the path (RFC 8445 §7.3.1.5).
    pub(crate) fn use_candidate(&self) -> bool {
        self.message.use_candidate()
    }

    /// The success response to `remote`, or `None` if it cannot be written.
    pub(crate) fn reply(
        &self,
        crypto: &CryptoProvider,
        local_pwd: &str,
        remote: SocketAddr,
    ) -> Option<Vec<u8>> {
        // A dual-stack socket shows IPv4 clients as mapped addresses; they know only their IPv4.
        let mapped = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let mut reply = vec![0; REPLY_MAX];
        let len = StunMessage::binding_reply(self.message.trans_id(), mapped)
            .to_bytes(Some(local_pwd.as_bytes()), &mut reply, |k, p| {
                hmac(crypto, k, p)
            })
            .ok()?;
        reply.truncate(len);
        Some(reply)
    }
}

fn hmac(crypto: &CryptoProvider, key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    crypto.sha1_hmac_provider.sha1_hmac(key, parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use str0m::ice::TransId;

    fn crypto() -> CryptoProvider {
        str0m::crypto::from_feature_flags()
    }

    fn params() -> WebRtcParams {
        WebRtcParams {
            local_ufrag: "relay".into(),
            local_pwd: "relay-password-of-22-chars".into(),
            remote_ufrag: "client".into(),
            remote_pwd: "client-password-of-22-chars".into(),
            remote_fingerprint: [0; 32],
            sctp_port: None,
        }
    }

    fn request(username: &str, password: &str, controlling: bool) -> Vec<u8> {
        let crypto = crypto();
        let mut buf = vec![0; 512];
        let n = StunMessage::binding_request(username, TransId::new(), controlling, 7, 100, true)
            .to_bytes(Some(password.as_bytes()), &mut buf, |k, p| {
                hmac(&crypto, k, p)
            })
            .unwrap();
        buf.truncate(n);
        buf
    }

    fn refusal(packet: &[u8]) -> Option<Refusal> {
        Stun::parse(&crypto(), &params(), packet).err()
    }

    #[test]
    fn the_username_routes() {
        let packet = request("relay:client", "x", true);
        assert_eq!(stun_username(&packet), Some("relay"));
        assert_eq!(
            stun_username(&request("relay", "x", true)),
            None,
            "no colon"
        );
        assert_eq!(stun_username(&request(":client", "x", true)), None, "empty");
        assert_eq!(stun_username(&packet[..30]), None, "cut off");
        assert_eq!(stun_username(&[]), None);
    }

    #[test]
    fn only_who_knows_the_password_is_let_in() {
        let p = params();
        assert_eq!(refusal(&request("relay:client", &p.local_pwd, true)), None);
        for (username, password) in [
            ("relay:client", p.remote_pwd.as_str()),
            ("relay:other", p.local_pwd.as_str()),
            ("other:client", p.local_pwd.as_str()),
        ] {
            let packet = request(username, password, true);
            assert_eq!(
                refusal(&packet),
                Some(Refusal::StunUnauthenticated),
                "{username}"
            );
        }
        let lite = request("relay:client", &p.local_pwd, false);
        assert_eq!(
            refusal(&lite),
            Some(Refusal::StunMalformed),
            "claims the controlled role"
        );
        let mut flipped = request("relay:client", &p.local_pwd, true);
        flipped[9] ^= 1;
        assert_eq!(refusal(&flipped), Some(Refusal::StunUnauthenticated));
    }

    #[test]
    fn the_reply_carries_the_address_and_our_integrity() {
        let p = params();
        let crypto = crypto();
        let packet = request("relay:client", &p.local_pwd, true);
        let Ok(Stun::Request(request)) = Stun::parse(&crypto, &p, &packet) else {
            panic!()
        };
        for (remote, mapped) in [
            ("198.51.100.7:4711", "198.51.100.7:4711"),
            ("[::ffff:198.51.100.7]:4711", "198.51.100.7:4711"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
        ] {
            let reply = request
                .reply(&crypto, &p.local_pwd, remote.parse().unwrap())
                .unwrap();
            let reply = StunMessage::parse(&reply).unwrap();
            assert!(reply.is_successful_binding_response());
            assert!(reply.verify(p.local_pwd.as_bytes(), |k, d| hmac(&crypto, k, d)));
            assert_eq!(reply.mapped_address(), Some(mapped.parse().unwrap()));
            assert_eq!(reply.trans_id(), request.message.trans_id());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = stun_username(&bytes);
            prop_assert!(refusal(&bytes).is_some() || bytes.starts_with(&BINDING_INDICATION));
        }

        /// Damage behind a valid header reaches the attribute parser, which noise seldom does.
        #[test]
        fn damaged_requests_are_harmless(
            damage in prop::collection::vec((0usize..120, any::<u8>()), 1..6),
            cut in 0usize..120,
        ) {
            let mut packet = request("relay:client", &params().local_pwd, true);
            for (at, value) in damage {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            let cut = cut.min(packet.len());
            let _ = stun_username(&packet);
            let _ = refusal(&packet);
            packet.truncate(cut);
            let _ = stun_username(&packet);
            // Also with a length field that agrees with the cut.
            if let (Some(len), Some(field)) =
                (cut.checked_sub(HEADER_LEN), packet.get_mut(2..4))
            {
                field.copy_from_slice(&(len as u16).to_be_bytes());
            }
            let _ = refusal(&packet);
        }
    }
}
