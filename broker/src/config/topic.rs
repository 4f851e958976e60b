//! A topic's configuration, typed: its own entries over the broker's layers.

use std::sync::Arc;

use klamm_log::LogConfig;

use super::key::Value;
use super::keys;
use super::layers::Layers;
use super::settings::Entries;
use crate::replica::throttle::ThrottledReplicas;

/// How batches of a topic are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer sent them.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip, with a level.
    Gzip(i32),
    /// snappy.
    Snappy,
    /// lz4, with a level.
    Lz4(i32),
    /// zstd, with a level.
    Zstd(i32),
}

/// What a topic is configured to, and what its log needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// Segments, retention, compaction, flushing.
    pub log: Arc<LogConfig>,
    /// `compression.type` with the level of that codec.
    pub compression: TopicCompression,
    /// `max.message.bytes`: largest batch, as sent.
    pub max_message_bytes: i32,
    /// `max.decompressed.message.bytes`: most bytes a batch may become.
    pub max_decompressed_message_bytes: i32,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
    /// `leader.replication.throttled.replicas`.
    pub leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`.
    pub follower_throttled: ThrottledReplicas,
}

impl TopicConfig {
    /// The configuration of a topic that has these entries of its own.
    pub fn resolve(layers: &Layers, own: &Entries) -> TopicConfig {
        let get = |name: &str| keys::find_topic(name).and_then(|key| layers.resource_value(key, own));
        // The table gives every key read here a default of the right type; a test resolves a topic without entries.
        let long = |name: &str| match get(name) {
            Some(Value::Number(n)) => n,
            _ => 0,
        };
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let size = |name: &str| u32::try_from(long(name)).unwrap_or(0);
        let text = |name: &str| get(name).map(|value| value.to_string()).unwrap_or_default();
        let flag = |name: &str| get(name) == Some(Value::Bool(true));
        let policies = text("cleanup.policy");
        let policy = |name: &str| policies.split(',').any(|p| p == name);
        let internal_size = get("internal.segment.bytes").map(|_| size("internal.segment.bytes")).filter(|n| *n > 0);
        TopicConfig {
            log: Arc::new(LogConfig {
                segment_bytes: internal_size.unwrap_or_else(|| size("segment.bytes")),
                segment_ms: long("segment.ms"),
                segment_jitter_ms: long("segment.jitter.ms"),
                jitter_seed: 0,
                segment_index_bytes: size("segment.index.bytes"),
                index_interval_bytes: size("index.interval.bytes"),
                delete: policy("delete"),
                compact: policy("compact"),
                retention_ms: long("retention.ms"),
                retention_bytes: long("retention.bytes"),
                file_delete_delay_ms: long("file.delete.delay.ms"),
                flush_messages: long("flush.messages"),
                flush_ms: long("flush.ms"),
                delete_retention_ms: long("delete.retention.ms"),
                min_compaction_lag_ms: long("min.compaction.lag.ms"),
                max_compaction_lag_ms: long("max.compaction.lag.ms"),
                min_cleanable_dirty_ratio: match get("min.cleanable.dirty.ratio") {
                    Some(Value::Double(ratio)) => ratio,
                    _ => 0.5,
                },
                producer_id_expiration_ms: layers.number("producer.id.expiration.ms"),
            }),
            compression: match text("compression.type").as_str() {
                "uncompressed" => TopicCompression::Uncompressed,
                "gzip" => TopicCompression::Gzip(int("compression.gzip.level")),
                "snappy" => TopicCompression::Snappy,
                "lz4" => TopicCompression::Lz4(int("compression.lz4.level")),
                "zstd" => TopicCompression::Zstd(int("compression.zstd.level")),
                _ => TopicCompression::Producer,
            },
            max_message_bytes: int("max.message.bytes"),
            max_decompressed_message_bytes: int("max.decompressed.message.bytes"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            unclean_leader_election: flag("unclean.leader.election.enable"),
            leader_throttled: ThrottledReplicas::parse(text("leader.replication.throttled.replicas").split(',')),
            follower_throttled: ThrottledReplicas::parse(text("follower.replication.throttled.replicas").split(',')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_key_that_is_read_is_said_to_act() {
        let source = include_str!("topic.rs");
        let read = source.split(&['"'][..]).filter_map(keys::find_topic);
        let silent: Vec<&str> = read.filter(|key| key.doc.is_none()).map(|key| key.name).collect();
        assert!(silent.is_empty(), "{silent:?}");
    }

    #[test]
    fn a_topic_without_entries_has_kafkas_defaults() {
        let topic = TopicConfig::resolve(&Layers::default(), &Entries::new());
        let expected = TopicConfig {
            log: Arc::default(),
            compression: TopicCompression::Producer,
            max_message_bytes: 1_048_588,
            max_decompressed_message_bytes: 2_147_483_639,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: 1,
            unclean_leader_election: false,
            leader_throttled: ThrottledReplicas::None,
            follower_throttled: ThrottledReplicas::None,
        };
        assert_eq!(topic, expected);
    }

    #[test]
    fn own_entries_win_over_the_brokers() {
        let layers = Layers::new(entries(&[
            ("log.segment.bytes", "2000000"),
            ("log.roll.hours", "1"),
            ("compression.type", "zstd"),
            ("compression.zstd.level", "5"),
            ("log.cleanup.policy", "compact"),
            ("producer.id.expiration.ms", "77"),
        ]));
        let topic =
            TopicConfig::resolve(&layers, &entries(&[("cleanup.policy", "compact,delete"), ("segment.ms", "9")]));
        assert_eq!((topic.log.segment_bytes, topic.log.segment_ms), (2_000_000, 9));
        assert_eq!(topic.compression, TopicCompression::Zstd(5));
        assert!(topic.log.compact && topic.log.delete);
        assert_eq!(topic.log.producer_id_expiration_ms, 77);
        let inherits = TopicConfig::resolve(&layers, &Entries::new());
        assert!(inherits.log.compact && !inherits.log.delete);
        assert_eq!(inherits.log.segment_ms, 3_600_000);
        let keeps =
            TopicConfig::resolve(&layers, &entries(&[("cleanup.policy", ""), ("internal.segment.bytes", "1000")]));
        assert!(!keeps.log.compact && !keeps.log.delete && keeps.log.segment_bytes == 1000);
    }
}
