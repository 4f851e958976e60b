//! Listeners that are described no longer, or otherwise, while brokers still run that have them: clients that come by one
//! are not cut off before the brokers are.
//!
//! Pods say by their ports which listeners they have, and by an annotation whether they run as described. What such a
//! listener needs stays as it is there: its Services, its port at the Service where clients inside begin, and the rule of the
//! NetworkPolicy for its port.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::observed::Observed;
use crate::crd::cluster::{ADMIN_PORT, INTERNAL_PORT, ListenerType};
use crate::render::names::{CONTAINER, DESCRIPTION_HASH, LISTENER};
use crate::render::{Checked, service};

/// Those of the pods that do not run as described.
fn old<'a>(checked: &Checked, observed: &'a Observed) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let now = checked.description_hash();
    observed.pods.values().filter(move |pod| pod.annotations().get(DESCRIPTION_HASH) != Some(&now))
}

/// Whether a Service that is rendered no longer is one of a listener that brokers may still have.
pub fn needs(checked: &Checked, observed: &Observed, service: &Service) -> bool {
    if service.name_any() == checked.names.bootstrap() {
        return !ports(checked, observed).is_empty();
    }
    let Some(name) = service.labels().get(LISTENER) else { return false };
    let mut outside = checked.spec.listeners.iter().filter(|listener| listener.kind != ListenerType::Internal);
    // Of one that is still outside it is that of a broker that has gone.
    !outside.any(|listener| listener.name == *name) && old(checked, observed).next().is_some()
}

/// The ports that brokers listen at and that are described no longer.
fn ports(checked: &Checked, observed: &Observed) -> BTreeSet<i32> {
    let specs = old(checked, observed).filter_map(|pod| pod.spec.as_ref());
    let containers = specs.flat_map(|spec| &spec.containers).filter(|container| container.name == CONTAINER);
    let all = containers.flat_map(|container| container.ports.iter().flatten()).map(|port| port.container_port);
    let described: BTreeSet<i32> =
        checked.spec.listeners.iter().map(|l| l.port).chain([INTERNAL_PORT, ADMIN_PORT]).collect();
    all.filter(|port| !described.contains(port)).collect()
}

/// Leaves these ports in the Service where clients inside begin, if this is it. Their names may be those of others by now.
pub fn keep_ports(checked: &Checked, observed: &Observed, service: &mut Value) {
    let name = checked.names.bootstrap();
    if service["metadata"]["name"] != name {
        return;
    }
    let ports = ports(checked, observed);
    let there = observed.services.iter().find(|there| there.name_any() == name).and_then(|there| there.spec.as_ref());
    let there = there.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port);
    let kept = there.filter(|port| ports.contains(port)).map(|port| service::port(&format!("old-{port}"), port));
    if let Some(all) = service["spec"]["ports"].as_array_mut() {
        all.extend(kept);
    }
}

/// Leaves the rules for these ports in a NetworkPolicy, as they are there.
///
/// # Errors
/// The API server's.
pub async fn keep_rules(
    client: &Client,
    checked: &Checked,
    observed: &Observed,
    policy: &mut Value,
) -> Result<(), kube::Error> {
    let ports = ports(checked, observed);
    if ports.is_empty() {
        return Ok(());
    }
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &checked.names.namespace);
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    let there = api.get_opt(name).await?.and_then(|there| there.spec?.ingress).unwrap_or_default();
    let wanted = there.into_iter().filter(|rule| {
        let mut all = rule.ports.iter().flatten().filter_map(|port| match &port.port {
            Some(IntOrString::Int(port)) => Some(*port),
            _ => None,
        });
        all.any(|port| ports.contains(&port))
    });
    let wanted = wanted.filter_map(|rule| serde_json::to_value(rule).ok());
    if let Some(rules) = policy["spec"]["ingress"].as_array_mut() {
        rules.extend(wanted);
    }
    Ok(())
}
