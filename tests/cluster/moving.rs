//! R20: three brokers become five and three again under load, by plan and throttled, while brokers are killed.

use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Plan, Random, eventually, wait_for};

use crate::balance::{counts, klamm, parsed, replicas, spread};
use crate::judge::{figure, judge, seed};
use crate::kills::pass;
use crate::view::View;
use crate::workload::{Load, Running, options};

const TOPIC: &str = "moving";
const PARTITIONS: i32 = 12;
/// A topic that nobody writes to, so that what a new broker has of it has been copied.
const BALLAST: &str = "ballast";
const BALLAST_RECORDS: usize = 14_000;
/// Bytes a second.
const THROTTLE: u64 = 1_000_000;

/// Has `command` carried out, again until `plan` says that nothing is left to move, while brokers are killed. Gives the
/// number of kills.
#[track_caller]
fn carried_out(cluster: &mut Cluster, running: &Running, random: &mut Random, command: &str, plan: &str) -> u64 {
    let mut kills = 0;
    let mut harm = |cluster: &mut Cluster| {
        let victim = random.below(cluster.ids().len() as u64) as usize;
        let at = running.now_ms();
        cluster.kill(victim);
        pass(Duration::from_millis(random.between(50, 1500)));
        cluster.launch(victim);
        running.writable_since(at, Duration::from_secs(60));
        kills += 1;
        Duration::from_millis(random.between(200, 1500))
    };
    for _ in 0..5 {
        let mut tool = klamm(cluster, command).start();
        let mut pause = Duration::from_millis(500);
        while tool.wait(pause).is_none() {
            pause = harm(cluster);
        }
        if !tool.stderr().is_empty() && tool.wait(Duration::ZERO).is_some_and(|status| !status.success()) {
            println!("`{command}` left early: {}", tool.stderr().lines().last().unwrap_or_default());
        }
        // The moves go on without it.
        let moved = wait_for(Duration::from_secs(120), || {
            let left = klamm(cluster, "reassign status").run().out;
            if !left.contains("nothing is being moved") {
                harm(cluster);
                return None;
            }
            Some(())
        });
        if moved.is_some() && klamm(cluster, plan).run().out.contains("nothing to move") {
            return kills;
        }
    }
    panic!("`{command}` did not come to its end: {}", klamm(cluster, "reassign status").run());
}

/// Creates a topic whose replicas are on the first three brokers alone.
#[track_caller]
fn create(cluster: &mut Cluster, view: &View, name: &str) {
    view.run(async {
        let assignments = (0..PARTITIONS).map(|n| (0..3).map(|r| (n + r) % 3).collect()).collect();
        let topic = NewTopic { name: name.into(), assignments, ..Default::default() };
        Client::connect(&cluster.bootstrap(), options()).await?.create_topic(&topic).await
    })
    .expect("the topic");
    view.until_in_sync(cluster, Duration::from_secs(30));
}

/// Records of about a kilobyte.
fn fill(cluster: &Cluster) {
    let lines: String = (0..BALLAST_RECORDS).map(|n| format!("{n:01000}\n")).collect();
    klamm(cluster, &format!("produce {BALLAST}")).stdin(lines).ok();
}

/// What a broker has of the ballast on its disk.
fn ballast(cluster: &Cluster, id: usize) -> u64 {
    let partitions = (0..PARTITIONS).map(|n| cluster.data(id).join(format!("{BALLAST}-{n}")));
    let files = partitions.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|e| e == "log"));
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Moves ballast to the two new brokers and measures how fast: the bytes a second that each takes, as a share of what it
/// may, in percent.
#[track_caller]
fn throttled(cluster: &Cluster) -> Vec<u64> {
    // Leaders on all of those that send, so that none of them is what holds a new broker back.
    klamm(cluster, "cluster elect").ok();
    let line = format!("reassign execute --topics {BALLAST} --brokers 0,1,2,3,4 --yes --throttle {THROTTLE}");
    let mut tool = klamm(cluster, &line).start();
    let mut seen: Vec<(Instant, [u64; 2])> = Vec::new();
    while tool.wait(Duration::from_millis(100)).is_none() {
        seen.push((Instant::now(), [3, 4].map(|id| ballast(cluster, id))));
    }
    let all = [3, 4].map(|id| ballast(cluster, id));
    let rate = |n: usize| {
        // Without the first second's worth, which may come at once, and the end, when little is left to copy.
        let middle = |bytes: u64| bytes >= THROTTLE * 3 / 2 && bytes <= all[n] - THROTTLE;
        let middle: Vec<_> = seen.iter().filter(|(_, bytes)| middle(bytes[n])).collect();
        let (Some(first), Some(last)) = (middle.first(), middle.last()) else {
            panic!("too fast to be seen: {seen:?}")
        };
        let seconds = (last.0 - first.0).as_secs_f64();
        let percent = (last.1[n] - first.1[n]) as f64 / seconds / THROTTLE as f64 * 100.0;
        // Several leaders and followers share it while clients write, so that it is not used to the full all the time; the
        // rate of one leader and of one follower by itself is measured more sharply in `throttles.rs`.
        let kept = (75.0..=110.0).contains(&percent);
        assert!(seconds > 3.0 && kept, "{percent:.1} % of the throttle during {seconds:.1} s");
        percent.round() as u64
    };
    vec![rate(0), rate(1)]
}

