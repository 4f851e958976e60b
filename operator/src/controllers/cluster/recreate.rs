//! Makes the StatefulSet anew, around its pods, once claims have outgrown its templates: those cannot change, and brokers that
//! come later would get too little.
//!
//! First no claim belongs to it any more (`whenDeleted: Retain`, for as long as that takes), and all pods belong to the Cluster as
//! well, so that they go with it whatever comes between. Then it is deleted as what leaves its pods alone, and applied as
//! ever: how many brokers it had, and what was begun about them, is noted on the ConfigMap. An operator that dies in between
//! goes on from what it sees, and one that was deleted by a hand comes back in the same way. Nobody is restarted.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::observed::Observed;
use super::storage::{self, Volumes};
use super::{Halt, Pass};
use crate::FIELD_MANAGER;
use crate::crd::cluster::BrokerState;
use crate::events::publish;

/// How often, and how long after each other, it is looked whether the old one is gone: the garbage collector lets pods go first.
const LOOKS: usize = 40;
const BETWEEN: Duration = Duration::from_millis(50);

/// Goes one step, if it is due; whether something is left to do.
///
/// # Errors
/// The API server's.
pub(super) async fn step(pass: &mut Pass<'_>, observed: &Observed) -> Result<bool, Halt> {
    let Some(set) = observed.set.as_ref() else { return Ok(false) };
    if is_going(set) {
        return Ok(true);
    }
    let refused = matches!(pass.volumes, Volumes::Refused(_));
    if refused || !storage::outgrown(observed, &pass.checked.spec.storage) {
        return Ok(false);
    }
    // Who could not make another one now deletes none.
    let ready = !pass.applied && pass.waiting.is_none() && is_quiet(pass, observed);
    if !ready || storage::goes_with(observed, &set.uid().unwrap_or_default()) {
        return Ok(true);
    }
    match replace(pass, observed, set).await {
        Ok(()) => again(pass).await?,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            let why = format!("brokers that come later get volumes of the first size first: {}", status.message);
            pass.checked.warnings.push(why);
            return Ok(false);
        }
        // Somebody has written to one of them, or was faster: the next look tells.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// Deletes it, and none of its pods.
async fn replace(pass: &mut Pass<'_>, observed: &Observed, set: &StatefulSet) -> Result<(), kube::Error> {
    let client = pass.context.client.clone();
    let space = &pass.checked.names.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), space);
    for pod in observed.pods.values() {
        adopt(pass, &pods, pod).await?;
    }
    let api: Api<StatefulSet> = Api::namespaced(client, space);
    let exactly = Preconditions { uid: set.uid(), resource_version: set.resource_version() };
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(exactly),
        ..DeleteParams::default()
    };
    api.delete(&set.name_any(), &params).await?;
    pass.applied = true;
    let note = format!(
        "StatefulSet {} is made anew around its pods: its claims have grown to {}, and templates of claims cannot change",
        set.name_any(),
        pass.checked.spec.storage.size,
    );
    tracing::info!(note, "made anew");
    publish(pass.context, pass.cluster, EventType::Normal, "StatefulSetRecreated", "Recreate", note).await;
    Ok(())
}

/// Has a pod go with the Cluster, whoever controls it.
async fn adopt(pass: &Pass<'_>, api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let cluster = &pass.owner.reference;
    if pod.owner_references().iter().any(|owner| owner.uid == cluster.uid) {
        return Ok(());
    }
    let mut owners = pod.owner_references().to_vec();
    let mut owner = cluster.clone();
    (owner.controller, owner.block_owner_deletion) = (None, None);
    owners.push(owner);
    let patch = json!({ "metadata": { "ownerReferences": owners, "resourceVersion": pod.resource_version() } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    api.patch_metadata(&pod.name_any(), &params, &Patch::Merge(patch)).await.map(|_| ())
}

/// Makes it as soon as the old one is gone; if that takes long, the next look does.
async fn again(pass: &mut Pass<'_>) -> Result<(), Halt> {
    let api: Api<StatefulSet> = Api::namespaced(pass.context.client.clone(), &pass.checked.names.namespace);
    for _ in 0..LOOKS {
        if api.get_metadata_opt(&pass.checked.names.cluster).await?.is_none() {
            let observed = pass.look().await.map_err(Halt::Error)?;
            pass.set = observed.set.as_ref().map(|set| set.metadata.clone());
            return pass.apply(&observed, pass.tracked(&observed)).await;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}

/// Whether it is on its way out, by whomever: what is written to it now goes with it.
pub(super) fn is_going(set: &StatefulSet) -> bool {
    set.metadata.deletion_timestamp.is_some()
}

/// Whether brokers neither come nor go: what the garbage collector has not seen as a part of the StatefulSet yet it would
/// delete with it.
fn is_quiet(pass: &Pass<'_>, observed: &Observed) -> bool {
    let Some(there) = observed.replicas() else { return false };
    let runs = |id: i32| observed.seen(&pass.checked.names, id).state == BrokerState::Running;
    observed.begun() == Default::default() && (0..there).all(runs) && observed.pods.range(there..).next().is_none()
}
