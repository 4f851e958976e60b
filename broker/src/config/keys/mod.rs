//! THE table of configuration keys, in rows by area. Everything that knows a key's name, type, default or rule has it
//! from here: start-up, validation, DescribeConfigs, `docs/config.md`.
//!
//! A row reads `int("num.partitions").or("1").at_least("1").acts("…")`: type and name, default (none means null), rule,
//! `cluster_wide` or `per_broker` when it can change at run time, `internal` when Kafka hides it, and `acts` with a
//! sentence when Klamm does something with it. Without `acts` it is accepted and a warning says that it has no effect.

mod group;
mod groups;
mod log;
mod net;
mod node;
mod own;
mod remote;
mod replication;
mod security;
mod topic;

use std::sync::LazyLock;

use super::key::Key;

/// Broker keys by area, in the order of the documentation.
pub const BROKER_AREAS: &[(&str, &[Key])] = &[
    ("Klamm's own", own::OWN),
    ("Node and quorum", node::NODE),
    ("Listeners, connections, requests", net::NET),
    ("Log and topic defaults", log::LOG),
    ("Replication and quotas", replication::REPLICATION),
    ("Groups, offsets, transactions", groups::GROUPS),
    ("Security", security::SECURITY),
    ("Authorizer", own::PLUGIN),
    ("Tiered storage", remote::REMOTE),
];

/// Topic keys, sorted by name.
pub const TOPIC: &[Key] = topic::TOPIC;

/// Group keys, sorted by name.
pub const GROUP: &[Key] = group::GROUP;

/// Keys Kafka no longer knows but still starts with, sorted by name.
pub const GONE: &[Key] = own::GONE;

/// Whether a key belongs to a plug-in of Kafka's and is not in its table.
pub fn is_plugin(name: &str) -> bool {
    own::PLUGIN.iter().any(|key| key.name == name)
}

static BROKER: LazyLock<Vec<&'static Key>> = LazyLock::new(|| {
    let mut keys: Vec<_> = BROKER_AREAS.iter().flat_map(|(_, keys)| keys.iter()).collect();
    keys.sort_by_key(|key| key.name);
    keys
});

/// All broker keys, sorted by name.
pub fn broker() -> &'static [&'static Key] {
    &BROKER
}

/// The broker key of this name.
pub fn find_broker(name: &str) -> Option<&'static Key> {
    BROKER.binary_search_by_key(&name, |key| key.name).ok().map(|i| BROKER[i])
}

/// The topic key of this name.
pub fn find_topic(name: &str) -> Option<&'static Key> {
    TOPIC.binary_search_by_key(&name, |key| key.name).ok().map(|i| &TOPIC[i])
}

/// The group key of this name.
pub fn find_group(name: &str) -> Option<&'static Key> {
    GROUP.binary_search_by_key(&name, |key| key.name).ok().map(|i| &GROUP[i])
}

/// Suffixes that may follow a listener's name with a SASL mechanism in between.
const PER_MECHANISM: &[&str] = &[
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// The part of `listener.name.LISTENER.…` after the listener's name.
fn after_listener(name: &str) -> Option<&str> {
    name.strip_prefix("listener.name.")?.split_once('.').map(|(_, rest)| rest)
}

/// The name of the key that a listener's key `listener.name.LISTENER.KEY` overrides, known or not.
pub fn listener_base(name: &str) -> Option<&str> {
    let rest = after_listener(name)?;
    Some(PER_MECHANISM.iter().copied().find(|suffix| rest.ends_with(suffix)).unwrap_or(rest))
}

/// The broker key of this name, or the one that it overrides for a listener.
pub fn find_broker_or_listener(name: &str) -> Option<&'static Key> {
    find_broker(name).or_else(|| find_broker(listener_base(name)?))
}

/// The known name nearest to a mistyped one, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 4).clamp(1, 4);
    known.map(|k| (distance(name, k, limit), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Levenshtein distance; gives up past `limit`, and on hostile lengths at once.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(201).collect(), b.chars().collect());
    if a.len() > 200 || a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_sorted_and_every_default_passes_its_own_rule() {
        for keys in [TOPIC, GROUP, GONE].into_iter().chain(BROKER_AREAS.iter().map(|(_, keys)| *keys)) {
            assert!(keys.windows(2).all(|w| w[0].name < w[1].name), "not sorted near {}", keys[0].name);
            for key in keys {
                if let Some(text) = key.default {
                    let value = key.parse(text).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!(value.to_string(), text, "{}", key.name);
                }
            }
        }
        assert!(broker().windows(2).all(|w| w[0].name < w[1].name), "a key is in two areas");
    }

    #[test]
    fn every_broker_key_a_topic_or_group_key_comes_from_exists() {
        for key in TOPIC.iter().chain(GROUP) {
            for (name, _) in key.from_broker {
                assert!(find_broker(name).is_some(), "{}: {name}", key.name);
            }
        }
    }

    #[test]
    fn a_near_miss_is_named() {
        let known = || broker().iter().map(|k| k.name);
        for (typed, meant) in
            [("num.partition", "num.partitions"), ("log.dir.s", "log.dirs"), ("lsteners", "listeners")]
        {
            assert_eq!(nearest(typed, known()), Some(meant));
        }
        assert_eq!(nearest("something.else", known()), None);
        assert_eq!(nearest(&"x".repeat(100_000), known()), None);
    }

    #[test]
    fn listener_keys_find_what_they_override() {
        assert_eq!(listener_base("listener.name.internal.ssl.keystore.type"), Some("ssl.keystore.type"));
        assert_eq!(listener_base("listener.name.a.scram-sha-256.sasl.jaas.config"), Some("sasl.jaas.config"));
        assert!(find_broker_or_listener("listener.name.a.max.connections").is_some());
        assert!(find_broker_or_listener("listener.name.a.nope").is_none());
        assert!(find_broker_or_listener("listener.name.a").is_none());
    }
}
