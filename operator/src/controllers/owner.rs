//! One topic, or group, belongs to one resource: the oldest that names it and that its Cluster admits. The others wait.
//!
//! Two resources may name one topic by different ways: a Cluster and its brokers' addresses, or addresses spelled in two
//! ways. The id of the cluster, as its brokers tell it, gives that away once both have been looked at.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};

use super::known::{Known, full_name};
use super::{Context, Error, Watched, malformed};
use crate::api;
use crate::clusters::{self, Resolved};
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
    /// The id of the cluster that was found there, as its brokers tell it.
    fn cluster_id(&self) -> Option<&str> {
        None
    }
    /// The id of what has been made, or taken over, there.
    fn subject_id(&self) -> Option<&str> {
        None
    }
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

    fn cluster_id(&self) -> Option<&str> {
        self.status.as_ref()?.cluster_id.as_deref()
    }

    fn subject_id(&self) -> Option<&str> {
        self.status.as_ref()?.topic_id.as_deref()
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

    fn cluster_id(&self) -> Option<&str> {
        self.status.as_ref()?.cluster_id.as_deref()
    }

    fn all(context: &Context) -> &All<Self> {
        &context.all_groups
    }
}

/// Asks the API server for all objects of a kind, once for all who ask at a time. Of each there is only what tells what it
/// stands for.
pub type All<K> = Arc<Rounds<(), Result<Arc<Vec<K>>, Error>>>;

/// See [`All`].
pub fn all<K: OfCluster>(client: Client, namespaces: Vec<Option<String>>, known: &Known<K>) -> All<K> {
    let known = known.clone();
    Arc::new(Rounds::new(usize::MAX >> 4, move |asked: Vec<()>| {
        let (client, namespaces, known) = (client.clone(), namespaces.clone(), known.clone());
        async move {
            // Those may be large.
            let page = if known.unread().is_empty() { api::MANY } else { api::FEW };
            let listed = list(&client, &namespaces, page).await;
            let answer = || match &listed {
                Ok(all) => Ok(Arc::clone(all)),
                Err(error) => Err(Error::Other(error.to_string())),
            };
            asked.iter().map(|()| answer()).collect()
        }
    }))
}

