//! Offsets and groups that go by request: OffsetDelete (version 0), DeleteGroups (0 to 3), and the offsets of topics
//! that were deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::classic::State;
use crate::coordinator::Coordinator;
use crate::records;
use crate::refuse;
use crate::step::{Answer, Effect, Loss, Step, Ticket};
use crate::topics::Topics;

/// Tombstones after which a step that deletes on its own account ends, until the next tick.
pub(crate) const TOMBSTONES_PER_STEP: usize = 5_000;

/// Topics that were deleted and may still have offsets here.
#[derive(Debug, Default)]
pub(crate) struct Purge {
    topics: Vec<(Arc<str>, Uuid)>,
    /// When to look for them again.
    pub next_ms: Option<i64>,
}

impl Coordinator {
    /// OffsetDelete, version 0. Offsets of a topic the group reads stay.
    pub fn offset_delete(&mut self, ticket: Ticket, request: &OffsetDeleteRequest, topics: &dyn Topics) -> Step {
        let refused = |code| Step::answered(ticket, Answer::OffsetDelete(refuse::offset_delete(code)));
        if request.group_id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        let Some(group) = self.groups.get(request.group_id.as_str()) else {
            return refused(ErrorCode::GroupIdNotFound);
        };
        if let Err(code) = group.check_offset_delete() {
            return refused(code);
        }
        let mut gone = Vec::new();
        let mut answers = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let facts = if topics.authorized(&topic.name) {
                topics.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)
            } else {
                Err(ErrorCode::TopicAuthorizationFailed)
            };
            let partitions = topic.partitions.iter().map(|p| {
                let index = p.partition_index;
                let code = match facts {
                    Err(code) => code,
                    Ok(facts) if !(0..facts.partitions).contains(&index) => ErrorCode::UnknownTopicOrPartition,
                    Ok(_) if group.subscribes(&topic.name) => ErrorCode::GroupSubscribedToTopic,
                    Ok(_) => {
                        gone.push((Arc::from(topic.name.as_str()), index));
                        ErrorCode::None
                    }
                };
                OffsetDeleteResponsePartition { partition_index: index, error_code: code.code() }
            });
            answers.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() });
        }
        let group = group.id.clone();
        let mut step = Step::of(ticket);
        self.forget(group, gone, Loss::Deleted, &mut step);
        let response = OffsetDeleteResponse { topics: answers, ..Default::default() };
        step.answers.push((ticket, Answer::OffsetDelete(response)));
        step
    }

    /// The groups of a DeleteGroups that belong to this coordinator. Each is answered once.
    pub fn delete_groups<'a>(&mut self, ticket: Ticket, ids: impl IntoIterator<Item = &'a str>) -> Step {
        let mut step = Step::of(ticket);
        let mut results = Vec::new();
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(id) {
                continue;
            }
            let (code, why) = match self.groups.get(id).map(|g| g.state) {
                None => (ErrorCode::GroupIdNotFound, Some(format!("there is no group {id}"))),
                Some(State::Empty) => match self.delete_group(id, &mut step) {
                    Ok(()) => (ErrorCode::None, None),
                    Err(code) => (code, None),
                },
                Some(_) => (ErrorCode::NonEmptyGroup, Some(format!("group {id} has members"))),
            };
            results.push(DeletableGroupResult { group_id: id.to_owned(), error_code: code.code(), error_message: why });
        }
        step.answers.push((ticket, Answer::DeleteGroups(results)));
        step
    }

    /// Stages the end of an empty group and of its offsets.
    pub(crate) fn delete_group(&mut self, id: &str, step: &mut Step) -> Result<(), ErrorCode> {
        let tombstone = records::group_tombstone(id).map_err(|_| ErrorCode::UnknownServerError)?;
        let group = self.shared_id(id);
        let gone: Vec<_> = self.offsets.of_group(id).iter().map(|(topic, p, _)| (topic.clone(), p)).collect();
        self.forget(group.clone(), gone, Loss::Deleted, step);
        step.records.push(tombstone);
        step.effects.push(Effect::Removed(group));
        Ok(())
    }

    /// Topics were deleted: their offsets go. Those of a namesake that exists by now stay. What is more than one step
    /// should hold follows with the next ticks.
    pub fn on_topics_deleted(&mut self, topics: &[(String, Uuid)]) -> Step {
        self.purge.topics.extend(topics.iter().map(|(name, id)| (Arc::from(name.as_str()), *id)));
        let mut step = Step::default();
        self.purge_topics(&mut step);
        step
    }

    /// Stages the next portion of offsets whose topics are gone. A topic leaves the list once none of its offsets is
    /// left, so that what the log refuses is tried again.
    pub(crate) fn purge_topics(&mut self, step: &mut Step) {
        let mut topics = std::mem::take(&mut self.purge.topics);
        let mut staged = 0;
        topics.retain(|(topic, id)| {
            let mut those = Vec::new();
            let mut left = false;
            for (group, offsets) in self.offsets.of_topic(topic) {
                if staged >= TOMBSTONES_PER_STEP {
                    left = true;
                    break;
                }
                let gone = offsets.iter().filter(|(_, entry)| entry.is_of(*id)).map(|(p, _)| (topic.clone(), p));
                let gone: Vec<_> = gone.collect();
                if !gone.is_empty() {
                    staged += gone.len();
                    those.push((group.clone(), gone));
                }
            }
            left |= !those.is_empty();
            for (group, gone) in those {
                self.forget(group, gone, Loss::Topic, step);
            }
            left
        });
        // Due at once, or as soon as a failed step is to be tried again.
        self.purge.next_ms = (!topics.is_empty()).then_some(i64::MIN);
        self.purge.topics = topics;
    }

    /// Stages tombstones for those of `offsets` that exist.
    pub(crate) fn forget(&self, group: Arc<str>, offsets: Vec<(Arc<str>, i32)>, loss: Loss, step: &mut Step) {
        let mut gone = Vec::with_capacity(offsets.len());
        for (topic, partition) in offsets {
            if self.offsets.get(&group, &topic, partition).is_none() {
                continue;
            }
            if let Ok(record) = records::offset_tombstone(&group, &topic, partition) {
                step.records.push(record);
                gone.push((topic, partition));
            }
        }
        if !gone.is_empty() {
            step.effects.push(Effect::Forgotten { group, offsets: gone, loss });
        }
    }
}
