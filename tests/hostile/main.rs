//! Bad input: what no honest client sends. The broker answers with Kafka's error code or closes the connection, says
//! so in one log line, keeps its memory and goes on serving.
//!
//! The tests run one at a time (`fixture::Target` holds a lock), because each measures the broker's memory.

mod batch;
mod batches;
mod fixture;
mod frames;
mod memory;
mod names;
mod pipelines;
mod requests;
mod settings;
