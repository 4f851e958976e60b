//! The topics that the cluster makes for itself, with the configuration their use needs.

use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use crate::names;

/// Sizes of the internal topics, from the broker's configuration.
#[derive(Clone, Copy, Debug)]
pub struct InternalTopics {
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// `offsets.topic.replication.factor`, already lowered to the brokers there are when that is allowed.
    pub offsets_replication: i16,
    /// `offsets.topic.segment.bytes`.
    pub offsets_segment_bytes: i32,
    /// `transaction.state.log.num.partitions`.
    pub transactions_partitions: i32,
    /// `transaction.state.log.replication.factor`, lowered likewise.
    pub transactions_replication: i16,
    /// `transaction.state.log.min.isr`.
    pub transactions_min_isr: i32,
    /// `transaction.state.log.segment.bytes`.
    pub transactions_segment_bytes: i32,
}

impl Default for InternalTopics {
    fn default() -> Self {
        Self {
            offsets_partitions: 50,
            offsets_replication: 3,
            offsets_segment_bytes: 104_857_600,
            transactions_partitions: 50,
            transactions_replication: 3,
            transactions_min_isr: 2,
            transactions_segment_bytes: 104_857_600,
        }
    }
}

/// How to create an internal topic; None for any other name.
pub fn internal_topic(name: &str, sizes: &InternalTopics) -> Option<CreatableTopic> {
    let (num_partitions, replication_factor, configs) = match name {
        names::CONSUMER_OFFSETS => (
            sizes.offsets_partitions,
            sizes.offsets_replication,
            vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", sizes.offsets_segment_bytes.to_string()),
            ],
        ),
        names::TRANSACTION_STATE => (
            sizes.transactions_partitions,
            sizes.transactions_replication,
            vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("min.insync.replicas", sizes.transactions_min_isr.to_string()),
                ("segment.bytes", sizes.transactions_segment_bytes.to_string()),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        ),
        _ => return None,
    };
    let config = |(name, value): (&str, String)| CreatableTopicConfig { name: name.to_owned(), value: Some(value) };
    Some(CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor,
        configs: configs.into_iter().map(config).collect(),
        ..CreatableTopic::default()
    })
}
