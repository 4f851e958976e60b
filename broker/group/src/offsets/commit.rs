//! OffsetCommit, versions 2 to 10. 2 to 4 carry a retention time; 10 names topics by id. An offset belongs to one
//! incarnation of a topic: its id is stored with it.

use std::sync::Arc;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::store::OffsetEntry;
use crate::coordinator::Coordinator;
use crate::records;
use crate::step::{Answer, Effect, Step, Ticket};
use crate::topics::{TopicFacts, Topics};

impl Coordinator {
    /// OffsetCommit, versions 2 to 10. Topics and partitions that do not exist, or are not for this principal, are
    /// refused one by one; the rest is judged by the group.
    pub fn offset_commit(
        &mut self,
        ticket: Ticket,
        request: &OffsetCommitRequest,
        version: i16,
        topics: &dyn Topics,
        now_ms: i64,
    ) -> Step {
        let resolved: Vec<_> = request.topics.iter().map(|t| resolve(t, version, topics)).collect();
        let mut answers = Vec::with_capacity(resolved.len());
        let asks_group = resolved.iter().zip(&request.topics).any(|(facts, t)| {
            facts.as_ref().is_ok_and(|(_, facts)| t.partitions.iter().any(|p| exists(*facts, p.partition_index)))
        });
        let group_error = match asks_group {
            true => self.check_commit(request, version, now_ms).err(),
            false => None,
        };

        let group: Arc<str> = self.shared_id(&request.group_id);
        let guarded = topics.guarded(&group);
        let mut step = Step::of(ticket);
        let mut offsets = Vec::new();
        for (topic, resolved) in request.topics.iter().zip(resolved) {
            if let (Ok((name, facts)), true, None) = (&resolved, guarded, group_error) {
                // First, so that what the request commits itself stands.
                self.guard_topic(&group, name, *facts, now_ms, &mut step, &mut offsets);
            }
            let mut answer = OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: Vec::with_capacity(topic.partitions.len()),
            };
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let result = match (&resolved, group_error) {
                    (Err(code), _) => Err(*code),
                    (Ok((_, facts)), _) if !exists(*facts, index) => Err(ErrorCode::UnknownTopicOrPartition),
                    (_, Some(code)) => Err(code),
                    _ if self.is_metadata_too_large(partition) => Err(ErrorCode::OffsetMetadataTooLarge),
                    (Ok((name, facts)), None) => {
                        let mut entry = entry(partition, *facts, request.retention_time_ms, now_ms);
                        if guarded {
                            self.note_partitions(&group, name, *facts, &mut entry);
                        }
                        match records::offset(&group, name, index, &entry) {
                            Ok(record) => {
                                step.records.push(record);
                                offsets.push((name.clone(), index, entry));
                                Ok(())
                            }
                            Err(_) => Err(ErrorCode::InvalidCommitOffsetSize),
                        }
                    }
                };
                let code = result.err().unwrap_or(ErrorCode::None);
                answer
                    .partitions
                    .push(OffsetCommitResponsePartition { partition_index: index, error_code: code.code() });
            }
            answers.push(answer);
        }
        if !offsets.is_empty() {
            step.effects.push(Effect::Committed { group, offsets });
        }
        self.reindex(&request.group_id);
        let response = OffsetCommitResponse { topics: answers, ..Default::default() };
        step.answers.push((ticket, Answer::OffsetCommit(response)));
        step
    }

    fn check_commit(&mut self, request: &OffsetCommitRequest, version: i16, now_ms: i64) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        match self.groups.get_mut(request.group_id.as_str()) {
            Some(group) => {
                group.check_commit(&request.member_id, request.group_instance_id.as_deref(), generation, now_ms)
            }
            // Offsets alone make a group.
            None if generation < 0 => Ok(()),
            None if version >= 9 => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Kafka counts UTF-16 units, never more than there are bytes.
    fn is_metadata_too_large(&self, partition: &OffsetCommitRequestPartition) -> bool {
        let max = self.config.offset_metadata_max;
        partition.committed_metadata.as_ref().is_some_and(|m| m.len() > max && m.encode_utf16().count() > max)
    }
}

fn resolve(
    topic: &OffsetCommitRequestTopic,
    version: i16,
    topics: &dyn Topics,
) -> Result<(Arc<str>, TopicFacts), ErrorCode> {
    let name =
        if version >= 10 { topics.name(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)? } else { topic.name.clone() };
    if !topics.authorized(&name) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let facts = topics.topic(&name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if version >= 10 && facts.id != topic.topic_id {
        return Err(ErrorCode::UnknownTopicId);
    }
    Ok((name.into(), facts))
}

fn exists(facts: TopicFacts, partition: i32) -> bool {
    (0..facts.partitions).contains(&partition)
}

fn entry(partition: &OffsetCommitRequestPartition, facts: TopicFacts, retention_ms: i64, now_ms: i64) -> OffsetEntry {
    OffsetEntry {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
        commit_ms: now_ms,
        expire_ms: (retention_ms != -1).then(|| now_ms.saturating_add(retention_ms)),
        topic_id: facts.id,
        partitions: 0,
    }
}
