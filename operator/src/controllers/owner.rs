//! One topic, or group, belongs to one resource: the oldest that names it. The others wait.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client};

use super::known::full_name;
use super::{Context, Error, Watched};
use crate::crd::{ClusterRef, ConsumerGroup, Topic};
use crate::rounds::Rounds;

/// A resource that stands for something in a cluster.
pub trait OfCluster: Watched {
    /// The Cluster that it names.
    fn cluster_ref(&self) -> Option<&ClusterRef>;
    /// Or the addresses.
    fn bootstrap_servers(&self) -> Option<&str>;
    /// The name there.
    fn subject(&self) -> &str;
    /// All of its kind by what the API server says now.
    fn all(context: &Context) -> &All<Self>;
}

impl OfCluster for Topic {
    fn cluster_ref(&self) -> Option<&ClusterRef> {
        self.spec.cluster_ref.as_ref()
    }

    fn bootstrap_servers(&self) -> Option<&str> {
        self.spec.bootstrap_servers.as_deref()
    }

    fn subject(&self) -> &str {
        self.topic_name()
    }

    fn all(context: &Context) -> &All<Self> {
        &context.all_topics
    }
}

impl OfCluster for ConsumerGroup {
    fn cluster_ref(&self) -> Option<&ClusterRef> {
        self.spec.cluster_ref.as_ref()
    }

    fn bootstrap_servers(&self) -> Option<&str> {
        self.spec.bootstrap_servers.as_deref()
    }

    fn subject(&self) -> &str {
        self.group_id()
    }

    fn all(context: &Context) -> &All<Self> {
        &context.all_groups
    }
}

/// Asks the API server for all objects of a kind, once for all who ask at a time.
pub type All<K> = Arc<Rounds<(), Result<Arc<Vec<K>>, Error>>>;

/// See [`All`].
pub fn all<K: OfCluster>(client: Client, namespaces: Vec<Option<String>>) -> All<K> {
    Arc::new(Rounds::new(usize::MAX >> 4, move |asked: Vec<()>| {
        let (client, namespaces) = (client.clone(), namespaces.clone());
        async move {
            let listed = list(&client, &namespaces).await;
            let answer = || match &listed {
                Ok(all) => Ok(Arc::clone(all)),
                Err(error) => Err(Error::Other(error.to_string())),
            };
            asked.iter().map(|()| answer()).collect()
        }
    }))
}

async fn list<K: OfCluster>(client: &Client, namespaces: &[Option<String>]) -> Result<Arc<Vec<K>>, Error> {
    let mut all = Vec::new();
    for namespace in namespaces {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let mut page = ListParams::default().limit(500);
        loop {
            let found = api.list(&page).await?;
            let next = found.metadata.continue_.clone().filter(|next| !next.is_empty());
            all.extend(found);
            match next {
                Some(next) => page = page.continue_token(&next),
                None => break,
            }
        }
    }
    Ok(Arc::new(all))
}

/// What tells apart things of one name in different clusters.
type Place<'a> = (Option<(&'a str, Option<String>)>, Option<&'a str>);

fn place<K: OfCluster>(object: &K) -> Place<'_> {
    let home = |reference: &ClusterRef| reference.namespace.clone().or_else(|| object.meta().namespace.clone());
    let cluster = object.cluster_ref().map(|reference| (reference.name.as_str(), home(reference)));
    (cluster, object.bootstrap_servers())
}

/// Whether two resources stand for the same.
fn same<K: OfCluster>(a: &K, b: &K) -> bool {
    // The names first: they nearly always differ.
    a.subject() == b.subject() && place(a) == place(b) && a.meta().uid != b.meta().uid
}

fn age<K: OfCluster>(object: &K) -> (&Option<Time>, &Option<String>) {
    (&object.meta().creation_timestamp, &object.meta().uid)
}

/// The older resource that has it, if there is one.
pub async fn owner<K: OfCluster>(object: &K, context: &Context) -> Option<String> {
    let known = K::known(context);
    known.ready().await;
    let all = known.all();
    let others = all.iter().filter_map(|other| other.0.as_ref().ok()).filter(|other| same(object, *other));
    let older = others.filter(|other| age(*other) < age(object)).min_by_key(|other| age(*other));
    older.map(|other| format!("{} {}", K::kind(&()), full_name(other)))
}

/// Another resource that stands for the same and stays, by what the API server says now: what it describes must not be
/// deleted with this one.
///
/// # Errors
/// The API server's.
pub async fn heir<K: OfCluster>(object: &K, context: &Context) -> Result<Option<String>, Error> {
    let asked = K::all(context).ask(()).await;
    let all = asked.unwrap_or_else(|| Err(Error::Other("the operator is ending".into())))?;
    let others = all.iter().filter(|other| same(object, *other) && other.meta().deletion_timestamp.is_none());
    Ok(others.map(|other| format!("{} {}", K::kind(&()), full_name(other))).min())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn topic(uid: &str, namespace: &str, spec: serde_json::Value) -> Topic {
        let meta = json!({ "name": "t", "namespace": namespace, "uid": uid });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    #[test]
    fn a_topic_is_told_by_its_name_and_its_cluster_wherever_the_resource_is() {
        let here = topic("1", "a", json!({ "clusterRef": { "name": "c" } }));
        let named = topic("2", "b", json!({ "clusterRef": { "name": "c", "namespace": "a" }, "topicName": "t" }));
        let elsewhere = topic("3", "b", json!({ "clusterRef": { "name": "c" } }));
        let another = topic("4", "a", json!({ "clusterRef": { "name": "c" }, "topicName": "u" }));
        let plain = topic("5", "a", json!({ "bootstrapServers": "c:9092" }));
        assert!(same(&here, &named) && same(&named, &here));
        assert!(!same(&here, &here), "nobody is in its own way");
        for other in [&elsewhere, &another, &plain] {
            assert!(!same(&here, other), "{other:?}");
        }
        assert!(same(&plain, &topic("6", "z", json!({ "bootstrapServers": "c:9092" }))));
    }
}
