//! Offsets lapse: of a group without members `offsets.retention.minutes` after it lost the last one, of a group that
//! only holds offsets that long after the commit, and of a consumer group with members when none reads the topic any
//! more. A group with neither members nor offsets goes too.
//!
//! A round looks at every group. It pauses after a number of tombstones, so that no step grows without bound.

use std::ops::Bound;
use std::sync::Arc;

use crate::classic::{Group, State};
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::step::{Loss, Step};

use super::delete::TOMBSTONES_PER_STEP;
use super::store::OffsetEntry;

/// Where the search for lapsed offsets stands.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    /// When the next round, or the rest of this one, begins. None before the coordinator has loaded.
    pub next_ms: Option<i64>,
    /// The last group this round has seen.
    cursor: Option<Arc<str>>,
}

impl Coordinator {
    pub(crate) fn expire(&mut self, now_ms: i64, step: &mut Step) {
        if self.expiry.next_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        let before = step.records.len();
        loop {
            let from = match self.expiry.cursor.take() {
                Some(id) => Bound::Excluded(id),
                None => Bound::Unbounded,
            };
            let Some(id) = self.groups.range((from, Bound::Unbounded)).next().map(|(id, _)| id.clone()) else {
                self.expiry.next_ms = Some(now_ms.saturating_add(self.config.offsets_retention_check_interval_ms));
                return;
            };
            self.expire_group(&id, now_ms, step);
            self.expiry.cursor = Some(id);
            if step.records.len() - before >= TOMBSTONES_PER_STEP {
                return;
            }
        }
    }

    fn expire_group(&mut self, id: &str, now_ms: i64, step: &mut Step) {
        let Some(group) = self.groups.get(id) else { return };
        let mut gone = Vec::new();
        let mut all = true;
        for (topic, partition, entry) in self.offsets.of_group(id).iter() {
            if lapsed(group, topic, entry, now_ms, &self.config) {
                gone.push((topic.clone(), partition));
            } else {
                all = false;
            }
        }
        let group_ends = all && group.is(State::Empty) && group.pending.is_empty();
        let group = group.id.clone();
        self.forget(group, gone, Loss::Expired, step);
        if group_ends {
            // Its offsets are staged already, and staging them again would only repeat their tombstones.
            self.remove_group_only(id, step);
        }
    }
}

fn lapsed(group: &Group, topic: &str, entry: &OffsetEntry, now_ms: i64, config: &Config) -> bool {
    if group.subscribes(topic) {
        return false;
    }
    let since_ms = match (&group.protocol_type, group.state) {
        // It never had members: each offset stands for itself.
        (None, _) => entry.commit_ms,
        (Some(_), State::Empty) => group.state_since_ms.unwrap_or(entry.commit_ms),
        // Members read other topics now.
        (Some(_), State::Stable) if group.subscribed.is_some() => entry.commit_ms,
        _ => return false,
    };
    match entry.expire_ms {
        Some(at) => now_ms >= at,
        None => now_ms.saturating_sub(since_ms) >= config.offsets_retention_ms,
    }
}
