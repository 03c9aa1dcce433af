//! The key of the delivery services of rooms with group keys, from a file or made for this run.

use crate::config::Settings;
use crate::config::schema::{GroupSuite, Keys};
use sealcast_delivery::{DeliveryError, DeliveryKey, SUITES};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a seed.
pub(crate) const SEED_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    /// The file.
    #[error("rooms.delivery_seed = {0:?}: {1}")]
    File(PathBuf, io::Error),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Random(#[from] openssl::error::ErrorStack),
    /// The seed makes no key of the suite.
    #[error("rooms.delivery_seed: {0}")]
    Key(#[from] DeliveryError),
}

/// The key, where rooms have group keys.
pub(crate) fn key(settings: &Settings) -> Result<Option<Arc<DeliveryKey>>, SeedError> {
    if settings.rooms_keys == Keys::Link {
        return Ok(None);
    }
    let seed = match &settings.rooms_delivery_seed {
        Some(path) => kept(path)?,
        None => fresh()?,
    };
    let suite = match settings.rooms_group_suite {
        GroupSuite::X25519 => SUITES[0],
        GroupSuite::P256 => SUITES[1],
    };
    Ok(Some(Arc::new(DeliveryKey::from_seed(suite, &seed)?)))
}

/// Reads a seed.
pub(crate) fn read(path: &Path) -> io::Result<[u8; SEED_BYTES]> {
    let mut content = Vec::new();
    // A byte more than fits, so that a longer file is noticed, and a device is not read forever.
    let limit = SEED_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    content
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "must have 32 bytes"))
}

/// The seed in the file, which is made if it is not there.
fn kept(path: &Path) -> Result<[u8; SEED_BYTES], SeedError> {
    let fault = |error| SeedError::File(path.to_owned(), error);
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result.map_err(fault),
    }
    let seed = fresh()?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&seed).and_then(|()| file.sync_all()))
        .map_err(fault)?;
    tracing::info!(?path, "a seed for the delivery service was made");
    Ok(seed)
}

fn fresh() -> Result<[u8; SEED_BYTES], SeedError> {
    let mut seed = [0; SEED_BYTES];
    openssl::rand::rand_bytes(&mut seed)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_seed_is_made_once_for_its_owner_alone_and_a_wrong_one_is_refused() {
        let dir = std::env::temp_dir().join(format!("sealcast-seed-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("seed");
        let seed = kept(&path).unwrap();
        assert_eq!(kept(&path).unwrap(), seed);
        assert_ne!(fresh().unwrap(), seed);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for len in [0, 31, 33] {
            std::fs::write(&path, vec![1; len]).unwrap();
            assert!(matches!(kept(&path), Err(SeedError::File(..))), "{len}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
