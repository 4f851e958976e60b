//! Everything at once, by seed: loss, delay, cut links, stalls, kills, restarts, wiped disks; then healing, and the
//! checker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Load, check, port, ports};
use super::net::Random;

async fn chaos(n: i32, seed: u64, rounds: u32) -> String {
    let mut cluster = Cluster::of(n, seed).await;
    cluster.tune = std::sync::Arc::new(|config| {
        config.snapshot_records = 60;
        config.entries_kept = 20;
        config.segment_bytes = 8 << 10;
    });
    for id in 0..n {
        cluster.restart(id).await;
    }
    cluster.leader().await;
    let ids: Vec<i32> = (0..n).collect();
    let mut random = Random::new(seed);
    let load = Load::start(&cluster, 3);
    let started = Instant::now();
    let (mut kills, mut wipes) = (0, 0);
    for _ in 0..rounds {
        let id = random.below(n as u64) as i32;
        let other = random.below(n as u64) as i32;
        match random.below(8) {
            0 => cluster.net.isolate(port(id), &ports(&ids)),
            1 => cluster.net.cut(port(id), port(other)),
            2 => cluster.net.hold(port(id)),
            3 | 4 if cluster.nodes.len() * 2 > n as usize + 1 => {
                load.forget(id);
                cluster.kill(id).await;
                kills += 1;
            }
            5 => cluster.net.loss(random.below(150), Duration::from_millis(1 + random.below(40))),
            6 => {
                cluster.net.heal();
                cluster.net.loss(0, Duration::from_millis(2));
            }
            // A disk goes only while all others are there: two lost disks of three are two too many.
            7 if cluster.nodes.len() == n as usize && random.below(3) == 0 => {
                cluster.net.heal();
                cluster.net.loss(0, Duration::from_millis(2));
                load.forget(id);
                cluster.wipe(id).await;
                cluster.start(id).await;
                load.refresh(&cluster);
                let new = cluster.voter(id);
                let back = || {
                    let leader = cluster.ready().map(|(leader, _)| leader);
                    leader.is_some_and(|l| cluster.quorum(l).metrics().voters.iter().any(|(_, v)| *v == new))
                };
                cluster.until("the wiped voter to be back", back).await;
                wipes += 1;
            }
            _ => {}
        }
        sleep(Duration::from_millis(random.below(700))).await;
        if random.below(3) == 0 {
            for id in &ids {
                if !cluster.nodes.contains_key(id) {
                    cluster.start(*id).await;
                }
            }
            load.refresh(&cluster);
        }
    }
    // Healing must bring progress.
    cluster.net.heal();
    cluster.net.loss(0, Duration::from_millis(2));
    for id in &ids {
        if !cluster.nodes.contains_key(id) {
            cluster.start(*id).await;
        }
    }
    load.refresh(&cluster);
    cluster.put("healed").await;
    let simulated = started.elapsed();
    let history = load.stop().await;
    let texts = cluster.agree().await;
    check(&history, &texts);
    let term = cluster.ready().map_or(0, |(_, term)| term);
    format!(
        "{n} voters, seed {seed}: {simulated:?} simulated, {kills} kills, {wipes} wiped, term {term}, {} messages, {} acknowledged, {} refused, {} open, longest gap {:?}",
        cluster.net.sent(),
        history.acked.len(),
        history.refused,
        history.open.len(),
        history.gap
    )
}

fn seeds() -> Vec<u64> {
    let first = std::env::var("KLAMM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count = std::env::var("KLAMM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    (first..first + count).collect()
}

#[tokio::test(start_paused = true)]
async fn three_voters_survive_chaos() {
    for seed in seeds() {
        println!("{}", chaos(3, seed, 50).await);
    }
}

#[tokio::test(start_paused = true)]
async fn five_voters_survive_chaos() {
    for seed in seeds() {
        println!("{}", chaos(5, seed + 1000, 30).await);
    }
}
