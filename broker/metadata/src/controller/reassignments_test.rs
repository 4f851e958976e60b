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

/// Found by the simulator: the one that stayed eligible came back in disorder, and nobody could ever lead again.
#[test]
fn while_nobody_leads_a_move_is_not_taken_back_from_the_last_leader() {
    let policy = Policy { min_isr: 2, ..Policy::default() };
    let led_last = |first: i32, then: i32| {
        let mut image = cluster();
        assert_eq!(ask(&mut image, Some(&[3, 4]), true), 0);
        assert_eq!(in_sync(&mut image, &[(0, 10), (3, 13)]), 0);
        for id in [first, then] {
            image.apply_all(&fence(&image, id, &policy).unwrap().records).unwrap();
        }
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((&partition.isr[..], &partition.elr[..], partition.leader), (&[][..], &[0, 3][..], NO_LEADER));
        assert_eq!(partition.last_known_elr, [then]);
        image
    };
    assert_eq!(ask(&mut led_last(0, 3), None, true), ErrorCode::InvalidReplicaAssignment.code());
    assert_eq!(taken_back(&mut led_last(3, 0)), [0, 1, 2]);
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

/// The replicas that a cancellation leaves, in rising order.
fn taken_back(image: &mut Image) -> Vec<i32> {
    assert_eq!(ask(image, None, true), 0);
    let partition = image.partition("t", 0).unwrap();
    assert!(!partition.is_reassigning(), "{partition:?}");
    let mut replicas = partition.replicas.clone();
    replicas.sort_unstable();
    replicas
}

#[test]
fn a_move_that_replaced_another_goes_back_to_before_the_first() {
    // Kept by the second move, given up by it, and both.
    for second in [&[3, 4, 2][..], &[4, 1, 2], &[3, 1, 4]] {
        let mut image = cluster();
        assert_eq!(ask(&mut image, Some(&[3, 1, 2]), true), 0);
        assert_eq!(ask(&mut image, Some(second), true), 0);
        assert_eq!(taken_back(&mut image), [0, 1, 2], "{second:?}");
    }
    let mut image = cluster();
    assert_eq!(ask(&mut image, Some(&[3, 4, 0]), true), 0);
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (2, 12), (3, 13)]), 0);
    assert_eq!(ask(&mut image, Some(&[4, 1, 0]), true), 0, "3 is in sync, and not wanted any more");
    assert_eq!(image.partition("t", 0).unwrap().isr, [0, 1, 2, 3], "it leaves with the rest");
    assert_eq!(taken_back(&mut image), [0, 1, 2]);
    assert_eq!(image.partition("t", 0).unwrap().isr, [0, 1, 2]);
}

#[test]
fn a_move_that_replaced_another_ends_without_what_it_gave_up() {
    let mut image = cluster();
    assert_eq!(ask(&mut image, Some(&[0, 3, 2]), true), 0);
    assert_eq!(ask(&mut image, Some(&[0, 4, 2]), true), 0);
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (2, 12), (4, 14)]), 0);
    let done = image.partition("t", 0).unwrap();
    assert_eq!((&done.replicas[..], done.is_reassigning()), (&[0, 4, 2][..], false), "3 was not waited for");
    // Replaced by what there was is as good as taken back.
    assert_eq!(ask(&mut image, Some(&[0, 3, 2]), true), 0);
    assert_eq!(ask(&mut image, Some(&[0, 4, 2]), true), 0);
    let back = image.partition("t", 0).unwrap();
    assert_eq!((&back.replicas[..], back.is_reassigning()), (&[0, 4, 2][..], false));
}

/// Cordons all directories of a broker.
fn cordon(image: &mut Image, broker: i32) {
    let broker = image.broker(broker).unwrap();
    let record = crate::controller::broker_state::cordon(broker, Some(&broker.log_dirs.clone()));
    image.apply_all(&[record.unwrap()]).unwrap();
}

#[test]
fn a_cordoned_broker_gets_no_replica_and_none_back_that_it_gives_away() {
    let refused = ErrorCode::InvalidReplicaAssignment.code();
    let mut image = cluster();
    cordon(&mut image, 3);
    assert_eq!(ask(&mut image, Some(&[3, 1, 2]), true), refused);
    assert!(!image.partition("t", 0).unwrap().is_reassigning());
    cordon(&mut image, 2);
    assert_eq!(ask(&mut image, Some(&[4, 1, 2]), true), 0, "what is there may stay while others move");
    assert_eq!(taken_back(&mut image), [0, 1, 2]);
    // Off 2 goes one who drains it; another who does not know must not bring it back.
    assert_eq!(ask(&mut image, Some(&[0, 1, 4]), true), 0);
    assert_eq!(ask(&mut image, Some(&[4, 1, 2]), true), refused);
    assert_eq!(taken_back(&mut image), [0, 1, 2], "a cancellation does");
    // Cordoned after a move to it began: the move goes on, and may be changed otherwise.
    assert_eq!(ask(&mut image, Some(&[0, 4, 2]), true), 0);
    cordon(&mut image, 4);
    assert_eq!(ask(&mut image, Some(&[2, 4, 0]), true), 0);
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (2, 12), (4, 14)]), 0);
    assert_eq!(image.partition("t", 0).unwrap().replicas, [2, 4, 0]);
}

#[test]
fn new_partitions_are_not_put_on_a_cordoned_broker_by_hand() {
    use klamm_protocol::messages::create_partitions_request::{
        CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
    };
    let mut image = cluster();
    cordon(&mut image, 3);
    let text = "The manual partition assignment includes broker 3, but all its log directories are cordoned.";
    let mut request = named_topics(["u"]);
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (-1, -1);
    request.topics[0].assignments = vec![klamm_protocol::messages::create_topics_request::CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: vec![3, 1],
    }];
    let decided = create_topics(&image, &request, &context());
    let topic = &decided.response.topics[0];
    assert_eq!(
        (topic.error_code, topic.error_message.as_deref(), decided.records.len()),
        (ErrorCode::InvalidReplicaAssignment.code(), Some(text), 0)
    );
    let assignments = Some(vec![CreatePartitionsAssignment { broker_ids: vec![0, 1, 3] }]);
    let topic = CreatePartitionsTopic { name: "t".into(), count: 2, assignments };
    let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
    let decided = crate::controller::create_partitions(&image, &request, &context());
    assert_eq!(decided.response.results[0].error_message.as_deref(), Some(text));
}

#[test]
fn a_replica_is_missed_when_it_fell_behind_and_not_while_it_is_brought() {
    let mut image = cluster();
    assert_eq!(ask(&mut image, Some(&[3, 4, 0]), false), 0);
    let missed =
        |image: &Image| -> Vec<i32> { (0..6).filter(|id| image.partition("t", 0).unwrap().misses(*id)).collect() };
    assert!(missed(&image).is_empty(), "3 and 4 have nothing yet, and 0, 1 and 2 have it all");
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (3, 13)]), 0);
    assert_eq!(missed(&image), [2]);
    assert_eq!(in_sync(&mut image, &[(0, 10), (1, 11), (3, 13), (4, 14)]), 0);
    assert!(missed(&image).is_empty());
    assert_eq!(in_sync(&mut image, &[(0, 10), (3, 13)]), 0);
    assert_eq!(missed(&image), [4], "it is no longer brought");
}
