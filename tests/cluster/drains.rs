//! Several who move partitions at once: nothing is lost, nobody undoes the other for good, and all say what is so.

use std::collections::BTreeMap;
use std::thread;

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Output, Plan, eventually, paths};
use serde_json::json;

use crate::balance::{counts, klamm, parsed, replicas};
use crate::judge::http_get;
use crate::view::View;
use crate::workload::options;

/// Partitions that hold records, and how many each.
const LOADED: [i32; 4] = [0, 5, 10, 15];
const LINES: usize = 1_500;
const PARTITIONS: usize = 30;

/// Five brokers and a topic with three replicas of some data on all of them.
fn five() -> (Cluster, View) {
    let cluster = Cluster::start(Plan { nodes: 5, ..Plan::default() });
    let view = View::of(&cluster);
    let assignments = (0..PARTITIONS as i32).map(|p| (0..3).map(|r| (p + r) % 5).collect()).collect();
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        client.create_topic(&NewTopic { name: "both".into(), assignments, ..Default::default() }).await
    })
    .expect("the topic");
    let line = |n: usize| format!("{n} {}\n", "x".repeat(1000));
    for (nth, partition) in LOADED.into_iter().enumerate() {
        // More than one batch, so that a throttle has something to hold back.
        let lines = (nth * LINES..(nth + 1) * LINES).map(line).collect::<String>();
        klamm(&cluster, &format!("produce both -p {partition}")).stdin(lines).ok();
    }
    (cluster, view)
}

/// All lines are there, each once.
#[track_caller]
fn whole(cluster: &Cluster) {
    let read = klamm(cluster, "consume both --from-beginning --exit-at-end").ok();
    let number = |line: &str| line.split(' ').next().and_then(|n| n.parse::<usize>().ok());
    let mut numbers: Vec<usize> = read.out.lines().filter_map(number).collect();
    numbers.sort_unstable();
    assert!(numbers == (0..LOADED.len() * LINES).collect::<Vec<_>>(), "{} lines", numbers.len());
}

#[track_caller]
fn no_throttle(cluster: &Cluster) {
    for resource in ["topic both", "broker 0", "broker 1", "broker 2", "broker 3", "broker 4"] {
        let left = klamm(cluster, &format!("configs describe {resource}")).ok();
        assert!(!left.out.contains("throttled"), "a throttle is left on {resource}: {left}");
    }
}

/// Runs two commands side by side.
fn side_by_side(cluster: &Cluster, lines: [&str; 2]) -> [Output; 2] {
    thread::scope(|scope| {
        let running = lines.map(|line| scope.spawn(move || klamm(cluster, line).run()));
        running.map(|one| one.join().expect("the command"))
    })
}

#[test]
fn two_brokers_are_drained_at_once() {
    let (mut cluster, view) = five();
    for round in 0..2 {
        // One more often than the other: they share brokers, and end at different times.
        let done = side_by_side(
            &cluster,
            ["brokers drain 3 --yes --max-moves 3 --throttle 3000000", "brokers drain 4 --yes --throttle 5000000"],
        );
        let held = counts(&cluster, "replicas");
        assert!(done.iter().all(|d| d.code == 0), "round {round}: {held:?} {} {}", done[0], done[1]);
        assert_eq!(held, BTreeMap::from([(0, 30), (1, 30), (2, 30), (3, 0), (4, 0)]), "{} {}", done[0], done[1]);
        no_throttle(&cluster);
        assert!(replicas(&cluster, "both").iter().all(|n| *n == 3));
        whole(&cluster);
        for id in [3, 4] {
            klamm(&cluster, &format!("brokers uncordon {id}")).ok();
        }
        eventually("both are free again", 10, || {
            let listed = klamm(&cluster, "brokers list").ok();
            (!listed.out.contains("cordoned")).then_some(())
        });
        klamm(&cluster, "cluster balance --yes").ok();
        assert!(counts(&cluster, "replicas").values().all(|n| *n == 18), "{:?}", counts(&cluster, "replicas"));
    }
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
}

#[test]
fn who_moves_to_a_broker_that_is_being_drained_is_refused() {
    let (mut cluster, view) = five();
    klamm(&cluster, "brokers cordon 4").ok();
    eventually("the controller knows", 10, || {
        klamm(&cluster, "brokers list").ok().out.contains("cordoned").then_some(())
    });
    let dir = paths::scratch_dir("refused");
    let file = dir.join("plan.json");
    let plan = json!({"version": 1, "partitions": [{"topic": "both", "partition": 0, "replicas": [4, 1, 2]}]});
    std::fs::write(&file, plan.to_string()).expect("the plan");
    let refused = klamm(&cluster, &format!("reassign execute {}", file.display())).run();
    assert!(refused.code == 1 && refused.out.contains("all its log directories are cordoned"), "{refused}");
    klamm(&cluster, "reassign status").ok().expect("nothing is being moved");
    let _ = std::fs::remove_dir_all(dir);
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
}

