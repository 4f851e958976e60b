//! Brokers come and go while clients write and read: 3, 5, a wish that is taken back half way, and 3 again, with an operator
//! that is killed again and again. What clients notice is judged as in `load`. `KLAMM_LONG=1` kills brokers, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_tests::workload::options;
use klamm_tests::{assert_contains, wait_for};
use serde_json::{Value, json};

use crate::clusters::World;
use crate::kubernetes::{Namespace, with_nodes_alone};
use crate::pages::{commands, shell};
use crate::process::until_condition;
use crate::stage::Stage;
use crate::trial::{Trial, described, trial};

/// A change of the number of brokers takes no longer than this, in seconds.
const CHANGED: u64 = 300;

fn description() -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi" },
        // Few at a time, so that there is a half way.
        "rebalance": { "maxConcurrentMoves": 2 },
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

fn scale(stage: &Stage<'_>, count: i32) {
    stage.space.kubectl(["scale", "cluster", "load", &format!("--replicas={count}")]).ok();
}

/// Waits until there are so many brokers, and the operator has nothing left to do about it.
pub fn settled(space: &Namespace, name: &str, count: i64) {
    let mut last = Value::Null;
    let found = wait_for(Duration::from_secs(CHANGED), || {
        let cluster = space.get("cluster", name)?;
        let status = &cluster["status"];
        let seen = status["observedGeneration"] == cluster["metadata"]["generation"];
        let ready = status["readyReplicas"] == count && status["replicas"] == count;
        let done = seen && ready && status["operation"].is_null() && cluster["spec"]["replicas"] == count;
        last = status.clone();
        if !done {
            std::thread::sleep(Duration::from_millis(200));
        }
        done.then_some(())
    });
    assert!(found.is_some(), "not settled on {count} brokers: {last:#}");
}

/// Who holds and leads how much, who is registered, cordoned, and votes.
#[derive(Debug, Default)]
pub struct Placed {
    pub replicas: BTreeMap<i32, usize>,
    leaders: BTreeMap<i32, usize>,
    cordoned: BTreeSet<i32>,
    pub voters: BTreeSet<i32>,
    short: Vec<String>,
}

pub async fn placed(bootstrap: &str) -> klamm_client::Result<Placed> {
    let client = Client::connect(bootstrap, options()).await?;
    let mut placed = Placed::default();
    for broker in client.describe_cluster().await?.brokers {
        let id = broker.broker.id;
        placed.replicas.insert(id, 0);
        placed.leaders.insert(id, 0);
        if broker.cordoned {
            placed.cordoned.insert(id);
        }
    }
    placed.voters =
        client.describe_quorum().await?.nodes.iter().filter(|node| node.votes).map(|node| node.id).collect();
    for (name, topic) in &client.refresh(None).await?.topics {
        for partition in &topic.partitions {
            *placed.leaders.entry(partition.leader).or_default() += 1;
            partition.replicas.iter().for_each(|id| *placed.replicas.entry(*id).or_default() += 1);
            if partition.replicas.len() != 3 || partition.isr.len() != 3 {
                placed.short.push(format!("{name}-{} {:?} {:?}", partition.index, partition.replicas, partition.isr));
            }
        }
    }
    Ok(placed)
}

impl Placed {
    /// Whether these brokers, and no others, hold and lead everything evenly.
    fn even(&self, brokers: i32) -> bool {
        let within = |counts: &BTreeMap<i32, usize>| {
            let (least, most) = (counts.values().min(), counts.values().max());
            counts.keys().copied().eq(0..brokers) && least.zip(most).is_some_and(|(least, most)| most - least <= 1)
        };
        let seats = self.voters.iter().copied().eq(0..3);
        within(&self.replicas) && within(&self.leaders) && seats && self.cordoned.is_empty() && self.short.is_empty()
    }
}

/// Waits until so many brokers hold and lead everything evenly.
pub fn even(stage: &Stage<'_>, brokers: i32) -> Placed {
    let mut last = String::new();
    let found = wait_for(Duration::from_secs(90), || {
        let asked = stage.runtime.block_on(placed(&stage.bootstrap));
        last = format!("{asked:?}");
        asked.ok().filter(|placed| placed.even(brokers))
    });
    found.unwrap_or_else(|| panic!("not even on {brokers} brokers: {last}"))
}

