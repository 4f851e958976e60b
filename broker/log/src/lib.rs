//! One partition's log in Kafka's on-disk format: segments, sparse indexes, leader epochs, producer state, recovery.
//!
//! Synchronous, without network, threads, clock or randomness of its own: time and seeds are arguments. Everything that
//! touches storage goes through [`disk::Disk`]. What is acknowledged is never dropped silently; what can be made again
//! (indexes, snapshots, checkpoints) is never trusted blindly.

pub mod aborted;
pub mod append;
mod aside;
pub mod checkpoint;
mod compact;
pub mod config;
pub mod dirs;
pub mod disk;
pub mod epochs;
mod error;
pub mod faulty;
mod flush;
mod index;
pub mod inspect;
mod listing;
mod log;
mod lookup;
pub mod metadata;
pub mod producers;
mod read;
mod recover;
mod retain;
mod scan;
mod segment;
mod snapshot;
mod trust;
mod verify;
mod walk;

pub use aborted::AbortedTxn;
pub use append::Appended;
pub use aside::Kept;
pub use compact::{Compacted, Compaction, CompactionLimits};
pub use config::LogConfig;
pub use dirs::LogDir;
pub use disk::{Disk, DiskFile, RealDisk};
pub use epochs::{EpochEntry, Epochs};
pub use error::{Damage, LogError};
pub use flush::FlushHandle;
pub use log::{Log, RecoveryReport};
pub use lookup::FoundRecord;
pub use read::ReadResult;
pub use recover::Recovery;
pub use trust::{Checked, Unchecked};
pub use verify::{BatchAt, SegmentReport, verify, verify_range, verify_segment};
