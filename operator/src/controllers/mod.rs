//! What brings the world in line with the resources: one controller a kind.
//!
//! Here is what they share: how objects come in, how many are worked on at once, when a failed one is tried again.

pub mod cluster;
pub mod farewell;
pub mod finalizer;
pub mod group;
pub mod kept;
pub mod known;
pub mod malformed;
#[cfg(test)]
pub mod mock;
pub mod owner;
pub mod topic;

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use kube::core::object::HasSpec;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::api;
use crate::brokers::Ways;
use crate::crd::{Cluster, ConsumerGroup, Topic};
use crate::events::Recorder;
use crate::groups;
use crate::metrics::{Metrics, Outcome};
use crate::settings::Settings;
use crate::status::is_as_described;
use known::Known;

/// First and longest pause before an object that failed is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];
/// Several changes of an object within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(200);

impl Error {
    /// Whether it only came too late: somebody else has written first, and the next look is as good as the first one.
    pub fn is_late(&self) -> bool {
        match self {
            Error::Changed(_) => true,
            Error::Kube(kube::Error::Api(status)) => status.is_conflict(),
            _ => false,
        }
    }

    /// One word for it, as a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Client(error) if error.code().is_none() => "ClusterUnreachable",
            Error::Kube(_) => "KubernetesError",
            _ => "Error",
        }
    }
}

/// What every controller has.
#[derive(Clone)]
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// How the operator was started.
    pub settings: Arc<Settings>,
    /// Its metrics.
    pub metrics: Metrics,
    /// The ways to the brokers.
    pub ways: Ways,
    /// All Clusters that are watched.
    pub clusters: Known<Cluster>,
    /// All Topics that are watched.
    pub topics: Known<Topic>,
    /// All ConsumerGroups that are watched.
    pub groups: Known<ConsumerGroup>,
    /// All Topics by what the API server says now.
    pub all_topics: owner::All<Topic>,
    /// The same for ConsumerGroups.
    pub all_groups: owner::All<ConsumerGroup>,
    /// What metrics say of groups.
    pub group_metrics: groups::metrics::Metrics,
    /// What they say of Clusters.
    pub cluster_metrics: cluster::metrics::Metrics,
    /// Writes Events.
    pub recorder: Recorder,
    failures: Arc<Mutex<HashMap<String, u32>>>,
}

impl Context {
    /// Puts it together.
    ///
    /// # Errors
    /// Metrics that are registered already.
    pub fn new(client: Client, settings: Arc<Settings>, metrics: Metrics) -> Result<Self, prometheus::Error> {
        let (topics, groups) = (Known::default(), Known::default());
        Ok(Self {
            all_topics: owner::all(client.clone(), settings.namespaces(), &topics),
            all_groups: owner::all(client.clone(), settings.namespaces(), &groups),
            recorder: Recorder::new(client.clone(), settings.identity.clone()),
            group_metrics: groups::metrics::Metrics::new(metrics.registry())?,
            cluster_metrics: cluster::metrics::Metrics::new(metrics.registry())?,
            client,
            ways: Ways::new(settings.concurrency),
            settings,
            metrics,
            clusters: Known::default(),
            topics,
            groups,
            failures: Arc::default(),
        })
    }

    /// How long to wait before the next try of an object that failed once more.
    fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock();
        let times = failures.entry(object.to_owned()).or_default();
        *times = times.saturating_add(1);
        spread(PAUSES[0].saturating_mul(1 << (*times - 1).min(16)).min(PAUSES[1]), (object, *times))
    }

    /// How often an object has failed in a row before.
    pub(crate) fn failures<K: Watched>(&self, object: &K) -> u32 {
        let key = key::<K>(&place(object).join("/"));
        self.failures.lock().get(&key).copied().unwrap_or_default()
    }

    /// It did not fail, or is gone.
    fn succeeded(&self, object: &str) {
        self.failures.lock().remove(object);
    }
}

/// A pause made shorter by up to a quarter, so that those that failed together are not tried together for ever.
fn spread(pause: Duration, of: impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 250).unwrap_or(0);
    pause.saturating_sub(pause / 1000 * share)
}

