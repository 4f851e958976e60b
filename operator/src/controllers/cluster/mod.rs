//! The controller of Clusters: reads everything, checks, renders, applies what differs, tells the brokers, and says in the
//! status how it stands.
//!
//! What is there is found by `observed`, certificates are kept by `secrets`, what brokers are told while they run is in
//! `live`, how their volumes grow in `storage`, and the StatefulSet with them in `recreate`, which rack they are in in
//! `rack`, which of them is restarted in `rolling`, how many there are in `scaling`, why some do not come in `hindered`, what is
//! moved for that in `moves`, which listeners stay for a while in `lingering`, what all of that comes to in `status`, and what
//! of it is told in Events in `news`.
//!
//! It does not delete a Cluster's parts: all of them have the Cluster as their owner.

mod hindered;
mod lingering;
mod live;
pub mod metrics;
mod moves;
mod news;
pub(crate) mod observed;
mod rack;
mod recreate;
pub(crate) mod rolling;
mod scaling;
mod secrets;
mod status;
mod storage;

#[cfg(test)]
mod controller_test;
#[cfg(test)]
mod recreate_test;
#[cfg(test)]
mod rolling_test;
#[cfg(test)]
mod scaling_test;
#[cfg(test)]
mod status_test;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use klamm_client::Client;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;

use super::{Context, Error, Reconcile};
use crate::FIELD_MANAGER;
use crate::api;
use crate::apply::{self, ApplyError, Owner};
use crate::brokers::Address;
use crate::ca::Data;
use crate::crd::cluster::{BrokerState, Cluster, ClusterStatus, INTERNAL_PORT, OperationStep};
use crate::events::publish;
use crate::render::{self, Checked, Facts, NotYet};
use crate::scale;
use crate::status::write;
use live::{Configured, Told};
use observed::{DYNAMIC, MOST, Observed, observe};
use rolling::Rolling;
use scaling::{Limited, Scaling};
use secrets::SecretError;
use status::{Problem, View};
use storage::Volumes;

/// How often a Cluster is looked at though nothing happened: certificates get old, and brokers tell of no change.
const AGAIN: Duration = Duration::from_secs(60);
/// The same while brokers don't answer, or are not ready: they tell of no change either.
const SOON: Duration = Duration::from_secs(10);
/// The same while stopping a broker would hurt, or partitions move: that they no longer do is told by nobody.
const UNTOLD: Duration = Duration::from_secs(2);

/// The same when something was done with a broker that nothing tells of, and that is not waited for.
const NEXT: Duration = Duration::from_millis(200);
/// So often in a row somebody else may write first without anybody being told.
const LATE: u32 = 4;

impl Reconcile for Cluster {
    const CONTROLLER: &'static str = "cluster";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn reconcile(object: &Self, context: &Context) -> Result<Action, Error> {
        if object.metadata.deletion_timestamp.is_some() {
            // Its parts go with it. Whatever was made now would keep it.
            context.cluster_metrics.forget(&object.namespace().unwrap_or_default(), &object.name_any());
            return Ok(Action::await_change());
        }
        let now = Timestamp::now();
        let view = match render::check(object, &context.settings) {
            Ok(checked) => match Pass::new(object, context, checked, now) {
                Ok(pass) => pass.run().await,
                Err(error) => Err(error),
            },
            Err(invalid) => {
                let problem = Problem { reason: invalid.reason.into(), message: invalid.message };
                refused(object, context, problem).await
            }
        };
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                // One that came too late is tried again at once, and is no news before that has gone on for a while.
                if !error.is_late() || context.failures(object) >= LATE {
                    interrupted(object, context, &error, now).await;
                }
                return Err(error);
            }
        };
        let before = object.status.as_ref();
        let status = status::build(&view, before, now);
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        context.cluster_metrics.found(&namespace, &name, object.spec.replicas, &status);
        if write(&context.client, object, before, &status).await? {
            news::tell(object, context, before, &status).await;
        }
        Ok(Action::requeue(pause(&view, &status)))
    }

    fn watch_more(
        controller: Controller<DeserializeGuard<Self>>,
        context: &Context,
        namespace: Option<&str>,
    ) -> Controller<DeserializeGuard<Self>> {
        let of = (context, namespace);
        let pods = api::all::<Pod>(&context.client, namespace);
        let claims = api::all::<PersistentVolumeClaim>(&context.client, namespace);
        controller
            .owns_stream(parts::<StatefulSet>(of))
            .owns_stream(parts::<Service>(of))
            .owns_stream(parts::<ConfigMap>(of))
            .owns_stream(parts::<ServiceAccount>(of))
            .owns_stream(parts::<PodDisruptionBudget>(of))
            .owns_stream(parts::<NetworkPolicy>(of))
            .watches_stream(api::patiently(watcher(pods, ours())).touched_objects(), |pod| cluster_of(&pod))
            .watches_stream(api::patiently(watcher(claims, ours())).touched_objects(), |claim| cluster_of(&claim))
    }
}

