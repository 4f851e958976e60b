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

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::describe_topic_partitions_request as ask;
    use proptest::prelude::*;

    use super::*;
    use crate::controller::tests::{context, with_brokers};
    use crate::controller::{create_topics, named_topics};

    fn cluster(partitions: &[u8]) -> Image {
        let mut image = with_brokers(&[None]);
        let names: Vec<String> = (0..partitions.len()).map(|i| format!("t{i}")).collect();
        let mut request = named_topics(names.iter().map(String::as_str));
        for (topic, n) in request.topics.iter_mut().zip(partitions) {
            topic.num_partitions = i32::from(*n);
        }
        let records = create_topics(&image, &request, &context()).records;
        image.apply_all(&records).unwrap();
        image
    }

    fn request(names: &[&str], limit: i32, cursor: Option<(String, i32)>) -> DescribeTopicPartitionsRequest {
        DescribeTopicPartitionsRequest {
            topics: names.iter().map(|n| ask::TopicRequest { name: (*n).to_owned() }).collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(topic_name, partition_index)| ask::Cursor { topic_name, partition_index }),
        }
    }

    proptest! {
        #[test]
        fn pages_put_together_are_the_whole(partitions in proptest::collection::vec(1..9u8, 0..8), limit in -1..20i32) {
            let image = cluster(&partitions);
            let mut seen = Vec::new();
            let mut cursor = None;
            for _ in 0..100 {
                let asked = request(&[], limit, cursor.take());
                let page = describe_topic_partitions(&image, &asked, 12, &|_, _| true).unwrap();
                let count: usize = page.topics.iter().map(|t| t.partitions.len()).sum();
                prop_assert!(count <= limit.clamp(1, 12) as usize);
                for topic in page.topics {
                    let name = topic.name.unwrap();
                    seen.extend(topic.partitions.iter().map(|p| (name.clone(), p.partition_index)));
                }
                match page.next_cursor {
                    Some(next) => cursor = Some((next.topic_name, next.partition_index)),
                    None => break,
                }
            }
            prop_assert!(cursor.is_none(), "pages never end");
            let all = image.topics().flat_map(|t| (0..t.partitions.len() as i32).map(|p| (t.name.to_string(), p)));
            prop_assert_eq!(seen, all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn named_topics_come_in_order_with_their_errors() {
        let image = cluster(&[2, 1]);
        let asked = request(&["t1", "no", "t0", "t1", "b d"], 2000, None);
        let page = describe_topic_partitions(&image, &asked, 2000, &|_, name| name != "t1").unwrap();
        let topics: Vec<_> = page.topics.iter().map(|t| (t.name.as_deref().unwrap(), t.error_code)).collect();
        assert_eq!(topics, [("b d", 17), ("no", 3), ("t0", 0), ("t1", 29)]);
        assert!(page.topics[3].topic_id.is_zero());
        let partition = &page.topics[2].partitions[1];
        assert_eq!((partition.leader_id, partition.error_code, &partition.offline_replicas[..]), (0, 0, &[][..]));
        // A cursor may name a topic that is gone by now.
        let asked = request(&[], 2000, Some(("t00".into(), 5)));
        let page = describe_topic_partitions(&image, &asked, 2000, &|_, _| true).unwrap();
        assert_eq!(page.topics.len(), 1);
        let asked = request(&[], 1, Some(("t0".into(), -1)));
        assert!(describe_topic_partitions(&image, &asked, 2000, &|_, _| true).is_err());
    }
}
