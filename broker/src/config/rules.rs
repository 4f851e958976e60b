//! What the controller asks about configuration keys, answered from the table and the configuration in force. The
//! texts are Kafka's. One rule is stricter: a broker key that nobody knows is refused, where Kafka stores it silently.

use klamm_metadata::rules::EffectiveConfig;
use klamm_metadata::{ConfigRules, Entries, Image, Resource, ResourceType};

use super::broker::BrokerConfig;
use super::key::{Key, Kind, Update, Value};
use super::keys;
use super::layers::{Layers, Source};

impl ConfigRules for BrokerConfig {
    fn check(&self, resource: &Resource, configs: &Entries) -> Result<(), String> {
        match resource.kind {
            ResourceType::Topic => check_topic(&self.layers, configs),
            ResourceType::Group => check_group(&self.layers, &resource.name, configs),
            ResourceType::Broker => check_broker(self, &resource.name, configs),
            ResourceType::ClientMetrics => Err("client telemetry is not available".to_owned()),
            ResourceType::BrokerLogger => Err("log levels are not stored".to_owned()),
        }
    }

    fn is_list(&self, kind: ResourceType, name: &str) -> Option<bool> {
        find(kind, name).map(|key| key.kind == Kind::List)
    }

    fn default_value(&self, kind: ResourceType, name: &str) -> Option<String> {
        find(kind, name)?.default.map(str::to_owned)
    }

    fn effective_topic(&self, image: &Image, own: &Entries) -> Vec<EffectiveConfig> {
        let entries = |resource: Resource| image.config(&resource).map(|e| (**e).clone()).unwrap_or_default();
        let layers =
            self.layers.with_dynamic(entries(Resource::all_brokers()), entries(Resource::broker(self.node_id)));
        effective_topic(&layers, own)
    }
}

fn find(kind: ResourceType, name: &str) -> Option<&'static Key> {
    match kind {
        ResourceType::Topic => keys::find_topic(name),
        ResourceType::Group => keys::find_group(name),
        ResourceType::Broker => keys::find_broker_or_listener(name),
        ResourceType::BrokerLogger | ResourceType::ClientMetrics => None,
    }
}

/// All keys of a topic with `own` set on it, as CreateTopics reports them. Unlike DescribeConfigs, a value that comes
/// from `log.retention.hours` is said to be static here: that is how Kafka does it.
fn effective_topic(layers: &Layers, own: &Entries) -> Vec<EffectiveConfig> {
    let listed = |key: &&Key| !key.internal && !key.newer || own.contains_key(key.name);
    let effective = |key: &Key| {
        let inherited = layers.in_order().into_iter().find_map(|(entries, source)| {
            key.from_broker.iter().find_map(|(name, factor)| Some((in_unit(entries.get(*name)?, *factor), source)))
        });
        let (value, source) = match own.get(key.name) {
            Some(value) => (Some(value.clone()), Source::Topic),
            None => match inherited {
                Some((value, source)) => (Some(value), source),
                None => (key.default.map(str::to_owned), Source::Default),
            },
        };
        EffectiveConfig { name: key.name.to_owned(), value, read_only: false, source: source as i8, sensitive: false }
    };
    keys::TOPIC.iter().filter(listed).map(effective).collect()
}

/// A broker's text in the unit of the topic key.
fn in_unit(text: &str, factor: i64) -> String {
    match text.trim().parse::<i64>() {
        Ok(n) if factor != 1 => Value::Number(n.saturating_mul(factor)).to_string(),
        _ => text.to_owned(),
    }
}

/// Checks the entries a topic is to have.
fn check_topic(layers: &Layers, new: &Entries) -> Result<(), String> {
    if let Some(name) = new.keys().find(|name| keys::find_topic(name).is_none()) {
        return Err(format!("Unknown topic config name: {name}"));
    }
    parse_all(new, keys::find_topic)?;
    let value = |name: &str| keys::find_topic(name).and_then(|key| layers.resource_value(key, new));
    let (Some(Value::Number(min)), Some(Value::Number(max))) =
        (value("min.compaction.lag.ms"), value("max.compaction.lag.ms"))
    else {
        return Ok(());
    };
    if min > max {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        ));
    }
    if value("remote.storage.enable") == Some(Value::Bool(true)) {
        return Err("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.".to_owned());
    }
    Ok(())
}

