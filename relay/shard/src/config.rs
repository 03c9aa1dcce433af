//! What an operator may set about one shard.

use sealcast_media::MediaConfig;

/// Size of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Limits of rooms, tracks and subscriptions; `media.peers` is also the limit of sessions.
    pub media: MediaConfig,
    /// Slots of the packet pool, 1,536 bytes each. They hold packets between their arrival and
    /// the flush after it, and each track's recent history.
    pub pool_packets: usize,
    /// Feeds SSRCs, sequence numbers and jitter. Different for each shard.
    pub seed: u64,
}

impl Default for ShardConfig {
    /// 64 Mi of packets: a second of 350 Mbit/s.
    fn default() -> Self {
        ShardConfig {
            media: MediaConfig::default(),
            pool_packets: 43_690,
            seed: 0,
        }
    }
}
