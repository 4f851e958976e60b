//! Partitions on this broker: the log, its offsets, who waits for them, and when it is flushed.

pub mod flush;
pub mod intake;
pub mod partition;
pub mod replicas;
pub mod session;
pub mod spread;
pub mod storage;
pub mod waiting;
