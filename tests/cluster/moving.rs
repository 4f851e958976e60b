//! R20: three brokers become five and three again under load, by plan and throttled, while brokers are killed.

use std::time::Duration;

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Plan, Random};

use crate::balance::{counts, klamm, replicas, spread};
use crate::judge::{figure, judge, seed};
use crate::kills::pass;
use crate::view::View;
use crate::workload::{Load, Running, options};

const TOPIC: &str = "moving";
const PARTITIONS: i32 = 12;

/// Has `command` carried out, again and again until `plan` says that nothing is left to move, while brokers are killed.
/// Gives the number of kills.
#[track_caller]
fn carried_out(cluster: &mut Cluster, running: &Running, random: &mut Random, command: &str, plan: &str) -> u64 {
    let mut kills = 0;
    for _ in 0..30 {
        let mut tool = klamm(cluster, command).start();
        while tool.wait(Duration::from_millis(random.between(200, 1500))).is_none() {
            let victim = random.below(cluster.ids().len() as u64) as usize;
            let at = running.now_ms();
            cluster.kill(victim);
            kills += 1;
            pass(Duration::from_millis(random.between(50, 1500)));
            cluster.launch(victim);
            running.writable_since(at, Duration::from_secs(60));
        }
        let planned = klamm(cluster, plan).run();
        let ongoing = klamm(cluster, "reassign status").run();
        if planned.out.contains("nothing to move") && ongoing.out.contains("nothing is being moved") {
            return kills;
        }
        // A tool that lost its broker says so and leaves; the moves go on.
        pass(Duration::from_millis(500));
    }
    panic!("`{command}` did not come to its end: {}", klamm(cluster, "reassign status").run());
}

#[test]
fn nothing_acknowledged_is_lost_while_partitions_move_out_and_back_and_brokers_are_killed() {
    let rounds = figure(1, 10);
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan { nodes: 5, ..Plan::default() }.set("log.segment.bytes", "4194304"));
    let view = View::of(&cluster);
    for id in [3, 4] {
        klamm(&cluster, &format!("brokers cordon {id}")).ok();
    }
    view.run(async {
        let assignments = (0..PARTITIONS).map(|n| (0..3).map(|r| (n + r) % 3).collect()).collect();
        let topic = NewTopic { name: TOPIC.into(), assignments, ..Default::default() };
        Client::connect(&cluster.bootstrap(), options()).await?.create_topic(&topic).await
    })
    .expect("the topic");
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    let running = Load::new(TOPIC, PARTITIONS, seed).start(&cluster.bootstrap());
    running.more(figure(10_000, 50_000), Duration::from_secs(120));
    let mut kills = 0;
    for _ in 0..rounds {
        for id in [3, 4] {
            klamm(&cluster, &format!("brokers uncordon {id}")).ok();
        }
        // Slow enough for the kills to meet it.
        let out = "cluster balance --yes --throttle 300000";
        kills += carried_out(&mut cluster, &running, &mut random, out, "cluster balance --dry-run");
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let held = counts(&cluster, "replicas");
        assert!(held.len() == 5 && spread(&held) <= 1, "{held:?}");
        for id in [4, 3] {
            let drain = format!("brokers drain {id} --yes --throttle 1000000");
            kills += carried_out(&mut cluster, &running, &mut random, &drain, &format!("reassign plan --drain {id}"));
        }
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let held = counts(&cluster, "replicas");
        assert!(held[&3] == 0 && held[&4] == 0, "{held:?}");
        let used = held.into_iter().filter(|(id, _)| *id < 3).collect();
        assert!(spread(&used) <= 1, "{used:?}");
        assert!(replicas(&cluster, TOPIC).iter().all(|n| *n == 3));
    }
    running.writable_since(running.now_ms(), Duration::from_secs(60));
    judge("R20 moves", cluster, &view, running, &format!("{rounds} times 3 to 5 to 3 brokers, {kills} kills"));
}
