//! Sessions and the states that heartbeats lead a broker through.

use klamm_protocol::Uuid;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};

use super::*;
use crate::controller::create_topics;
use crate::controller::tests::{context, with_brokers};

const POLICY: Policy = Policy { min_isr: 2, unclean: false };

/// Three active brokers with epochs 10, 11, 12 and partitions led by each; the log stands at offset 20.
fn cluster() -> (Image, Heartbeats) {
    let mut image = with_brokers(&[None, None, None]);
    let assignment =
        |i: i32| CreatableReplicaAssignment { partition_index: i, broker_ids: vec![i, (i + 1) % 3, (i + 2) % 3] };
    let topic = CreatableTopic {
        name: "t".into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: (0..3).map(assignment).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    let heartbeats = Heartbeats::new(9000, &image, 1000);
    (image, heartbeats)
}

fn beat(broker_id: i32, offset: i64) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id,
        broker_epoch: i64::from(broker_id) + 10,
        current_metadata_offset: offset,
        ..BrokerHeartbeatRequest::default()
    }
}

#[track_caller]
fn send(
    image: &mut Image,
    heartbeats: &mut Heartbeats,
    request: &BrokerHeartbeatRequest,
    applied: i64,
    now_ms: u64,
) -> (bool, bool, bool) {
    loop {
        let decided = heartbeats.heartbeat(image, request, applied, now_ms, &POLICY).unwrap();
        image.apply_all(&decided.records).unwrap();
        if let Progress::Done(r) = decided.response {
            return (r.is_caught_up, r.is_fenced, r.should_shut_down);
        }
    }
}

#[test]
fn the_silent_are_found_after_a_session_and_not_before() {
    let (mut image, mut heartbeats) = cluster();
    assert_eq!(heartbeats.next_expiry_ms(&image), Some(10_000), "a new controller gives everyone a session");
    assert!(heartbeats.expired(&image, 9_999).is_empty());
    send(&mut image, &mut heartbeats, &beat(1, 20), 20, 5_000);
    assert_eq!(heartbeats.expired(&image, 10_000), [0, 2]);
    assert!(heartbeats.is_alive(&image, 1, 13_999) && !heartbeats.is_alive(&image, 1, 14_000));
    for id in [0, 2] {
        image.apply_all(&fence(&image, id, &POLICY).unwrap().records).unwrap();
    }
    assert!(heartbeats.expired(&image, 10_000).is_empty());
    let leaders: Vec<i32> = image.topic("t").unwrap().partitions.iter().map(|p| p.leader).collect();
    assert_eq!(leaders, [1, 1, 1]);
    // Fenced is fenced, however often.
    assert!(fence(&image, 0, &POLICY).unwrap().records.is_empty());
    assert!(!heartbeats.is_alive(&image, 0, 10_000));
}

#[test]
fn nobody_is_missed_for_the_time_that_the_controller_itself_stood_still() {
    let (mut image, mut heartbeats) = cluster();
    for id in [1, 2] {
        send(&mut image, &mut heartbeats, &beat(id, 20), 20, 3_000);
    }
    // From 4,000 on it was not there; broker 0 had been silent for 3 s by then, the others for one.
    heartbeats.stood_still(20_000, 24_000);
    assert!(heartbeats.expired(&image, 29_999).is_empty());
    assert_eq!(heartbeats.expired(&image, 30_000), [0]);
    assert_eq!(heartbeats.expired(&image, 32_000), [0, 1, 2]);
    // Who was heard of at the end of it was heard of then, not later.
    send(&mut image, &mut heartbeats, &beat(0, 20), 20, 33_000);
    heartbeats.stood_still(5_000, 33_000);
    assert!(heartbeats.is_alive(&image, 0, 41_999) && !heartbeats.is_alive(&image, 0, 42_000));
}

