//! What holds for every plan, tried on clusters drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{Broker, Facts, Partition, Plan, Wish, plan};

/// A cluster in which every partition can be moved.
fn cluster(racks: usize, odd: bool) -> impl Strategy<Value = Facts> {
    let state = prop_oneof![4 => Just(0), if odd { 1 } else { 0 } => 1..4_u8];
    let brokers = prop::collection::vec((0..racks.max(1), state), 3..9);
    (brokers, prop::collection::vec((1..7_usize, 1..4_usize, any::<u64>()), 1..8)).prop_map(move |(nodes, topics)| {
        let broker = |(n, (rack, state)): (usize, (usize, u8))| Broker {
            rack: (racks > 0).then(|| format!("rack-{rack}")),
            alive: state != 1,
            cordoned: state == 2,
            draining: state == 3,
            maintained: n % 4 == 3,
            ..Broker::new(n as i32 * 3)
        };
        let brokers: Vec<Broker> = nodes.into_iter().enumerate().map(broker).collect();
        let mut partitions = Vec::new();
        for (t, (count, replication, mut seed)) in topics.into_iter().enumerate() {
            for index in 0..count {
                let mut ids: Vec<i32> = brokers.iter().map(|b| b.id).collect();
                let mut replicas = Vec::new();
                for _ in 0..replication {
                    seed = next(seed);
                    replicas.push(ids.remove((seed >> 33) as usize % ids.len()));
                }
                seed = next(seed);
                partitions.push(Partition {
                    topic: format!("t{t}"),
                    index: index as i32,
                    leader: replicas.first().copied(),
                    isr: replicas.clone(),
                    replicas,
                    bytes: (seed >> 33) % 1000,
                    moving_to: None,
                });
            }
        }
        let alive: BTreeSet<i32> = brokers.iter().filter(|b| b.alive).map(|b| b.id).collect();
        // One that only dead brokers hold can't be moved; examples are about those.
        partitions.retain(|p| p.replicas.iter().any(|id| alive.contains(id)));
        Facts { brokers, partitions }
    })
}

