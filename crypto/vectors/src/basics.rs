//! The provider's primitives, as RFC 9420 §5 and §8 put them together.

use crate::{Outcome, bytes, equal, failed, suite};
use openmls::prelude::{Ciphersuite, OpenMlsCrypto, OpenMlsProvider};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::HpkeCiphertext;
use serde_json::Value;
use tls_codec::{Serialize, VLByteSlice};

/// One case of `crypto-basics`.
///
/// # Errors
/// What differs.
pub fn crypto_basics(case: &Value) -> Outcome {
    let provider = OpenMlsRustCrypto::default();
    let crypto = provider.crypto();
    let suite = suite(case)?;

    let case_of = |name: &str| {
        (
            &case[name],
            case[name]["label"].as_str().unwrap_or_default(),
        )
    };

    let (vector, label) = case_of("ref_hash");
    // RefHash(label, value) = Hash(RefHashInput), without "MLS 1.0 " in front (§5.2).
    let input = [opaque(label.as_bytes())?, opaque(&bytes(vector, "value")?)?].concat();
    let hash = crypto.hash(suite.hash_algorithm(), &input);
    let hash = hash.map_err(failed("ref_hash"))?;
    equal("ref_hash", &hash, &bytes(vector, "out")?)?;

    let (vector, label) = case_of("expand_with_label");
    let length = vector["length"].as_u64().unwrap_or_default() as u16;
    let (secret, context) = (bytes(vector, "secret")?, bytes(vector, "context")?);
    let out = expand_with_label(crypto, suite, &secret, label, &context, length)?;
    equal("expand_with_label", &out, &bytes(vector, "out")?)?;

    let (vector, label) = case_of("derive_secret");
    let out = derive_secret(crypto, suite, &bytes(vector, "secret")?, label)?;
    equal("derive_secret", &out, &bytes(vector, "out")?)?;

    let (vector, label) = case_of("derive_tree_secret");
    let length = vector["length"].as_u64().unwrap_or_default() as u16;
    let generation = vector["generation"].as_u64().unwrap_or_default() as u32;
    let (secret, context) = (bytes(vector, "secret")?, generation.to_be_bytes());
    let out = expand_with_label(crypto, suite, &secret, label, &context, length)?;
    equal("derive_tree_secret", &out, &bytes(vector, "out")?)?;

    let (vector, label) = case_of("sign_with_label");
    sign_with_label(crypto, suite, vector, label)?;
    let (vector, label) = case_of("encrypt_with_label");
    encrypt_with_label(crypto, suite, vector, label)
}

fn sign_with_label(
    crypto: &impl OpenMlsCrypto,
    suite: Ciphersuite,
    vector: &Value,
    label: &str,
) -> Outcome {
    let scheme = suite.signature_algorithm();
    let content = bytes(vector, "content")?;
    let content = [opaque(&labelled(label))?, opaque(&content)?].concat();
    let public = bytes(vector, "pub")?;
    crypto
        .verify_signature(scheme, &content, &public, &bytes(vector, "signature")?)
        .map_err(failed("sign_with_label"))?;
    let own = crypto.sign(scheme, &content, &bytes(vector, "priv")?);
    let own = own.map_err(failed("sign"))?;
    crypto
        .verify_signature(scheme, &content, &public, &own)
        .map_err(failed("own signature"))?;
    let mut forged = own;
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    match crypto.verify_signature(scheme, &content, &public, &forged) {
        Ok(()) => Err("a forged signature verifies".into()),
        Err(_) => Ok(()),
    }
}

fn encrypt_with_label(
    crypto: &impl OpenMlsCrypto,
    suite: Ciphersuite,
    vector: &Value,
    label: &str,
) -> Outcome {
    let info = [
        opaque(&labelled(label))?,
        opaque(&bytes(vector, "context")?)?,
    ]
    .concat();
    let (config, private) = (suite.hpke_config(), bytes(vector, "priv")?);
    let plaintext = bytes(vector, "plaintext")?;
    let theirs = HpkeCiphertext {
        kem_output: bytes(vector, "kem_output")?.into(),
        ciphertext: bytes(vector, "ciphertext")?.into(),
    };
    let opened = crypto.hpke_open(config, &theirs, &private, &info, &[]);
    let opened = opened.map_err(failed("encrypt_with_label"))?;
    equal("encrypt_with_label", &opened, &plaintext)?;
    let config = suite.hpke_config();
    let ours = crypto.hpke_seal(config, &bytes(vector, "pub")?, &info, &[], &plaintext);
    let ours = ours.map_err(failed("hpke_seal"))?;
    let opened = crypto.hpke_open(suite.hpke_config(), &ours, &private, &info, &[]);
    equal(
        "own ciphertext",
        &opened.map_err(failed("hpke_open"))?,
        &plaintext,
    )
}

