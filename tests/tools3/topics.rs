//! kafka-topics and kafka-leader-election while a broker is away, and when it is back.

use klamm_tests::{assert_contains, eventually};

use crate::{TOPICS, cluster, create, java, kcat, klamm, partitions, produce, whole_again};

const ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";

#[test]
fn a_topic_is_spread_over_the_brokers() {
    let cluster = cluster();
    let name = klamm_tests::unique("spread");
    java(&cluster, TOPICS, &format!("--create --topic {name} --partitions 6 --replication-factor 3")).ok();
    let rows = partitions(&cluster, &name);
    assert_eq!(rows.len(), 6);
    for id in ["0", "1", "2"] {
        assert_eq!(rows.iter().filter(|(leader, ..)| leader == id).count(), 2, "{rows:?}");
    }
    assert!(rows.iter().all(|(_, replicas, isr)| replicas.len() == 3 && replicas == isr), "{rows:?}");
    let refused = java(&cluster, TOPICS, "--create --topic too-many --partitions 1 --replication-factor 4").run();
    assert_eq!(refused.code, 1, "{refused}");
    assert_contains(&refused.text(), "InvalidReplicationFactorException");
}

#[test]
fn what_is_wrong_is_listed_and_what_was_lost_comes_back() {
    let mut cluster = cluster();
    let name = create(&cluster, "away", "2:0:1,0:1:2");
    let lonely = create(&cluster, "lonely", "2,0");
    produce(&cluster, &name, 0, 100);
    cluster.kill(2);
    let list = |cluster: &_, flag: &str| java(cluster, TOPICS, &format!("--describe {flag}")).ok().out;
    let has = |text: &str, topic: &str, partition: u32| {
        text.lines().any(|line| line.contains(&format!("Topic: {topic}\tPartition: {partition}\t")))
    };
    eventually("the broker has left the ISRs", 30, || {
        let text = list(&cluster, "--under-replicated-partitions");
        (has(&text, &name, 0) && has(&text, &name, 1) && has(&text, &lonely, 0)).then_some(())
    });
    let at_min = list(&cluster, "--at-min-isr-partitions");
    assert!(has(&at_min, &name, 0) && has(&at_min, &name, 1), "{at_min}");
    let unavailable = list(&cluster, "--unavailable-partitions");
    assert!(has(&unavailable, &lonely, 0) && !has(&unavailable, &name, 0), "{unavailable}");
    assert_eq!(partitions(&cluster, &name)[0].0, "0", "the first replica that is left leads");
    produce(&cluster, &name, 0, 100);

    let refused = java(&cluster, ELECTION, &format!("--election-type preferred --topic {name} --partition 0")).run();
    assert_contains(&refused.text(), "PreferredLeaderNotAvailable");

    whole_again(&mut cluster);
    java(&cluster, ELECTION, &format!("--election-type preferred --topic {name} --partition 0"))
        .ok()
        .expect(&format!("Successfully completed leader election (PREFERRED) for partitions {name}-0"));
    assert_eq!(partitions(&cluster, &name)[0].0, "2");
    java(&cluster, ELECTION, &format!("--election-type preferred --topic {name} --partition 0"))
        .ok()
        .expect(&format!("Valid replica already elected for partitions {name}-0"));
    let read = kcat(&cluster, &format!("-C -t {name} -p 0 -o beginning -e -q")).ok();
    assert_eq!(read.lines().len(), 200);
    assert_eq!(list(&cluster, "--unavailable-partitions").trim(), "");
}

#[test]
fn the_last_replica_in_sync_is_gone_and_another_is_told_to_lead() {
    let mut cluster = cluster();
    let name = create(&cluster, "unclean", "2:1");
    java(
        &cluster,
        "kafka.admin.ConfigCommand",
        &format!("--alter --entity-type topics --entity-name {name} --add-config min.insync.replicas=1"),
    )
    .ok();
    produce(&cluster, &name, 0, 10);
    // Broker 1 falls behind, then broker 2 ends: nobody who has everything is left.
    cluster.kill(1);
    eventually("broker 1 has left the ISR", 30, || (partitions(&cluster, &name)[0].2 == ["2"]).then_some(()));
    produce(&cluster, &name, 0, 10);
    cluster.kill(2);
    cluster.launch(1);
    cluster.until_up(1, 1);
    eventually("nobody leads", 30, || (partitions(&cluster, &name)[0].0 == "none").then_some(()));
    let before = java(&cluster, ELECTION, &format!("--election-type preferred --topic {name} --partition 0")).run();
    assert_ne!(before.code, 0, "{before}");
    let refused = klamm(&cluster, &format!("cluster elect --topic {name}:0")).run();
    assert_eq!(refused.code, 1, "{refused}");
    assert_contains(&refused.err, "got no new leader");
    klamm(&cluster, &format!("cluster elect --topic {name}:0 --unclean")).ok().expect("elected");
    eventually("broker 1 leads", 10, || (partitions(&cluster, &name)[0].0 == "1").then_some(()));
    let read = kcat(&cluster, &format!("-C -t {name} -p 0 -o beginning -e -q")).ok();
    assert_eq!(read.lines().len(), 10, "what only the lost broker had is gone");
    whole_again(&mut cluster);
}
