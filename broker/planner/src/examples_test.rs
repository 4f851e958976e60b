//! Plans that can be followed by eye.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Broker, Error, Facts, Partition, Plan, Reason, Wish, plan};

/// Brokers 0, 1, … with racks by letter; `.` for none.
fn brokers(racks: &str) -> Vec<Broker> {
    let rack = |c: char| (c != '.').then(|| c.to_string());
    racks.chars().zip(0..).map(|(c, id)| Broker { rack: rack(c), ..Broker::new(id) }).collect()
}

/// Topic `t` with these replicas, all in sync and the first leading, of one byte each.
fn facts(racks: &str, assignment: &[&[i32]]) -> Facts {
    let partition = |(index, replicas): (i32, &&[i32])| Partition {
        topic: "t".to_owned(),
        index,
        replicas: replicas.to_vec(),
        leader: replicas.first().copied(),
        isr: replicas.to_vec(),
        bytes: 1,
        moving_to: None,
    };
    Facts { brokers: brokers(racks), partitions: (0..).zip(assignment).map(partition).collect() }
}

fn exact() -> Wish {
    Wish { bytes_slack_min: 0, ..Wish::default() }
}

#[track_caller]
fn planned(facts: &Facts, wish: &Wish) -> Plan {
    plan(facts, wish).expect("a plan")
}

/// Where partitions go, by index.
fn targets(plan: &Plan) -> BTreeMap<i32, Vec<i32>> {
    plan.moves.iter().map(|one| (one.partition, one.to.clone())).collect()
}

#[test]
fn a_balanced_cluster_is_left_alone() {
    let facts = facts("...", &[&[0, 1], &[1, 2], &[2, 0]]);
    assert!(planned(&facts, &exact()).is_empty());
}

#[test]
fn a_cluster_without_anything_needs_nothing() {
    assert!(planned(&Facts::default(), &exact()).is_empty());
    assert!(planned(&facts("..", &[]), &exact()).is_empty());
}

#[test]
fn an_empty_broker_gets_its_share_and_no_more_is_copied() {
    let nine: Vec<Vec<i32>> = (0..12).map(|n| vec![n % 3, (n + 1) % 3]).collect();
    let nine: Vec<&[i32]> = nine.iter().map(Vec::as_slice).collect();
    let plan = planned(&facts("....", &nine), &exact());
    assert_eq!(plan.bytes(), 6, "24 replicas on 4 brokers");
    let to_new = plan.moves.iter().filter(|one| one.to.contains(&3)).count();
    let led_by_new = plan.moves.iter().filter(|one| one.to[0] == 3).count();
    assert_eq!((to_new, led_by_new), (6, 3), "{plan:?}");
}

#[test]
fn a_drained_broker_is_emptied_first_of_all() {
    let mut facts = facts("....", &[&[3, 0], &[1, 3], &[0, 1], &[2], &[2], &[2], &[2]]);
    facts.brokers[3].draining = true;
    let plan = planned(&facts, &exact());
    let drained: Vec<_> = plan.moves.iter().take_while(|one| one.reason == Reason::Drain).collect();
    assert_eq!(drained.len(), 2, "{plan:?}");
    assert!(plan.moves.iter().all(|one| !one.to.contains(&3)));

    let only = planned(&facts, &Wish { even: false, ..exact() });
    assert_eq!(only.moves.len(), 2, "what need not move does not: {only:?}");
}

#[test]
fn there_must_be_brokers_enough() {
    let mut facts = facts("...", &[&[0, 1, 2]]);
    facts.brokers[2].draining = true;
    let few = Error::TooFewBrokers { topic: "t".to_owned(), partition: 0, wanted: 3, available: 2 };
    assert_eq!(plan(&facts, &exact()), Err(few));
}

#[test]
fn a_dead_or_cordoned_broker_keeps_what_it_has_and_gets_nothing() {
    let mut facts = facts("...", &[&[0, 1], &[0, 1], &[0, 1], &[0, 2]]);
    facts.brokers[1].alive = false;
    facts.brokers[2].cordoned = true;
    assert!(planned(&facts, &exact()).moves.iter().all(|one| one.bytes == 0));
}

