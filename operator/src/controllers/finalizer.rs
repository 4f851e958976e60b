//! Finalizers of ours: there only as long as something has to be deleted elsewhere before the object may go.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;

/// Set to "true" it lets an object go at once, whatever becomes of what it stands for.
pub const FORCE: &str = "klamm.dev/force-finalize";

/// Whether an object is to go at once.
pub fn is_forced(object: &impl ResourceExt) -> bool {
    object.annotations().get(FORCE).is_some_and(|value| value == "true")
}

/// Whether an object has it.
pub fn has(object: &impl ResourceExt, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

/// Sets it, or takes it away.
///
/// # Errors
/// The API server's. An object that is gone is none.
pub async fn keep<K>(client: &Client, object: &K, finalizer: &str, wanted: bool) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if has(object, finalizer) == wanted {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut all: Vec<&str> = object.finalizers().iter().map(String::as_str).filter(|name| *name != finalizer).collect();
    if wanted {
        all.push(finalizer);
    }
    // Of this very version: a finalizer that somebody else has added meanwhile must not be lost.
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": object.resource_version() } });
    match api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
