//! A broker that is cut off without a word, from its clients, too, or from other brokers alone: no connection breaks, no
//! port refuses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use klamm_client::{
    Client, ClientError, ClientOptions, Connection, ConnectionOptions, Producer, ProducerOptions, ProducerRecord,
};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::{FindCoordinatorRequest, HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest};
use klamm_tests::isolated::{is_inside, isolated_if_possible};
use klamm_tests::jvm::{Java, JavaRun};
use klamm_tests::{Cluster, Peer, Plan, Process, Tool};

use crate::judge::{figure, judge, seed, setting, taken_for_cut_off};
use crate::kills::pass;
use crate::view::View;
use crate::workload::{Load, options};

/// Well below the session of 9 s, with time for a slow machine: it takes some two seconds.
const SOON: Duration = Duration::from_secs(5);

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
    group: &'a str,
    topic: &'a str,
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
            ErrorCode::None => {
                Ok(group.topics.iter().flat_map(|t| &t.partitions).map(|p| p.committed_offset).max().unwrap_or(-1))
            }
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
        let beat = HeartbeatRequest { group_id: "outside".into(), member_id: "m".into(), ..Default::default() };
        let beat = view.run(zombie.call(&beat)).map(|answer| ErrorCode::from_code(answer.error_code));
        let found = outside.committed(&new);
        cluster.network().heal();
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        println!("figures coordinator cut off: committed elsewhere after {} ms; it says {told:?}", took.as_millis());
        assert_eq!(found, Ok(2));
        let silent = |told: &Result<i64, ErrorCode>| matches!(told, Err(ErrorCode::NotCoordinator));
        assert!(told.iter().all(silent), "what was committed before: {told:?}");
        assert!(matches!(beat, Ok(ErrorCode::NotCoordinator)), "members are to look for the new one: {beat:?}");
    });
}

#[test]
fn writes_go_on_soon_without_a_broker_that_is_cut_off() {
    isolated_if_possible("cutoff::writes_go_on_soon_without_a_broker_that_is_cut_off", || {
        let rounds = setting("KLAMM_CLUSTER_ROUNDS", figure(6, 30));
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "cutoff", 1, &[]);
        let load = Load { producers: 1, rate: 200, readers: 1, members: 1, ..Load::new("cutoff", 1, seed()) };
        let running = load.start(&cluster.bootstrap());
        running.more(300, Duration::from_secs(60));
        let mut all: BTreeMap<String, Vec<u128>> = BTreeMap::new();
        for round in 0..rounds {
            let leader = view.leader(&mut cluster, "cutoff", 0);
            let controller = view.controller(&mut cluster);
            let (kind, node) = match round % 3 {
                0 => ("leader", leader),
                1 => ("controller", controller),
                _ => ("follower", (0..3).find(|n| *n != leader && *n != controller).unwrap_or(leader)),
            };
            let kind = if leader == controller && node == leader { "leader and controller" } else { kind };
            // In every other turn its clients reach it as before.
            cluster.network().isolate(node, round % 6 < 3);
            let writable = running.writable_since(running.now_ms(), Duration::from_secs(60));
            all.entry(kind.to_owned()).or_default().push(writable.as_millis());
            if writable > SOON {
                println!("{kind}: node {node} was cut off, {writable:?} until it was written to again");
                for node in 0..3 {
                    let log = cluster.log(node);
                    let skipped = log.lines().count().saturating_sub(25);
                    println!("node {node}:\n{}", log.lines().skip(skipped).collect::<Vec<_>>().join("\n"));
                }
            }
            cluster.network().heal();
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
            running.writable_since(running.now_ms(), Duration::from_secs(60));
        }
        let klamm = cluster.peer() == Peer::Klamm;
        judge("cut off", cluster, &view, running, &format!("written again after, ms: {all:?}"));
        let mut times: Vec<u128> = all.into_values().flatten().collect();
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        println!(
            "figures cut off: written again after min {} median {} p90 {} max {} ms of {rounds} rounds",
            at(0),
            at(50),
            at(90),
            at(100)
        );
        // Proxies answer for whoever is behind them: then the session has to run out.
        assert!(!klamm || !is_inside() || at(50) < SOON.as_millis(), "{times:?}");
    });
}

