//! Quorums of several nodes under every fault the network and the disks can make, each on real files.
//!
//! Time is simulated unless a test measures: it jumps when all nodes wait, so minutes of elections take seconds.

mod changes;
mod chaos;
mod cluster;
mod damage;
mod elections;
mod net;
mod observers;
mod strangers;
