//! Volumes grow with their Cluster, where their class allows it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::observed::Observed;
use crate::FIELD_MANAGER;
use crate::crd::cluster::{Storage, StorageType};
use crate::quantity::milli;
use crate::render::names::DATA;

/// How the volumes stand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Volumes {
    /// All are as large as described.
    Fit,
    /// Some grow; which, and how far.
    Growing(String),
    /// Some cannot grow, and why.
    Refused(String),
}

/// What one claim needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Nothing,
    /// Its request is too small.
    Ask,
    /// It was asked for and is not there yet.
    Wait,
}

fn need(claim: &PersistentVolumeClaim, size: &str) -> Need {
    let wanted = milli(size);
    let asked = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let (asked, has) = (asked.and_then(|q| milli(&q.0)), has.and_then(|q| milli(&q.0)));
    match (asked, has) {
        (asked, _) if asked < wanted => Need::Ask,
        // A claim that is not bound yet gets its size when it is.
        (_, Some(has)) if Some(has) < wanted => Need::Wait,
        _ => Need::Nothing,
    }
}

/// The claims of brokers that there are. Those of brokers that went grow when they are needed again: a file system that
/// nobody mounts may never do.
fn used(observed: &Observed) -> impl Iterator<Item = &PersistentVolumeClaim> {
    let there = observed.brokers().unwrap_or(0);
    observed.claims.range(..there).map(|(_, claim)| claim).filter(|claim| claim.metadata.deletion_timestamp.is_none())
}

/// Whether a claim is one of a broker that there is, and goes with the StatefulSet.
pub fn goes_with(observed: &Observed, set: &str) -> bool {
    used(observed).any(|claim| claim.owner_references().iter().any(|owner| owner.uid == set))
}

/// Whether all claims are, or are about to be, as large as described, and the StatefulSet's template of claims is not: who comes
/// later would get too little.
pub fn outgrown(observed: &Observed, storage: &Storage) -> bool {
    let templates = observed.set.iter().filter_map(|set| set.spec.as_ref()?.volume_claim_templates.as_ref()).flatten();
    let small = |claim: &PersistentVolumeClaim| need(claim, &storage.size) == Need::Ask;
    storage.kind == StorageType::Persistent
        && templates.filter(|template| template.metadata.name.as_deref() == Some(DATA)).any(small)
        && observed.made_for() != Some(&storage.size)
        && !used(observed).any(small)
}

/// Asks for larger volumes where they are too small. With `look_only` it only tells.
///
/// # Errors
/// The API server's.
pub async fn grow(
    client: &Client,
    observed: &Observed,
    storage: &Storage,
    look_only: bool,
) -> Result<Volumes, kube::Error> {
    if storage.kind == StorageType::Ephemeral {
        return Ok(Volumes::Fit);
    }
    let mut growing = Vec::new();
    for claim in used(observed) {
        let name = claim.name_any();
        match need(claim, &storage.size) {
            Need::Nothing => {}
            Need::Wait => growing.push(format!("{name}{}", told(claim))),
            Need::Ask if look_only => growing.push(name),
            Need::Ask => {
                if let Some(why) = refused(client, claim).await? {
                    return Ok(Volumes::Refused(why));
                }
                let api: Api<PersistentVolumeClaim> =
                    Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
                let patch = json!({ "spec": { "resources": { "requests": { "storage": storage.size } } } });
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
                match api.patch(&name, &params, &Patch::Merge(&patch)).await {
                    Ok(_) => tracing::info!(claim = name, size = storage.size, "a volume is to grow"),
                    Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                        return Ok(Volumes::Refused(format!("{name}: {}", status.message)));
                    }
                    Err(error) => return Err(error),
                }
                growing.push(name);
            }
        }
    }
    if growing.is_empty() { Ok(Volumes::Fit) } else { Ok(Volumes::Growing(growing.join(", "))) }
}

/// Why a claim's class does not let it grow, where that can be told beforehand.
async fn refused(client: &Client, claim: &PersistentVolumeClaim) -> Result<Option<String>, kube::Error> {
    let Some(class) = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()) else { return Ok(None) };
    let api: Api<StorageClass> = Api::all(client.clone());
    match api.get_opt(&class).await {
        Ok(Some(found)) if found.allow_volume_expansion != Some(true) => {
            Ok(Some(format!("storage class {class} does not let volumes grow (allowVolumeExpansion)")))
        }
        // Who may not look asks and sees.
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error),
    }
}

fn told(claim: &PersistentVolumeClaim) -> &'static str {
    if waits_for_start(claim).is_some() { " (when its pod starts again)" } else { "" }
}

/// Since when a volume has grown, if its file system has not yet: it does when its pod starts, or soon.
pub fn waits_for_start(claim: &PersistentVolumeClaim) -> Option<Timestamp> {
    let mut conditions = claim.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let pending = conditions.find(|c| c.type_ == "FileSystemResizePending" && c.status == "True")?;
    Some(pending.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |since| since.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_asked_for_once() {
        let claim = |asked: &str, has: Option<&str>| -> PersistentVolumeClaim {
            let status = has.map(|has| json!({ "capacity": { "storage": has } }));
            let spec = json!({ "resources": { "requests": { "storage": asked } } });
            serde_json::from_value(json!({ "metadata": { "name": "c" }, "spec": spec, "status": status })).unwrap()
        };
        for (asked, has, expected) in [
            ("1Gi", Some("1Gi"), Need::Ask),
            ("2Gi", Some("1Gi"), Need::Wait),
            ("2Gi", Some("2Gi"), Need::Nothing),
            ("2048Mi", Some("2147483648"), Need::Nothing),
            ("2Gi", None, Need::Nothing),
            ("3Gi", Some("5Gi"), Need::Nothing),
        ] {
            assert_eq!(need(&claim(asked, has), "2Gi"), expected, "{asked} {has:?}");
        }
    }
}