/// How long until the next look, if nothing tells of a change before.
fn pause(view: &View, status: &ClusterStatus) -> Duration {
    let awaited = matches!(view.configured, Configured::Unreachable(_))
        || status.ready_replicas < status.replicas
        || view.renewing;
    let scaling = view.scaling.as_ref().map(|scaling| (scaling.step, scaling.blocked_by.is_some()));
    match (&view.problem, view.rolling.as_ref().map(|rolling| rolling.step), scaling) {
        (Some(_), ..) => AGAIN,
        (None, Some(OperationStep::WaitingForSafety), _) => UNTOLD,
        (None, Some(step), _) if step != OperationStep::Pending => SOON,
        // That one is forgotten is done when it is said, and the next one may go.
        (None, _, Some((OperationStep::Unregistering, false))) => NEXT,
        (None, _, Some((step, _))) if step != OperationStep::Pending => UNTOLD,
        _ if awaited => SOON,
        _ => AGAIN,
    }
}

/// The changes of all objects of a kind, without what they hold.
fn parts<K>(of: (&Context, Option<&str>)) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + use<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + Send + 'static,
{
    let (context, namespace) = of;
    let all = api::all::<PartialObjectMeta<K>>(&context.client, namespace);
    api::patiently(watcher(all, ours())).touched_objects()
}

/// Those of them that the operator has made.
fn ours() -> watcher::Config {
    api::watch(Some(&format!("app.kubernetes.io/managed-by={FIELD_MANAGER}")))
}

/// The Cluster whose labels an object carries.
fn cluster_of(object: &impl ResourceExt) -> Option<ObjectRef<DeserializeGuard<Cluster>>> {
    let cluster = object.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

/// Why a pass ends before its end.
enum Halt {
    /// A person has to do something.
    Problem(Problem),
    /// Later it may go.
    Error(Error),
}

impl From<ApplyError> for Halt {
    fn from(error: ApplyError) -> Self {
        let reason = match &error {
            ApplyError::Kube(_) | ApplyError::Changed { .. } => None,
            ApplyError::Refused { .. } => Some("Refused"),
            ApplyError::Taken { .. } => Some("NameTaken"),
            ApplyError::Malformed(_) => Some("Malformed"),
        };
        match (reason, error) {
            (Some(reason), error) => Self::Problem(Problem { reason: reason.into(), message: error.to_string() }),
            (None, ApplyError::Kube(error)) => Self::Error(error.into()),
            (None, error) => Self::Error(Error::Changed(error.to_string())),
        }
    }
}

impl From<SecretError> for Halt {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Apply(error) => error.into(),
            SecretError::Ca { .. } => {
                Self::Problem(Problem { reason: "CertificateError".into(), message: error.to_string() })
            }
        }
    }
}

impl From<kube::Error> for Halt {
    fn from(error: kube::Error) -> Self {
        Self::Error(error.into())
    }
}

/// One look at a Cluster, from facts to objects to what the brokers say.
struct Pass<'a> {
    cluster: &'a Cluster,
    context: &'a Context,
    checked: Checked,
    owner: Owner,
    now: Timestamp,
    /// Whether anything was applied.
    applied: bool,
    waiting: Option<String>,
    told: Option<Told>,
    /// Brokers that tell clients another address than they have outside by now.
    moved: BTreeSet<i32>,
    configured: Configured,
    volumes: Volumes,
    /// Whether the StatefulSet is about to be made anew.
    renewing: bool,
    rolling: Option<Rolling>,
    scaling: Option<Scaling>,
    limited: Option<Limited>,
    /// What was decided in this pass about the number of brokers, and is to be noted.
    scaled: Option<(scale::Next, scale::Begun)>,
    /// The StatefulSet as it was looked at, or as it was applied since.
    set: Option<ObjectMeta>,
}

impl<'a> Pass<'a> {
    fn new(cluster: &'a Cluster, context: &'a Context, checked: Checked, now: Timestamp) -> Result<Self, Error> {
        let owner = owner(cluster)?;
        Ok(Self {
            cluster,
            context,
            checked,
            owner,
            now,
            applied: false,
            waiting: None,
            told: None,
            moved: BTreeSet::new(),
            configured: Configured::NotAsked,
            volumes: Volumes::Fit,
            renewing: false,
            rolling: None,
            scaling: None,
            limited: None,
            scaled: None,
            set: None,
        })
    }

