//! Makes the StatefulSet anew, around its pods, once claims have outgrown its templates: those cannot change, and brokers that
//! come later would get too little.
//!
//! First no claim belongs to it any more (`whenDeleted: Retain`, for as long as that takes), then it is deleted as what leaves
//! its pods alone, then it is applied as ever: how many brokers it had, and what was begun about them, is noted on the ConfigMap.
//! An operator that dies in between goes on from what it sees, and one that was deleted by a hand comes back in the same way.
//! Nobody is restarted.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};

use super::observed::Observed;
use super::storage::{self, Volumes};
use super::{Halt, Pass, scaling};
use crate::crd::cluster::BrokerState;
use crate::events::publish;

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
    if pass.applied || !is_quiet(pass, observed) || owns_claims(set, observed) {
        return Ok(true);
    }
    let api: Api<StatefulSet> = Api::namespaced(pass.context.client.clone(), &pass.checked.names.namespace);
    let exactly = Preconditions { uid: set.uid(), resource_version: set.resource_version() };
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(exactly),
        ..DeleteParams::default()
    };
    match api.delete(&set.name_any(), &params).await {
        Ok(_) => {}
        // Somebody has written to it, or was faster: the next look tells.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => return Ok(true),
        Err(error) => return Err(error.into()),
    }
    pass.applied = true;
    let note = format!(
        "StatefulSet {} is made anew around its pods: its claims have grown to {}, and templates of claims cannot change",
        set.name_any(),
        pass.checked.spec.storage.size,
    );
    tracing::info!(note, "made anew");
    publish(pass.context, pass.cluster, EventType::Normal, "StatefulSetRecreated", "Recreate", note).await;
    Ok(true)
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
    scaling::is_settled(pass, observed, there) && (0..there).all(runs)
}

fn owns_claims(set: &StatefulSet, observed: &Observed) -> bool {
    let uid = set.uid().unwrap_or_default();
    observed.claims.values().any(|claim| claim.owner_references().iter().any(|owner| owner.uid == uid))
}
