//! What has to be done so that a topic becomes what it should be. Pure.
//!
//! Everything follows from how the topic is now. Whether a difference is a change of the description, which is carried
//! out, or one that somebody else made, which `drift: Report` leaves alone, follows field by field from what was carried
//! out last: what is described as it was then is not touched again.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::Desired;
use crate::crd::topic::{Applied, Drift, Drifted, ReplicasChange};

/// A topic as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Its id, as Kafka writes it.
    pub id: String,
    /// Whether the brokers call it their own.
    pub internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionFacts>,
    /// How many in-sync replicas a write with `acks=all` needs.
    pub min_in_sync: usize,
    /// Its own configuration: what is set for the topic itself.
    pub config: BTreeMap<String, String>,
}

/// A partition as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PartitionFacts {
    /// The leader, if there is one.
    pub leader: Option<i32>,
    /// Its replicas, without those that a move takes away.
    pub replicas: Vec<i32>,
    /// How many are in sync.
    pub in_sync: usize,
    /// Whether replicas are being added or taken away.
    pub moving: bool,
}

impl Facts {
    /// The replication factor: that of the partition that has the fewest replicas.
    pub fn replication_factor(&self) -> i32 {
        let fewest = self.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0);
        i32::try_from(fewest).unwrap_or(i32::MAX)
    }

    fn count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Make the topic, with all its configuration.
    Create,
    /// Give it so many partitions.
    Grow(i32),
    /// Set keys, and put others back to the cluster's default.
    Configure {
        /// What to set.
        set: BTreeMap<String, String>,
        /// What to put back.
        reset: BTreeSet<String>,
    },
    /// Give these partitions so many replicas.
    Replicate {
        /// How many.
        target: i32,
        /// The partitions' numbers.
        partitions: Vec<i32>,
    },
}

/// What follows from the facts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// What is not as described and is left alone.
    pub drift: Vec<Drifted>,
    /// The topic has more partitions than described: nothing can be done about it.
    pub too_many: bool,
    /// A change of the replication factor that is under way, or about to be.
    pub replicas_change: Option<ReplicasChange>,
}

/// Decides. `last`: what was carried out last on this very topic; nothing of one that was found and is taken over.
pub fn plan(desired: &Desired, facts: Option<&Facts>, drift: Drift, last: Option<&Applied>) -> Plan {
    let Some(facts) = facts else { return Plan { steps: vec![Step::Create], ..Plan::default() } };
    let mut plan = Plan::default();
    let nothing = Applied::default();
    let last = last.unwrap_or(&nothing);
    let reports = drift == Drift::Report;

    if let Some(wanted) = desired.partitions
        && wanted != facts.count()
    {
        plan.too_many = wanted < facts.count();
        if plan.too_many || (reports && last.partitions == Some(wanted)) {
            plan.drift.push(differs("partitions", Some(wanted.to_string()), Some(facts.count().to_string())));
        } else {
            plan.steps.push(Step::Grow(wanted));
        }
    }

    let (mut set, mut reset) = (BTreeMap::new(), BTreeSet::new());
    // Those come and go with moves, by whoever moves.
    let found = facts.config.keys().filter(|key| !key.ends_with(".replication.throttled.replicas"));
    let keys: BTreeSet<&String> = desired.config.keys().chain(found).collect();
    for key in keys.into_iter().filter(|key| !desired.unmanaged.contains(*key)) {
        let (wanted, found) = (desired.config.get(key), facts.config.get(key));
        if same(key, wanted, found) {
            continue;
        }
        if reports && wanted == last.config.get(key) {
            plan.drift.push(differs(key, wanted.cloned(), found.cloned()));
            continue;
        }
        match wanted {
            Some(value) => drop(set.insert(key.clone(), value.clone())),
            None => drop(reset.insert(key.clone())),
        }
    }
    if !set.is_empty() || !reset.is_empty() {
        plan.steps.push(Step::Configure { set, reset });
    }

    if let Some(target) = desired.replication_factor {
        let numbered = facts.partitions.iter().zip(0..);
        let other = |partition: &PartitionFacts| i32::try_from(partition.replicas.len()) != Ok(target);
        let odd: Vec<i32> = numbered.clone().filter(|(p, _)| other(p) && !p.moving).map(|(_, n)| n).collect();
        let left = facts.partitions.iter().filter(|p| other(p) || p.moving).count();
        if !odd.is_empty() && reports && last.replication_factor == Some(target) {
            plan.drift.push(differs(
                "replicationFactor",
                Some(target.to_string()),
                Some(facts.replication_factor().to_string()),
            ));
        } else if left > 0 {
            plan.replicas_change =
                Some(ReplicasChange { target, partitions_left: i32::try_from(left).unwrap_or(i32::MAX) });
            if !odd.is_empty() {
                plan.steps.push(Step::Replicate { target, partitions: odd });
            }
        }
    }
    plan.drift.sort();
    plan
}

