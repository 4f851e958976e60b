//! A throttle holds back what it shall, and no more: a replica is filled at the rate that was set, whether its leader
//! sends or it takes no faster.

use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Plan, paths, wait_for};
use serde_json::json;

use crate::balance::klamm;
use crate::view::View;
use crate::workload::options;

/// Bytes a second.
const RATE: u64 = 1_000_000;
const LINES: usize = 14_000;
/// A topic whose leader sends slowly, and the broker that gets it; one whose new replica takes slowly, and that one.
const MOVES: [(&str, usize); 2] = [("sent", 1), ("taken", 2)];

/// How many bytes of a topic's only partition a broker has.
fn size(cluster: &Cluster, broker: usize, topic: &str) -> u64 {
    let files = std::fs::read_dir(cluster.data(broker).join(format!("{topic}-0"))).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|e| e == "log"));
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The bytes a second between the first seconds, when what was saved up passes at once, and the last one: each step of
/// the log's end is paid for by the time until the next.
#[track_caller]
fn steady(steps: &[(Instant, u64)], whole: u64) -> f64 {
    let first = steps.iter().position(|(_, bytes)| *bytes >= 2 * RATE).expect("a replica that grows");
    let last = steps.iter().rposition(|(_, bytes)| *bytes <= whole - RATE).expect("a replica that grows");
    assert!(last > first, "too fast to be seen: {steps:?}");
    let seconds = (steps[last].0 - steps[first].0).as_secs_f64();
    assert!(seconds >= 5.0, "{seconds:.1} s are not long enough to tell: {steps:?}");
    (steps[last].1 - steps[first].1) as f64 / seconds
}

#[test]
fn moves_are_as_fast_as_the_leaders_or_the_followers_throttle_lets_them_be() {
    // Small answers, so that a log grows evenly.
    let plan = Plan::default().set("replica.fetch.max.bytes", "100000");
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        for (name, _) in MOVES {
            let topic = NewTopic { name: name.into(), assignments: vec![vec![0]], ..Default::default() };
            client.create_topic(&topic).await?;
        }
        Ok::<_, klamm_client::ClientError>(())
    })
    .expect("the topics");
    let lines: String = (0..LINES).map(|n| format!("{n:01000}\n")).collect();
    for (topic, _) in MOVES {
        klamm(&cluster, &format!("produce {topic}")).stdin(lines.clone()).ok();
    }
    let wholes = MOVES.map(|(topic, _)| size(&cluster, 0, topic));
    assert!(wholes.iter().all(|bytes| *bytes > 12 * RATE), "{wholes:?}");

    // One direction each: the other one has neither a rate nor a name.
    for line in [
        format!("broker 0 --set leader.replication.throttled.rate={RATE}"),
        format!("broker 2 --set follower.replication.throttled.rate={RATE}"),
        "topic sent --set leader.replication.throttled.replicas=0:0".to_owned(),
        "topic taken --set follower.replication.throttled.replicas=0:2".to_owned(),
    ] {
        klamm(&cluster, &format!("configs alter {line}")).ok();
    }
    let partition = |(topic, to): (&str, usize)| json!({"topic": topic, "partition": 0, "replicas": [to]});
    let dir = paths::scratch_dir("throttles");
    let file = dir.join("plan.json");
    std::fs::write(&file, json!({"version": 1, "partitions": MOVES.map(partition)}).to_string()).expect("the plan");
    klamm(&cluster, &format!("reassign execute {} --no-wait", file.display())).ok();

    let mut steps = MOVES.map(|_| vec![(Instant::now(), 0)]);
    let done = wait_for(Duration::from_secs(120), || {
        let mut all = true;
        for (n, (topic, to)) in MOVES.into_iter().enumerate() {
            let bytes = size(&cluster, to, topic);
            if steps[n].last().is_some_and(|(_, last)| *last < bytes) {
                steps[n].push((Instant::now(), bytes));
            }
            all &= bytes >= wholes[n];
        }
        all.then_some(())
    });
    assert!(done.is_some(), "not copied within two minutes: {steps:?}");
    let rates = [0, 1].map(|n| steady(&steps[n], wholes[n]));
    println!("figures throttles of {RATE} B/s: the leader's {:.0} B/s, the follower's {:.0} B/s", rates[0], rates[1]);
    for (rate, (topic, _)) in rates.iter().zip(MOVES) {
        let share = rate / RATE as f64;
        assert!((0.9..=1.1).contains(&share), "{topic}: {rate:.0} B/s instead of {RATE}");
    }
    let _ = std::fs::remove_dir_all(dir);
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
}
