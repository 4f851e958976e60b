//! What a topic gains while a guarded group (`klamm.new.partitions.guard`) reads it counts as committed at its beginning.
//!
//! Consumers hear of a new partition later than producers do. One that begins at the end where it finds no commit
//! (`auto.offset.reset=latest`) would pass over what was written meanwhile. A partition begins at offset 0, so nobody
//! has to be asked: a commit of 0 is what the group would have made, had it known at once.
//!
//! Which partitions are new is in the log: a guarded group's commits say how many partitions their topic had. Those that
//! it has beyond the most that any commit says are new. So neither partitions without a commit from before, nor those
//! whose commit lapsed or was deleted, are taken for new ones, and another broker comes to the same end. The commits are
//! written as soon as the coordinator hears of the growth, and with the group's next own ones; OffsetFetch answers as if
//! they were there already.

use std::sync::Arc;

use klamm_protocol::Uuid;

use super::store::{OffsetEntry, TopicOffsets};
use crate::coordinator::Coordinator;
use crate::records;
use crate::step::{Effect, Step};
use crate::topics::{TopicFacts, Topics};

/// Offsets that are about to be committed.
type Staged = Vec<(Arc<str>, i32, OffsetEntry)>;

impl TopicOffsets {
    /// The most partitions that a commit for the topic with this id speaks of.
    fn seen(&self, id: Uuid) -> Option<i32> {
        let own = self.iter().filter(|(_, entry)| entry.topic_id == id && !id.is_zero());
        own.map(|(_, entry)| entry.partitions).filter(|count| *count > 0).max()
    }

    /// Whether the topic has gained this partition since.
    pub fn gained(&self, partition: i32, id: Uuid) -> bool {
        self.seen(id).is_some_and(|seen| partition >= seen)
    }
}

impl Coordinator {
    /// A group is guarded from now on, or a topic may have grown. Topics in which the group has commits that tell nothing
    /// count from here on.
    pub fn guard(&mut self, group: &str, topics: &dyn Topics, now_ms: i64) -> Step {
        let group = self.shared_id(group);
        let (mut step, mut offsets) = (Step::default(), Staged::new());
        for of_topic in self.offsets.of_group(&group).topics() {
            let Some(facts) = topics.topic(&of_topic.topic).filter(|facts| !facts.id.is_zero()) else { continue };
            match of_topic.seen(facts.id) {
                Some(_) => self.guard_topic(&group, &of_topic.topic, facts, now_ms, &mut step, &mut offsets),
                None => remember(&group, of_topic, facts, &mut step, &mut offsets),
            }
        }
        if !offsets.is_empty() {
            step.effects.push(Effect::Committed { group, offsets });
        }
        step
    }

    /// Stages commits for what the topic has gained.
    pub(super) fn guard_topic(
        &self,
        group: &str,
        topic: &Arc<str>,
        facts: TopicFacts,
        now_ms: i64,
        step: &mut Step,
        offsets: &mut Staged,
    ) {
        let Some(of_topic) = self.offsets.of_group(group).find(topic) else { return };
        let Some(seen) = of_topic.seen(facts.id).filter(|seen| *seen < facts.partitions) else { return };
        for partition in seen..facts.partitions {
            if !of_topic.get(partition).is_some_and(|entry| entry.is_of(facts.id)) {
                let entry = OffsetEntry {
                    offset: 0,
                    leader_epoch: -1,
                    metadata: "".into(),
                    commit_ms: now_ms,
                    expire_ms: None,
                    topic_id: facts.id,
                    partitions: facts.partitions,
                };
                stage(group, topic, partition, entry, step, offsets);
            }
        }
        // Elsewhere too: should the new partition's commit be deleted, it is not new once more.
        remember(group, of_topic, facts, step, offsets);
    }

    /// Has a commit of a guarded group say how many partitions the topic has.
    pub(super) fn note_partitions(&self, group: &str, topic: &str, facts: TopicFacts, entry: &mut OffsetEntry) {
        // Records of commits with a retention time have no place for it.
        if entry.expire_ms.is_none() {
            let seen = self.offsets.of_group(group).find(topic).and_then(|of_topic| of_topic.seen(facts.id));
            entry.partitions = facts.partitions.max(seen.unwrap_or(0));
        }
    }
}

/// Has the first commit that can say how many partitions the topic has.
fn remember(group: &str, of_topic: &TopicOffsets, facts: TopicFacts, step: &mut Step, offsets: &mut Staged) {
    let mut able = of_topic.iter().filter(|(_, entry)| entry.expire_ms.is_none() && entry.is_of(facts.id));
    let Some((partition, entry)) = able.next() else { return };
    let entry = OffsetEntry { topic_id: facts.id, partitions: facts.partitions, ..entry.clone() };
    stage(group, &of_topic.topic, partition, entry, step, offsets);
}

fn stage(group: &str, topic: &Arc<str>, partition: i32, entry: OffsetEntry, step: &mut Step, offsets: &mut Staged) {
    if offsets.iter().any(|(name, index, _)| name == topic && *index == partition) {
        return;
    }
    if let Ok(record) = records::offset(group, topic, partition, &entry) {
        step.records.push(record);
        offsets.push((topic.clone(), partition, entry));
    }
}