#[test]
fn two_replicas_in_a_rack_are_parted() {
    let facts = facts("aabb", &[&[0, 1], &[2, 0]]);
    let plan = planned(&facts, &exact());
    assert_eq!(plan.moves.len(), 1, "{plan:?}");
    assert_eq!((plan.moves[0].reason, plan.moves[0].partition, plan.bytes()), (Reason::Racks, 0, 1));
}

#[test]
fn racks_that_do_not_suffice_are_used_evenly() {
    let facts = facts("aaab", &[&[0, 1, 2]]);
    let plan = planned(&facts, &exact());
    assert!(plan.moves[0].to.contains(&3), "{plan:?}");
    let facts = self::facts("aaab", &[&[0, 1, 3]]);
    assert!(planned(&facts, &exact()).is_empty());
}

#[test]
fn a_chain_of_moves_goes_where_racks_forbid_a_single_one() {
    // 0 bears three and 3 one, but all that 0 could give has a replica in 3's rack: what 1 holds must go first.
    let facts = facts("aabbcc", &[&[0, 2], &[0, 2], &[0, 2], &[1, 4], &[1, 5], &[3, 4]]);
    let mut held: BTreeMap<i32, i32> = BTreeMap::new();
    let targets = targets(&planned(&facts, &exact()));
    for p in &facts.partitions {
        targets.get(&p.index).unwrap_or(&p.replicas).iter().for_each(|id| *held.entry(*id).or_default() += 1);
    }
    assert!(held.values().all(|n| *n == 2) && held.len() == 6, "{held:?}");
}

#[test]
fn leaders_are_evened_out_by_the_order_of_replicas_alone() {
    let plan = planned(&facts("...", &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]), &exact());
    assert_eq!((plan.moves.len(), plan.bytes()), (2, 0), "{plan:?}");
    assert!(plan.moves.iter().all(|one| one.reason == Reason::Leaders));
    let leaders: BTreeSet<i32> = plan.elections.iter().map(|e| e.leader).collect();
    assert_eq!(leaders, BTreeSet::from([1, 2]));
}

#[test]
fn a_preferred_leader_that_does_not_lead_is_elected() {
    let mut facts = facts("..", &[&[0, 1], &[1, 0]]);
    facts.partitions[0].leader = Some(1);
    let plan = planned(&facts, &exact());
    assert!(plan.moves.is_empty() && plan.elections.len() == 1 && plan.elections[0].leader == 0, "{plan:?}");
    facts.partitions[0].isr = vec![1];
    assert!(planned(&facts, &exact()).is_empty(), "not while it lacks records");
}

#[test]
fn replicas_are_added_and_taken_away() {
    let base = facts("aabc", &[&[0, 2], &[2, 0]]);
    let wish = |n| Wish { replication: BTreeMap::from([("t".to_owned(), n)]), even: false, ..exact() };
    let grown = targets(&planned(&base, &wish(3)));
    assert_eq!(grown, BTreeMap::from([(0, vec![0, 2, 3]), (1, vec![2, 0, 3])]), "to the rack that has none");

    let mut behind = base.clone();
    behind.partitions[0].isr = vec![2];
    let shrunk = targets(&planned(&behind, &wish(1)));
    assert_eq!(
        shrunk,
        BTreeMap::from([(0, vec![2]), (1, vec![2])]).into_iter().take(1).chain([(1, shrunk[&1].clone())]).collect()
    );
    assert_eq!(shrunk[&1].len(), 1);
    assert_eq!(planned(&base, &wish(3)).bytes(), 2);
    assert_eq!(plan(&base, &wish(0)), Err(Error::NoReplicasWanted("t".to_owned())));
    assert!(matches!(plan(&base, &wish(5)), Err(Error::TooFewBrokers { .. })));
}

