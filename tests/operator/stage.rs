//! A Cluster called `load` under load, as the tests that harm it see it: its brokers, and how clients fare.

use std::time::Duration;

use klamm_client::{Client, ClientError, Topic};
use klamm_tests::wait_for;
use klamm_tests::workload::{Running, options};
use serde_json::{Value, json};

use crate::kubernetes::{Namespace, nodes};
use crate::types::object;

/// The topic's partitions.
pub const PARTITIONS: i32 = 6;

/// The Cluster and its load, as the harms see them.
pub struct Stage<'a> {
    pub space: &'a Namespace,
    pub running: &'a Running,
    pub runtime: tokio::runtime::Runtime,
    pub bootstrap: String,
}

impl Stage<'_> {
    pub fn pod(&self, broker: usize) -> Option<Value> {
        self.space.get("pod", &format!("load-{broker}"))
    }

    pub fn uid(&self, broker: usize) -> String {
        self.pod(broker).map_or_else(String::new, |pod| pod["metadata"]["uid"].as_str().unwrap_or_default().into())
    }

    pub fn uids(&self) -> Vec<String> {
        (0..3).map(|broker| self.uid(broker)).collect()
    }

    /// Waits until a broker's pod is ready, another one than that before.
    pub fn replaced(&self, broker: usize, before: &str) {
        self.space.until("pod", &format!("load-{broker}"), 120, |pod| {
            let conditions = pod["status"]["conditions"].as_array()?;
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            (pod["metadata"]["uid"] != before && pod["metadata"]["deletionTimestamp"].is_null() && ready).then_some(())
        });
    }

    /// SIGKILL to a broker; waits until its container runs again and is ready.
    pub fn killed(&self, broker: usize) {
        let starts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let pod = self.pod(broker).expect("a pod");
        nodes::kill(pod["metadata"]["uid"].as_str().expect("an id"), "/klamm");
        self.space.until("pod", &format!("load-{broker}"), 120, |now| {
            let ready = now["status"]["containerStatuses"][0]["ready"] == true;
            (starts(now) > starts(&pod) && ready).then_some(())
        });
    }

    /// The same while the operator is at this step.
    pub fn killed_while(&self, step: &str, broker: usize) {
        self.space
            .until("cluster", "load", 300, |cluster| (cluster["status"]["operation"]["step"] == step).then_some(()));
        self.running.more(500, Duration::from_secs(60));
        self.killed(broker);
    }

    /// The node that a broker is on: its name and number.
    pub fn node(&self, broker: usize) -> (String, usize) {
        let pod = self.pod(broker).expect("a pod");
        let name = pod["spec"]["nodeName"].as_str().expect("a node");
        (name.to_owned(), name.trim_start_matches("node").parse().expect("a number"))
    }

    /// Cuts a broker's node off. It is joined again when what is answered is dropped, however that comes: tests that come
    /// later need all nodes.
    #[must_use = "dropped at once it would do no harm"]
    pub fn cut_off(&self, broker: usize) -> OnDrop<impl FnMut() + use<>> {
        let (_, node) = self.node(broker);
        nodes::connect(node, false);
        OnDrop(move || nodes::connect(node, true))
    }

    /// Waits until all replicas are in sync and every partition has been written to. One that was cut off a moment ago may
    /// not know yet that it is missing: all brokers have to say so.
    pub fn whole(&self) {
        let mut last = String::new();
        let found = wait_for(Duration::from_secs(120), || {
            let asked = self.runtime.block_on(async {
                let client = Client::connect(&self.bootstrap, options()).await?;
                let mut told = Vec::new();
                for broker in client.cluster().brokers.values() {
                    let only_it = Client::connect(&broker.address(), options()).await?;
                    told.push(only_it.topic("orders").await?);
                }
                Ok::<_, ClientError>(told)
            });
            let in_sync = |topic: &Topic| {
                topic.partitions.iter().all(|p| p.leader >= 0 && p.replicas.len() == 3 && p.isr.len() == 3)
            };
            let whole = asked.as_ref().is_ok_and(|told| told.len() >= 3 && told.iter().all(in_sync));
            last = format!("{asked:?}");
            whole.then_some(())
        });
        assert!(found.is_some(), "not in sync: {last}");
        self.running.writable_since(self.running.now_ms(), Duration::from_secs(60));
    }
}

/// The topic that clients write to and read.
pub fn orders(round: i64) -> Value {
    let config = json!({ "segment.bytes": 2_000_000 + round, "max.message.bytes": 2_000_000 + round });
    let spec = json!({
        "clusterRef": { "name": "load" }, "partitions": PARTITIONS, "retention": { "time": format!("{}h", 24 + round) }, "config": config,
    });
    object("Topic", "orders", &spec)
}

/// Does something at the end of a scope, however that comes.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
