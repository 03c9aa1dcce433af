//! A relay in this process and its clients in another: what is measured at set rates.

use crate::Result;
use crate::cli::Place;
use crate::client::Features;
use crate::crowd::{Crowd, topology};
use crate::relay::Relay;
use sealcast_io::ShardIoConfig;
use sealcast_srtp::{Backend, Profile};

/// A relay with a publisher and its receivers, connected and subscribed.
pub struct Setting {
    /// How many receive.
    pub receivers: usize,
    /// The relay, a shard on its CPU.
    pub relay: Relay,
    /// The clients, on the other CPU.
    pub crowd: Crowd,
}

impl Setting {
    /// Starts both and connects them. `adjust` may change the shard's configuration.
    ///
    /// # Errors
    /// If either does not start, or a client does not connect.
    pub fn connect(
        place: &Place,
        profile: Profile,
        receivers: usize,
        features: Features,
        adjust: impl FnOnce(&mut ShardIoConfig),
    ) -> Result<Setting> {
        let mut crowd = Crowd::start(&std::env::current_exe()?, place.other_cpu)?;
        let relay = Relay::start(Backend::AwsLcRs, place.cpu, adjust)?;
        crowd.connect(&relay, profile, receivers, features)?;
        relay.subscribe(&topology(receivers), features)?;
        Ok(Setting {
            receivers,
            relay,
            crowd,
        })
    }
}
