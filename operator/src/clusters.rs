//! Which brokers a resource belongs to, and whether it may.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::SelectorExt as _;
use kube::{Api, ResourceExt};

use crate::brokers::{Address, Brokers};
use crate::controllers::owner::OfCluster;
use crate::controllers::{Context, Error};
use crate::crd::Cluster;
use crate::crd::cluster::{AllowedNamespaces, ListenerType};
use crate::crd::common::NamespacesFrom;
use crate::settings::Kind;

/// How soon to look again whether a Cluster is there that was not. Its own changes come by themselves.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a reference leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resolved {
    /// Brokers.
    At(Address),
    /// A Cluster that has no brokers to talk to yet.
    NotReady(String),
    /// No such Cluster, or one that is being deleted.
    Gone(String),
    /// A Cluster that does not admit resources of this namespace.
    Refused(String),
}

/// Finds the brokers of a resource, which names either a Cluster or addresses.
///
/// # Errors
/// The API server's.
pub async fn resolve<K: OfCluster>(context: &Context, object: &K) -> Result<Resolved, kube::Error> {
    let Some(reference) = object.cluster_ref() else {
        if !context.settings.allow_bootstrap_servers {
            let why = "this operator takes no bootstrapServers: name a Cluster, by clusterRef";
            return Ok(Resolved::Refused(why.into()));
        }
        return Ok(Resolved::At(Address::Plain(object.bootstrap_servers().unwrap_or_default().to_owned())));
    };
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let home = reference.namespace.as_deref().unwrap_or(namespace);
    let named = format!("Cluster {home}/{}", reference.name);
    if !context.settings.watches(home) {
        return Ok(Resolved::Refused(format!("{named}: this operator does not look after namespace {home}")));
    }
    context.clusters.ready().await;
    let cluster = match context.clusters.get(home, &reference.name) {
        None => return Ok(Resolved::Gone(format!("{named} does not exist"))),
        Some(Err(why)) => return Ok(Resolved::NotReady(format!("{named} cannot be read: {why}"))),
        Some(Ok(cluster)) => cluster,
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Resolved::Gone(format!("{named} is being deleted")));
    }
    if home != namespace && !admits(context, &cluster.spec.allowed_namespaces, namespace).await? {
        return Ok(Resolved::Refused(format!(
            "{named} does not admit resources of namespace {namespace}: see its allowedNamespaces"
        )));
    }
    let own = Address::Cluster(home.to_owned(), reference.name.clone());
    let up = cluster.status.as_ref().is_some_and(|status| !status.listeners.is_empty());
    let plain = plain(&cluster);
    if up && plain.is_none() && context.settings.controllers.contains(&Kind::Clusters) {
        context.ways.soon(&own).await;
    }
    Ok(match plain {
        _ if up && context.ways.to(&own).is_some() => Resolved::At(own),
        // One that another operator looks after, or nobody.
        Some(address) => Resolved::At(Address::Plain(address.to_owned())),
        None => Resolved::NotReady(format!("{named} has no listener that is up yet")),
    })
}

/// Where a Cluster's brokers are reached from inside of the Kubernetes cluster, in plain text.
fn plain(cluster: &Cluster) -> Option<&str> {
    let usable = |name: &str| {
        let described = cluster.spec.listeners.iter().find(|listener| listener.name == name);
        described.is_some_and(|listener| listener.kind == ListenerType::Internal && listener.tls.is_none())
    };
    let listeners = &cluster.status.as_ref()?.listeners;
    Some(&listeners.iter().find(|listener| usable(&listener.name))?.bootstrap_servers)
}

/// The way to a cluster that was found.
///
/// # Errors
/// It went away meanwhile.
pub fn way(context: &Context, address: &Address) -> Result<Arc<Brokers>, Error> {
    context.ways.to(address).ok_or_else(|| Error::Other("the Cluster is gone".into()))
}

