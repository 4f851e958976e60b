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

/// What holds an object, with what to do about it when that cannot be mended.
pub fn with_way_out<K: Resource<DynamicType = ()>>(object: &K, why: &str) -> String {
    let kind = K::kind(&()).to_lowercase();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    format!(
        "{why}. To let the resource go whatever becomes of it there: \
         kubectl annotate {kind} {name} --namespace={namespace} {FORCE}=true"
    )
}

/// Whether an object has it.
pub fn has(object: &impl ResourceExt, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

/// Sets it, or takes it away. Answers whether the object is there: what nobody describes any longer must not be made, and
/// a watch may be late to say so.
///
/// # Errors
/// The API server's. An object that is gone is none.
pub async fn keep<K>(client: &Client, object: &K, finalizer: &str, wanted: bool) -> Result<bool, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    keep_and_note(client, object, finalizer, wanted, None).await
}

/// The same, with an annotation by the same write.
///
/// # Errors
/// As [`keep`].
pub async fn keep_and_note<K>(
    client: &Client,
    object: &K,
    finalizer: &str,
    wanted: bool,
    note: Option<(&str, &str)>,
) -> Result<bool, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if has(object, finalizer) == wanted {
        return Ok(true);
    }
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut all: Vec<&str> = object.finalizers().iter().map(String::as_str).filter(|name| *name != finalizer).collect();
    if wanted {
        all.push(finalizer);
    }
    // Of this very version: a finalizer that somebody else has added meanwhile must not be lost.
    let mut patch = json!({ "metadata": { "finalizers": all, "resourceVersion": object.resource_version() } });
    if let Some((key, value)) = note {
        patch["metadata"]["annotations"][key] = value.into();
    }
    match api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::crd::Topic;

    #[tokio::test]
    async fn it_is_told_of_an_object_that_is_gone() {
        for (code, there) in [(200, Some(true)), (404, Some(false)), (409, None)] {
            let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
            tokio::spawn(async move {
                let (_, send) = handle.next_request().await.expect("a request");
                let object =
                    json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "t" } });
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": if code == 404 { "NotFound" } else { "Conflict" }, "message": "" });
                let body = if code == 200 { object } else { status };
                let body = Body::from(body.to_string().into_bytes());
                send.send_response(Response::builder().status(code).body(body).expect("an answer"));
            });
            let topic =
                json!({ "metadata": { "name": "t", "namespace": "x" }, "spec": { "bootstrapServers": "b:9092" } });
            let topic: Topic = serde_json::from_value(topic).expect("a Topic");
            assert_eq!(keep(&Client::new(service, "x"), &topic, "f", true).await.ok(), there);
            assert!(
                keep(
                    &Client::new(tower_test::mock::pair::<Request<Body>, Response<Body>>().0, "x"),
                    &topic,
                    "f",
                    false
                )
                .await
                .is_ok()
            );
        }
    }
}
