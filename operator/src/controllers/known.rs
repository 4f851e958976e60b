//! What the watches have brought of a kind: every controller may look at it, without asking the API server.
//!
//! It may be a moment old. Whoever destroys something on its strength asks again first.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::malformed::Remains;
use super::owner::OfCluster;
use super::{Context, Watched};
use crate::brokers::Address;
use crate::crd::{Cluster, ConsumerGroup, Topic};

/// Changes that somebody who listens may lag behind before being told to look at everything.
const BEHIND: usize = 1024;

/// See the module's head.
#[derive(Clone)]
pub struct Known<K: Watched> {
    stores: Arc<RwLock<Vec<Store<DeserializeGuard<K>>>>>,
    changes: broadcast::Sender<ObjectRef<DeserializeGuard<K>>>,
    /// What could be told of those that cannot be read.
    pub remains: Remains<K>,
    /// Those that cannot be read may be large: each is looked at by itself.
    pub reading: Arc<tokio::sync::Mutex<()>>,
}

impl<K: Watched> Default for Known<K> {
    fn default() -> Self {
        Self {
            stores: Arc::default(),
            changes: broadcast::channel(BEHIND).0,
            remains: Arc::default(),
            reading: Arc::default(),
        }
    }
}

impl<K: Watched> Debug for Known<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} stores", self.stores.read().len())
    }
}

impl<K: Watched> Known<K> {
    /// Adds what one watch brings.
    pub fn add(&self, store: Store<DeserializeGuard<K>>) {
        self.stores.write().push(store);
    }

    /// An object has changed.
    pub fn changed(&self, object: &DeserializeGuard<K>) {
        // Nobody may be listening.
        let _ = self.changes.send(ObjectRef::from_obj(object));
    }

    /// Whether an object is still there.
    pub fn has(&self, object: &DeserializeGuard<K>) -> bool {
        let reference = ObjectRef::from_obj(object);
        self.stores.read().iter().any(|store| store.get(&reference).is_some())
    }

    /// Hears which objects change from now on.
    pub fn changes(&self) -> broadcast::Receiver<ObjectRef<DeserializeGuard<K>>> {
        self.changes.subscribe()
    }

    /// Resolves once every watch has brought all there is.
    pub async fn ready(&self) {
        let stores = self.stores.read().clone();
        for store in stores {
            // A watch whose writer is gone brings nothing more: the operator is ending.
            let _ = store.wait_until_ready().await;
        }
    }

    /// All that can be read.
    pub fn all(&self) -> Vec<Arc<DeserializeGuard<K>>> {
        self.stores.read().iter().flat_map(Store::state).filter(|object| object.0.is_ok()).collect()
    }

    /// All that cannot.
    pub fn unread(&self) -> Vec<Arc<DeserializeGuard<K>>> {
        self.stores.read().iter().flat_map(Store::state).filter(|object| object.0.is_err()).collect()
    }

    /// One object, if it is there; an error if it cannot be read.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Result<K, String>> {
        let reference = ObjectRef::new(name).within(namespace);
        let found = self.stores.read().iter().find_map(|store| store.get(&reference))?;
        Some(found.0.clone().map_err(|malformed| malformed.error))
    }
}

/// An object's name with its namespace, for messages.
pub fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

impl Watched for Cluster {
    fn known(context: &Context) -> &Known<Self> {
        &context.clusters
    }

    fn forget(context: &Context, [namespace, name]: [&str; 2]) {
        context.cluster_metrics.forget(namespace, name);
        context.ways.forget(&Address::Cluster(namespace.into(), name.into()));
    }
}

impl Watched for Topic {
    fn known(context: &Context) -> &Known<Self> {
        &context.topics
    }
}

impl Watched for ConsumerGroup {
    fn known(context: &Context) -> &Known<Self> {
        &context.groups
    }

    fn forget(context: &Context, [namespace, name]: [&str; 2]) {
        context.group_metrics.forget_all_of(namespace, name);
    }
}

/// What refers to a Cluster that changes: it may have come, or gone, or admit others now.
pub fn of_changed_clusters<K: OfCluster>(
    context: &Context,
    namespace: Option<&str>,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + 'static {
    let (known, namespace) = (K::known(context).clone(), namespace.map(str::to_owned));
    let changes = context.clusters.changes();
    stream::unfold((changes, known, namespace), |(mut changes, known, namespace)| async move {
        let changed = match changes.recv().await {
            Ok(changed) => Some(changed),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return None,
        };
        let all = known.all();
        let concerned = all
            .iter()
            .filter_map(|object| object.0.as_ref().ok())
            .filter(|object| namespace.is_none() || object.namespace() == namespace)
            .filter(|object| changed.as_ref().is_none_or(|changed| refers_to(*object, changed)));
        let concerned: Vec<_> = concerned
            .map(|object| ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default()))
            .collect();
        Some((stream::iter(concerned), (changes, known, namespace)))
    })
    .flatten()
}

fn refers_to<K: OfCluster>(object: &K, cluster: &ObjectRef<DeserializeGuard<Cluster>>) -> bool {
    object.cluster_ref().is_some_and(|reference| {
        let home = reference.namespace.clone().or_else(|| object.namespace());
        reference.name == cluster.name && home == cluster.namespace
    })
}