#[test]
fn without_a_copy_to_read_from_nothing_moves_and_the_plan_says_so() {
    let mut facts = facts("...", &[&[0], &[0, 1]]);
    facts.brokers[0].alive = false;
    facts.brokers[0].draining = true;
    let plan = planned(&facts, &exact());
    assert_eq!(plan.left.iter().map(|left| left.partition).collect::<Vec<_>>(), [0]);
    assert_eq!(targets(&plan).into_keys().collect::<Vec<_>>(), [1]);
}

#[test]
fn what_moves_already_is_left_to_arrive_unless_it_would_have_to_leave_again() {
    let mut facts = facts("....", &[&[1, 0], &[2]]);
    facts.partitions[0].moving_to = Some(vec![1]);
    assert!(planned(&facts, &exact()).moves.is_empty(), "as it will be, all is even");
    facts.brokers[1].draining = true;
    let plan = planned(&facts, &exact());
    assert_eq!((plan.moves.len(), plan.moves[0].reason), (1, Reason::Drain));
    assert!(!plan.moves[0].to.contains(&1), "{plan:?}");
}

#[test]
fn bytes_become_even_by_exchanges_and_small_differences_are_let_be() {
    let mut facts = facts("..", &[&[0], &[0], &[1], &[1]]);
    for (partition, bytes) in facts.partitions.iter_mut().zip([100, 90, 10, 8]) {
        partition.bytes = bytes;
    }
    let plan = planned(&facts, &exact());
    let after = targets(&plan);
    let held = |id: i32| -> u64 {
        facts
            .partitions
            .iter()
            .filter(|p| after.get(&p.index).unwrap_or(&p.replicas).contains(&id))
            .map(|p| p.bytes)
            .sum()
    };
    assert!(held(0).abs_diff(held(1)) <= 10, "{plan:?}");
    assert_eq!(plan.moves.len(), 2);
    assert!(planned(&facts, &Wish { bytes_slack_min: 1000, ..exact() }).is_empty());
    assert!(planned(&facts, &Wish { bytes_slack_percent: 200, ..exact() }).is_empty());
}

#[test]
fn a_broker_that_is_full_in_number_but_not_in_bytes_gives_its_smallest() {
    let mut facts = facts("..", &[&[0], &[0], &[0], &[1]]);
    for (partition, bytes) in facts.partitions.iter_mut().zip([30, 1, 20, 51]) {
        partition.bytes = bytes;
    }
    assert_eq!(targets(&planned(&facts, &exact())), BTreeMap::from([(1, vec![1])]));
}

#[test]
fn waves_hold_as_many_moves_as_may_go_on_at_a_time() {
    let mut facts = facts("....", &[&[0], &[0], &[0], &[0], &[0], &[0], &[0], &[0]]);
    let plan = planned(&facts, &Wish { moves_max: Some(4), ..exact() });
    let waves: Vec<usize> = plan.waves().map(<[_]>::len).collect();
    assert_eq!(waves, [4, 2]);
    let first: BTreeSet<i32> = plan.waves().next().into_iter().flatten().flat_map(|one| one.to.clone()).collect();
    assert_eq!(first, BTreeSet::from([1, 2, 3]), "all that get something are busy");
    facts.brokers.truncate(1);
    assert_eq!(planned(&facts, &exact()).waves().count(), 0);
}

#[test]
fn contradictory_facts_are_refused() {
    let good = facts("..", &[&[0, 1]]);
    let mut bad = good.clone();
    bad.brokers.push(Broker::new(0));
    assert_eq!(plan(&bad, &exact()), Err(Error::BrokerTwice(0)));
    let mut bad = good.clone();
    bad.partitions.push(bad.partitions[0].clone());
    assert_eq!(plan(&bad, &exact()), Err(Error::PartitionTwice("t".to_owned(), 0)));
    for replicas in [vec![], vec![1, 1]] {
        let mut bad = good.clone();
        bad.partitions[0].replicas = replicas;
        assert_eq!(plan(&bad, &exact()), Err(Error::BadReplicas("t".to_owned(), 0)));
    }
    let wish = Wish { topics: Some(BTreeSet::from(["u".to_owned()])), ..exact() };
    assert_eq!(plan(&good, &wish), Err(Error::UnknownTopic("u".to_owned())));
}
