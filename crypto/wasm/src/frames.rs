//! Frame sealing for JavaScript.
//!
//! A frame crosses into the module's memory once and out of it once; both directions use a buffer
//! that is kept between frames.

use js_sys::Uint8Array;
use sealcast_sframe::layout::{self, Codec};
use sealcast_sframe::{BaseKeyScope, CipherSuite, KeyStore, Kid, Sealer};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, UnwrapThrowExt};

/// Seals the frames of one encoder.
#[wasm_bindgen]
pub struct FrameSealer {
    sealer: Sealer,
    frame: Vec<u8>,
    sealed: Vec<u8>,
}

#[wasm_bindgen]
impl FrameSealer {
    /// A sealer under key id `kid`. No other sealer may ever have the same base key and key id.
    ///
    /// # Errors
    /// `suite` or `base-key`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        suite: u16,
        kid: u64,
        #[wasm_bindgen(js_name = baseKey)] base_key: &[u8],
    ) -> Result<FrameSealer, JsError> {
        let sealer = Sealer::new(CipherSuite::try_from(suite)?, Kid(kid), base_key)?;
        Ok(sealer.into())
    }

    /// Seals one encoded frame of `codec` (`opus`, `vp8`, `vp9`, `av1`, `h264`). An empty frame stays empty.
    ///
    /// # Errors
    /// `codec`, `exhausted`, `not-this-codec`, `too-long`.
    pub fn seal(&mut self, codec: &str, frame: &Uint8Array) -> Result<Uint8Array, JsError> {
        let codec = parse_codec(codec)?;
        load(&mut self.frame, frame);
        layout::seal(codec, &mut self.sealer, &self.frame, &mut self.sealed)?;
        Ok(Uint8Array::from(&self.sealed[..]))
    }

    /// Seals bytes that are no codec's frame. `metadata` is authenticated with them and has to be
    /// given again to open them.
    ///
    /// # Errors
    /// `exhausted`, `too-long`.
    #[wasm_bindgen(js_name = sealBytes)]
    pub fn seal_bytes(
        &mut self,
        metadata: &[u8],
        plaintext: &Uint8Array,
    ) -> Result<Uint8Array, JsError> {
        load(&mut self.frame, plaintext);
        self.sealed.clear();
        self.sealer
            .seal_to_vec(metadata, &self.frame, &mut self.sealed)?;
        Ok(Uint8Array::from(&self.sealed[..]))
    }

    /// The key id in every frame.
    #[wasm_bindgen(getter)]
    pub fn kid(&self) -> u64 {
        self.sealer.kid().0
    }

    /// Frames sealed so far.
    #[wasm_bindgen(getter)]
    pub fn counter(&self) -> u64 {
        self.sealer.counter()
    }
}

impl From<Sealer> for FrameSealer {
    fn from(sealer: Sealer) -> Self {
        Self {
            sealer,
            frame: Vec::new(),
            sealed: Vec::new(),
        }
    }
}

/// Opens the frames of any number of senders, with a replay window per key id.
#[wasm_bindgen]
pub struct FrameOpener {
    keys: KeyStore,
    frame: Vec<u8>,
    last_kid: Kid,
}

#[wasm_bindgen]
impl FrameOpener {
    /// An opener without keys.
    ///
    /// # Errors
    /// `suite`.
    #[wasm_bindgen(constructor)]
    pub fn new(suite: u16) -> Result<FrameOpener, JsError> {
        Ok(Self {
            keys: KeyStore::new(CipherSuite::try_from(suite)?),
            frame: Vec::new(),
            last_kid: Kid(0),
        })
    }

    /// Adds the key of one key id.
    ///
    /// # Errors
    /// `base-key`, `duplicate`, `full`.
    #[wasm_bindgen(js_name = addKey)]
    pub fn add_key(
        &mut self,
        kid: u64,
        #[wasm_bindgen(js_name = baseKey)] base_key: &[u8],
    ) -> Result<(), JsError> {
        Ok(self.keys.insert(Kid(kid), base_key)?)
    }

    /// Removes the key of one key id; `false` if there was none.
    #[wasm_bindgen(js_name = removeKey)]
    pub fn remove_key(&mut self, kid: u64) -> bool {
        self.keys.remove(Kid(kid))
    }

