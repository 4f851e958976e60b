//! What is there of a Cluster, read from the API server itself: never from a cache, since things are decided by it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event, PersistentVolumeClaim, Pod, PodStatus, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::apply::controller;
use crate::crd::cluster::{BrokerState, Listener, ListenerType};
use crate::render::names::{
    BROKERS, CLUSTER_ID, CONTAINER, DESCRIPTION_HASH, FOUNDERS, JOINING, LEAVING, MADE_FOR, Names, TEMPLATE_HASH,
};
use crate::render::{Facts, Outside};
use crate::scale::Begun;

/// The annotation of the ConfigMap with the keys that brokers have from the operator while they run.
pub const DYNAMIC: &str = "klamm.dev/dynamic-config";

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The brokers.
    pub set: Option<StatefulSet>,
    /// Their files.
    pub config: Option<ConfigMap>,
    /// Their pods, by id.
    pub pods: BTreeMap<i32, Pod>,
    /// Their volume claims, by id.
    pub claims: BTreeMap<i32, PersistentVolumeClaim>,
    /// All Services that carry the cluster's labels.
    pub services: Vec<Service>,
    /// Why pods could not be created, as the StatefulSet's controller said last.
    pub refusals: Vec<String>,
}

/// Reads it.
///
/// # Errors
/// The API server's.
pub async fn observe(client: &Client, names: &Names) -> Result<Observed, kube::Error> {
    let space = &names.namespace;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), space);
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), space);
    let pods: Api<Pod> = Api::namespaced(client.clone(), space);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), space);
    let services: Api<Service> = Api::namespaced(client.clone(), space);
    let ours = ListParams::default().labels(&names.selector_text());
    let config = names.config();
    let (set, config, pods, claims, services) = futures::try_join!(
        sets.get_opt(&names.cluster),
        configs.get_opt(&config),
        pods.list(&ours),
        claims.list(&ours),
        services.list(&ours),
    )?;
    // Anybody may give a pod such a name.
    let id =
        |name: String, prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok().filter(|id| (0..MOST).contains(id));
    let (of_pod, of_claim) = (format!("{}-", names.cluster), format!("data-{}-", names.cluster));
    let pods: BTreeMap<i32, Pod> =
        pods.into_iter().filter_map(|pod| Some((id(pod.name_any(), &of_pod)?, pod))).collect();
    let mut observed = Observed {
        set,
        config,
        refusals: Vec::new(),
        pods,
        claims: claims.into_iter().filter_map(|claim| Some((id(claim.name_any(), &of_claim)?, claim))).collect(),
        services: services.items,
    };
    let wanted = observed.replicas().unwrap_or_default();
    if (0..wanted).any(|id| !observed.pods.contains_key(&id)) {
        observed.refusals = refusals(client, names).await;
    }
    Ok(observed)
}

/// Most brokers that a Cluster may ask for: whatever says more is a mistake, and costs nothing.
pub const MOST: i32 = 1000;

/// How long the word of the StatefulSet's controller counts, which tries again within 17 minutes at most.
const LATELY: SignedDuration = SignedDuration::from_mins(20);

/// What the StatefulSet's controller said of pods that it could not create: a quota, a policy, a webhook. Nothing else
/// tells it. The newest comes first; without the right to read Events there is none.
async fn refusals(client: &Client, names: &Names) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), &names.namespace);
    let which = format!("involvedObject.kind=StatefulSet,involvedObject.name={},reason=FailedCreate", names.cluster);
    let mut found = match events.list(&ListParams::default().fields(&which)).await {
        Ok(found) => found.items,
        Err(error) => {
            tracing::debug!(cluster = %names.cluster, %error, "why pods are missing could not be read");
            return Vec::new();
        }
    };
    let at = |event: &Event| event.last_timestamp.as_ref().map(|at| at.0);
    let since = Timestamp::now() - LATELY;
    found.retain(|event| at(event).is_some_and(|at| at > since));
    found.sort_by_key(|event| std::cmp::Reverse(at(event)));
    found.into_iter().filter_map(|event| event.message).collect()
}