/// What of a description has been carried out when `left` is still to be done.
pub fn applied(desired: &Desired, last: Option<&Applied>, left: &[Step]) -> Applied {
    let mut now = Applied {
        partitions: desired.partitions,
        replication_factor: desired.replication_factor,
        config: desired.config.clone(),
    };
    let last = last.cloned().unwrap_or_default();
    for step in left {
        match step {
            Step::Create => return last,
            Step::Grow(_) => now.partitions = last.partitions,
            Step::Configure { .. } => now.config.clone_from(&last.config),
            Step::Replicate { .. } => now.replication_factor = last.replication_factor,
        }
    }
    now
}

fn differs(key: &str, desired: Option<String>, actual: Option<String>) -> Drifted {
    Drifted { key: key.to_owned(), desired, actual }
}

/// Lists mean the same in any order, and with or without spaces.
fn same(key: &str, a: Option<&String>, b: Option<&String>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if key == "cleanup.policy" => {
            let parts = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect::<BTreeSet<_>>();
            parts(a) == parts(b)
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(partitions: i32, replication_factor: i32, config: &[(&str, &str)]) -> Desired {
        Desired {
            name: "t".into(),
            partitions: Some(partitions),
            replication_factor: Some(replication_factor),
            config: map(config),
            unmanaged: BTreeSet::new(),
        }
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn facts(partitions: usize, replicas: i32, config: &[(&str, &str)]) -> Facts {
        let partition = PartitionFacts {
            leader: Some(0),
            replicas: (0..replicas).collect(),
            in_sync: usize::try_from(replicas).unwrap(),
            moving: false,
        };
        Facts {
            id: "x".into(),
            internal: false,
            partitions: vec![partition; partitions],
            min_in_sync: 1,
            config: map(config),
        }
    }

    #[test]
    fn a_topic_that_is_as_described_needs_nothing() {
        let wanted = desired(3, 2, &[("retention.ms", "5"), ("cleanup.policy", "compact,delete")]);
        let there = facts(3, 2, &[("retention.ms", "5"), ("cleanup.policy", "delete, compact")]);
        for last in [None, Some(applied(&wanted, None, &[]))] {
            assert_eq!(plan(&wanted, Some(&there), Drift::Enforce, last.as_ref()), Plan::default());
            assert_eq!(plan(&wanted, None, Drift::Report, last.as_ref()).steps, [Step::Create]);
        }
    }

    #[test]
    fn what_is_not_said_is_not_touched() {
        let throttled = facts(1, 1, &[("leader.replication.throttled.replicas", "*")]);
        assert_eq!(plan(&desired(1, 1, &[]), Some(&throttled), Drift::Enforce, None), Plan::default());
        let silent = Desired { partitions: None, replication_factor: None, ..desired(0, 0, &[]) };
        assert_eq!(plan(&silent, Some(&facts(7, 3, &[])), Drift::Enforce, None), Plan::default());
    }

    #[test]
    fn everything_that_differs_is_done_in_order() {
        let mut wanted = desired(4, 3, &[("retention.ms", "5")]);
        wanted.unmanaged.insert("compression.type".into());
        let there = facts(3, 2, &[("retention.ms", "6"), ("min.insync.replicas", "2"), ("compression.type", "zstd")]);
        let found = plan(&wanted, Some(&there), Drift::Enforce, None);
        let configure =
            Step::Configure { set: map(&[("retention.ms", "5")]), reset: ["min.insync.replicas".into()].into() };
        let replicate = Step::Replicate { target: 3, partitions: vec![0, 1, 2] };
        assert_eq!(found.steps, [Step::Grow(4), configure, replicate]);
        assert_eq!(found.replicas_change, Some(ReplicasChange { target: 3, partitions_left: 3 }));
        assert!(found.drift.is_empty());
    }

    #[test]
    fn drift_is_only_reported_where_the_description_is_as_it_was_carried_out() {
        let wanted = desired(4, 3, &[("retention.ms", "5")]);
        let there = facts(3, 2, &[("min.insync.replicas", "2"), ("retention.ms", "6")]);
        let last = applied(&wanted, None, &[]);
        let found = plan(&wanted, Some(&there), Drift::Report, Some(&last));
        assert!(found.steps.is_empty() && found.replicas_change.is_none());
        let keys: Vec<_> = found.drift.iter().map(|drifted| drifted.key.as_str()).collect();
        assert_eq!(keys, ["min.insync.replicas", "partitions", "replicationFactor", "retention.ms"]);
        assert_eq!((found.drift[0].desired.as_deref(), found.drift[0].actual.as_deref()), (None, Some("2")));

        // One field of the description changes: the others' changes stay.
        let mut next = desired(4, 3, &[("retention.ms", "5"), ("segment.ms", "7")]);
        let found = plan(&next, Some(&there), Drift::Report, Some(&last));
        let configure = |set: &[(&str, &str)], reset: &[&str]| Step::Configure {
            set: map(set),
            reset: reset.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(found.steps, [configure(&[("segment.ms", "7")], &[])]);
        assert_eq!(found.drift.len(), 4, "{found:?}");
        // One that leaves it goes back to the default, even if others have changed it.
        next = desired(4, 3, &[]);
        let found = plan(&next, Some(&there), Drift::Report, Some(&last));
        assert_eq!(found.steps, [configure(&[], &["retention.ms"])]);
        next = desired(5, 3, &[("retention.ms", "5")]);
        assert_eq!(plan(&next, Some(&there), Drift::Report, Some(&last)).steps, [Step::Grow(5)]);
    }

    #[test]
    fn a_topic_that_was_there_gets_what_is_described_and_keeps_the_rest_where_drift_is_reported() {
        let wanted = desired(4, 2, &[("retention.ms", "5")]);
        let there = facts(3, 2, &[("min.insync.replicas", "2"), ("retention.ms", "6")]);
        let found = plan(&wanted, Some(&there), Drift::Report, None);
        let configure = Step::Configure { set: map(&[("retention.ms", "5")]), reset: BTreeSet::new() };
        assert_eq!(found.steps, [Step::Grow(4), configure]);
        let keys: Vec<_> = found.drift.iter().map(|drifted| drifted.key.as_str()).collect();
        assert_eq!(keys, ["min.insync.replicas"]);
    }

    #[test]
    fn what_is_still_to_be_done_is_not_said_to_be_carried_out() {
        let (before, wanted) = (desired(3, 1, &[("a", "1")]), desired(4, 2, &[("a", "2")]));
        let last = applied(&before, None, &[]);
        let steps = [
            Step::Grow(4),
            Step::Configure { set: map(&[("a", "2")]), reset: BTreeSet::new() },
            Step::Replicate { target: 2, partitions: vec![0] },
        ];
        assert_eq!(applied(&wanted, Some(&last), &steps), last);
        let grown = applied(&wanted, Some(&last), &steps[1..]);
        assert_eq!(grown, Applied { partitions: Some(4), ..last.clone() });
        assert_eq!(applied(&wanted, Some(&last), &[]), applied(&wanted, None, &[]));
        assert_eq!(applied(&wanted, None, &[Step::Create]), Applied::default());
    }

    proptest::proptest! {
        /// With `drift: Report`, whatever others do between two looks: what the description does not change is not
        /// touched, and what it changes is.
        #[test]
        fn only_what_the_description_changes_is_changed(
            before in proptest::collection::btree_map("[a-d]", "[0-2]", 0..4),
            after in proptest::collection::btree_map("[a-d]", "[0-2]", 0..4),
            found in proptest::collection::btree_map("[a-e]", "[0-2]", 0..5),
        ) {
            let with = |config: &BTreeMap<String, String>| Desired { config: config.clone(), ..desired(1, 1, &[]) };
            let last = applied(&with(&before), None, &[]);
            let there = Facts { config: found.clone(), ..facts(1, 1, &[]) };
            let steps = plan(&with(&after), Some(&there), Drift::Report, Some(&last)).steps;
            let mut now = found.clone();
            for step in steps {
                let Step::Configure { set, reset } = step else { panic!("{step:?}") };
                now.extend(set);
                now.retain(|key, _| !reset.contains(key));
            }
            for key in ["a", "b", "c", "d", "e"] {
                let wanted = if before.get(key) == after.get(key) { found.get(key) } else { after.get(key) };
                proptest::prop_assert_eq!(now.get(key), wanted, "{}", key);
            }
        }
    }

    #[test]
    fn partitions_are_never_taken_away() {
        let found = plan(&desired(2, 1, &[]), Some(&facts(3, 1, &[])), Drift::Enforce, None);
        assert!(found.too_many && found.steps.is_empty());
        assert_eq!(found.drift[0].actual.as_deref(), Some("3"));
    }

    #[test]
    fn moves_under_way_are_waited_for() {
        let mut there = facts(3, 3, &[]);
        there.partitions[1].moving = true;
        let found = plan(&desired(3, 3, &[]), Some(&there), Drift::Enforce, None);
        assert!(found.steps.is_empty());
        assert_eq!(found.replicas_change, Some(ReplicasChange { target: 3, partitions_left: 1 }));
        there.partitions[1].replicas = vec![0, 1];
        there.partitions[2].replicas = vec![0, 1];
        let found = plan(&desired(3, 3, &[]), Some(&there), Drift::Enforce, None);
        assert_eq!(found.steps, [Step::Replicate { target: 3, partitions: vec![2] }]);
        assert_eq!(found.replicas_change, Some(ReplicasChange { target: 3, partitions_left: 2 }));
    }
}
