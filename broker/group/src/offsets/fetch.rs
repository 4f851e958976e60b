//! OffsetFetch, versions 1 to 10. 2: null topics ask for all. 7: require_stable. 8: many groups. 10: topics by id.

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::store::OffsetEntry;
use crate::coordinator::Coordinator;
use crate::refuse;
use crate::topics::Topics;

impl Coordinator {
    /// One group of an OffsetFetch. A group that does not exist has no offsets, which is no error.
    ///
    /// `require_stable` has nothing to wait for yet: offsets become pending only through transactions.
    pub fn offset_fetch(
        &self,
        group: &OffsetFetchRequestGroup,
        _require_stable: bool,
        version: i16,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseGroup {
        let answers = match &group.topics {
            Some(asked) => asked.iter().map(|t| self.fetch_topic(&group.group_id, t, version, topics)).collect(),
            None => self.fetch_all(&group.group_id, version, topics),
        };
        OffsetFetchResponseGroup { group_id: group.group_id.clone(), topics: answers, ..Default::default() }
    }

    fn fetch_topic(
        &self,
        group: &str,
        asked: &OffsetFetchRequestTopics,
        version: i16,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseTopics {
        let resolved = resolve(asked, version, topics).map(|(name, id)| (self.offsets.of_group(group).find(&name), id));
        let partitions = asked.partition_indexes.iter().map(|&index| match &resolved {
            Err(code) => refuse::offset_fetch_partition(index, *code),
            Ok((offsets, id)) => match offsets.and_then(|o| o.get(index)).filter(|e| e.is_of(*id)) {
                Some(entry) => answer(index, entry),
                None if offsets.is_some_and(|o| o.gained(index, *id)) && topics.guarded(group) => at_beginning(index),
                None => refuse::offset_fetch_partition(index, ErrorCode::None),
            },
        });
        OffsetFetchResponseTopics {
            name: asked.name.clone(),
            topic_id: asked.topic_id,
            partitions: partitions.collect(),
        }
    }

    fn fetch_all(&self, group: &str, version: i16, topics: &dyn Topics) -> Vec<OffsetFetchResponseTopics> {
        let mut answers = Vec::new();
        for of_topic in self.offsets.of_group(group).topics() {
            let name = &of_topic.topic;
            if !topics.authorized(name) {
                continue;
            }
            let topic_id = topics.topic(name).map_or(Uuid::ZERO, |facts| facts.id);
            if version >= 10 && topic_id.is_zero() {
                // There is no way to name it.
                continue;
            }
            let current = of_topic.iter().filter(|(_, entry)| entry.is_of(topic_id));
            let partitions: Vec<_> = current.map(|(index, entry)| answer(index, entry)).collect();
            if !partitions.is_empty() {
                answers.push(OffsetFetchResponseTopics { name: name.to_string(), topic_id, partitions });
            }
        }
        answers
    }
}

/// The topic's name and its id now. By name an unknown topic is no error: its offsets may still be there.
fn resolve(asked: &OffsetFetchRequestTopics, version: i16, topics: &dyn Topics) -> Result<(String, Uuid), ErrorCode> {
    let name =
        if version >= 10 { topics.name(asked.topic_id).ok_or(ErrorCode::UnknownTopicId)? } else { asked.name.clone() };
    if !topics.authorized(&name) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let id = if version >= 10 { asked.topic_id } else { topics.topic(&name).map_or(Uuid::ZERO, |facts| facts.id) };
    Ok((name, id))
}

fn answer(partition_index: i32, entry: &OffsetEntry) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: entry.offset,
        committed_leader_epoch: entry.leader_epoch,
        metadata: Some(entry.metadata.to_string()),
        error_code: 0,
    }
}

/// A partition that is as good as committed where it begins.
fn at_beginning(partition_index: i32) -> OffsetFetchResponsePartitions {
    let metadata = Some(String::new());
    OffsetFetchResponsePartitions {
        committed_offset: 0,
        metadata,
        ..refuse::offset_fetch_partition(partition_index, ErrorCode::None)
    }
}

/// The groups an OffsetFetch asks for, in the shape of version 8 and later.
pub fn offset_fetch_groups(request: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= 8 {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|t| OffsetFetchRequestTopics {
                name: t.name,
                partition_indexes: t.partition_indexes,
                ..Default::default()
            })
            .collect()
    });
    vec![OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() }]
}

/// The answer to an OffsetFetch from the answers of its groups, in the shape of the version.
pub fn offset_fetch_response(mut groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let group = groups.pop().unwrap_or_default();
    let topics = group.topics.into_iter().map(|t| OffsetFetchResponseTopic {
        name: t.name,
        partitions: t
            .partitions
            .into_iter()
            .map(|p| OffsetFetchResponsePartition {
                partition_index: p.partition_index,
                committed_offset: p.committed_offset,
                committed_leader_epoch: p.committed_leader_epoch,
                metadata: p.metadata,
                error_code: p.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}