    async fn run(mut self) -> Result<View, Error> {
        let observed = self.look().await?;
        let halted = match self.advance(&observed).await {
            Ok(()) => None,
            Err(Halt::Error(error)) => return Err(error),
            Err(Halt::Problem(problem)) => Some(problem),
        };
        if !self.applied {
            return Ok(self.view(&observed, halted));
        }
        let after = self.look().await?;
        if self.rolling.is_none() && self.scaling.is_none() && halted.is_none() {
            self.rolling = rolling::look(&self.checked, &after, self.now);
        }
        Ok(self.view(&after, halted))
    }

    async fn look(&self) -> Result<Observed, Error> {
        let observed = observe(&self.context.client, &self.checked.names).await?;
        Ok(observed.of(&self.owner.reference.uid))
    }

    /// Brings everything one step further.
    async fn advance(&mut self, observed: &Observed) -> Result<(), Halt> {
        let client = &self.context.client;
        let names = self.checked.names.clone();
        // Pods that nothing keeps are not what anybody means by a pause.
        let lost = observed.set.is_none() && observed.brokers().is_some();
        let paused = self.checked.spec.paused && !lost;
        if observed.replicas().is_some_and(|there| there > MOST) {
            let message = format!(
                "StatefulSet {} asks for more than {MOST} brokers, which is somebody's mistake: scale it back",
                names.cluster
            );
            return Err(Halt::Problem(Problem { reason: "TooManyBrokers".into(), message }));
        }
        self.set = observed.set.as_ref().map(|set| set.metadata.clone());
        let certificates = secrets::keep(client, &self.owner, &names, self.now, paused).await?;
        if !paused {
            let taken = scaling::taken_away(self, observed);
            self.apply(observed, self.tracked(observed)).await?;
            if taken && self.waiting.is_none() {
                scaling::put_back(self, observed).await;
                // Whether anybody can tell more is seen when they are on their way.
                self.configured = Configured::Later;
                return Ok(());
            }
        }
        self.missing_secrets().await?;
        self.volumes = storage::grow(client, observed, &self.checked.spec.storage, paused).await?;
        self.renewing = !paused && recreate::step(self, observed).await?;
        if self.renewing && self.volumes == Volumes::Fit {
            self.volumes = Volumes::Growing(format!("the template of claims of StatefulSet {}", names.cluster));
        }
        if let Some(rack) = self.checked.spec.rack.clone().filter(|_| !paused) {
            self.checked.warnings.extend(rack::tell(client, observed, &rack.topology_key).await?);
        }
        if !paused {
            scaling::mark(client, observed).await?;
        }
        let before = observed.dynamic_keys();
        if let Some(certificates) = certificates {
            self.talk(observed, &certificates, &before, paused).await;
        }
        // What was taken back need not be remembered any longer.
        let kept: Vec<String> = self.checked.dynamic.keys().cloned().collect();
        if !paused && !self.renewing && self.configured == Configured::Applied && self.tracked(observed) != kept {
            self.apply(observed, kept).await?;
        }
        // What was changed just now has to be seen by others first.
        if !self.applied && !observed.set.as_ref().is_some_and(recreate::is_going) {
            scaling::step(self, observed).await?;
        }
        Ok(())
    }

