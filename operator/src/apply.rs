//! Server-side apply of objects that a resource owns, and of nothing else, and only when it makes a difference.
//!
//! What was rendered is compared with what is there. A hash beside the object tells what was applied last, which finds
//! fields that are rendered no longer; the comparison finds what others have changed. A converged object costs a read.
//! An object of the same name that belongs to somebody else is never touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::FIELD_MANAGER;
use crate::render::hash;

/// The annotation with the hash of what was applied.
const APPLIED: &str = "klamm.dev/applied";

/// Why an object is not as rendered.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server cannot be reached, or is busy: later it may go.
    #[error(transparent)]
    Kube(kube::Error),
    /// The API server finds fault with the object: trying again does not help.
    #[error("{what} is refused: {message}")]
    Refused {
        /// Kind and name.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// There is one already, and it is not ours.
    #[error("{what} is there already and does not belong to this resource: delete or rename it")]
    Taken {
        /// Kind and name.
        what: String,
    },
    /// Somebody has written to it since it was looked at: the next look tells.
    #[error("{what} has changed meanwhile")]
    Changed {
        /// Kind and name.
        what: String,
    },
    /// A mistake in the rendering.
    #[error("{0}")]
    Malformed(String),
}

/// Whose objects these are.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Put into each object.
    pub reference: OwnerReference,
    /// Where they are.
    pub namespace: String,
}

/// Makes an object what was rendered; answers how it is then, and whether that took a write.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(client: &Client, owner: &Owner, wanted: Value) -> Result<(Value, bool), ApplyError> {
    apply_over(client, owner, wanted, None).await
}

/// The same, if the object still is what it was `seen` to be: what was rendered is what was decided by that. What its own
/// controller says of it does not count.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply_over(
    client: &Client,
    owner: &Owner,
    mut wanted: Value,
    seen: Option<&ObjectMeta>,
) -> Result<(Value, bool), ApplyError> {
    let (api, name, what) = api_of(client, owner, &wanted)?;
    wanted["metadata"]["ownerReferences"] =
        serde_json::to_value([&owner.reference]).map_err(|e| ApplyError::Malformed(e.to_string()))?;
    let applied = hash(&wanted);
    wanted["metadata"]["annotations"][APPLIED] = applied.into();
    if let Some(there) = api.get_opt(&name).await.map_err(ApplyError::Kube)? {
        check_owner(owner, &there, &what)?;
        let version = seen.and(there.resource_version());
        if seen.is_some_and(|seen| !is_same(seen, &there.metadata)) {
            return Err(ApplyError::Changed { what });
        }
        let there = serde_json::to_value(&there).map_err(|e| ApplyError::Malformed(e.to_string()))?;
        if covers(&there, &wanted) {
            return Ok((there, false));
        }
        if let Some(version) = version {
            wanted["metadata"]["resourceVersion"] = version.into();
        }
    } else if seen.is_some() {
        // What was decided was to be done to one that is gone.
        return Err(ApplyError::Changed { what });
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let done = api.patch(&name, &params, &Patch::Apply(&wanted)).await.map_err(|error| refusal(error, &what))?;
    tracing::info!(namespace = owner.namespace, object = what, "applied");
    Ok((serde_json::to_value(&done).map_err(|e| ApplyError::Malformed(e.to_string()))?, true))
}

/// Deletes an object that is not rendered any longer, if it is still the one that was looked at.
///
/// # Errors
/// See [`ApplyError`].
pub async fn delete(client: &Client, owner: &Owner, object: &Value) -> Result<(), ApplyError> {
    let (api, name, what) = api_of(client, owner, object)?;
    let uid = object["metadata"]["uid"].as_str().map(String::from);
    let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match api.delete(&name, &params).await {
        Ok(_) => {
            tracing::info!(namespace = owner.namespace, object = what, "deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(ApplyError::Kube(error)),
    }
}

fn api_of(client: &Client, owner: &Owner, object: &Value) -> Result<(Api<DynamicObject>, String, String), ApplyError> {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let (version, kind, name) = (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    if kind.is_empty() || name.is_empty() {
        return Err(ApplyError::Malformed("an object without kind or name".into()));
    }
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let what = format!("{kind} {name}");
    Ok((Api::namespaced_with(client.clone(), &owner.namespace, &resource), name, what))
}

/// Whether two looks found one object with one description.
fn is_same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    one.uid == other.uid && one.generation == other.generation && one.annotations == other.annotations
}

/// Which object controls one, by its uid.
pub fn controller(object: &impl ResourceExt) -> Option<&str> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Refuses what belongs to somebody else. What we made and nobody owns any longer (its resource was deleted with
/// `--cascade=orphan`) is taken back.
pub fn check_owner(owner: &Owner, there: &impl ResourceExt, what: &str) -> Result<(), ApplyError> {
    let ours = match controller(there) {
        Some(uid) => uid == owner.reference.uid,
        None => {
            let label = |key: &str| there.labels().get(key).map(String::as_str);
            label("app.kubernetes.io/managed-by") == Some(FIELD_MANAGER)
                && label("app.kubernetes.io/instance") == Some(&owner.reference.name)
        }
    };
    if ours { Ok(()) } else { Err(ApplyError::Taken { what: what.to_owned() }) }
}

fn refusal(error: kube::Error, what: &str) -> ApplyError {
    match error {
        kube::Error::Api(status)
            if matches!(status.code, 400 | 422) || status.is_forbidden() || is_mistyped(&status) =>
        {
            ApplyError::Refused { what: what.to_owned(), message: status.message.clone() }
        }
        error => ApplyError::Kube(error),
    }
}

/// Whether a field has no place or another type in the schema: the API server answers 500 to an apply that has one.
pub(crate) fn is_mistyped(status: &kube::core::Status) -> bool {
    status.code == 500 && status.message.contains("failed to create typed patch object")
}

/// Whether everything that is wanted is there. What is there besides (defaults, others' fields) is not looked at, but for
/// lists without names, which have to be equal in length.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match there.get(key) {
            Some(there) => covers(there, wanted),
            // The API server leaves empty things out.
            None => is_empty(wanted),
        }),
        (Value::Array(there), Value::Array(wanted)) => {
            let name = |value: &Value| value.get("name").and_then(Value::as_str).map(String::from);
            if !wanted.is_empty() && wanted.iter().all(|one| name(one).is_some()) {
                return wanted.iter().all(|wanted| {
                    // Mounts of one volume share a name: any of them will do.
                    there.iter().any(|there| name(there) == name(wanted) && covers(there, wanted))
                });
            }
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        (there, wanted) => there == wanted || same_quantity(there, wanted),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(_) | Value::String(_) => false,
    }
}

/// `0.5` and `500m` are one quantity; the API server writes it in its own way.
fn same_quantity(there: &Value, wanted: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match (text(there), text(wanted)) {
        (Some(there), Some(wanted)) => {
            let there = crate::quantity::milli(&there);
            there.is_some() && there == crate::quantity::milli(&wanted)
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
