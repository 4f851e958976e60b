//! A Kafka broker as one static binary.

pub mod admin;
pub mod api;
pub mod broker;
pub mod cleaner;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod complaints;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod logging;
pub mod maintenance;
pub mod memory;
pub mod metrics;
pub mod net;
#[doc(hidden)]
pub mod planted;
pub mod random;
pub mod replica;
pub mod server;
pub mod tls;

#[cfg(test)]
mod docs;
