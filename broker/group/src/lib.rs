//! The coordinator of classic consumer groups and committed offsets, as a state machine: one [`Coordinator`] for one
//! partition of `__consumer_offsets`. No clock, no randomness, no I/O: time and random ids come in as arguments.
//!
//! A request that may change durable state gives a [`Step`]. Its caller appends the step's records to the partition
//! and then calls [`Coordinator::commit`], which applies them and gives the answers, or [`Coordinator::fail`], which
//! leaves durable state as the log has it and turns the answer into an error. One step at a time: between a call and
//! its `commit` or `fail` nothing else may be asked of the coordinator (hold its lock over the append).
//!
//! "In the log" means the leader's own log, in order. Where answers have to wait for more (replicas, fsync), commit at
//! once and hold the answers back. Should the broker lose the partition meanwhile, it drops the coordinator: the next
//! one knows what the surviving log says.
//!
//! What a commit does to durable state is what [`Coordinator::replay`] of the same records would do; the tests hold the
//! two against each other. Who waits for what, sessions and timers are not durable and change at once.
//!
//! A coordinator that takes over a partition reads it through [`Coordinator::replay`] and starts with
//! [`Coordinator::loaded`].

mod classic;
mod config;
mod coordinator;
mod offsets;
mod partition;
mod records;
pub mod refuse;
mod step;
#[cfg(test)]
mod tests;
mod topics;
mod view;

pub use classic::{Client, State};
pub use config::Config;
pub use coordinator::{Coordinator, Counters};
pub use offsets::{OffsetEntry, offset_fetch_groups, offset_fetch_response};
pub use partition::partition_for;
pub use records::{OffsetRecord, Record, ReplayError, decode_record};
pub use step::{Answer, CoordinatorRecord, Step, Ticket};
pub use topics::{TopicFacts, Topics};
pub use view::{GroupView, MemberView};
