//! `Cluster`: brokers, their storage, and where clients reach them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::{Conditions, Config, NamespacesFrom, quantity, resources};

/// The port of the listener that brokers and the quorum use among themselves.
pub const INTERNAL_PORT: i32 = 9093;
/// The port of health, metrics and status.
pub const ADMIN_PORT: i32 = 9644;

/// A cluster as it should be.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[cfg_attr(test, kube(cel))]
#[kube(
    group = "klamm.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    namespaced,
    status = "ClusterStatus",
    shortname = "kmc",
    category = "klamm",
    derive = "PartialEq",
    doc = "A Klamm cluster: brokers that speak Kafka's protocol, each with a disk of its own.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Brokers", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Operation", type_ = "string", json_path = ".status.operation.type"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 40").message("a cluster's name has at most 40 characters"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("a cluster's name begins with a letter and has lower case letters, digits and hyphens only: Services are named after it"),
    validation = Rule::new("self.spec.replicas == 1 || self.spec.listeners.all(l, !has(l.advertisedHost) || l.advertisedHost.contains('{id}'))")
        .message("with several brokers advertisedHost has {id} in it: each is reached at an address of its own")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Klamm's version; by default that of the operator. It chooses the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9A-Za-z][0-9A-Za-z._-]*$"))]
    pub version: Option<String>,
    /// The brokers' image, in place of the one that `version` chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$"))]
    pub image: Option<String>,
    /// How many brokers. It is a request, also of `kubectl scale` and of a HorizontalPodAutoscaler: brokers that go give
    /// everything away before, one after the other. See `status.replicas` for how many there are, and `status.operation`
    /// for how far it is.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// Never fewer brokers than these, whoever asks for fewer; more than `replicas` it adds none. Neither are there ever fewer than the replicas that a
    /// partition has, or than the metadata quorum began with (three, or as many as the cluster had when it was made).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// What becomes of partitions and leaders when brokers come, and how fast they are moved when brokers come or go.
    #[serde(default, skip_serializing_if = "Rebalance::is_default")]
    pub rebalance: Rebalance,
    /// Where brokers keep their data.
    #[serde(default)]
    pub storage: Storage,
    /// The brokers' configuration by Kafka's key names. Keys that Klamm changes while it runs are applied at once,
    /// others need a restart of the brokers. What the operator sets itself (node ids, listeners, directories, the
    /// quorum) cannot be set here.
    #[serde(default, skip_serializing_if = "Config::is_empty")]
    #[schemars(extend("maxProperties" = 512))]
    pub config: Config,
    /// Where clients reach the brokers. By default one listener `plain` on port 9092, inside of the Kubernetes
    /// cluster only.
    #[serde(default = "plain")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(l, self.exists_one(m, m.port == l.port))").message("two listeners with one port")
    )]
    pub listeners: Vec<Listener>,
    /// Replicas of a partition are spread over racks, and pods over what the racks stand for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<Rack>,
    /// Processor and memory of each broker. Without it a broker asks for 100m and 256Mi and has no limit.
    // The default keeps a schema of its own from making the field required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,
    /// Which namespaces may hold Topics and ConsumerGroups of this cluster.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// What the brokers' pods have besides what the operator gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// How brokers are restarted when their description asks for it: one after the other, each only when stopping it
    /// takes no partition below what writes need.
    #[serde(default, skip_serializing_if = "Rolling::is_default")]
    pub rolling: Rolling,
    /// The operator changes nothing while this is true; the brokers go on.
    #[serde(default)]
    pub paused: bool,
}

/// How partitions are moved when brokers come or go.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Whether brokers that come get their share of partitions and leaders.
    #[serde(default)]
    pub on_scale_out: OnScaleOut,
    /// How fast each broker copies for that, in bytes a second: `50Mi`.
    #[serde(default = "fifty_mi")]
    #[schemars(schema_with = "quantity")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('1')) >= 0").message("nothing moves at less than a byte a second"))]
    pub throttle: String,
    /// How many partitions are moved at a time.
    #[serde(default = "eight")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent_moves: i32,
}

impl Rebalance {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { on_scale_out: OnScaleOut::default(), throttle: fifty_mi(), max_concurrent_moves: eight() }
    }
}

/// What becomes of partitions and leaders when brokers come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnScaleOut {
    /// They are spread evenly over all brokers.
    #[default]
    Auto,
    /// They stay where they are. New topics use the new brokers.
    None,
}

/// Where brokers keep their data.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("self.type == oldSelf.type").message("storage.type cannot change: the data would stay behind"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) \
        && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storageClassName cannot change: claims keep their class"),
    validation = Rule::new("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0")
        .message("a volume can grow, it cannot become smaller"),
    validation = Rule::new("self.type != 'Ephemeral' || !has(self.storageClassName)")
        .message("storageClassName belongs to storage of type Persistent")
)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// A volume claim for each broker, or a directory that is gone with the pod.
    #[serde(default, rename = "type")]
    pub kind: StorageType,
    /// The size of each broker's volume: `100Gi`. It can grow, where the storage class allows it.
    #[serde(default = "ten_gi")]
    #[schemars(schema_with = "quantity")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).isLessThan(quantity('1Ei'))")
        .message("a volume has 1Mi at least, and less than 1Ei"))]
    pub size: String,
    /// The claims' storage class; by default that of the Kubernetes cluster. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volume claims of brokers that are scaled in.
    #[serde(default)]
    pub when_scaled: ClaimRetention,
    /// What becomes of all volume claims when the Cluster is deleted.
    #[serde(default)]
    pub when_deleted: ClaimRetention,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            kind: StorageType::default(),
            size: ten_gi(),
            storage_class_name: None,
            when_scaled: ClaimRetention::default(),
            when_deleted: ClaimRetention::default(),
        }
    }
}