/// Checks the entries a group is to have.
fn check_group(layers: &Layers, name: &str, new: &Entries) -> Result<(), String> {
    if name.is_empty() {
        return Err("Default group resources are not allowed.".to_owned());
    }
    if let Some(name) = new.keys().find(|name| keys::find_group(name).is_none()) {
        return Err(format!("Unknown group config name: {name}"));
    }
    parse_all(new, keys::find_group)?;
    let number = |name: &str| match keys::find_group(name).and_then(|key| layers.resource_value(key, new)) {
        Some(Value::Number(n)) => n,
        _ => 0,
    };
    // Only what the group sets itself is held against the broker's bounds: those of the broker's own defaults were
    // checked when the broker was configured.
    for (key, min, max) in GROUP_BOUNDS.iter().filter(|(key, ..)| new.contains_key(*key)) {
        let n = number(key);
        for (bound, words) in [(min, "greater than or equal to"), (max, "less than or equal to")] {
            let limit: i64 = if bound.is_empty() { n } else { layers.number(bound) };
            if (n < limit && bound == min) || (n > limit && bound == max) {
                return Err(format!("{key} must be {words} {bound}"));
            }
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms"));
        if number(&session) <= number(&heartbeat) {
            return Err(format!("{session} must be greater than {heartbeat}"));
        }
    }
    Ok(())
}

/// Group keys with the broker keys that bound them; an empty name is no bound.
const GROUP_BOUNDS: &[(&str, &str, &str)] = &[
    (
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    ("consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
    (
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
    ("share.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"),
    ("share.session.timeout.ms", "group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"),
    (
        "share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    ("share.delivery.count.limit", "group.share.min.delivery.count.limit", "group.share.max.delivery.count.limit"),
    (
        "share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
    (
        "share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
    (
        "streams.heartbeat.interval.ms",
        "group.streams.min.heartbeat.interval.ms",
        "group.streams.max.heartbeat.interval.ms",
    ),
    ("streams.session.timeout.ms", "group.streams.min.session.timeout.ms", "group.streams.max.session.timeout.ms"),
    ("streams.num.standby.replicas", "", "group.streams.max.standby.replicas"),
    (
        "streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ),
];

fn parse_all(new: &Entries, find: impl Fn(&str) -> Option<&'static Key>) -> Result<(), String> {
    for (name, text) in new {
        if let Some(key) = find(name) {
            key.parse(text).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Keys about keys and certificates: they can change for a listener only.
const LISTENER_ONLY: &[&str] = &[
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Checks the dynamic entries that the broker `name`, or all brokers when it is empty, are to have.
fn check_broker(config: &BrokerConfig, name: &str, new: &Entries) -> Result<(), String> {
    let one_broker = !name.is_empty();
    let refuse = |names: Vec<&str>, text: &str| {
        if names.is_empty() { Ok(()) } else { Err(format!("{text}: [{}]", names.join(", "))) }
    };
    let names = || new.keys().map(String::as_str);
    refuse(names().filter(|n| keys::find_broker_or_listener(n).is_none()).collect(), "Unknown broker configs")?;
    let fixed = |n: &&str| keys::find_broker(n).is_some_and(|key| key.update == Update::Static);
    refuse(names().filter(fixed).collect(), "Cannot update these configs dynamically")?;
    refuse(
        names().filter(|n| LISTENER_ONLY.contains(n)).collect(),
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )?;
    for (name, text) in new {
        if let Some(key) = keys::find_broker_or_listener(name) {
            key.parse(text).map_err(|e| e.to_string())?;
        }
    }
    if !one_broker {
        refuse(
            names().filter(|n| needs_broker_id(n)).collect(),
            "Cannot update these configs at default cluster level, broker id must be specified",
        )?;
    }
    let layers = &config.layers;
    if one_broker && name != config.node_id.to_string() {
        return Ok(());
    }
    let (cluster, broker) = if one_broker { (&*layers.cluster, new) } else { (new, &*layers.broker) };
    let whole = config.with_dynamic(cluster.clone(), broker.clone());
    whole.map(drop).map_err(|errors| errors.to_string())
}

fn needs_broker_id(name: &str) -> bool {
    if let Some(key) = keys::find_broker(name) {
        return key.update == Update::PerBroker;
    }
    let cluster_level = ["max.connections", "max.connection.creation.rate", "num.network.threads"];
    keys::listener_base(name).is_some_and(|base| !cluster_level.contains(&base))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_new_topic_reports_where_its_values_come_from() {
        let layers = Layers::new(entries(&[("log.retention.hours", "1"), ("log.segment.bytes", "2000000")]));
        let layers = layers.with_dynamic(entries(&[("message.max.bytes", "9")]), Entries::new());
        let all = effective_topic(&layers, &entries(&[("cleanup.policy", "compact, delete")]));
        assert_eq!(all.len(), 33);
        let check = |name: &str, value: &str, source: Source| {
            let found = all.iter().find(|c| c.name == name).unwrap();
            assert_eq!((found.value.as_deref(), found.source), (Some(value), source as i8), "{name}");
        };
        check("cleanup.policy", "compact, delete", Source::Topic);
        check("retention.ms", "3600000", Source::StaticBroker);
        check("segment.bytes", "2000000", Source::StaticBroker);
        check("max.message.bytes", "9", Source::DynamicDefaultBroker);
        check("segment.ms", "604800000", Source::Default);
    }
}
