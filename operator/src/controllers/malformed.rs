//! An object that cannot be read: it is of a newer version, say, or was stored while another schema held.
//!
//! It stops nobody else, and nothing is done for it: its brokers, topic or group stay as they are. What is wrong, and in
//! which field, is in the log, in its conditions and in an Event. What it stands for stays its own: another resource that
//! names the same, and is younger, does not get it because of a slip.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{ApiResource, DeserializeGuard, DynamicObject};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource as _, ResourceExt};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::known::{Known, full_name};
use super::owner::OfCluster;
use super::{Context, Error, Reconcile, Watched, finalizer};
use crate::crd::is_ours;
use crate::events;
use crate::status::Conditions;
use crate::words::cut;

/// How often it is looked at again: a status that is put right by hand is no change that a watch tells of, and an alert
/// lasts as long as the trouble does.
const AGAIN: Duration = Duration::from_secs(300);
/// What is said of one, in bytes: it may quote what was found.
pub const WHY: usize = 1000;

/// Says what is wrong with an object, once; and lets one go that is being deleted, if that is asked for.
///
/// # Errors
/// The API server's.
pub async fn look<K: Reconcile>(
    object: &DeserializeGuard<K>,
    malformed: &InvalidObject,
    context: &Context,
) -> Result<Action, Error> {
    context.metrics.malformed(K::CONTROLLER);
    let _turn = K::known(context).reading.lock().await;
    let found = api::<K>(&context.client, &object.namespace().unwrap_or_default()).get_opt(&object.name_any()).await;
    let found = match found {
        Ok(Some(found)) => Ok(serde_json::to_value(found).map_err(|e| Error::Malformed(e.to_string()))?),
        // The watch tells of it.
        Ok(None) => return Ok(Action::await_change()),
        Err(error) => Err(error),
    };
    let field = found.as_ref().ok().and_then(|found| understood::<K>(found).err());
    let why = cut(field.unwrap_or_else(|| malformed.error.clone()), WHY);
    let name = full_name(object);
    tracing::warn!(controller = K::CONTROLLER, object = name, error = why, "an object cannot be read");
    let found = found?;
    let held: Vec<String> = object.finalizers().iter().filter(|name| is_ours(name)).cloned().collect();
    let held = if object.meta().deletion_timestamp.is_some() { held } else { Vec::new() };
    if !held.is_empty() && finalizer::is_forced(object) {
        for name in &held {
            finalizer::keep(&context.client, object, name, false).await?;
        }
        return Ok(Action::await_change());
    }
    let why = format!("this resource cannot be read, and nothing is done for it: {why}");
    let why = if held.is_empty() { why } else { finalizer::with_way_out(object, &why) };
    say(object, &found, why, context).await?;
    Ok(Action::requeue(AGAIN))
}

/// Reads an object.
///
/// # Errors
/// What is wrong with it, with the field.
pub fn understood<K: DeserializeOwned>(object: &Value) -> Result<K, String> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        if path == "." { error.to_string() } else { format!("{path}: {error}") }
    })
}

/// Writes it into the conditions, if it is not there yet. Of the status nothing else is touched.
async fn say<K: Reconcile>(
    object: &DeserializeGuard<K>,
    found: &Value,
    why: String,
    context: &Context,
) -> Result<(), Error> {
    let before = Vec::<Condition>::deserialize(&found["status"]["conditions"]).unwrap_or_default();
    let generation = found["metadata"]["generation"].as_i64();
    let mut conditions = Conditions::new(&before, generation, Timestamp::now());
    conditions.stalled("Malformed", why.clone());
    let now = conditions.finish();
    if now == before {
        return Ok(());
    }
    let patch = json!({ "status": { "observedGeneration": generation, "conditions": now } });
    let api = api::<K>(&context.client, &object.namespace().unwrap_or_default());
    match api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => {}
        // The API server takes no status of an object whose description it cannot check by the rules of its type. The Event
        // says it then, and says it again at every look.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 422) => {
            tracing::debug!(object = full_name(object), error = status.message, "its conditions cannot say it");
        }
        Err(error) => return Err(error.into()),
    }
    events::publish(context, object, EventType::Warning, "Malformed", "Read", why).await;
    Ok(())
}

fn api<K: Watched>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

/// Of an object, whether it can be read or not, only whose it is and what it stands for; nothing if that cannot be read.
pub fn read<K: OfCluster>(object: DynamicObject) -> Option<K> {
    let object = serde_json::to_value(object).ok()?;
    serde_json::from_value(essence(&object)).ok()
}

fn essence(object: &Value) -> Value {
    let some = |part: &str, fields: &[&str]| -> Value {
        let all = fields.iter().filter_map(|name| Some(((*name).to_owned(), object[part].get(*name)?.clone())));
        all.collect::<serde_json::Map<_, _>>().into()
    };
    let mut status = some("status", &["clusterId", "topicId"]);
    status.as_object_mut().into_iter().for_each(|status| status.retain(|_, value| value.is_string()));
    let fields = ["namespace", "name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"];
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": some("metadata", &fields),
        "spec": some("spec", &["clusterRef", "bootstrapServers", "topicName", "groupId"]), "status": status,
    })
}

/// What could be told of those that cannot be read, by name, each with the version that was looked at.
pub type Remains<K> = Arc<tokio::sync::Mutex<HashMap<String, (Option<String>, Option<Arc<K>>)>>>;

/// Those that cannot be read, as far as they can be. Each is asked for once.
///
/// # Errors
/// The API server's.
pub async fn unread<K: OfCluster>(known: &Known<K>, client: &Client) -> Result<Vec<Arc<K>>, Error> {
    let unread = known.unread();
    if unread.is_empty() {
        return Ok(Vec::new());
    }
    let mut remains = known.remains.lock().await;
    remains.retain(|name, (version, _)| {
        unread.iter().any(|meta| full_name(meta.as_ref()) == *name && meta.resource_version() == *version)
    });
    let mut all = Vec::new();
    for meta in unread {
        let name = full_name(meta.as_ref());
        if let Some((_, known)) = remains.get(&name) {
            all.extend(known.clone());
            continue;
        }
        let api = api::<K>(client, &meta.namespace().unwrap_or_default());
        let found = api.get_opt(&meta.name_any()).await?.and_then(read::<K>).map(Arc::new);
        all.extend(found.clone());
        remains.insert(name, (meta.resource_version(), found));
    }
    Ok(all)
}

#[cfg(test)]
#[path = "malformed_test.rs"]
mod tests;
