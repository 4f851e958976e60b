//! A small Kafka client on tokio: between brokers, for the command line, the operator and tests.
//!
//! From the bottom up: [`Connection`] is one TCP connection with negotiated versions and pipelining;
//! [`Client`] knows the cluster, keeps connections and retries; [`admin`] adds admin calls to it;
//! [`Producer`], [`Consumer`] and [`group::GroupConsumer`] move records. Nothing here panics on what
//! a broker sends, and every wait has a bound.

pub mod admin;
mod client;
mod cluster;
mod connection;
mod consumer;
mod error;
pub mod group;
mod partitioner;
mod producer;
mod standing;
mod tls;

use std::fmt;

pub use client::{Client, ClientOptions};
pub use cluster::{Broker, Cluster, Partition, Topic};
pub use connection::{Connection, ConnectionOptions, Pending, Versions};
pub use consumer::{ConsumedRecord, Consumer, ConsumerOptions, OutOfRange};
pub use error::{ClientError, Result};
pub use partitioner::partition_of_key;
pub use producer::{Acks, Delivered, Delivery, Producer, ProducerOptions, ProducerRecord};
pub use tls::Tls;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
}

impl TopicPartition {
    /// `topic`'s partition number `partition`.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Whether records of open and aborted transactions are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everything up to the high watermark.
    #[default]
    ReadUncommitted = 0,
    /// Committed records only, up to the last stable offset.
    ReadCommitted = 1,
}