/// A broker by its pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its pod's name.
    pub pod: String,
    /// Whether there is one.
    pub exists: bool,
    /// How it stands.
    pub state: BrokerState,
    /// Why it fails, as its containers or the kubelet say.
    pub why: Option<String>,
    /// Whether the broker itself runs, whatever else of its pod does not.
    pub runs: bool,
    /// Whether the broker itself is in sync.
    pub in_sync: bool,
    /// By which description it runs.
    pub template: Option<String>,
    /// After which part of the description it was made.
    pub description: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The address of its node.
    pub node: Option<String>,
}

impl Observed {
    /// What builders have to know. `told` is the id of the Kafka cluster that brokers told.
    pub fn facts(&self, names: &Names, listeners: &[Listener], told: Option<String>) -> Facts {
        let spec = self.set.as_ref().and_then(|set| set.spec.as_ref());
        let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
        // Claims that stayed when a Cluster was deleted know to which cluster their data belong: brokers with other
        // data than that do not start.
        let claims = templates.into_iter().flatten().chain(self.claims.values());
        let cluster_id = claims.filter_map(|claim| claim.annotations().get(CLUSTER_ID).cloned()).next().or(told);
        let claims = templates.and_then(|templates| {
            let mut templates = serde_json::to_value(templates).ok()?;
            for template in templates.as_array_mut()?.iter_mut().filter_map(|template| template.as_object_mut()) {
                template.remove("status");
            }
            Some(templates)
        });
        let replicas = if self.set.is_some() { self.replicas() } else { self.lost() };
        let founders = self.note(FOUNDERS).and_then(|text| text.parse().ok());
        let made_for = self.made_for().cloned();
        let begun = self.begun();
        let mut facts = Facts { replicas, claims, made_for, cluster_id, founders, begun, ..Facts::default() };
        for service in &self.services {
            let name = service.name_any();
            for listener in listeners {
                let prefix = format!("{}-{}-", names.cluster, listener.name);
                let id = name.strip_prefix(&prefix).and_then(|id| id.parse().ok());
                if let (Some(id), Some(place)) = (id, outside(service, listener)) {
                    facts.outside.insert((listener.name.clone(), id), place);
                }
            }
        }
        facts
    }

    /// How many brokers the StatefulSet has; one more than there may be, if somebody has scaled it beyond.
    pub fn replicas(&self) -> Option<i32> {
        Some(self.set.as_ref()?.spec.as_ref()?.replicas?.min(MOST + 1))
    }

    /// How many brokers there are, be it that nothing keeps them just now.
    pub fn brokers(&self) -> Option<i32> {
        self.replicas().or_else(|| self.lost().filter(|_| !self.pods.is_empty()))
    }

    /// How many brokers a StatefulSet had that is not there: as is noted, and no fewer than have a pod that nobody controls.
    fn lost(&self) -> Option<i32> {
        self.config.as_ref()?;
        let noted = self.note(BROKERS).and_then(|text| text.parse().ok());
        let orphan = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && controller(pod).is_none();
        let highest = self.pods.iter().filter(|(_, pod)| orphan(pod)).map(|(id, _)| id.saturating_add(1)).max();
        noted.max(highest).map(|brokers: i32| brokers.clamp(1, MOST))
    }

    /// How many brokers there were when the StatefulSet was last applied, whatever it says now.
    pub fn noted(&self) -> Option<i32> {
        let noted = self.config.as_ref()?.metadata.annotations.as_ref()?.get(BROKERS)?.parse().ok()?;
        Some(i32::clamp(noted, 0, MOST))
    }

    /// The size of volumes that the StatefulSet was made anew for.
    pub fn made_for(&self) -> Option<&String> {
        self.set.as_ref()?.metadata.annotations.as_ref()?.get(MADE_FOR)
    }

