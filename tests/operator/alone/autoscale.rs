//! A HorizontalPodAutoscaler, as the chart makes it, decides by the processors of the brokers: out when they are busy, in
//! when they are not, and a broker that is new or leaves does not mislead it. Clients notice nothing, which is judged as in
//! `load`, and the operator is killed again and again.
//!
//! What the pods use is told by an API of this test's own, where `metrics.k8s.io` is expected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_tests::wait_for;
use serde_json::{Value, json};

use super::scaling::settled;
use crate::clusters::World;
use crate::kubernetes::{Namespace, with_nodes_alone};
use crate::metrics_api::{Asked, Group, now, provide};
use crate::pages::{commands, shell};
use crate::trial::{described, gone, trial};

const METRICS: Group = Group { name: "metrics.k8s.io", version: "v1beta1", resource: "pods", kind: "PodMetrics" };
/// What a broker asks for, and what of it the autoscaler aims at, in thousandths of a processor.
const ASKED: i64 = 50;
const AIM: i64 = 30;

/// What pods of one namespace use, in thousandths of a processor.
type Used = Arc<Mutex<BTreeMap<String, i64>>>;

/// What the pods of a namespace use, as a metrics server tells it.
fn answer(asked: &Asked<'_>, space: &str, used: &Used) -> Option<Value> {
    if asked.path != format!("/namespaces/{space}/pods") {
        return None;
    }
    let used = used.lock().unwrap_or_else(PoisonError::into_inner);
    let now = now();
    let items: Vec<Value> = used
        .iter()
        .map(|(pod, used)| {
            json!({
                "metadata": { "name": pod, "namespace": space }, "timestamp": now, "window": "1s",
                "containers": [{ "name": "broker", "usage": { "cpu": format!("{used}m"), "memory": "64Mi" } }],
            })
        })
        .collect();
    Some(json!({ "kind": "PodMetricsList", "apiVersion": METRICS.full(), "metadata": {}, "items": items }))
}

fn description() -> Value {
    json!({
        "replicas": 3, "storage": { "type": "Ephemeral", "size": "1Gi" },
        "resources": { "requests": { "cpu": format!("{ASKED}m"), "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        // One after the other, so that leaving takes a while.
        "rebalance": { "maxConcurrentMoves": 1 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

/// Makes the autoscaler of a section of the page, with one thing changed and impatient in these directions.
pub fn autoscaler(space: &Namespace, heading: &str, changed: (&str, &str), hasty: &[&str]) {
    let [line] = commands("docs/clusters.md", heading).try_into().expect("one command");
    assert!(line.contains(changed.0), "{line}");
    let line = line.replace("prod", "load").replace("streaming", space.name()).replace(changed.0, changed.1);
    let hasty: String = hasty.iter().map(|way| format!(" --set autoscaling.scale{way}PeriodSeconds=1")).collect();
    let made = shell(&format!("{line}{hasty}")).ok();
    let autoscaler = made.out.split("\n---\n").find(|part| part.contains("kind: HorizontalPodAutoscaler"));
    space.kubectl(["apply", "-f", "-"]).stdin(autoscaler.expect("an autoscaler").to_owned()).ok();
}

/// How many brokers are asked for.
pub fn asked_for(space: &Namespace) -> Option<i64> {
    space.get("cluster", "load").and_then(|cluster| cluster["spec"]["replicas"].as_i64())
}

/// Waits until the autoscaler asks for so many.
pub fn until_asked_for(space: &Namespace, count: i64) {
    let found = wait_for(Duration::from_secs(120), || {
        std::thread::sleep(Duration::from_millis(200));
        (asked_for(space) == Some(count)).then_some(())
    });
    if found.is_none() {
        let told = space.kubectl(["describe", "horizontalpodautoscaler", "load"]).run();
        panic!("{count} brokers are not asked for:\n{told}");
    }
}

/// Waits until the autoscaler's wish, which stays as it is meanwhile, is fulfilled.
pub fn followed(space: &Namespace, count: i64) {
    let mut others = Vec::new();
    let done = wait_for(Duration::from_secs(300), || {
        others.extend(asked_for(space).filter(|asked| *asked != count));
        std::thread::sleep(Duration::from_millis(100));
        (space.get("cluster", "load")?["status"]["replicas"] == count).then_some(())
    });
    if done.is_none() || !others.is_empty() {
        let told = space.kubectl(["describe", "horizontalpodautoscaler", "load"]).run();
        panic!("{count} brokers are to be, {others:?} were asked for meanwhile\n{told}");
    }
    settled(space, "load", count);
}

#[test]
fn an_autoscaler_sets_how_many_brokers_there_are() {
    with_nodes_alone("alone::autoscale::an_autoscaler_sets_how_many_brokers_there_are", || {
        let (space, bootstrap, mut operator) = described(World::new("busy"), description());
        operator.kill();
        let space = &space;
        let _gone = gone(space);
        let (used, name) = (Used::default(), space.name().to_owned());
        let busy = |pods: &[i64]| {
            let all = pods.iter().enumerate().map(|(id, used)| (format!("load-{id}"), *used)).collect();
            *used.lock().unwrap_or_else(PoisonError::into_inner) = all;
        };
        let told = Arc::clone(&used);
        let _end = provide(space, METRICS, move |asked| answer(asked, &name, &told));
        busy(&[AIM; 3]);
        let aim = format!("\"averageUtilization\":{}", 100 * AIM / ASKED);
        autoscaler(space, "Autoscaling", ("\"averageUtilization\":60", &aim), &["Up", "Down"]);
        // It reads what the Cluster tells, and is content.
        space.until("horizontalpodautoscaler", "load", 120, |autoscaler| {
            let now = &autoscaler["status"]["currentMetrics"][0]["resource"]["current"]["averageValue"];
            (*now == format!("{AIM}m")).then_some(())
        });
        assert_eq!(asked_for(space), Some(3));

        trial("autoscaler", space, bootstrap, |trial| {
            trial.disturbed(|| {
                let took = trial.phase("3 to 4", || {
                    // A fifth too much for three. The fourth has nothing to do before it has its share.
                    busy(&[36, 36, 36, 0]);
                    until_asked_for(space, 4);
                    followed(space, 4);
                });
                println!("figures autoscaler: 3 to 4 after {:.1} s", took.as_secs_f64());
                busy(&[27; 4]);
                let took = trial.phase("4 to 3", || {
                    // Less to do; who leaves is busy with just that, as all four together would be with much more.
                    busy(&[20, 20, 20, 15]);
                    until_asked_for(space, 3);
                    let leaves = |pod: &Value| pod["metadata"]["labels"].get("klamm.dev/draining").map(|_| ());
                    space.until("pod", "load-3", 60, leaves);
                    busy(&[25, 25, 25, 100]);
                    followed(space, 3);
                });
                println!("figures autoscaler: 4 to 3 after {:.1} s", took.as_secs_f64());
            });
        });
    });
}
