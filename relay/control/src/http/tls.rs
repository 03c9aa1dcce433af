//! TLS for HTTP: certificates from PEM files, or one made on the spot for development.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::sync::Arc;

/// How long a certificate for development is valid.
const SELF_SIGNED_DAYS: u32 = 30;

/// Why TLS could not be set up. The operator is at fault, except for `Generate`.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the PEM.
    #[error("no certificate in the certificate file")]
    NoCertificate,
    /// No private key in the PEM.
    #[error("no unencrypted private key in the key file")]
    NoKey,
    /// Key and certificate do not fit, or are of a kind that TLS 1.2 and 1.3 do not know.
    #[error("certificate and key do not make a TLS identity: {0}")]
    Identity(#[from] rustls::Error),
    /// OpenSSL could not make a certificate.
    #[error("a self-signed certificate could not be made: {0}")]
    Generate(#[from] ErrorStack),
}

/// A server configuration for a certificate chain and its key, both in PEM. TLS 1.2 and 1.3,
/// HTTP/1.1.
///
/// # Errors
/// [`TlsError`] naming what is missing or does not fit.
pub fn server_config(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::NoCertificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::NoKey)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A self-signed certificate and its key in PEM, for `localhost` and `addresses`.
///
/// # Errors
/// [`TlsError::Generate`].
pub fn self_signed(addresses: &[IpAddr]) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "sealcast development")?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    // RFC 5280 §4.1.2.2: a positive serial number of at most 20 octets.
    let mut serial = crate::random::bytes::<16>();
    serial[0] = serial[0] & 0x7f | 1;
    let serial = BigNum::from_slice(&serial)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    let (from, to) = (
        Asn1Time::days_from_now(0)?,
        Asn1Time::days_from_now(SELF_SIGNED_DAYS)?,
    );
    builder.set_not_before(&from)?;
    builder.set_not_after(&to)?;
    let mut names = SubjectAlternativeName::new();
    names.dns("localhost").ip("127.0.0.1").ip("::1");
    for address in addresses {
        names.ip(&address.to_string());
    }
    let names = names.build(&builder.x509v3_context(None, None))?;
    builder.append_extension(names)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_serves() {
        let (chain, key) = self_signed(&["192.0.2.7".parse().unwrap()]).unwrap();
        assert!(server_config(&chain, &key).is_ok());
        let cert = X509::from_pem(&chain).unwrap();
        let names = cert.subject_alt_names().unwrap();
        assert!(names.iter().any(|n| n.dnsname() == Some("localhost")));
        assert!(names.iter().any(|n| n.ipaddress() == Some(&[192, 0, 2, 7])));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (chain, key) = self_signed(&[]).unwrap();
        let (_, other) = self_signed(&[]).unwrap();
        assert!(matches!(
            server_config(b"", &key),
            Err(TlsError::NoCertificate)
        ));
        assert!(matches!(
            server_config(&chain, &chain),
            Err(TlsError::NoKey)
        ));
        assert!(matches!(
            server_config(&chain, &other),
            Err(TlsError::Identity(_))
        ));
    }
}