    /// Without what another Cluster of this name has left: its notes are not about this one's brokers.
    pub fn of(mut self, cluster: &str) -> Self {
        let left = !self.pods.is_empty() || !self.claims.is_empty();
        let ours = |config: &ConfigMap| controller(config).map_or(left, |uid| uid == cluster);
        self.config = self.config.filter(ours);
        self
    }

    /// What is noted on the StatefulSet, or was before it was lost.
    fn note(&self, key: &str) -> Option<&str> {
        let of_set = self.set.as_ref().map(|set| &set.metadata);
        let metadata = of_set.or_else(|| self.config.as_ref().map(|config| &config.metadata))?;
        metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// What was begun about the number of brokers.
    pub fn begun(&self) -> Begun {
        let joining = self.note(JOINING).unwrap_or_default();
        Begun {
            leaving: self.note(LEAVING).and_then(|text| text.parse().ok()),
            joining: joining.split(',').filter_map(|id| id.parse().ok()).collect(),
        }
    }

    /// What the Services for the start got, by listener.
    pub fn bootstrap(&self, names: &Names, listeners: &[Listener]) -> BTreeMap<String, Outside> {
        let one = |listener: &Listener| {
            let name = names.bootstrap_of(&listener.name);
            let service = self.services.iter().find(|service| service.name_any() == name)?;
            Some((listener.name.clone(), outside(service, listener)?))
        };
        listeners.iter().filter_map(one).collect()
    }

    /// The keys that brokers have from the operator.
    pub fn dynamic_keys(&self) -> Vec<String> {
        let text = self.config.as_ref().and_then(|config| config.annotations().get(DYNAMIC));
        text.into_iter().flat_map(|text| text.split(',')).filter(|key| !key.is_empty()).map(String::from).collect()
    }

    /// What helps a pod that no node takes, when it is for its volume.
    fn stranded(&self, id: i32, status: &PodStatus) -> String {
        let Some(claim) = self.claims.get(&id) else { return String::new() };
        let lost = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost");
        if !lost && !unschedulable(status).is_some_and(|refusal| is_elsewhere(&refusal)) {
            return String::new();
        }
        let name = claim.name_any();
        format!(
            " Its volume is on a node that does not take it, or gone: if that is so for good, delete the claim {name}, and the \
             broker gets what it had from the other replicas"
        )
    }

    /// How a broker stands.
    pub fn seen(&self, names: &Names, id: i32) -> Seen {
        let name = names.pod(id);
        let Some(pod) = self.pods.get(&id) else {
            let (state, exists) = (BrokerState::Pending, false);
            let of = format!("Pod {name} in StatefulSet {} failed error: ", names.cluster);
            let told = self.refusals.iter().find_map(|told| told.split_once(&of));
            let why = told.map(|(_, error)| format!("FailedCreate: {}", error.chars().take(300).collect::<String>()));
            return Seen {
                pod: name,
                exists,
                state,
                why,
                runs: false,
                in_sync: false,
                template: None,
                description: None,
                version: None,
                node: None,
            };
        };
        let status = pod.status.clone().unwrap_or_default();
        let container = status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let runs =
            container.is_some_and(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
        // One that is to run before the broker, or beside it, keeps the pod from being ready, too.
        let others = || {
            let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
            all.filter(|other| !ready && !other.ready && other.name != CONTAINER)
        };
        let beside = |other: &ContainerStatus| Some(format!("container {}: {}", other.name, failing(other)?));
        let beside = others().find_map(beside);
        // Of a node that is lost nobody corrects what was said of containers last: only another one that fails explains a broker
        // that is in sync in a pod that is not ready.
        let alone = beside.is_some() && runs && container.is_some_and(|container| container.ready);
        let going = pod.metadata.deletion_timestamp.is_some();
        let in_sync = !going && (ready || alone);
        let why = container.and_then(failing).or(beside);
        let state = match (&why, ready, status.phase.as_deref()) {
            _ if going => BrokerState::Starting,
            (Some(_), ..) => BrokerState::Failing,
            (None, true, _) => BrokerState::Running,
            (None, false, Some("Running")) => BrokerState::Starting,
            _ => BrokerState::Pending,
        };
        Seen {
            pod: name,
            exists: true,
            state,
            why: why
                // How it began, long ago perhaps, is not why one that is stopped is not ready.
                .or_else(|| {
                    let starts = state == BrokerState::Starting && !going;
                    container.into_iter().chain(others()).filter(|_| starts).find_map(ended)
                })
                .or_else(|| Some(format!("{}{}", unschedulable(&status)?, self.stranded(id, &status)))),
            runs,
            in_sync,
            template: pod.annotations().get(TEMPLATE_HASH).cloned(),
            description: pod.annotations().get(DESCRIPTION_HASH).cloned(),
            version: pod.labels().get("app.kubernetes.io/version").cloned(),
            node: status.host_ip,
        }
    }
}

/// Whether the scheduler says that no node is where the volume is.
fn is_elsewhere(refusal: &str) -> bool {
    let refusal = refusal.to_lowercase();
    // As older schedulers say it, and newer ones.
    ["volume node affinity conflict", "persistentvolume's node affinity"].iter().any(|said| refusal.contains(said))
}

fn outside(service: &Service, listener: &Listener) -> Option<Outside> {
    match listener.kind {
        ListenerType::Internal => None,
        ListenerType::Nodeport => {
            let port = service.spec.as_ref()?.ports.as_ref()?.first()?.node_port?;
            Some(Outside::Port(port))
        }
        ListenerType::Loadbalancer => {
            let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
            ingress.hostname.clone().or_else(|| ingress.ip.clone()).map(Outside::Host)
        }
    }
}

/// Why a container cannot go on by itself, if it can't.
fn failing(container: &ContainerStatus) -> Option<String> {
    const HOPELESS: [&str; 7] = [
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| HOPELESS.contains(reason))?;
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let said = last.and_then(|last| last.message.as_deref()).or(waiting.message.as_deref()).unwrap_or_default();
    let short = end_of(said);
    Some(if short.is_empty() { reason.to_owned() } else { format!("{reason}: {short}") })
}

/// How a container that runs again has ended before, when that was no good end.
fn ended(container: &ContainerStatus) -> Option<String> {
    let last = container.last_state.as_ref()?.terminated.as_ref().filter(|last| last.exit_code != 0)?;
    let said = end_of(last.message.as_deref().unwrap_or_default());
    let which =
        if container.name == CONTAINER { "its container".into() } else { format!("container {}", container.name) };
    Some(format!("{which} has ended with code {} before: {said}", last.exit_code))
}

/// The last line of a log says most.
fn end_of(log: &str) -> String {
    log.trim_end().lines().last().unwrap_or_default().chars().take(300).collect()
}

fn unschedulable(status: &PodStatus) -> Option<String> {
    let refused = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("{}: {}", refused.reason.as_deref()?, refused.message.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names() -> Names {
        Names { cluster: "prod".into(), namespace: "x".into(), domain: "cluster.local".into() }
    }

    fn seen(status: serde_json::Value, claim: serde_json::Value) -> Seen {
        let pod = serde_json::from_value(json!({ "metadata": { "name": "prod-1" }, "status": status })).unwrap();
        let claim = json!({ "metadata": { "name": "data-prod-1" }, "status": claim });
        let claim = serde_json::from_value(claim).unwrap();
        Observed { pods: [(1, pod)].into(), claims: [(1, claim)].into(), ..Observed::default() }.seen(&names(), 1)
    }

    fn unschedulable(message: &str, claim: serde_json::Value) -> String {
        let scheduled =
            json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
        let seen = seen(json!({ "phase": "Pending", "conditions": [scheduled] }), claim);
        assert_eq!(seen.state, BrokerState::Pending);
        seen.why.unwrap()
    }

    #[test]
    fn what_helps_a_pod_without_a_place_for_its_volume_is_said() {
        let bound = json!({ "phase": "Bound" });
        for message in [
            "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.",
            "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
        ] {
            assert!(
                unschedulable(message, bound.clone())
                    .ends_with("delete the claim data-prod-1, and the broker gets what it had from the other replicas")
            );
        }
        for message in [
            "0/3 nodes are available: 3 Insufficient cpu.",
            "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.",
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
        ] {
            assert_eq!(unschedulable(message, bound.clone()), format!("Unschedulable: {message}"));
        }
        assert!(unschedulable("0/3", json!({ "phase": "Lost" })).contains("delete the claim"));
    }

    #[test]
    fn a_container_before_or_beside_the_broker_that_fails_is_named() {
        let container = |name: &str, ready: bool, state: serde_json::Value| json!({ "name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 1, "state": state });
        let waits = |reason: &str| json!({ "waiting": { "reason": reason } });
        let first =
            container("prepare", false, json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } }));
        let status = json!({
            "phase": "Pending", "initContainerStatuses": [first],
            "containerStatuses": [container("broker", false, waits("PodInitializing"))],
        });
        let before = seen(status, json!({}));
        assert_eq!((before.state, before.runs, before.in_sync), (BrokerState::Failing, false, false));
        assert_eq!(before.why.as_deref(), Some("container prepare: ErrImagePull: no such image"));

        let broker = container("broker", true, json!({ "running": {} }));
        let status = |ready: &str, side: serde_json::Value| {
            json!({
                "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [broker.clone(), container("side", false, side)],
            })
        };
        let beside = seen(status("False", waits("CrashLoopBackOff")), json!({}));
        assert_eq!((beside.state, beside.runs, beside.in_sync), (BrokerState::Failing, true, true));
        assert_eq!(beside.why.as_deref(), Some("container side: CrashLoopBackOff"));
        let starts = seen(status("False", waits("ContainerCreating")), json!({}));
        assert_eq!((starts.state, starts.in_sync, starts.why), (BrokerState::Starting, false, None));
        let mut again = status("False", json!({ "running": {} }));
        again["containerStatuses"][1]["lastState"] = json!({ "terminated": { "exitCode": 2, "message": "no file" } });
        let again = seen(again, json!({}));
        assert_eq!(again.state, BrokerState::Starting);
        assert_eq!(again.why.as_deref(), Some("container side has ended with code 2 before: no file"));
        let ready = seen(status("True", waits("CrashLoopBackOff")), json!({}));
        assert_eq!((ready.state, ready.why), (BrokerState::Running, None));
    }

    #[test]
    fn how_a_container_ended_is_said_until_it_is_ready() {
        let container = |code: i32| {
            json!({
                "name": "broker", "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": { "running": {} },
                "lastState": { "terminated": { "exitCode": code, "message": "first\nthe disk is full\n" } },
            })
        };
        let status = |code: i32, ready: &str| {
            let ready = json!({ "type": "Ready", "status": ready });
            json!({ "phase": "Running", "containerStatuses": [container(code)], "conditions": [ready] })
        };
        let why = |code: i32, ready: &str| seen(status(code, ready), json!({})).why;
        assert_eq!(why(3, "False").as_deref(), Some("its container has ended with code 3 before: the disk is full"));
        assert_eq!((why(0, "False"), why(3, "True")), (None, None));
        let going = json!({ "name": "prod-1", "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let pod = json!({ "metadata": going, "status": status(3, "False") });
        let observed = Observed { pods: [(1, serde_json::from_value(pod).unwrap())].into(), ..Observed::default() };
        assert_eq!(observed.seen(&names(), 1).why, None, "it is stopped by somebody");
    }
}
