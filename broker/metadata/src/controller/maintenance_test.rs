//! Brokers in maintenance lead only what nobody else can, and not for longer than was said.

use klamm_protocol::messages::alter_configs_request::{self, AlterConfigsRequest};
use klamm_protocol::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::*;
use crate::controller::tests::{context, with_brokers};
use crate::controller::{
    alter_configs, balance_leaders, create_topics, elect_leaders, fence, incremental_alter_configs, named_topics,
};
use crate::image::ResourceType;

const POLICY: Policy = Policy { min_isr: 1, unclean: false };

fn set(image: &mut Image, broker: i32, until: Option<&str>) {
    image.apply(&config_record(&Resource::broker(broker), UNTIL, until).into()).unwrap();
}

/// Partitions of one replica and of three on three brokers, as they were created.
fn cluster() -> Image {
    let mut image = with_brokers(&[None, None, None]);
    create(&mut image, "one", 1);
    create(&mut image, "three", 3);
    image
}

fn create(image: &mut Image, name: &str, factor: i16) {
    let mut request = named_topics([name]);
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (9, factor);
    image.apply_all(&create_topics(image, &request, &context()).records).unwrap();
}

/// How many partitions of a topic a broker leads.
fn leads(image: &Image, topic: &str, broker: i32) -> usize {
    image.topic(topic).unwrap().partitions.iter().filter(|p| p.leader == broker).count()
}

#[test]
fn a_broker_in_maintenance_gives_its_leaderships_away_and_gets_none() {
    let mut image = cluster();
    assert!(lead_away(&image, &POLICY).records.is_empty(), "nobody is in maintenance");
    set(&mut image, 0, Some("1000"));
    assert_eq!(image.maintenance().get(&0), Some(&1000));
    let decided = lead_away(&image, &POLICY);
    assert_eq!((decided.records.len(), decided.response), (3, Progress::Done(())));
    image.apply_all(&decided.records).unwrap();
    assert_eq!((leads(&image, "three", 0), leads(&image, "one", 0)), (0, 3), "what only it has it leads on");
    assert!(image.topic("three").unwrap().partitions.iter().all(|p| p.isr.len() == 3), "it stays in sync");
    assert!(lead_away(&image, &POLICY).records.is_empty());

    assert!(balance_leaders(&image, 0, 100, &POLICY).records.is_empty());
    let asked = TopicPartitions { topic: "three".into(), partitions: (0..9).collect() };
    let asked = ElectLeadersRequest { topic_partitions: Some(vec![asked]), ..Default::default() };
    let refused = elect_leaders(&image, &asked, &context()).unwrap();
    assert!(refused.records.is_empty());
    create(&mut image, "new", 3);
    assert_eq!(leads(&image, "new", 0), 0);
    let replicas = image.topic("new").unwrap().partitions.iter().filter(|p| p.replicas[0] == 0).count();
    assert_eq!(replicas, 3, "its share all the same, for when it is over");

    image.apply_all(&fence(&image, 1, &POLICY).unwrap().records).unwrap();
    assert_eq!((leads(&image, "three", 0), leads(&image, "three", 2)), (0, 9), "passed over");
    image.apply_all(&fence(&image, 2, &POLICY).unwrap().records).unwrap();
    assert_eq!(leads(&image, "three", 0), 9, "better than nobody");

    let mut again = Image::new(image.cluster_id());
    again.apply_all(&image.to_records()).unwrap();
    assert_eq!(again, image, "a snapshot says so, too");
}

#[test]
fn maintenance_ends_at_its_time_or_when_it_is_cleared() {
    let mut image = cluster();
    set(&mut image, 0, Some("1000"));
    set(&mut image, 2, Some("2000"));
    assert!(end_expired(&image, 999).records.is_empty());
    let decided = end_expired(&image, 1000);
    assert_eq!(decided.response, [0]);
    image.apply_all(&decided.records).unwrap();
    assert_eq!(image.maintenance().keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(image.config(&Resource::broker(0)), None, "nothing is left of it");
    set(&mut image, 2, None);
    assert!(image.maintenance().is_empty() && end_expired(&image, i64::MAX).records.is_empty());
}

#[test]
fn leaderships_return_when_it_is_over() {
    let mut image = cluster();
    set(&mut image, 0, Some("1000"));
    image.apply_all(&lead_away(&image, &POLICY).records).unwrap();
    image.apply_all(&end_expired(&image, 1000).records).unwrap();
    image.apply_all(&balance_leaders(&image, 0, 100, &POLICY).records).unwrap();
    assert_eq!(leads(&image, "three", 0), 3);
}

#[test]
fn with_all_in_maintenance_all_stays_as_it_is() {
    let mut image = cluster();
    (0..3).for_each(|id| set(&mut image, id, Some("1000")));
    assert!(lead_away(&image, &POLICY).records.is_empty());
    create(&mut image, "new", 3);
    assert_eq!(leads(&image, "new", 0), 3);
}

#[test]
fn what_is_no_time_puts_nobody_in_maintenance() {
    let mut image = cluster();
    set(&mut image, 0, Some("tomorrow"));
    image.apply(&config_record(&Resource::all_brokers(), UNTIL, Some("1000")).into()).unwrap();
    assert!(image.maintenance().is_empty());
}

#[test]
fn maintenance_cannot_be_asked_for_longer_than_a_week() {
    let image = cluster();
    let now = context().now_ms;
    let code = |until: i64, legacy: bool| {
        let value = Some(until.to_string());
        if legacy {
            let configs = vec![alter_configs_request::AlterableConfig { name: UNTIL.into(), value }];
            let resource = alter_configs_request::AlterConfigsResource {
                resource_type: ResourceType::Broker as i8,
                resource_name: "0".into(),
                configs,
            };
            let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
            let decided = alter_configs(&image, &request, &context());
            return (decided.records.len(), decided.response.responses[0].error_code);
        }
        let configs = vec![AlterableConfig { name: UNTIL.into(), config_operation: 0, value }];
        let resource =
            AlterConfigsResource { resource_type: ResourceType::Broker as i8, resource_name: "0".into(), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let decided = incremental_alter_configs(&image, &request, &context());
        (decided.records.len(), decided.response.responses[0].error_code)
    };
    let refused = (0, ErrorCode::InvalidConfig.code());
    for legacy in [false, true] {
        assert_eq!(code(now + LONGEST_MS, legacy), (1, 0));
        assert_eq!(code(now + LONGEST_MS + CLOCKS_DIFFER_MS + 1, legacy), refused);
        assert_eq!(code(i64::MAX, legacy), refused);
        assert_eq!(code(now - 1, legacy), (1, 0), "it is over at once");
    }
}