/// Kinds of storage.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum StorageType {
    /// A volume claim for each broker.
    #[default]
    Persistent,
    /// A directory on the node that is gone with the pod, `size` at most. For tests, or with replicas enough.
    Ephemeral,
}

/// What becomes of volume claims.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ClaimRetention {
    /// They stay, with the data.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// One way to the brokers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("self.type != 'internal' || !has(self.service)")
        .message("service belongs to listeners of type nodeport and loadbalancer"),
    validation = Rule::new("self.type != 'internal' || !has(self.advertisedHost)")
        .message("advertisedHost belongs to listeners of type nodeport and loadbalancer")
)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name: of the Service's port, and in upper case of Kafka's listener.
    #[schemars(length(min = 1, max = 12), regex(pattern = "^[a-z][a-z0-9]*$"))]
    #[x_kube(validation = Rule::new("!(self in ['replication', 'controller', 'admin'])").message("replication, controller and admin are the operator's own"))]
    pub name: String,
    /// The port in the pods, and of the Services. 9093 and 9644 are the operator's own.
    #[schemars(range(min = 1024, max = 65535))]
    #[x_kube(validation = Rule::new("self != 9093 && self != 9644").message("9093 (among brokers) and 9644 (health and metrics) are taken"))]
    pub port: i32,
    /// Who reaches it.
    #[serde(default, rename = "type")]
    pub kind: ListenerType,
    /// TLS; without it the listener is plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// The host that clients are told to connect to, where it is not the node's or the load balancer's address. `{id}`
    /// stands for the broker's id and must be in it when there are several brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^([A-Za-z0-9{]([A-Za-z0-9.{}-]*[A-Za-z0-9}])?|([0-9A-Fa-f]|\{id\})*:([0-9A-Fa-f:.]|\{id\})*)$"
        )
    )]
    pub advertised_host: Option<String>,
    /// What the listener's Services have besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ListenerService>,
    /// Who may connect, as peers of a NetworkPolicy; by default everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allowed_peers: Vec<NetworkPolicyPeer>,
}

/// Who reaches a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerType {
    /// Pods of the same Kubernetes cluster.
    #[default]
    Internal,
    /// Whoever reaches the nodes: a node port for each broker and one for the start.
    Nodeport,
    /// Whoever reaches the load balancers: one for each broker and one for the start.
    Loadbalancer,
}

/// TLS of a listener. The files are read again when the Secret changes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// A Secret of the Cluster's namespace with `tls.crt` and `tls.key` (PEM), and `ca.crt` to check clients by.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Whether clients show a certificate (`ssl.client.auth`).
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// One that is shown must be valid.
    Requested,
    /// Only with one.
    Required,
}

/// What the Services of an external listener have besides.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerService {
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `loadBalancerClass` of load balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// `loadBalancerSourceRanges` of load balancers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64), regex(pattern = "^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    pub load_balancer_source_ranges: Vec<String>,
}

/// What a rack is.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rack {
    /// The label of nodes whose value is the rack.
    #[serde(default = "zone")]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
}

/// How brokers are restarted.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rolling {
    /// What becomes of brokers for which another version of the operator makes other pods.
    #[serde(default)]
    pub on_operator_upgrade: OnOperatorUpgrade,
    /// When brokers that run are restarted; at any time, when none is given. A broker that does not run is replaced at
    /// once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<RollingWindow>,
}

impl Rolling {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of brokers for which another version of the operator makes other pods.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnOperatorUpgrade {
    /// They go on, and get them when they start again.
    #[default]
    Defer,
    /// They are restarted.
    Roll,
}

/// A time in which brokers are restarted.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new(
    "self.cron.matches('^([*]|0?[0-9]|[1-5][0-9])([,/-]([*]|0?[0-9]|[1-5][0-9]))* ([*]|[01]?[0-9]|2[0-3])([,/-]([*]|[01]?[0-9]|2[0-3]))* ([*]|L|([0-2]?[0-9]|3[01])W?)([,/-]([*]|L|([0-2]?[0-9]|3[01])W?))* ([*]|[A-Za-z]{3}|0?[0-9]|1[0-2])([,/-]([*]|[A-Za-z]{3}|0?[0-9]|1[0-2]))* ([*]|([A-Za-z]{3}|0?[0-7])(L|#0?[1-5])?)([,/-]([*]|([A-Za-z]{3}|0?[0-7])(L|#0?[1-5])?))*$')"
).message("cron is minute (0-59), hour (0-23), day of the month (1-31), month (1-12) and day of the week (0-7)"))]
#[serde(rename_all = "camelCase")]
pub struct RollingWindow {
    /// When it opens, in UTC: minute, hour, day of the month, month and day of the week. `0 2 * * 6,0` is two o'clock on
    /// Saturdays and Sundays.
    #[schemars(length(min = 9, max = 100), regex(pattern = r"^\S+( \S+){4}$"))]
    pub cron: String,
    /// How long it stays open: `90m`, `3h`; `7d` at most.
    #[schemars(regex(
        pattern = "^([1-7]d|([1-9][0-9]?|1[0-5][0-9]|16[0-8])h|([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m)$"
    ))]
    pub duration: String,
}

