//! Which layer a value comes from while the broker runs: this broker's dynamic configuration, the cluster's, the static
//! one, the default; and for topics and groups their own before all of these. Precedence among synonyms
//! (`log.retention.ms` before `.minutes` before `.hours`) is Kafka's: a higher layer hides every synonym below it.

use std::sync::Arc;

use super::key::{Key, Value};
use super::keys;
use super::settings::Entries;

/// Where DescribeConfigs says a value comes from, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker while it ran.
    DynamicBroker = 2,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// Configured at the start.
    StaticBroker = 4,
    /// Nothing set.
    Default = 5,
    /// A logger's level.
    DynamicBrokerLogger = 6,
    /// Set on a client-metrics subscription.
    ClientMetrics = 7,
    /// Set on the group.
    Group = 8,
}

/// A broker's configuration in layers. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Configured at the start.
    pub statics: Arc<Entries>,
    /// Dynamic, for all brokers (the resource BROKER with an empty name).
    pub cluster: Arc<Entries>,
    /// Dynamic, for this broker.
    pub broker: Arc<Entries>,
}

/// The names that stand for the same thing as this broker key, in order of precedence, itself included.
pub fn synonyms(name: &str) -> Option<&'static [&'static str]> {
    const ROLL: &[&str] = &["log.roll.ms", "log.roll.hours"];
    const JITTER: &[&str] = &["log.roll.jitter.ms", "log.roll.jitter.hours"];
    const RETENTION: &[&str] = &["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
    const FLUSH: &[&str] = &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    match name {
        "log.flush.interval.ms" => Some(FLUSH),
        // The scheduler's key stands in for the other, not the other way round.
        "log.flush.scheduler.interval.ms" => None,
        _ => [ROLL, JITTER, RETENTION].into_iter().find(|names| names.contains(&name)),
    }
}

impl Layers {
    /// Layers of static entries only. `node.id` and `broker.id` are filled from each other.
    pub fn new(mut statics: Entries) -> Layers {
        for (from, to) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let (Some(id), false) = (statics.get(from).cloned(), statics.contains_key(to)) {
                statics.insert(to.to_owned(), id);
            }
        }
        Layers { statics: Arc::new(statics), ..Layers::default() }
    }

    /// The same static configuration with other dynamic ones.
    pub fn with_dynamic(&self, cluster: Entries, broker: Entries) -> Layers {
        Layers { statics: self.statics.clone(), cluster: Arc::new(cluster), broker: Arc::new(broker) }
    }

    /// The layers, the strongest first.
    pub fn in_order(&self) -> [(&Entries, Source); 3] {
        [
            (&self.broker, Source::DynamicBroker),
            (&self.cluster, Source::DynamicDefaultBroker),
            (&self.statics, Source::StaticBroker),
        ]
    }

    /// What a broker key is worth now; `None` is null. A dynamic value that does not parse (written by another
    /// version, say) counts as absent, as in Kafka.
    pub fn value(&self, key: &Key) -> Option<Value> {
        for (entries, _) in self.in_order() {
            if let Some(value) = entries.get(key.name).and_then(|text| key.parse(text).ok()) {
                return Some(value);
            }
            if synonyms(key.name).is_some_and(|names| names.iter().any(|name| entries.contains_key(*name))) {
                break;
            }
        }
        key.default_value()
    }

    /// [`Layers::value`] by name.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.value(keys::find_broker(name)?)
    }

    /// Whether anything but the default gives this key its value.
    pub fn is_set(&self, name: &str) -> bool {
        self.in_order().iter().any(|(entries, _)| entries.contains_key(name))
    }

    /// What a topic or group key is worth when the resource itself has these entries.
    pub fn resource_value(&self, key: &Key, own: &Entries) -> Option<Value> {
        if let Some(value) = own.get(key.name).and_then(|text| key.parse(text).ok()) {
            return Some(value);
        }
        self.inherited(key)
    }

    /// What a topic or group key is worth when the resource sets nothing.
    pub fn inherited(&self, key: &Key) -> Option<Value> {
        let found = key.from_broker.iter().find_map(|(name, factor)| Some((self.get(name)?, *factor)));
        match found {
            // Every negative retention means "for ever", which topics spell -1.
            Some((Value::Number(n), _)) if n < 0 && key.name == "retention.ms" => Some(Value::Number(-1)),
            Some((Value::Number(n), factor)) => Some(Value::Number(n.saturating_mul(factor))),
            Some((value, _)) => Some(value),
            None => key.default_value(),
        }
    }
}

/// Typed access for those who build structs: the table guarantees type and presence, a test reads every field.
impl Layers {
    pub(super) fn number<T: TryFrom<i64> + Default>(&self, name: &str) -> T {
        match self.get(name) {
            Some(Value::Number(n)) => T::try_from(n).unwrap_or_default(),
            _ => T::default(),
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text).filter(|text| !text.is_empty()),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::List(members)) => members,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn retention(statics: &[(&str, &str)], cluster: &[(&str, &str)], topic: &[(&str, &str)]) -> String {
        let layers = Layers::new(entries(statics)).with_dynamic(entries(cluster), Entries::new());
        let key = keys::find_topic("retention.ms").unwrap();
        layers.resource_value(key, &entries(topic)).unwrap().to_string()
    }

    #[test]
    fn a_topic_inherits_by_layer_and_unit() {
        assert_eq!(retention(&[], &[], &[]), "604800000");
        assert_eq!(retention(&[("log.retention.hours", "1")], &[], &[]), "3600000");
        let minutes = [("log.retention.hours", "1"), ("log.retention.minutes", "1")];
        assert_eq!(retention(&minutes, &[], &[]), "60000");
        assert_eq!(retention(&minutes, &[("log.retention.ms", "7")], &[]), "7");
        assert_eq!(retention(&minutes, &[("log.retention.ms", "7")], &[("retention.ms", "9")]), "9");
        assert_eq!(retention(&[("log.retention.hours", "-5")], &[], &[]), "-1");
        assert_eq!(retention(&[], &[("log.retention.ms", "broken")], &[]), "604800000");
    }

    #[test]
    fn a_higher_layer_hides_synonyms_below() {
        let layers = Layers::new(entries(&[("log.retention.ms", "5")]));
        let layers = layers.with_dynamic(entries(&[("log.retention.hours", "2")]), Entries::new());
        assert_eq!(layers.get("log.retention.ms"), None);
        assert_eq!(layers.get("log.retention.hours"), Some(Value::Number(2)));
    }

    #[test]
    fn ids_fill_each_other() {
        assert_eq!(Layers::new(entries(&[("broker.id", "4")])).get("node.id"), Some(Value::Number(4)));
        assert_eq!(Layers::new(entries(&[("node.id", "4")])).get("broker.id"), Some(Value::Number(4)));
    }
}
