//! The last replica in sync dies: the partition waits for it, rather than go on without what it acknowledged.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, Isolation, Producer, ProducerOptions, ProducerRecord, TopicPartition};
use klamm_tests::{Cluster, Plan, wait_for};

use crate::judge::seed;
use crate::kills::pass;
use crate::view::View;
use crate::workload::options;

const TOPIC: &str = "last";
const RECORDS: i64 = 500;

async fn write(client: &Client) -> klamm_client::Result<()> {
    let producer =
        Producer::start(client, ProducerOptions { delivery_timeout: Duration::from_secs(30), ..Default::default() })?;
    for n in 0..RECORDS {
        let value = Some(Bytes::from(format!("{n}")));
        producer.send(ProducerRecord { topic: TOPIC.into(), partition: Some(0), value, ..Default::default() }).await?;
    }
    producer.flush().await
}

#[test]
fn a_partition_waits_for_the_last_replica_in_sync() {
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    let (last, other) = (0, 1);
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        let topic = NewTopic {
            name: TOPIC.into(),
            assignments: vec![vec![last, other]],
            configs: vec![("min.insync.replicas".into(), "1".into())],
            ..Default::default()
        };
        client.create_topic(&topic).await
    })
    .expect("the topic");
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    let isr = |cluster: &mut Cluster| {
        let partitions = view.partitions(cluster, TOPIC);
        partitions.get(&0).map(|p| (p.leader, p.isr.clone()))
    };
    cluster.kill(other as usize);
    klamm_tests::eventually("an ISR of one", 60, || (isr(&mut cluster)? == (last, vec![last])).then_some(()));
    view.run(async { write(&Client::connect(&cluster.bootstrap(), options()).await?).await }).expect("acknowledged");
    // Now the only one that has these records dies, and the one without them comes back.
    cluster.kill(last as usize);
    cluster.launch(other as usize);
    cluster.until_up(other as usize, 1);
    let led = wait_for(Duration::from_secs(12), || {
        let (leader, isr) = isr(&mut cluster)?;
        (leader == other || isr.contains(&other)).then_some((leader, isr))
    });
    assert_eq!(led, None, "a replica without the acknowledged records was elected or taken into the ISR");
    cluster.launch(last as usize);
    klamm_tests::eventually("the last replica leads again", 60, || (isr(&mut cluster)?.0 == last).then_some(()));
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    let at = TopicPartition::new(TOPIC, 0);
    let end = view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        let mut listed = client.list_offsets(&[at.clone()].into(), OffsetSpec::Latest, Isolation::default()).await?;
        listed.remove(&at).expect("the partition")
    });
    let end = end.expect("the end").offset;
    pass(Duration::from_millis(100));
    println!(
        "figures R19 last replica: {RECORDS} acked by an ISR of one, {end} there after its kill; no unsafe election; seed {}",
        seed()
    );
    assert_eq!(end, RECORDS);
    let report = {
        let mut report = crate::checker::Report::default();
        cluster.stop_all();
        crate::judge::compare(&cluster, TOPIC, 0, end, &[last as usize, other as usize], &mut report);
        report
    };
    assert!(report.is_clean(), "{report}");
}
