//! Elections on request and by the balancer.

use klamm_protocol::messages::elect_leaders_request::TopicPartitions;

use super::*;
use crate::controller::tests::{context, with_brokers};
use crate::controller::{create_topics, fence, named_topics, unfence};

const POLICY: Policy = Policy { min_isr: 1, unclean: false };

/// Ten partitions over three brokers; broker 0 was away and leads nothing.
fn cluster() -> Image {
    let mut image = with_brokers(&[None, None, None]);
    let mut request = named_topics(["t"]);
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (9, 3);
    image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    image.apply_all(&fence(&image, 0, &POLICY).unwrap().records).unwrap();
    image
}

/// Puts broker 0 back into all ISRs.
fn back_in_sync(image: &mut Image) {
    image.apply_all(&unfence(image, 0, &POLICY).unwrap().records).unwrap();
    let topic = image.topic("t").unwrap().clone();
    for number in 0..9 {
        let isr = Some(vec![0, 1, 2]);
        let record = PartitionChangeRecord { topic_id: topic.id, partition_id: number, isr, ..Default::default() };
        image.apply(&record.into()).unwrap();
    }
}

fn request(election_type: i8, partitions: Option<&[i32]>) -> ElectLeadersRequest {
    let topics = partitions.map(|p| vec![TopicPartitions { topic: "t".into(), partitions: p.to_vec() }]);
    ElectLeadersRequest { election_type, topic_partitions: topics, timeout_ms: 0 }
}

fn codes(response: &ElectLeadersResponse) -> Vec<i16> {
    response.replica_election_results.iter().flat_map(|t| t.partition_result.iter().map(|p| p.error_code)).collect()
}

#[test]
fn leadership_goes_back_to_the_preferred_when_they_can_take_it() {
    let mut image = cluster();
    let preferred = |image: &Image, broker: i32| -> Vec<i32> {
        let partitions = &image.topic("t").unwrap().partitions;
        (0..).zip(partitions).filter(|(_, p)| p.replicas[0] == broker).map(|(n, _)| n).collect()
    };
    let (away, home) = (preferred(&image, 0), preferred(&image, 1));
    let asked = request(PREFERRED, Some(&[away[0], home[0], 99]));
    let refused = elect_leaders(&image, &asked, &context()).unwrap();
    assert_eq!(codes(&refused.response), [80, 84, 3], "not available, not needed, not there");
    assert!(refused.records.is_empty());
    back_in_sync(&mut image);
    let twice = request(PREFERRED, Some(&[away[0], away[0]]));
    let one = elect_leaders(&image, &twice, &context()).unwrap();
    assert_eq!((codes(&one.response), one.records.len()), (vec![0, 84], 1));
    let all = elect_leaders(&image, &request(PREFERRED, None), &context()).unwrap();
    assert_eq!((codes(&all.response), all.records.len()), (vec![0, 0, 0], 3), "those already home aren't named");
    image.apply_all(&all.records).unwrap();
    assert!(image.topic("t").unwrap().partitions.iter().all(|p| p.leader == p.replicas[0]));
    let error = elect_leaders(&image, &request(7, None), &context()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
}

#[test]
fn an_unclean_election_takes_whoever_lives() {
    let mut image = cluster();
    for id in [1, 2] {
        image.apply_all(&fence(&image, id, &POLICY).unwrap().records).unwrap();
    }
    let nobody = elect_leaders(&image, &request(UNCLEAN, Some(&[0])), &context()).unwrap();
    assert_eq!(codes(&nobody.response), [83]);
    image.apply_all(&unfence(&image, 0, &POLICY).unwrap().records).unwrap();
    assert!(!image.leads_any(0), "not by itself");
    let any = elect_leaders(&image, &request(UNCLEAN, None), &context()).unwrap();
    assert_eq!(codes(&any.response), [0; 9]);
    image.apply_all(&any.records).unwrap();
    for p in &image.topic("t").unwrap().partitions {
        assert_eq!((p.leader, &p.isr[..], p.leader_recovery_state, p.elr.len()), (0, &[0][..], 1, 0));
    }
    let again = elect_leaders(&image, &request(UNCLEAN, Some(&[0])), &context()).unwrap();
    assert_eq!(codes(&again.response), [84]);
}

#[test]
fn the_balancer_moves_some_at_a_time_and_only_above_its_limit() {
    let mut image = cluster();
    assert!(balance_leaders(&image, 10, 5, &POLICY).records.is_empty(), "0 is fenced");
    back_in_sync(&mut image);
    assert!(balance_leaders(&image, 100, 5, &POLICY).records.is_empty(), "three of three is 100 %, not more");
    let some = balance_leaders(&image, 10, 2, &POLICY);
    assert_eq!((some.records.len(), some.response), (2, true));
    image.apply_all(&some.records).unwrap();
    let rest = balance_leaders(&image, 10, 2, &POLICY);
    assert_eq!((rest.records.len(), rest.response), (1, false));
    image.apply_all(&rest.records).unwrap();
    assert!(balance_leaders(&image, 0, 2, &POLICY).records.is_empty());
}
