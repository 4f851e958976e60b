//! Reassignments from their start to their end, and back.

use klamm_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_protocol::messages::alter_partition_request::{AlterPartitionRequest, BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

use super::*;
use crate::controller::tests::{context, with_brokers};
use crate::controller::{Policy, alter_partition, create_topics, fence, named_topics};

/// One partition on brokers 0, 1 and 2 of five.
fn cluster() -> Image {
    let mut image = with_brokers(&[None, None, None, None, None]);
    let mut request = named_topics(["t"]);
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (-1, -1);
    request.topics[0].assignments = vec![klamm_protocol::messages::create_topics_request::CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: vec![0, 1, 2],
    }];
    image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    image
}

/// Asks for a reassignment and answers with its code.
fn ask(image: &mut Image, replicas: Option<&[i32]>, free: bool) -> i16 {
    let partition = ReassignablePartition { partition_index: 0, replicas: replicas.map(<[i32]>::to_vec) };
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: free,
        topics: vec![ReassignableTopic { name: "t".into(), partitions: vec![partition] }],
        ..Default::default()
    };
    let decided = alter_partition_reassignments(image, &request, &context());
    image.apply_all(&decided.records).unwrap();
    decided.response.responses[0].partitions[0].error_code
}

/// The leader reports an ISR; the answer's code.
fn in_sync(image: &mut Image, isr: &[(i32, i64)]) -> i16 {
    let partition = image.partition("t", 0).unwrap().clone();
    let data = PartitionData {
        partition_index: 0,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        new_isr_with_epochs: isr
            .iter()
            .map(|(broker_id, broker_epoch)| BrokerState { broker_id: *broker_id, broker_epoch: *broker_epoch })
            .collect(),
        ..PartitionData::default()
    };
    let request = AlterPartitionRequest {
        broker_id: partition.leader,
        broker_epoch: i64::from(partition.leader) + 10,
        topics: vec![TopicData { topic_id: image.topic("t").unwrap().id, partitions: vec![data] }],
    };
    let decided = alter_partition(image, &request, 3, &Policy::default()).unwrap();
    image.apply_all(&decided.records).unwrap();
    decided.response.topics[0].partitions[0].error_code
}

fn list(image: &Image, topics: Option<Vec<ListPartitionReassignmentsTopics>>) -> Vec<OngoingTopicReassignment> {
    let request = ListPartitionReassignmentsRequest { topics, timeout_ms: 0 };
    list_partition_reassignments(image, &request, &|_, _| true).topics
}

#[test]
fn a_partition_moves_when_its_new_replicas_are_in_sync() {
    let mut image = cluster();
    assert!(list(&image, None).is_empty());
    assert_eq!(ask(&mut image, Some(&[3, 4, 0]), false), 0);
    let moving = list(&image, None);
    let partition = &moving[0].partitions[0];
    assert_eq!(partition.replicas, [3, 4, 0, 1, 2]);
    assert_eq!((&partition.adding_replicas[..], &partition.removing_replicas[..]), (&[3, 4][..], &[1, 2][..]));
    let named = ListPartitionReassignmentsTopics { name: "t".into(), partition_indexes: vec![0, 9] };
    assert_eq!(list(&image, Some(vec![named])), moving);
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (2, 12), (3, 13)]), 0);
    assert_eq!(image.partition("t", 0).unwrap().replicas.len(), 5, "4 is still missing");
    assert_eq!(in_sync(&mut image, &[(0, 10), (3, 13), (4, 99)]), ErrorCode::IneligibleReplica.code());
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (3, 13), (4, 14)]), 0);
    let done = image.partition("t", 0).unwrap();
    assert_eq!((&done.replicas[..], done.leader, done.leader_epoch), (&[3, 4, 0][..], 0, 1));
    assert_eq!((&done.isr[..], done.directories.len()), (&[0, 3, 4][..], 3));
    assert!(list(&image, None).is_empty());
    assert_eq!(image.partitions_of(1).count() + image.partitions_of(2).count(), 0);
    // The leader isn't among the new replicas: it hears that another was elected.
    assert_eq!(ask(&mut image, Some(&[3, 4]), true), 0);
    let done = image.partition("t", 0).unwrap();
    assert_eq!((&done.replicas[..], done.leader), (&[3, 4][..], 3), "what is in sync already needs no wait");
}

#[test]
fn a_leader_that_moves_away_is_told_of_its_successor() {
    let mut image = cluster();
    assert_eq!(ask(&mut image, Some(&[3]), true), 0);
    assert_eq!(in_sync(&mut image, &[(0, 10), (3, 13)]), ErrorCode::NewLeaderElected.code());
    let done = image.partition("t", 0).unwrap();
    assert_eq!((&done.replicas[..], done.leader, &done.isr[..]), (&[3][..], 3, &[3][..]));
}

#[test]
fn a_reassignment_can_be_taken_back_unless_records_would_be_lost() {
    let mut image = cluster();
    assert_eq!(ask(&mut image, None, true), ErrorCode::NoReassignmentInProgress.code());
    assert_eq!(ask(&mut image, Some(&[3, 4, 0]), true), 0);
    assert_eq!(ask(&mut image, None, true), 0);
    let back = image.partition("t", 0).unwrap();
    assert_eq!((&back.replicas[..], back.is_reassigning()), (&[0, 1, 2][..], false));
    assert_eq!(ask(&mut image, Some(&[3, 4]), true), 0);
    assert_eq!(in_sync(&mut image, &[(0, 10), (3, 13)]), 0);
    for id in [0, 1, 2] {
        image.apply_all(&fence(&image, id, &Policy::default()).unwrap().records).unwrap();
    }
    assert_eq!(image.partition("t", 0).unwrap().isr, [3]);
    assert_eq!(ask(&mut image, None, true), ErrorCode::InvalidReplicaAssignment.code(), "only 3 holds everything");
}

#[test]
fn nonsense_is_refused_as_in_kafka() {
    let mut image = cluster();
    assert_eq!(ask(&mut image, Some(&[]), true), ErrorCode::InvalidReplicaAssignment.code());
    assert_eq!(ask(&mut image, Some(&[0, 0]), true), ErrorCode::InvalidReplicaAssignment.code());
    assert_eq!(ask(&mut image, Some(&[0, 77]), true), ErrorCode::InvalidReplicaAssignment.code());
    assert_eq!(ask(&mut image, Some(&[0, 1]), false), ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(ask(&mut image, Some(&[0, 1, 2]), false), 0, "nothing to do");
    assert_eq!(image.partition("t", 0).unwrap().partition_epoch, 0);
}
