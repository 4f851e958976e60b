//! Decides which partitions of a cluster should move where: facts in, an ordered plan out.
//!
//! Pure: no clock, no randomness, no I/O, and the same facts give the same plan in whatever order they are named. The
//! command line carries plans out, and whoever else administers a cluster can. Goals, the first before the others:
//! brokers that are to be drained hold nothing; each partition has as many replicas as it should; no two of them are
//! in one rack when there are racks enough; brokers hold equally many replicas, are the preferred leader of equally
//! many partitions, and hold about as many bytes; and as little as possible is copied to get there. What meets all
//! of them is left alone.

mod bytes;
mod facts;
mod json;
mod leaders;
mod place;
mod plan;
mod spread;
mod state;

pub use facts::{Broker, Error, Facts, Partition, Wish};
pub use json::{Assignment, FileError, read, write};
pub use plan::{Election, Left, Move, Plan, Reason, plan};

#[cfg(test)]
mod examples_test;
#[cfg(test)]
mod properties_test;
