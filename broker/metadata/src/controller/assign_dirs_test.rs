//! A damaged replica is taken out of everything, or left where it is when nobody else has the records.

use klamm_protocol::messages::PartitionChangeRecord;
use klamm_protocol::messages::assign_replicas_to_dirs_request as asks;

use super::*;
use crate::controller::tests::{context, with_brokers};
use crate::controller::{create_topics, fence, named_topics};
use crate::image::Partition;

const POLICY: Policy = Policy { min_isr: 2, unclean: false };

fn cluster() -> Image {
    let mut image = with_brokers(&[None, None, None]);
    let mut request = named_topics(["t"]);
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (1, 3);
    image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    image
}

fn partition(image: &Image) -> Partition {
    image.topic("t").unwrap().partition(0).unwrap().as_ref().clone()
}

fn lost(image: &mut Image, broker: i32) -> i16 {
    let topic_id = image.topic("t").unwrap().id;
    let partitions = vec![asks::PartitionData { partition_index: 0, ..Default::default() }];
    let topics = vec![asks::TopicData { topic_id, partitions, ..Default::default() }];
    let directories = vec![asks::DirectoryData { id: Uuid::LOST_DIRECTORY, topics, ..Default::default() }];
    let broker_epoch = image.broker(broker).unwrap().epoch;
    let request = AssignReplicasToDirsRequest { broker_id: broker, broker_epoch, directories, ..Default::default() };
    let decided = assign_replicas_to_dirs(image, &request, &POLICY).unwrap();
    image.apply_all(&decided.records).unwrap();
    decided.response.directories[0].topics[0].partitions[0].error_code
}

#[test]
fn a_damaged_replica_counts_for_nothing_and_what_it_said_before_neither() {
    for leads in [true, false] {
        let mut image = cluster();
        let before = partition(&image);
        let broker = if leads { before.leader } else { before.replicas[2] };
        assert_eq!(lost(&mut image, broker), 0);
        let after = partition(&image);
        assert!(after.leader_epoch > before.leader_epoch, "fetches of the old epoch are refused");
        assert!(!after.isr.contains(&broker) && !after.elr.contains(&broker) && after.leader != broker, "{after:?}");
        assert_eq!(after.isr.len(), 2);
        assert_eq!(after.directory(broker), Uuid::LOST_DIRECTORY);
        assert!(!can_lead(&image, &after, broker));
        // Saying it again changes nothing.
        assert_eq!(lost(&mut image, broker), 0);
        assert_eq!(partition(&image).leader_epoch, after.leader_epoch);
    }
}

#[test]
fn it_is_not_eligible_either_when_the_others_are_too_few() {
    let mut image = cluster();
    let before = partition(&image);
    image.apply_all(&fence(&image, before.replicas[2], &POLICY).unwrap().records).unwrap();
    assert_eq!(lost(&mut image, before.replicas[1]), 0);
    let after = partition(&image);
    assert_eq!(after.isr, [before.replicas[0]]);
    assert!(!after.elr.contains(&before.replicas[1]), "{after:?}");
}

#[test]
fn the_last_replica_in_sync_stays_whatever_it_says() {
    let mut image = cluster();
    let before = partition(&image);
    let topic_id = image.topic("t").unwrap().id;
    let isr = Some(vec![before.leader]);
    let alone = PartitionChangeRecord { topic_id, partition_id: 0, isr, ..Default::default() };
    image.apply(&alone.into()).unwrap();
    assert_eq!(lost(&mut image, before.leader), ErrorCode::EligibleLeadersNotAvailable.code());
    assert_eq!(partition(&image).leader, before.leader);
    // Nor does one in sync with it count that is not alive.
    let mut image = cluster();
    for id in [before.replicas[1], before.replicas[2]] {
        image.apply_all(&fence(&image, id, &POLICY).unwrap().records).unwrap();
    }
    assert_ne!(lost(&mut image, before.replicas[0]), 0);
}
