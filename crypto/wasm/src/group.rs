//! Group membership for JavaScript: [`sealcast_mls::Member`], with numbers and JSON for types.
//!
//! Times are milliseconds since the Unix epoch, as `performance.timeOrigin + performance.now()`
//! gives them: they must not run backwards.

use crate::frames::{load, parse_codec};
use js_sys::Uint8Array;
use sealcast_mls::identity::{Claim, Issuer, IssuerKey};
use sealcast_mls::{DEFAULT_ROTATION, GroupSuite, Member, MemberConfig, ROTATE_AFTER_FRAMES, code};
use sealcast_sframe::{CipherSuite, Kid};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

/// A member's signature key, to which the application's issuer binds an identity assertion.
#[wasm_bindgen]
pub struct MemberKey(sealcast_mls::MemberKey);

#[wasm_bindgen]
impl MemberKey {
    /// A new key for MLS cipher suite `suite`: 1 (X25519, Ed25519) or 2 (P-256).
    ///
    /// # Errors
    /// `suite`, `library`.
    #[wasm_bindgen(constructor)]
    pub fn new(suite: u16) -> Result<MemberKey, JsError> {
        let suite = GroupSuite::from_number(suite)
            .ok_or_else(|| JsError::new("suite: not in use for groups"))?;
        Ok(Self(sealcast_mls::MemberKey::generate(suite)?))
    }

    /// The public key as a JWK, in JSON: what the assertion's `cnf.jwk` is to be.
    #[wasm_bindgen(js_name = publicJwk)]
    pub fn public_jwk(&self) -> String {
        self.0.public_jwk().to_string()
    }
}

/// Configuration of a [`GroupMember`], in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Config {
    /// SFrame cipher suite, 1 to 8.
    media_suite: u16,
    /// Rotation interval in milliseconds.
    rotation_ms: u64,
    /// Frames under one key after which the keys are rotated.
    rotate_after_frames: u64,
    issuer: Option<IssuerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            media_suite: CipherSuite::Aes256GcmSha512.number(),
            rotation_ms: u64::try_from(DEFAULT_ROTATION.as_millis()).unwrap_or(u64::MAX),
            rotate_after_frames: ROTATE_AFTER_FRAMES,
            issuer: None,
        }
    }
}

/// The application's issuer, as in [`Issuer`]; the keys are JWKs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerConfig {
    issuer: String,
    audience: String,
    room: String,
    keys: Vec<serde_json::Value>,
}

/// One participant's membership in a room's group.
///
/// After each call that may have changed something, drain `pollOutgoing` and `pollEvent`, then
/// set a timer for `pollTimeout`.
#[wasm_bindgen]
pub struct GroupMember {
    member: Member,
    frame: Vec<u8>,
    sealed: Vec<u8>,
    last_kid: Kid,
}

