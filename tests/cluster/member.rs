//! The client in places that other tests rarely meet: a coordinator that is away for longer than the session, leaders
//! of topics that nobody has asked for.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::group::{GroupConsumer, GroupOptions};
use klamm_client::{Client, Consumer, ConsumerOptions, Producer, ProducerOptions, ProducerRecord, TopicPartition};
use klamm_tests::{Broker, Cluster, Plan, Tool};

use crate::view::View;
use crate::workload::options;

async fn write(client: &Client, value: &'static str) {
    let producer = Producer::start(client, ProducerOptions::default()).expect("good options");
    let value = Some(Bytes::from(value));
    producer.send(ProducerRecord { topic: "away".into(), value, ..Default::default() }).await.expect("sent");
    producer.flush().await.expect("written");
}

async fn read(member: &mut GroupConsumer) -> Bytes {
    loop {
        // Errors are told while the coordinator is away; the member goes on.
        if let Some(record) = member.poll(1).await.ok().and_then(|records| records.into_iter().next()) {
            return record.value.unwrap_or_default();
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_consumer_finds_the_leaders_of_topics_that_nobody_has_asked_for() {
    let _turn = klamm_tests::cluster::turn();
    let broker = Broker::start(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let read = runtime.block_on(async {
        write(&Client::connect(broker.bootstrap(), options()).await.expect("a broker"), "found").await;
        // Told where to read by a group, say, and by nobody who leads.
        let fresh = Client::connect(broker.bootstrap(), options()).await.expect("a broker");
        let mut consumer = Consumer::new(&fresh, ConsumerOptions::default());
        consumer.assign([(TopicPartition::new("away", 0), 0)]);
        let read = async {
            loop {
                if let Some(record) = consumer.poll(1).await.expect("no error").into_iter().next() {
                    return record.value;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await
    });
    assert_eq!(read.expect("found in time").as_deref(), Some(&b"found"[..]));
}

#[test]
fn a_member_comes_back_when_its_coordinator_was_away_for_longer_than_its_session() {
    let _turn = klamm_tests::cluster::turn();
    let broker = Broker::start(&[("group.min.session.timeout.ms", "1000")]);
    let signal = |name: &str| Tool::new("/bin/kill").args(["-s", name, &broker.pid().to_string()]).ok();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut quick = options();
    quick.connection.request_timeout = Duration::from_millis(500);
    quick.connection.connect_timeout = Duration::from_millis(500);
    runtime.block_on(async {
        let client = Client::connect(broker.bootstrap(), quick).await.expect("a broker");
        write(&client, "before").await;
        let group = GroupOptions {
            session_timeout: Duration::from_millis(1500),
            heartbeat_interval: Duration::from_millis(200),
            start: OffsetSpec::Earliest,
            ..Default::default()
        };
        let mut member = GroupConsumer::new(&client, "away", ["away".into()], group, ConsumerOptions::default());
        assert_eq!(read(&mut member).await, "before");
        signal("STOP");
        let away = tokio::time::Instant::now() + Duration::from_secs(4);
        while tokio::time::Instant::now() < away {
            let _ = tokio::time::timeout(Duration::from_millis(300), member.poll(1)).await;
        }
        signal("CONT");
        write(&client, "after").await;
        let after = tokio::time::timeout(Duration::from_secs(20), async {
            // What was not committed comes again.
            while read(&mut member).await != "after" {}
        });
        assert!(after.await.is_ok(), "the member never came back");
    });
}

/// A member of the group `kept`, which reads from the beginning and commits nothing.
fn member(client: &Client, session: Duration) -> GroupConsumer {
    let group = GroupOptions {
        session_timeout: session,
        rebalance_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_millis(200),
        auto_commit_interval: None,
        start: OffsetSpec::Earliest,
        ..Default::default()
    };
    GroupConsumer::new(client, "kept", ["kept".into()], group, ConsumerOptions::default())
}

async fn write_to_both(client: &Client, value: &'static str) {
    let producer = Producer::start(client, ProducerOptions::default()).expect("good options");
    for partition in [0, 1] {
        let value = Some(Bytes::from(value));
        let record = ProducerRecord { topic: "kept".into(), partition: Some(partition), value, ..Default::default() };
        producer.send(record).await.expect("sent");
    }
    producer.flush().await.expect("written");
}

#[test]
fn a_member_that_comes_back_into_its_generation_reads_nothing_twice() {
    let mut plan = Plan { nodes: 1, ..Plan::default() }.set("group.min.session.timeout.ms", "1000");
    for one in ["default.replication.factor", "min.insync.replicas", "offsets.topic.replication.factor"] {
        plan = plan.set(one, "1");
    }
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    view.create(&mut cluster, "kept", 2, &[]);
    let mut quick = options();
    quick.connection.request_timeout = Duration::from_millis(500);
    quick.connection.connect_timeout = Duration::from_millis(500);
    let session = Duration::from_millis(1500);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let limit = Duration::from_secs(30);
    let (client, mut follower) = runtime.block_on(async {
        let client = Client::connect(&cluster.bootstrap(), quick).await.expect("a broker");
        write_to_both(&client, "once").await;
        // The group's leader comes first, and is gone without a word once the follower has its partition: it does not
        // join again, so the group keeps its generation.
        let mut leader = member(&client, Duration::from_secs(60));
        while !leader.is_member() {
            let _ = leader.poll(1).await;
        }
        let mut follower = member(&client, session);
        let joined = async {
            while leader.assignment().len() != 1 || !follower.positions().values().eq([&1]) {
                let _ = tokio::join!(
                    tokio::time::timeout(Duration::from_millis(500), leader.poll(1)),
                    tokio::time::timeout(Duration::from_millis(500), follower.poll(1))
                );
            }
        };
        tokio::time::timeout(limit, joined).await.expect("one partition each, and the follower's is read");
        (client, follower)
    });
    let generation = follower.generation();
    cluster.kill(0);
    // It gives up after a session, and then asks for its place until it has it.
    runtime.block_on(async {
        let away = tokio::time::Instant::now() + 2 * session;
        while tokio::time::Instant::now() < away || follower.is_member() {
            let _ = tokio::time::timeout(Duration::from_millis(300), follower.poll(1)).await;
        }
    });
    cluster.launch(0);
    cluster.until_up(0, 1);
    runtime.block_on(async {
        write_to_both(&client, "then").await;
        let next = tokio::time::timeout(limit, read(&mut follower)).await.expect("read in time");
        assert_eq!(follower.generation(), generation, "the group has kept its generation");
        assert_eq!(next, "then", "it had read the one before already");
    });
}