fn next(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// All brokers alive and open, each topic with this many replicas.
fn healthy(replication: usize, racks: usize, per_rack: usize) -> impl Strategy<Value = Facts> {
    cluster(0, false).prop_map(move |mut facts| {
        let count = racks.max(1) * per_rack;
        let broker =
            |n: usize| Broker { rack: (racks > 0).then(|| format!("rack-{}", n % racks)), ..Broker::new(n as i32) };
        facts.brokers = (0..count).map(broker).collect();
        for partition in &mut facts.partitions {
            // Badly placed on purpose: few brokers hold most.
            let first = partition.bytes as usize % 2;
            let mut replicas: Vec<i32> = (first..first + replication).map(|n| (n % count) as i32).collect();
            replicas.rotate_left(partition.bytes as usize % replication);
            partition.isr = replicas.clone();
            partition.leader = replicas.first().copied();
            partition.replicas = replicas;
        }
        facts
    })
}

/// Sizes matter from the first byte.
fn exact() -> Wish {
    Wish { bytes_slack_min: 0, ..Wish::default() }
}

/// The cluster once the plan is carried out.
fn carried_out(facts: &Facts, plan: &Plan) -> Facts {
    let mut after = facts.clone();
    for one in &plan.moves {
        let found = after.partitions.iter_mut().find(|p| p.topic == one.topic && p.index == one.partition);
        let partition = found.expect("the partition of a move");
        assert_eq!(partition.replicas, one.from, "{one:?}");
        assert_ne!(partition.replicas, one.to, "{one:?}");
        partition.replicas = one.to.clone();
        partition.isr = one.to.clone();
    }
    for election in &plan.elections {
        let same = |p: &&mut Partition| p.topic == election.topic && p.index == election.partition;
        let partition = after.partitions.iter_mut().find(same).expect("the partition of an election");
        assert_eq!(partition.replicas.first(), Some(&election.leader));
        partition.leader = Some(election.leader);
    }
    after
}

/// Replicas and preferred leaders of each broker that takes part.
fn loads(facts: &Facts) -> (Vec<usize>, Vec<usize>) {
    let members = facts.brokers.iter().filter(|b| b.alive && !b.cordoned && !b.draining);
    let count = |id: i32| {
        let holds = facts.partitions.iter().filter(|p| p.replicas.contains(&id)).count();
        (holds, facts.partitions.iter().filter(|p| p.replicas.first() == Some(&id)).count())
    };
    members.map(|b| count(b.id)).unzip()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_must_hold_holds_after_every_plan(
        facts in prop_oneof![cluster(0, true), cluster(2, true), cluster(4, true)],
        wanted in prop::collection::btree_map("t[0-3]", 1..4_usize, 0..3),
        even in any::<bool>(),
    ) {
        let topics: BTreeSet<&str> = facts.partitions.iter().map(|p| p.topic.as_str()).collect();
        let replication: BTreeMap<String, usize> =
            wanted.into_iter().filter(|(topic, _)| topics.contains(topic.as_str())).collect();
        let wish = Wish { replication, even, ..exact() };
        let Ok(plan) = plan(&facts, &wish) else {
            // Only ever for want of brokers.
            let open = facts.brokers.iter().filter(|b| b.alive && !b.cordoned && !b.draining).count();
            prop_assert!(open < 3);
            return Ok(());
        };
        prop_assert!(plan.left.is_empty());
        for one in &plan.elections {
            let to = facts.brokers.iter().find(|b| b.id == one.leader).expect("a broker");
            prop_assert!(to.alive && !to.maintained && !to.draining, "{:?} is to lead {:?}", to, one);
        }
        let after = carried_out(&facts, &plan);
        let broker = |id: &i32| facts.brokers.iter().find(|b| b.id == *id).expect("a broker");
        let open = facts.brokers.iter().filter(|b| b.alive && !b.cordoned && !b.draining);
        let open_racks: BTreeSet<_> = open.map(|b| (b.rack.clone(), b.rack.is_none().then_some(b.id))).collect();
        for (old, new) in facts.partitions.iter().zip(&after.partitions) {
            let wanted = wish.replication.get(&old.topic).copied().unwrap_or(old.replicas.len());
            prop_assert_eq!(new.replicas.len(), wanted, "the number of replicas");
            prop_assert!(!new.replicas.iter().any(|id| broker(id).draining), "left on a drained broker: {:?}", new);
            let distinct: BTreeSet<_> = new.replicas.iter().collect();
            prop_assert_eq!(distinct.len(), wanted, "a broker twice: {:?}", new);
            for id in new.replicas.iter().filter(|id| !old.replicas.contains(id)) {
                let to = broker(id);
                prop_assert!(to.alive && !to.cordoned && !to.draining, "{:?} gets {:?}", to, new);
            }
            if open_racks.len() >= wanted {
                let racks: BTreeSet<_> = new.replicas.iter().map(|id| (broker(id).rack.clone(), broker(id).rack.is_none().then_some(*id))).collect();
                prop_assert_eq!(racks.len(), wanted, "two in a rack: {:?}", new);
            }
        }
        for one in &plan.moves {
            let size = facts.partitions.iter().find(|p| p.topic == one.topic && p.index == one.partition).map(|p| p.bytes);
            prop_assert_eq!(Some(one.bytes), size.map(|size| size * one.adding().count() as u64));
        }
    }

    #[test]
    fn a_plan_leaves_nothing_to_another_plan(
        facts in prop_oneof![cluster(0, true), cluster(2, true), cluster(3, true), cluster(5, false)],
    ) {
        let Ok(first) = plan(&facts, &exact()) else { return Ok(()) };
        let mut after = carried_out(&facts, &first);
        after.brokers.retain(|b| !b.draining);
        let second = plan(&after, &exact()).expect("a plan for what was planned");
        prop_assert!(second.is_empty(), "{:?}", second);
    }

    #[test]
    fn brokers_become_even_in_replicas_and_leaders(facts in cluster(0, false)) {
        let after = carried_out(&facts, &plan(&facts, &exact()).expect("a plan"));
        let (replicas, leaders) = loads(&after);
        prop_assert!(spread(&replicas) <= 1, "replicas {:?}", replicas);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    #[test]
    fn racks_of_equal_size_do_not_make_brokers_uneven(
        facts in prop_oneof![healthy(3, 3, 2), healthy(2, 3, 3), healthy(3, 5, 1)],
    ) {
        let after = carried_out(&facts, &plan(&facts, &exact()).expect("a plan"));
        let (replicas, leaders) = loads(&after);
        prop_assert!(spread(&replicas) <= 1, "replicas {:?}", replicas);
        prop_assert!(spread(&leaders) <= 1, "leaders {:?}", leaders);
    }

    #[test]
    fn no_exchange_that_pays_is_left_undone(
        facts in prop_oneof![cluster(0, false), cluster(3, false), healthy(2, 3, 2)],
        percent in 0..20_u64,
    ) {
        let wish = Wish { bytes_slack_percent: percent, ..exact() };
        let after = carried_out(&facts, &plan(&facts, &wish).expect("a plan"));
        let bytes = |id: i32| after.partitions.iter().filter(|p| p.replicas.contains(&id)).map(|p| p.bytes).sum::<u64>();
        let held: Vec<(i32, u64)> = after.brokers.iter().map(|b| (b.id, bytes(b.id))).collect();
        let mean = held.iter().map(|(_, bytes)| bytes).sum::<u64>() / held.len() as u64;
        let slack = (mean * percent / 100).max(1);
        let rack = |id: i32| after.brokers.iter().find(|b| b.id == id).and_then(|b| b.rack.clone());
        // Whether a partition may go from one broker to another without sharing a rack there.
        let fits = |p: &Partition, from: i32, to: i32| {
            let shares = |id: &i32| *id != from && rack(*id).is_some() && rack(*id) == rack(to);
            !p.replicas.contains(&to) && !p.replicas.iter().any(shares)
        };
        for (full, most) in &held {
            for (empty, least) in held.iter().filter(|(_, least)| most.saturating_sub(*least) > slack) {
                let (apart, on) = (most - least, |id: i32| after.partitions.iter().filter(move |p| p.replicas.contains(&id)));
                for given in on(*full).filter(|p| fits(p, *full, *empty)) {
                    let alike = |q: &&Partition| (q.replicas[0] == *empty) == (given.replicas[0] == *full);
                    for taken in on(*empty).filter(alike).filter(|q| fits(q, *empty, *full)) {
                        let shift = given.bytes.saturating_sub(taken.bytes);
                        let gain = shift.min(apart.saturating_sub(shift));
                        let worth_it = gain * 4 * on(*full).count() as u64 > apart && gain * 4 >= given.bytes + taken.bytes;
                        prop_assert!(!worth_it, "{:?} for {:?} makes {} and {} more even", given, taken, full, empty);
                    }
                }
            }
        }
    }

    #[test]
    fn brokers_become_even_in_bytes_where_sizes_allow_it(seed in any::<u64>(), used in 3..8_usize) {
        let mut seed = seed;
        let partition = |n: usize| {
            seed = next(seed);
            let replicas: Vec<i32> = (0..3).map(|k| ((n + k * (1 + n % 2)) % used) as i32).collect();
            let replicas: Vec<i32> = if replicas[0] == replicas[2] { vec![replicas[0], replicas[1]] } else { replicas };
            Partition {
                topic: format!("t{}", n % 7),
                index: n as i32,
                leader: replicas.first().copied(),
                isr: replicas.clone(),
                replicas,
                bytes: 1000 + (seed >> 33) % 9000,
                moving_to: None,
            }
        };
        let facts = Facts { partitions: (0..300).map(partition).collect(), brokers: (0..8).map(Broker::new).collect() };
        let after = carried_out(&facts, &plan(&facts, &exact()).expect("a plan"));
        let held = |id: i32| after.partitions.iter().filter(|p| p.replicas.contains(&id)).map(|p| p.bytes).sum::<u64>();
        let held: Vec<u64> = (0..8).map(held).collect();
        let apart = held.iter().max().unwrap_or(&0) - held.iter().min().unwrap_or(&0);
        // The default slack.
        let mean = held.iter().sum::<u64>() / 8;
        prop_assert!(apart * 100 <= mean * Wish::default().bytes_slack_percent, "{:?}", held);
    }

    #[test]
    fn no_more_is_copied_than_must_be(facts in prop_oneof![healthy(1, 0, 4), healthy(2, 0, 5), healthy(3, 0, 7)]) {
        let mut facts = facts;
        facts.partitions.iter_mut().for_each(|p| p.bytes = 1);
        let before = loads(&facts).0;
        let (total, count) = (before.iter().sum::<usize>(), before.len());
        let above: usize = before.iter().map(|n| n.saturating_sub(total.div_ceil(count))).sum();
        let below: usize = before.iter().map(|n| (total / count).saturating_sub(*n)).sum();
        let planned = plan(&facts, &exact()).expect("a plan");
        prop_assert_eq!(planned.bytes(), above.max(below) as u64, "{:?}: {:?}", before, planned.moves);
    }

    #[test]
    fn the_order_of_the_facts_does_not_matter(facts in cluster(3, true), by in 1..50_usize) {
        let mut turned = facts.clone();
        let partitions = turned.partitions.len().max(1);
        turned.partitions.rotate_left(by % partitions);
        turned.partitions.reverse();
        turned.brokers.reverse();
        prop_assert_eq!(plan(&facts, &exact()), plan(&turned, &exact()));
    }

    #[test]
    fn topics_that_are_not_named_stay(facts in cluster(3, false), even in any::<bool>()) {
        let mut facts = facts;
        facts.brokers[0].draining = true;
        let topics = Some(BTreeSet::from([facts.partitions[0].topic.clone()]));
        let Ok(plan) = plan(&facts, &Wish { topics: topics.clone(), even, ..exact() }) else { return Ok(()) };
        let moved: BTreeSet<String> = plan.moves.iter().map(|one| one.topic.clone()).collect();
        prop_assert!(topics.is_some_and(|topics| moved.is_subset(&topics)));
    }
}
