//! Disks fill, and an autoscaler that goes by them asks for another broker, which takes its share: of the load that goes on, and
//! of what fills the disks. Copies are as fast as the throttle lets them be, though the operator is killed again and again, and a
//! broker in the middle of it. With more room allowed for, the broker goes again, under the same conditions (R20).
//!
//! How full disks are, an API of this test's own tells as an adapter does, where `custom.metrics.k8s.io` is expected: by the
//! metrics that the brokers themselves give out at that moment. The disks are small file systems.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use klamm_tests::{Tool, wait_for};
use serde_json::{Value, json};

use super::autoscale::{asked_for, autoscaler, followed, until_asked_for};
use super::disks::Disks;
use super::scaling::even;
use crate::clusters::World;
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{Namespace, image, with_nodes_alone};
use crate::metrics_api::{Asked, Group, now, provide};
use crate::stage::{OnDrop, Stage};
use crate::trial::{Trial, described, gone, trial};

const METRIC: &str = "klamm_log_dir_used_ratio";
const METRICS: Group = Group {
    name: "custom.metrics.k8s.io",
    version: "v1beta2",
    resource: "pods/klamm_log_dir_used_ratio",
    kind: "MetricValueList",
};
/// What the page's autoscaler aims at; it does nothing about a tenth more or less.
const AIM: f64 = 0.7;
/// A topic that nobody writes to while it is copied, and bytes of each of its records.
const BALLAST: &str = "ballast";
const RECORD: usize = 1000;
/// Bytes a second that a broker may copy, for a start and later.
const THROTTLES: [(&str, u64); 2] = [("6Mi", 6 << 20), ("3Mi", 3 << 20)];
/// Copies are never faster than the throttle for so long, but for the second's worth that may have been saved up.
const WINDOW: Duration = Duration::from_secs(6);

fn description(class: &str) -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi", "storageClassName": class },
        // What is being copied takes room twice: not too much at a time.
        "rebalance": { "throttle": THROTTLES[0].0, "maxConcurrentMoves": 3 },
        // The file systems are in memory, which is the brokers'.
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "512Mi" } },
        "config": {
            "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5,
            // What has moved away makes room soon; small answers are copied evenly.
            "log.segment.delete.delay.ms": 1000, "replica.fetch.max.bytes": 100_000, "replica.fetch.response.max.bytes": 200_000,
        },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

/// How full the disks of these pods are, each by what its broker says now. Of one that says nothing, nothing is told.
fn ratios(space: &str, selector: &str) -> BTreeMap<String, f64> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}";
    let pods = kubectl(["--namespace", space, "get", "pods", "--selector", selector, "--output", path]).run().out;
    let said = |address: &str| {
        let url = format!("http://{address}:9644/metrics");
        let text = Tool::new("curl").args(["-sf", "--max-time", "2", &url]).run().out;
        let bytes = |of: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with(&format!("klamm_log_dir_{of}_bytes{{")))?;
            line.split(' ').next_back()?.parse().ok()
        };
        Some(1.0 - bytes("free")? / bytes("total")?)
    };
    let pods = pods.lines().filter_map(|line| line.split_once(' ')).filter(|(_, address)| !address.is_empty());
    pods.filter_map(|(name, address)| Some((name.to_owned(), said(address)?))).collect()
}

/// What an adapter tells about pods.
fn answer(asked: &Asked<'_>, space: &str) -> Option<Value> {
    if asked.path != format!("/namespaces/{space}/pods/*/{METRIC}") {
        return None;
    }
    let now = now();
    let items: Vec<Value> = ratios(space, &asked.selector)
        .into_iter()
        .map(|(pod, ratio)| {
            json!({
                "describedObject": { "kind": "Pod", "namespace": space, "name": pod, "apiVersion": "/v1" },
                "metric": { "name": METRIC }, "timestamp": now, "value": format!("{:.0}m", 1000.0 * ratio),
            })
        })
        .collect();
    Some(json!({ "kind": "MetricValueList", "apiVersion": METRICS.full(), "metadata": {}, "items": items }))
}

/// What all pods of brokers say.
fn all_ratios(space: &Namespace) -> BTreeMap<String, f64> {
    ratios(space.name(), "app.kubernetes.io/instance=load")
}

