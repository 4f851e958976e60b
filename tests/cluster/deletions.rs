//! DeleteRecords with the leaders spread over the brokers: each replica lets go, and stays so through failovers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::{Client, Isolation, Producer, ProducerOptions, ProducerRecord, TopicPartition};
use klamm_tests::{Cluster, Peer, Plan, eventually};

use crate::view::View;
use crate::workload::options;

const TOPIC: &str = "deleted";
const PARTITIONS: i32 = 6;
const RECORDS: usize = 40;

async fn fill(bootstrap: &str) {
    let client = Client::connect(bootstrap, options()).await.expect("a cluster");
    let producer = Producer::start(&client, ProducerOptions::default()).expect("good options");
    for n in 0..RECORDS {
        for partition in 0..PARTITIONS {
            let value = Some(Bytes::from(format!("{partition}-{n}")));
            let record =
                ProducerRecord { topic: TOPIC.into(), partition: Some(partition), value, ..Default::default() };
            producer.send(record).await.expect("sent");
        }
    }
    producer.flush().await.expect("written");
}

/// Deletes what is below these offsets; gives where the partitions start then.
async fn delete(bootstrap: &str, before: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
    let client = Client::connect(bootstrap, options()).await.expect("a cluster");
    client.delete_records(TOPIC, before).await.expect("deleted")
}

/// Where each partition starts, in the eyes of its leader.
async fn starts(bootstrap: &str) -> BTreeMap<i32, i64> {
    let client = Client::connect(bootstrap, options()).await.expect("a cluster");
    let asked: BTreeSet<_> = (0..PARTITIONS).map(|p| TopicPartition::new(TOPIC, p)).collect();
    let found = client.list_offsets(&asked, OffsetSpec::Earliest, Isolation::ReadUncommitted).await;
    let found = found.expect("offsets").into_iter();
    found.map(|(at, offset)| (at.partition, offset.expect("an offset").offset)).collect()
}

/// The starts that a broker which has stopped noted on its disk.
fn noted(cluster: &Cluster, node: usize) -> BTreeMap<i32, i64> {
    let text = std::fs::read_to_string(cluster.data(node).join("log-start-offset-checkpoint")).unwrap_or_default();
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let ours = words.next() == Some(TOPIC);
        let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        ours.then_some((partition, offset))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn deleted_records_are_gone_from_every_replica_and_stay_gone_whoever_leads() {
    let mut cluster = Cluster::start(Plan { peer: Peer::Klamm, ..Plan::default() });
    let view = View::of(&cluster);
    view.create(&mut cluster, TOPIC, PARTITIONS, &[]);
    view.run(fill(&cluster.bootstrap()));
    let leaders: BTreeSet<i32> = view.partitions(&mut cluster, TOPIC).values().map(|p| p.leader).collect();
    assert_eq!(leaders.len(), 3, "the leaders are spread");

    let first: BTreeMap<i32, i64> = (0..PARTITIONS).map(|p| (p, 5 + i64::from(p))).collect();
    assert_eq!(view.run(delete(&cluster.bootstrap(), &first)), first);
    assert_eq!(view.run(starts(&cluster.bootstrap())), first);
    // Whoever takes over has let go as well: it was not answered before.
    for victim in cluster.ids() {
        cluster.kill(victim);
        let id = i32::try_from(victim).expect("a small id");
        eventually("other leaders", 30, || {
            let led = view.partitions(&mut cluster, TOPIC);
            (led.len() == 6 && led.values().all(|p| p.leader >= 0 && p.leader != id)).then_some(())
        });
        assert_eq!(view.run(starts(&cluster.bootstrap())), first, "without broker {victim}");
        cluster.launch(victim);
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
    }

    // One that is away meanwhile learns of it when it comes back.
    cluster.kill(2);
    eventually("other leaders", 30, || {
        view.partitions(&mut cluster, TOPIC).values().all(|p| p.leader >= 0 && p.leader != 2).then_some(())
    });
    let second: BTreeMap<i32, i64> = (0..PARTITIONS).map(|p| (p, 30 + i64::from(p))).collect();
    // As long as it counts as alive, its answer is waited for.
    eventually("deleted without it", 60, || {
        let deleted = view.run(async {
            let client = Client::connect(&cluster.bootstrap(), options()).await.ok()?;
            client.delete_records(TOPIC, &second).await.ok()
        })?;
        (deleted == second).then_some(())
    });
    cluster.launch(2);
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    assert!(cluster.stop_all().iter().all(|code| *code == 0));
    for node in cluster.ids() {
        assert_eq!(noted(&cluster, node), second, "broker {node}");
    }
    cluster.launch_all();
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    assert_eq!(view.run(starts(&cluster.bootstrap())), second);
}
