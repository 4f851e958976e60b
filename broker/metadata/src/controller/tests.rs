//! What the decisions answer, and that their records do what the answer says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use klamm_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use klamm_protocol::messages::{alter_configs_request as legacy, create_topics_response::CreatableTopicResult};

use super::*;
use crate::apply::Change;
use crate::image::{Broker, Endpoint, Entries, Image, Resource, ResourceType};
use crate::rules::EffectiveConfig;

/// An image of active brokers 0.. on the given racks.
pub(crate) fn with_brokers(racks: &[Option<String>]) -> Image {
    let mut image = Image::new("cluster");
    for (id, rack) in (0..).zip(racks) {
        let wanted = Registration {
            cluster_id: "cluster".into(),
            broker: broker(id, rack.clone()),
            clean: true,
            predecessor_alive: false,
        };
        let decided = register_broker(&image, &wanted, i64::from(id) + 10, &Policy::default()).unwrap();
        image.apply_all(&decided.records).unwrap();
    }
    image
}

pub(crate) fn broker(id: i32, rack: Option<String>) -> Broker {
    Broker {
        id,
        epoch: -1,
        incarnation: Uuid([id as u8 + 1; 16]),
        endpoints: Vec::new(),
        features: Vec::new(),
        rack,
        fenced: false,
        in_controlled_shutdown: false,
        log_dirs: vec![Uuid([id as u8 + 100; 16])],
        cordoned_log_dirs: None,
    }
}

struct Rules;

impl ConfigRules for Rules {
    fn check(&self, resource: &Resource, configs: &Entries) -> Result<(), String> {
        for (name, value) in configs {
            match (resource.kind, name.as_str()) {
                (ResourceType::Topic, "cleanup.policy" | "leader.replication.throttled.replicas") => {}
                (ResourceType::Topic, "retention.ms") if value.parse::<i64>().is_ok() => {}
                (ResourceType::Broker, "log.cleaner.threads" | "cleanup.policy" | "klamm.maintenance.until") => {}
                (ResourceType::Group, "consumer.session.timeout.ms") => {}
                (ResourceType::Broker, _) => return Err(format!("Cannot update these configs dynamically: [{name}]")),
                _ => return Err(format!("Unknown topic config name: {name}")),
            }
        }
        Ok(())
    }

    fn is_list(&self, _: ResourceType, name: &str) -> Option<bool> {
        match name {
            "cleanup.policy" | "leader.replication.throttled.replicas" => Some(true),
            "retention.ms" | "log.cleaner.threads" => Some(false),
            _ => None,
        }
    }

    fn default_value(&self, _: ResourceType, name: &str) -> Option<String> {
        (name == "cleanup.policy").then(|| "delete".into())
    }

    fn effective_topic(&self, _: &Image, own: &Entries) -> Vec<EffectiveConfig> {
        let entry = |name: &str, value: &str, source| EffectiveConfig {
            name: name.into(),
            value: Some(value.into()),
            read_only: false,
            source,
            sensitive: false,
        };
        let policy = own.get("cleanup.policy");
        let retention = own.get("retention.ms");
        vec![
            entry("retention.ms", retention.map_or("604800000", |v| v), if retention.is_some() { 1 } else { 5 }),
            entry("cleanup.policy", policy.map_or("delete", |v| v), if policy.is_some() { 1 } else { 5 }),
        ]
    }
}

/// Rising ids, so that tests don't need chance.
pub(crate) fn next_id() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Uuid(bytes)
}

pub(crate) fn context() -> Context<'static> {
    Context {
        now_ms: 1_000_000,
        seed: 1,
        new_id: &next_id,
        rules: &Rules,
        may: &|_, _| true,
        num_partitions: 2,
        replication_factor: 1,
        policy: Policy::default(),
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..CreatableTopic::default() }
}

fn with_configs(mut topic: CreatableTopic, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: (*name).into(),
        value: value.map(str::to_owned),
    };
    topic.configs = configs.iter().map(config).collect();
    topic
}

fn assigned(name: &str, replicas: &[&[i32]]) -> CreatableTopic {
    let assignment =
        |(i, ids): (i32, &&[i32])| CreatableReplicaAssignment { partition_index: i, broker_ids: ids.to_vec() };
    CreatableTopic { assignments: (0..).zip(replicas).map(assignment).collect(), ..topic(name, -1, -1) }
}

