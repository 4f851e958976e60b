//! Kafka's wire protocol: messages, record batches, compression, error codes. No I/O.
//!
//! The messages are generated from `schema/` by `build.rs` ([`messages`]); [`wire`] reads and writes their fields
//! within bounds, [`header`] and [`frame`] put them on a connection.

pub mod api_key;
pub mod arrivals;
pub mod batch;
pub mod compress;
pub mod error;
pub mod frame;
pub mod header;
pub mod message;
pub mod messages;
pub mod records;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod types;
pub mod wire;

pub use api_key::ApiKey;
pub use error::ErrorCode;
pub use header::RequestHeader;
pub use message::{Message, Record, Request};
pub use types::{FileRange, Records, Uuid};
