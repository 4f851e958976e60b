//! What is wanted of brokers, marked in the facts that a plan is made from.

use std::collections::BTreeSet;

use klamm_planner::{Broker, Facts};

use crate::cli::{CliError, Result};

/// Marks brokers that shall give everything away: those of `drain`, and all but `targets` unless that is empty.
pub(super) fn drain(facts: &mut Facts, drain: &[i32], targets: &[i32]) -> Result {
    let known: BTreeSet<i32> = facts.brokers.iter().map(|b| b.id).collect();
    let holding: BTreeSet<i32> = facts.partitions.iter().flat_map(|p| p.replicas.iter().copied()).collect();
    let unknown = targets.iter().find(|id| !known.contains(id));
    let unknown = unknown.or(drain.iter().find(|id| !known.contains(id) && !holding.contains(id)));
    if let Some(id) = unknown {
        return Err(
            CliError::new(format!("there is no broker {id}")).hint("`klamm cluster describe` shows the brokers")
        );
    }
    // Brokers that were forgotten while they held replicas.
    for id in holding.difference(&known) {
        facts.brokers.push(Broker { alive: false, ..Broker::new(*id) });
    }
    for broker in &mut facts.brokers {
        let left_out = !targets.is_empty() && !targets.contains(&broker.id);
        broker.draining = left_out || drain.contains(&broker.id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_planner::Partition;

    fn facts() -> Facts {
        let partition = Partition { topic: "t".to_owned(), replicas: vec![0, 7], ..Partition::default() };
        Facts { brokers: (0..3).map(Broker::new).collect(), partitions: vec![partition] }
    }

    fn draining(facts: &Facts) -> Vec<i32> {
        facts.brokers.iter().filter(|b| b.draining).map(|b| b.id).collect()
    }

    #[test]
    fn all_but_the_targets_are_drained_and_so_is_a_broker_that_is_forgotten() {
        let mut some = facts();
        assert!(drain(&mut some, &[2], &[]).is_ok());
        assert_eq!(draining(&some), [2]);
        let mut some = facts();
        assert!(drain(&mut some, &[], &[0, 1]).is_ok());
        assert_eq!(draining(&some), [2, 7]);
        let mut some = facts();
        assert!(drain(&mut some, &[7], &[]).is_ok());
        assert_eq!(draining(&some), [7]);
        assert!(drain(&mut facts(), &[8], &[]).is_err());
        assert!(drain(&mut facts(), &[], &[7]).is_err(), "a forgotten broker is no target");
    }
}
