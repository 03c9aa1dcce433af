//! The configuration as a whole: keys and certificates are read, values that depend on each
//! other compared.

use super::schema::{AudioCodec, SrtpBackend, Tls, TokenAlgorithm, VideoCodec};
use super::{Fault, Settings};
use sealcast_control::http::tls;
use sealcast_control::token::{Algorithm, TokenKey, Verifier};
use sealcast_model::Codec;
use sealcast_srtp::Backend;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration that can be served.
pub(crate) struct Checked {
    pub(crate) settings: Settings,
    pub(crate) verifier: Verifier,
    /// TLS for HTTP.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Certificate and key of media sessions, PEM, where they are given.
    pub(crate) dtls: Option<(Vec<u8>, Vec<u8>)>,
}

/// Largest port.
const PORTS: u64 = 65_535;

/// Checks `settings`; paths are relative to `base`. `None` if something that serving needs is
/// missing, in which case there are faults.
pub(crate) fn check(
    mut settings: Settings,
    base: &Path,
    faults: &mut Vec<Fault>,
) -> Option<Checked> {
    let mut checker = Checker { base, faults };
    let tls = checker.tls(&settings);
    let dtls = checker.dtls(&settings);
    let verifier = checker.verifier(&settings);
    checker.media(&settings);
    checker.delivery_seed(&mut settings);
    if settings.http_listen.is_empty() {
        checker.fault("http.listen", "[]", "must name at least one address");
    }
    if settings.shutdown_notice.get() >= settings.shutdown_deadline.get() {
        let shown = format!("{:?}", settings.shutdown_notice.get());
        checker.fault(
            "shutdown.notice",
            &shown,
            "must be shorter than shutdown.deadline",
        );
    }
    for origin in &settings.http_frame_ancestors {
        let fits = origin.starts_with("https://") || origin.starts_with("http://");
        let clean = origin
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b';' && b != b',');
        if !fits || !clean {
            let shown = format!("[\"{origin}\"]");
            checker.fault(
                "http.frame_ancestors",
                &shown,
                "must be origins like \"https://a.example\"",
            );
        }
    }
    Some(Checked {
        verifier: verifier?,
        settings,
        tls,
        dtls,
    })
}

