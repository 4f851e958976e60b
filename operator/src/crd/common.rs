//! What several resource types share: conditions, references to a cluster, configuration values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What addresses of brokers have to be: a host, a name or an IPv6 address in brackets, and a port that there is.
pub const ADDRESSES_RULE: &str = r"self.matches('^(([a-zA-Z0-9._-]+|[\\[][0-9a-fA-F:.%a-zA-Z]+[\\]]):0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])(,|$))+$')";
/// Says so.
pub const ADDRESSES_MESSAGE: &str = "each address is host:port, with a port from 1 to 65535";

/// The cluster that a resource belongs to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Name of the Cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the Cluster; by default that of this resource. The Cluster's `allowedNamespaces` has to admit
    /// resources of other namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// One value of a configuration: a string, number or boolean, as YAML has it.
///
/// Lists and objects get past the API server (the schema cannot say "any scalar", and CEL rules do not see maps of
/// untyped values) and are refused with the condition `Ready=False`, reason `InvalidConfig`; they must not keep the
/// operator from reading the object.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ConfigValue(pub Value);

impl ConfigValue {
    /// The value as Kafka takes it; `None` for null, lists and objects.
    pub fn text(&self) -> Option<String> {
        match &self.0 {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

impl<T: Into<Value>> From<T> for ConfigValue {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

impl JsonSchema for ConfigValue {
    fn schema_name() -> Cow<'static, str> {
        "ConfigValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Configuration by Kafka's key names.
pub type Config = BTreeMap<String, ConfigValue>;

/// Conditions as they stand in every status: one of each type, each with the generation it speaks of.
pub type Conditions = Vec<Condition>;

/// Which namespaces may hold resources that refer to a Cluster.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum NamespacesFrom {
    /// That of the Cluster.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those whose labels match `selector`.
    Selector,
}

/// What becomes of topics and groups when their resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// It is deleted with the resource.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

/// A number of bytes or a share, as Kubernetes writes quantities: `100Gi`, `512Mi`, `10G`.
pub fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$", "maxLength": 32 })
}

/// Processor and memory as pods ask for them. Of a quantity Kubernetes' own schema says only that it is a number or a string: what
/// is none would be refused when the StatefulSet is applied, long after whoever wrote it has gone.
pub fn resources(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ResourceRequirements::json_schema(generator);
    let quantity = json!({
        "description": "A quantity: `500m`, `2`, `512Mi`, `1.5G`.",
        "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
        "x-kubernetes-int-or-string": true,
    });
    for kind in ["limits", "requests"] {
        if let Some(map) = schema.pointer_mut(&format!("/properties/{kind}")) {
            map["additionalProperties"] = quantity.clone();
        }
    }
    schema.insert("nullable".into(), true.into());
    schema
}

/// A time span: whole numbers with units, `90s`, `5m`, `12h`, `7d`, also joined (`1d12h`).
pub fn span(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$", "maxLength": 32 })
}