/// Creates topics for good and returns the answers.
fn create(image: &mut Image, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest { topics, ..CreateTopicsRequest::default() };
    let decided = create_topics(image, &request, &context());
    image.apply_all(&decided.records).unwrap();
    decided.response.topics
}

#[track_caller]
fn refused(result: &CreatableTopicResult, code: ErrorCode, text: &str) {
    assert_eq!(ErrorCode::known(result.error_code), Some(code), "{result:?}");
    assert_eq!(result.error_message.as_deref(), Some(text));
}

#[test]
fn a_created_topic_is_there_with_what_was_asked_for() {
    let mut image = with_brokers(&[None, None, None]);
    let wanted = with_configs(topic("t", 5, 2), &[("retention.ms", Some("1000"))]);
    let results = create(&mut image, vec![wanted, topic("defaults", -1, -1)]);
    assert_eq!(results.iter().map(|r| r.error_code).collect::<Vec<_>>(), [0, 0]);
    let t = image.topic("t").unwrap().clone();
    assert_eq!((t.partitions.len(), t.replication_factor(), t.id), (5, 2, results[0].topic_id));
    assert_eq!((results[0].num_partitions, results[0].replication_factor), (5, 2));
    assert!(!t.id.is_zero());
    assert!(Arc::ptr_eq(&t, image.topic_by_id(t.id).unwrap()));
    for partition in &t.partitions {
        assert_eq!(partition.leader, partition.replicas[0]);
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.directories[0], Uuid([partition.leader as u8 + 100; 16]));
    }
    let configs = results[0].configs.as_ref().unwrap();
    let names: Vec<_> = configs.iter().map(|c| (c.name.as_str(), c.value.as_deref(), c.config_source)).collect();
    assert_eq!(names, [("cleanup.policy", Some("delete"), 5), ("retention.ms", Some("1000"), 1)]);
    assert_eq!(image.topic("defaults").unwrap().partitions.len(), 2);
    assert_eq!((image.topic_count(), image.partition_count()), (2, 7));
    assert_eq!(image.config(&Resource::topic("t")).unwrap().get("retention.ms").unwrap(), "1000");
}