/// Changes, one after the other, and how long each took.
fn changes(trial: &Trial<'_>) {
    let stage = &trial.stage;
    let phase = |name: &str, brokers: i32, change: &mut dyn FnMut()| {
        trial.phase(name, || {
            let since = Instant::now();
            change();
            settled(stage.space, "load", brokers.into());
            let took = since.elapsed();
            let placed = even(stage, brokers);
            println!(
                "figures scaling, {name}: {:.1} s; replicas {:?}, leaders {:?}",
                took.as_secs_f64(),
                placed.replicas.values(),
                placed.leaders.values(),
            );
        });
    };
    // As the page says.
    phase("3 to 5", 5, &mut || {
        let here = format!("--namespace {}", stage.space.name());
        for line in commands("docs/clusters.md", "More brokers, and fewer") {
            shell(&line.replace("--namespace streaming", &here).replace("prod", "load")).ok();
        }
    });
    phase("5 to 3, taken back half way", 5, &mut || {
        scale(stage, 3);
        stage.space.until("cluster", "load", CHANGED, |cluster| {
            let status = &cluster["status"];
            (status["operation"]["step"] == "Draining" || status["replicas"] == 4).then_some(())
        });
        stage.running.more(1000, Duration::from_secs(60));
        scale(stage, 5);
    });
    phase("5 to 3", 3, &mut || scale(stage, 3));
    if klamm_tests::long() {
        phase("3 to 4, a broker killed meanwhile", 4, &mut || {
            scale(stage, 4);
            stage.killed_while("Spreading", 1);
        });
        phase("4 to 3, a broker killed meanwhile", 3, &mut || {
            scale(stage, 3);
            stage.killed_while("Draining", 1);
        });
    }
}

/// What is not to be is refused, or limited and said so.
fn too_few(stage: &Stage<'_>) {
    let none = stage.space.kubectl(["scale", "cluster", "load", "--replicas=0"]).run();
    assert!(none.code != 0, "{none}");
    assert_contains(&none.err, "spec.replicas");
    scale(stage, 1);
    let shown = until_condition(stage.space, "cluster", "load", "ScalingLimited", "True/ReplicationFactor");
    assert!(shown["status"]["operation"].is_null(), "{shown:#}");
    scale(stage, 3);
    settled(stage.space, "load", 3);
}

#[test]
fn brokers_come_and_go_and_clients_notice_nothing() {
    with_nodes_alone("alone::scaling::brokers_come_and_go_and_clients_notice_nothing", || {
        let (space, bootstrap, mut operator) = described(World::new("scaling"), description());
        operator.kill();
        let space = &space;
        trial("scaling", space, bootstrap, |trial| {
            trial.disturbed(|| {
                changes(trial);
                too_few(&trial.stage);
            });
            let set = space.get("statefulset", "load").expect("brokers");
            let notes = set["metadata"]["annotations"].to_string();
            assert!(
                set["spec"]["replicas"] == 3 && !notes.contains("leaving") && !notes.contains("joining"),
                "{set:#}"
            );
            // Claims stay unless they are told to go.
            let path = "jsonpath={.items[*].metadata.name}";
            let claims = space.kubectl(["get", "pvc", "--output", path]).ok().out;
            assert_eq!(claims, "data-load-0 data-load-1 data-load-2 data-load-3 data-load-4");
            let pods =
                space.kubectl(["get", "pods", "--selector=app.kubernetes.io/instance=load", "--output", path]).ok().out;
            assert_eq!(pods, "load-0 load-1 load-2");
            let events = space.kubectl(["get", "events", "--output", "jsonpath={.items[*].reason}"]).ok().out;
            // One may be missing: of a step that an operator took and was killed before it told of it.
            let told: BTreeSet<&str> = events.split(' ').filter(|reason| reason.starts_with("Broker")).collect();
            println!("scaling: events {told:?}");
        });
    });
}
