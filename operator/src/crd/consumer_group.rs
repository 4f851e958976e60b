//! `ConsumerGroup`: what is wanted of a group and how it does. Consumers make the group; the resource watches it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{ADDRESSES_MESSAGE, ADDRESSES_RULE, ClusterRef, Conditions, span};

/// A group as it should be treated.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[cfg_attr(test, kube(cel))]
#[kube(
    group = "klamm.dev",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    plural = "consumergroups",
    namespaced,
    status = "ConsumerGroupStatus",
    shortname = "kmg",
    category = "klamm",
    derive = "PartialEq",
    doc = "A consumer group: where it begins, how far behind it may be, and how it does.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Group", type_ = "string", json_path = ".status.groupId"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag.total"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("has(self.clusterRef) != has(self.bootstrapServers)")
        .message("exactly one of clusterRef and bootstrapServers is needed"),
    validation = Rule::new("has(self.clusterRef) == has(oldSelf.clusterRef) \
        && (!has(self.clusterRef) || self.clusterRef == oldSelf.clusterRef)")
        .message("clusterRef cannot change"),
    validation = Rule::new("has(self.groupId) == has(oldSelf.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)")
        .message("groupId cannot change: it is another group"),
    validation = Rule::new("!has(self.initialOffsets) || (has(self.topics) && size(self.topics) > 0)")
        .message("initialOffsets need topics: a group without commits names none")
)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerGroupSpec {
    /// The Klamm cluster that has the group. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// Instead of `clusterRef`: addresses of brokers of any cluster that speaks Kafka's protocol, without TLS,
    /// `host:port` separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 1024), regex(pattern = r"^[^\s,]+:[0-9]{1,5}(,[^\s,]+:[0-9]{1,5})*$"))]
    #[x_kube(validation = Rule::new(ADDRESSES_RULE).message(ADDRESSES_MESSAGE))]
    pub bootstrap_servers: Option<String>,
    /// The group's id, where it is not the resource's name. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub group_id: Option<String>,
    /// The topics that it reads, by their names in the cluster. By default those that it has committed offsets of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub topics: Vec<String>,
    /// Where the group begins in partitions it has not committed an offset of, whatever `auto.offset.reset` the consumers
    /// have: committed by the operator while the group has no members. Partitions that are added to its topics later
    /// begin at their first record, so that none is passed over: Klamm's brokers see to that also while the group has
    /// members; with others it waits until it has none. See the condition `OffsetsInitialized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_offsets: Option<Position>,
    /// How far the group may be behind before the condition `LagHealthy` is False.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_policy: Option<LagPolicy>,
    /// Moves the group's offsets once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// What becomes of the group, with its committed offsets, when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: GroupDeletionPolicy,
}

/// A place in a partition; exactly one of the fields.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("[has(self.offset), has(self.timestamp)].filter(x, x).size() == 1")
    .message("exactly one of offset and timestamp is needed"))]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Its beginning or its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Edge>,
    /// The first record that is as new as this: `2026-10-01T00:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
}

/// An end of a partition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Edge {
    /// The first record that is there.
    Earliest,
    /// Behind the last one.
    Latest,
}

/// How far a group may be behind.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("has(self.maxLag) || has(self.maxLagTime)").message("maxLag, maxLagTime or both are needed"))]
#[serde(rename_all = "camelCase")]
pub struct LagPolicy {
    /// Records, over all partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_lag: Option<i64>,
    /// The age of the oldest record that is not committed: `5m`.
    // The default keeps a schema of its own from making the field required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "span")]
    pub max_lag_time: Option<String>,
}

/// A move of a group's offsets, done once for each `id`.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reset {
    /// Names this move. One with the id of `status.lastReset`, or with one of `status.pastResets`, is not done again.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// Where to.
    pub to: ResetTo,
    /// Which of the group's topics; by default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 249)))]
    pub topics: Vec<String>,
    /// What to do while the group has members: offsets move only when it has none.
    #[serde(default)]
    pub when_active: WhenActive,
    /// Only show in `status.lastReset` what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where a group's offsets move to; exactly one of the fields.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("[has(self.offset), has(self.timestamp), has(self.shiftBy), has(self.offsets)].filter(x, x).size() == 1")
    .message("exactly one of offset, timestamp, shiftBy and offsets is needed"))]
#[serde(rename_all = "camelCase")]
pub struct ResetTo {
    /// The beginning or the end of each partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Edge>,
    /// The first record that is as new as this: `2026-10-01T00:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
    /// So many records on, or back when negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift_by: Option<i64>,
    /// An offset for each `topic-partition` named here; others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "offsets")]
    pub offsets: Option<BTreeMap<String, i64>>,
}

/// Offsets of partitions. That the keys name partitions which the group reads is seen when they are moved.
fn offsets(_: &mut SchemaGenerator) -> Schema {
    let offset = json!({ "type": "integer", "format": "int64", "minimum": 0 });
    json_schema!({ "type": "object", "additionalProperties": offset, "minProperties": 1, "maxProperties": 4096, "nullable": true })
}

/// What a reset does while the group has members.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WhenActive {
    /// It waits until the group is empty.
    #[default]
    Wait,
    /// It is given up.
    Fail,
}

/// What becomes of a group when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum GroupDeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted once it has no members.
    DeleteWhenEmpty,
}

/// The group as it is.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerGroupStatus {
    /// The generation of the resource that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the group is watched and treated as described. `Active`: it has members. `LagHealthy`: it is no
    /// further behind than `lagPolicy` says. `OffsetsInitialized`: `initialOffsets` are committed everywhere.
    /// `OffsetsStale`: commits speak of topics that were deleted. `ResetComplete`. `Reconciling` and `Stalled` as kstatus reads them.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// The group's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Kafka's name of its state: `Stable`, `Empty`, `PreparingRebalance`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How many members it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,
    /// How far behind it is. Written at most every 30 s and when it changes by a tenth; `/metrics` has it exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// The same for each topic, at most 256 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<TopicLag>,
    /// The last reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<ResetStatus>,
    /// Ids of resets that have ended before the last one, at most 20, the newest first: none of them is done again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub past_resets: Vec<String>,
}

/// How far behind a group is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Records that are not committed, in all partitions.
    pub total: i64,
    /// The most in one partition.
    pub max: i64,
    /// Which partition that is, `topic-partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_partition: Option<String>,
    /// The age of the oldest record that is not committed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// Partitions without a commit.
    pub uncommitted_partitions: i32,
    /// When this was.
    pub observed_at: Time,
}

/// How far behind a group is in a topic.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicLag {
    /// The topic's name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Records that are not committed.
    pub lag: i64,
}

/// What came of a reset.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetStatus {
    /// Its id.
    pub id: String,
    /// What came of it.
    pub result: ResetResult,
    /// In plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many partitions have another offset now, or would have.
    pub partitions: i32,
    /// What was done, or would be with `dryRun`: `topic-partition: from -> to`, at most 256 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub preview: Vec<String>,
    /// When it was done.
    pub at: Time,
}

/// What came of a reset.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ResetResult {
    /// It is being done: `preview` has what was committed before, and what is committed now or will be.
    Started,
    /// The offsets are committed.
    Applied,
    /// They would be.
    DryRun,
    /// The group had members, and was not to be waited for; or the cluster refused.
    Failed,
}

impl ConsumerGroup {
    /// The group's id in the cluster.
    pub fn group_id(&self) -> &str {
        self.spec.group_id.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
