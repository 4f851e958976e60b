//! DescribeTopicPartitions: topics in order of their names, a page of partitions at a time (KIP-966).

use std::collections::BTreeSet;
use std::ops::Bound;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use klamm_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use crate::controller::{ApiError, Operation};
use crate::image::{Image, NO_LEADER, Partition, Topic};
use crate::names;

/// One page of the answer. `limit_max` is `max.request.partition.size.limit`. Topics that the requester may not
/// see are refused when the request names them, and left out otherwise.
pub fn describe_topic_partitions(
    image: &Image,
    request: &DescribeTopicPartitionsRequest,
    limit_max: i32,
    may: &dyn Fn(Operation, &str) -> bool,
) -> Result<DescribeTopicPartitionsResponse, ApiError> {
    let cursor = request.cursor.as_ref();
    if let Some(cursor) = cursor.filter(|c| c.partition_index < 0) {
        let text = format!("The cursor's partition {} is negative.", cursor.partition_index);
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    let start = cursor.map_or("", |c| c.topic_name.as_str());
    let first = |name: &str| cursor.filter(|c| c.topic_name == name).map_or(0, |c| c.partition_index);
    let mut page = Page {
        response: DescribeTopicPartitionsResponse::default(),
        room: request.response_partition_limit.min(limit_max).max(1) as usize,
    };
    if request.topics.is_empty() {
        for topic in image.topics_from(Bound::Included(start)) {
            if may(Operation::Describe, &topic.name) && !page.add(image, topic, first(&topic.name)) {
                break;
            }
        }
        return Ok(page.response);
    }
    let wanted: BTreeSet<&str> = request.topics.iter().map(|t| t.name.as_str()).collect();
    for name in wanted.range(start..) {
        let refuse = |code: ErrorCode| DescribeTopicPartitionsResponseTopic {
            error_code: code.code(),
            name: Some((*name).to_owned()),
            is_internal: names::is_internal(name),
            ..DescribeTopicPartitionsResponseTopic::default()
        };
        match image.topic(name) {
            _ if !may(Operation::Describe, name) => {
                page.response.topics.push(refuse(ErrorCode::TopicAuthorizationFailed));
            }
            None if names::check(name).is_err() => page.response.topics.push(refuse(ErrorCode::InvalidTopicException)),
            None => page.response.topics.push(refuse(ErrorCode::UnknownTopicOrPartition)),
            Some(topic) => {
                if !page.add(image, topic, first(name)) {
                    break;
                }
            }
        }
    }
    Ok(page.response)
}

struct Page {
    response: DescribeTopicPartitionsResponse,
    room: usize,
}

impl Page {
    /// Adds a topic from its partition `first` on; false when the page is full and the cursor set.
    fn add(&mut self, image: &Image, topic: &Topic, first: i32) -> bool {
        let cursor = |partition_index: i32| Cursor { topic_name: topic.name.to_string(), partition_index };
        if self.room == 0 {
            self.response.next_cursor = Some(cursor(first));
            return false;
        }
        let rest = topic.partitions.get(first as usize..).unwrap_or_default();
        let partitions = (first..).zip(rest).take(self.room).map(|(number, p)| describe(image, number, p));
        let partitions: Vec<_> = partitions.collect();
        let taken = partitions.len();
        self.room -= taken;
        self.response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            is_internal: names::is_internal(&topic.name),
            partitions,
            ..DescribeTopicPartitionsResponseTopic::default()
        });
        if taken < rest.len() {
            self.response.next_cursor = Some(cursor(first + taken as i32));
            return false;
        }
        true
    }
}

fn describe(image: &Image, number: i32, partition: &Partition) -> DescribeTopicPartitionsResponsePartition {
    let alive = |id: i32| image.broker(id).is_some_and(|b| !b.fenced);
    let led = alive(partition.leader);
    DescribeTopicPartitionsResponsePartition {
        error_code: if led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable }.code(),
        partition_index: number,
        leader_id: if led { partition.leader } else { NO_LEADER },
        leader_epoch: partition.leader_epoch,
        replica_nodes: partition.replicas.clone(),
        isr_nodes: partition.isr.clone(),
        eligible_leader_replicas: Some(partition.elr.clone()),
        last_known_elr: Some(partition.last_known_elr.clone()),
        offline_replicas: partition.replicas.iter().copied().filter(|id| !alive(*id)).collect(),
    }
}
