//! Everything at once, by seed: loss, delay, cut links, stalls, kills, restarts, wiped disks; then healing, and the
//! checker.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Load, check, port, ports};
use super::net::Random;
use crate::Voter;

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

/// Seats move between five nodes all the time, while one node after the other, often the leader in the middle of a
/// change, is killed or cut off.
async fn moving_seats(seed: u64, rounds: u32) -> String {
    let mut cluster = Cluster::of(5, seed).await;
    cluster.tune = std::sync::Arc::new(|config| {
        config.snapshot_records = 60;
        config.entries_kept = 20;
        config.segment_bytes = 8 << 10;
    });
    let ids: Vec<i32> = (0..5).collect();
    let mut random = Random::new(seed);
    let load = Load::start(&cluster, 2);
    let mut moves = 0;
    for _ in 0..rounds {
        let mut wanted = BTreeMap::new();
        while wanted.len() < 3 {
            let id = random.below(5) as i32;
            wanted.insert(id, cluster.voter(id));
        }
        let victim = match random.below(2) {
            0 => cluster.ready().map_or(0, |(id, _)| id),
            _ => random.below(5) as i32,
        };
        let nodes: Vec<_> = cluster.nodes.values().map(|n| n.quorum.clone()).collect();
        let change = tokio::spawn(async move {
            loop {
                let leader = nodes.iter().find(|q| q.leader().borrow().ready);
                match leader {
                    Some(quorum) if quorum.reseat(&wanted).await.is_ok_and(|more| !more) => return,
                    _ => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        sleep(Duration::from_millis(random.below(40))).await;
        match random.below(3) {
            0 => {
                load.forget(victim);
                change.abort();
                let _ = change.await;
                cluster.kill(victim).await;
                sleep(Duration::from_millis(random.below(900))).await;
                cluster.start(victim).await;
                load.refresh(&cluster);
            }
            1 => {
                cluster.net.isolate(port(victim), &ports(&ids));
                sleep(Duration::from_millis(random.below(2000))).await;
                cluster.net.heal();
                sleep(Duration::from_millis(300)).await;
                change.abort();
                let _ = change.await;
            }
            _ => {
                if tokio::time::timeout(Duration::from_secs(20), change).await.is_ok() {
                    moves += 1;
                }
            }
        }
    }
    let wanted: BTreeMap<i32, Voter> = (0..3).map(|id| (id, cluster.voter(id))).collect();
    let started = Instant::now();
    loop {
        let leader = cluster.leader().await;
        match cluster.quorum(leader).reseat(&wanted).await {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                assert!(started.elapsed() < Duration::from_secs(60), "seats never settle: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let history = load.stop().await;
    let texts = cluster.agree().await;
    check(&history, &texts);
    cluster.until("all to know", || ids.iter().all(|id| cluster.voter_ids(*id) == [0, 1, 2])).await;
    let term = cluster.ready().map_or(0, |(_, term)| term);
    let (acked, open, gap) = (history.acked.len(), history.open.len(), history.gap);
    format!(
        "moving seats, seed {seed}: {moves} moves finished, term {term}, {acked} acknowledged, {open} open, longest gap {gap:?}"
    )
}

#[tokio::test(start_paused = true)]
async fn seats_move_under_chaos() {
    for seed in seeds() {
        println!("{}", within_an_hour(moving_seats(seed + 2000, 25)).await);
    }
}

/// Of simulated time: what waits for ever fails instead.
async fn within_an_hour(run: impl Future<Output = String>) -> String {
    tokio::time::timeout(Duration::from_secs(3600), run).await.expect("it waits for something that does not come")
}

fn seeds() -> Vec<u64> {
    let first = std::env::var("KLAMM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count = std::env::var("KLAMM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    (first..first + count).collect()
}

#[tokio::test(start_paused = true)]
async fn three_voters_survive_chaos() {
    for seed in seeds() {
        println!("{}", within_an_hour(chaos(3, seed, 50)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn five_voters_survive_chaos() {
    for seed in seeds() {
        println!("{}", within_an_hour(chaos(5, seed + 1000, 30)).await);
    }
}