    /// Warns of certificates that pods wait for in vain.
    async fn missing_secrets(&mut self) -> Result<(), Halt> {
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.checked.names.namespace);
        for listener in &self.checked.spec.listeners {
            let Some(tls) = &listener.tls else { continue };
            // Whether it is there, without what it holds.
            if api.get_metadata_opt(&tls.secret_name).await?.is_none() {
                let (listener, secret) = (&listener.name, &tls.secret_name);
                self.checked
                    .warnings
                    .push(format!("listener {listener}: there is no Secret {secret}, which pods wait for"));
            }
        }
        Ok(())
    }

    /// The keys that brokers have from the operator, or are about to have.
    fn tracked(&self, observed: &Observed) -> Vec<String> {
        let mut keys = observed.dynamic_keys();
        keys.extend(self.checked.dynamic.keys().cloned());
        keys.sort();
        keys.dedup();
        keys
    }

    /// Services, then the rest once their addresses are known.
    async fn apply(&mut self, observed: &Observed, dynamic: Vec<String>) -> Result<(), Halt> {
        let client = &self.context.client;
        let listeners = self.checked.spec.listeners.clone();
        let mut facts = observed.facts(&self.checked.names, &listeners, self.cluster_id());
        facts.outgrown = storage::outgrown(observed, &self.checked.spec.storage);
        if let Some((next, begun)) = &self.scaled {
            (facts.next, facts.begun) = (next.clone(), begun.clone());
        }
        let mut wanted = render::services(&self.checked, &facts);
        wanted.iter_mut().for_each(|service| lingering::keep_ports(&self.checked, observed, service));
        let mut services = Vec::new();
        for service in &wanted {
            let (service, changed) = apply::apply(client, &self.owner, service.clone()).await?;
            self.applied |= changed;
            services.push(service);
        }
        let name = |object: &Value| object["metadata"]["name"].as_str().map(String::from);
        let kept: Vec<_> = wanted.iter().filter_map(name).collect();
        for old in observed.services.iter().filter(|service| !kept.contains(&service.name_any())) {
            let lingers = lingering::needs(&self.checked, observed, old);
            if !lingers && old.owner_references().iter().any(|reference| reference.uid == self.owner.reference.uid) {
                let mut object = serde_json::to_value(old).map_err(|e| ApplyError::Malformed(e.to_string()))?;
                object["apiVersion"] = "v1".into();
                object["kind"] = "Service".into();
                apply::delete(client, &self.owner, &object).await?;
            }
        }
        let services = services.into_iter().map(serde_json::from_value).collect::<Result<Vec<Service>, _>>();
        let services = services.map_err(|e| ApplyError::Malformed(e.to_string()))?;
        let after = Observed { services, ..observed.clone() };
        facts = Facts { outside: after.facts(&self.checked.names, &listeners, None).outside, ..facts };
        match render::brokers(&self.checked, &facts) {
            Ok(objects) => {
                for mut object in objects {
                    if object["kind"] == "ConfigMap" && !dynamic.is_empty() {
                        object["metadata"]["annotations"][DYNAMIC] = dynamic.join(",").into();
                    }
                    if object["kind"] == "NetworkPolicy" {
                        lingering::keep_rules(client, &self.checked, observed, &mut object).await?;
                    }
                    if object["kind"] != "StatefulSet" {
                        self.applied |= apply::apply(client, &self.owner, object).await?.1;
                        continue;
                    }
                    if observed.set.as_ref().is_some_and(recreate::is_going) {
                        continue;
                    }
                    let (set, changed) = apply::apply_over(client, &self.owner, object, self.set.as_ref()).await?;
                    let set: StatefulSet =
                        serde_json::from_value(set).map_err(|e| ApplyError::Malformed(e.to_string()))?;
                    self.set = Some(set.metadata);
                    self.applied |= changed;
                }
            }
            Err(NotYet::Missing { listener, broker }) => {
                self.waiting = Some(format!("listener {listener}: the address of broker {broker} is not known yet"));
            }
            Err(too_large @ NotYet::TooLarge { .. }) => {
                let problem = Problem { reason: "TooManyBrokers".into(), message: too_large.to_string() };
                return Err(Halt::Problem(problem));
            }
        }
        Ok(())
    }

    /// Asks the brokers how they are and tells them their configuration, if one of them can be expected to answer.
    async fn talk(&mut self, observed: &Observed, certificates: &Data, before: &[String], paused: bool) {
        let names = &self.checked.names;
        let running = |id: &i32| observed.seen(names, *id).state == BrokerState::Running;
        let (ready, pods) = (observed.pods.keys().filter(|id| running(id)).count(), observed.pods.len());
        if !observed.pods.keys().any(|id| observed.seen(names, *id).in_sync) {
            return;
        }
        let replicas = observed.replicas().unwrap_or(0);
        let all = ready == pods && i32::try_from(pods).is_ok_and(|pods| pods >= replicas);
        let least = self.checked.dynamic.get("min.insync.replicas").and_then(|text| text.trim().parse().ok());
        let address = self.address();
        let bootstrap = format!("{}:{INTERNAL_PORT}", names.host(&names.headless()));
        if let Err(error) = self.context.ways.certified(address.clone(), &bootstrap, certificates) {
            self.configured = Configured::Unreachable(error.to_string());
            return;
        }
        let Some(brokers) = self.context.ways.to(&address).filter(|_| ready > 0) else { return };
        let least = (!all).then_some(least.unwrap_or(1));
        match brokers.ask(async |client| live::ask(client, least).await).await {
            Ok(told) => self.told = Some(told),
            Err(error) => {
                self.configured = Configured::Unreachable(error.to_string());
                return;
            }
        }
        let facts = observed.facts(names, &self.checked.spec.listeners, None);
        let outside = render::outside(&self.checked, &facts);
        if !outside.is_empty() {
            let running: Vec<i32> = observed.pods.keys().copied().filter(running).collect();
            let moved = brokers.ask(async |client| live::moved(client, &running, &outside).await).await;
            // What they tell clients is not worth waiting for.
            self.moved = moved.unwrap_or_default();
        }
        self.configured = if paused {
            Configured::Paused
        } else {
            let Checked { dynamic, unmanaged, .. } = &self.checked;
            let configured = async |client: &Client| Ok(live::configure(client, dynamic, before, unmanaged).await);
            brokers.ask(configured).await.unwrap_or_else(|error| Configured::Unreachable(error.to_string()))
        };
    }

    fn address(&self) -> Address {
        let names = &self.checked.names;
        Address::Cluster(names.namespace.clone(), names.cluster.clone())
    }

    fn cluster_id(&self) -> Option<String> {
        self.cluster.status.as_ref().and_then(|status| status.cluster_id.clone())
    }

    fn view(self, observed: &Observed, problem: Option<Problem>) -> View {
        let names = &self.checked.names;
        let replicas = observed.brokers();
        let seen: BTreeMap<_, _> = (0..replicas.unwrap_or(0)).map(|id| (id, observed.seen(names, id))).collect();
        let mut nodes: Vec<String> = seen.values().filter_map(|seen| seen.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        let unsettled = replicas.is_some_and(|there| !scaling::is_settled(&self, observed, there));
        let places = observed.bootstrap(names, &self.checked.spec.listeners);
        View {
            generation: self.cluster.metadata.generation,
            asked: self.checked.spec.replicas,
            replicas,
            brokers: seen,
            template: Some(self.checked.template_hash()),
            selector: names.serving_text(),
            paused: self.checked.spec.paused,
            problem,
            waiting: self.waiting,
            warnings: self.checked.warnings.clone(),
            told: self.told,
            moved: self.moved,
            configured: self.configured,
            volumes: self.volumes,
            renewing: self.renewing,
            rolling: self.rolling,
            unsettled,
            hindered: hindered::hindered(observed, names, 0..replicas.unwrap_or(0)),
            scaling: self.scaling,
            limited: self.limited,
            listeners: render::bootstrap(&self.checked, &nodes, &places),
        }
    }
}