#[test]
fn bad_topics_get_kafkas_answers_and_good_ones_of_the_same_request_are_made() {
    let mut image = with_brokers(&[None]);
    create(&mut image, vec![topic("a.b", 1, 1), topic("old", 1, 1)]);
    let results = create(
        &mut image,
        vec![
            topic("old", 1, 1),
            topic("a_b", 1, 1),
            topic("bad name", 1, 1),
            topic("rf", 1, 3),
            topic("none", 0, 1),
            topic("rf0", 1, 0),
            with_configs(topic("conf", 1, 1), &[("nope", Some("x"))]),
            with_configs(topic("null", 1, 1), &[("retention.ms", None)]),
            topic("twice", 1, 1),
            topic("good", 1, 1),
            topic("twice", 1, 1),
            topic("__cluster_metadata", 1, 1),
        ],
    );
    let names: Vec<_> = results.iter().map(|r| r.name.as_str()).collect();
    let expected =
        ["old", "a_b", "bad name", "rf", "none", "rf0", "conf", "null", "twice", "good", "__cluster_metadata"];
    assert_eq!(names, expected, "in the request's order, each name once");
    refused(&results[0], ErrorCode::TopicAlreadyExists, "Topic 'old' already exists.");
    refused(&results[1], ErrorCode::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b");
    refused(
        &results[2],
        ErrorCode::InvalidTopicException,
        "Topic name is invalid: 'bad name' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
    );
    refused(
        &results[3],
        ErrorCode::InvalidReplicationFactor,
        "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because \
         only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
    );
    refused(
        &results[4],
        ErrorCode::InvalidPartitions,
        "Number of partitions was set to an invalid non-positive value.",
    );
    refused(
        &results[5],
        ErrorCode::InvalidReplicationFactor,
        "Replication factor must be larger than 0, or -1 to use the default value.",
    );
    refused(&results[6], ErrorCode::InvalidConfig, "Unknown topic config name: nope");
    refused(&results[7], ErrorCode::InvalidConfig, "Null value not supported for topic configs: retention.ms");
    refused(&results[8], ErrorCode::InvalidRequest, "Duplicate topic name.");
    assert_eq!(results[9].error_code, 0);
    refused(&results[10], ErrorCode::InvalidRequest, "Creation of internal topic __cluster_metadata is prohibited.");
    assert_eq!(image.topic_count(), 3);
}

#[test]
fn assignments_by_hand_are_checked() {
    let mut image = with_brokers(&[None, None]);
    let mut fenced = broker(2, None);
    fenced.fenced = true;
    let wanted = Registration { cluster_id: "cluster".into(), broker: fenced, clean: true, predecessor_alive: false };
    image.apply_all(&register_broker(&image, &wanted, 50, &Policy::default()).unwrap().records).unwrap();
    let mut gap = assigned("gap", &[&[0], &[1]]);
    gap.assignments[1].partition_index = 2;
    let mut double = assigned("double", &[&[0], &[1]]);
    double.assignments[1].partition_index = 0;
    let results = create(
        &mut image,
        vec![
            assigned("fine", &[&[1, 2], &[0, 1], &[2, 0]]),
            CreatableTopic { num_partitions: 1, ..assigned("count", &[&[0]]) },
            CreatableTopic { replication_factor: 1, ..assigned("factor", &[&[0]]) },
            gap,
            double,
            assigned("unknown", &[&[7]]),
            assigned("repeated", &[&[0, 0]]),
            assigned("empty", &[&[]]),
            assigned("uneven", &[&[0], &[0, 1]]),
            assigned("fenced", &[&[2]]),
        ],
    );
    let codes: Vec<_> = results.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [0, 42, 42, 39, 39, 39, 39, 39, 39, 39]);
    let fine = image.topic("fine").unwrap();
    assert_eq!(fine.partitions[2].replicas, [2, 0]);
    assert_eq!((fine.partitions[2].leader, &fine.partitions[2].isr[..]), (0, &[0][..]), "a fenced broker doesn't lead");
    refused(
        &results[8],
        ErrorCode::InvalidReplicaAssignment,
        "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with \
         previous partitions, which have 1 replica(s).",
    );
}

#[test]
fn too_many_partitions_are_refused_without_being_laid_out() {
    let mut image = with_brokers(&[None]);
    let results = create(&mut image, vec![topic("big", i32::MAX, 1), topic("bigger", i32::MAX, 1), topic("x", 1, 1)]);
    for result in &results {
        refused(result, ErrorCode::PolicyViolation, "Excessively large number of partitions per request.");
    }
    let results = create(&mut image, vec![topic("edge", 10_000, 1)]);
    refused(&results[0], ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.");
    let results = create(&mut image, vec![topic("most", 9_999, 1)]);
    assert_eq!(results[0].error_code, 0);
    let grow = |count| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: "most".into(), count, assignments: None }],
        ..CreatePartitionsRequest::default()
    };
    let decided = create_partitions(&image, &grow(i32::MAX), &context());
    assert_eq!((decided.response.results[0].error_code, decided.records.len()), (44, 0));
    let decided = create_partitions(&image, &grow(10_500), &context());
    assert_eq!((decided.response.results[0].error_code, decided.records.len()), (0, 501));
}

#[test]
fn validate_only_answers_the_same_and_changes_nothing() {
    let image = with_brokers(&[None]);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 3, 1), topic("u", 0, 1)],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let decided = create_topics(&image, &request, &context());
    assert!(decided.records.is_empty());
    assert_eq!(decided.response.topics[0].num_partitions, 3);
    assert_eq!(decided.response.topics[1].error_code, 37);
}

