//! Whole configurations of resources, with the answers Apache Kafka 4.3.1 gave to the same changes.

use klamm_metadata::{ConfigRules, Resource};
use proptest::prelude::*;

use super::*;

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn config() -> BrokerConfig {
    let mut settings = Settings::new();
    settings.add_properties("f", super::broker_test::APACHE.as_bytes()).unwrap();
    BrokerConfig::from_settings(&settings).unwrap().config
}

fn message(result: Result<(), String>) -> String {
    result.err().unwrap_or_default()
}

#[test]
fn topics() {
    let config = config();
    let check = |key: &str, value: &str, expected: &str| {
        let result = config.check(&Resource::topic("t"), &entries(&[(key, value)]));
        assert_eq!(message(result), expected, "{key}={value}");
    };
    check("nope", "1", "Unknown topic config name: nope");
    check(" retention.ms", "1", "Unknown topic config name:  retention.ms");
    check("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG");
    check("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1");
    check("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG");
    check(
        "cleanup.policy",
        "foo",
        "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
    );
    check("cleanup.policy", "delete,delete", "");
    check("cleanup.policy", "", "");
    check(
        "compression.type",
        "lzma",
        "Invalid value lzma for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
    );
    check(
        "compression.gzip.level",
        "0",
        "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
    );
    check(
        "min.cleanable.dirty.ratio",
        "2",
        "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
    );
    check(
        "min.cleanable.dirty.ratio",
        "x",
        "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
    );
    check(
        "preallocate",
        "yes",
        "Invalid value yes for configuration preallocate: Expected value to be either true or false",
    );
    check("segment.bytes", "14", "Invalid value 14 for configuration segment.bytes: Value must be at least 1048576");
    check(
        "max.message.bytes",
        "99999999999",
        "Invalid value 99999999999 for configuration max.message.bytes: Not a number of type INT",
    );
    check(
        "leader.replication.throttled.replicas",
        "x",
        "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
    );
    check("leader.replication.throttled.replicas", "0:1, 1:2", "");
    check("leader.replication.throttled.replicas", "*", "");
    check(
        "remote.storage.enable",
        "true",
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
    );
    check("segment.bytes", " 2000000 ", "");
    check("internal.segment.bytes", "1000", "");
    check("unclean.leader.election.enable", "TRUE", "");
    check(
        "message.timestamp.type",
        "createtime",
        "Invalid value createtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
    );
    let both = entries(&[("min.compaction.lag.ms", "9223372036854775807"), ("max.compaction.lag.ms", "1")]);
    assert_eq!(
        message(config.check(&Resource::topic("t"), &both)),
        "conflict topic config setting min.compaction.lag.ms (9223372036854775807) > max.compaction.lag.ms (1)"
    );
}

#[test]
fn brokers() {
    let config = config();
    let check = |name: &str, key: &str, value: &str, expected: &str| {
        let resource = name.parse().map_or_else(|_| Resource::all_brokers(), Resource::broker);
        let result = config.check(&resource, &entries(&[(key, value)]));
        assert_eq!(message(result), expected, "{key}={value}");
    };
    check("1", "num.partitions", "3", "Cannot update these configs dynamically: [num.partitions]");
    check("1", "log.retention.hours", "2", "Cannot update these configs dynamically: [log.retention.hours]");
    check("1", "listeners", "PLAINTEXT://:1", "Cannot update these configs dynamically: [listeners]");
    check("1", "nope", "3", "Unknown broker configs: [nope]");
    check(
        "1",
        "log.retention.ms",
        "x",
        "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
    );
    check("1", "log.retention.ms", "0", "log.retention.ms: must be at least 1, or -1 to keep records for ever");
    check("1", "log.retention.ms", "-7", "");
    check("", "log.retention.ms", "6000", "");
    check("1", "num.io.threads", "0", "Invalid value 0 for configuration num.io.threads: Value must be at least 1");
    check(
        "1",
        "ssl.keystore.type",
        "PEM",
        "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.type]",
    );
    check("1", "listener.name.plaintext.ssl.keystore.type", "PEM", "");
    check(
        "",
        "listener.name.plaintext.ssl.keystore.type",
        "PEM",
        "Cannot update these configs at default cluster level, broker id must be specified: [listener.name.plaintext.ssl.keystore.type]",
    );
    check("", "listener.name.plaintext.max.connections", "50", "");
    check("1", "leader.replication.throttled.rate", "1000", "");
    check(
        "1",
        "max.connections.per.ip.overrides",
        "a:b",
        "Invalid value a:b for configuration max.connections.per.ip.overrides: a:b needs a count of at least 0",
    );
}

#[test]
fn lists_have_defaults_to_start_from() {
    let config = config();
    let ask = |kind, name| (config.is_list(kind, name), config.default_value(kind, name));
    use klamm_metadata::ResourceType::{Broker, Topic};
    assert_eq!(ask(Topic, "cleanup.policy"), (Some(true), Some("delete".to_owned())));
    assert_eq!(ask(Topic, "retention.ms").0, Some(false));
    assert_eq!(ask(Broker, "log.cleanup.policy").0, Some(true));
    assert_eq!(ask(Broker, "nope"), (None, None));
}

#[test]
fn groups() {
    let config = config();
    let check = |key: &str, value: &str, expected: &str| {
        assert_eq!(message(config.check(&Resource::group("g"), &entries(&[(key, value)]))), expected, "{key}={value}");
    };
    check("nope", "1", "Unknown group config name: nope");
    check("consumer.session.timeout.ms", "50000", "");
    check(
        "consumer.session.timeout.ms",
        "1",
        "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
    );
    check(
        "consumer.session.timeout.ms",
        "999999",
        "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
    );
    check(
        "consumer.heartbeat.interval.ms",
        "x",
        "Invalid value x for configuration consumer.heartbeat.interval.ms: Not a number of type INT",
    );
    check(
        "streams.num.standby.replicas",
        "9",
        "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
    );
    check("share.auto.offset.reset", "earliest", "");
    check("share.auto.offset.reset", "by_duration:P1DT2H3M4.5S", "");
    for bad in [
        "never",
        "by_duration:",
        "by_duration:P",
        "by_duration:1D",
        "by_duration:PT",
        "by_duration:P1H",
        "by_duration:PT1.5H",
    ] {
        assert!(config.check(&Resource::group("g"), &entries(&[("share.auto.offset.reset", bad)])).is_err(), "{bad}");
    }
    assert_eq!(
        message(config.check(&Resource::group(""), &Entries::new())),
        "Default group resources are not allowed."
    );
}

proptest! {
    #[test]
    fn no_value_of_any_key_panics(name in proptest::sample::select(
        keys::broker().iter().map(|k| k.name).chain(keys::TOPIC.iter().map(|k| k.name)).chain(keys::GROUP.iter().map(|k| k.name)).collect::<Vec<_>>()
    ), value in "[-+0-9.,:@/\\[\\]a-zPTDHMS{}$ ]{0,30}|.{0,20}") {
        let entries = entries(&[(name, value.as_str())]);
        let config = config();
        for resource in [Resource::topic("t"), Resource::group("g"), Resource::broker(1), Resource::all_brokers()] {
            let _ = config.check(&resource, &entries);
        }
        let mut settings = Settings::new();
        settings.set(name, &value, Origin::Flag);
        let _ = BrokerConfig::from_settings(&settings);
    }
}