#[wasm_bindgen]
impl GroupMember {
    /// A participant that wants into the room's group. `config` is JSON: `{"mediaSuite": 5,
    /// "rotationMs": 600000, "rotateAfterFrames": 8388608, "issuer": {"issuer", "audience", "room", "keys": [JWK]}}`, each
    /// optional. `claim` is `id:` and a pseudonymous id, or `jwt:` and an assertion by the issuer.
    ///
    /// # Errors
    /// `config`, `suite`, `issuer`, `claim`, `library`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        now: f64,
        config: &str,
        key: MemberKey,
        claim: &str,
    ) -> Result<GroupMember, JsError> {
        let claim = Claim::from_bytes(claim.as_bytes())
            .map_err(|error| JsError::new(&format!("claim: {error}")))?;
        let member = Member::new(time(now), parse_config(config)?, key.0, &claim)?;
        Ok(Self {
            member,
            frame: Vec::new(),
            sealed: Vec::new(),
            last_kid: Kid(0),
        })
    }

    /// Takes a message of the delivery service.
    ///
    /// # Errors
    /// `wire`, `mls-format`, `refused`, `no-group`, `library`: for the log. What anybody needs to
    /// know has been sent, or is among the events.
    #[wasm_bindgen(js_name = handleMessage)]
    pub fn handle_message(&mut self, now: f64, message: &[u8]) -> Result<(), JsError> {
        Ok(self.member.handle_message(time(now), message)?)
    }

    /// The connection to the relay is new; not to be called for the first one.
    ///
    /// # Errors
    /// `library`.
    #[wasm_bindgen(js_name = handleConnected)]
    pub fn handle_connected(&mut self, now: f64) -> Result<(), JsError> {
        Ok(self.member.handle_connected(time(now))?)
    }

    /// Does what is due.
    ///
    /// # Errors
    /// `library`; another attempt follows.
    #[wasm_bindgen(js_name = handleTimeout)]
    pub fn handle_timeout(&mut self, now: f64) -> Result<(), JsError> {
        Ok(self.member.handle_timeout(time(now))?)
    }

    /// When `handleTimeout` is to be called next.
    #[wasm_bindgen(js_name = pollTimeout)]
    pub fn poll_timeout(&self) -> Option<f64> {
        let at = self.member.poll_timeout()?;
        // Rounded up, so that the time has come when the timer fires.
        Some((at.as_secs_f64() * 1000.0).ceil())
    }

    /// The next message for the delivery service.
    #[wasm_bindgen(js_name = pollOutgoing)]
    pub fn poll_outgoing(&mut self) -> Option<Vec<u8>> {
        self.member.poll_outgoing()
    }

    /// The next event, in JSON: `{"type": "epoch", "epoch", "joined", "left"}`, `sending`,
    /// `member-declined`, `commit-refused`, `group-refused`, `removed`, `reset`, `not-admitted`.
    #[wasm_bindgen(js_name = pollEvent)]
    pub fn poll_event(&mut self) -> Option<String> {
        to_json(&self.member.poll_event()?)
    }

    /// Asks for new keys before the rotation is due.
    #[wasm_bindgen(js_name = requestRotation)]
    pub fn request_rotation(&mut self) {
        self.member.request_rotation();
    }

    /// The current epoch, if this member is in the group.
    pub fn epoch(&self) -> Option<u64> {
        self.member.epoch()
    }

    /// The epoch whose keys seal.
    #[wasm_bindgen(js_name = sendingEpoch)]
    pub fn sending_epoch(&self) -> Option<u64> {
        self.member.sending_epoch()
    }

    /// This member's leaf.
    pub fn leaf(&self) -> Option<u16> {
        self.member.leaf()
    }

    /// Everybody in the group, in JSON: `[{"leaf", "own", "identity": {"status": "verified",
    /// "subject", "name", "expires"} | {"status": "unverified", "subject", "reason"}}]`.
    pub fn members(&self) -> String {
        to_json(&self.member.members()).unwrap_or_default()
    }

    /// Thirty digits that are the same for all who agree on the group, for parties to read to each
    /// other. They change with every epoch.
    pub fn code(&self) -> Option<String> {
        self.member.epoch_authenticator().map(code::short_code)
    }

    /// Verifies an assertion that the member at `leaf` sent as metadata. Returns it in JSON, or
    /// nothing if it is not true.
    #[wasm_bindgen(js_name = verifyAssertion)]
    pub fn verify_assertion(&self, leaf: u16, token: &str, now: f64) -> Option<String> {
        to_json(&self.member.verify_assertion(leaf, token, time(now))?)
    }

    /// Key id under which the encoder `context` seals at present.
    pub fn kid(&self, context: u16) -> Option<u64> {
        self.member.kid(context).map(|kid| kid.0)
    }

    /// Seals one encoded frame of `codec`. `context` numbers the encoder: unique per stream and
    /// simulcast encoding, never used again for another one in the same epoch.
    ///
    /// # Errors
    /// `codec`, `no-group`, `contexts`, `exhausted`, `not-this-codec`, `too-long`.
    pub fn seal(
        &mut self,
        context: u16,
        codec: &str,
        frame: &Uint8Array,
    ) -> Result<Uint8Array, JsError> {
        let codec = parse_codec(codec)?;
        load(&mut self.frame, frame);
        self.member
            .seal_frame(context, codec, &self.frame, &mut self.sealed)?;
        Ok(Uint8Array::from(&self.sealed[..]))
    }

    /// Opens one sealed frame of `codec`. An empty frame stays empty and is to be ignored.
    ///
    /// # Errors
    /// `unknown-kid`, `replayed`, `auth`, `short`, `malformed`, `codec`.
    pub fn open(&mut self, codec: &str, frame: &Uint8Array) -> Result<Uint8Array, JsError> {
        let codec = parse_codec(codec)?;
        load(&mut self.frame, frame);
        let Some(media) = self.member.open_frame(codec, &mut self.frame)? else {
            return Ok(Uint8Array::new_with_length(0));
        };
        self.last_kid = media.opened.kid;
        Ok(Uint8Array::from(&self.frame[media.opened.frame]))
    }

    /// Key id of the frame that was opened last; 0 before the first.
    #[wasm_bindgen(js_name = lastKid)]
    pub fn last_kid(&self) -> u64 {
        self.last_kid.0
    }

    /// Seals metadata for everybody in the group.
    ///
    /// # Errors
    /// `no-group`, `too-long`.
    #[wasm_bindgen(js_name = sealMetadata)]
    pub fn seal_metadata(&mut self, content: &[u8]) -> Result<Vec<u8>, JsError> {
        Ok(self.member.seal_metadata(content)?)
    }

    /// Opens metadata of another member.
    ///
    /// # Errors
    /// `short`, `malformed`, `unknown-key`, `replayed`, `auth`.
    #[wasm_bindgen(js_name = openMetadata)]
    pub fn open_metadata(&mut self, message: &[u8]) -> Result<OpenedMetadata, JsError> {
        Ok(OpenedMetadata(self.member.open_metadata(message)?))
    }

    /// What became of others' frames, sealed messages and handshakes, in JSON: `{"senders": {"<leaf>":
    /// {"opened", "auth", "unknown_kid", "replayed"}}, "malformed", "metadata": {"senders", "short",
    /// "malformed", "unknown_sender"}, "handshakes": {"taken", "repeated", "refused": {"<kind>": {"<code>"}}}}`.
    pub fn stats(&self) -> String {
        let stats = serde_json::json!({
            "senders": self.member.sender_stats(),
            "malformed": self.member.malformed_frames(),
            "metadata": self.member.metadata_stats(),
            "handshakes": self.member.handshake_stats(),
        });
        stats.to_string()
    }

    /// The current epoch's SFrame base key (RFC 9605 §5.2), for programs that seal elsewhere.
    #[wasm_bindgen(js_name = exportBaseKey)]
    pub fn export_base_key(&self) -> Option<Vec<u8>> {
        Some(self.member.sframe_base_key()?.to_vec())
    }
}