/// One case of `key-schedule`: each epoch's secrets from the one before, its exported secret and
/// its external key pair.
///
/// # Errors
/// What differs.
pub fn key_schedule(case: &Value) -> Outcome {
    let provider = OpenMlsRustCrypto::default();
    let crypto = provider.crypto();
    let suite = suite(case)?;
    let length = suite.hash_length() as u16;
    let mut init = bytes(case, "initial_init_secret")?;
    let epochs = case["epochs"].as_array().ok_or("no epochs")?;
    for epoch in epochs {
        let context = bytes(epoch, "group_context")?;
        let extract = |salt: &[u8], ikm: &[u8]| {
            let out = crypto.hkdf_extract(suite.hash_algorithm(), salt, ikm);
            out.map(|out| out.as_slice().to_vec())
                .map_err(failed("extract"))
        };
        let joined = extract(&init, &bytes(epoch, "commit_secret")?)?;
        let joiner = expand_with_label(crypto, suite, &joined, "joiner", &context, length)?;
        equal("joiner_secret", &joiner, &bytes(epoch, "joiner_secret")?)?;
        let member = extract(&joiner, &bytes(epoch, "psk_secret")?)?;
        let secret = expand_with_label(crypto, suite, &member, "epoch", &context, length)?;
        for (name, label) in [
            ("sender_data_secret", "sender data"),
            ("encryption_secret", "encryption"),
            ("exporter_secret", "exporter"),
            ("external_secret", "external"),
            ("confirmation_key", "confirm"),
            ("membership_key", "membership"),
            ("resumption_psk", "resumption"),
            ("epoch_authenticator", "authentication"),
            ("init_secret", "init"),
        ] {
            let derived = derive_secret(crypto, suite, &secret, label)?;
            equal(name, &derived, &bytes(epoch, name)?)?;
        }
        let external = bytes(epoch, "external_secret")?;
        let pair = crypto.derive_hpke_keypair(suite.hpke_config(), &external);
        let pair = pair.map_err(failed("derive_hpke_keypair"))?;
        equal("external_pub", &pair.public, &bytes(epoch, "external_pub")?)?;

        let (exporter, vector) = (bytes(epoch, "exporter_secret")?, &epoch["exporter"]);
        let label = vector["label"].as_str().unwrap_or_default();
        let derived = derive_secret(crypto, suite, &exporter, label)?;
        let hash = crypto.hash(suite.hash_algorithm(), &bytes(vector, "context")?);
        let hash = hash.map_err(failed("hash"))?;
        let exported_len = vector["length"].as_u64().unwrap_or_default() as u16;
        let exported = expand_with_label(crypto, suite, &derived, "exported", &hash, exported_len)?;
        equal("exporter", &exported, &bytes(vector, "secret")?)?;
        init = bytes(epoch, "init_secret")?;
    }
    Ok(())
}

fn derive_secret(
    crypto: &impl OpenMlsCrypto,
    suite: Ciphersuite,
    secret: &[u8],
    label: &str,
) -> Result<Vec<u8>, String> {
    expand_with_label(
        crypto,
        suite,
        secret,
        label,
        &[],
        suite.hash_length() as u16,
    )
}

/// `ExpandWithLabel` (§8): HKDF-Expand with the structure `KDFLabel`.
fn expand_with_label(
    crypto: &impl OpenMlsCrypto,
    suite: Ciphersuite,
    secret: &[u8],
    label: &str,
    context: &[u8],
    length: u16,
) -> Result<Vec<u8>, String> {
    let info = [
        length.to_be_bytes().to_vec(),
        opaque(&labelled(label))?,
        opaque(context)?,
    ]
    .concat();
    let out = crypto.hkdf_expand(suite.hash_algorithm(), secret, &info, length.into());
    out.map(|out| out.as_slice().to_vec())
        .map_err(failed("expand"))
}

fn labelled(label: &str) -> Vec<u8> {
    format!("MLS 1.0 {label}").into_bytes()
}

/// `opaque<V>` (§2.1.2).
fn opaque(content: &[u8]) -> Result<Vec<u8>, String> {
    VLByteSlice(content)
        .tls_serialize_detached()
        .map_err(failed("opaque"))
}
