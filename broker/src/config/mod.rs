//! Configuration: Kafka's own keys in Kafka's own file format. [`keys`] holds the one table that knows every key;
//! [`Settings`] what was configured and where; [`BrokerConfig`] and [`TopicConfig`] the same, typed, for the rest of
//! the broker; [`Layers`] what is in force while dynamic changes come and go.
//!
//! Invariant: no other module reads a configuration by name.

mod broker;
mod check;
pub mod describe;
pub mod key;
pub mod keys;
mod layers;
pub mod listener;
pub mod properties;
mod rules;
mod settings;
pub mod tls;
mod topic;

#[cfg(test)]
mod broker_test;
#[cfg(test)]
mod describe_test;
#[cfg(test)]
mod docs_test;
#[cfg(test)]
mod rules_test;

pub use broker::{BrokerConfig, GroupSettings, InternalReplicas, Loaded, ReplicationSettings};
pub use layers::{Layers, Source, synonyms};
pub use listener::{HostPort, Listener, SecurityProtocol, Voter};
pub use settings::{ConfigError, ConfigErrors, Entries, Origin, Setting, Settings, environment};
pub use tls::TlsSettings;
pub use topic::{TopicCompression, TopicConfig};
