//! DescribeConfigs against what Apache Kafka 4.3.1 answered to the same configuration (`testdata/describe_4.3.1.tsv`:
//! resource, key, value, type, source, read-only, sensitive, synonyms). The lines of `broker2`, `topic3` and `group2`
//! were recorded after the changes that `changed` makes, and hold only what differs from before.

use std::collections::BTreeMap;

use klamm_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use klamm_protocol::messages::describe_configs_response::DescribeConfigsResponse;

use super::describe::{Facts, describe};
use super::*;

const RECORDED: &str = include_str!("testdata/describe_4.3.1.tsv");

/// Where Klamm differs on purpose: defaults that make a single node safe, and listeners that need a restart.
const DIFFERENT: &[&str] = &[
    "broker.id",
    "controller.listener.names",
    "listener.security.protocol.map",
    "listeners",
    "log.dir",
    "node.id",
    "process.roles",
];

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn config(cluster: &[(&str, &str)], broker: &[(&str, &str)]) -> BrokerConfig {
    let mut settings = Settings::new();
    let file = super::broker_test::APACHE.replace("/tmp/kraft-combined-logs", "/data");
    settings.add_properties("f", file.as_bytes()).unwrap();
    let mut config = BrokerConfig::from_settings(&settings).unwrap().config;
    config.layers = config.layers.with_dynamic(entries(cluster), entries(broker));
    config
}

fn ask(
    config: &BrokerConfig,
    own: &Entries,
    kind: i8,
    name: &str,
    keys: Option<Vec<String>>,
) -> DescribeConfigsResponse {
    let resource =
        DescribeConfigsResource { resource_type: kind, resource_name: name.to_owned(), configuration_keys: keys };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: false };
    let facts = Facts {
        broker: config,
        topic: &|name| (name == "t1").then(|| own.clone()),
        group: &|_| own.clone(),
        loggers: &|| vec![("root".to_owned(), "INFO".to_owned())],
    };
    describe(&request, &facts)
}

