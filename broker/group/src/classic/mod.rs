//! Classic groups: members, generations, and the rebalance that joins them.
//!
//! [`Group`] is the state of one group; each file adds what one request or timer does to it. Nothing here knows other
//! groups, offsets or the log: what should be written goes into the step.

mod group;
mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod record;
mod subscription;
mod sync;
mod timers;

pub(crate) use group::Group;
pub use group::State;
pub(crate) use join::Join;
pub use member::Client;
pub(crate) use member::Member;

/// The protocol type of consumers, whose subscriptions the coordinator understands.
pub(crate) const CONSUMER: &str = "consumer";
