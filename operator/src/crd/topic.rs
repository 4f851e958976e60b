//! `Topic`: a topic of a cluster, kept as described.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ADDRESSES_MESSAGE, ADDRESSES_RULE, ClusterRef, Conditions, Config, DeletionPolicy};

/// A topic as it should be.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[cfg_attr(test, kube(cel))]
#[kube(
    group = "klamm.dev",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    namespaced,
    status = "TopicStatus",
    shortname = "kmt",
    category = "klamm",
    derive = "PartialEq",
    doc = "A topic of a Klamm cluster, or of any cluster that speaks Kafka's protocol: created, grown and kept as described.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "RF", type_ = "integer", json_path = ".status.replicationFactor"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topicName", priority = 1),
    printcolumn(name = "Topic Id", type_ = "string", json_path = ".status.topicId", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    // At the root, because only there rules see the status: a number that was never reached may be corrected. The
    // equality keeps a status from being refused after somebody else has grown the topic.
    validation = Rule::new(
        "!has(self.spec.partitions) || !has(oldSelf.status) || !has(oldSelf.status.partitions) \
         || (has(oldSelf.spec.partitions) && self.spec.partitions == oldSelf.spec.partitions) \
         || self.spec.partitions >= oldSelf.status.partitions"
    ).message("a topic's partitions cannot be fewer than it has").field_path(".spec.partitions"),
    // One that is there from before must stay writable, if only to be deleted.
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249 || has(self.status)")
        .message("a topic's name has 249 characters at most: give a shorter one as topicName").field_path(".spec.topicName")
)]
#[x_kube(
    validation = Rule::new("has(self.clusterRef) != has(self.bootstrapServers)")
        .message("exactly one of clusterRef and bootstrapServers is needed"),
    validation = Rule::new("has(self.clusterRef) == has(oldSelf.clusterRef) \
        && (!has(self.clusterRef) || self.clusterRef == oldSelf.clusterRef)")
        .message("clusterRef cannot change: a topic does not move between clusters"),
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName) \
        && (!has(self.topicName) || self.topicName == oldSelf.topicName)")
        .message("topicName cannot change: Kafka does not rename topics"),
)]
#[serde(rename_all = "camelCase")]
pub struct TopicSpec {
    /// The Klamm cluster that has the topic. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// Instead of `clusterRef`: addresses of brokers of any cluster that speaks Kafka's protocol, without TLS,
    /// `host:port` separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 1024), regex(pattern = r"^[^\s,]+:[0-9]{1,5}(,[^\s,]+:[0-9]{1,5})*$"))]
    #[x_kube(validation = Rule::new(ADDRESSES_RULE).message(ADDRESSES_MESSAGE))]
    pub bootstrap_servers: Option<String>,
    /// The topic's name, where it is not the resource's. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self != '.' && self != '..'").message("'.' and '..' are no topic names"))]
    #[x_kube(validation = Rule::new("!(self in ['__consumer_offsets', '__transaction_state', '__share_group_state', '__cluster_metadata', '__remote_log_metadata'])")
        .message("that topic is the brokers' own"))]
    pub topic_name: Option<String>,
    /// How many partitions; by default the cluster's `num.partitions`. It can grow only. Growing changes which
    /// partition a key goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,
    /// How many replicas each partition has; by default the cluster's `default.replication.factor`. A change moves
    /// data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_767))]
    pub replication_factor: Option<i32>,
    /// How long records are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What happens to old records; both together compact first and delete later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub cleanup_policy: Option<Vec<CleanupPolicy>>,
    /// Further configuration by Kafka's key names. A key that is not here goes back to the cluster's default; a key
    /// with the value `null` is left as it is found. Helm, and kubectl but for `--server-side`, take nulls out before
    /// they send anything: see `unmanagedConfig`.
    #[serde(default, skip_serializing_if = "Config::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub config: Config,
    /// Keys that others decide about: they are left as they are found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub unmanaged_config: Vec<String>,
    /// What becomes of the topic when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// What happens when the topic was changed by other means: changed back, or shown in the status only.
    #[serde(default)]
    pub drift: Drift,
}

/// How long records are kept; what comes first counts.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// As a time (`retention.ms`): `12h`, `7d`, or `unlimited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^(unlimited|([0-9]{1,18}ms|[0-9]{1,9}(s|m|h|d|w))+)$"))]
    pub time: Option<String>,
    /// As a size of each partition (`retention.bytes`): `50Gi`, or `unlimited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^(unlimited|[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?)$"))]
    pub size: Option<String>,
}

/// One of Kafka's cleanup policies.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanupPolicy {
    /// Of several records with one key the last is kept.
    Compact,
    /// Old records are deleted.
    Delete,
}

/// What happens to changes made by others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Drift {
    /// They are undone.
    #[default]
    Enforce,
    /// They are shown in `status.drift`. Only what is changed in the description is carried out.
    Report,
}

/// The topic as it is.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// The generation of the resource that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the topic is as described. `Synced`: nothing was found changed by others. `Available`: every partition
    /// has a leader and its minimum of in-sync replicas. `Reconciling` and `Stalled` as kstatus reads them.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// The topic's name in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// The id of the topic that this resource has made or taken over; one that was deleted and created again has another.
    /// Without it nothing is deleted together with the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The id of the cluster, as its brokers tell it: two resources that lead to one topic are told by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// What of the description was carried out last. With `drift: Report` only what differs from it is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// How many partitions there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// How many replicas each partition has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// A change of the replication factor that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas_change: Option<ReplicasChange>,
    /// What differs from the description, at most 32 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub drift: Vec<Drifted>,
}

/// A description as it was carried out.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// How many partitions were described.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// How many replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// Which configuration, by Kafka's key names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// A change of the replication factor.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicasChange {
    /// The replication factor to come.
    pub target: i32,
    /// Partitions that do not have it yet.
    pub partitions_left: i32,
}

/// A setting that is not as described.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifted {
    /// The configuration key, or `partitions`, or `replicationFactor`.
    pub key: String,
    /// What is described; absent for the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
}

impl Topic {
    /// The topic's name in the cluster.
    pub fn topic_name(&self) -> &str {
        self.spec.topic_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
