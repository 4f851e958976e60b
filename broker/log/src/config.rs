//! The settings one log acts on: Kafka's topic configs, already parsed and checked by the caller.
//!
//! One value is shared by all partitions of a topic, so it holds nothing of a single partition.

/// Settings of a log, under Kafka's names with `_` for `.`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is closed before it grows beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is closed when its first batch is older than this.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is taken off `segment_ms`, differently for each segment.
    pub segment_jitter_ms: i64,
    /// Seed of the jitter.
    pub jitter_seed: u64,
    /// `segment.index.bytes`: a segment is closed when an index reaches this size.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: at least this many bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `retention.ms`, or -1 for ever.
    pub retention_ms: i64,
    /// `retention.bytes`, or -1 for no limit.
    pub retention_bytes: i64,
    /// `file.delete.delay.ms`: how long removed files stay for readers that still have their name.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`: flush when this many records are not yet safe on disk.
    pub flush_messages: i64,
    /// `flush.ms`: flush when the last flush is this long ago.
    pub flush_ms: i64,
    /// `delete.retention.ms`: how long tombstones and markers survive compaction.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`: records younger than this are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: records older than this are compacted whatever the dirty ratio.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `producer.id.expiration.ms` (a broker setting): silent producers are forgotten after this.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            jitter_seed: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            delete: true,
            compact: false,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl LogConfig {
    /// The jitter of the segment at `base_offset` in the partition named by `salt`.
    pub(crate) fn jitter_ms(&self, salt: u64, base_offset: i64) -> i64 {
        let most = self.segment_jitter_ms.min(self.segment_ms);
        if most <= 0 {
            return 0;
        }
        let mixed = mix(self.jitter_seed ^ mix(salt ^ base_offset as u64));
        (mixed % most as u64) as i64
    }
}

/// A fixed bit mixer (splitmix64's), so that neighbouring inputs give unrelated outputs.
pub(crate) fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_below_its_limit_and_differs_by_segment() {
        let config = LogConfig { segment_ms: 1_000, segment_jitter_ms: 500, jitter_seed: 7, ..LogConfig::default() };
        let all: Vec<i64> = (0..100).map(|o| config.jitter_ms(3, o)).collect();
        assert!(all.iter().all(|j| (0..500).contains(j)));
        assert!(all.windows(2).any(|w| w[0] != w[1]));
        assert_eq!(all[5], config.jitter_ms(3, 5));
        assert_eq!(LogConfig::default().jitter_ms(3, 5), 0);
    }
}
