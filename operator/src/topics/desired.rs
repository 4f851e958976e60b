//! A Topic's description as the cluster understands it: typed fields become Kafka's keys, units become numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::crd::topic::{CleanupPolicy, Retention};
use crate::crd::{Topic, TopicSpec};
use crate::quantity;

/// Topics that brokers keep their own state in, or that bear a name of theirs.
const INTERNAL: [&str; 5] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata", "__remote_log_metadata"];
/// Characters of a topic's name at most.
const NAME_MAX: usize = 249;

/// Bytes of a configuration's key, or value, at most: Kafka's requests hold no more.
const TEXT_MAX: usize = 32_767;
/// Characters of a key that a message shows.
const SHOWN: usize = 64;

/// Whether a topic is the brokers' own: nobody may describe it, and nothing here changes or deletes it.
pub fn is_internal(topic: &str) -> bool {
    INTERNAL.contains(&topic)
}

/// What a topic should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Desired {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` is as many as it has, or the cluster's default.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` likewise.
    pub replication_factor: Option<i32>,
    /// Its own configuration. What is not in here is the cluster's default.
    pub config: BTreeMap<String, String>,
    /// Keys that others decide about.
    pub unmanaged: BTreeSet<String>,
}

/// What is wrong with a description that the API server could not see.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The brokers' own topic.
    #[error("topic {0} is the brokers' own: it is neither changed nor deleted here")]
    Internal(String),
    /// A name that is too long; what else is wrong with one, the schema and Kubernetes' own rules keep away.
    #[error(
        "a topic's name has {NAME_MAX} characters at most, this resource's has {0}: give a shorter one as topicName"
    )]
    LongName(usize),
    /// A list or an object where a value belongs.
    #[error("config[{0}]: a string, number, boolean or null belongs here")]
    NoScalar(String),
    /// A key or value that no request can bring to the brokers; the others' in the same request would stay behind with it.
    #[error("config[{0}]: {1} bytes, and a key or value has {TEXT_MAX} at most")]
    LongText(String, usize),
    /// A typed field and a key of `config` that say the same.
    #[error("{0} and config[{1}] say the same: use one")]
    Twice(&'static str, &'static str),
    /// A key that is described, and said to be left alone.
    #[error("{0} is described, and in unmanagedConfig: use one")]
    Unmanaged(String),
    /// More than the unit can count.
    #[error("{0}: {1} is too much")]
    TooMuch(&'static str, String),
    /// Not a span or size at all; the schema keeps these away.
    #[error("{0}: {1:?} is not understood")]
    NotUnderstood(&'static str, String),
}

impl Invalid {
    /// One word for it, as a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Internal(_) => "InternalTopic",
            Self::LongName(_) => "InvalidName",
            _ => "InvalidConfig",
        }
    }
}

/// Reads a description.
///
/// # Errors
/// What it says that cannot be.
pub fn desired(topic: &Topic) -> Result<Desired, Invalid> {
    let TopicSpec { partitions, replication_factor, retention, cleanup_policy, config, unmanaged_config, .. } =
        &topic.spec;
    let name = topic.topic_name();
    if is_internal(name) {
        return Err(Invalid::Internal(name.to_owned()));
    }
    if name.len() > NAME_MAX {
        return Err(Invalid::LongName(name.len()));
    }
    let mut wanted = BTreeMap::new();
    let mut unmanaged: BTreeSet<String> = unmanaged_config.iter().cloned().collect();
    for (key, value) in config {
        let longest = key.len().max(value.text().map_or(0, |text| text.len()));
        if longest > TEXT_MAX {
            return Err(Invalid::LongText(key.chars().take(SHOWN).collect(), longest));
        }
        match value.text() {
            Some(text) => drop(wanted.insert(key.clone(), text)),
            None if value.is_null() => drop(unmanaged.insert(key.clone())),
            None => return Err(Invalid::NoScalar(key.clone())),
        }
    }
    let mut typed = |field: &'static str, key: &'static str, value: String| {
        if config.contains_key(key) {
            return Err(Invalid::Twice(field, key));
        }
        wanted.insert(key.into(), value);
        Ok(())
    };
    if let Some(Retention { time, size }) = retention {
        if let Some(time) = time {
            typed("retention.time", "retention.ms", unlimited_or(time, |text| span_ms("retention.time", text))?)?;
        }
        if let Some(size) = size {
            typed("retention.size", "retention.bytes", unlimited_or(size, |text| bytes("retention.size", text))?)?;
        }
    }
    if let Some(policies) = cleanup_policy {
        let names: BTreeSet<&str> = policies.iter().map(|policy| policy.name()).collect();
        typed("cleanupPolicy", "cleanup.policy", names.into_iter().collect::<Vec<_>>().join(","))?;
    }
    if let Some(both) = unmanaged.iter().find(|key| wanted.contains_key(*key)) {
        return Err(Invalid::Unmanaged(both.clone()));
    }
    Ok(Desired {
        name: name.to_owned(),
        partitions: *partitions,
        replication_factor: *replication_factor,
        config: wanted,
        unmanaged,
    })
}

