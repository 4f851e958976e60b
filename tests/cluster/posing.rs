//! Clients that pose as brokers: fetches in the name of a replica, requests that only brokers send each other.
//!
//! All listeners are plain text here, and clients use the one of the brokers: the case in which posing is easiest.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::{
    Acks, Client, Connection, ConnectionOptions, Consumer, ConsumerOptions, Producer, ProducerOptions, ProducerRecord,
    TopicPartition,
};
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest, FetchRequest,
    FetchResponse, KlammForwardRequest, KlammQuorumRequest, ListOffsetsRequest,
};
use klamm_protocol::wire::Reader;
use klamm_protocol::{Request, Uuid, frame};
use klamm_tests::{Cluster, Peer, Plan, assert_contains, eventually, wire};

use crate::judge::same_metadata;
use crate::view::View;
use crate::workload::options;

/// Sends one request over a connection of its own; `None` when the broker hangs up instead of answering.
fn ask<R: Request>(address: &str, request: &R, version: i16) -> Option<R::Response> {
    let frame = frame::encode_request(1, Some("poser"), request, version).and_then(|encoded| encoded.into_bytes());
    let mut connection = wire::Connection::open(address, Duration::from_secs(5)).expect("a connection");
    connection.send_raw(&frame.expect("a frame")).expect("sent");
    match connection.receive() {
        Ok(bytes) => {
            let answer = frame::decode_response::<R>(&mut Reader::new(Bytes::from(bytes)), version);
            Some(answer.expect("an answer").1)
        }
        Err(error) => {
            let gone = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
            assert!(gone.contains(&error.kind()), "{}: {error}", R::NAME);
            None
        }
    }
}

/// A fetch of `topic`-0 from `offset` on, as a replica would send it.
fn fetch(topic: (&str, Uuid), replica: i32, epoch: i64, offset: i64, version: i16) -> FetchRequest {
    let partition = FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        ..Default::default()
    };
    let mut asked = FetchTopic { partitions: vec![partition], ..Default::default() };
    if version >= 13 {
        asked.topic_id = topic.1;
    } else {
        asked.topic = topic.0.to_owned();
    }
    let mut request = FetchRequest { max_wait_ms: 10, max_bytes: 1 << 20, topics: vec![asked], ..Default::default() };
    if version >= 15 {
        request.replica_state = ReplicaState { replica_id: replica, replica_epoch: epoch, ..Default::default() };
    } else {
        request.replica_id = replica;
    }
    request
}

/// The error of a fetch, as a whole or of its partition, and the bytes of records that came with it.
fn outcome(answer: &FetchResponse) -> (ErrorCode, usize) {
    let partitions: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).collect();
    let code = partitions.iter().map(|p| p.error_code).find(|code| *code != 0).unwrap_or(0);
    let code = if answer.error_code == 0 { code } else { answer.error_code };
    (ErrorCode::from_code(code), partitions.iter().filter_map(|p| p.records.as_ref()).map(|r| r.len()).sum())
}

/// Where consumers see `topic`-0 end.
fn visible_end(address: &str, topic: &str) -> i64 {
    let partition = ListOffsetsPartition { timestamp: -1, current_leader_epoch: -1, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition], ..Default::default() }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = ask(address, &request, 7).expect("an answer");
    answer.topics[0].partitions[0].offset
}

pub async fn write(bootstrap: &str, topic: &str, value: &'static str, acks: Acks) {
    let client = Client::connect(bootstrap, options()).await.expect("a cluster");
    let settings = ProducerOptions { acks, idempotent: acks == Acks::All, ..Default::default() };
    let producer = Producer::start(&client, settings).expect("good options");
    let record =
        ProducerRecord { topic: topic.into(), value: Some(Bytes::from_static(value.as_bytes())), ..Default::default() };
    producer.send(record).await.expect("sent").wait().await.expect("acknowledged");
}

