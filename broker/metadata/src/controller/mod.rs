//! What the controller decides: a request and the image in, records and a response out. Nothing changes here;
//! the records do when they have been committed and applied.
//!
//! Codes and texts of refusals are Kafka's where clients see them, one answer per topic or resource in the
//! request's order.

pub mod alter_configs;
pub mod alter_partition;
pub mod assign_dirs;
pub mod broker_state;
pub mod brokers;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod elect_leaders;
pub mod heartbeats;
pub mod internal_topics;
pub mod maintenance;
#[doc(hidden)]
pub mod mistakes;
pub mod partition_change;
pub mod policy;
pub mod producer_ids;
pub mod reassignments;
mod replicas;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;

use crate::record::MetadataRecord;
use crate::rules::ConfigRules;

pub use alter_configs::{alter_configs, incremental_alter_configs};
pub use alter_partition::alter_partition;
pub use assign_dirs::assign_replicas_to_dirs;
pub use broker_state::{
    Progress, begin_shutdown, directories_failed, elect_leaderless, fence, unfence, unregister_broker,
};
pub use brokers::{Registration, register_broker};
pub use create_partitions::create_partitions;
pub use create_topics::{create_topics, named_topics};
pub use delete_topics::delete_topics;
pub use elect_leaders::{balance_leaders, elect_leaders};
pub use heartbeats::Heartbeats;
pub use internal_topics::{InternalTopics, internal_topic};
pub use policy::Policy;
pub use producer_ids::{PRODUCER_ID_BLOCK, allocate_producer_ids};
pub use reassignments::{alter_partition_reassignments, list_partition_reassignments};

/// No request may make more records than this: they travel, and are applied, together.
pub const RECORDS_MAX: usize = 10_000;

/// A refusal: Kafka's code, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", code.name(), message.as_deref().unwrap_or_default())]
pub struct ApiError {
    /// The code.
    pub code: ErrorCode,
    /// The text.
    pub message: Option<String>,
}

impl ApiError {
    /// A refusal with a text of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

/// What somebody may be allowed to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create it.
    Create,
    /// Delete it.
    Delete,
    /// Change it.
    Alter,
    /// See that it exists.
    Describe,
    /// See its configuration.
    DescribeConfigs,
}

/// What decisions need besides the image and the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Varies placement from request to request.
    pub seed: u64,
    /// Gives new random ids.
    pub new_id: &'a dyn Fn() -> Uuid,
    /// Rules about configuration keys.
    pub rules: &'a dyn ConfigRules,
    /// Whether the requester may do this to the topic of this name.
    pub may: &'a dyn Fn(Operation, &str) -> bool,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub replication_factor: i16,
    /// The static configuration's part in who may lead.
    pub policy: Policy,
}

/// Records to commit and the response to give once they are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    /// To be committed together; nothing to commit when empty.
    pub records: Vec<MetadataRecord>,
    /// The response.
    pub response: R,
}

impl<R> Decision<R> {
    /// Nothing to commit, only something to say.
    pub fn only(response: R) -> Self {
        Self { records: Vec::new(), response }
    }

    /// A refusal as a decision: nothing to commit, and the refusal for an answer.
    pub fn or_refusal<E>(decided: Result<Self, E>) -> Decision<Result<R, E>> {
        match decided {
            Ok(Self { records, response }) => Decision { records, response: Ok(response) },
            Err(refused) => Decision::only(Err(refused)),
        }
    }
}

/// The refusal of a request that would make too many records.
fn too_large() -> ApiError {
    ApiError::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.")
}

/// Code and text as response fields.
fn fields(outcome: &Result<(), ApiError>) -> (i16, Option<String>) {
    match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), error.message.clone()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;

#[cfg(test)]
#[path = "model_test.rs"]
mod model;
