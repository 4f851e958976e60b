//! Tells brokers their racks: the label of the node becomes a label of the pod, which the pod's environment takes it from.
//!
//! From Kubernetes 1.35 on pods get the zone and the region of their node by themselves. Else the operator has to be
//! allowed to read nodes. A broker that finds no rack refuses to start and is started again, so none runs without.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::observed::Observed;
use crate::FIELD_MANAGER;

/// Puts racks on pods that have none; answers what is in the way.
///
/// # Errors
/// The API server's.
pub async fn tell(client: &Client, observed: &Observed, key: &str) -> Result<Option<String>, kube::Error> {
    let mut nodes: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut why = None;
    for pod in observed.pods.values() {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let Some(node) = node.filter(|_| !pod.labels().contains_key(key)) else { continue };
        if !nodes.contains_key(&node) {
            let found = match Api::<Node>::all(client.clone()).get_opt(&node).await {
                Ok(found) => found.and_then(|node| node.labels().get(key).cloned()),
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    return Ok(Some(format!(
                        "racks are unknown: the operator may not read nodes ({})",
                        status.message
                    )));
                }
                Err(error) => return Err(error),
            };
            nodes.insert(node.clone(), found);
        }
        let Some(rack) = nodes.get(&node).cloned().flatten().filter(|rack| !rack.is_empty()) else {
            why = Some(format!("node {node} has no label {key}, by which racks are told apart"));
            continue;
        };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let patch = json!({ "metadata": { "uid": pod.uid(), "labels": { key: rack } } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch(&pod.name_any(), &params, &Patch::Merge(&patch)).await {
            Ok(_) => tracing::info!(pod = pod.name_any(), rack, "a broker is told its rack"),
            // It is another pod by now: the next look finds that one.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(why)
}