impl CleanupPolicy {
    fn name(self) -> &'static str {
        match self {
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::Delete => "delete",
        }
    }
}

fn unlimited_or(text: &str, read: impl FnOnce(&str) -> Result<i64, Invalid>) -> Result<String, Invalid> {
    if text == "unlimited" { Ok("-1".into()) } else { read(text).map(|number| number.to_string()) }
}

/// Milliseconds of a span such as `1d12h`; `field` is named in what is wrong.
///
/// # Errors
/// It is none, or more than 2⁶³ ms.
pub fn span_ms(field: &'static str, text: &str) -> Result<i64, Invalid> {
    let odd = || Invalid::NotUnderstood(field, text.to_owned());
    let much = || Invalid::TooMuch(field, text.to_owned());
    let mut total = 0_i64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(odd());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(odd)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(odd()),
        };
        if number.is_empty() {
            return Err(odd());
        }
        let number: i64 = number.parse().map_err(|_| much())?;
        total = number.checked_mul(ms).and_then(|part| total.checked_add(part)).ok_or_else(much)?;
        rest = behind;
    }
    Ok(total)
}

/// Bytes of a quantity such as `50Gi` or `0.5Ti`; a part of a byte counts as one.
///
/// # Errors
/// It is none, or more than 2⁶³.
pub fn bytes(field: &'static str, text: &str) -> Result<i64, Invalid> {
    let odd = || Invalid::NotUnderstood(field, text.to_owned());
    let much = || Invalid::TooMuch(field, text.to_owned());
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = quantity::unit(unit).ok_or_else(odd)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && part.is_empty()) || part.contains('.') {
        return Err(odd());
    }
    let whole: i128 = whole.parse::<i64>().map_err(|_| much())?.into();
    // Eighteen digits behind the point are more than any unit here can tell apart.
    let part = &part[..part.len().min(18)];
    let scale = 10_i128.pow(u32::try_from(part.len()).unwrap_or(0));
    let part: i128 = if part.is_empty() { 0 } else { part.parse().map_err(|_| odd())? };
    let total = whole * unit + (part * unit).div_euclid(scale) + i128::from((part * unit).rem_euclid(scale) != 0);
    i64::try_from(total).map_err(|_| much())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(more: Value) -> Result<Desired, Invalid> {
        let mut spec = json!({ "clusterRef": { "name": "a" } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "orders" }, "spec": spec });
        desired(&serde_json::from_value(text).unwrap())
    }

    #[test]
    fn typed_fields_become_kafkas_keys() {
        let config =
            json!({ "max.message.bytes": 2097152, "compression.type": null, "unclean.leader.election.enable": false });
        let more = json!({ "topicName": "Orders.v1", "retention": { "time": "7d", "size": "unlimited" },
            "cleanupPolicy": ["delete", "compact"], "config": config });
        let desired = of(more).unwrap();
        let expected = [
            ("cleanup.policy", "compact,delete"),
            ("max.message.bytes", "2097152"),
            ("retention.bytes", "-1"),
            ("retention.ms", "604800000"),
            ("unclean.leader.election.enable", "false"),
        ];
        assert_eq!(desired.config, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(desired.unmanaged, ["compression.type".to_owned()].into());
        assert_eq!(desired.name, "Orders.v1");
        assert_eq!(of(json!({})).unwrap().name, "orders");
    }

    #[test]
    fn some_names_are_nobodys() {
        for own in INTERNAL {
            assert_eq!(of(json!({ "topicName": own })).map_err(|e| e.reason()), Err("InternalTopic"), "{own}");
        }
        assert!(of(json!({ "topicName": "__consumer_offsets_copy" })).is_ok());
        let long = of(json!({ "topicName": "x".repeat(250) }));
        assert_eq!(long.map_err(|e| e.reason()), Err("InvalidName"));
        assert!(of(json!({ "topicName": "x".repeat(249) })).is_ok());
    }

    #[test]
    fn what_no_request_holds_is_refused() {
        let long = "x".repeat(TEXT_MAX + 1);
        for config in [json!({ "retention.ms": &long }), json!({ &long: 1 })] {
            let refused = of(json!({ "config": config })).unwrap_err();
            assert_eq!(refused.reason(), "InvalidConfig");
            assert!(refused.to_string().len() < 200, "{refused}");
        }
        assert!(of(json!({ "config": { "retention.ms": &long[1..] } })).is_ok());
    }

    #[test]
    fn nothing_is_said_twice() {
        for (more, field) in [
            (json!({ "retention": { "time": "7d" }, "config": { "retention.ms": 1000 } }), "retention.time"),
            (json!({ "retention": { "size": "1Gi" }, "config": { "retention.bytes": null } }), "retention.size"),
            (json!({ "cleanupPolicy": ["compact"], "config": { "cleanup.policy": "delete" } }), "cleanupPolicy"),
        ] {
            let refused = of(more).expect_err(field).to_string();
            assert!(refused.starts_with(field) && refused.ends_with("say the same: use one"), "{refused}");
        }
        assert!(of(json!({ "retention": { "time": "7d" }, "config": { "retention.bytes": 1000 } })).is_ok());
    }

    #[test]
    fn unmanaged_keys_are_named_or_null() {
        let found = of(json!({ "unmanagedConfig": ["a"], "config": { "b": null, "c": 1 } })).unwrap();
        assert_eq!(found.unmanaged, ["a".to_owned(), "b".into()].into());
        assert_eq!(of(json!({ "unmanagedConfig": ["a"], "config": { "a": 1 } })), Err(Invalid::Unmanaged("a".into())));
        let typed = of(json!({ "unmanagedConfig": ["retention.ms"], "retention": { "time": "7d" } }));
        assert_eq!(typed, Err(Invalid::Unmanaged("retention.ms".into())));
    }

    #[test]
    fn a_list_is_no_value() {
        let refused = of(json!({ "config": { "a": "b", "retention.ms": [1] } }));
        assert_eq!(refused, Err(Invalid::NoScalar("retention.ms".into())));
    }

    #[test]
    fn spans() {
        let ms = |text: &str| span_ms("f", text);
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1d12h"), Ok(129_600_000));
        assert_eq!(ms("1w1m1s1ms"), Ok(604_861_001));
        for odd in ["", "7", "d", "7x", "7 d", "-7d", "7dd", "1.5h"] {
            assert!(matches!(ms(odd), Err(Invalid::NotUnderstood(..))), "{odd}");
        }
        for much in ["9223372036854775807s", "99999999999999999999ms", "15250284452w471h"] {
            assert!(matches!(ms(much), Err(Invalid::TooMuch(..))), "{much}");
        }
    }

    #[test]
    fn quantities() {
        let size = |text: &str| bytes("f", text);
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("50Gi"), Ok(50 << 30));
        assert_eq!(size("50G"), Ok(50_000_000_000));
        assert_eq!(size("0.5Ti"), Ok(1 << 39));
        assert_eq!(size("1.5"), Ok(2));
        assert_eq!(size("0.1Ki"), Ok(103));
        for odd in ["", ".5Gi", "5.", "5.5.5", "Gi", "5gi", "5 Gi", "-1"] {
            assert!(matches!(size(odd), Err(Invalid::NotUnderstood(..))), "{odd}");
        }
        for much in ["8Ei", "99999999999999999999"] {
            assert!(matches!(size(much), Err(Invalid::TooMuch(..))), "{much}");
        }
    }
}