#[test]
fn brokers_that_stand_still_for_a_moment_are_not_fenced() {
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "still", 3, &[]);
    let running = Load { members: 1, ..Load::new("still", 3, seed()) }.start(&cluster.bootstrap());
    running.more(300, Duration::from_secs(60));
    for _ in 0..figure(1, 10) {
        for node in 0..3 {
            cluster.pause(node);
            // As a machine that is starved or a virtual one that is moved: longer than anybody who is cut off gets.
            pass(Duration::from_millis(3_000));
            cluster.resume(node);
            running.writable_since(running.now_ms(), Duration::from_secs(60));
            view.until_in_sync(&mut cluster, Duration::from_secs(60));
        }
    }
    let klamm = cluster.peer() == Peer::Klamm;
    let fences = taken_for_cut_off(&cluster);
    judge("standing still", cluster, &view, running, "");
    assert!(!klamm || fences == 0, "{fences} times");
}

/// A member of a group by other client libraries.
enum Stranger {
    Librdkafka(Process),
    Java(JavaRun),
}

impl Stranger {
    #[track_caller]
    fn reads(&mut self, value: &str) {
        let probe = |out: &str| out.contains(value).then_some(());
        match self {
            Stranger::Librdkafka(process) => process.until(value, 90, probe),
            Stranger::Java(run) => run.until(value, 90, probe),
        }
    }

    /// What it has to say about how it went.
    fn complaints(self) -> String {
        match self {
            Stranger::Librdkafka(mut process) => {
                process.signal("TERM");
                process.finish().err
            }
            Stranger::Java(run) => run.stop().err,
        }
    }
}

#[test]
fn members_of_other_clients_find_the_coordinator_that_has_taken_over() {
    isolated_if_possible("cutoff::members_of_other_clients_find_the_coordinator_that_has_taken_over", || {
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "members", 3, &[]);
        let find = |group: &str| {
            let outside = Outside { view: &view, group, topic: "members" };
            klamm_tests::eventually("a coordinator", 30, || outside.coordinator(&cluster, 0))
        };
        let old = find("m0");
        let mut groups = (1..).map(|n| format!("m{n}")).filter(|group| find(group) == old).take(2);
        let bootstrap = cluster.bootstrap();
        let mut members = Vec::new();
        let settings = |flag: &'static str| {
            let all = ["heartbeat.interval.ms=500", "auto.commit.interval.ms=500", "auto.offset.reset=earliest"];
            all.into_iter().flat_map(move |setting| [flag, setting])
        };
        if let Some(group) = groups.next() {
            let tool = Tool::new("kcat").args(["-b", &bootstrap, "-u"]).args(settings("-X")).limit(200);
            members.push((Stranger::Librdkafka(tool.args(["-G", &group, "members"]).start()), group));
        }
        if let Some(group) = groups.next() {
            let java = Java::new("org.apache.kafka.tools.consumer.ConsoleConsumer");
            let java = java.args(["--bootstrap-server", &bootstrap, "--topic", "members", "--group", &group]);
            members.push((Stranger::Java(java.args(settings("--command-property")).start()), group));
        }
        // One whose leader is not cut off.
        let partition = (0..3).find(|p| view.leader(&mut cluster, "members", *p) != old).expect("other leaders");
        let write = |value: &'static str| {
            view.run(async {
                let client = Client::connect(&bootstrap, options()).await?;
                let producer = Producer::start(&client, ProducerOptions::default())?;
                let record = ProducerRecord {
                    topic: "members".into(),
                    partition: Some(partition),
                    value: Some(value.into()),
                    ..Default::default()
                };
                producer.send(record).await?.wait().await
            })
        };
        write("before").expect("a record is taken");
        members.iter_mut().for_each(|(member, _)| member.reads("before"));
        // They have committed that, or there would be nothing to go on from.
        for (_, group) in &members {
            let outside = Outside { view: &view, group, topic: "members" };
            let connection = outside.open(&cluster.address(old)).expect("a connection to the coordinator");
            klamm_tests::eventually("a commit", 30, || {
                outside.committed(&connection).is_ok_and(|at| at > 0).then_some(())
            });
        }
        cluster.network().isolate(old, false);
        let since = Instant::now();
        let end = write("after").expect("a record is taken").offset + 1;
        let other = (0..3).find(|node| *node != old).unwrap_or(0);
        for (member, group) in &mut members {
            let outside = Outside { view: &view, group, topic: "members" };
            member.reads("after");
            klamm_tests::eventually("a commit through the new coordinator", 90, || {
                let new = outside.coordinator(&cluster, other).filter(|new| *new != old)?;
                let committed = outside.committed(&outside.open(&cluster.address(new)).ok()?);
                (committed == Ok(end)).then_some(())
            });
            println!("figures group {group}: committed elsewhere {} ms after the cut", since.elapsed().as_millis());
        }
        cluster.network().heal();
        for (member, group) in members {
            let said = member.complaints();
            assert!(!said.contains("ERROR") && !said.contains("Exception"), "{group}: {said}");
        }
    });
}
