//! What disturbs nodes or looks after everything: no other test runs meanwhile, see `with_nodes_alone`. All in one place, since
//! tests run in the order of their names: the others would have to come to their end before each of these otherwise.

pub mod autoscale;
mod cutoff;
pub mod disks;
mod filling;
mod load;
mod malformed;
mod mishaps;
mod releases;
pub mod scaling;
mod vanished;
