//! Reading and changing configs of topics, brokers, groups and the cluster default.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use klamm_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{ClientError, Result};

/// Topics in one request, so that neither it nor its answer grows too large.
const TOPICS_PER_REQUEST: usize = 500;

/// Whose configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// One broker.
    Broker(i32),
    /// All brokers: the dynamic cluster-wide default.
    Brokers,
    /// A consumer, share or streams group.
    Group(String),
}

impl Resource {
    fn kind(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) | Self::Brokers => 4,
            Self::Group(_) => 32,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) | Self::Group(name) => name.clone(),
            Self::Broker(id) => id.to_string(),
            Self::Brokers => String::new(),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::Brokers => write!(f, "all brokers"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// Where a value comes from, most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on this broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    BrokerDefault,
    /// The broker's configuration file, arguments or environment.
    Static,
    /// Nobody set it.
    Default,
    /// A logger's level.
    Logger,
    /// Set for a group of client metrics.
    ClientMetrics,
    /// Set on the group.
    Group,
    /// Not told, or newer than this client.
    Unknown,
}

impl ConfigSource {
    /// Whether it was set while the cluster runs, on the resource itself.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::Topic | Self::Broker | Self::Group | Self::ClientMetrics | Self::Logger)
    }

    /// A stable lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
            Self::BrokerDefault => "broker-default",
            Self::Static => "static",
            Self::Default => "default",
            Self::Logger => "logger",
            Self::ClientMetrics => "client-metrics",
            Self::Group => "group",
            Self::Unknown => "unknown",
        }
    }

    fn of(number: i8) -> Self {
        match number {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::BrokerDefault,
            4 => Self::Static,
            5 => Self::Default,
            6 => Self::Logger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            _ => Self::Unknown,
        }
    }
}

/// One config of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Key.
    pub name: String,
    /// Value in force; none when sensitive or unset.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Whether it can't be changed while the broker runs.
    pub read_only: bool,
    /// Whether the broker hides the value.
    pub sensitive: bool,
    /// The broker's explanation of the key, when it sends one.
    pub documentation: Option<String>,
}

/// A change to one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Give the key a value.
    Set(String, String),
    /// Go back to the default.
    Delete(String),
    /// Add to a list.
    Append(String, String),
    /// Take out of a list.
    Subtract(String, String),
}

impl Client {
    /// Configs of one resource: the named keys, or all (`None`).
    pub async fn describe_configs(&self, resource: &Resource, keys: Option<&[String]>) -> Result<Vec<ConfigEntry>> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name(),
                configuration_keys: keys.map(<[String]>::to_vec),
            }],
            include_synonyms: false,
            include_documentation: true,
        };
        let result = self.retry(|| async {
            let answer = self.config_broker(resource).await?.call(&request).await?;
            let result = answer.results.into_iter().next();
            result.ok_or_else(|| ClientError::missing(resource.to_string()))
        });
        // Checked outside of the retries: an unknown topic does not come into being by asking again.
        let result = result.await?;
        ClientError::check(resource.to_string(), result.error_code, result.error_message.as_deref())?;
        Ok(result.configs.into_iter().map(entry).collect())
    }

    /// All configs of several topics with one request, without explanations; an answer for each, in their order.
    ///
    /// # Errors
    /// Nobody answered: nothing is known of any of them.
    pub async fn describe_topics_configs(&self, topics: &[&str]) -> Result<Vec<Result<Vec<ConfigEntry>>>> {
        self.describe_topics(topics, None).await
    }

    /// The named keys of many topics; topics that are not there are left out.
    pub async fn describe_topics_keys(
        &self,
        topics: &BTreeSet<String>,
        keys: &[String],
    ) -> Result<BTreeMap<String, Vec<ConfigEntry>>> {
        let mut described = BTreeMap::new();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        for names in names.chunks(TOPICS_PER_REQUEST) {
            for (name, entries) in names.iter().zip(self.describe_topics(names, Some(keys)).await?) {
                match entries {
                    Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
                    entries => drop(described.insert((*name).to_owned(), entries?)),
                }
            }
        }
        Ok(described)
    }

    async fn describe_topics(&self, topics: &[&str], keys: Option<&[String]>) -> Result<Vec<Result<Vec<ConfigEntry>>>> {
        let resource = |name: &&str| Resource::Topic((*name).to_owned());
        let request = DescribeConfigsRequest {
            resources: topics
                .iter()
                .map(resource)
                .map(|topic| DescribeConfigsResource {
                    resource_type: topic.kind(),
                    resource_name: topic.name(),
                    configuration_keys: keys.map(<[String]>::to_vec),
                })
                .collect(),
            include_synonyms: false,
            include_documentation: false,
        };
        let answer = self.call_any(&request).await?;
        let mut answers: BTreeMap<_, _> =
            answer.results.into_iter().map(|result| (result.resource_name.clone(), result)).collect();
        let results = topics.iter().map(|name| {
            let what = resource(name).to_string();
            let result = answers.remove(*name).ok_or_else(|| ClientError::missing(&what))?;
            ClientError::check(what, result.error_code, result.error_message.as_deref())?;
            Ok(result.configs.into_iter().map(entry).collect())
        });
        Ok(results.collect())
    }

    /// Changes configs of one resource, all of them or none.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<()> {
        let configs = changes.iter().map(|change| {
            let (config_operation, name, value) = match change {
                ConfigChange::Set(name, value) => (0, name, Some(value)),
                ConfigChange::Delete(name) => (1, name, None),
                ConfigChange::Append(name, value) => (2, name, Some(value)),
                ConfigChange::Subtract(name, value) => (3, name, Some(value)),
            };
            AlterableConfig { name: name.clone(), config_operation, value: value.cloned() }
        });
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.kind(),
                resource_name: resource.name(),
                configs: configs.collect(),
            }],
            validate_only,
        };
        let result = self.retry(|| async {
            let connection = match resource {
                // The controller decides, whoever hands it on: also about a broker that is down.
                Resource::Broker(id) if !self.refresh(Some(&[])).await?.brokers.contains_key(id) => self.any().await,
                _ => self.config_broker(resource).await,
            };
            let answer = connection?.call(&request).await?;
            let result = answer.responses.into_iter().next();
            result.ok_or_else(|| ClientError::missing(resource.to_string()))
        });
        let result = result.await?;
        ClientError::check(resource.to_string(), result.error_code, result.error_message.as_deref())
    }

    /// Only a broker itself knows its static configuration; everything else any broker knows.
    async fn config_broker(&self, resource: &Resource) -> Result<Connection> {
        match resource {
            Resource::Broker(id) => {
                if !self.refresh(Some(&[])).await?.brokers.contains_key(id) {
                    // Not worth a second try, unlike a leader that metadata doesn't know yet.
                    return Err(ClientError::Invalid(ClientError::UnknownBroker { id: *id }.to_string()));
                }
                self.broker(*id).await
            }
            _ => self.any().await,
        }
    }
}

fn entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: config.name,
        value: config.value,
        source: ConfigSource::of(config.config_source),
        read_only: config.read_only,
        sensitive: config.is_sensitive,
        documentation: config.documentation.filter(|text| !text.is_empty()),
    }
}