#[test]
fn who_loses_a_move_to_another_says_so_and_leaves_the_others_throttle() {
    let (mut cluster, view) = five();
    let dir = paths::scratch_dir("replaced");
    let file = |name: &str, partitions: &[(i32, [i32; 3])]| {
        let file = dir.join(name);
        let partition =
            |(p, replicas): &(i32, [i32; 3])| json!({"topic": "both", "partition": p, "replicas": replicas});
        let plan = json!({"version": 1, "partitions": partitions.iter().map(partition).collect::<Vec<_>>()});
        std::fs::write(&file, plan.to_string()).expect("the plan");
        file.display().to_string()
    };
    // So slow that nothing ends by itself.
    let first = file("first.json", &[(0, [3, 1, 2]), (5, [3, 1, 2]), (10, [3, 1, 2])]);
    let second = file("second.json", &[(0, [4, 1, 2]), (15, [4, 1, 2])]);
    let carry_out = |file: &str| {
        let done = klamm(&cluster, &format!("reassign execute {file} --throttle 1000")).run();
        println!("{file}: {done}");
        done
    };
    let ongoing = |n: usize| {
        let listed = parsed(&klamm(&cluster, "reassign status -o json").ok());
        (listed.as_array().map(Vec::len) == Some(n)).then_some(())
    };
    let won = thread::scope(|scope| {
        let losing = scope.spawn(|| carry_out(&first));
        eventually("the first moves go on", 20, || ongoing(3));
        let winning = scope.spawn(|| carry_out(&second));
        eventually("another has replaced one of them", 20, || ongoing(4));
        klamm(&cluster, "reassign cancel --topic both:5").ok().expect("cancelled");
        klamm(&cluster, "reassign cancel --topic both:10").ok().expect("cancelled");
        let lost = losing.join().expect("the command");
        assert!(lost.code == 1, "{lost}");
        assert!(lost.out.contains("somebody else has it moved to 4,1,2"), "{lost}");
        assert!(lost.out.contains("somebody else took it back: its replicas are 1,2,0 as before"), "{lost}");
        assert!(lost.err.contains("3 of 3 moves failed, or others put an end to them"), "{lost}");
        assert!(lost.err.contains("the throttle stays on brokers 0,1,2"), "{lost}");
        let kept = klamm(&cluster, "configs describe topic both").ok();
        for name in ["0:4", "15:4", "15:0"] {
            assert!(kept.out.contains(name), "the other's names are still there: {kept}");
        }
        assert!(!kept.out.contains("5:3,") && !kept.out.contains("10:3"), "the loser's are not: {kept}");
        klamm(&cluster, "configs describe broker 1").ok().expect("follower.replication.throttled.rate");
        for id in [0, 1, 2, 4] {
            // Now it may end. Broker 3 has nothing to do with what goes on.
            let rates = ["leader", "follower"].map(|who| format!("--set {who}.replication.throttled.rate=100000000"));
            klamm(&cluster, &format!("configs alter broker {id} {}", rates.join(" "))).ok();
        }
        winning.join().expect("the command")
    });
    assert!(won.code == 0 && won.out.contains("2 partitions moved"), "{won}");
    no_throttle(&cluster);
    whole(&cluster);
    let _ = std::fs::remove_dir_all(dir);
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
}

/// Who leads the quorum, as the others say.
fn active_controller(cluster: &Cluster) -> Option<usize> {
    let described = klamm(cluster, "quorum describe -o json --timeout 5").run();
    let quorum: serde_json::Value = serde_json::from_str(&described.out).ok()?;
    let leader = quorum["nodes"].as_array()?.iter().find(|node| node["role"] == "leader")?;
    usize::try_from(leader["id"].as_u64()?).ok()
}

#[test]
fn the_active_controller_gives_up_its_seat_and_goes_on_as_a_broker() {
    let mut cluster = Cluster::start(Plan { nodes: 4, founders: Some(3), ..Plan::default() });
    let view = View::of(&cluster);
    cluster.join();
    view.create(&mut cluster, "three", 8, &[]);
    for round in 0..3 {
        let was = eventually("somebody leads", 30, || active_controller(&cluster));
        klamm(&cluster, &format!("brokers cordon {was}")).ok();
        let now = eventually("another leads", 30, || active_controller(&cluster).filter(|now| *now != was));
        println!("round {round}: {was} gave its seat up, {now} leads");
        // It held its own lock for ever once: no thread answered any more.
        assert!(http_get(&cluster.admin(was), "/livez").is_some(), "broker {was} does not answer");
        let drained = klamm(&cluster, &format!("brokers drain {was} --yes")).ok();
        assert_eq!(counts(&cluster, "replicas")[&(was as u64)], 0, "{drained}");
        view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
        klamm(&cluster, &format!("brokers uncordon {was}")).ok();
        klamm(&cluster, "cluster balance --yes").ok();
    }
}
