//! Disks that go: a volume that is lost, one that is full, and one that is lost with its node, under load as in `load`.
//!
//! The volumes are small file systems of the test's own, so that one can be full, and grow as a driver's do.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_tests::isolated::small_disk;
use klamm_tests::workload::options;
use klamm_tests::{Random, Tool, paths, wait_for};
use serde_json::{Value, json};

use crate::clusters::World;
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{NODES, Namespace, nodes, with_nodes_alone};
use crate::pages::{commands, shell};
use crate::stage::{OnDrop, Stage};
use crate::trial::{described, gone, trial};

/// How large the volumes' file systems really are, in MiB.
const SMALL: u32 = 160;
const LARGE: u32 = 400;

/// A storage class of small file systems, which goes with its volumes.
pub struct Disks {
    pub class: String,
    /// How many each node has.
    each: usize,
    /// Where they are mounted.
    pub paths: Vec<PathBuf>,
}

impl Disks {
    /// So many for each node.
    pub fn make(space: &Namespace, each: usize) -> Disks {
        let mut disks = Disks { class: space.name().to_owned(), each, paths: Vec::new() };
        let mut items = vec![json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": disks.class },
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": true,
        })];
        for (node, name) in disks.volumes() {
            let path = paths::scratch_dir("disk");
            small_disk(&path, SMALL);
            disks.paths.push(path.clone());
            let place = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [format!("node{node}")] });
            items.push(json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
                "spec": {
                    "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": disks.class,
                    "persistentVolumeReclaimPolicy": "Retain", "local": { "path": path },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [place] }] } },
                },
            }));
        }
        kubectl(["create", "-f", "-"])
            .stdin(json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())
            .ok();
        disks
    }

    /// All volumes by their names, and the node of each.
    fn volumes(&self) -> Vec<(usize, String)> {
        let of = |node: usize| (0..self.each).map(move |volume| (node, format!("{}-{node}-{volume}", self.class)));
        (1..=NODES).flat_map(of).collect()
    }

    /// The volume that a broker has, and where.
    fn of(&self, space: &Namespace, broker: usize) -> (String, PathBuf) {
        let claim = space.get("pvc", &format!("data-load-{broker}")).expect("a claim");
        let volume = claim["spec"]["volumeName"].as_str().expect("a volume").to_owned();
        let path = kubectl(["get", "pv", &volume, "--output=jsonpath={.spec.local.path}"]).ok().out;
        (volume, path.into())
    }

    /// Does what a driver does for claims that ask for more. Volumes that nobody has yet are as large.
    fn grow(&self, space: &Namespace, size: &str) {
        let capacity = json!({ "capacity": { "storage": size } });
        let patch = json!({ "spec": capacity }).to_string();
        for broker in 0..3 {
            let claim = format!("data-load-{broker}");
            space.until("pvc", &claim, 60, |claim| {
                (claim["spec"]["resources"]["requests"]["storage"] == size).then_some(())
            });
            let (volume, path) = self.of(space, broker);
            let size_of = format!("remount,size={LARGE}m");
            Tool::new("mount").args(["-o", &size_of]).arg(&path).ok();
            kubectl(["patch", "pv", &volume, "--type=merge", "--patch", &patch]).ok();
            space.set_status("pvc", &claim, &capacity).expect_ok();
        }
        for (_, volume) in self.volumes() {
            kubectl(["patch", "pv", &volume, "--type=merge", "--patch", &patch]).ok();
        }
    }
}

fn description(class: &str) -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi", "storageClassName": class }, "rack": {},
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

/// The commands of a section, for a broker of this cluster.
fn page(stage: &Stage<'_>, heading: &str, broker: usize, node: &str) -> Vec<String> {
    let here = format!("--namespace {}", stage.space.name());
    let lines = commands("docs/clusters.md", heading).into_iter().map(|line| {
        let line = line.replace("--namespace streaming", &here).replace("prod-2", &format!("load-{broker}"));
        line.replace("prod", "load").replace("NODE", node)
    });
    lines.collect()
}

fn as_the_page_says(stage: &Stage<'_>, heading: &str, broker: usize, node: &str) {
    page(stage, heading, broker, node).iter().for_each(|line| drop(shell(line).ok()));
}

/// Waits until the three vote, each from the disk that it has now.
fn seated(stage: &Stage<'_>) {
    let mut last = String::new();
    let found = wait_for(Duration::from_secs(90), || {
        let asked = stage.runtime.block_on(async {
            let client = Client::connect(&stage.bootstrap, options()).await?;
            client.describe_quorum().await
        });
        last = format!("{asked:?}");
        let votes = asked.ok()?.nodes.into_iter().filter(|node| node.votes).map(|node| node.id);
        votes.collect::<BTreeSet<_>>().into_iter().eq(0..3).then_some(())
    });
    assert!(found.is_some(), "the three do not vote: {last}");
}

