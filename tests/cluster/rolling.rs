//! A rolling restart, as an upgrade does it: SIGTERM one by one, each back in sync before the next. Clients notice nothing.

use std::time::Duration;

use klamm_tests::{Cluster, Peer, Plan};

use crate::judge::{figure, http_get, judge, seed};
use crate::kills::pass;
use crate::view::View;
use crate::workload::Load;

#[test]
fn clients_notice_nothing_of_a_rolling_restart() {
    let rounds = figure(2, 20);
    let seed = seed();
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "rolling", 6, &[]);
    let running = Load { rate: 600, ..Load::new("rolling", 6, seed) }.start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let begun = running.now_ms() as u32;
    let mut stops = Vec::new();
    for _ in 0..rounds {
        for node in cluster.ids() {
            pass(Duration::from_secs(1));
            let (time, code) = cluster.stop(node);
            stops.push(time);
            // A JVM that ends by a signal has a code of its own.
            assert!(cluster.peer() != Peer::Klamm || code == 0, "node {node} ended with {code}");
            cluster.launch(node);
            cluster.until_up(node, 1);
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
        }
    }
    running.more(1000, Duration::from_secs(60));
    let (errors, slowest) = (running.errors_of("producer"), stops.iter().max().copied().unwrap_or_default());
    let all_errors = running.errors();
    let klamm = cluster.peer() == Peer::Klamm;
    let notes = format!("{} restarts, slowest stop {slowest:.1?}, {errors} producer errors", stops.len());
    let history = judge("R21 rolling restart", cluster, &view, running, &notes);
    let gaps = history.gaps(begun);
    println!("figures R21 rolling restart: longest time without an acknowledgement by partition, ms: {gaps:?}");
    assert_eq!(history.not_acked(), 0);
    assert!(all_errors.is_empty(), "clients noticed: {}", all_errors.join("\n"));
    assert!(!klamm || gaps.values().all(|gap| *gap <= 2000), "unavailable for {gaps:?} ms");
}

#[test]
fn nobody_says_that_all_is_well_without_a_majority() {
    let mut cluster = Cluster::start(Plan::default().set("broker.session.timeout.ms", "3000"));
    let view = View::of(&cluster);
    view.create(&mut cluster, "lenient", 3, &[("min.insync.replicas", "1")]);
    let ask = |cluster: &Cluster, path: &str| http_get(&cluster.admin(1), path).unwrap_or_default();
    let safe = "/v1/brokers/2/restart-safety";
    klamm_tests::eventually("safe while all are there", 20, || {
        ask(&cluster, safe).contains("\"safe\":true").then_some(())
    });
    cluster.kill(0);
    klamm_tests::eventually("two of three voters: neither may go", 20, || {
        let told = ask(&cluster, safe);
        (told.contains("\"safe\":false") && told.contains("\"ends_quorum\":true")).then_some(())
    });
    cluster.kill(2);
    klamm_tests::eventually("one of three voters: nobody can tell", 10, || {
        let told = ask(&cluster, safe) + &ask(&cluster, "/readyz");
        (told.matches("has no leader").count() == 2).then_some(())
    });
    cluster.launch(0);
    cluster.launch(2);
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
    klamm_tests::eventually("safe again", 20, || ask(&cluster, safe).contains("\"safe\":true").then_some(()));
}
