//! The simulator: several brokers' replication, controller and coordinators in one thread, over a disk, a network and
//! clocks that are made up, all of it drawn from one seed. See docs/faults.md.
//!
//! `KLAMM_SIM_SEED=7 cargo test -p klamm-tests --test sim replay -- --nocapture` shows one seed step by step;
//! `KLAMM_SIM_BUG` plants a bug in it.

mod check;
mod clients;
mod coordinator;
mod disk;
mod faults;
mod lifecycle;
mod members;
mod message;
mod metalog;
mod node;
mod plan;
mod random;
mod repair;
mod replication;
mod requests;
mod run;
mod waiting;
mod world;
