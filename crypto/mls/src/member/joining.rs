//! Ways into a group: made at the relay's word, or entered by a Welcome.

use super::*;

impl Member {
    pub(super) fn create(
        &mut self,
        now: Duration,
        group_id: &[u8],
        suite: u16,
        external_sender: &[u8],
    ) -> Result<(), HandleError> {
        if suite != self.key.suite().number() || group_id.len() != GROUP_ID_LEN {
            return self.refuse_group(Refusal::Parameters);
        }
        self.drop_group();
        let sender = ExternalSender::new(
            external_sender.into(),
            BasicCredential::new(DELIVERY_SERVICE_IDENTITY.to_vec()).into(),
        );
        let extensions = Extensions::single(Extension::ExternalSenders(vec![sender]))
            .map_err(HandleError::library)?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(self.key.suite().mls())
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .capabilities(self.capabilities())
            .with_group_context_extensions(extensions)
            .build();
        let group = MlsGroup::new_with_group_id(
            &self.provider,
            self.key.pair(),
            &config,
            GroupId::from_slice(group_id),
            self.credential.clone(),
        )
        .map_err(HandleError::library)?;
        self.group = Some(group);
        self.send_group_info()?;
        self.on_new_epoch(now)
    }

    pub(super) fn join(&mut self, now: Duration, message: &[u8]) -> Result<(), HandleError> {
        let MlsMessageBodyIn::Welcome(welcome) = parse(message)? else {
            return Err(HandleError::MlsFormat("welcome"));
        };
        match self.stage_welcome(welcome) {
            Ok(group) => {
                self.group = Some(group);
                self.on_new_epoch(now)
            }
            Err(refusal) => self.refuse_group(refusal),
        }
    }

    pub(super) fn stage_welcome(&mut self, welcome: Welcome) -> Result<MlsGroup, Refusal> {
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        // A Welcome replaces whatever group there is, but only once it has proved good.
        let staged = StagedWelcome::build_from_welcome(&self.provider, &config, welcome)
            .map_err(|error| fault::welcome(&error))?
            .replace_old_group()
            .build()
            .map_err(|error| fault::welcome(&error))?;
        if staged.group_context().ciphersuite() != self.key.suite().mls() {
            return Err(Refusal::Parameters);
        }
        let external_senders = staged.group_context().extensions().external_senders();
        commit::check_group(staged.members(), external_senders, &self.judge())?;
        self.drop_group();
        staged
            .into_group(&self.provider)
            .map_err(|error| fault::welcome(&error))
    }

    pub(super) fn refuse_group(&mut self, refusal: Refusal) -> Result<(), HandleError> {
        if !matches!(refusal, Refusal::Invalid { .. }) {
            // To ask again would not make it better.
            self.join_retry = None;
        }
        self.push_event(Event::GroupRefused {
            reason: refusal.to_string(),
        });
        Err(refusal.into())
    }

    pub(super) fn send_group_info(&mut self) -> Result<(), HandleError> {
        let group = self.group.as_ref().ok_or(HandleError::NoGroup)?;
        let message = group
            .export_group_info(self.provider.crypto(), self.key.pair(), true)
            .map_err(HandleError::library)?
            .to_bytes()
            .map_err(HandleError::library)?;
        self.send(&ToService::GroupInfo {
            message: message.into(),
        })
    }

    pub(super) fn send_hello(&mut self, now: Duration) -> Result<(), HandleError> {
        self.hello_at = now;
        self.resync_at = None;
        let resume = match &self.group {
            Some(group) => Some(Resume {
                group_id: group.group_id().to_vec().into(),
                epoch: group.epoch().as_u64(),
                confirmation_tag: self.confirmation_tag()?,
            }),
            None => None,
        };
        let key_packages = self.new_key_packages()?;
        self.send(&ToService::Hello {
            resume,
            key_packages,
        })
    }

    pub(super) fn new_key_packages(&self) -> Result<Vec<VLBytes>, HandleError> {
        (0..KEY_PACKAGES)
            .map(|_| {
                let bundle = KeyPackage::builder()
                    .key_package_lifetime(Lifetime::new(KEY_PACKAGE_LIFETIME.as_secs()))
                    .leaf_node_capabilities(self.capabilities())
                    .build(
                        self.key.suite().mls(),
                        &self.provider,
                        self.key.pair(),
                        self.credential.clone(),
                    )
                    .map_err(HandleError::library)?;
                let message = openmls::prelude::MlsMessageOut::from(bundle.into_key_package());
                Ok(message.to_bytes().map_err(HandleError::library)?.into())
            })
            .collect()
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities::builder()
            .ciphersuites(vec![self.key.suite().mls()])
            .build()
    }
}