/// Metadata that was opened.
#[wasm_bindgen]
pub struct OpenedMetadata(sealcast_mls::OpenedMetadata);

#[wasm_bindgen]
impl OpenedMetadata {
    /// Leaf of the sender.
    #[wasm_bindgen(getter)]
    pub fn leaf(&self) -> u16 {
        self.0.leaf
    }

    /// Epoch it was sealed in.
    #[wasm_bindgen(getter)]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// The content.
    #[wasm_bindgen(getter)]
    pub fn content(&self) -> Vec<u8> {
        self.0.content.clone()
    }
}

fn parse_config(config: &str) -> Result<MemberConfig, JsError> {
    let config: Config =
        serde_json::from_str(config).map_err(|error| JsError::new(&format!("config: {error}")))?;
    let issuer = config.issuer.map(|issuer| -> Result<_, JsError> {
        let keys = issuer
            .keys
            .iter()
            .map(|jwk| IssuerKey::from_jwk(&jwk.to_string()));
        Ok(Issuer {
            issuer: issuer.issuer,
            audience: issuer.audience,
            room: issuer.room,
            keys: keys
                .collect::<Result<_, _>>()
                .map_err(|error| JsError::new(&format!("issuer: {error}")))?,
        })
    });
    Ok(MemberConfig {
        media_suite: CipherSuite::try_from(config.media_suite)?,
        issuer: issuer.transpose()?,
        rotation: Duration::from_millis(config.rotation_ms),
        rotate_after_frames: config.rotate_after_frames,
    })
}

/// Milliseconds of JavaScript as a duration; what is no time at all counts as the epoch.
fn time(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default()
}

fn to_json(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}
