//! The image against its records: there and back, clones left alone, contradictions refused.

use klamm_protocol::messages::create_topics_request::{CreatableTopicConfig, CreateTopicsRequest};
use klamm_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use proptest::prelude::*;

use super::*;
use crate::controller::tests::{broker, context, with_brokers};
use crate::controller::{self, Policy, Registration, create_topics, delete_topics};
use crate::record;

/// What may happen to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8, Option<u8>),
    Delete(u8),
    ChangePartition(u8, u8, i32),
    Configure(u8, u8, Option<String>),
    Register(u8, bool),
    Unregister(u8),
    Fence(u8, i8),
    Feature(u8, i16),
    ProducerIds,
    ClearElr,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), 1..6u8, any::<Option<u8>>()).prop_map(|(n, p, c)| Step::Create(n, p, c)),
        2 => any::<u8>().prop_map(Step::Delete),
        3 => (any::<u8>(), any::<u8>(), -2..3i32).prop_map(|(t, p, l)| Step::ChangePartition(t, p, l)),
        3 => (0..4u8, 0..3u8, any::<Option<String>>()).prop_map(|(r, k, v)| Step::Configure(r, k, v)),
        1 => (0..6u8, any::<bool>()).prop_map(|(b, f)| Step::Register(b, f)),
        1 => (3..6u8).prop_map(Step::Unregister),
        1 => (0..6u8, -1..2i8).prop_map(|(b, f)| Step::Fence(b, f)),
        1 => (0..3u8, 0..4i16).prop_map(|(f, l)| Step::Feature(f, l)),
        1 => Just(Step::ProducerIds),
        1 => Just(Step::ClearElr),
    ]
}

fn name(n: u8) -> String {
    let separator = ["", ".", "_"][n as usize % 3];
    format!("t{separator}{}", n / 3)
}

/// Records that a step makes in the present image.
fn records(image: &Image, step: Step) -> Vec<MetadataRecord> {
    match step {
        Step::Create(n, partitions, config) => {
            let name = name(n);
            let mut request = controller::named_topics([name.as_str()]);
            request.topics[0].num_partitions = partitions.into();
            if let Some(value) = config {
                let config = CreatableTopicConfig { name: "retention.ms".into(), value: Some(value.to_string()) };
                request.topics[0].configs.push(config);
            }
            create_topics(image, &CreateTopicsRequest { ..request }, &context()).records
        }
        Step::Delete(n) => {
            let request = DeleteTopicsRequest { topic_names: vec![name(n)], ..Default::default() };
            delete_topics(image, &request, 5, true, &context()).records
        }
        Step::ChangePartition(t, p, leader) => {
            let topic = image.topics().nth(t as usize % image.topic_count().max(1));
            let change = topic.map(|topic| PartitionChangeRecord {
                topic_id: topic.id,
                partition_id: (p as usize % topic.partitions.len()) as i32,
                leader,
                isr: (p % 2 == 0).then(|| vec![leader.max(0)]),
                eligible_leader_replicas: (p % 3 == 0).then(|| vec![1]),
                ..PartitionChangeRecord::default()
            });
            change.into_iter().map(Into::into).collect()
        }
        Step::Configure(r, k, value) => {
            let (resource_type, resource_name) = [(4, ""), (4, "1"), (32, "g"), (4, "2")][r as usize];
            let (resource_name, name) = (resource_name.to_owned(), format!("key{k}"));
            vec![ConfigRecord { resource_type, resource_name, name, value }.into()]
        }
        Step::Register(b, fenced) => {
            let mut broker = broker(b.into(), (b % 2 == 0).then(|| format!("r{b}")));
            broker.fenced = fenced;
            let endpoint = Endpoint { name: "L".into(), host: "h".into(), port: 9092, security_protocol: 0 };
            broker.endpoints.push(endpoint);
            broker.incarnation = Uuid([b + 50; 16]);
            let wanted = Registration { cluster_id: "cluster".into(), broker, clean: false, predecessor_alive: false };
            // A broker that can't do a finalized feature is refused.
            controller::register_broker(image, &wanted, 1000, &Policy::default()).map_or(vec![], |d| d.records)
        }
        Step::Unregister(b) => {
            controller::unregister_broker(image, b.into(), &Policy::default()).map_or(vec![], |d| d.records)
        }
        Step::Fence(b, fenced) => {
            let change = image.broker(b.into()).map(|broker| BrokerRegistrationChangeRecord {
                broker_id: broker.id,
                broker_epoch: broker.epoch,
                fenced,
                ..Default::default()
            });
            change.into_iter().map(Into::into).collect()
        }
        Step::Feature(f, feature_level) => {
            vec![FeatureLevelRecord { name: format!("f{f}"), feature_level }.into()]
        }
        Step::ProducerIds => {
            let epoch = image.broker(0).map_or(0, |b| b.epoch);
            controller::allocate_producer_ids(image, 0, epoch).map_or(vec![], |d| d.records)
        }
        Step::ClearElr => vec![ClearElrRecord::default().into()],
    }
}

