//! The resource types as Kubernetes takes them: what `klamm-operator crds` prints.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{Cluster, ConsumerGroup, Topic};

/// Each definition, with the name of its file in `crds/`.
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("clusters.yaml", Cluster::crd()),
        ("consumergroups.yaml", ConsumerGroup::crd()),
        ("topics.yaml", Topic::crd()),
    ]
}

/// One definition as YAML.
///
/// # Errors
/// Never in practice: the definitions are made of plain values.
pub fn manifest(definition: &CustomResourceDefinition) -> anyhow::Result<String> {
    // By way of JSON, whose code is there anyhow.
    Ok(serde_yaml::to_string(&serde_json::to_value(definition)?)?)
}
