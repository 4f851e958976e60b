//! Cluster metadata: records to image, and controller decisions as request to records. Pure: no I/O, no clock.
//!
//! [`Image`] is the cluster at one offset of the metadata log. [`controller`] decides what a request does to it
//! and answers with records and a response; [`Image::apply`] alone changes it. Whoever calls brings time, seeds
//! and ids along, so the same input always gives the same output.

pub mod apply;
pub mod controller;
pub mod describe;
mod dump;
pub mod image;
mod index;
pub mod names;
pub mod ordered;
pub mod placement;
pub mod record;
pub mod restart_safety;
pub mod rules;
pub mod state_hash;

pub use apply::{ApplyError, Change};
pub use image::{Broker, Endpoint, Entries, Image, Partition, Resource, ResourceType, Topic};
pub use record::MetadataRecord;
pub use restart_safety::restart_safety;
pub use rules::ConfigRules;
pub use state_hash::state_hash;
