//! Maintenance of a broker: others lead, whoever dies and whoever is the controller, until it is over.

use std::time::Duration;

use klamm_tests::{Cluster, Plan, eventually};
use serde_json::Value;

use crate::balance::{klamm, parsed};
use crate::judge::http_get;
use crate::view::View;

/// What `klamm brokers list` says of a broker.
#[track_caller]
fn listed(cluster: &Cluster, id: u64) -> Value {
    let brokers = parsed(&klamm(cluster, "brokers list -o json").ok());
    let found = brokers.as_array().and_then(|all| all.iter().find(|b| b["id"].as_u64() == Some(id)).cloned());
    found.unwrap_or_else(|| panic!("no broker {id} in {brokers}"))
}

#[track_caller]
fn leaders(cluster: &Cluster, id: u64) -> u64 {
    listed(cluster, id)["leaders"].as_u64().expect("a number of leaders")
}

#[test]
fn a_broker_in_maintenance_leads_nothing_until_it_is_over() {
    let mut cluster = Cluster::start(
        Plan::default()
            .set("leader.imbalance.check.interval.seconds", "2")
            .set("broker.session.timeout.ms", "3000")
            .set("offsets.topic.num.partitions", "1"),
    );
    let view = View::of(&cluster);
    view.create(&mut cluster, "three", 12, &[]);
    klamm(&cluster, "reassign execute --topics three --brokers 0,1,2 --yes").ok();
    klamm(&cluster, "cluster elect").ok();
    assert_eq!([0, 1, 2].map(|id| leaders(&cluster, id)), [4; 3]);

    let started = klamm(&cluster, "brokers maintenance start 1 --for 1h").ok();
    started.expect("broker 1 in maintenance, it leads 0 partitions");
    assert_eq!((leaders(&cluster, 1), listed(&cluster, 1)["out_of_sync"].as_u64()), (0, Some(0)));
    klamm(&cluster, "brokers list").ok().expect("active, maintenance for 60 min");
    let until = listed(&cluster, 1)["maintenance_until_ms"].clone();
    assert!(until.as_i64() > Some(1_700_000_000_000), "{until}");
    let status = http_get(&cluster.admin(0), "/v1/status").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let status = status.expect("a status");
    assert_eq!(status["maintenance"], serde_json::json!([{"broker": 1, "until_ms": until, "leaders": 0}]));
    let refused = klamm(&cluster, "brokers maintenance start 9").run();
    assert!(refused.code == 1 && refused.err.contains('9'), "{refused}");
    let refused = klamm(&cluster, "brokers maintenance start 1 --for 8d").run();
    assert!(refused.code == 2 && refused.err.contains("a week at most"), "{refused}");

    klamm(&cluster, "cluster balance --dry-run").ok().expect("nothing to move");

    // What comes new has its replicas there, and others lead; so it is when a leader dies, with the controller or not.
    klamm(&cluster, "topics create new --partitions 6 --replication-factor 3").ok();
    assert_eq!((leaders(&cluster, 1), listed(&cluster, 1)["replicas"].as_u64()), (0, Some(18)));
    for victim in [0, 2] {
        cluster.kill(victim);
        eventually("the other one leads all", 20, || {
            let other = 2 - victim as u64;
            (leaders(&cluster, other) == 18 && leaders(&cluster, 1) == 0).then_some(())
        });
        cluster.launch(victim);
        view.until_in_sync(&mut cluster, Duration::from_secs(30));
        eventually("those that may lead again", 20, || (leaders(&cluster, victim as u64) == 6).then_some(()));
        assert_eq!(leaders(&cluster, 1), 0, "the balancer leaves it alone");
    }
    // Its own restart, and that of all, change nothing.
    cluster.restart(1);
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    cluster.kill_all();
    cluster.launch_all();
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    eventually("others lead", 20, || (leaders(&cluster, 1) == 0).then_some(()));
    assert_eq!(listed(&cluster, 1)["maintenance_until_ms"], until);

    // With both others down it is better than nobody, and says so.
    cluster.kill(0);
    let fenced = |id| listed(&cluster, id)["state"] == "fenced";
    eventually("two are left", 20, || (fenced(0) && leaders(&cluster, 2) == 18).then_some(()));
    klamm(&cluster, "brokers maintenance start 2 --for 1h --no-wait").ok();
    let only = klamm(&cluster, "brokers maintenance start 2 --for 1h").ok();
    assert!(only.out.contains("nobody else can lead: ") && only.out.contains(", …"), "{only}");
    cluster.launch(0);
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    eventually("the one that may lead leads all", 20, || (leaders(&cluster, 0) == 18).then_some(()));

    // Cleared by hand while the broker is down; the other ends by itself.
    cluster.kill(2);
    eventually("it is fenced", 20, || (listed(&cluster, 2)["state"] == "fenced").then_some(()));
    assert!(listed(&cluster, 2)["maintenance_until_ms"].is_i64(), "also of one that is down");
    klamm(&cluster, "brokers maintenance stop 2").ok().expect("broker 2 out of maintenance");
    assert!(listed(&cluster, 2)["maintenance_until_ms"].is_null());
    cluster.launch(2);
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    klamm(&cluster, "brokers maintenance start 1 --for 3s").ok();
    eventually("it is over", 20, || listed(&cluster, 1)["maintenance_until_ms"].is_null().then_some(()));
    eventually("leaders return", 20, || ([0, 1, 2].map(|id| leaders(&cluster, id)) == [6; 3]).then_some(()));
    let left = klamm(&cluster, "configs describe broker 1").ok();
    assert!(!left.out.contains("maintenance"), "nothing is left of it: {left}");
}
