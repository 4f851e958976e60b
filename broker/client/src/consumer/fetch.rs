//! One Fetch request to one leader, without a fetch session, and the reading of its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::PartitionData;

use super::ConsumerOptions;
use super::records::{Read, read};
use crate::TopicPartition;
use crate::client::Client;
use crate::error::{ClientError, Result};

/// A partition to be fetched.
pub(super) struct Part {
    pub(super) at: TopicPartition,
    pub(super) topic: Arc<str>,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) term: u64,
}

/// What came of a fetch.
pub(super) struct Fetched {
    pub(super) leader: i32,
    pub(super) parts: Vec<(Part, Result<Read>)>,
}

/// Fetches from one leader. When the answer says that leaders have changed, metadata is asked for
/// before this returns, so that the next fetch goes to the right one.
pub(super) async fn fetch(client: Client, options: ConsumerOptions, leader: i32, parts: Vec<Part>) -> Fetched {
    let answer = request(&client, &options, leader, &parts).await;
    let mut stale = false;
    let parts = parts.into_iter().map(|part| {
        let result = match &answer {
            Ok(answer) => match answer.get(&part.at) {
                Some(data) => read_partition(&part, data, &options),
                None => Err(ClientError::missing(format!("the fetch of {}", part.at))),
            },
            Err(error) => Err(error.clone()),
        };
        stale |= result.as_ref().is_err_and(ClientError::is_stale_metadata);
        (part, result)
    });
    let parts: Vec<(Part, Result<Read>)> = parts.collect();
    if stale {
        let topics = parts.iter().map(|(part, _)| part.at.topic.clone()).collect();
        // When this fails too, so does the next fetch, which says why.
        let _ = client.refresh_known_and(topics).await;
    }
    Fetched { leader, parts }
}

fn read_partition(part: &Part, data: &PartitionData, options: &ConsumerOptions) -> Result<Read> {
    ClientError::check(format!("reading {}", part.at), data.error_code, None)?;
    read(part, data, options)
}

async fn request(
    client: &Client,
    options: &ConsumerOptions,
    leader: i32,
    parts: &[Part],
) -> Result<BTreeMap<TopicPartition, PartitionData>> {
    let cluster = client.cluster();
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    let mut order = Vec::new();
    for part in parts {
        let topic = topics.entry(&part.at.topic).or_insert_with(|| {
            order.push(part.at.topic.as_str());
            FetchTopic {
                topic: part.at.topic.clone(),
                topic_id: cluster.topics.get(&part.at.topic).map(|t| t.id).unwrap_or_default(),
                partitions: Vec::new(),
            }
        });
        topic.partitions.push(FetchPartition {
            partition: part.at.partition,
            current_leader_epoch: part.leader_epoch,
            fetch_offset: part.offset,
            partition_max_bytes: options.partition_max_bytes,
            ..Default::default()
        });
    }
    let topics: Vec<FetchTopic> = order.iter().filter_map(|name| topics.remove(name)).collect();
    let ids_known = topics.iter().all(|t| !t.topic_id.is_zero());
    let request = FetchRequest {
        max_wait_ms: i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: options.min_bytes,
        max_bytes: options.max_bytes,
        isolation_level: options.isolation as i8,
        topics,
        ..Default::default()
    };
    // When there is none, or none known yet, metadata is asked for and we come back.
    let connection = client.to_leader(leader).await?;
    // From version 13 on topics go by id alone.
    let version = connection.version_below::<FetchRequest>(if ids_known { i16::MAX } else { 12 })?;
    let limit = client.options().connection.request_timeout + options.max_wait;
    let limit = limit.max(Duration::from_secs(1));
    let answer = connection.start(&request, version, limit).await?.answer().await?;
    ClientError::check("fetching", answer.error_code, None)?;
    let mut partitions = BTreeMap::new();
    for topic in answer.responses {
        let name = if topic.topic.is_empty() {
            match cluster.topics.values().find(|t| t.id == topic.topic_id) {
                Some(known) => known.name.clone(),
                None => continue,
            }
        } else {
            topic.topic
        };
        for data in topic.partitions {
            partitions.insert(TopicPartition::new(name.clone(), data.partition_index), data);
        }
    }
    Ok(partitions)
}
