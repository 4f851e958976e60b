//! Moves that go on already when a command begins, of one that was killed or of somebody else: they are part of what is
//! asked for, so that it says so, throttles them as it is told, and watches them to their end.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::TopicPartition;
use klamm_client::admin::reassignments::Reassignment;
use klamm_planner::{Facts, Plan};

use super::Scope;
use super::carry::Step;

/// All moves that go on.
pub(super) type Moving = BTreeMap<TopicPartition, Reassignment>;

/// A move that goes on, as a step.
pub(super) fn step(at: TopicPartition, moving: &Reassignment, size: u64) -> Step {
    Step { at, from: had(moving), to: moving.target(), size }
}

/// The replicas from before a move.
pub(super) fn had(moving: &Reassignment) -> Vec<i32> {
    moving.replicas.iter().copied().filter(|id| !moving.adding.contains(id)).collect()
}

/// Those of the moves that do what a scope asks for and that the plan leaves alone.
pub(super) fn of_scope(facts: &Facts, moving: &Moving, scope: &Scope, plan: &Plan) -> Vec<Step> {
    let sizes: BTreeMap<(&str, i32), u64> =
        facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p.bytes)).collect();
    let planned: BTreeSet<(&str, i32)> = plan.moves.iter().map(|one| (one.topic.as_str(), one.partition)).collect();
    let meant = |at: &TopicPartition, moving: &Reassignment| {
        !planned.contains(&(at.topic.as_str(), at.partition)) && is_meant(scope, at, moving)
    };
    let those = moving.iter().filter(|(at, moving)| meant(at, moving));
    those.map(|(at, m)| step(at.clone(), m, *sizes.get(&(at.topic.as_str(), at.partition)).unwrap_or(&0))).collect()
}

fn is_meant(scope: &Scope, at: &TopicPartition, moving: &Reassignment) -> bool {
    if !scope.topics.is_empty() && !scope.topics.contains(&at.topic) {
        return false;
    }
    // Who only drains brokers waits for what leaves them, not for what others do elsewhere.
    let only_drains = !scope.drain.is_empty() && scope.brokers.is_empty() && scope.replication_factor.is_none();
    let target = moving.target();
    !only_drains || scope.drain.iter().any(|id| moving.replicas.contains(id) && !target.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving() -> Moving {
        let one = |replicas: &[i32], adding: &[i32], removing: &[i32]| Reassignment {
            replicas: replicas.to_vec(),
            adding: adding.to_vec(),
            removing: removing.to_vec(),
        };
        Moving::from([
            (TopicPartition::new("t", 0), one(&[3, 1, 0], &[3], &[0])),
            (TopicPartition::new("t", 1), one(&[2, 0, 1], &[2], &[1])),
            (TopicPartition::new("u", 0), one(&[4, 1, 0], &[4], &[0])),
        ])
    }

    fn found(scope: &Scope, plan: &Plan) -> Vec<String> {
        let steps = of_scope(&Facts::default(), &moving(), scope, plan);
        steps.iter().map(|step| step.at.to_string()).collect()
    }

    #[test]
    fn who_drains_a_broker_takes_over_what_leaves_it_and_others_all_of_their_topics() {
        let plan = Plan::default();
        assert_eq!(found(&Scope::default(), &plan), ["t-0", "t-1", "u-0"]);
        assert_eq!(found(&Scope { topics: vec!["t".into()], ..Scope::default() }, &plan), ["t-0", "t-1"]);
        assert_eq!(found(&Scope { drain: vec![0], ..Scope::default() }, &plan), ["t-0", "u-0"]);
        assert_eq!(found(&Scope { drain: vec![0], brokers: vec![1, 2], ..Scope::default() }, &plan).len(), 3);
        assert!(found(&Scope { drain: vec![2], ..Scope::default() }, &plan).is_empty());
    }

    #[test]
    fn what_the_plan_moves_elsewhere_is_not_waited_for() {
        let other = klamm_planner::Move {
            topic: "t".into(),
            partition: 0,
            from: vec![1, 0],
            to: vec![1, 2],
            bytes: 0,
            reason: klamm_planner::Reason::Drain,
        };
        let plan = Plan { moves: vec![other], ..Plan::default() };
        assert_eq!(found(&Scope::default(), &plan), ["t-1", "u-0"]);
    }

    #[test]
    fn a_move_that_goes_on_leads_from_what_there_was_to_what_there_is_to_be() {
        let all = moving();
        let steps: Vec<Step> = all.iter().map(|(at, m)| step(at.clone(), m, 10)).collect();
        assert_eq!((&steps[0].from, &steps[0].to), (&vec![1, 0], &vec![3, 1]));
        assert_eq!(
            steps[0].adding().collect::<Vec<_>>(),
            [3],
            "a copy is on its way: it counts for bytes and throttle"
        );
    }
}