#[test]
fn who_may_not_does_not() {
    let mut image = with_brokers(&[None]);
    create(&mut image, vec![topic("seen", 1, 1), topic("hidden", 1, 1)]);
    let mut ctx = context();
    ctx.may = &|operation, name| match operation {
        Operation::Describe => name == "seen",
        Operation::Create => name == "mine",
        _ => false,
    };
    let request = CreateTopicsRequest {
        topics: vec![topic("mine", 1, 1), topic("yours", 1, 1)],
        ..CreateTopicsRequest::default()
    };
    let answer = create_topics(&image, &request, &ctx).response.topics;
    assert_eq!((answer[0].error_code, answer[0].topic_config_error_code, answer[1].error_code), (0, 29, 29));
    let request = DeleteTopicsRequest {
        topic_names: vec!["seen".into(), "hidden".into(), "missing".into()],
        ..DeleteTopicsRequest::default()
    };
    let decided = delete_topics(&image, &request, 5, true, &ctx);
    let codes: Vec<_> = decided.response.responses.iter().map(|r| r.error_code).collect();
    assert_eq!((codes, decided.records.len()), (vec![29, 29, 29], 0), "an unknown topic looks like a hidden one");
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut image = with_brokers(&[None]);
    let made = create(&mut image, vec![topic("a", 1, 1), topic("b_b", 2, 1), topic("c", 1, 1), topic("d", 1, 1)]);
    let state = |name: Option<&str>, id: Uuid| DeleteTopicState { name: name.map(str::to_owned), topic_id: id };
    let request = DeleteTopicsRequest {
        topics: vec![
            state(Some("a"), Uuid::ZERO),
            state(None, made[1].topic_id),
            state(None, Uuid([9; 16])),
            state(Some("nope"), Uuid::ZERO),
            state(None, Uuid::ZERO),
            state(Some("c"), made[2].topic_id),
            state(Some("c"), Uuid::ZERO),
            state(Some("c"), Uuid::ZERO),
            state(None, made[3].topic_id),
            state(Some("d"), Uuid::ZERO),
        ],
        ..DeleteTopicsRequest::default()
    };
    let decided = delete_topics(&image, &request, 6, true, &context());
    let codes: Vec<_> = decided.response.responses.iter().map(|r| (r.name.as_deref(), r.error_code)).collect();
    assert_eq!(
        codes,
        [
            (Some("a"), 0),
            (Some("b_b"), 0),
            (None, 100),
            (Some("nope"), 3),
            (None, 42),
            (Some("c"), 42),
            (Some("c"), 42),
            (Some("d"), 0),
            (Some("d"), 42)
        ]
    );
    assert_eq!(decided.response.responses[0].topic_id, made[0].topic_id);
    image.apply_all(&decided.records).unwrap();
    assert_eq!(image.topics().map(|t| &*t.name).collect::<Vec<_>>(), ["c"]);
    assert_eq!(image.partition_count(), 1);
    assert_eq!(image.topic_by_id(made[1].topic_id), None);
    let again = create(&mut image, vec![topic("a", 1, 1), topic("b.b", 1, 1)]);
    assert_eq!(again[1].error_code, 0, "a deleted topic collides with nothing");
    assert_ne!(again[0].topic_id, made[0].topic_id);
    let names = DeleteTopicsRequest { topic_names: vec!["a".into()], ..DeleteTopicsRequest::default() };
    let codes = |version| delete_topics(&image, &names, version, false, &context()).response.responses[0].error_code;
    assert_eq!((codes(2), codes(5)), (42, 73));
}

#[test]
fn topics_grow_and_never_shrink() {
    let mut image = with_brokers(&[None, None]);
    create(&mut image, vec![topic("t1", 4, 1)]);
    let ask = |image: &Image, name: &str, count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments
            .map(|lists| lists.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec() }).collect());
        let topics = vec![CreatePartitionsTopic { name: name.into(), count, assignments }];
        create_partitions(image, &CreatePartitionsRequest { topics, ..Default::default() }, &context())
    };
    let answer = |name: &str, count, assignments| {
        let result = ask(&image, name, count, assignments).response.results.remove(0);
        (result.error_code, result.error_message.unwrap_or_default())
    };
    assert_eq!(
        answer("t1", 1, None),
        (37, "The topic t1 currently has 4 partition(s); 1 would not be an increase.".into())
    );
    assert_eq!(answer("t1", 4, None), (37, "Topic already has 4 partition(s).".into()));
    assert_eq!(answer("nope", 4, None).0, 3);
    assert_eq!(
        answer("t1", 6, Some(&[&[0]])),
        (39, "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.".into())
    );
    assert_eq!(answer("t1", 5, Some(&[&[5]])).0, 39);
    assert_eq!(answer("t1", 5, Some(&[&[0, 1]])).0, 39);
    let before = image.topic("t1").unwrap().clone();
    let decided = ask(&image, "t1", 6, Some(&[&[1], &[0]]));
    image.apply_all(&decided.records).unwrap();
    let after = image.topic("t1").unwrap();
    assert_eq!(after.partitions[..4], before.partitions[..], "what is there stays where it is");
    assert_eq!((after.partitions[4].leader, after.partitions[5].leader), (1, 0));
}

