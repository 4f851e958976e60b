//! What things are called: objects, hosts, labels. Users and dashboards rely on these, so they never change.

use serde_json::{Map, Value, json};

use crate::FIELD_MANAGER;

/// The label by which Services of one listener are known.
pub const LISTENER: &str = "klamm.dev/listener";
/// The annotation that tells which description a pod runs by.
pub const TEMPLATE_HASH: &str = "klamm.dev/template-hash";
/// The annotation that tells what of the Cluster's description a pod was made by: the same of it with another
/// template means that another version of the operator makes other pods.
pub const DESCRIPTION_HASH: &str = "klamm.dev/description-hash";
/// The annotation that asks for a restart: of a Cluster, of all its brokers whenever its value changes; of a pod, of that
/// broker.
pub const RESTART: &str = "klamm.dev/restart";
/// The annotation of pods with the Cluster's wish that they were made after.
pub const RESTARTED_FOR: &str = "klamm.dev/restarted-for";
/// The annotation of volume claims with the id of the Kafka cluster whose data they hold.
pub const CLUSTER_ID: &str = "klamm.dev/cluster-id";
/// The annotation of the ConfigMap with how many brokers the StatefulSet has. With it go all of the StatefulSet's own: one that
/// is lost is made again as it was.
pub const BROKERS: &str = "klamm.dev/brokers";
/// The annotation of the StatefulSet with the size of volumes that it was made for: it is made anew for each at most once.
pub const MADE_FOR: &str = "klamm.dev/made-for-size";
/// The annotation of the StatefulSet with how many brokers the metadata quorum began with.
pub const FOUNDERS: &str = "klamm.dev/founders";
/// The annotation of the StatefulSet with the broker that was cordoned to be taken away.
pub const LEAVING: &str = "klamm.dev/leaving";
/// The annotation of the StatefulSet with the brokers that were added and have not got their share yet.
pub const JOINING: &str = "klamm.dev/joining";
/// The label of the pod of a broker that is about to go, which is not to be counted among those that serve.
pub const DRAINING: &str = "klamm.dev/draining";
/// The container of the broker.
pub const CONTAINER: &str = "broker";
/// The volume of the data.
pub const DATA: &str = "data";

/// Names of one cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Names {
    /// The Cluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// The Kubernetes cluster's DNS domain.
    pub domain: String,
}

impl Names {
    /// The Service without an address of its own, which gives each broker its name.
    pub fn headless(&self) -> String {
        format!("{}-brokers", self.cluster)
    }

    /// The Service where clients inside begin.
    pub fn bootstrap(&self) -> String {
        format!("{}-bootstrap", self.cluster)
    }

    /// The Service where clients outside begin.
    pub fn bootstrap_of(&self, listener: &str) -> String {
        format!("{}-bootstrap-{listener}", self.cluster)
    }

    /// The Service by which clients outside reach one broker.
    pub fn broker_of(&self, listener: &str, id: i32) -> String {
        format!("{}-{listener}-{id}", self.cluster)
    }

    /// The ConfigMap with the brokers' configuration files.
    pub fn config(&self) -> String {
        format!("{}-config", self.cluster)
    }

    /// The Secret of the authority that signs the brokers' certificates.
    pub fn authority(&self) -> String {
        format!("{}-brokers-ca", self.cluster)
    }

    /// The Secret with the brokers' certificates.
    pub fn certificates(&self) -> String {
        format!("{}-brokers-tls", self.cluster)
    }

    /// The pod of a broker.
    pub fn pod(&self, id: i32) -> String {
        format!("{}-{id}", self.cluster)
    }

    /// The volume claim of a broker.
    pub fn claim(&self, id: i32) -> String {
        format!("{DATA}-{}", self.pod(id))
    }

    /// Where a Service is reached.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc.{}", self.namespace, self.domain)
    }

    /// Where a broker is reached.
    pub fn broker_host(&self, id: i32) -> String {
        format!("{}.{}", self.pod(id), self.host(&self.headless()))
    }

    /// The hosts that the brokers' certificate is for: each of them, and all.
    pub fn certified(&self) -> Vec<String> {
        let all = self.host(&self.headless());
        vec![format!("*.{all}"), all]
    }

    /// The labels that select the brokers' pods.
    pub fn selector(&self) -> Map<String, Value> {
        let labels = json!({
            "app.kubernetes.io/name": "klamm",
            "app.kubernetes.io/instance": self.cluster,
            "app.kubernetes.io/component": "broker",
        });
        labels.as_object().cloned().unwrap_or_default()
    }

    /// The same as text.
    pub fn selector_text(&self) -> String {
        let one = |(key, value): (String, Value)| format!("{key}={}", value.as_str().unwrap_or_default());
        self.selector().into_iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// What selects the pods of brokers that serve, for autoscalers: one that gives everything away is busy with that, or
    /// idle, and says nothing about how many it takes.
    pub fn serving_text(&self) -> String {
        format!("{},!{DRAINING}", self.selector_text())
    }

    /// The labels of everything that belongs to the cluster.
    pub fn labels(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".into(), FIELD_MANAGER.into());
        labels
    }

    /// An object's metadata.
    pub fn meta(&self, name: &str) -> Value {
        json!({ "name": name, "namespace": self.namespace, "labels": self.labels() })
    }
}
