//! The metadata log: records are proposed, replicated by Raft, and applied in one order on every voter.
//!
//! This is the only crate that knows which Raft library is used (see docs/decisions/001-openraft.md).
//! Callers see [`Quorum`] and implement [`StateMachine`]; what lies on disk is a [`journal`] of framed
//! entries and the votes, plus [snapshots](snapshots) of the machine's state.
//!
//! Invariant: a vote or an entry is on stable storage before anyone is told about it. Storage that fails
//! once is never written again; the quorum stops with the reason, and the process has to follow.

mod codec;
mod error;
mod frame;
mod journal;
mod log_store;
mod machine;
mod network;
mod quorum;
mod snapshots;
mod types;

pub use error::QuorumError;
pub use machine::{Freeze, MachineError, StateMachine};
pub use quorum::{Quorum, QuorumConfig, QuorumMetrics, Role};
pub use types::Voter;
