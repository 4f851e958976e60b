//! How long a plan takes for 100,000 partitions on 100 brokers, and how little it copies.

use std::time::Duration;

use klamm_planner::{Broker, Facts, Partition, Plan, Wish, plan};

const PARTITIONS: usize = 100_000;
const TOPICS: usize = PARTITIONS / 100;
const SECOND: Duration = Duration::from_secs(1);

/// Three replicas each, in four racks, on brokers 0 to `used`; sizes from megabytes to hundreds of gigabytes.
fn cluster(brokers: usize, used: usize, scattered: bool) -> Facts {
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let broker = |n: usize| Broker { rack: Some(format!("rack-{}", n % 4)), ..Broker::new(n as i32) };
    let partition = |n: usize| {
        // In steps that are no multiple of the number of racks.
        let first = if scattered { random() % used } else { n % used };
        let step = 1 + 4 * (random() % 5);
        let replicas: Vec<i32> = (0..3).map(|k| ((first + k * step) % used) as i32).collect();
        Partition {
            topic: format!("topic-{}", n / (PARTITIONS / TOPICS)),
            index: (n % (PARTITIONS / TOPICS)) as i32,
            leader: replicas.first().copied(),
            isr: replicas.clone(),
            replicas,
            bytes: 1 << (20 + random() % 18),
            moving_to: None,
        }
    };
    Facts { brokers: (0..brokers).map(broker).collect(), partitions: (0..PARTITIONS).map(partition).collect() }
}

/// How long this thread has run. What else the machine does is not the plan's doing.
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the time on a processor");
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
}

fn timed(what: &str, facts: &Facts) -> Plan {
    let begun = worked();
    let plan = plan(facts, &Wish::default()).expect("a plan");
    let took = worked() - begun;
    let held: u64 = facts.partitions.iter().map(|p| p.bytes * 3).sum();
    let percent = plan.bytes() as f64 * 100.0 / held as f64;
    let mut bytes: Vec<u64> = vec![0; facts.brokers.len()];
    let mut placed: std::collections::HashMap<(&str, i32), &[i32]> =
        facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p.replicas.as_slice())).collect();
    placed.extend(plan.moves.iter().map(|one| ((one.topic.as_str(), one.partition), one.to.as_slice())));
    for p in &facts.partitions {
        placed[&(p.topic.as_str(), p.index)].iter().for_each(|id| bytes[*id as usize] += p.bytes);
    }
    bytes.retain(|bytes| *bytes > 0);
    let mean = bytes.iter().sum::<u64>() / bytes.len() as u64;
    let apart = (bytes.iter().max().unwrap_or(&0) - bytes.iter().min().unwrap_or(&0)) as f64 * 100.0 / mean as f64;
    println!("{what}: bytes {apart:.1} % apart");
    assert!(apart <= 10.0, "the slack");
    println!("{what}: {took:?}, {} moves, {percent:.1} % of all bytes copied", plan.moves.len());
    assert!(took < SECOND, "{what} took {took:?}");
    plan
}

#[test]
fn a_hundred_thousand_partitions_are_planned_in_a_second() {
    let even = cluster(100, 100, false);
    timed("as good as even", &even);

    let mut drained = even.clone();
    drained.brokers.iter_mut().take(10).for_each(|b| b.draining = true);
    let plan = timed("ten of a hundred drained", &drained);
    assert!(plan.moves.len() >= PARTITIONS / 5 && plan.moves.iter().all(|one| one.to.iter().all(|id| *id >= 10)));

    let plan = timed("ten more on ninety", &cluster(100, 90, false));
    let arrived = plan.moves.iter().flat_map(|one| one.adding()).filter(|id| *id >= 90).count();
    let share = PARTITIONS * 3 / 10;
    assert!(arrived >= share - 10, "{arrived} of {share}");

    // Half of all bytes move: far more than a plan is usually about.
    timed("as many again on fifty", &cluster(100, 50, false));
    timed("scattered at random", &cluster(100, 100, true));
}
