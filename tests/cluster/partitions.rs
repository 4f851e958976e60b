//! Network partitions and lost packets, on a network of the test's own.

use std::time::Duration;

use klamm_tests::isolated::isolated_if_possible;
use klamm_tests::{Cluster, Peer, Plan, Random};

use crate::judge::{figure, judge, seed, taken_for_cut_off};
use crate::kills::pass;
use crate::view::View;
use crate::workload::Load;

/// Writable again after this long, once a partition has healed.
const RECOVERY: Duration = Duration::from_secs(5);

#[test]
fn nothing_is_lost_when_the_network_is_cut_in_two_one_way_or_in_a_ring() {
    isolated_if_possible("partitions::nothing_is_lost_when_the_network_is_cut_in_two_one_way_or_in_a_ring", || {
        let seed = seed();
        let mut random = Random::new(seed);
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "cuts", 6, &[]);
        let running = Load::new("cuts", 6, seed).start(&cluster.bootstrap());
        running.more(1000, Duration::from_secs(60));
        let mut healed = Vec::new();
        let mut slow = Vec::new();
        for _ in 0..figure(1, 10) {
            for kind in ["leader", "leader and clients", "controller", "deaf", "mute", "ring"] {
                let leader = view.leader(&mut cluster, "cuts", 0);
                let controller = view.controller(&mut cluster);
                let network = cluster.network();
                let others = |node: usize| (0..3).filter(move |other| *other != node);
                match kind {
                    "leader" => network.isolate(leader, false),
                    "leader and clients" => network.isolate(leader, true),
                    "controller" => network.isolate(controller, false),
                    "deaf" => others(leader).for_each(|other| network.cut_one_way(other, leader)),
                    "mute" => others(controller).for_each(|other| network.cut_one_way(controller, other)),
                    // Everyone still sees a majority, but not the same one.
                    _ => network.cut(leader, random.pick(&others(leader).collect::<Vec<_>>())),
                }
                pass(Duration::from_secs(random.between(4, figure(8, 30))));
                cluster.network().heal();
                let writable = running.writable_since(running.now_ms(), Duration::from_secs(60));
                healed.push(format!("{kind} {} ms", writable.as_millis()));
                if writable > RECOVERY {
                    slow.push(format!("{kind}: {writable:?}"));
                }
                view.until_in_sync(&mut cluster, Duration::from_secs(60));
            }
        }
        let klamm = cluster.peer() == Peer::Klamm;
        judge("R3 partitions", cluster, &view, running, &format!("writable after healing: {}", healed.join(", ")));
        assert!(!klamm || slow.is_empty(), "longer than {RECOVERY:?} until writable: {slow:?}");
    });
}

#[test]
fn nothing_is_lost_when_packets_are() {
    isolated_if_possible("partitions::nothing_is_lost_when_packets_are", || {
        let seed = seed();
        let mut random = Random::new(seed);
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "loss", 6, &[]);
        let running = Load::new("loss", 6, seed).start(&cluster.bootstrap());
        running.more(1000, Duration::from_secs(60));
        let mut notes = Vec::new();
        let mut slow = Vec::new();
        for percent in [10, 30] {
            let before = running.acked();
            cluster.network().lose(percent * 10, Duration::from_secs(figure(20, 60)), &mut random);
            let acked = running.acked() - before;
            let writable = running.writable_since(running.now_ms(), Duration::from_secs(60));
            notes.push(format!("{percent} %: {acked} acked meanwhile, writable {} ms after", writable.as_millis()));
            if writable > RECOVERY {
                slow.push(format!("{percent} %: {writable:?}"));
            }
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
        }
        notes.push(format!("{} times taken for cut off", taken_for_cut_off(&cluster)));
        let klamm = cluster.peer() == Peer::Klamm;
        judge("R4 packet loss", cluster, &view, running, &notes.join("; "));
        assert!(!klamm || slow.is_empty(), "longer than {RECOVERY:?} until writable: {slow:?}");
    });
}
