//! What changes when the group enters a new epoch, and when this member is out of it: keys and the
//! list of members.

use super::*;

impl Member {
    /// The group entered a new epoch: takes its keys, tells the delivery service and the
    /// application.
    pub(super) fn on_new_epoch(&mut self, now: Duration) -> Result<(), HandleError> {
        let group = self.group.as_ref().ok_or(HandleError::NoGroup)?;
        self.join_retry = None;
        self.in_flight = None;
        self.outstanding_since = None;
        self.rotation_asked = false;
        self.epoch_started = now;
        self.not_before = now;
        if !group.is_active() {
            self.push_event(Event::Removed);
            self.drop_group();
            return Ok(());
        }
        let secrets = self.export_secrets(group)?;
        let epoch = secrets.epoch;
        let seals = self.epochs.start(now, secrets);
        let (joined, left) = self.update_identities();
        self.push_event(Event::Epoch {
            epoch,
            joined,
            left,
        });
        if seals {
            self.push_event(Event::Sending { epoch });
        }
        let confirmation_tag = self.confirmation_tag()?;
        self.send(&ToService::Ready {
            epoch,
            confirmation_tag,
        })
    }

    pub(super) fn confirmation_tag(&self) -> Result<VLBytes, HandleError> {
        let group = self.group.as_ref().ok_or(HandleError::NoGroup)?;
        let tag = group.confirmation_tag().tls_serialize_detached();
        Ok(tag.map_err(HandleError::library)?.into())
    }

    pub(super) fn export_secrets(&self, group: &MlsGroup) -> Result<EpochSecrets, HandleError> {
        let provider = &self.provider;
        let media_len = self.config.media_suite.key_len();
        let media = export(provider, group, epochs::EXPORTER_LABEL, media_len)?;
        let metadata = export(
            provider,
            group,
            metadata::EXPORTER_LABEL,
            metadata::SECRET_LEN,
        )?;
        let metadata: [u8; metadata::SECRET_LEN] =
            metadata[..].try_into().map_err(HandleError::library)?;
        let last_leaf = group.members().map(|member| member.index.u32()).max();
        let leaves = last_leaf.map_or(0, |last| last + 1);
        Ok(EpochSecrets {
            group_id: group.group_id().to_vec(),
            epoch: group.epoch().as_u64(),
            leaves,
            own_leaf: u16::try_from(group.own_leaf_index().u32()).map_err(|_| Refusal::TooLarge)?,
            media,
            metadata: Zeroizing::new(metadata),
        })
    }

    /// Brings the list of members up to date; returns the leaves of who is new and who is gone.
    pub(super) fn update_identities(&mut self) -> (Vec<u16>, Vec<u16>) {
        let Some(group) = self.group.as_ref() else {
            return (Vec::new(), Vec::new());
        };
        let mut before = std::mem::take(&mut self.identities);
        let mut joined = Vec::new();
        for member in group.members() {
            let Ok(leaf) = u16::try_from(member.index.u32()) else {
                continue;
            };
            let identity = match before.remove(&leaf) {
                Some((key, identity)) if key == member.signature_key => identity,
                other => {
                    before.extend(other.map(|gone| (leaf, gone)));
                    joined.push(leaf);
                    let judge = Judge {
                        issuer: self.config.issuer.as_ref(),
                        suite: self.key.suite(),
                    };
                    judge.identity(&member.credential, &member.signature_key, None)
                }
            };
            self.identities
                .insert(leaf, (member.signature_key, identity));
        }
        (joined, before.into_keys().collect())
    }

    /// Forgets the group and every key of it.
    pub(super) fn drop_group(&mut self) {
        self.epochs.clear();
        self.identities.clear();
        self.in_flight = None;
        self.outstanding_since = None;
        if let Some(mut group) = self.group.take() {
            // The store is in memory: it fails only if a thread panicked while it held the lock.
            group
                .delete(self.provider.storage())
                .expect("storage in memory");
        }
    }
}

pub(super) fn export(
    provider: &OpenMlsRustCrypto,
    group: &MlsGroup,
    label: &str,
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, HandleError> {
    group
        .export_secret(provider.crypto(), label, &[], len)
        .map(Zeroizing::new)
        .map_err(HandleError::library)
}
