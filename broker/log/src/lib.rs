//! One partition's log in Kafka's on-disk format. No network, no tokio.

mod config;

pub use config::LogConfig;