/// Why an object is not as described yet. All of these are tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or cannot be reached.
    #[error("Kubernetes: {}", api::said(.0))]
    Kube(#[from] kube::Error),
    /// The brokers refused, or cannot be reached.
    #[error("brokers: {0}")]
    Client(#[from] klamm_client::ClientError),
    /// A reading task ended.
    #[error("this object cannot be read: {0}")]
    Malformed(String),
    /// Somebody has written meanwhile to what was looked at: the next look goes by what is there then.
    #[error("{0}")]
    Changed(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// A kind of resources that is watched.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasSpec<Spec: Serialize>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Where the context keeps what is known of this kind.
    fn known(context: &Context) -> &Known<Self>;

    /// An object of this namespace and name is gone, with nobody having been asked, or cannot be read any more: nothing
    /// is kept of it.
    fn forget(_context: &Context, _place: [&str; 2]) {}
}

/// What is done for each resource of a kind.
pub trait Reconcile: Watched {
    /// Names the controller in logs and metrics.
    const CONTROLLER: &'static str;

    /// Brings the world one step nearer to what `object` says, and its status up to date. Called again after every
    /// change of it, and after the time that the answer says.
    fn reconcile(object: &Self, context: &Context) -> impl Future<Output = Result<Action, Error>> + Send;

    /// What its status says.
    fn conditions(&self) -> &[Condition];

    /// Adds what else makes an object of this kind due: objects that it owns, or refers to.
    fn watch_more(
        controller: Controller<DeserializeGuard<Self>>,
        _context: &Context,
        _namespace: Option<&str>,
    ) -> Controller<DeserializeGuard<Self>> {
        controller
    }
}

/// Watches a kind and makes it known in the context. The stream has to be polled; it names what may need work: what is
/// new, or has another description or other annotations. Statuses and finalizers are not among it: the operator writes those.
pub fn watch<K: Watched>(
    context: &Context,
    namespace: Option<&str>,
) -> (
    reflector::Store<DeserializeGuard<K>>,
    impl Stream<Item = Result<DeserializeGuard<K>, watcher::Error>> + Send + 'static,
) {
    let all: Api<DeserializeGuard<K>> = api::all(&context.client, namespace);
    let (store, writer) = reflector::store();
    K::known(context).add(store.clone());
    let context = context.clone();
    let described = predicates::generation.combine(annotations);
    let changes = api::patiently(watcher(all, api::watch(None)))
        .modify(kept::trim::<K>)
        .reflect(writer)
        .touched_objects()
        .inspect(move |object| {
            let Ok(object) = object else { return };
            K::known(&context).changed(object);
            let gone = !K::known(&context).has(object);
            if gone || object.0.is_err() {
                K::forget(&context, place(object));
            }
            if gone {
                context.succeeded(&key::<K>(&named(object)));
            }
        })
        .predicate_filter(described, kube::runtime::PredicateConfig::default());
    (store, changes)
}

/// Annotations that others set. What the operator notes itself is no change.
fn annotations<K: Resource>(object: &K) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let all = object.meta().annotations.iter().flatten();
    all.filter(|(key, _)| key.as_str() != topic::MAKES).for_each(|pair| pair.hash(&mut hasher));
    Some(hasher.finish())
}

/// Makes a kind known that nothing is done for here, until `stop` resolves.
pub fn observe<K: Watched>(
    context: &Context,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let (_, changes) = watch::<K>(context, namespace);
    changes.take_until(stop).for_each(|_| std::future::ready(()))
}

/// A kind's controller, which runs until `stop` resolves; work under way is finished first. What it watches is known to
/// the context from now on.
pub fn controller<K: Reconcile>(
    context: &Context,
    namespace: Option<String>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    context.metrics.starts(K::CONTROLLER);
    let (store, changes) = watch::<K>(context, namespace.as_deref());
    // How many are worked on at once is seen to here, so that those who wait can be counted.
    let turns = Arc::new(Turns { places: Semaphore::new(context.settings.concurrency.into()), store: store.clone() });
    let closing = Arc::clone(&turns);
    let stop = async move {
        stop.await;
        closing.places.close();
    };
    let controller = Controller::for_stream(changes, store)
        .with_config(Config::default().debounce(DEBOUNCE))
        .trigger_backoff(api::AtOnce);
    let controller = K::watch_more(controller, context, namespace.as_deref());
    let context = Arc::new(context.clone());
    async move {
        tracing::info!(controller = K::CONTROLLER, namespace, "controller starts");
        controller
            .graceful_shutdown_on(stop)
            .run(move |object, context| in_turn(Arc::clone(&turns), object, context), again::<K>, context)
            .for_each(|ended| async move {
                // What an object's turn came to is logged there; this is about queues and watches.
                if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = ended {
                    tracing::warn!(controller = K::CONTROLLER, %error, "watching is interrupted");
                }
            })
            .await;
        tracing::info!(controller = K::CONTROLLER, "controller has ended");
    }
}

/// Places for objects that are worked on at once, and where they are found as they are when one is free.
struct Turns<K: Reconcile> {
    places: Semaphore,
    store: reflector::Store<DeserializeGuard<K>>,
}

/// Works on an object when there is a place for it. Once the operator stops nobody gets one any more.
async fn in_turn<K: Reconcile>(
    turns: Arc<Turns<K>>,
    object: Arc<DeserializeGuard<K>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let waiting = context.metrics.waits(K::CONTROLLER);
    let Ok(_place) = turns.places.acquire().await else { return Ok(Action::await_change()) };
    drop(waiting);
    // It may have changed since, or be gone.
    match turns.store.get(&ObjectRef::from_obj(&*object)) {
        // As many as there are may wait: what the work needs is there only while it is done.
        Some(object) => Box::pin(one(object, context)).await,
        None => Ok(Action::await_change()),
    }
}

async fn one<K: Reconcile>(object: Arc<DeserializeGuard<K>>, context: Arc<Context>) -> Result<Action, Error> {
    let name = named(&*object);
    let object = match &object.0 {
        Ok(object) => object,
        Err(unread) => return malformed::look(&object, unread, &context).await,
    };
    context.metrics.begun(K::CONTROLLER, place(object));
    let since = Instant::now();
    let done = K::reconcile(object, &context).await;
    let outcome = match done {
        Ok(_) if is_as_described(object.conditions(), object.meta().generation) => Outcome::Steady,
        Ok(_) => Outcome::Ok,
        Err(ref late) if late.is_late() => Outcome::Ok,
        Err(_) => Outcome::Error,
    };
    context.metrics.ended(K::CONTROLLER, place(object), outcome, since.elapsed());
    if done.is_ok() {
        context.succeeded(&key::<K>(&name));
    }
    done
}

fn again<K: Reconcile>(object: Arc<DeserializeGuard<K>>, error: &Error, context: Arc<Context>) -> Action {
    let name = named(&*object);
    let pause = context.failed(&key::<K>(&name));
    if error.is_late() {
        tracing::debug!(controller = K::CONTROLLER, object = name, %error, "looked at again");
    } else {
        let again_in_s = pause.as_secs();
        tracing::warn!(controller = K::CONTROLLER, object = name, %error, again_in_s, "not reconciled");
    }
    Action::requeue(pause)
}

fn key<K: Watched>(name: &str) -> String {
    format!("{}/{name}", K::kind(&()))
}

fn named<K: Watched>(object: &DeserializeGuard<K>) -> String {
    place(object).join("/")
}

/// An object's namespace and name.
fn place<K: Resource>(object: &K) -> [&str; 2] {
    let meta = object.meta();
    [meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whoever waits is counted, and gets no place once the operator stops, nor when the object is gone by then.
    #[tokio::test]
    async fn objects_wait_for_their_turn() {
        let context = Arc::new(mock::Server::default().context());
        let topic = json!({
            "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "t", "namespace": "a" },
            "spec": { "bootstrapServers": "b:9092" },
        });
        let topic: Arc<DeserializeGuard<Topic>> = Arc::new(serde_json::from_value(topic).expect("a Topic"));
        let (store, _writer) = reflector::store();
        let turns = Arc::new(Turns { places: Semaphore::new(0), store });
        let depth = |context: &Context| {
            let text = context.metrics.text();
            let line =
                text.lines().find_map(|line| line.strip_prefix("klamm_operator_queue_depth{controller=\"topic\"} "));
            line.map(str::to_owned)
        };
        let wait = || tokio::spawn(in_turn(Arc::clone(&turns), Arc::clone(&topic), Arc::clone(&context)));
        let (first, second) = (wait(), wait());
        while depth(&context).as_deref() != Some("2") {
            tokio::task::yield_now().await;
        }
        turns.places.add_permits(1);
        // It is in no store: gone. Its place goes to the next one.
        assert_eq!(first.await.expect("no panic").expect("no error"), Action::await_change());
        assert_eq!(second.await.expect("no panic").expect("no error"), Action::await_change());
        assert_eq!(depth(&context).as_deref(), Some("0"));
        let _held = turns.places.acquire().await;
        let third = wait();
        turns.places.close();
        assert_eq!(third.await.expect("no panic").expect("no error"), Action::await_change());
    }

    #[test]
    fn those_that_failed_together_are_not_tried_together() {
        let pauses: std::collections::BTreeSet<Duration> =
            (0..100).map(|n| spread(PAUSES[1], (format!("Topic/a/t-{n}"), 9))).collect();
        assert!(pauses.len() > 50, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= PAUSES[1] && *pause >= PAUSES[1] * 3 / 4), "{pauses:?}");
    }
}
