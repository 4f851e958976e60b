//! DescribeLogDirs: versions 1 to 5. How much room each partition takes here, and how much its disk has.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use klamm_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::{Context, Refusal};
use crate::metrics::space;
use crate::replica::partition::Partition;

/// Answers for the one log directory there is. Partitions asked for that are not here are left out, as in Kafka.
pub async fn handle(cx: &Context<'_>, request: DescribeLogDirsRequest) -> Result<DescribeLogDirsResponse, Refusal> {
    let replicas = &cx.broker.replicas;
    let partitions = match &request.topics {
        None => replicas.partitions(),
        Some(topics) => {
            let asked = topics.iter().flat_map(|t| t.partitions.iter().map(|index| (t.topic.as_str(), *index)));
            asked.filter_map(|(name, index)| replicas.by_name(name, index).ok()).collect()
        }
    };
    let dir = replicas.storage().path().clone();
    let cordoned = replicas.config().is_cordoned(&dir);
    // The file system may be slow to answer: on a network, or when its disk fails.
    let looked = dir.clone();
    let space = tokio::task::spawn_blocking(move || space(&looked)).await.ok().flatten();
    let bytes = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1);
    let result = DescribeLogDirsResult {
        log_dir: std::path::absolute(&dir).unwrap_or(dir).display().to_string(),
        topics: topics(&partitions),
        total_bytes: bytes(space.as_ref().map(|(_, total, _)| *total)),
        usable_bytes: bytes(space.as_ref().map(|(_, _, free)| *free)),
        is_cordoned: cordoned,
        ..Default::default()
    };
    Ok(DescribeLogDirsResponse { results: vec![result], ..Default::default() })
}

/// Partitions by topic, in order, each once.
fn topics(partitions: &[Arc<Partition>]) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<&str, BTreeMap<i32, &Arc<Partition>>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic.name).or_default().insert(partition.index, partition);
    }
    let described = |partition: &Arc<Partition>| {
        let offsets = partition.offsets();
        DescribeLogDirsPartition {
            partition_index: partition.index,
            partition_size: partition.size_bytes(),
            // How far the log's end is behind what is committed: a follower that has just started to catch up.
            offset_lag: (offsets.high_watermark - offsets.log_end).max(0),
            ..Default::default()
        }
    };
    let topics = topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic {
        name: name.to_owned(),
        partitions: partitions.into_values().map(described).collect(),
        ..Default::default()
    });
    topics.collect()
}