#[test]
fn nothing_counts_as_held_because_a_client_says_that_it_is_a_replica() {
    let mut cluster = Cluster::start(Plan { peer: Peer::Klamm, ..Plan::default() });
    let view = View::of(&cluster);
    let topic = "posed";
    view.create(&mut cluster, topic, 1, &[]);
    view.run(write(&cluster.bootstrap(), topic, "first", Acks::All));
    let leader = view.leader(&mut cluster, topic, 0);
    let others: Vec<usize> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let address = cluster.address(leader);
    let id = view.metadata(&cluster, leader, Some(&[topic])).expect("metadata").topics[0].topic_id;
    eventually("the first record", 10, || (visible_end(&address, topic) == 1).then_some(()));

    // Nobody but the leader has the second record, and it would go with the leader.
    for other in &others {
        cluster.pause(*other);
    }
    view.run(write(&address, topic, "second", Acks::Leader));
    let named = (topic, id);
    for other in &others {
        let replica = i32::try_from(*other).expect("a small id");
        for (version, epoch) in [(12, -1), (14, -1), (18, -1), (18, 0), (18, 1_000_000), (18, i64::MAX)] {
            let answer = ask(&address, &fetch(named, replica, epoch, 2, version), version).expect("an answer");
            assert_eq!(outcome(&answer), (ErrorCode::StaleBrokerEpoch, 0), "v{version}, epoch {epoch}");
            // Nor does it see what is not committed.
            let answer = ask(&address, &fetch(named, replica, epoch, 1, version), version).expect("an answer");
            assert_eq!(outcome(&answer), (ErrorCode::StaleBrokerEpoch, 0), "v{version}, epoch {epoch}");
        }
    }
    for stranger in [77, i32::MAX] {
        let answer = ask(&address, &fetch(named, stranger, -1, 2, 18), 18).expect("an answer");
        assert_eq!(outcome(&answer), (ErrorCode::StaleBrokerEpoch, 0));
    }
    assert_eq!(visible_end(&address, topic), 1, "the second record counts as committed, and only the leader has it");
    let log = cluster.log(leader);
    let line = log.lines().find(|line| line.contains("a fetch as a replica is refused")).unwrap_or_default();
    for part in [format!("broker={}", others[0]), "peer=127.0.0.1:".into(), "STALE_BROKER_EPOCH".into()] {
        assert_contains(line, &part);
    }

    for other in &others {
        cluster.resume(*other);
    }
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    eventually("the second record is committed once the replicas have it", 30, || {
        let leader = view.leader(&mut cluster, topic, 0);
        (visible_end(&cluster.address(leader), topic) == 2).then_some(())
    });
    assert_eq!(view.run(read(&cluster.bootstrap(), topic, 2)), ["first", "second"]);
}

pub async fn read(bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let client = Client::connect(bootstrap, options()).await.expect("a cluster");
    let mut consumer = Consumer::new(&client, ConsumerOptions::default());
    consumer.assign([(TopicPartition::new(topic, 0), 0)]);
    let mut values = Vec::new();
    while values.len() < count {
        let records = consumer.poll(10).await.expect("records");
        values.extend(records.into_iter().map(|r| String::from_utf8_lossy(&r.value.unwrap_or_default()).into_owned()));
    }
    values
}

#[test]
fn what_brokers_ask_each_other_is_not_served_to_clients() {
    let mut cluster = Cluster::start(Plan { peer: Peer::Klamm, ..Plan::default() });
    let view = View::of(&cluster);
    view.create(&mut cluster, "kept", 3, &[]);
    let before = same_metadata(&mut cluster);
    let partitions = view.partitions(&mut cluster, "kept");
    let controller = view.controller(&mut cluster);
    for node in cluster.ids() {
        // Only in the name of another broker, and inside of what that one sends, are these for the controller.
        for address in [cluster.address(node), cluster.controller_address(node)] {
            hung_up(&address, &AlterPartitionRequest { broker_id: 0, ..Default::default() }, 3);
            hung_up(&address, &BrokerHeartbeatRequest { broker_id: 0, want_shut_down: true, ..Default::default() }, 1);
            hung_up(&address, &BrokerRegistrationRequest { broker_id: 0, ..Default::default() }, 4);
            hung_up(&address, &AllocateProducerIdsRequest { broker_id: 0, broker_epoch: 1 }, 0);
        }
        hung_up(&cluster.address(node), &KlammQuorumRequest::default(), 0);
        hung_up(&cluster.address(node), &KlammForwardRequest::default(), 0);
        assert_contains(&cluster.log(node), "is not served");
        // ApiVersions names none of them to clients.
        let connection = view.run(Connection::open(&cluster.address(node), ConnectionOptions::default()));
        let versions = connection.expect("a connection").versions();
        for key in [AlterPartitionRequest::KEY, BrokerHeartbeatRequest::KEY, KlammQuorumRequest::KEY] {
            assert_eq!(versions.range(key), None, "{key}");
        }
    }
    // Over the listener of the quorum a node of another cluster is told so, and a stranger's words change nothing.
    let address = cluster.controller_address(controller);
    let heartbeat =
        BrokerHeartbeatRequest { broker_id: 0, broker_epoch: 1, want_shut_down: true, ..Default::default() };
    let inside = frame::encode_request(2, None, &heartbeat, 1).and_then(|e| e.into_bytes()).expect("a frame");
    let forwarded = KlammForwardRequest {
        cluster_id: "5L6g3nShT-eMCtK--X86sw".into(),
        broker_id: 0,
        // Without the size in front.
        request: inside.slice(4..),
        ..Default::default()
    };
    let answer = ask(&address, &forwarded, 0).expect("an answer");
    assert_eq!(ErrorCode::from_code(answer.error_code), ErrorCode::InconsistentClusterId);
    assert_contains(&cluster.log(controller), "request not taken over");
    let garbage = KlammQuorumRequest { message: Bytes::from_static(b"vote for me"), ..Default::default() };
    let _ = ask(&address, &garbage, 0);
    assert_contains(&cluster.log(controller), "refused a request of another node of the metadata quorum");

    assert_eq!(same_metadata(&mut cluster), before, "the metadata has changed");
    assert_eq!(view.partitions(&mut cluster, "kept"), partitions);
    assert_eq!(cluster.stop_all(), [0, 0, 0]);
}

#[track_caller]
fn hung_up<R: Request>(address: &str, request: &R, version: i16) {
    assert!(ask(address, request, version).is_none(), "{} was answered on {address}", R::NAME);
}
