//! The keys of administration.

use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Uuid};
use klamm_tests::{Broker, Peer, unique};

use crate::ask::{ask, topic};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;

#[test]
fn api_versions() {
    let request = |version: i16| match version {
        0..3 => ApiVersionsRequest::default(),
        _ => ApiVersionsRequest {
            client_software_name: "versions".into(),
            client_software_version: "1".into(),
            ..Default::default()
        },
    };
    ask("all", &[0], request, |r: &ApiVersionsResponse| {
        let produce = r.api_keys.iter().find(|k| k.api_key == ApiKey::Produce as i16);
        // librdkafka sends nothing compressed unless Produce begins at 0.
        assert_eq!(produce.map(|p| p.min_version), Some(0));
        vec![r.error_code]
    });
    let unnamed = |_| ApiVersionsRequest::default();
    ask("no software name", &[0, INVALID_REQUEST], unnamed, |r: &ApiVersionsResponse| vec![r.error_code]);
}

#[test]
fn create_topics() {
    use create_topics_request::{CreatableTopic, CreatableTopicConfig};
    let request = |name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]| {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: replicas,
            configs: configs.collect(),
            ..Default::default()
        };
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() }
    };
    let codes = |r: &CreateTopicsResponse| r.topics.iter().map(|t| t.error_code).collect();
    ask("a topic", &[0], |_| request(&unique("new"), 2, 1, &[("retention.ms", "5000")]), codes);
    let existing = topic("existing");
    ask("one that exists", &[TOPIC_ALREADY_EXISTS], |_| request(&existing.name, 1, 1, &[]), codes);
    ask("no partitions", &[INVALID_PARTITIONS], |_| request(&unique("bad"), 0, 1, &[]), codes);
    ask("too many replicas", &[INVALID_REPLICATION_FACTOR], |_| request(&unique("bad"), 1, 5, &[]), codes);
    ask("a bad value", &[INVALID_CONFIG], |_| request(&unique("bad"), 1, 1, &[("retention.ms", "soon")]), codes);
    ask("an unknown key", &[INVALID_CONFIG], |_| request(&unique("bad"), 1, 1, &[("no.such.key", "1")]), codes);
    ask("an illegal name", &[INVALID_TOPIC_EXCEPTION], |_| request("a b", 1, 1, &[]), codes);
}

#[test]
fn delete_topics() {
    use delete_topics_request::DeleteTopicState;
    let request = |name: String, version: i16| match version {
        0..6 => DeleteTopicsRequest { topic_names: vec![name], timeout_ms: 10_000, ..Default::default() },
        _ => {
            let topic = DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
            DeleteTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() }
        }
    };
    let codes = |r: &DeleteTopicsResponse| r.responses.iter().map(|t| t.error_code).collect();
    ask("a topic", &[0], |v| request(topic("doomed").name, v), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |v| request("nowhere".into(), v), codes);
}

#[test]
fn create_partitions() {
    use create_partitions_request::CreatePartitionsTopic;
    let request = |name: String, count: i32| {
        let topic = CreatePartitionsTopic { name, count, assignments: None };
        CreatePartitionsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() }
    };
    let codes = |r: &CreatePartitionsResponse| r.results.iter().map(|t| t.error_code).collect();
    ask("more", &[0], |_| request(topic("growing").name, 4), codes);
    ask("fewer", &[INVALID_PARTITIONS], |_| request(topic("shrinking").name, 1), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere".into(), 4), codes);
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

#[test]
fn describe_configs() {
    use describe_configs_request::DescribeConfigsResource;
    let request = |kind: i8, name: &str, version: i16| {
        let resource =
            DescribeConfigsResource { resource_type: kind, resource_name: name.into(), configuration_keys: None };
        DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: version >= 3,
        }
    };
    let topic = topic("configured");
    let codes = |r: &DescribeConfigsResponse| r.results.iter().map(|r| r.error_code).collect();
    ask(
        "a topic",
        &[0],
        |v| request(TOPIC, &topic.name, v),
        |r: &DescribeConfigsResponse| {
            assert!(r.results[0].configs.iter().any(|c| c.name == "retention.ms"), "{r:?}");
            codes(r)
        },
    );
    let node = if Broker::shared().peer() == Peer::Apache { "1" } else { "0" };
    ask("the broker", &[0], |v| request(BROKER, node, v), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |v| request(TOPIC, "nowhere", v), codes);
}

