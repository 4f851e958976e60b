//! How long a failover takes: from the kill of a leader or controller to the first thing done without it.

use std::time::{Duration, Instant};

use klamm_tests::{Cluster, Peer, Plan};

use crate::history::{History, Outcome};
use crate::judge::{figure, judge, seed, setting};
use crate::kills::pass;
use crate::view::View;
use crate::workload::Load;

/// Milliseconds from a moment to the first acknowledgement, by another broker than this one, of anything.
fn first_elsewhere(history: &History, after_ms: u64, victim: usize) -> u32 {
    let acks = history.sends.iter().filter_map(|s| match s.outcome {
        Outcome::Acked { leader, .. } if leader != victim as i32 && u64::from(s.done_ms) > after_ms => Some(s.done_ms),
        _ => None,
    });
    acks.min().map_or(u32::MAX, |at| at - after_ms as u32)
}

/// The longest time without an acknowledgement between two moments.
fn gap(history: &History, from_ms: u64, to_ms: u64) -> u32 {
    let mut times: Vec<u32> = history
        .sends
        .iter()
        .filter(|s| matches!(s.outcome, Outcome::Acked { .. }))
        .map(|s| s.done_ms)
        .filter(|ms| (from_ms..to_ms).contains(&u64::from(*ms)))
        .collect();
    times.push(from_ms as u32);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u32::MAX)
}

fn spread(mut times: Vec<u32>) -> String {
    times.sort_unstable();
    let at =
        |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0);
    format!("min {} median {} p90 {} max {} ms of {} rounds", at(0), at(50), at(90), at(100), times.len())
}

#[test]
fn failover_takes_no_longer_than_promised() {
    let rounds = setting("KLAMM_CLUSTER_ROUNDS", figure(5, 30));
    let seed = seed();
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "failover", 1, &[]);
    let load = Load { producers: 1, rate: 200, readers: 1, members: 0, ..Load::new("failover", 1, seed) };
    let running = load.start(&cluster.bootstrap());
    running.more(300, Duration::from_secs(60));
    let (mut kills, mut stops, mut controllers) = (Vec::new(), Vec::new(), Vec::new());
    let whole = |cluster: &mut Cluster| {
        view.until_in_sync(cluster, Duration::from_secs(90));
        running.writable_since(running.now_ms(), Duration::from_secs(60));
        pass(Duration::from_secs(1));
    };
    for _ in 0..rounds {
        let leader = view.leader(&mut cluster, "failover", 0);
        let at = running.now_ms();
        cluster.kill(leader);
        kills.push((at, leader));
        running.writable_since(at, Duration::from_secs(60));
        cluster.launch(leader);
        whole(&mut cluster);

        let leader = view.leader(&mut cluster, "failover", 0);
        let at = running.now_ms();
        cluster.stop(leader);
        running.writable_since(running.now_ms(), Duration::from_secs(60));
        cluster.launch(leader);
        whole(&mut cluster);
        stops.push((at, running.now_ms()));

        let (controller, epoch) = klamm_tests::eventually("a controller", 30, || view.controller_now(&mut cluster));
        cluster.kill(controller);
        let since = Instant::now();
        klamm_tests::eventually("another controller", 60, || {
            let (now, newer) = view.controller_now(&mut cluster)?;
            (now != controller && newer > epoch).then_some(())
        });
        controllers.push(since.elapsed().as_millis() as u32);
        cluster.launch(controller);
        whole(&mut cluster);
    }
    let peer = cluster.peer();
    let history = judge("P16 failover", cluster, &view, running, &format!("{peer:?}, {rounds} rounds of each"));
    let kills: Vec<u32> = kills.iter().map(|(at, victim)| first_elsewhere(&history, *at, *victim)).collect();
    let stops: Vec<u32> = stops.iter().map(|(from, to)| gap(&history, *from, *to)).collect();
    println!("figures P16 {peer:?}: leader kill -9 to first acked write elsewhere: {}", spread(kills.clone()));
    println!("figures P16 {peer:?}: controller kill -9 to the next controller: {}", spread(controllers.clone()));
    println!("figures P16 {peer:?}: SIGTERM of the leader, longest gap between acks: {}", spread(stops.clone()));
    let median = |times: &[u32]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    };
    if peer == Peer::Klamm {
        assert!(median(&kills) <= 2000, "leader failover {kills:?}");
        assert!(median(&controllers) <= 1000, "controller failover {controllers:?}");
        assert!(median(&stops) <= 500, "controlled stop {stops:?}");
    }
}
