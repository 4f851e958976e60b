//! The resource types, `klamm.dev/v1alpha1`: what users write (`spec`) and what they read (`status`).
//!
//! Their doc comments are what `kubectl explain` shows and what docs/crds.md is made from. Rules that the API server
//! can check are CEL rules beside the fields; what depends on other objects ends as a condition.

// Each printer column has a type of its own; the lint takes them for one attribute said twice.
#![allow(clippy::duplicated_attributes)]

pub mod cluster;
pub mod common;
pub mod consumer_group;
mod print;
pub mod topic;

#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod consumer_group_test;
#[cfg(test)]
pub(crate) mod docs_test;
#[cfg(test)]
mod flux_test;
#[cfg(test)]
mod topic_test;

pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use common::{ClusterRef, ConfigValue};
pub use consumer_group::{ConsumerGroup, ConsumerGroupSpec, ConsumerGroupStatus};
pub use print::{definitions, manifest};
pub use topic::{Topic, TopicSpec, TopicStatus};

/// The group of all resource types.
pub const GROUP: &str = "klamm.dev";
/// The version in which they are served and stored.
pub const VERSION: &str = "v1alpha1";

/// Whether a finalizer, or the key of an annotation, is of this group.
pub fn is_ours(name: &str) -> bool {
    name.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/'))
}