    /// Sets the key of the join link, from which keys are derived as their ids are first seen. A
    /// derived key is kept only once a frame authenticated under it.
    ///
    /// # Errors
    /// `base-key`.
    #[wasm_bindgen(js_name = setLinkKey)]
    pub fn set_link_key(
        &mut self,
        #[wasm_bindgen(js_name = baseKey)] base_key: &[u8],
    ) -> Result<(), JsError> {
        Ok(self.keys.insert_base_key(BaseKeyScope::Any, base_key)?)
    }

    /// Adds the base key of one MLS epoch, for senders whose leaf index is below `leaves`.
    ///
    /// # Errors
    /// `base-key`, `full`.
    #[wasm_bindgen(js_name = addEpoch)]
    pub fn add_epoch(
        &mut self,
        epoch: u64,
        leaves: u32,
        #[wasm_bindgen(js_name = baseKey)] base_key: &[u8],
    ) -> Result<(), JsError> {
        Ok(self
            .keys
            .insert_base_key(epoch_scope(epoch, leaves), base_key)?)
    }

    /// Removes an MLS epoch's base key and every key derived from it; `false` if there was none.
    #[wasm_bindgen(js_name = removeEpoch)]
    pub fn remove_epoch(&mut self, epoch: u64, leaves: u32) -> bool {
        self.keys.remove_base_key(epoch_scope(epoch, leaves))
    }

    /// Opens one sealed frame of `codec`. An empty frame stays empty and is to be ignored.
    ///
    /// # Errors
    /// `unknown-kid`, `replayed`, `auth`, `short`, `malformed`, `codec`.
    pub fn open(&mut self, codec: &str, frame: &Uint8Array) -> Result<Uint8Array, JsError> {
        let codec = parse_codec(codec)?;
        load(&mut self.frame, frame);
        let Some(opened) = layout::open(codec, &mut self.keys, &mut self.frame)? else {
            return Ok(Uint8Array::new_with_length(0));
        };
        self.last_kid = opened.kid;
        Ok(Uint8Array::from(&self.frame[opened.frame]))
    }

    /// Opens what `sealBytes` sealed.
    ///
    /// # Errors
    /// `unknown-kid`, `replayed`, `auth`, `short`, `malformed`.
    #[wasm_bindgen(js_name = openBytes)]
    pub fn open_bytes(
        &mut self,
        metadata: &[u8],
        sealed: &Uint8Array,
    ) -> Result<Uint8Array, JsError> {
        load(&mut self.frame, sealed);
        let opened = self.keys.open(metadata, &mut self.frame)?;
        self.last_kid = opened.kid;
        Ok(Uint8Array::from(&self.frame[opened.plaintext]))
    }

    /// Key id of the frame that was opened last; 0 before the first.
    #[wasm_bindgen(js_name = lastKid)]
    pub fn last_kid(&self) -> u64 {
        self.last_kid.0
    }
}

/// What identifies an encoder to the relay: `kid >> 24`.
#[wasm_bindgen(js_name = frameContext)]
pub fn frame_context(kid: u64) -> f64 {
    // At most 40 bits, which a double holds exactly.
    Kid(kid).context() as f64
}

/// The key id of a group member's encoder: its context (unique per stream and encoding), leaf index
/// and epoch.
#[wasm_bindgen(js_name = groupKid)]
pub fn group_kid(context: u16, leaf: u16, epoch: u64) -> u64 {
    Kid::from_parts(context, leaf, epoch).0
}

fn epoch_scope(epoch: u64, leaves: u32) -> BaseKeyScope {
    BaseKeyScope::Epoch {
        epoch: epoch as u8,
        leaves,
    }
}

pub(crate) fn parse_codec(name: &str) -> Result<Codec, JsError> {
    name.parse()
        .map_err(|_| JsError::new("codec: this codec cannot be sealed"))
}

/// Copies a frame from JavaScript into a kept buffer.
pub(crate) fn load(buffer: &mut Vec<u8>, frame: &Uint8Array) {
    let len = usize::try_from(frame.length()).expect_throw("a 32-bit length");
    buffer.resize(len, 0);
    frame.copy_to(buffer);
}