proptest! {
    #[test]
    fn an_image_is_its_records(steps in proptest::collection::vec(step(), 0..60)) {
        let mut image = with_brokers(&[None, None, None]);
        let mut log: Vec<MetadataRecord> = image.to_records();
        for step in steps {
            let before = image.clone();
            let untouched = image.to_records();
            let new = records(&image, step);
            let bytes = record::encode(&new).unwrap();
            let new = record::decode(&bytes).unwrap();
            image.apply_all(&new).unwrap();
            log.extend(new);
            prop_assert!(before.to_records() == untouched, "applying to a clone changed the original");
        }
        let mut replayed = Image::new("cluster");
        replayed.apply_all(&log).unwrap();
        prop_assert_eq!(&replayed, &image, "the log makes the image");
        let dumped = record::decode(&record::encode(&image.to_records()).unwrap()).unwrap();
        let mut restored = Image::new("cluster");
        restored.apply_all(&dumped).unwrap();
        prop_assert_eq!(&restored, &image, "a snapshot makes the image");
        prop_assert_eq!(image.partition_count(), image.topics().map(|t| t.partitions.len()).sum::<usize>());
        for topic in image.topics() {
            prop_assert_eq!(image.topic_by_id(topic.id).map(|t| &t.name), Some(&topic.name));
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = record::decode(&[bytes.into()]);
    }
}

#[test]
fn what_contradicts_the_image_is_an_error() {
    let mut image = with_brokers(&[None]);
    let id = Uuid([1; 16]);
    let topic = |name: &str, topic_id| MetadataRecord::from(TopicRecord { name: name.into(), topic_id });
    image.apply(&topic("t", id)).unwrap();
    let wrong: Vec<MetadataRecord> = vec![
        topic("t", Uuid([2; 16])),
        topic("u", id),
        topic("u", Uuid::ZERO),
        PartitionRecord { topic_id: Uuid([2; 16]), partition_id: 0, ..Default::default() }.into(),
        PartitionRecord { topic_id: id, partition_id: 1, ..Default::default() }.into(),
        PartitionRecord { topic_id: id, partition_id: -1, ..Default::default() }.into(),
        PartitionChangeRecord { topic_id: id, partition_id: 0, ..Default::default() }.into(),
        RemoveTopicRecord { topic_id: Uuid([2; 16]) }.into(),
        UnregisterBrokerRecord { broker_id: 0, broker_epoch: 1 }.into(),
        ClearElrRecord { topic_name: "nope".into() }.into(),
        ConfigRecord { resource_type: 3, ..Default::default() }.into(),
    ];
    for record in wrong {
        let error = image.clone().apply(&record).unwrap_err();
        assert!(matches!(error, ApplyError::Inconsistent(_)), "{record:?}");
    }
    let unsupported = MetadataRecord::from(DelegationTokenRecord::default());
    assert_eq!(image.apply(&unsupported), Err(ApplyError::Unsupported(10)));
}

#[test]
fn fifty_thousand_topics_are_cheap_to_clone_and_change() {
    let mut image = with_brokers(&[None]);
    let names: Vec<String> = (0..50_000).map(|i| format!("topic-{i}")).collect();
    for chunk in names.chunks(4_000) {
        let mut request = controller::named_topics(chunk.iter().map(String::as_str));
        request.topics.iter_mut().for_each(|t| t.num_partitions = 1);
        let decided = create_topics(&image, &request, &context());
        image.apply_all(&decided.records).unwrap();
    }
    assert_eq!(image.partition_count(), 50_000);
    let started = std::time::Instant::now();
    for i in 0..200 {
        let held = image.clone();
        let mut request = controller::named_topics([format!("more-{i}").as_str()]);
        request.topics[0].num_partitions = 1;
        image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
        assert_eq!(held.topic_count() + 1, image.topic_count());
    }
    println!("{:?} for a clone and a new topic among 50,000", started.elapsed() / 200);
}