struct Checker<'a> {
    base: &'a Path,
    faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, key: &str, value: &str, rule: &str) {
        self.faults.push(Fault::new(key, value, rule));
    }

    /// The content of a file that a key names.
    fn read(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        match std::fs::read(self.base.join(path)) {
            Ok(content) => Some(content),
            Err(error) => {
                let shown = format!("\"{}\"", path.display());
                self.fault(key, &shown, &format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Two files that belong together; `None` where neither is named.
    fn pair(
        &mut self,
        (cert_key, cert): (&str, &Option<PathBuf>),
        (key_key, key): (&str, &Option<PathBuf>),
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        match (cert, key) {
            (Some(cert), Some(key)) => {
                let cert = self.read(cert_key, cert);
                let key = self.read(key_key, key);
                cert.zip(key)
            }
            (None, None) => None,
            (Some(_), None) => {
                self.fault(key_key, "\"\"", &format!("must be set where {cert_key} is"));
                None
            }
            (None, Some(_)) => {
                self.fault(cert_key, "\"\"", &format!("must be set where {key_key} is"));
                None
            }
        }
    }

    fn tls(&mut self, s: &Settings) -> Option<Arc<rustls::ServerConfig>> {
        let files = self.pair(
            ("http.certificate", &s.http_certificate),
            ("http.key", &s.http_key),
        );
        let pem = match s.http_tls {
            Tls::Off => return None,
            Tls::Files => {
                if s.http_certificate.is_none() && s.http_key.is_none() {
                    let rule = "http.certificate and http.key must be set with it";
                    self.fault("http.tls", "\"files\"", rule);
                }
                files?
            }
            Tls::SelfSigned => {
                let addresses: Vec<IpAddr> = s.http_listen.iter().map(|a| a.ip()).collect();
                match tls::self_signed(&addresses) {
                    Ok(pem) => pem,
                    Err(error) => {
                        self.fault("http.tls", "\"self-signed\"", &error.to_string());
                        return None;
                    }
                }
            }
        };
        match tls::server_config(&pem.0, &pem.1) {
            Ok(config) => Some(config),
            Err(error) => {
                self.fault("http.certificate", "(the file)", &error.to_string());
                None
            }
        }
    }

    fn dtls(&mut self, s: &Settings) -> Option<(Vec<u8>, Vec<u8>)> {
        let pair = self.pair(
            ("dtls.certificate", &s.dtls_certificate),
            ("dtls.key", &s.dtls_key),
        )?;
        let clock = sealcast_io::Clock::start();
        let context = sealcast_io::SessionContext::from_pem(
            clock.epoch(),
            backend(s.srtp_backend),
            &pair.0,
            &pair.1,
        );
        if let Err(error) = context {
            self.fault("dtls.certificate", "(the file)", &error.to_string());
            return None;
        }
        Some(pair)
    }

    /// Makes the seed's path absolute. A file that is not there yet is made at start.
    fn delivery_seed(&mut self, s: &mut Settings) {
        let Some(path) = &mut s.rooms_delivery_seed else {
            return;
        };
        let shown = format!("\"{}\"", path.display());
        *path = self.base.join(&path);
        match crate::delivery::read(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.fault("rooms.delivery_seed", &shown, &error.to_string());
            }
            _ => {}
        }
    }

    fn verifier(&mut self, s: &Settings) -> Option<Verifier> {
        let before = self.faults.len();
        if s.auth_issuer.is_empty() {
            self.fault("auth.issuer", "\"\"", "must be the `iss` of the tokens");
        }
        if s.auth_audience.is_empty() {
            self.fault(
                "auth.audience",
                "\"\"",
                "must be in the `aud` of the tokens",
            );
        }
        if s.auth_keys.is_empty() {
            let rule = "must name 1 to 16 keys; without any nobody can join";
            self.fault("auth.keys", "[]", rule);
            return None;
        }
        let keys = self.token_keys(s);
        let verifier = Verifier::new(
            algorithm(s.auth_algorithm),
            &s.auth_issuer,
            &s.auth_audience,
            s.auth_max_token_ttl.get(),
            keys,
        );
        match verifier {
            Ok(verifier) if self.faults.len() == before => Some(verifier),
            Ok(_) => None,
            Err(error) => {
                if self.faults.len() == before {
                    self.fault("auth.keys", "[ … ]", &error.to_string());
                }
                None
            }
        }
    }

    fn token_keys(&mut self, s: &Settings) -> Vec<TokenKey> {
        let mut keys = Vec::new();
        for (i, key) in s.auth_keys.iter().enumerate() {
            let shown = format!("\"{}\"", key.file.display());
            let repeated = s.auth_keys.iter().take(i).any(|k| k.kid == key.kid);
            if key.kid.is_some() && repeated {
                self.fault("auth.keys", &shown, "two keys have one kid");
            }
            let Some(content) = self.read("auth.keys", &key.file) else {
                continue;
            };
            match TokenKey::load(algorithm(s.auth_algorithm), key.kid.clone(), &content) {
                Ok(key) => keys.push(key),
                Err(error) => self.fault("auth.keys", &shown, &error.to_string()),
            }
        }
        keys
    }

    fn media(&mut self, s: &Settings) {
        if s.media_bind.is_empty() {
            self.fault("media.bind", "[]", "must name at least one address");
        }
        if s.media_audio_codecs.is_empty() && s.media_video_codecs.is_empty() {
            self.fault(
                "media.video_codecs",
                "[]",
                "must name a codec if media.audio_codecs does not",
            );
        }
        if s.media_audio_codecs.contains(&AudioCodec::Red)
            && !s.media_audio_codecs.contains(&AudioCodec::Opus)
        {
            self.fault(
                "media.audio_codecs",
                r#"["red"]"#,
                "must name \"opus\" beside \"red\"",
            );
        }
        for address in &s.media_public_addresses {
            if !s
                .media_bind
                .iter()
                .any(|b| b.is_ipv4() == address.is_ipv4())
            {
                let rule = "media.bind has no address of this family";
                self.fault("media.public_addresses", &format!("[\"{address}\"]"), rule);
            }
        }
        let cores = match sealcast_io::usable_cores() {
            Ok(cores) => cores.len() as u64,
            Err(error) => {
                self.fault(
                    "media.shards",
                    "0",
                    &format!("cores cannot be counted: {error}"),
                );
                return;
            }
        };
        let shards = match s.media_shards.get() {
            0 => cores,
            n => n,
        };
        if s.media_pin && shards > cores {
            let rule = format!(
                "must be at most {cores}, the cores that the process may use, or media.pin false"
            );
            self.fault("media.shards", &shards.to_string(), &rule);
        }
        for (key, port) in [
            ("media.udp_port", s.media_udp_port.get()),
            ("media.tcp_port", s.media_tcp_port.get()),
        ] {
            if port != 0 && port + shards - 1 > PORTS {
                let rule = format!(
                    "leaves no ports for {shards} shards: must be at most {}",
                    PORTS + 1 - shards
                );
                self.fault(key, &port.to_string(), &rule);
            }
        }
    }
}

/// The control plane's name for an algorithm.
pub(crate) const fn algorithm(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Es256 => Algorithm::Es256,
        TokenAlgorithm::EdDsa => Algorithm::EdDsa,
        TokenAlgorithm::Hs256 => Algorithm::Hs256,
    }
}

/// The SRTP crate's name for a back end.
pub(crate) const fn backend(backend: SrtpBackend) -> Backend {
    match backend {
        SrtpBackend::AwsLcRs => Backend::AwsLcRs,
        SrtpBackend::OpenSsl => Backend::OpenSsl,
    }
}

/// The model's names for codecs.
pub(crate) fn codecs(audio: &[AudioCodec], video: &[VideoCodec]) -> (Vec<Codec>, Vec<Codec>) {
    let audio = audio.iter().map(|c| match c {
        AudioCodec::Opus => Codec::Opus,
        AudioCodec::Red => Codec::Red,
    });
    let video = video.iter().map(|c| match c {
        VideoCodec::Vp8 => Codec::Vp8,
        VideoCodec::Vp9 => Codec::Vp9,
        VideoCodec::Av1 => Codec::Av1,
        VideoCodec::H264 => Codec::H264,
    });
    (audio.collect(), video.collect())
}