/// The ids of those that vote.
#[track_caller]
fn voters(cluster: &Cluster) -> Vec<u64> {
    let quorum = parsed(&klamm(cluster, "quorum describe -o json").ok());
    let nodes = quorum["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|n| n["role"] != "observer").filter_map(|n| n["id"].as_u64()).collect()
}

/// The state of each broker.
#[track_caller]
fn states(cluster: &Cluster) -> Vec<(u64, String)> {
    let brokers = parsed(&klamm(cluster, "brokers list -o json").ok());
    let brokers = brokers.as_array().cloned().unwrap_or_default();
    brokers.iter().filter_map(|b| Some((b["id"].as_u64()?, b["state"].as_str()?.to_owned()))).collect()
}

#[track_caller]
fn joins(cluster: &mut Cluster) {
    let id = cluster.join();
    eventually("it takes part", 30, || states(cluster).contains(&(id as u64, "active".to_owned())).then_some(()));
    klamm(cluster, &format!("brokers uncordon {id}")).ok();
}

/// A drained broker is stopped and forgotten.
#[track_caller]
fn leaves(cluster: &mut Cluster) {
    let id = cluster.leave() as u64;
    eventually("it is fenced", 30, || states(cluster).contains(&(id, "fenced".to_owned())).then_some(()));
    klamm(cluster, &format!("cluster unregister {id}")).ok();
    eventually("it is forgotten", 10, || states(cluster).iter().all(|(other, _)| *other != id).then_some(()));
    eventually("so is its vote", 10, || (!voters(cluster).contains(&id)).then_some(()));
}

#[test]
fn nothing_acknowledged_is_lost_while_brokers_join_and_leave_and_are_killed() {
    let rounds = figure(1, 10);
    let seed = seed();
    let mut random = Random::new(seed);
    // Small answers, so that the throttle is even enough to be measured in seconds.
    let plan = Plan { nodes: 5, founders: Some(3), ..Plan::default() }
        .set("log.segment.bytes", "4194304")
        .set("replica.fetch.response.max.bytes", "200000")
        .set("replica.fetch.max.bytes", "100000")
        .set("klamm.quorum.seats", "5");
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    create(&mut cluster, &view, TOPIC);
    create(&mut cluster, &view, BALLAST);
    fill(&cluster);
    let running = Load::new(TOPIC, PARTITIONS, seed).start(&cluster.bootstrap());
    running.more(figure(10_000, 50_000), Duration::from_secs(120));
    let (mut kills, mut percents) = (0, Vec::new());
    for _ in 0..rounds {
        assert_eq!(voters(&cluster), [0, 1, 2]);
        joins(&mut cluster);
        joins(&mut cluster);
        eventually("all vote", 30, || (voters(&cluster) == [0, 1, 2, 3, 4]).then_some(()));
        percents.extend(throttled(&cluster));
        // Slow enough for the kills to meet it; in a long run there is more and more to move.
        let out = format!("cluster balance --yes --throttle {}", figure(300_000, 3_000_000));
        kills += carried_out(&mut cluster, &running, &mut random, &out, "cluster balance --dry-run");
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let held = counts(&cluster, "replicas");
        assert!(held.len() == 5 && spread(&held) <= 1, "{held:?}");
        for id in [4, 3] {
            let drain = format!("brokers drain {id} --yes --throttle {}", figure(3_000_000, 10_000_000));
            kills += carried_out(&mut cluster, &running, &mut random, &drain, &format!("reassign plan --drain {id}"));
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
            assert_eq!(counts(&cluster, "replicas").get(&id), Some(&0));
            leaves(&mut cluster);
        }
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let held = counts(&cluster, "replicas");
        assert!(held.len() == 3 && spread(&held) <= 1, "{held:?}");
        assert!([TOPIC, BALLAST].iter().all(|topic| replicas(&cluster, topic).iter().all(|n| *n == 3)));
    }
    let read = klamm(&cluster, &format!("consume {BALLAST} --from-beginning --exit-at-end")).ok();
    assert_eq!(read.out.lines().count(), BALLAST_RECORDS);
    running.writable_since(running.now_ms(), Duration::from_secs(60));
    let notes =
        format!("{rounds} times 3 to 5 to 3 brokers, {kills} kills; of the throttle, new brokers took {percents:?} %");
    judge("R20 moves", cluster, &view, running, &notes);
}

/// The new replica of a partition that clients write to shares its throttle with partitions that take long to copy. Its leader
/// waits for a replica that has once had everything (KIP-73 holds it back nevertheless): for what little it lacks it must not
/// wait in its turn.
#[test]
fn what_is_written_to_does_not_stand_still_while_other_partitions_are_copied() {
    let seed = seed();
    let plan = Plan { nodes: 4, ..Plan::default() }
        .set("replica.fetch.response.max.bytes", "200000")
        .set("replica.fetch.max.bytes", "100000");
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    create(&mut cluster, &view, TOPIC);
    create(&mut cluster, &view, BALLAST);
    fill(&cluster);
    let running = Load { rate: 600, ..Load::new(TOPIC, PARTITIONS, seed) }.start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let begun = running.now_ms();
    let line = format!(
        "reassign execute --topics {BALLAST},{TOPIC} --brokers 1,2,3 --yes --max-moves 24 --throttle {THROTTLE}"
    );
    klamm(&cluster, &line).limit(120).ok();
    let ended = running.now_ms();
    running.more(1000, Duration::from_secs(60));
    let took = ended - begun;
    let history = judge("moves beside others", cluster, &view, running, &format!("moved in {took} ms"));
    let gaps = history.gaps_within(begun, ended);
    let longest: Vec<u32> = gaps.values().map(|gap| gap.ms).collect();
    println!("figures moves beside others: longest time without an acknowledgement by partition, ms: {longest:?}");
    assert!(took > 8_000, "too fast for a throttle to hold anything back: {took} ms");
    assert!(longest.iter().all(|ms| *ms <= 1_000), "{gaps:?}");
}

#[test]
fn moves_are_watched_to_their_end_though_controllers_die() {
    let mut cluster = Cluster::start(Plan { nodes: 4, ..Plan::default() }.set("replica.fetch.max.bytes", "100000"));
    let view = View::of(&cluster);
    create(&mut cluster, &view, BALLAST);
    fill(&cluster);
    let before = counts(&cluster, "replicas");
    let line = format!("reassign execute --topics {BALLAST} --brokers 1,2,3 --yes --max-moves 3 --throttle {THROTTLE}");
    let mut tool = klamm(&cluster, &line).start();
    let moved = |cluster: &Cluster| counts(cluster, "replicas").get(&3).copied().unwrap_or(0);
    for n in [1, 6] {
        wait_for(Duration::from_secs(60), || (moved(&cluster) >= n).then_some(())).expect("moves");
        assert!(tool.wait(Duration::ZERO).is_none(), "still at it");
        let controller = view.controller(&mut cluster);
        cluster.kill(controller);
        pass(Duration::from_millis(300));
        cluster.launch(controller);
    }
    let code = tool.wait(Duration::from_secs(100)).and_then(|status| status.code());
    assert_eq!(code, Some(0), "{}\n{}", tool.stdout(), tool.stderr());
    assert!(tool.stdout().contains(&format!("{PARTITIONS} partitions moved")), "{}", tool.stdout());
    let held = counts(&cluster, "replicas");
    assert!(before[&3] == 0 && held[&0] == 0 && held[&3] == PARTITIONS as u64, "{held:?}");
    klamm(&cluster, "reassign status").ok().expect("nothing is being moved");
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
}
