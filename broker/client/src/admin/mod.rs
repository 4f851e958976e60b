//! Admin calls, as methods of [`Client`](crate::Client): topics, configs, groups, offsets, reassignments, the cluster.
//!
//! Each call routes to the broker that must answer it, repeats on passing errors, and turns error
//! codes inside answers into [`ClientError`](crate::ClientError)s. Needs brokers of Kafka 3.0 or newer.

pub mod cluster;
pub mod configs;
pub mod groups;
pub mod offsets;
pub mod placement;
pub mod reassignments;
pub mod throttle;
pub mod topics;
