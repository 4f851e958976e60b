//! A member of a classic consumer group: joins, lets the leader assign ranges, heartbeats, commits.
//!
//! [`GroupConsumer`] wraps the plain [`Consumer`](crate::Consumer) and keeps its assignment in step
//! with the group. Eager rebalancing: before joining again a member commits and gives everything up,
//! so that no partition is ever read by two members of one generation.

pub mod assignment;
mod consumer;
mod member;

pub use consumer::{GroupConsumer, GroupOptions};

/// What makes a request one of a certain member of a certain generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The group's generation.
    pub generation: i32,
    /// The id the coordinator gave.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}
