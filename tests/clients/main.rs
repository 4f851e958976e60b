//! Real clients against the real broker: one file per client family, tests named by what a user would see.
//!
//! All tests share one broker (see `Broker::shared`) and keep apart by topic and group names, so they run side by
//! side; tests that kill or restart a broker start their own.

mod confluent;
mod java_configs;
mod java_console;
mod java_files;
mod java_groups;
mod java_offsets;
mod java_perf;
mod java_topics;
mod kafka_go;
mod kafka_python;
mod kafkajs;
mod kcat;
mod membership;
mod restart;
mod tools;
