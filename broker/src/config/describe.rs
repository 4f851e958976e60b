//! What DescribeConfigs answers: every key of a resource with its value, where the value comes from, and what would
//! hold without it. Follows Kafka 4.3.1 entry by entry, which a test checks against entries recorded from one.
//!
//! Pure: the handler gives the facts (who exists, which dynamic entries there are).

use klamm_metadata::ResourceType;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use klamm_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::broker::BrokerConfig;
use super::key::{Key, Update};
use super::keys;
use super::layers::{Source, synonyms};
use super::settings::Entries;

/// What a broker knows when it is asked.
pub struct Facts<'a> {
    /// The configuration in force.
    pub broker: &'a BrokerConfig,
    /// A topic's own entries; `None` when there is no such topic.
    pub topic: &'a dyn Fn(&str) -> Option<Entries>,
    /// A group's own entries.
    pub group: &'a dyn Fn(&str) -> Entries,
    /// Loggers with their levels.
    pub loggers: &'a dyn Fn() -> Vec<(String, String)>,
}

/// Why a resource has no answer.
struct Refused {
    code: ErrorCode,
    message: String,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }

    fn request(message: impl Into<String>) -> Refused {
        Refused::new(ErrorCode::InvalidRequest, message)
    }
}

/// Answers a whole request.
pub fn describe(request: &DescribeConfigsRequest, facts: &Facts<'_>) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let mut result = match describe_one(resource, facts) {
            Ok(configs) => DescribeConfigsResult { configs, ..DescribeConfigsResult::default() },
            Err(refused) => DescribeConfigsResult {
                error_code: refused.code.code(),
                error_message: Some(refused.message),
                ..DescribeConfigsResult::default()
            },
        };
        result.resource_type = resource.resource_type;
        result.resource_name.clone_from(&resource.resource_name);
        for config in &mut result.configs {
            if !request.include_synonyms {
                config.synonyms = Vec::new();
            }
            if !request.include_documentation {
                config.documentation = None;
            }
        }
        result
    });
    DescribeConfigsResponse { results: results.collect(), ..DescribeConfigsResponse::default() }
}

fn describe_one(
    resource: &DescribeConfigsResource,
    facts: &Facts<'_>,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let name = resource.resource_name.as_str();
    let wanted = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
    let wanted = |key: &str| wanted.is_none_or(|keys| keys.iter().any(|k| k == key));
    match ResourceType::from_number(resource.resource_type) {
        Some(ResourceType::Topic) => {
            klamm_metadata::names::check(name)
                .map_err(|reason| Refused::new(ErrorCode::InvalidTopicException, reason))?;
            let own = (facts.topic)(name).ok_or_else(|| Refused::new(ErrorCode::UnknownTopicOrPartition, ""))?;
            Ok(resource_entries(facts.broker, keys::TOPIC, &own, Source::Topic, &wanted))
        }
        Some(ResourceType::Group) if name.is_empty() => Err(Refused::request("Group name must not be empty")),
        Some(ResourceType::Group) => {
            Ok(resource_entries(facts.broker, keys::GROUP, &(facts.group)(name), Source::Group, &wanted))
        }
        Some(ResourceType::Broker) if name.is_empty() => Ok(cluster_entries(facts.broker, &wanted)),
        Some(ResourceType::Broker) => {
            let id = broker_id(name)?;
            let own = facts.broker.node_id;
            if id != own {
                let text = format!("Unexpected broker id, expected {own} or empty string, but received {name}");
                return Err(Refused::request(text));
            }
            Ok(broker_entries(facts.broker, &wanted))
        }
        Some(ResourceType::BrokerLogger) => {
            let own = facts.broker.node_id;
            if name.is_empty() {
                return Err(Refused::request("Broker id must not be empty"));
            }
            if broker_id(name)? != own {
                return Err(Refused::request(format!("Unexpected broker id, expected {own} but received {name}")));
            }
            let loggers = (facts.loggers)().into_iter().filter(|(logger, _)| wanted(logger));
            Ok(loggers.map(|(logger, level)| logger_entry(logger, level)).collect())
        }
        Some(ResourceType::ClientMetrics) => {
            Err(Refused::request("Unsupported resource type: CLIENT_METRICS; client telemetry is not available"))
        }
        None => Err(Refused::request(format!("Unsupported resource type: {}", resource.resource_type))),
    }
}

fn broker_id(name: &str) -> Result<i32, Refused> {
    name.parse().map_err(|_| Refused::request(format!("Broker id must be an integer, but it is: {name}")))
}

fn logger_entry(name: String, level: String) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name,
        value: Some(level),
        config_source: Source::DynamicBrokerLogger as i8,
        ..DescribeConfigsResourceResult::default()
    }
}

fn synonym(name: &str, value: Option<String>, source: Source) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: name.to_owned(), value, source: source as i8 }
}