/// One that cannot be read does not keep the others from being listed, nor is it left out.
async fn list<K: OfCluster>(client: &Client, namespaces: &[Option<String>], page: u32) -> Result<Arc<Vec<K>>, Error> {
    let (mut all, kind) = (Vec::new(), ApiResource::erase::<K>(&()));
    for namespace in namespaces {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        let mut page = ListParams::default().limit(page);
        loop {
            let found = api.list(&page).await?;
            all.extend(found.items.into_iter().filter_map(malformed::read::<K>));
            match found.metadata.continue_.filter(|next| !next.is_empty()) {
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

/// Whether two resources stand for the same. `seen` is where the first one leads to, as far as its brokers have told.
fn same<K: OfCluster>(a: &K, b: &K, seen: &Seen<'_>) -> bool {
    // The names first: they nearly always differ.
    a.subject() == b.subject() && a.meta().uid != b.meta().uid && (place(a) == place(b) || seen.is(b))
}

/// What the brokers have told: the id of their cluster, and that of what is looked for, if it is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The cluster's.
    pub cluster: Option<&'a str>,
    /// The topic's.
    pub subject: Option<&'a str>,
}

impl Seen<'_> {
    /// Whether a resource with the same name leads there, too. Where somebody has given two clusters one id, topics of
    /// different ids tell them apart.
    fn is<K: OfCluster>(&self, other: &K) -> bool {
        let differ = matches!((self.subject, other.subject_id()), (Some(a), Some(b)) if a != b);
        self.cluster.is_some() && self.cluster == other.cluster_id() && !differ
    }
}

fn age<K: OfCluster>(object: &K) -> (&Option<Time>, &Option<String>) {
    (&object.meta().creation_timestamp, &object.meta().uid)
}

/// Whether a resource has a say: one that its Cluster does not admit must not keep others from theirs.
async fn has_a_say<K: OfCluster>(object: &K, context: &Context) -> Result<bool, Error> {
    Ok(!matches!(clusters::resolve(context, object).await?, Resolved::Refused(_)))
}

/// The older resource that has it, if there is one.
///
/// # Errors
/// The API server's.
pub async fn owner<K: OfCluster>(object: &K, seen: &Seen<'_>, context: &Context) -> Result<Option<String>, Error> {
    let known = K::known(context);
    known.ready().await;
    let (all, unread) = (known.all(), malformed::unread(known, &context.client).await?);
    let others = all.iter().filter_map(|other| other.0.as_ref().ok()).chain(unread.iter().map(Arc::as_ref));
    let mut older: Vec<&K> = others.filter(|other| same(object, *other, seen) && age(*other) < age(object)).collect();
    older.sort_by(|a, b| age(*a).cmp(&age(*b)));
    for other in older {
        if has_a_say(other, context).await? {
            return Ok(Some(format!("{} {}", K::kind(&()), full_name(other))));
        }
    }
    Ok(None)
}

/// Another resource that stands for the same and stays, by what the API server says now: what it describes must not be
/// deleted with this one.
///
/// # Errors
/// The API server's.
pub async fn heir<K: OfCluster>(object: &K, context: &Context) -> Result<Option<String>, Error> {
    let asked = K::all(context).ask(()).await;
    let all = asked.unwrap_or_else(|| Err(Error::Other("the operator is ending".into())))?;
    let seen = Seen { cluster: object.cluster_id(), subject: object.subject_id() };
    for other in all.iter().filter(|other| same(object, *other, &seen) && other.meta().deletion_timestamp.is_none()) {
        if has_a_say(other, context).await? {
            return Ok(Some(format!("{} {}", K::kind(&()), full_name(other))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::mock::{Server, known};
    use crate::crd::Cluster;

    fn topic(uid: &str, namespace: &str, spec: serde_json::Value) -> Topic {
        let meta = json!({ "name": "t", "namespace": namespace, "uid": uid });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    fn is_same(a: &Topic, b: &Topic) -> bool {
        same(a, b, &Seen { cluster: a.cluster_id(), subject: a.subject_id() })
    }

    #[test]
    fn a_topic_is_told_by_its_name_and_its_cluster_wherever_the_resource_is() {
        let here = topic("1", "a", json!({ "clusterRef": { "name": "c" } }));
        let named = topic("2", "b", json!({ "clusterRef": { "name": "c", "namespace": "a" }, "topicName": "t" }));
        let elsewhere = topic("3", "b", json!({ "clusterRef": { "name": "c" } }));
        let another = topic("4", "a", json!({ "clusterRef": { "name": "c" }, "topicName": "u" }));
        let plain = topic("5", "a", json!({ "bootstrapServers": "c:9092" }));
        assert!(is_same(&here, &named) && is_same(&named, &here));
        assert!(!is_same(&here, &here), "nobody is in its own way");
        for other in [&elsewhere, &another, &plain] {
            assert!(!is_same(&here, other), "{other:?}");
        }
        assert!(is_same(&plain, &topic("6", "z", json!({ "bootstrapServers": "c:9092" }))));
    }

    #[test]
    fn two_ways_to_one_cluster_are_found_out_by_its_id() {
        let at = |uid: &str, addresses: &str, status: serde_json::Value| {
            let mut topic = topic(uid, "a", json!({ "bootstrapServers": addresses }));
            topic.status = Some(serde_json::from_value(status).unwrap());
            topic
        };
        let one = at("1", "b:9092", json!({ "clusterId": "c", "topicId": "x" }));
        assert!(is_same(&one, &at("2", "b.svc:9092", json!({ "clusterId": "c", "topicId": "x" }))));
        assert!(is_same(&one, &at("2", "b.svc:9092", json!({ "clusterId": "c" }))), "one that waits");
        for other in [json!({}), json!({ "clusterId": "d" }), json!({ "clusterId": "c", "topicId": "y" })] {
            assert!(!is_same(&one, &at("2", "b.svc:9092", other.clone())), "{other}");
        }
        assert!(!is_same(&at("1", "b:9092", json!({})), &at("2", "b.svc:9092", json!({}))), "nothing is known yet");
    }

    #[test]
    fn so_are_two_ways_to_one_group() {
        let group = |uid: &str, spec: serde_json::Value, status: serde_json::Value| -> ConsumerGroup {
            let meta = json!({ "name": "g", "namespace": "a", "uid": uid });
            serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
        };
        let here = group("1", json!({ "clusterRef": { "name": "c" } }), json!({ "clusterId": "x" }));
        let seen = Seen { cluster: Some("x"), subject: None };
        for (id, is) in [("x", true), ("y", false)] {
            let there = group("2", json!({ "bootstrapServers": "b:9092" }), json!({ "clusterId": id }));
            assert_eq!(same(&here, &there, &seen), is);
        }
    }

    fn at(namespace: &str, created: &str) -> Topic {
        let mut topic = topic(namespace, namespace, json!({ "clusterRef": { "name": "c", "namespace": "home" } }));
        topic.metadata.creation_timestamp = Some(Time(created.parse().unwrap()));
        topic
    }

    #[tokio::test]
    async fn who_is_not_admitted_is_in_nobodys_way() {
        let labels = |tenant: &str| json!({ "metadata": { "name": tenant, "labels": { "tenant": tenant } } });
        let (stranger, tenant) = (at("stranger", "2026-01-01T00:00:00Z"), at("tenant", "2026-01-02T00:00:00Z"));
        let home = at("home", "2026-01-03T00:00:00Z");
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster", "metadata": { "name": "c", "namespace": "home" },
            "spec": { "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "tenant": "tenant" } } } },
        }))
        .unwrap();
        let server = Server::default();
        for namespace in ["stranger", "tenant"] {
            server.put(&format!("/api/v1/namespaces/{namespace}"), labels(namespace));
        }
        let put = |topic: &Topic| {
            let (namespace, object) = (topic.metadata.namespace.clone().unwrap(), serde_json::to_value(topic).unwrap());
            server.put(&format!("/apis/klamm.dev/v1alpha1/topics/{namespace}"), object);
        };
        [&stranger, &home].into_iter().for_each(put);
        let context = server.context();
        known(&context, [cluster]);
        known(&context, [stranger.clone(), home.clone()]);
        let seen = Seen::default();
        assert_eq!(owner(&home, &seen, &context).await.unwrap(), None, "the stranger is older, and has no say");
        assert_eq!(heir(&home, &context).await.unwrap(), None, "nor does it keep the topic");
        known(&context, [tenant.clone()]);
        put(&tenant);
        assert_eq!(owner(&home, &seen, &context).await.unwrap().as_deref(), Some("Topic tenant/t"));
        assert_eq!(heir(&home, &context).await.unwrap().as_deref(), Some("Topic tenant/t"));
    }
}