/// A volume is gone with all that was on it.
fn lost_disk(stage: &Stage<'_>, disks: &Disks, broker: usize) {
    let (before, path) = disks.of(stage.space, broker);
    as_the_page_says(stage, "A lost disk", broker, "");
    let (after, _) = disks.of(stage.space, broker);
    assert_ne!(before, after, "another volume, {}", path.display());
    seated(stage);
}

/// A disk is full to the last byte, and gets larger.
fn full_disk(stage: &Stage<'_>, disks: &Disks, broker: usize) {
    let (_, path) = disks.of(stage.space, broker);
    let mut ballast = std::fs::File::create(path.join("ballast")).expect("a file");
    while ballast.write_all(&[1; 4096]).is_ok() {}
    drop(ballast);
    let mut last = Value::Null;
    let told = wait_for(Duration::from_secs(120), || {
        last = stage.space.get("cluster", "load")?["status"]["conditions"].clone();
        std::thread::sleep(Duration::from_millis(200));
        let away = last.as_array()?.iter().find(|condition| condition["type"] == "BrokersReady")?.to_string();
        (away.contains(&format!("load-{broker} ")) && away.contains("No space left on device")).then_some(())
    });
    assert!(told.is_some(), "the Cluster does not say that a disk is full: {last:#}");
    stage.running.more(2000, Duration::from_secs(60));
    let lines = page(stage, "A full disk", broker, "");
    let (first, rest) = lines.split_first().expect("commands");
    shell(&first.replace("200Gi", "2Gi")).ok();
    disks.grow(stage.space, "2Gi");
    rest.iter().for_each(|line| drop(shell(line).ok()));
    // What the test has put there stays: it has room beside it.
    assert!(path.join("ballast").is_file());
    // Brokers that come later get as much.
    stage.space.until("statefulset", "load", 120, |set| {
        let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
        (template == "2Gi" && set["status"]["readyReplicas"] == 3).then_some(())
    });
}

/// A node is gone, and with it the volume that only it has. It is back, with the broker that it ran, when what is returned
/// is dropped: that one believes that it leads until it hears from the others, and shows readers an end of long ago.
fn lost_node(stage: &Stage<'_>, broker: usize) -> OnDrop<impl FnMut() + use<>> {
    let (name, number) = stage.node(broker);
    let node = kubectl(["get", "node", &name, "--output=json"]).ok().out;
    let mut node: Value = serde_json::from_str(&node).expect("JSON");
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        node["metadata"].as_object_mut().expect("an object").remove(field);
    }
    // Also when something fails: tests that come later need all nodes.
    let same = format!("node/{name}");
    let back = OnDrop(move || {
        nodes::connect(number, true);
        kubectl(["create", "-f", "-"]).stdin(node.to_string()).run();
        kubectl(["wait", "--for=condition=Ready", "--timeout=60s", &same]).limit(70).run();
    });
    let since = stage.running.now_ms();
    nodes::connect(number, false);
    stage.running.writable_since(since, Duration::from_secs(60));
    as_the_page_says(stage, "A lost node", broker, &name);
    let (now, _) = stage.node(broker);
    assert_ne!(now, name, "on another node");
    seated(stage);
    back
}

#[test]
fn lost_and_full_disks_harm_nobody() {
    with_nodes_alone("alone::disks::lost_and_full_disks_harm_nobody", || {
        let mut random = Random::new(klamm_tests::seed());
        let world = World::new("disks");
        let disks = Disks::make(&world.space, 3);
        let (space, bootstrap, mut operator) = described(world, description(&disks.class));
        // Brokers of this size would be in the way of tests that come later.
        let _gone = gone(&space);
        operator.kill();
        trial("disks", &space, bootstrap, |trial| {
            let stage = &trial.stage;
            let mut phase = |name: &str, harm: &mut dyn FnMut(usize)| {
                let victim = random.below(3) as usize;
                trial.phase(name, || {
                    let since = Instant::now();
                    harm(victim);
                    stage.whole();
                    let took = since.elapsed().as_secs_f64();
                    println!("figures disks, {name}: broker {victim}, whole again after {took:.1} s");
                });
            };
            let mut back = None;
            trial.disturbed(|| {
                phase("lost disk", &mut |broker| lost_disk(stage, &disks, broker));
                phase("full disk", &mut |broker| full_disk(stage, &disks, broker));
                phase("lost node", &mut |broker| back = Some(lost_node(stage, broker)));
            });
            // Not before all that was written has been read.
            back
        });
    });
}
