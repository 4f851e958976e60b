//! Every version that ApiVersions announces, asked for real: what an old client needs is answered as a new one's is.
//!
//! Each key gets a request that succeeds and one that fails, in each version; the answer must be readable to its last
//! byte in that version and hold the error code that Kafka gives.

mod admin;
mod ask;
mod data;
mod groups;
