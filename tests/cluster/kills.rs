//! SIGKILL: of one broker after another under load, and of all at once.

use std::time::{Duration, Instant};

use klamm_tests::{Cluster, Peer, Plan, Random};

use crate::judge::{figure, judge, seed, setting};
use crate::view::View;
use crate::workload::Load;

/// Waits before the next harm: that is the test, not a way to wait for something.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn nothing_acknowledged_is_lost_when_brokers_are_killed_at_random() {
    let rounds = setting("KLAMM_CLUSTER_ROUNDS", figure(20, 200));
    let wanted = if rounds < 20 { 0 } else { figure(200_000, 5_000_000) };
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan::default().set("log.segment.bytes", "4194304"));
    let view = View::of(&cluster);
    view.create(&mut cluster, "kills", 6, &[]);
    let running = Load::new("kills", 6, seed).start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let mut at = running.now_ms();
    for _ in 0..rounds {
        let moment = figure(random.between(1000, 4000), random.between(3000, 10_000));
        pass(Duration::from_millis(moment));
        // A majority must stay, or nothing could be acknowledged: wait for the last victim to be back first.
        running.writable_since(at, Duration::from_secs(60));
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let victim = random.below(cluster.ids().len() as u64) as usize;
        cluster.kill(victim);
        at = running.now_ms();
        if random.chance(500) {
            pass(Duration::from_millis(random.between(50, 2500)));
        }
        cluster.launch(victim);
    }
    running.writable_since(running.now_ms(), Duration::from_secs(60));
    running.more(wanted.saturating_sub(running.acked()), Duration::from_secs(figure(120, 3600)));
    let notes = format!("{rounds} kills");
    judge("R1 kills", cluster, &view, running, &notes);
}

#[test]
fn nothing_acknowledged_is_lost_when_all_brokers_are_killed_at_once() {
    all_killed("R5 all killed", setting("KLAMM_CLUSTER_ROUNDS", figure(5, 30)), &[]);
}

/// Each replica flushes before it says what it has: leaders before they acknowledge, followers before they fetch on.
#[test]
fn nothing_acknowledged_is_lost_when_all_brokers_are_killed_that_flush_each_record() {
    all_killed("R5 all killed, flush.messages=1", figure(2, 15), &[("flush.messages", "1")]);
}

#[track_caller]
fn all_killed(name: &str, rounds: u64, configs: &[(&str, &str)]) {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "all", 6, configs);
    let running = Load::new("all", 6, seed).start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let mut times = Vec::new();
    for _ in 0..rounds {
        pass(Duration::from_millis(random.between(1000, 4000)));
        cluster.kill_all();
        let since = (Instant::now(), running.now_ms());
        for id in cluster.ids() {
            cluster.launch(id);
        }
        running.writable_since(since.1, Duration::from_secs(60));
        times.push(since.0.elapsed());
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    let notes = format!("{rounds} times all killed, writable again after {times:.1?}");
    let klamm = cluster.peer() == Peer::Klamm;
    judge(name, cluster, &view, running, &notes);
    assert!(!klamm || slowest <= Duration::from_secs(5), "writable only after {slowest:?}");
}
