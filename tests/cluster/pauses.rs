//! SIGSTOP: a broker that stands still for a while and then goes on as if nothing had happened.

use std::time::Duration;

use klamm_tests::{Cluster, Plan, Random};

use crate::judge::{figure, judge, seed, setting, taken_for_cut_off};
use crate::kills::pass;
use crate::view::View;
use crate::workload::Load;

#[test]
fn nothing_is_lost_when_leader_controller_or_follower_stand_still() {
    let rounds = setting("KLAMM_CLUSTER_ROUNDS", figure(2, 20));
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "pauses", 6, &[]);
    let running = Load::new("pauses", 6, seed).start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let mut paused = Vec::new();
    for _ in 0..rounds {
        for role in ["leader", "controller", "follower"] {
            let victim = match role {
                "leader" => view.leader(&mut cluster, "pauses", 0),
                "controller" => view.controller(&mut cluster),
                _ => (view.leader(&mut cluster, "pauses", 0) + 1) % 3,
            };
            // Shorter and longer than what fences a broker or elects a controller.
            let time = Duration::from_millis(figure(random.between(500, 7000), random.between(1000, 45_000)));
            cluster.pause(victim);
            pass(time);
            cluster.resume(victim);
            let at = running.now_ms();
            let writable = running.writable_since(at, Duration::from_secs(60));
            paused.push(format!("{role} {:.1} s ({} ms)", time.as_secs_f64(), writable.as_millis()));
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
        }
    }
    let notes = format!("paused (until all partitions were written to after it): {}", paused.join(", "));
    assert_eq!(taken_for_cut_off(&cluster), 0, "who stands still is not cut off");
    judge("R2 pauses", cluster, &view, running, &notes);
}
