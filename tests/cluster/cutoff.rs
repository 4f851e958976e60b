//! A broker that is cut off without a word, from its clients, too, or from other brokers alone: no connection breaks, no
//! port refuses.

use std::time::{Duration, Instant};

use klamm_client::{
    Client, ClientError, ClientOptions, Connection, ConnectionOptions, Producer, ProducerOptions, ProducerRecord,
};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};
use klamm_tests::isolated::isolated_if_possible;
use klamm_tests::{Cluster, Plan};

use crate::view::View;

/// The session (9 s), an election where the controller is cut off as well, and time for a slow machine: less than a client
/// waits for an answer by default (30 s), which is what it took when nobody asked the others.
const LIMIT: Duration = Duration::from_secs(25);

#[test]
fn a_producer_goes_on_where_its_leader_was_replaced_and_cannot_say_so() {
    isolated_if_possible("cutoff::a_producer_goes_on_where_its_leader_was_replaced_and_cannot_say_so", || {
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "cutoff", 1, &[]);
        let leader = view.leader(&mut cluster, "cutoff", 0);
        let record = || ProducerRecord { topic: "cutoff".into(), value: Some("v".into()), ..Default::default() };
        let took = view.run(async {
            let client = Client::connect(&cluster.bootstrap(), ClientOptions::default()).await?;
            let producer = Producer::start(&client, ProducerOptions::default())?;
            assert_eq!(producer.send(record()).await?.wait().await?.leader, leader as i32);
            cluster.network().isolate(leader, true);
            let since = Instant::now();
            assert_ne!(producer.send(record()).await?.wait().await?.leader, leader as i32);
            Ok::<_, ClientError>(since.elapsed())
        });
        cluster.network().heal();
        let took = took.expect("both records are taken");
        println!("figures leader cut off with its clients: writes went on after {} ms", took.as_millis());
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        assert!(took < LIMIT, "{took:?}");
    });
}

/// A group that commits from outside, over connections to brokers of the test's own choice.
struct Outside<'a> {
    view: &'a View,
    group: &'static str,
    topic: &'static str,
}

impl Outside<'_> {
    fn open(&self, address: &str) -> klamm_client::Result<Connection> {
        // Longer than a coordinator takes to find out that it cannot say anything for certain.
        let limit = Duration::from_secs(8);
        let options = ConnectionOptions { connect_timeout: limit, request_timeout: limit, ..Default::default() };
        self.view.run(Connection::open(address, options))
    }

    /// Whom a broker takes for the group's coordinator.
    fn coordinator(&self, cluster: &Cluster, asked: usize) -> Option<usize> {
        let request = FindCoordinatorRequest { coordinator_keys: vec![self.group.into()], ..Default::default() };
        let answer = self.view.ask(&cluster.address(asked), &request).ok()?;
        let found = answer.coordinators.into_iter().find(|c| c.error_code == 0)?;
        usize::try_from(found.node_id).ok()
    }

    fn commit(&self, connection: &Connection, offset: i64) -> Result<(), ErrorCode> {
        let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
        let topic =
            OffsetCommitRequestTopic { name: self.topic.into(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: self.group.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.view.run(connection.call_capped(&request, 9)).map_err(|_| ErrorCode::NetworkException)?;
        let code = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).next();
        match ErrorCode::from_code(code.expect("an answer for the partition")) {
            ErrorCode::None => Ok(()),
            code => Err(code),
        }
    }

    fn committed(&self, connection: &Connection) -> Result<i64, ErrorCode> {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup { group_id: self.group.into(), topics: None, ..Default::default() }],
            ..Default::default()
        };
        let answer = self.view.run(connection.call_capped(&request, 9)).map_err(|_| ErrorCode::NetworkException)?;
        let group = answer.groups.into_iter().next().expect("an answer for the group");
        match ErrorCode::from_code(group.error_code) {
            ErrorCode::None => Ok(group.topics.first().map_or(-1, |t| t.partitions[0].committed_offset)),
            code => Err(code),
        }
    }
}

#[test]
fn a_coordinator_that_is_cut_off_tells_nobody_of_old_commits() {
    isolated_if_possible("cutoff::a_coordinator_that_is_cut_off_tells_nobody_of_old_commits", || {
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "old", 1, &[]);
        let outside = Outside { view: &view, group: "outside", topic: "old" };
        let old = klamm_tests::eventually("a coordinator", 30, || outside.coordinator(&cluster, 0));
        let zombie = outside.open(&cluster.address(old)).expect("a connection to the coordinator");
        klamm_tests::eventually("a commit", 30, || outside.commit(&zombie, 1).ok());
        // All replicas have it, or the coordinator could say nothing at all once it is cut off.
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        assert_eq!(outside.committed(&zombie), Ok(1));

        cluster.network().isolate(old, false);
        let since = Instant::now();
        let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
        let new = klamm_tests::eventually("another coordinator", 60, || {
            others.iter().find_map(|node| outside.coordinator(&cluster, *node).filter(|found| *found != old))
        });
        let new = outside.open(&cluster.address(new)).expect("a connection to the new coordinator");
        klamm_tests::eventually("a commit through the new coordinator", 60, || outside.commit(&new, 2).ok());
        let took = since.elapsed();
        let told: Vec<Result<i64, ErrorCode>> = (0..2).map(|_| outside.committed(&zombie)).collect();
        let found = outside.committed(&new);
        cluster.network().heal();
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        println!("figures coordinator cut off: committed elsewhere after {} ms; it says {told:?}", took.as_millis());
        assert_eq!(found, Ok(2));
        let silent = |told: &Result<i64, ErrorCode>| matches!(told, Err(ErrorCode::NotCoordinator));
        assert!(told.iter().all(silent), "what was committed before: {told:?}");
    });
}
