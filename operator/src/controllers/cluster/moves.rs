//! Has partitions and leaders move as a plan says: a few at a time, throttled, each look a step further.
//!
//! Nothing is remembered: what moves is asked of the brokers, what is left is planned anew. So whoever looks next goes on.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::cluster::Election;
use klamm_client::admin::placement::{Sizes, size};
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::admin::throttle::Throttled;
use klamm_client::{Client, ClientError, TopicPartition};
use klamm_planner::{Facts, Move, Plan, Wish, plan};

use crate::crd::cluster::Progress;

/// Leaders that are elected by one request.
const ELECTIONS: usize = 1000;

/// How far it is.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// What is left.
    pub progress: Progress,
    /// Why something is not moved.
    pub blocked: Option<String>,
    /// Whether there is nothing left to do.
    pub finished: bool,
}

impl Moved {
    /// Nothing is known but why it does not go on.
    pub fn blocked(why: String) -> Self {
        Self { blocked: Some(why), ..Self::default() }
    }
}

/// Goes one step: begins as many moves as may go on at a time, and in the end has leaders elected.
///
/// # Errors
/// The brokers cannot be reached, or refuse all of it.
pub async fn carry(
    client: &Client,
    facts: &Facts,
    moving: &BTreeMap<TopicPartition, Reassignment>,
    wish: &Wish,
    rate: u64,
) -> Result<Moved, ClientError> {
    let plan = match plan(facts, wish) {
        Ok(plan) => plan,
        Err(error) => return Ok(Moved::blocked(error.to_string())),
    };
    let planned: BTreeSet<TopicPartition> = plan.moves.iter().map(at).collect();
    // The others get somewhere else.
    let kept: BTreeMap<&TopicPartition, &Reassignment> =
        moving.iter().filter(|(at, _)| !planned.contains(at)).collect();
    let room = wish.moves_max.unwrap_or(usize::MAX).saturating_sub(kept.len());
    let start: Vec<&Move> = plan.moves.iter().take(room).collect();
    let mut moved = Moved { progress: left(client, facts, &plan, &kept).await, ..Moved::default() };
    if !start.is_empty() {
        let mut throttled = Throttled::default();
        for one in &start {
            let at = at(one);
            let had = moving.get(&at).map_or_else(|| one.from.clone(), had);
            throttled.add(&at, &had, &one.to);
        }
        kept.iter().for_each(|(at, moving)| throttled.add(at, &had(moving), &moving.target()));
        throttled.apply(client, rate).await?;
        let wanted = start.iter().map(|one| (at(one), Some(one.to.clone()))).collect();
        let answers = client.alter_reassignments(&wanted).await?;
        moved.blocked = answers.into_values().find_map(|answer| answer.err().map(|error| error.to_string()));
        return Ok(moved);
    }
    if let Some(stuck) = plan.left.first() {
        let (topic, partition) = (&stuck.topic, stuck.partition);
        moved.blocked = Some(format!("{topic}-{partition} cannot be moved: no replica that is up is in sync"));
    }
    if !plan.moves.is_empty() || !kept.is_empty() {
        return Ok(moved);
    }
    let due = plan.elections.iter().take(ELECTIONS);
    let due: Vec<_> = due.map(|one| TopicPartition::new(&one.topic, one.partition)).collect();
    let elected = match due.is_empty() {
        true => false,
        // What cannot be elected now is by the controller, some minutes later.
        false => {
            client.elect_leaders(Election::Preferred, Some(&due)).await?.values().any(|one| matches!(one, Ok(Some(()))))
        }
    };
    moved.finished = !elected && moved.blocked.is_none();
    Ok(moved)
}

/// Takes off what throttles partitions that do not move.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn unthrottle(client: &Client, facts: &Facts) -> Result<(), ClientError> {
    let all = facts.partitions.iter().map(|p| TopicPartition::new(&p.topic, p.index)).collect();
    Throttled::found(client, &all).await?.remove(client).await.map(drop)
}

async fn left(
    client: &Client,
    facts: &Facts,
    plan: &Plan,
    kept: &BTreeMap<&TopicPartition, &Reassignment>,
) -> Progress {
    let involved: BTreeSet<i32> = kept.values().flat_map(|moving| moving.replicas.iter().copied()).collect();
    let alive = facts.brokers.iter().filter(|broker| broker.alive && involved.contains(&broker.id));
    let sizes = match kept.is_empty() {
        true => Sizes::default(),
        false => client.replica_sizes(&alive.map(|broker| broker.id).collect()).await,
    };
    let leaders: BTreeMap<(&str, i32), i32> =
        facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p.leader.unwrap_or(-1))).collect();
    let lacks = kept.iter().map(|(at, moving)| {
        let leader = leaders.get(&(at.topic.as_str(), at.partition)).copied().unwrap_or(-1);
        let whole = size(&sizes, at, leader).unwrap_or(0);
        let has = |id: &i32| sizes.get(*at).and_then(|copies| copies.get(id)).copied().unwrap_or(0);
        moving.adding.iter().fold(0_u64, |sum, id| sum.saturating_add(whole.saturating_sub(has(id))))
    });
    let bytes = lacks.fold(plan.bytes(), u64::saturating_add);
    let partitions = kept.len() + plan.moves.len();
    Progress { partitions_left: i64::try_from(partitions).unwrap_or(i64::MAX), bytes_left: rounded(bytes) }
}

/// To five binary digits, so that a status is not written for every byte.
fn rounded(bytes: u64) -> i64 {
    let shift = (u64::BITS - bytes.leading_zeros()).saturating_sub(5);
    i64::try_from((bytes >> shift) << shift).unwrap_or(i64::MAX)
}

fn at(one: &Move) -> TopicPartition {
    TopicPartition::new(&one.topic, one.partition)
}

/// The replicas from before a move.
fn had(moving: &Reassignment) -> Vec<i32> {
    moving.replicas.iter().copied().filter(|id| !moving.adding.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_down_to_what_matters() {
        for (bytes, shown) in [(0, 0), (31, 31), (33, 32), (1_000_000, 983_040), (u64::MAX, i64::MAX)] {
            assert_eq!(rounded(bytes), shown);
        }
    }
}