fn klamm(stage: &Stage<'_>, line: &str) -> Tool {
    Tool::new(image::static_binary("klamm")).args(["--bootstrap", &stage.bootstrap]).args(line.split(' '))
}

/// Writes so many records; the first is the one of this number.
fn fill(stage: &Stage<'_>, first: usize, count: usize) {
    let lines: String = (first..first + count).map(|n| format!("{n:0RECORD$}\n")).collect();
    klamm(stage, &format!("produce {BALLAST}")).stdin(lines).limit(120).ok();
}

/// What a disk holds of the ballast.
fn ballast(disk: &Path) -> u64 {
    let dirs = std::fs::read_dir(disk.join("log")).into_iter().flatten().flatten();
    let ours = dirs.filter(|dir| {
        let name = dir.file_name().into_string().unwrap_or_default();
        name.strip_prefix(BALLAST).and_then(|rest| rest.strip_prefix('-')?.parse::<i32>().ok()).is_some()
    });
    let files = ours.filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Disks by their paths, and what each held of the ballast when.
#[derive(Default)]
struct Growth(Mutex<BTreeMap<PathBuf, Vec<(Instant, u64)>>>);

impl Growth {
    fn watch(&self, disks: &Disks, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            for disk in &disks.paths {
                let seen = (Instant::now(), ballast(disk));
                self.0.lock().expect("no thread has failed").entry(disk.clone()).or_default().push(seen);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The most bytes that a disk got in any [`WINDOW`].
    fn most(&self, disk: &Path) -> u64 {
        let all = self.0.lock().expect("no thread has failed");
        let seen = &all[disk];
        let got = |(n, (at, bytes)): (usize, &(Instant, u64))| {
            let (_, then) = seen[n..].iter().rfind(|(end, _)| *end - *at <= WINDOW)?;
            Some(then.saturating_sub(*bytes))
        };
        seen.iter().enumerate().filter_map(got).max().unwrap_or(0)
    }

    /// The bytes a second that a disk got between the first seconds, when what was saved up passes at once, and the last one.
    fn steady(&self, disk: &Path, throttle: u64) -> Option<f64> {
        let all = self.0.lock().expect("no thread has failed");
        let (first, last) = (all[disk].first()?.1, all[disk].last()?.1);
        let middle = |bytes: u64| bytes >= first + 2 * throttle && bytes + throttle <= last;
        let middle: Vec<_> = all[disk].iter().filter(|(_, bytes)| middle(*bytes)).collect();
        let (from, to) = (middle.first()?, middle.last()?);
        Some(to.1.saturating_sub(from.1) as f64 / (to.0 - from.0).as_secs_f64())
    }
}

/// Runs a phase and holds its copies against the throttle.
fn throttled(trial: &Trial<'_>, name: &str, disks: &Disks, throttle: u64, change: impl FnOnce()) {
    let (growth, enough) = (Growth::default(), AtomicBool::new(false));
    let took = std::thread::scope(|scope| {
        scope.spawn(|| growth.watch(disks, &enough));
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        trial.phase(name, change)
    });
    // A second's worth may be saved up before.
    let may = throttle as f64 * (WINDOW.as_secs_f64() + 1.0);
    let percents = |part: &dyn Fn(&PathBuf) -> f64| -> Vec<f64> {
        let all = disks.paths.iter().filter(|disk| growth.most(disk) > 0);
        all.map(|disk| (100.0 * part(disk)).round()).collect()
    };
    let steady = percents(&|disk| growth.steady(disk, throttle).unwrap_or(0.0) / throttle as f64);
    let most = percents(&|disk| growth.most(disk) as f64 / may);
    println!(
        "figures filling, {name}: {:.1} s; of the throttle disks took {steady:?} %, and {most:?} % of what it lets through at \
         most within {WINDOW:?}",
        took.as_secs_f64()
    );
    let kept = steady.iter().chain(&most).all(|percent| *percent <= 110.0);
    assert!(kept, "{name}: {steady:?} %, {most:?} % of the throttle");
    assert!(most.iter().any(|percent| *percent >= 50.0), "{name}: not the throttle holds them back: {most:?} %");
}

/// Writes until the autoscaler asks for one more; answers how many records there are then, and how full the disks.
fn until_more_room_is_asked_for(stage: &Stage<'_>, mut records: usize) -> (usize, BTreeMap<String, f64>) {
    let before = loop {
        let ratios = all_ratios(stage.space);
        if asked_for(stage.space) == Some(4) {
            break ratios;
        }
        let fullest = ratios.values().copied().fold(0.0, f64::max);
        if fullest < AIM * 1.1 + 0.02 {
            fill(stage, records, 4000);
            records += 4000;
        } else {
            until_asked_for(stage.space, 4);
        }
    };
    (records, before)
}

/// The share of what there is that the autoscaler sees.
fn seen(space: &Namespace) {
    space.until("horizontalpodautoscaler", "load", 120, |autoscaler| {
        let now = autoscaler["status"]["currentMetrics"][0]["pods"]["current"]["averageValue"].as_str()?;
        let told: f64 = now.strip_suffix('m')?.parse().ok()?;
        let said = all_ratios(space);
        let average = said.values().sum::<f64>() / said.len() as f64;
        (said.len() == 3 && (told / 1000.0 - average).abs() < 0.02).then_some(())
    });
}

#[test]
fn an_autoscaler_makes_room_when_disks_fill() {
    with_nodes_alone("alone::filling::an_autoscaler_makes_room_when_disks_fill", || {
        let world = World::new("filling");
        let disks = Disks::make(&world.space, 2);
        let (space, bootstrap, mut operator) = described(world, description(&disks.class));
        operator.kill();
        let space = &space;
        let _gone = gone(space);
        let name = space.name().to_owned();
        let _end = provide(space, METRICS, move |asked| answer(asked, &name));
        trial("filling", space, bootstrap, |trial| {
            let stage = &trial.stage;
            klamm(stage, &format!("topics create {BALLAST} --partitions 12")).ok();
            let mut records = 90_000;
            fill(stage, 0, records);
            // An autoscaler that sees one broker less for a moment, when it is killed, would ask for fewer at once without patience.
            autoscaler(space, "Autoscaling by disks", ("700m", "700m"), &["Up"]);
            seen(space);
            assert_eq!(asked_for(space), Some(3));
            trial.disturbed(|| {
                let mut before = BTreeMap::new();
                trial.phase("disks fill", || (records, before) = until_more_room_is_asked_for(stage, records));
                throttled(trial, "3 to 4, a broker killed meanwhile", &disks, THROTTLES[0].1, || {
                    stage.killed_while("Spreading", 1);
                    followed(space, 4);
                });
                even(stage, 4);
                let mut after = BTreeMap::new();
                let less = wait_for(Duration::from_secs(30), || {
                    after = all_ratios(space);
                    (after.len() == 4 && after.values().all(|ratio| *ratio < AIM)).then_some(())
                });
                println!("figures filling: disks full by {before:.2?} with three brokers, by {after:.2?} with four");
                assert!(less.is_some() && before.values().all(|ratio| *ratio > AIM), "{before:?}, then {after:?}");

                // They may be fuller from now on, so that there is a broker too many.
                let patch =
                    json!({ "spec": { "rebalance": { "throttle": THROTTLES[1].0, "maxConcurrentMoves": 20 } } });
                space.kubectl(["patch", "cluster", "load", "--type=merge", "--patch", &patch.to_string()]).ok();
                throttled(trial, "4 to 3, a broker killed meanwhile", &disks, THROTTLES[1].1, || {
                    autoscaler(space, "Autoscaling by disks", ("700m", "950m"), &["Down"]);
                    until_asked_for(space, 3);
                    stage.killed_while("Draining", 0);
                    followed(space, 3);
                });
                even(stage, 3);
            });
            klamm(stage, "reassign throttle off").ok().expect("nothing was throttled");
            let read = klamm(stage, &format!("consume {BALLAST} --from-beginning --exit-at-end")).limit(120).ok();
            assert_eq!(read.out.lines().count(), records);
            assert_eq!(read.out.lines().collect::<BTreeSet<_>>().len(), records);
            // The disks are in memory, for as long as there are tests.
            klamm(stage, &format!("topics delete {BALLAST}")).ok();
        });
    });
}