fn owner(cluster: &Cluster) -> Result<Owner, Error> {
    let reference = cluster.controller_owner_ref(&()).ok_or_else(|| Error::Other("a Cluster without a uid".into()))?;
    Ok(Owner { reference, namespace: cluster.namespace().unwrap_or_default() })
}

/// The view of a Cluster of which nothing can be made: its brokers go on as they are.
async fn refused(cluster: &Cluster, context: &Context, problem: Problem) -> Result<View, Error> {
    let names = render::names::Names {
        cluster: cluster.name_any(),
        namespace: cluster.namespace().unwrap_or_default(),
        domain: context.settings.cluster_domain.clone(),
    };
    let observed = observe(&context.client, &names).await?.of(&cluster.uid().unwrap_or_default());
    let replicas = observed.brokers();
    let status = cluster.status.clone().unwrap_or_default();
    Ok(View {
        generation: cluster.metadata.generation,
        asked: cluster.spec.replicas,
        replicas,
        brokers: (0..replicas.unwrap_or(0)).map(|id| (id, observed.seen(&names, id))).collect(),
        template: None,
        selector: names.serving_text(),
        paused: cluster.spec.paused,
        problem: Some(problem),
        waiting: None,
        warnings: Vec::new(),
        told: None,
        moved: BTreeSet::new(),
        configured: Configured::NotAsked,
        volumes: Volumes::Fit,
        renewing: false,
        rolling: None,
        unsettled: replicas.is_some_and(|there| there != cluster.spec.replicas),
        hindered: None,
        scaling: None,
        limited: None,
        listeners: status.listeners.into_iter().map(|l| (l.name, l.bootstrap_servers)).collect(),
    })
}

/// Says why a look did not come to its end. That it cannot be said either is in the log with the error itself.
async fn interrupted(cluster: &Cluster, context: &Context, error: &Error, now: Timestamp) {
    let before = cluster.status.as_ref();
    let status = status::interrupted(before, cluster.metadata.generation, error, now);
    let told = before.is_some_and(|before| before.conditions.iter().any(|is| is.reason == error.reason()));
    if write(&context.client, cluster, before, &status).await.unwrap_or(false) && !told {
        publish(context, cluster, EventType::Warning, error.reason(), "Reconcile", error.to_string()).await;
    }
}
