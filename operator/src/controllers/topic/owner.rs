//! One topic belongs to one resource: the oldest that names it. The others wait.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::controllers::known::full_name;
use crate::controllers::{Context, Error};
use crate::crd::{ClusterRef, Topic};

/// What tells apart topics of different clusters.
type Place<'a> = (Option<(&'a str, Option<String>)>, Option<&'a str>);

fn place(topic: &Topic) -> Place<'_> {
    let home = |reference: &ClusterRef| reference.namespace.clone().or_else(|| topic.namespace());
    let cluster = topic.spec.cluster_ref.as_ref().map(|reference| (reference.name.as_str(), home(reference)));
    (cluster, topic.spec.bootstrap_servers.as_deref())
}

/// Whether two resources name the same topic.
fn same(a: &Topic, b: &Topic) -> bool {
    // The names first: they nearly always differ.
    a.topic_name() == b.topic_name() && place(a) == place(b) && a.uid() != b.uid()
}

fn age(topic: &Topic) -> (Option<Time>, Option<String>) {
    (topic.creation_timestamp(), topic.uid())
}

/// The older resource that has the topic, if there is one.
pub async fn owner(topic: &Topic, context: &Context) -> Option<String> {
    context.topics.ready().await;
    let all = context.topics.all();
    let others = all.iter().filter_map(|other| other.0.as_ref().ok()).filter(|other| same(topic, other));
    let older = others.filter(|other| age(other) < age(topic)).min_by_key(|other| age(other));
    older.map(|other| format!("Topic {}", full_name(other)))
}

/// Another resource that names the topic and stays, by what the API server says now: what it describes must not be
/// deleted with this one.
///
/// # Errors
/// The API server's.
pub async fn heir(topic: &Topic, context: &Context) -> Result<Option<String>, Error> {
    let all = context.all_topics.ask(()).await.unwrap_or_else(|| Err(Error::Other("the operator is ending".into())))?;
    let others = all.iter().filter(|other| same(topic, other) && other.metadata.deletion_timestamp.is_none());
    Ok(others.map(|other| format!("Topic {}", full_name(other))).min())
}

/// All Topics that the operator looks after, from the API server.
///
/// # Errors
/// The API server's.
pub async fn list(client: &kube::Client, namespaces: &[Option<String>]) -> Result<Arc<Vec<Topic>>, Error> {
    let mut all = Vec::new();
    for namespace in namespaces {
        let api: Api<Topic> = match namespace {
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