/// Entries of a topic or a group.
fn resource_entries(
    broker: &BrokerConfig,
    table: &[Key],
    own: &Entries,
    source: Source,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<DescribeConfigsResourceResult> {
    let listed = |key: &&Key| (!key.internal && !key.newer || own.contains_key(key.name)) && wanted(key.name);
    let entry = |key: &Key| {
        let value = broker.layers.resource_value(key, own).map(|value| value.to_string());
        let mut chain = match key.from_broker.first() {
            Some((name, _)) => broker_synonyms(broker, name),
            // Kafka shows the default of a group key that no broker key stands behind, but not that of a topic key.
            None if source == Source::Group => {
                key.default.map(|text| synonym(key.name, Some(text.to_owned()), Source::Default)).into_iter().collect()
            }
            None => Vec::new(),
        };
        if own.contains_key(key.name) {
            chain.insert(0, synonym(key.name, value.clone(), source));
        }
        DescribeConfigsResourceResult {
            name: key.name.to_owned(),
            value,
            read_only: false,
            config_source: chain.first().map_or(Source::Default as i8, |s| s.source),
            is_sensitive: false,
            synonyms: chain,
            config_type: key.kind as i8,
            documentation: Some(key.documentation().to_owned()),
        }
    };
    table.iter().filter(listed).map(entry).collect()
}

/// Entries of this broker: Kafka's table, ours, and whatever else is configured.
fn broker_entries(broker: &BrokerConfig, wanted: &dyn Fn(&str) -> bool) -> Vec<DescribeConfigsResourceResult> {
    let configured = |name: &str| broker.layers.is_set(name);
    let listed = |key: &&&Key| !(key.internal || key.dynamic_only || keys::is_plugin(key.name)) || configured(key.name);
    let mut names: Vec<&str> = keys::broker().iter().filter(listed).map(|key| key.name).collect();
    for (entries, _) in broker.layers.in_order() {
        names.extend(entries.keys().map(String::as_str).filter(|name| keys::find_broker(name).is_none()));
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter(|name| wanted(name)).map(|name| broker_entry(broker, name, true)).collect()
}

/// Entries that all brokers share: only what was set for all of them.
fn cluster_entries(broker: &BrokerConfig, wanted: &dyn Fn(&str) -> bool) -> Vec<DescribeConfigsResourceResult> {
    let names = broker.layers.cluster.keys().filter(|name| wanted(name));
    names.map(|name| broker_entry(broker, name, false)).collect()
}

fn broker_entry(broker: &BrokerConfig, name: &str, of_this_broker: bool) -> DescribeConfigsResourceResult {
    let exact = keys::find_broker(name);
    let key = exact.or_else(|| keys::find_broker_or_listener(name));
    // What nobody knows might be a secret.
    let sensitive = key.is_none_or(Key::sensitive);
    let raw = || broker.layers.in_order().into_iter().find_map(|(entries, _)| entries.get(name).cloned());
    let value = match exact {
        _ if sensitive => None,
        _ if !of_this_broker => broker.layers.cluster.get(name).cloned(),
        Some(key) => broker.layers.value(key).map(|value| value.to_string()),
        None => raw(),
    };
    let mut chain = broker_synonyms(broker, name);
    if !of_this_broker {
        chain.retain(|s| s.source == Source::DynamicDefaultBroker as i8);
    }
    DescribeConfigsResourceResult {
        name: name.to_owned(),
        value,
        read_only: exact.is_none_or(|key| key.update == Update::Static),
        config_source: chain.first().map_or(Source::Default as i8, |s| s.source),
        is_sensitive: sensitive,
        synonyms: chain,
        config_type: key.map_or(0, |key| key.kind as i8),
        documentation: exact.map(|key| key.documentation().to_owned()),
    }
}

/// All that could give a broker key its value, the strongest first. Kafka cuts off what stands before the key's own
/// name, so that a value of another synonym alone leaves nothing.
fn broker_synonyms(broker: &BrokerConfig, name: &str) -> Vec<DescribeConfigsSynonym> {
    let key = keys::find_broker_or_listener(name);
    let sensitive = key.is_none_or(Key::sensitive);
    let own = [name, keys::listener_base(name).unwrap_or(name)];
    let names: &[&str] = match synonyms(name) {
        Some(names) => names,
        None if own[0] == own[1] => &own[..1],
        None => &own,
    };
    let mut chain = Vec::new();
    for (entries, source) in broker.layers.in_order() {
        for name in names {
            if let Some(value) = entries.get(*name) {
                chain.push(synonym(name, Some(value.clone()).filter(|_| !sensitive), source));
            }
        }
    }
    for name in names {
        if let Some(default) = keys::find_broker(name).and_then(|key| key.default).filter(|_| !is_quota(name)) {
            chain.push(synonym(name, Some(default.to_owned()).filter(|_| !sensitive), Source::Default));
        }
    }
    let first = chain.iter().position(|s| s.name == name).unwrap_or(chain.len());
    chain.split_off(first)
}

/// Keys that exist at run time only have no default in Kafka's static table.
fn is_quota(name: &str) -> bool {
    keys::find_broker(name).is_some_and(|key| key.dynamic_only)
}
