//! What the watches have brought of a kind: every controller may look at it, without asking the API server.
//!
//! It may be a moment old. Whoever destroys something on its strength asks again first.

use std::fmt::Debug;
use std::sync::Arc;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::RwLock;
use tokio::sync::broadcast;

use super::{Context, Watched};
use crate::crd::Cluster;

/// Changes that somebody who listens may lag behind before being told to look at everything.
const BEHIND: usize = 1024;

/// See the module's head.
#[derive(Clone)]
pub struct Known<K: Watched> {
    stores: Arc<RwLock<Vec<Store<DeserializeGuard<K>>>>>,
    changes: broadcast::Sender<ObjectRef<DeserializeGuard<K>>>,
}

impl<K: Watched> Default for Known<K> {
    fn default() -> Self {
        Self { stores: Arc::default(), changes: broadcast::channel(BEHIND).0 }
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
}
