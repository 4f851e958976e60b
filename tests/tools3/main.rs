//! Apache's own administration tools against three brokers: what an operator of a cluster types, and what it does.
//!
//! One cluster for all tests, which take turns: some stop brokers, and each leaves all three running. What is not
//! about Klamm alone (seats, /v1/status, the page of operations) holds for Apache's brokers, too
//! (KLAMM_TEST_PEER=apache).

mod brokers;
mod moving;
mod page;
mod page_effects;
mod quorum;
mod rolling;
mod topics;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use klamm_tests::jvm::Java;
use klamm_tests::{Cluster, Output, Plan, Tool, eventually};

/// `kafka-topics`.
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

/// The cluster, for as long as this test runs.
fn cluster() -> MutexGuard<'static, Cluster> {
    static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let start = || {
        Mutex::new(Cluster::start(
            // Several heartbeats to a session, or a broker that lives is fenced now and then.
            Plan::default()
                .set("broker.session.timeout.ms", "2000")
                .set("broker.heartbeat.interval.ms", "200")
                .set("auto.leader.rebalance.enable", "false"),
        ))
    };
    SHARED.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Java tool with the brokers' addresses and the arguments of `line`, split at spaces.
fn java(cluster: &Cluster, class: &str, line: &str) -> Java {
    // The first broker that runs: tools that ask for metadata once give up on one that does not.
    Java::new(class).args(["--bootstrap-server", &cluster.bootstrap()]).args(line.split_whitespace())
}

/// Creates a topic whose partitions have these replicas: `0:1,1:2`.
#[track_caller]
fn create(cluster: &Cluster, what: &str, assignment: &str) -> String {
    let name = klamm_tests::unique(what);
    java(cluster, TOPICS, &format!("--create --topic {name} --replica-assignment {assignment}")).ok();
    name
}

/// Writes these many numbers into a partition, acknowledged by all replicas in sync.
#[track_caller]
fn produce(cluster: &Cluster, topic: &str, partition: u32, count: u32) {
    let lines: String = (0..count).map(|i| format!("{i}\n")).collect();
    kcat(cluster, &format!("-P -t {topic} -p {partition} -X acks=all")).stdin(lines).ok();
}

/// `kcat` with the brokers' addresses.
fn kcat(cluster: &Cluster, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", &cluster.bootstrap()]).args(line.split_whitespace())
}

/// The rows of `kafka-topics --describe` for one topic, by partition: leader, replicas, ISR.
#[track_caller]
fn partitions(cluster: &Cluster, topic: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
    let described = java(cluster, TOPICS, &format!("--describe --topic {topic}")).ok();
    let rows = described.out.lines().filter(|line| line.starts_with('\t'));
    let field = |row: &str, name: &str| {
        row.split('\t').find_map(|cell| cell.strip_prefix(&format!("{name}: "))).unwrap_or_default().trim().to_owned()
    };
    let list = |text: String| -> Vec<String> {
        let mut ids: Vec<_> = text.split(',').map(str::to_owned).collect();
        ids.sort();
        ids
    };
    rows.map(|row| (field(row, "Leader"), list(field(row, "Replicas")), list(field(row, "Isr")))).collect()
}

/// Starts the brokers that do not run, and waits until all are in every ISR again.
#[track_caller]
fn whole_again(cluster: &mut Cluster) {
    for id in cluster.ids() {
        if !cluster.alive(id) {
            cluster.launch(id);
        }
    }
    for id in cluster.ids() {
        cluster.until_up(id, cluster.ids().len());
    }
    eventually("all replicas are in sync", 30, || {
        let behind = java(cluster, TOPICS, "--describe --under-replicated-partitions").ok();
        behind.out.trim().is_empty().then_some(())
    });
}

/// `GET path` of a node's admin HTTP.
#[track_caller]
fn admin(cluster: &Cluster, id: usize, path: &str) -> serde_json::Value {
    let url = format!("http://{}{path}", cluster.admin(id));
    let got = Command::new("curl").args(["-sS", "--max-time", "10", &url]).output().expect("curl");
    serde_json::from_slice(&got.stdout)
        .unwrap_or_else(|e| panic!("{url}: {e}: {}", String::from_utf8_lossy(&got.stdout)))
}

/// `klamm` with these arguments, for the cluster.
fn klamm(cluster: &Cluster, line: &str) -> Tool {
    let tool = Tool::new(klamm_tests::paths::klamm()).args(line.split_whitespace());
    tool.env("KLAMM_BOOTSTRAP", cluster.bootstrap()).limit(60)
}

/// What `klamm … -o json` printed.
#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {output}"))
}