/// Asks the API server, not what the watches brought, whether the Cluster that a resource names is gone.
///
/// # Errors
/// The API server's.
pub async fn surely_gone<K: OfCluster>(context: &Context, object: &K) -> Result<bool, kube::Error> {
    let Some(reference) = object.cluster_ref() else { return Ok(true) };
    let home = reference.namespace.as_deref().or(object.meta().namespace.as_deref()).unwrap_or_default();
    let api: Api<Cluster> = Api::namespaced(context.client.clone(), home);
    let found = api.get_metadata_opt(&reference.name).await?;
    Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

/// Whether a namespace is being deleted, or gone; `None` where the operator may not look.
///
/// # Errors
/// The API server's.
pub async fn namespace_goes(context: &Context, namespace: &str) -> Result<Option<bool>, kube::Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    match api.get_metadata_opt(namespace).await {
        Ok(found) => Ok(Some(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the addresses of a resource are those of Clusters of its own namespace that go: each is being deleted, or gone with
/// the namespace being deleted. Nobody will answer there any more, and there will be nothing that could be deleted.
///
/// # Errors
/// The API server's.
pub async fn go_together<K: OfCluster>(context: &Context, object: &K) -> Result<bool, kube::Error> {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let Some(names) = object.bootstrap_servers().and_then(|addresses| named_by(addresses, namespace)) else {
        return Ok(false);
    };
    let api: Api<Cluster> = Api::namespaced(context.client.clone(), namespace);
    for name in names {
        let goes = match api.get_metadata_opt(name).await {
            Ok(Some(found)) => found.metadata.deletion_timestamp.is_some(),
            Ok(None) => namespace_goes(context, namespace).await? == Some(true),
            // An operator of topics alone has no rights for Clusters.
            Err(kube::Error::Api(status)) if status.is_forbidden() => false,
            Err(error) => return Err(error),
        };
        if !goes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The Clusters of a namespace whose Services these addresses name, if all of them do: `NAME-bootstrap.NAMESPACE`, also with
/// `.svc` and more. A name without its namespace is another thing for the operator than for whoever has written it.
fn named_by<'a>(addresses: &'a str, namespace: &str) -> Option<Vec<&'a str>> {
    let name = |address: &'a str| {
        let (host, _) = address.rsplit_once(':')?;
        let mut parts = host.split('.');
        let name = parts.next()?.strip_suffix("-bootstrap")?;
        (parts.next() == Some(namespace) && parts.next().is_none_or(|part| part == "svc")).then_some(name)
    };
    addresses.split(',').map(name).collect()
}

/// Whether a Cluster admits resources of another namespace.
async fn admits(context: &Context, allowed: &AllowedNamespaces, namespace: &str) -> Result<bool, kube::Error> {
    match (allowed.from, &allowed.selector) {
        (NamespacesFrom::Same, _) | (NamespacesFrom::Selector, None) => Ok(false),
        (NamespacesFrom::All, _) => Ok(true),
        (NamespacesFrom::Selector, Some(selector)) => {
            let api: Api<Namespace> = Api::all(context.client.clone());
            let Some(found) = api.get_opt(namespace).await? else { return Ok(false) };
            let Ok(selector) = kube::core::Selector::try_from(selector.clone()) else { return Ok(false) };
            Ok(selector.matches(found.labels()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::mock::{Server, known};
    use crate::crd::Topic;

    #[test]
    fn addresses_name_clusters_only_by_their_services_with_the_namespace() {
        for (addresses, wanted) in [
            ("prod-bootstrap.a:9092", Some(vec!["prod"])),
            ("prod-bootstrap.a.svc:9092", Some(vec!["prod"])),
            ("prod-bootstrap.a.svc.cluster.local:9092,next-bootstrap.a:1", Some(vec!["prod", "next"])),
            ("prod-bootstrap:9092", None),
            ("prod-bootstrap.b.svc:9092", None),
            ("prod-bootstrap.a.example.com:9092", None),
            ("prod-bootstrap.a:9092,kafka.example.com:9092", None),
            ("127.0.0.1:9092", None),
        ] {
            assert_eq!(named_by(addresses, "a"), wanted, "{addresses}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_addressed_goes_with_its_namespace_or_by_itself() {
        let spec = json!({ "bootstrapServers": "prod-bootstrap.a.svc:9092" });
        let meta = json!({ "name": "t", "namespace": "a" });
        let topic: Topic = serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap();
        let (there, going) = (json!({}), json!({ "deletionTimestamp": "2026-10-01T00:00:00Z" }));
        for (cluster, namespace, goes) in [
            (Some(&there), &there, false),
            (Some(&there), &going, false),
            (Some(&going), &there, true),
            (None, &going, true),
            // It may be made again, and the records are on its volumes.
            (None, &there, false),
        ] {
            let server = Server::default();
            let object = |meta: &serde_json::Value| json!({ "metadata": meta });
            let found = cluster.map_or(serde_json::Value::Null, object);
            server.put("/apis/klamm.dev/v1alpha1/namespaces/a/clusters/prod", found);
            server.put("/api/v1/namespaces/a", object(namespace));
            let found = go_together(&server.context(), &topic).await.unwrap();
            assert_eq!(found, goes, "{cluster:?} in {namespace}");
        }
    }

    /// A Cluster without a listener in plain text is reached by the operator's own certificates, which an operator that has
    /// just begun does not know yet.
    #[tokio::test(start_paused = true)]
    async fn an_operator_that_has_just_begun_waits_for_what_it_is_about_to_know() {
        let listener = json!({ "name": "ext", "port": 9095, "type": "nodeport" });
        let status = json!({ "listeners": [{ "name": "ext", "bootstrapServers": "10.0.0.1:31000" }] });
        let cluster: Cluster = serde_json::from_value(json!({
            "metadata": { "name": "prod", "namespace": "a" }, "spec": { "listeners": [listener] }, "status": status,
        }))
        .unwrap();
        let topic =
            json!({ "metadata": { "name": "t", "namespace": "a" }, "spec": { "clusterRef": { "name": "prod" } } });
        let topic: Topic = serde_json::from_value(topic).unwrap();
        let context = Server::default().context();
        known(&context, [cluster]);
        let own = Address::Cluster("a".into(), "prod".into());
        let comes = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Brokers::known(&context.ways, own.clone());
        };
        let (found, ()) = tokio::join!(resolve(&context, &topic), comes);
        assert_eq!(found.unwrap(), Resolved::At(own.clone()));
        // Once for a while: it may never come.
        context.ways.forget(&own);
        for most in [11, 0] {
            let since = tokio::time::Instant::now();
            assert!(matches!(resolve(&context, &topic).await.unwrap(), Resolved::NotReady(_)));
            assert!(since.elapsed().as_secs() <= most, "{:?}", since.elapsed());
        }
    }

    #[tokio::test]
    async fn addresses_can_be_forbidden() {
        let spec = json!({ "bootstrapServers": "b:9092" });
        let topic: Topic = serde_json::from_value(json!({ "metadata": { "name": "t" }, "spec": spec })).unwrap();
        let mut context = Server::default().context();
        let plain = Resolved::At(Address::Plain("b:9092".into()));
        assert_eq!(resolve(&context, &topic).await.unwrap(), plain);
        Arc::make_mut(&mut context.settings).allow_bootstrap_servers = false;
        assert!(matches!(resolve(&context, &topic).await.unwrap(), Resolved::Refused(_)));
    }
}
