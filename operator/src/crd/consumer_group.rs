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
        .message("initialOffsets need topics: a group without commits names none"),
    validation = Rule::new("!has(self.reset) || !has(self.reset.whenActive) || self.reset.whenActive != 'PauseTarget' || has(self.scale)")
        .message("whenActive: PauseTarget needs scale.targetRef, which says what is stopped")
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
    /// What runs the group's consumers, and how many there are to be. The operator has to be allowed to (chart:
    /// `scaleTargets.allowed`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// What becomes of the group, with its committed offsets, when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: GroupDeletionPolicy,
}

/// What runs the consumers, and how many of them there are to be.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("self.mode == 'Manual' || (has(self.maxReplicas) && self.maxReplicas >= self.minReplicas)")
    .message("maxReplicas is needed, and is minReplicas or more"))]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// The Deployment or StatefulSet that runs them, in the namespace of this resource. Nobody else may scale it: where a
    /// HorizontalPodAutoscaler, a KEDA ScaledObject or an older ConsumerGroup does, it is left to them, see the condition
    /// `ScalingActive`.
    pub target_ref: TargetRef,
    /// Whether its replicas are set by lag.
    #[serde(default)]
    pub mode: ScaleMode,
    /// Never fewer. With 0 there are none while nothing is unread.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10_000))]
    pub min_replicas: i32,
    /// Never more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_replicas: Option<i32>,
    /// Unread records that ask for one replica. A partition is read by one member: its records ask for one replica at most.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1))]
    pub lag_per_replica: i64,
    /// Unread records that bring replicas back from none. Fewer do so once they are as old as `downWindow`.
    #[serde(default = "first")]
    #[schemars(range(min = 1))]
    pub activation_lag: i64,
    /// For how long more replicas have to be wanted before there are more; from none they come at once.
    #[serde(default = "half_a_minute")]
    #[schemars(schema_with = "span")]
    pub up_window: String,
    /// For how long fewer replicas have to be wanted before there are fewer, and nothing to be unread before there are none.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "span")]
    pub down_window: String,
    /// Whether there may be more replicas than partitions. Those have nothing to read, and take over from others faster.
    #[serde(default)]
    pub allow_idle: bool,
}

fn one() -> i32 {
    1
}

fn first() -> i64 {
    1
}

fn thousand() -> i64 {
    1000
}

fn half_a_minute() -> String {
    "30s".into()
}

fn five_minutes() -> String {
    "5m".into()
}

fn ten_minutes() -> String {
    "10m".into()
}

/// What runs consumers.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// The API that has it.
    #[serde(default)]
    pub api_version: TargetApi,
    /// Which of its kinds.
    #[serde(default)]
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The API of what runs consumers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TargetApi {
    /// Kubernetes' own.
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// What can be scaled.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TargetKind {
    /// A Deployment.
    #[default]
    Deployment,
    /// A StatefulSet.
    StatefulSet,
}

impl TargetKind {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Deployment, Self::StatefulSet].into_iter().find(|kind| kind.name() == name)
    }
}

/// Who decides how many consumers there are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ScaleMode {
    /// The operator, by lag.
    #[default]
    Auto,
    /// Somebody else. A reset with `whenActive: PauseTarget` still stops them and starts them again.
    Manual,
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
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub topics: Vec<String>,
    /// What to do while the group has members: offsets move only when it has none.
    #[serde(default)]
    pub when_active: WhenActive,
    /// With `PauseTarget`: how long consumers may be stopped. After that they are started again, and the reset has failed.
    #[serde(default = "ten_minutes")]
    #[schemars(schema_with = "span")]
    pub pause_limit: String,
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
    /// The members are stopped: `scale.targetRef` is scaled to zero, and back to what it was once the offsets have moved, or
    /// when they cannot.
    PauseTarget,
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
    /// `OffsetsStale`: commits speak of topics that were deleted. `ResetComplete`. `ScalingActive`: the number of consumers is
    /// set by lag. `ScalingLimited`: it is not what the lag asks for. `Reconciling` and `Stalled` as kstatus reads them.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// The group's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The id of the cluster that was found at the addresses, as its brokers tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
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
    /// How many consumers there are to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Consumers that are stopped for a reset. They are started again, whatever becomes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStatus>,
}

/// How many consumers there are to be.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// So many are asked for.
    pub desired_replicas: i32,
    /// So many pods there are.
    pub replicas: i32,
    /// A change that is wanted, and has to be for a whole window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingStatus>,
    /// When the operator has last changed the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
}

/// A change of the number of consumers that is wanted.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingStatus {
    /// How many there are.
    pub from: i32,
    /// How many were wanted all the time since.
    pub to: i32,
    /// Since when.
    pub since: Time,
    /// When that was last looked at.
    pub looked_at: Time,
}

/// Consumers that are stopped.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseStatus {
    /// The reset's id.
    pub reset: String,
    /// What runs them: `Deployment` or `StatefulSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid: one that is made anew is another one.
    pub uid: String,
    /// How many replicas it had, and gets back.
    pub replicas: i32,
    /// When they were stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Time>,
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
    /// Offsets that a partition does not have, and what was taken in their place: `topic-partition: asked for -> taken`, at
    /// most 256 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub clamped: Vec<String>,
    /// A hash of `to` and `topics` as they were: tells whether the description has changed since under the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
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
