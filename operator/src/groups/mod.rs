//! What is done about a consumer group: looking at it, how far behind it is, where its offsets go.

pub mod cluster;
pub mod facts;
pub mod lag;
pub mod metrics;
pub mod reset;
