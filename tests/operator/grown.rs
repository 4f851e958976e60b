//! A Cluster of one broker that becomes one of three and of one again; its volumes grow meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use klamm_tests::wait_for;
use serde_json::{Value, json};

use crate::alone::scaling::{placed, settled};
use crate::clusters::World;
use crate::kubernetes::with_nodes;

/// A single copy of everything, and a quorum of one that becomes one of three and of one again.
#[test]
fn a_single_broker_becomes_three_and_one_again() {
    with_nodes("grown::a_single_broker_becomes_three_and_one_again", || {
        let world = World::new("grown");
        world.create(
            "grown",
            json!({
                "replicas": 1, "storage": { "size": "1Gi", "whenScaled": "Delete" }, "rebalance": { "throttle": "100Mi" },
                "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
                "listeners": [{ "name": "plain", "port": 9092, "type": "nodeport" }],
            }),
        );
        let bootstrap = world.bootstrap("grown", "plain");
        let lines: String = (0..1000).map(|n| format!("line-{n}\n")).collect();
        world.until_open(&bootstrap);
        world.klamm(&bootstrap, &["topics", "create", "t", "--partitions", "6"]).ok();
        world.klamm(&bootstrap, &["produce", "t"]).stdin(&*lines).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Volumes grow meanwhile, also those of brokers that come.
        for (count, size) in [(3, "2Gi"), (1, "3Gi")] {
            let since = Instant::now();
            let patch = json!({ "spec": { "replicas": count, "storage": { "size": size } } }).to_string();
            world.space.kubectl(["patch", "cluster", "grown", "--type=merge", "--patch", &patch]).ok();
            settled(&world.space, "grown", count.into());
            let mut last = String::new();
            let found = wait_for(Duration::from_secs(60), || {
                let asked = runtime.block_on(placed(&bootstrap));
                last = format!("{asked:?}");
                let placed = asked.ok()?;
                let all = |ids: &BTreeSet<i32>| ids.iter().copied().eq(0..count);
                let holders = placed.replicas.iter().filter(|(_, held)| **held > 0).map(|(id, _)| *id).collect();
                (all(&placed.voters) && all(&holders) && all(&placed.replicas.into_keys().collect())).then_some(())
            });
            assert!(found.is_some(), "{count} brokers: {last}");
            println!("figures scaling, single copies on {count}: {:.1} s", since.elapsed().as_secs_f64());
            let read = world.klamm(&bootstrap, &["consume", "t", "--from-beginning", "--exit-at-end"]).ok();
            assert_eq!(read.out.lines().collect::<BTreeSet<_>>().len(), 1000, "with {count} brokers");
            let asked = |object: &Value| object["spec"]["resources"]["requests"]["storage"].clone();
            world.space.until("statefulset", "grown", 60, |set| {
                (asked(&set["spec"]["volumeClaimTemplates"][0]) == size).then_some(())
            });
            for broker in 0..count {
                let claim = world.space.get("pvc", &format!("data-grown-{broker}")).expect("a claim");
                assert_eq!(asked(&claim), size, "{claim:#}");
            }
        }
        // Those of brokers that went were to go.
        let path = "jsonpath={.items[*].metadata.name}";
        klamm_tests::eventually("one claim is left", 60, || {
            let claims = world.space.kubectl(["get", "pvc", "--output", path]).ok().out;
            (claims == "data-grown-0").then_some(())
        });
    });
}
