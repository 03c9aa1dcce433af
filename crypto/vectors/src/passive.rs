//! A client with given keys that is added to a group and follows it.

use crate::{Outcome, bytes, equal, failed, hex, suite};
use openmls::group::MIXED_PLAINTEXT_WIRE_FORMAT_POLICY;
use openmls::prelude::{
    KeyPackageBundle, KeyPackageIn, MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn,
    OpenMlsProvider, ProcessedMessageContent, RatchetTreeIn, StagedWelcome, tls_codec::Deserialize,
};
use openmls::schedule::PreSharedKeyId;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::storage::StorageProvider as _;
use serde_json::{Value, json};

/// Resumption PSKs that the scenarios go back to.
const RESUMPTION_PSKS: usize = 16;

/// One case of `passive-client-*`.
///
/// # Errors
/// Where the client could not follow, or came to another authenticator.
pub fn passive_client(case: &Value) -> Outcome {
    let mut client = Client {
        provider: OpenMlsRustCrypto::default(),
        group: None,
    };
    for psk in list(case, "external_psks") {
        // The nonce is not part of what is stored.
        PreSharedKeyId::external(bytes(psk, "psk_id")?, Vec::new())
            .store(&client.provider, &bytes(psk, "psk")?)
            .map_err(failed("external_psks"))?;
    }
    client.take_key_package(case)?;
    client.join(case)?;
    equal(
        "initial_epoch_authenticator",
        client.group()?.epoch_authenticator().as_slice(),
        &bytes(case, "initial_epoch_authenticator")?,
    )?;
    for (number, epoch) in list(case, "epochs").iter().enumerate() {
        let at = |error: String| format!("epoch {number}: {error}");
        for proposal in list(epoch, "proposals") {
            let proposal = hex(proposal).ok_or("proposal is not in hex")?;
            client.process(&proposal).map_err(at)?;
        }
        client.process(&bytes(epoch, "commit")?).map_err(at)?;
        let have = client.group()?.epoch_authenticator().as_slice().to_vec();
        equal(
            "epoch_authenticator",
            &have,
            &bytes(epoch, "epoch_authenticator")?,
        )
        .map_err(at)?;
    }
    Ok(())
}

struct Client {
    provider: OpenMlsRustCrypto,
    group: Option<MlsGroup>,
}

impl Client {
    /// Stores the KeyPackage and its private keys, as if it had been made here.
    fn take_key_package(&self, case: &Value) -> Outcome {
        let message = MlsMessageIn::tls_deserialize_exact(bytes(case, "key_package")?)
            .map_err(failed("key_package"))?;
        let MlsMessageBodyIn::KeyPackage(key_package) = message.extract() else {
            return Err("key_package is none".into());
        };
        let key_package: KeyPackageIn = key_package;
        let bundle = json!({
            "private_init_key": secret(&bytes(case, "init_priv")?),
            "private_encryption_key": {"key": secret(&bytes(case, "encryption_priv")?)},
            "key_package": serde_json::to_value(&key_package).map_err(failed("key_package"))?,
        });
        // The library has no other way to take private keys from outside.
        let bundle: KeyPackageBundle =
            serde_json::from_value(bundle).map_err(failed("KeyPackageBundle"))?;
        if bundle.key_package().ciphersuite() != suite(case)? {
            return Err("key_package is of another suite".into());
        }
        let reference = bundle.key_package().hash_ref(self.provider.crypto());
        self.provider
            .storage()
            .write_key_package(&reference.map_err(failed("hash_ref"))?, &bundle)
            .map_err(failed("storage"))
    }

    fn join(&mut self, case: &Value) -> Outcome {
        let message = MlsMessageIn::tls_deserialize_exact(bytes(case, "welcome")?);
        let MlsMessageBodyIn::Welcome(welcome) = message.map_err(failed("welcome"))?.extract()
        else {
            return Err("welcome is none".into());
        };
        // The commits come in the clear or encrypted; nothing is sent.
        let config = MlsGroupJoinConfig::builder()
            .use_ratchet_tree_extension(true)
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .number_of_resumption_psks(RESUMPTION_PSKS)
            .build();
        let mut builder = StagedWelcome::build_from_welcome(&self.provider, &config, welcome)
            .map_err(failed("welcome"))?
            // The vectors are older than their KeyPackages' lifetime.
            .skip_lifetime_validation();
        if let Some(tree) = hex(&case["ratchet_tree"]) {
            let tree =
                RatchetTreeIn::tls_deserialize_exact(tree).map_err(failed("ratchet_tree"))?;
            builder = builder.with_ratchet_tree(tree);
        }
        let staged = builder.build().map_err(failed("welcome"))?;
        let group = staged.into_group(&self.provider);
        self.group = Some(group.map_err(failed("welcome"))?);
        Ok(())
    }

    fn process(&mut self, message: &[u8]) -> Outcome {
        let message = MlsMessageIn::tls_deserialize_exact(message).map_err(failed("message"))?;
        let message = message
            .try_into_protocol_message()
            .map_err(failed("message"))?;
        let group = self.group.as_mut().ok_or("no group")?;
        let processed = group
            .process_message(&self.provider, message)
            .map_err(failed("message"))?;
        match processed.into_content() {
            ProcessedMessageContent::ProposalMessage(proposal) => group
                .store_pending_proposal(self.provider.storage(), *proposal)
                .map_err(failed("proposal")),
            ProcessedMessageContent::StagedCommitMessage(commit) => group
                .merge_staged_commit(&self.provider, *commit)
                .map_err(failed("commit")),
            other => Err(format!("neither proposal nor commit: {other:?}")),
        }
    }

    fn group(&self) -> Result<&MlsGroup, String> {
        self.group.as_ref().ok_or_else(|| "no group".into())
    }
}

/// A private key as the library writes it to its store.
fn secret(key: &[u8]) -> Value {
    json!({ "vec": key })
}

fn list<'a>(case: &'a Value, field: &str) -> &'a [Value] {
    case[field].as_array().map_or(&[], Vec::as_slice)
}