/// Which namespaces may refer to a cluster.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("selector belongs to from: Selector"))]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    /// That of the Cluster, all, or those with certain labels.
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Which labels, with `from: Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What pods have besides what the operator gives them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// A part of a pod's `spec`, laid over the operator's: objects are joined, lists of named things (containers,
    /// volumes, environment variables) by their names, other lists replaced. `tolerations`, `affinity`,
    /// `nodeSelector`, `priorityClassName`, `imagePullSecrets` and the like go here.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn three() -> i32 {
    3
}

fn one() -> i32 {
    1
}

fn is_one(count: &i32) -> bool {
    *count == 1
}

fn eight() -> i32 {
    8
}

fn fifty_mi() -> String {
    "50Mi".into()
}

fn ten_gi() -> String {
    "10Gi".into()
}

fn zone() -> String {
    "topology.kubernetes.io/zone".into()
}

fn plain() -> Vec<Listener> {
    vec![Listener {
        name: "plain".into(),
        port: 9092,
        kind: ListenerType::Internal,
        tls: None,
        advertised_host: None,
        service: None,
        allowed_peers: Vec::new(),
    }]
}

/// The cluster as it is.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the resource that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: enough brokers take part that every partition can be written to. `BrokersReady`: all of them.
    /// `UpToDate`: all run as described. `ConfigApplied`: the brokers have the configuration. `StorageReady`: the
    /// volumes are as large as described. `ScalingLimited`: there are not to be as few brokers as are asked for; absent
    /// otherwise. `Warning`: something is allowed and hardly meant; absent otherwise.
    /// `Reconciling` and `Stalled` as kstatus reads them.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
    /// How many brokers there are.
    #[serde(default)]
    pub replicas: i32,
    /// How many of them are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// How many of them run as described.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The labels of the brokers' pods, for a HorizontalPodAutoscaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Kafka's id of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The version that all brokers run; absent while they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub listeners: Vec<ListenerStatus>,
    /// The brokers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub brokers: Vec<BrokerStatus>,
    /// What is under way, or waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// Where clients connect.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: String,
    /// For the clients' `bootstrap.servers`.
    pub bootstrap_servers: String,
}

/// One broker.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// Its id.
    pub id: i32,
    /// Its pod.
    pub pod: String,
    /// Its rack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// How it stands.
    pub state: BrokerState,
    /// Whether it runs as described.
    pub up_to_date: bool,
}

/// How a broker stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BrokerState {
    /// Its pod does not run.
    Pending,
    /// It runs and is not ready: it starts, catches up, or is not in sync.
    Starting,
    /// It is ready.
    Running,
    /// Its container ends again and again, or its image cannot be had.
    Failing,
}

/// What is under way, or waits.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// Why, in one word.
    pub reason: String,
    /// How far it is.
    pub step: OperationStep,
    /// In plain words.
    pub message: String,
    /// The broker that it is about just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<i32>,
    /// Why it does not go on: what would suffer if that broker were stopped now, or why brokers that are waited for do not
    /// come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
    /// The brokers that are left to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<i32>,
    /// How far moving partitions is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Since when.
    pub started_at: Time,
}

/// How far moving partitions is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Partitions that are being moved, or are to be.
    pub partitions_left: i64,
    /// Bytes that are left to copy, rounded.
    pub bytes_left: i64,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OperationType {
    /// The first brokers start.
    Create,
    /// Brokers have to be restarted.
    RollingRestart,
    /// Brokers are added.
    ScaleOut,
    /// Brokers are taken away.
    ScaleIn,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OperationStep {
    /// It goes on.
    Running,
    /// It is needed, and waits for a person, a window, or a later version.
    Pending,
    /// A broker has just been stopped, to start by the new description.
    Restarting,
    /// A broker has to be back, and in sync.
    WaitingForBroker,
    /// Stopping the next broker would hurt: partitions would be left without a leader, or with too few replicas.
    WaitingForSafety,
    /// Partitions and leaders are moved to brokers that have come.
    Spreading,
    /// A broker that is to go gets no new replicas from now on; or one that is to stay gets some again.
    Cordoning,
    /// What a broker holds that is to go is moved to others.
    Draining,
    /// A broker that is to go gives its seat in the metadata quorum away.
    GivingUpSeat,
    /// A broker that holds nothing any more is taken away.
    Removing,
    /// A broker that is gone is forgotten.
    Unregistering,
}
