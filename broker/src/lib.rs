//! A Kafka broker as one static binary.

pub mod config;