const TYPES: &[&str] = &["UNKNOWN", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"];
const SOURCES: &[&str] = &[
    "",
    "DYNAMIC_TOPIC_CONFIG",
    "DYNAMIC_BROKER_CONFIG",
    "DYNAMIC_DEFAULT_BROKER_CONFIG",
    "STATIC_BROKER_CONFIG",
    "DEFAULT_CONFIG",
    "DYNAMIC_BROKER_LOGGER_CONFIG",
    "CLIENT_METRICS_CONFIG",
    "DYNAMIC_GROUP_CONFIG",
];

/// An answer in the form of the recording, by key.
fn lines(response: &DescribeConfigsResponse) -> BTreeMap<String, String> {
    let result = &response.results[0];
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let line = |c: &klamm_protocol::messages::describe_configs_response::DescribeConfigsResourceResult| {
        assert_eq!(c.documentation, None);
        let synonyms =
            c.synonyms.iter().map(|s| format!("{}:{}={};", SOURCES[s.source as usize], s.name, text(&s.value)));
        let synonyms: String = synonyms.collect();
        let (kind, source) = (TYPES[c.config_type as usize], SOURCES[c.config_source as usize]);
        let (read_only, sensitive) = (c.read_only, c.is_sensitive);
        (c.name.clone(), format!("{}\t{kind}\t{source}\t{read_only}\t{sensitive}\t{synonyms}", text(&c.value)))
    };
    result.configs.iter().map(line).collect()
}

fn compare(recorded: &str, response: &DescribeConfigsResponse) -> usize {
    let got = lines(response);
    let mut compared = 0;
    for line in RECORDED.lines() {
        let Some((resource, rest)) = line.split_once('\t') else { continue };
        let Some((key, expected)) = rest.split_once('\t') else { continue };
        if resource != recorded || DIFFERENT.contains(&key) {
            continue;
        }
        assert_eq!(got.get(key).map(String::as_str), Some(expected), "{resource} {key}");
        compared += 1;
    }
    compared
}

/// Dynamic entries of all brokers, of this one, and of the topic, after the changes of the recording.
fn changed() -> (BrokerConfig, Entries) {
    let cluster = [
        ("log.retention.ms", "6000"),
        ("num.io.threads", "9"),
        ("max.connections", "100"),
        ("listener.name.plaintext.max.connections", "50"),
        ("message.max.bytes", "2000000"),
        ("log.cleaner.max.compaction.lag.ms", "5"),
        ("min.insync.replicas", "2"),
    ];
    let broker = [
        ("log.retention.ms", "5000"),
        ("background.threads", "11"),
        ("listener.name.plaintext.ssl.keystore.type", "PEM"),
        ("listener.name.plaintext.ssl.key.password", "secret"),
        ("leader.replication.throttled.rate", "1000"),
        ("log.cleanup.policy", "compact,delete"),
        ("log.cleaner.min.compaction.lag.ms", "10"),
        ("retention.ms", "7"),
        ("sasl.jaas.config", "x"),
    ];
    let topic = [
        ("retention.ms", "1000"),
        ("cleanup.policy", ""),
        ("min.compaction.lag.ms", "9223372036854775807"),
        ("leader.replication.throttled.replicas", "0:1, 1:2"),
        ("segment.bytes", " 2000000 "),
        ("internal.segment.bytes", "1000"),
        ("unclean.leader.election.enable", "TRUE"),
    ];
    (config(&cluster, &broker), entries(&topic))
}

#[test]
fn every_entry_is_as_kafka_answers_it() {
    let before = config(&[("min.insync.replicas", "1")], &[]);
    let topic = entries(&[("retention.ms", "1000"), ("cleanup.policy", "compact, delete")]);
    assert_eq!(compare("broker", &ask(&before, &topic, 4, "1", None)), 340 - DIFFERENT.len());
    assert_eq!(compare("topic", &ask(&before, &topic, 2, "t1", None)), 33);
    assert_eq!(compare("group", &ask(&before, &Entries::new(), 32, "g1", None)), 17);
    assert_eq!(lines(&ask(&before, &topic, 2, "t1", None)).len(), 33);

    let (after, topic) = changed();
    assert_eq!(compare("broker2", &ask(&after, &topic, 4, "1", None)), 15);
    assert_eq!(compare("topic3", &ask(&after, &topic, 2, "t1", None)), 10);
    assert_eq!(compare("cluster2", &ask(&after, &topic, 4, "", None)), 7);
    let group = entries(&[("consumer.session.timeout.ms", "50000"), ("share.auto.offset.reset", "by_duration:P1D")]);
    assert_eq!(compare("group2", &ask(&after, &group, 32, "g1", None)), 2);
}

#[test]
fn only_the_keys_asked_for_come_back() {
    let config = config(&[], &[]);
    let keys = vec!["retention.ms".to_owned(), "nope".to_owned()];
    let got = lines(&ask(&config, &Entries::new(), 2, "t1", Some(keys)));
    assert_eq!(got.into_keys().collect::<Vec<_>>(), ["retention.ms"]);
    assert_eq!(lines(&ask(&config, &Entries::new(), 2, "t1", Some(Vec::new()))).len(), 33);
    assert_eq!(lines(&ask(&config, &Entries::new(), 8, "1", None)).len(), 1);
}

#[test]
fn our_own_keys_are_listed_and_documented() {
    let config = config(&[], &[]);
    let facts = Facts { broker: &config, topic: &|_| None, group: &|_| Entries::new(), loggers: &Vec::new };
    let resource = DescribeConfigsResource { resource_type: 4, resource_name: "1".into(), configuration_keys: None };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: false, include_documentation: true };
    let response = describe(&request, &facts);
    let own = response.results[0].configs.iter().find(|c| c.name == "klamm.admin.listener").unwrap();
    assert!(own.documentation.as_ref().unwrap().contains("admin HTTP") && own.synonyms.is_empty());
    assert_eq!(own.value.as_deref(), Some("127.0.0.1:9644"));
}

#[test]
fn resources_that_are_not_there() {
    let config = config(&[], &[]);
    let check = |kind: i8, name: &str, code: i16, message: &str| {
        let response = ask(&config, &Entries::new(), kind, name, None);
        let result = &response.results[0];
        assert_eq!((result.error_code, result.error_message.as_deref()), (code, Some(message)));
        assert_eq!((result.resource_type, result.resource_name.as_str()), (kind, name));
    };
    check(2, "missing", 3, "");
    let illegal = "Topic name is invalid: 'bad/name' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'";
    check(2, "bad/name", 17, illegal);
    check(4, "2", 42, "Unexpected broker id, expected 1 or empty string, but received 2");
    check(4, "x", 42, "Broker id must be an integer, but it is: x");
    check(8, "", 42, "Broker id must not be empty");
    check(8, "2", 42, "Unexpected broker id, expected 1 but received 2");
    check(32, "", 42, "Group name must not be empty");
    check(99, "x", 42, "Unsupported resource type: 99");
}
