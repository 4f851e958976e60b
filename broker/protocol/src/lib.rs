//! Kafka's wire protocol: messages, record batches, compression, error codes. No I/O.

pub mod batch;
pub mod error;
