//! Reading from a replica in the reader's rack (KIP-392), with clients that can: Java's, and librdkafka's.

use std::time::Duration;

use klamm_client::Acks;
use klamm_tests::jvm::{Java, JavaRun};
use klamm_tests::{Cluster, Peer, Plan, Tool, eventually};

use crate::judge::http_get;
use crate::posing::write;
use crate::view::View;

/// Bytes of a topic that a broker has sent to consumers.
fn bytes_out(cluster: &Cluster, node: usize, topic: &str) -> u64 {
    let text = http_get(&cluster.admin(node), "/metrics").unwrap_or_default();
    let name = "kafka_server_brokertopicmetrics_bytesout_total{";
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(&format!("topic=\"{topic}\"")));
    line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |value| value as u64)
}

fn reader(cluster: &Cluster, topic: &str, rack: &str) -> JavaRun {
    Java::new("org.apache.kafka.tools.consumer.ConsoleConsumer")
        .args(["--bootstrap-server", &cluster.bootstrap(), "--topic", topic, "--partition", "0", "--offset", "0"])
        .args(["--command-property", &format!("client.rack={rack}"), "--command-property", "metadata.max.age.ms=1000"])
        .start()
}

#[track_caller]
fn reads(reader: &JavaRun, last: &str) {
    reader.until(last, 60, |out| out.lines().any(|line| line == last).then_some(()));
}

#[test]
fn a_consumer_reads_from_the_follower_in_its_rack_and_goes_on_when_that_is_killed() {
    let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let plan = Plan { peer: Peer::Klamm, ..Plan::default() }.set("replica.selector.class", selector);
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    // Each broker in a rack of its own.
    for id in cluster.ids() {
        cluster.stop(id);
        let file = cluster.properties(id);
        let text = std::fs::read_to_string(&file).expect("its configuration");
        std::fs::write(&file, format!("{text}broker.rack=rack-{id}\n")).expect("written");
        cluster.restart(id);
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
    }
    let topic = "racked";
    view.create(&mut cluster, topic, 1, &[]);
    let leader = view.leader(&mut cluster, topic, 0);
    let (near, third) = ((leader + 1) % 3, (leader + 2) % 3);
    view.run(write(&cluster.bootstrap(), topic, "first", Acks::All));

    let reader = reader(&cluster, topic, &format!("rack-{near}"));
    reads(&reader, "first");
    for value in ["a", "b", "c"] {
        view.run(write(&cluster.bootstrap(), topic, value, Acks::All));
        reads(&reader, value);
    }
    eventually("the follower in the rack has sent records", 10, || {
        (bytes_out(&cluster, near, topic) > 0).then_some(())
    });
    assert_eq!((bytes_out(&cluster, leader, topic), bytes_out(&cluster, third, topic)), (0, 0), "only the near one");

    // librdkafka finds the follower as well.
    let read = Tool::new("kcat")
        .args(["-b", &cluster.bootstrap(), "-C", "-t", topic, "-p", "0", "-o", "beginning", "-c", "4", "-q"])
        .args(["-X", &format!("client.rack=rack-{third}")])
        .ok();
    assert_eq!(read.lines(), ["first", "a", "b", "c"]);
    assert_eq!(bytes_out(&cluster, leader, topic), 0);
    assert!(bytes_out(&cluster, third, topic) > 0);

    // Without that replica the leader serves, and nothing is left out or told twice.
    cluster.kill(near);
    view.run(write(&cluster.bootstrap(), topic, "without", Acks::All));
    reads(&reader, "without");
    assert!(bytes_out(&cluster, leader, topic) > 0);
    // Back again, it takes its readers back, once it is in sync.
    cluster.launch(near);
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    let mut known = 0;
    eventually("the follower in the rack sends again", 60, || {
        known += 1;
        let value: &'static str = if known % 2 == 0 { "even" } else { "odd" };
        view.run(write(&cluster.bootstrap(), topic, value, Acks::All));
        (bytes_out(&cluster, near, topic) > 0).then_some(())
    });
    let count = 5 + known;
    reader.until("every record", 30, |out| (out.lines().count() >= count).then_some(()));
    let read = reader.stop();
    let seen = read.lines();
    assert_eq!(&seen[..5], ["first", "a", "b", "c", "without"], "{seen:?}");
    assert_eq!(seen.len(), count, "each record once: {seen:?}");
}