#[test]
fn a_fenced_broker_comes_in_when_it_has_read_its_own_registration() {
    let (mut image, mut heartbeats) = cluster();
    image.apply_all(&fence(&image, 0, &POLICY).unwrap().records).unwrap();
    assert_eq!(send(&mut image, &mut heartbeats, &beat(0, 9), 20, 2_000), (false, true, false));
    let wary = BrokerHeartbeatRequest { want_fence: true, ..beat(0, 20) };
    assert_eq!(send(&mut image, &mut heartbeats, &wary, 20, 2_000), (true, true, false));
    assert_eq!(send(&mut image, &mut heartbeats, &beat(0, 20), 20, 2_000), (true, false, false));
    assert!(image.is_active(0));
    let stale = BrokerHeartbeatRequest { broker_epoch: 9, ..beat(0, 20) };
    let refused = heartbeats.heartbeat(&image, &stale, 20, 2_000, &POLICY).unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleBrokerEpoch);
    let stranger = BrokerHeartbeatRequest { broker_id: 7, ..beat(0, 20) };
    let refused = heartbeats.heartbeat(&image, &stranger, 20, 2_000, &POLICY).unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleBrokerEpoch);
}

#[test]
fn a_broker_stops_when_its_leadership_is_gone_and_the_others_know() {
    let (mut image, mut heartbeats) = cluster();
    for id in [1, 2] {
        send(&mut image, &mut heartbeats, &beat(id, 20), 20, 2_000);
    }
    let stop = BrokerHeartbeatRequest { want_shut_down: true, ..beat(0, 20) };
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 20, 2_000), (true, false, false));
    assert!(image.broker(0).unwrap().in_controlled_shutdown && !image.leads_any(0));
    assert!(image.topic("t").unwrap().partitions.iter().all(|p| !p.isr.contains(&0)));
    // The moves are at offset 21, which nobody else has read.
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 21, 2_100), (true, false, false));
    send(&mut image, &mut heartbeats, &beat(1, 21), 21, 2_200);
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 21, 2_300), (true, false, false));
    send(&mut image, &mut heartbeats, &beat(2, 22), 22, 2_400);
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 22, 2_500), (true, true, true));
    assert!(image.broker(0).unwrap().fenced);
    // Asked again because the answer was lost.
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 23, 2_600), (true, true, true));
}

#[test]
fn a_broker_that_leads_nothing_stops_at_once() {
    let mut image = with_brokers(&[None, None]);
    let mut heartbeats = Heartbeats::new(9000, &image, 0);
    let stop = BrokerHeartbeatRequest { want_shut_down: true, ..beat(1, 20) };
    assert_eq!(send(&mut image, &mut heartbeats, &stop, 20, 10), (true, true, true));
}

#[test]
fn a_failed_directory_takes_its_replicas_out_and_a_cordoned_one_is_known() {
    let (mut image, mut heartbeats) = cluster();
    let (own, spare) = (Uuid([100; 16]), Uuid([99; 16]));
    let mut broker = Broker::clone(image.broker(0).unwrap());
    broker.log_dirs.push(spare);
    image.apply(&crate::dump::registration(&broker).into()).unwrap();
    let failed =
        BrokerHeartbeatRequest { offline_log_dirs: vec![own], cordoned_log_dirs: Some(vec![spare]), ..beat(0, 20) };
    assert_eq!(send(&mut image, &mut heartbeats, &failed, 20, 2_000), (true, false, false));
    let broker = image.broker(0).unwrap();
    assert_eq!((&broker.log_dirs[..], broker.cordoned_log_dirs.as_deref()), (&[spare][..], Some(&[spare][..])));
    for partition in &image.topic("t").unwrap().partitions {
        assert!(partition.leader != 0 && !partition.isr.contains(&0), "{partition:?}");
    }
    let again = heartbeats.heartbeat(&image, &failed, 20, 2_000, &POLICY).unwrap();
    assert!(again.records.is_empty(), "said once: {:?}", again.records);
}

#[test]
fn many_partitions_are_fenced_part_by_part() {
    let mut image = with_brokers(&[None, None]);
    for n in 0..3 {
        let mut request = crate::controller::named_topics([format!("t{n}").as_str()]);
        (request.topics[0].num_partitions, request.topics[0].replication_factor) = (8_000, 2);
        image.apply_all(&create_topics(&image, &request, &context()).records).unwrap();
    }
    let mut parts = 0;
    loop {
        let decided = fence(&image, 0, &POLICY).unwrap();
        assert!(decided.records.len() <= crate::controller::RECORDS_MAX);
        image.apply_all(&decided.records).unwrap();
        parts += 1;
        if decided.response == Progress::Done(()) {
            break;
        }
        assert!(!image.broker(0).unwrap().fenced, "the last part says so");
    }
    assert_eq!(parts, 3);
    assert!(image.broker(0).unwrap().fenced && !image.leads_any(0));
    assert_eq!(image.led_by(1).count(), 24_000);
}
