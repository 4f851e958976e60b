//! What the controller has to know about configuration keys, and not more: the table of keys is the broker's.

use crate::image::{Entries, Image, Resource, ResourceType};

/// One key of a topic's effective configuration, as CreateTopics reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// The key.
    pub name: String,
    /// Its value; None for a secret.
    pub value: Option<String>,
    /// Whether clients can't change it.
    pub read_only: bool,
    /// Where the value comes from, as numbered in DescribeConfigs.
    pub source: i8,
    /// Whether the value is a secret.
    pub sensitive: bool,
}

/// Rules about configuration keys.
pub trait ConfigRules {
    /// Checks the whole configuration that `resource` would have, so that rules across keys are seen too. The
    /// error is the text for the client, with INVALID_CONFIG for topics and groups and INVALID_REQUEST for brokers.
    fn check(&self, resource: &Resource, configs: &Entries) -> Result<(), String>;

    /// Whether the key's value is a list; None for a key that doesn't exist.
    fn is_list(&self, kind: ResourceType, name: &str) -> Option<bool>;

    /// What a list key holds when nobody has set it: the start for APPEND and SUBTRACT.
    fn default_value(&self, kind: ResourceType, name: &str) -> Option<String>;

    /// All keys of a topic with `own` set on it.
    fn effective_topic(&self, image: &Image, own: &Entries) -> Vec<EffectiveConfig>;
}
