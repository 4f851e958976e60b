//! `klamm-operator drop-finalizers`: what is done once the operator is taken away for good.
//!
//! A resource with a finalizer that nobody acts on can never be deleted, nor can its namespace. So the chart runs this after
//! the operator is gone. It takes the Lease first: an operator that is still ending would set the finalizers again.
//! Topics and groups stay as they are, whatever their deletion policies say; an operator that comes back looks after them
//! as before.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api;
use crate::crd::{ConsumerGroup, Topic, is_ours};
use crate::lease::Lease;
use crate::run;
use crate::settings::Settings;

/// How many resources are written at once.
const AT_ONCE: usize = 16;
/// How often one is tried whose writer was overtaken by another.
const TRIES: u32 = 5;
/// How long to wait for an operator that is ending. One that was killed leaves the Lease for less than this.
const LEASE_WITHIN: Duration = Duration::from_secs(120);

/// Takes the operator's finalizers from all resources that it looked after.
///
/// # Errors
/// The API server's, or another operator is still there.
pub async fn drop_all(settings: Settings) -> anyhow::Result<()> {
    run::prepare(&settings)?;
    let client = api::client().await?;
    let mut lease = Lease::watch(client.clone(), &settings);
    tokio::time::timeout(LEASE_WITHIN, lease.acquired())
        .await
        .context("another operator is running: it would set the finalizers again")?;
    for namespace in settings.namespaces() {
        drop_kind::<Topic>(&client, namespace.as_deref()).await?;
        drop_kind::<ConsumerGroup>(&client, namespace.as_deref()).await?;
    }
    lease.release().await;
    Ok(())
}

async fn drop_kind<K>(client: &Client, namespace: Option<&str>) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let all: Api<K> = api::all(client, namespace);
    let mut page = ListParams::default().limit(api::MANY);
    let mut count = 0;
    loop {
        let found = match all.list_metadata(&page).await {
            Ok(found) => found,
            // The type is gone, and with it all there was of it.
            Err(kube::Error::Api(status)) if status.is_not_found() => break,
            Err(error) => return Err(error).with_context(|| format!("listing {kind}s")),
        };
        let next = found.metadata.continue_.clone().filter(|next| !next.is_empty());
        let ours = found.items.into_iter().filter(|object| object.finalizers().iter().any(|name| is_ours(name)));
        let done = stream::iter(ours).map(|object| {
            let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
            async move {
                let name = object.name_any();
                let namespace = object.namespace();
                drop_one(&api, &name)
                    .await
                    .with_context(|| format!("{} {}/{name}", K::kind(&()), namespace.unwrap_or_default()))
            }
        });
        count += done.buffer_unordered(AT_ONCE).try_fold(0, |sum, ()| std::future::ready(Ok(sum + 1))).await?;
        match next {
            Some(next) => page = page.continue_token(&next),
            None => break,
        }
    }
    tracing::info!(%kind, namespace, count, "finalizers are dropped");
    Ok(())
}

async fn drop_one<K>(api: &Api<K>, name: &str) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut tries = 0;
    loop {
        let Some(object) = api.get_metadata_opt(name).await? else { return Ok(()) };
        let others: Vec<&String> = object.finalizers().iter().filter(|name| !is_ours(name)).collect();
        if others.len() == object.finalizers().len() {
            return Ok(());
        }
        // Of this very version: a finalizer that somebody else has added meanwhile must not be lost.
        let patch = json!({ "metadata": { "finalizers": others, "resourceVersion": object.resource_version() } });
        match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_operators_own_are_dropped() {
        assert!(is_ours("klamm.dev/topic"));
        for other in ["foregroundDeletion", "klamm.dev", "klamm.development/topic", "x.klamm.dev/topic"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
