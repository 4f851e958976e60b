//! What a restart would do, partition by partition.

use klamm_protocol::messages::{ConfigRecord, PartitionChangeRecord};

use super::*;
use crate::controller::tests::{context, with_brokers};
use crate::controller::{create_topics, named_topics};

#[test]
fn a_restart_is_safe_when_enough_stay_in_sync() {
    let mut image = with_brokers(&[None, None, None]);
    let mut request = named_topics(["one", "three"]);
    for (topic, factor) in request.topics.iter_mut().zip([1, 3]) {
        (topic.num_partitions, topic.replication_factor) = (3, factor);
    }
    image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    let policy = Policy { min_isr: 2, unclean: false };
    let harms = |image: &Image, broker: i32| -> Vec<(String, i32, Harm)> {
        let at_risk = restart_safety(image, broker, &policy);
        at_risk.into_iter().map(|r| (r.topic.to_string(), r.partition, r.harm)).collect()
    };
    let alone = (0..3).find(|n| image.partition("one", *n).unwrap().leader == 0).unwrap();
    assert_eq!(harms(&image, 0), [("one".into(), alone, Harm::Offline)], "RF 3 loses one without harm");
    let only = &restart_safety(&image, 0, &policy)[0];
    assert_eq!((only.min_isr, only.always), (1, true), "no waiting gives it a second replica");
    let topic_id = image.topic("three").unwrap().id;
    let isr = Some(vec![0, 1]);
    let shrunk = PartitionChangeRecord { topic_id, partition_id: 2, isr, leader: 0, ..Default::default() };
    image.apply(&shrunk.into()).unwrap();
    assert!(harms(&image, 0).contains(&("three".into(), 2, Harm::BelowMinIsr)));
    assert!(!harms(&image, 2).iter().any(|(topic, _, _)| topic == "three"), "2 isn't in sync anyway");
    let last = PartitionChangeRecord { topic_id, partition_id: 2, isr: Some(vec![0]), ..Default::default() };
    image.apply(&last.into()).unwrap();
    assert!(harms(&image, 0).contains(&("three".into(), 2, Harm::Offline)));
    // The topic's own value counts.
    let min_isr = ConfigRecord {
        resource_type: 2,
        resource_name: "three".into(),
        name: "min.insync.replicas".into(),
        value: Some("3".into()),
    };
    image.apply(&min_isr.into()).unwrap();
    assert!(harms(&image, 1).contains(&("three".into(), 0, Harm::BelowMinIsr)));
    let always = |broker: i32, partition: i32| -> Option<bool> {
        let all = restart_safety(&image, broker, &policy);
        all.into_iter().find(|r| &*r.topic == "three" && r.partition == partition).map(|r| r.always)
    };
    assert_eq!(always(1, 0), Some(true), "it needs all three");
    assert_eq!(always(0, 2), Some(false), "its other replicas may come back");
}