#[test]
fn alter_configs() {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let topic = topic("altered");
    let request = |name: &str, key: &str, value: &str| {
        let config = AlterableConfig { name: key.into(), value: Some(value.into()) };
        let resource = AlterConfigsResource { resource_type: TOPIC, resource_name: name.into(), configs: vec![config] };
        AlterConfigsRequest { resources: vec![resource], ..Default::default() }
    };
    let codes = |r: &AlterConfigsResponse| r.responses.iter().map(|r| r.error_code).collect();
    ask("a value", &[0], |_| request(&topic.name, "retention.ms", "7000"), codes);
    ask("a bad value", &[INVALID_CONFIG], |_| request(&topic.name, "retention.ms", "soon"), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere", "retention.ms", "7"), codes);
}

#[test]
fn incremental_alter_configs() {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let topic = topic("altered-inc");
    let request = |name: &str, key: &str, operation: i8, value: &str| {
        let config = AlterableConfig { name: key.into(), config_operation: operation, value: Some(value.into()) };
        let resource = AlterConfigsResource { resource_type: TOPIC, resource_name: name.into(), configs: vec![config] };
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
    };
    let codes = |r: &IncrementalAlterConfigsResponse| r.responses.iter().map(|r| r.error_code).collect();
    ask("set", &[0], |_| request(&topic.name, "retention.ms", 0, "7000"), codes);
    ask("append", &[0], |_| request(&topic.name, "cleanup.policy", 2, "compact"), codes);
    ask("subtract", &[0], |_| request(&topic.name, "cleanup.policy", 3, "compact"), codes);
    ask("append to a number", &[INVALID_CONFIG], |_| request(&topic.name, "retention.ms", 2, "1"), codes);
    ask("a bad value", &[INVALID_CONFIG], |_| request(&topic.name, "retention.ms", 0, "soon"), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere", "retention.ms", 0, "7"), codes);
}

#[test]
fn describe_cluster() {
    let request = |_| DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
    ask("all", &[0], request, |r: &DescribeClusterResponse| {
        assert_eq!(r.brokers.len(), 1, "{r:?}");
        assert_eq!(r.cluster_id.len(), 22, "{r:?}");
        vec![r.error_code]
    });
}

#[test]
fn describe_topic_partitions() {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let topic = topic("paged");
    let request = |name: &str, cursor: Option<Cursor>| DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: name.into() }],
        response_partition_limit: 1,
        cursor,
    };
    let codes = |r: &DescribeTopicPartitionsResponse| r.topics.iter().map(|t| t.error_code).collect();
    ask(
        "the first page",
        &[0],
        |_| request(&topic.name, None),
        |r: &DescribeTopicPartitionsResponse| {
            assert_eq!(r.topics[0].partitions.len(), 1, "{r:?}");
            assert_eq!(r.next_cursor.as_ref().map(|c| c.partition_index), Some(1), "{r:?}");
            codes(r)
        },
    );
    let at_one = || Some(Cursor { topic_name: topic.name.clone(), partition_index: 1 });
    ask(
        "the second page",
        &[0],
        |_| request(&topic.name, at_one()),
        |r: &DescribeTopicPartitionsResponse| {
            assert_eq!(r.topics[0].partitions[0].partition_index, 1, "{r:?}");
            assert_eq!(r.next_cursor, None, "{r:?}");
            codes(r)
        },
    );
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere", None), codes);
}

#[test]
fn list_partition_reassignments() {
    let request = |_| ListPartitionReassignmentsRequest { timeout_ms: 1000, topics: None };
    ask("none under way", &[0], request, |r: &ListPartitionReassignmentsResponse| {
        assert!(r.topics.is_empty(), "{r:?}");
        vec![r.error_code]
    });
}
