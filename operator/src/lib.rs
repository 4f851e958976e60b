//! Runs Klamm on Kubernetes: the operator and its resource types.
//!
//! `crd` holds the types that users apply, `controllers` bring clusters, topics and groups in line with them, one
//! object at a time and from scratch each time: what an object needs follows from what is there now, never from which
//! event led there. `run` starts everything in order.

mod api;
mod apply;
mod brokers;
pub mod ca;
pub mod clusters;
pub mod consumers;
pub mod controllers;
pub mod crd;
mod events;
pub mod finalizers;
pub mod groups;
mod http;
mod ids;
mod lease;
pub mod metrics;
#[cfg(test)]
mod metrics_page_test;
pub mod plan;
pub mod quantity;
pub mod render;
pub mod roll;
mod rounds;
pub mod run;
pub mod scale;
pub mod settings;
pub mod status;
pub mod topics;
pub mod words;

/// The name under which fields are owned in objects that the operator applies. Never changed: fields owned by another
/// name would stay behind.
pub const FIELD_MANAGER: &str = "klamm-operator";
