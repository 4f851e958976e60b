//! The metadata log: records are proposed, replicated by Raft, and applied in one order on every voter.
//!
//! This is the only crate that knows which Raft library is used (see docs/decisions/001-openraft.md).
//! Callers see [`Quorum`] and implement [`StateMachine`]; what lies on disk is a [`journal`] of framed
//! entries and the votes, plus [snapshots](snapshots) of the machine's state.
//!
//! Invariant: a vote or an entry is on stable storage before anyone is told about it. Storage that fails
//! once is never written again; the quorum stops with the reason, and the process has to follow.

#[cfg(test)]
mod cluster_test;
mod codec;
mod config;
mod contacts;
mod core;
mod disk;
mod election;
mod error;
mod follow;
mod frame;
mod join;
mod journal;
mod lock;
mod log_store;
mod machine;
mod membership;
mod message;
mod metrics;
mod network;
mod node;
mod propose;
mod quorum;
mod receive;
mod snapshots;
mod transport;
mod types;
mod vote_copy;

pub use config::{Bootstrap, QuorumConfig};
pub use core::Leadership;
pub use error::QuorumError;
pub use machine::{Freeze, MachineError, StateMachine};
pub use membership::wanted_voters;
pub use metrics::{QuorumMetrics, Replica, Role};
pub use propose::MESSAGE_BYTES_MAX;
pub use quorum::Quorum;
pub use transport::{BoxFuture, NoTransport, Peer, Transport, TransportError};
pub use types::Voter;
