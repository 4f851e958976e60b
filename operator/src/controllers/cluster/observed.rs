//! What is there of a Cluster, read from the API server itself: never from a cache, since things are decided by it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, PersistentVolumeClaim, Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::crd::cluster::{BrokerState, Listener, ListenerType};
use crate::render::names::{CLUSTER_ID, CONTAINER, DESCRIPTION_HASH, FOUNDERS, JOINING, LEAVING, Names, TEMPLATE_HASH};
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
    let id = |name: String, prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok();
    let (of_pod, of_claim) = (format!("{}-", names.cluster), format!("data-{}-", names.cluster));
    Ok(Observed {
        set,
        config,
        pods: pods.into_iter().filter_map(|pod| Some((id(pod.name_any(), &of_pod)?, pod))).collect(),
        claims: claims.into_iter().filter_map(|claim| Some((id(claim.name_any(), &of_claim)?, claim))).collect(),
        services: services.items,
    })
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
    /// Why it fails, as its container or the kubelet says.
    pub why: Option<String>,
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
        let replicas = spec.and_then(|spec| spec.replicas);
        let founders = self.note(FOUNDERS).and_then(|text| text.parse().ok());
        let mut facts = Facts { replicas, claims, cluster_id, founders, begun: self.begun(), ..Facts::default() };
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

    fn note(&self, key: &str) -> Option<&str> {
        self.set.as_ref()?.metadata.annotations.as_ref()?.get(key).map(String::as_str)
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

    /// How a broker stands.
    pub fn seen(&self, names: &Names, id: i32) -> Seen {
        let name = names.pod(id);
        let Some(pod) = self.pods.get(&id) else {
            let (state, exists) = (BrokerState::Pending, false);
            return Seen {
                pod: name,
                exists,
                state,
                why: None,
                template: None,
                description: None,
                version: None,
                node: None,
            };
        };
        let status = pod.status.clone().unwrap_or_default();
        let container = status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let why = container.and_then(failing);
        let state = match (&why, ready, status.phase.as_deref()) {
            _ if pod.metadata.deletion_timestamp.is_some() => BrokerState::Starting,
            (Some(_), ..) => BrokerState::Failing,
            (None, true, _) => BrokerState::Running,
            (None, false, Some("Running")) => BrokerState::Starting,
            _ => BrokerState::Pending,
        };
        Seen {
            pod: name,
            exists: true,
            state,
            why: why.or_else(|| unschedulable(&status)),
            template: pod.annotations().get(TEMPLATE_HASH).cloned(),
            description: pod.annotations().get(DESCRIPTION_HASH).cloned(),
            version: pod.labels().get("app.kubernetes.io/version").cloned(),
            node: status.host_ip,
        }
    }
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
    // The last line of a log says most.
    let said = said.trim_end().lines().last().unwrap_or_default();
    let short: String = said.chars().take(300).collect();
    Some(if short.is_empty() { reason.to_owned() } else { format!("{reason}: {short}") })
}

fn unschedulable(status: &k8s_openapi::api::core::v1::PodStatus) -> Option<String> {
    let refused = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("{}: {}", refused.reason.as_deref()?, refused.message.as_deref().unwrap_or_default()))
}
