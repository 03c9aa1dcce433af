//! The relay's delivery service, for tests that run both ends of the protocol in one process, and
//! the protocol's messages taken apart for members written in JavaScript.

use sealcast_delivery::{DeliveryKey, DeliveryService, SUITES};
use sealcast_group_wire::{ToMember, ToService};
use sealcast_model::{ParticipantId, Time};
use std::sync::Arc;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

/// A room's delivery service.
#[wasm_bindgen]
pub struct Delivery {
    service: DeliveryService,
    output: Vec<u8>,
}

#[wasm_bindgen]
impl Delivery {
    /// For MLS cipher suite `suite`, 1 where there is none, with a key made from `seed`.
    ///
    /// # Errors
    /// `library`.
    #[wasm_bindgen(constructor)]
    pub fn new(seed: u8, suite: Option<u16>) -> Result<Delivery, JsError> {
        let known = SUITES
            .iter()
            .find(|known| suite == Some(u16::from(**known)));
        let key = DeliveryKey::from_seed(*known.unwrap_or(&SUITES[0]), &[seed; 32])?;
        Ok(Self {
            service: DeliveryService::new(Arc::new(key)),
            output: Vec::new(),
        })
    }

    /// The relay admitted a participant.
    pub fn join(&mut self, now: u32, id: u32) {
        self.service.handle_join(millis(now), participant(id));
    }

    /// A participant left.
    pub fn leave(&mut self, now: u32, id: u32) {
        self.service.handle_leave(millis(now), participant(id));
    }

    /// Takes a participant's message.
    ///
    /// # Errors
    /// The code of the `DeliveryError`.
    pub fn handle(&mut self, now: u32, id: u32, message: &[u8]) -> Result<(), JsError> {
        let result = self
            .service
            .handle_message(millis(now), participant(id), message);
        result.map_err(|error| JsError::new(&format!("{}: {error}", error.code())))
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: u32) {
        self.service.handle_timeout(millis(now));
    }

    /// Whom the next output is for; its bytes are in `message` then.
    pub fn poll(&mut self) -> Option<Vec<u32>> {
        let output = self.service.poll_output()?;
        self.output = output.message;
        Some(output.to.iter().map(|id| id.0 as u32).collect())
    }

    /// The output that `poll` told of.
    pub fn message(&self) -> Vec<u8> {
        self.output.clone()
    }
}

/// A message to a member: its kind and the bytes that matter.
#[wasm_bindgen]
pub struct MemberMessage {
    kind: &'static str,
    content: Vec<u8>,
}

#[wasm_bindgen]
impl MemberMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// As `ToMember::decode`.
    #[wasm_bindgen(constructor)]
    pub fn new(message: &[u8]) -> Result<MemberMessage, JsError> {
        let (kind, content) = match ToMember::decode(message)? {
            ToMember::Create { group_id, .. } => ("create", group_id.as_slice().to_vec()),
            ToMember::SendGroupInfo => ("send-group-info", Vec::new()),
            ToMember::SendKeyPackages => ("send-key-packages", Vec::new()),
            ToMember::Proposal { message } => ("proposal", message.as_slice().to_vec()),
            ToMember::Commit { message } => ("commit", message.as_slice().to_vec()),
            ToMember::Stale { .. } => ("stale", Vec::new()),
            ToMember::Welcome { message } => ("welcome", message.as_slice().to_vec()),
            ToMember::AllReady { .. } => ("all-ready", Vec::new()),
            ToMember::Reset => ("reset", Vec::new()),
            ToMember::NotAdmitted => ("not-admitted", Vec::new()),
        };
        Ok(Self { kind, content })
    }

    /// The kind.
    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        self.kind.to_owned()
    }

    /// The MLS message inside, or the group id.
    #[wasm_bindgen(getter)]
    pub fn content(&self) -> Vec<u8> {
        self.content.clone()
    }
}

/// A first Hello with one KeyPackage.
///
/// # Errors
/// As `ToService::encode`.
#[wasm_bindgen(js_name = encodeHello)]
pub fn encode_hello(key_package: Vec<u8>) -> Result<Vec<u8>, JsError> {
    let hello = ToService::Hello {
        resume: None,
        key_packages: vec![key_package.into()],
    };
    Ok(hello.encode()?)
}

/// A commit without Welcome.
///
/// # Errors
/// As `ToService::encode`.
#[wasm_bindgen(js_name = encodeCommit)]
pub fn encode_commit(commit: Vec<u8>) -> Result<Vec<u8>, JsError> {
    let commit = ToService::Commit {
        commit: commit.into(),
        welcome: None,
    };
    Ok(commit.encode()?)
}

fn millis(now: u32) -> Time {
    Time::from_millis(u64::from(now))
}

fn participant(id: u32) -> ParticipantId {
    ParticipantId(u64::from(id))
}
