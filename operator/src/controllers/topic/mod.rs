//! Brings topics in line with Topics.

mod leave;
mod look;
mod owner;

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::broadcast::error::RecvError;

use super::known::Known;
use super::{Context, Error, Reconcile, Watched};
use crate::crd::{Cluster, Topic};
use crate::rounds::Rounds;
pub use leave::{FINALIZER, FORCE};
use look::Look;

/// Asks the API server for all Topics, once for all who ask at a time.
pub type AllTopics = Arc<Rounds<(), Result<Arc<Vec<Topic>>, Error>>>;

/// See [`AllTopics`].
pub fn all_topics(client: kube::Client, namespaces: Vec<Option<String>>) -> AllTopics {
    Arc::new(Rounds::new(usize::MAX >> 4, move |asked: Vec<()>| {
        let (client, namespaces) = (client.clone(), namespaces.clone());
        async move {
            let listed = owner::list(&client, &namespaces).await;
            let answer = || match &listed {
                Ok(all) => Ok(Arc::clone(all)),
                Err(error) => Err(Error::Other(error.to_string())),
            };
            asked.iter().map(|()| answer()).collect()
        }
    }))
}

impl Watched for Topic {
    fn known(context: &Context) -> &Known<Self> {
        &context.topics
    }
}

impl Reconcile for Topic {
    const CONTROLLER: &'static str = "topic";

    async fn reconcile(topic: &Self, context: &Context) -> Result<Action, Error> {
        if topic.metadata.deletion_timestamp.is_some() {
            return leave::leave(topic, context).await;
        }
        let mut look = Look::new(topic);
        let next = look.at(context).await;
        if let Err(error) = &next {
            look.failed(error);
        }
        let written = look.write(context).await;
        let next = next?;
        written?;
        Ok(next)
    }

    fn watch_more(
        controller: Controller<DeserializeGuard<Self>>,
        context: &Context,
        namespace: Option<&str>,
    ) -> Controller<DeserializeGuard<Self>> {
        controller.reconcile_on(of_changed_clusters(context.clone(), namespace.map(str::to_owned)))
    }
}

/// The Topics of every Cluster that changes: it may have come, or gone, or admit others now.
fn of_changed_clusters(
    context: Context,
    namespace: Option<String>,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<Topic>>> + Send + 'static {
    let changes = context.clusters.changes();
    stream::unfold((changes, context, namespace), |(mut changes, context, namespace)| async move {
        let changed = match changes.recv().await {
            Ok(changed) => Some(changed),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return None,
        };
        let concerned: Vec<_> = context
            .topics
            .all()
            .iter()
            .filter_map(|topic| topic.0.as_ref().ok())
            .filter(|topic| namespace.is_none() || topic.namespace() == namespace)
            .filter(|topic| changed.as_ref().is_none_or(|changed| refers_to(topic, changed)))
            .map(|topic| ObjectRef::new(&topic.name_any()).within(&topic.namespace().unwrap_or_default()))
            .collect();
        Some((stream::iter(concerned), (changes, context, namespace)))
    })
    .flatten()
}

fn refers_to(topic: &Topic, cluster: &ObjectRef<DeserializeGuard<Cluster>>) -> bool {
    topic.spec.cluster_ref.as_ref().is_some_and(|reference| {
        let home = reference.namespace.clone().or_else(|| topic.namespace());
        reference.name == cluster.name && home == cluster.namespace
    })
}