/// Key, operation, value.
type Op<'o> = (&'o str, i8, Option<&'o str>);

fn alter(image: &mut Image, kind: ResourceType, name: &str, ops: &[Op<'_>]) -> (i16, String) {
    let config = |(name, op, value): &Op<'_>| AlterableConfig {
        name: (*name).into(),
        config_operation: *op,
        value: value.map(str::to_owned),
    };
    let resource = AlterConfigsResource {
        resource_type: kind as i8,
        resource_name: name.into(),
        configs: ops.iter().map(config).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let decided = incremental_alter_configs(image, &request, &context());
    image.apply_all(&decided.records).unwrap();
    let answer = &decided.response.responses[0];
    (answer.error_code, answer.error_message.clone().unwrap_or_default())
}

#[test]
fn configurations_change_key_by_key() {
    let mut image = with_brokers(&[None]);
    create(&mut image, vec![topic("t", 1, 1)]);
    let own = |image: &Image, name: &str| image.config(&Resource::topic("t")).and_then(|c| c.get(name).cloned());
    let t = ResourceType::Topic;
    assert_eq!(alter(&mut image, t, "t", &[("cleanup.policy", 2, Some("compact"))]).0, 0);
    assert_eq!(own(&image, "cleanup.policy").unwrap(), "delete,compact", "APPEND starts from the default");
    assert_eq!(alter(&mut image, t, "t", &[("cleanup.policy", 2, Some("compact"))]).0, 0);
    assert_eq!(own(&image, "cleanup.policy").unwrap(), "delete,compact", "nothing twice");
    assert_eq!(alter(&mut image, t, "t", &[("cleanup.policy", 3, Some("delete,other"))]).0, 0);
    assert_eq!(own(&image, "cleanup.policy").unwrap(), "compact");
    assert_eq!(
        alter(&mut image, t, "t", &[("retention.ms", 0, Some("5")), ("cleanup.policy", 1, None)]),
        (0, String::new())
    );
    assert_eq!((own(&image, "retention.ms").as_deref(), own(&image, "cleanup.policy")), (Some("5"), None));
    let refusals: [(&str, &[Op<'_>], i16, &str); 8] = [
        ("t", &[("retention.ms", 2, Some("1"))], 40, "Can't APPEND to key retention.ms because its type is not LIST."),
        ("t", &[("nope", 0, Some("1"))], 40, "Unknown topic config name: nope"),
        ("t", &[("retention.ms", 0, None)], 42, "Null value not supported for : retention.ms"),
        ("t", &[("a", 1, None), ("a", 1, None)], 42, "Error due to duplicate config keys"),
        ("t", &[("a", 9, Some(""))], 42, "Unknown operations type 9"),
        ("missing", &[("retention.ms", 0, Some("1"))], 3, "The topic 'missing' does not exist."),
        ("", &[], 42, "Default topic resources are not allowed."),
        ("t", &[("retention.ms", 0, Some("6")), ("nope", 0, Some("1"))], 40, "Unknown topic config name: nope"),
    ];
    for (name, ops, code, text) in refusals {
        assert_eq!(alter(&mut image, t, name, ops), (code, text.to_owned()));
    }
    assert_eq!(own(&image, "retention.ms").unwrap(), "5", "all of a resource or nothing");
    alter(&mut image, t, "t", &[("retention.ms", 1, None)]);
    assert_eq!(image.config(&Resource::topic("t")), None);
    // What several share is unset by whoever takes the last item out; one whose default is something stays empty.
    let list = "leader.replication.throttled.replicas";
    assert_eq!(alter(&mut image, t, "t", &[(list, 2, Some("0:1,0:2"))]).0, 0);
    assert_eq!(alter(&mut image, t, "t", &[(list, 2, Some("0:2,0:3")), ("cleanup.policy", 3, Some("delete"))]).0, 0);
    assert_eq!(own(&image, list).unwrap(), "0:1,0:2,0:3");
    assert_eq!(alter(&mut image, t, "t", &[(list, 3, Some("0:1,0:2"))]).0, 0);
    assert_eq!(own(&image, list).unwrap(), "0:3");
    assert_eq!(alter(&mut image, t, "t", &[(list, 3, Some("0:3,0:9"))]).0, 0);
    assert_eq!((own(&image, list), own(&image, "cleanup.policy").as_deref()), (None, Some("")));
    assert_eq!(alter(&mut image, t, "t", &[(list, 3, Some("0:3"))]).0, 0);
}

#[test]
fn brokers_and_groups_have_configurations_too() {
    let mut image = with_brokers(&[None, None]);
    let b = ResourceType::Broker;
    assert_eq!(alter(&mut image, b, "", &[("log.cleaner.threads", 0, Some("2"))]).0, 0);
    assert_eq!(alter(&mut image, b, "0", &[("log.cleaner.threads", 0, Some("3"))]).0, 0);
    assert_eq!(image.config(&Resource::all_brokers()).unwrap()["log.cleaner.threads"], "2");
    assert_eq!(image.config(&Resource::broker(0)).unwrap()["log.cleaner.threads"], "3");
    assert_eq!(
        alter(&mut image, b, "", &[("num.partitions", 0, Some("3"))]),
        (42, "Cannot update these configs dynamically: [num.partitions]".into())
    );
    assert_eq!(
        alter(&mut image, b, "1", &[("log.cleaner.threads", 0, Some("3"))]).0,
        0,
        "the controller need not be broker 1"
    );
    assert_eq!(alter(&mut image, b, "7", &[]), (102, "No node with id 7 found.".into()));
    assert_eq!(alter(&mut image, b, "x", &[]), (42, "Node id must be an integer, but it is: x".into()));
    assert_eq!(alter(&mut image, b, "", &[("odd", 2, Some("1"))]), (40, "Unknown config name: odd".into()));
    assert_eq!(
        alter(&mut image, b, "", &[("log.cleaner.threads", 3, Some("1"))]),
        (40, "Config value subtract is not allowed for config key: log.cleaner.threads".into())
    );
    let g = ResourceType::Group;
    assert_eq!(alter(&mut image, g, "g", &[("consumer.session.timeout.ms", 0, Some("9"))]).0, 0);
    assert_eq!(alter(&mut image, g, "", &[]).0, 42);
    assert_eq!(alter(&mut image, ResourceType::BrokerLogger, "0", &[]).0, 42);
}

#[test]
fn the_older_request_replaces_everything() {
    let mut image = with_brokers(&[None]);
    create(&mut image, vec![topic("t", 1, 1)]);
    alter(&mut image, ResourceType::Topic, "t", &[("cleanup.policy", 0, Some("compact"))]);
    let resource = |name: &str| legacy::AlterConfigsResource {
        resource_type: ResourceType::Topic as i8,
        resource_name: name.into(),
        configs: vec![legacy::AlterableConfig { name: "retention.ms".into(), value: Some("7".into()) }],
    };
    let request = legacy::AlterConfigsRequest { resources: vec![resource("t")], ..Default::default() };
    let decided = alter_configs(&image, &request, &context());
    image.apply_all(&decided.records).unwrap();
    let own = image.config(&Resource::topic("t")).unwrap();
    assert_eq!(own.iter().collect::<Vec<_>>(), [(&"retention.ms".to_owned(), &"7".to_owned())]);
    let twice = legacy::AlterConfigsRequest { resources: vec![resource("t"), resource("t")], ..Default::default() };
    let answer = alter_configs(&image, &twice, &context()).response.responses;
    assert_eq!(answer.iter().map(|r| r.error_code).collect::<Vec<_>>(), [42, 42]);
}

#[test]
fn producer_ids_are_given_once() {
    let mut image = with_brokers(&[None]);
    let first = allocate_producer_ids(&image, 0, 10).unwrap();
    image.apply_all(&first.records).unwrap();
    let second = allocate_producer_ids(&image, 0, 10).unwrap();
    assert_eq!((first.response, second.response), (0..1000, 1000..2000));
    let stale = allocate_producer_ids(&image, 0, 9).unwrap_err();
    assert_eq!(stale.code, ErrorCode::StaleBrokerEpoch);
    assert!(image.apply_all(&first.records).is_ok(), "the same again changes nothing");
}

#[test]
fn a_new_incarnation_after_a_crash_leads_under_a_new_epoch() {
    let mut image = with_brokers(&[None, None]);
    create(&mut image, vec![assigned("t", &[&[0], &[1]])]);
    let mut wanted =
        Registration { cluster_id: "cluster".into(), broker: broker(0, None), clean: false, predecessor_alive: false };
    let policy = Policy::default();
    let same = register_broker(&image, &wanted, 99, &policy).unwrap();
    assert_eq!((same.response, same.records.len()), (Progress::Done(10), 1), "the same incarnation keeps its epoch");
    wanted.broker.incarnation = Uuid([77; 16]);
    let new = register_broker(&image, &wanted, 99, &policy).unwrap();
    assert_eq!((new.response, new.records.len()), (Progress::Done(99), 2));
    let changes = image.apply_all(&new.records).unwrap();
    assert!(
        matches!(&changes[0], Change::PartitionChanged { partition: 0, before: Some(b), .. } if b.leader_epoch == 0)
    );
    let epochs: Vec<_> = image.topic("t").unwrap().partitions.iter().map(|p| (p.leader, p.leader_epoch)).collect();
    assert_eq!(epochs, [(0, 1), (1, 0)]);
    wanted.cluster_id = "other".into();
    assert_eq!(register_broker(&image, &wanted, 100, &policy).unwrap_err().code, ErrorCode::InconsistentClusterId);
    wanted.cluster_id = "cluster".into();
    wanted.broker.log_dirs = vec![Uuid([101; 16])];
    let swapped = register_broker(&image, &wanted, 100, &policy).unwrap_err();
    assert_eq!(swapped.code, ErrorCode::InvalidRegistration);
    let gone = unregister_broker(&image, 1, &policy).unwrap();
    image.apply_all(&gone.records).unwrap();
    assert!(image.broker(1).is_none());
    assert_eq!(unregister_broker(&image, 1, &policy).unwrap_err().code, ErrorCode::BrokerIdNotRegistered);
}

#[test]
fn a_broker_that_came_back_in_its_own_place_need_not_wait_for_its_session_to_end() {
    let mut image = Image::new("cluster");
    let policy = Policy::default();
    let endpoint = |port| Endpoint { name: "L".into(), host: "h".into(), port, security_protocol: 0 };
    let mut own = broker(0, None);
    own.endpoints = vec![endpoint(9092)];
    let mut wanted = Registration { cluster_id: "cluster".into(), broker: own, clean: false, predecessor_alive: false };
    image.apply_all(&register_broker(&image, &wanted, 10, &policy).unwrap().records).unwrap();
    wanted.predecessor_alive = true;
    wanted.broker.incarnation = Uuid([77; 16]);
    let code = |wanted: &Registration| register_broker(&image, wanted, 99, &policy).err().map(|e| e.code);
    assert_eq!(code(&wanted), None);
    let mut elsewhere = wanted.clone();
    elsewhere.broker.endpoints = vec![endpoint(9093)];
    assert_eq!(code(&elsewhere), Some(ErrorCode::DuplicateBrokerRegistration));
    let mut other_disk = wanted.clone();
    other_disk.broker.log_dirs = vec![Uuid([55; 16])];
    assert_eq!(code(&other_disk), Some(ErrorCode::DuplicateBrokerRegistration));
}

#[test]
fn the_offsets_topic_is_made_as_groups_need_it() {
    let mut image = with_brokers(&[None]);
    let sizes = InternalTopics { offsets_replication: 1, ..InternalTopics::default() };
    let mut wanted = internal_topic("__consumer_offsets", &sizes).unwrap();
    assert_eq!((wanted.num_partitions, wanted.configs.len()), (50, 3));
    wanted.configs.clear();
    assert_eq!(create(&mut image, vec![wanted])[0].error_code, 0);
    assert!(internal_topic("other", &sizes).is_none());
    let auto = create_topics(&image, &named_topics(["x", "y!"]), &context());
    assert_eq!(auto.response.topics.iter().map(|t| t.error_code).collect::<Vec<_>>(), [0, 17]);
}
