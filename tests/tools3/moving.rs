//! kafka-reassign-partitions moves partitions with their data; kafka-replica-verification compares the copies.

use klamm_tests::{Tool, assert_contains, eventually, paths};

use crate::{cluster, create, java, kcat, partitions, produce};

const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";

#[test]
fn a_partition_moves_to_other_brokers_and_its_records_with_it() {
    let cluster = cluster();
    let topic = create(&cluster, "moved", "0:1,1:2");
    produce(&cluster, &topic, 0, 5000);
    let plan = format!(
        r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"replicas":[2,1]}},{{"topic":"{topic}","partition":1,"replicas":[2,0]}}]}}"#
    );
    let dir = paths::scratch_dir("plan");
    let file = dir.join("plan.json");
    std::fs::write(&file, plan).expect("the plan");
    let file = file.display();
    java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --execute"))
        .ok()
        .expect(&format!("Successfully started partition reassignments for {topic}-0,{topic}-1"));
    let done = eventually("the move is complete", 30, || {
        let verified = java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --verify")).ok();
        (verified.out.matches("is completed").count() == 2).then_some(verified)
    });
    assert_contains(&done.out, &format!("Reassignment of partition {topic}-0 is completed."));
    java(&cluster, REASSIGN, "--list").ok().expect("No partition reassignments found.");
    let rows = partitions(&cluster, &topic);
    let ids = |ids: [&str; 2]| ids.map(str::to_owned).to_vec();
    assert_eq!((&rows[0].1, &rows[0].2), (&ids(["1", "2"]), &ids(["1", "2"])), "{rows:?}");
    assert_eq!((&rows[1].1, &rows[1].2), (&ids(["0", "2"]), &ids(["0", "2"])), "{rows:?}");

    let read = kcat(&cluster, &format!("-C -t {topic} -p 0 -o beginning -e -q")).ok();
    let expected: Vec<_> = (0..5000).map(|i| i.to_string()).collect();
    assert!(read.lines() == expected, "{} records after the move", read.lines().len());
    eventually("the directory that is no longer needed is gone or on its way", 20, || {
        (!cluster.data(0).join(format!("{topic}-0")).exists()).then_some(())
    });
    assert!(cluster.data(2).join(format!("{topic}-0")).exists());
    produce(&cluster, &topic, 0, 10);
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn a_tool_that_fetches_as_a_replica_finds_all_copies_alike() {
    let cluster = cluster();
    let topic = create(&cluster, "verified", "0:1:2,1:2:0");
    for partition in [0, 1] {
        produce(&cluster, &topic, partition, 500);
    }
    let tool = Tool::new(paths::cached("kafka/bin/kafka-replica-verification", "java.sh"));
    let tool = tool.args(["--broker-list", &cluster.bootstrap(), "--topics-include", &topic]);
    let mut running = tool.args(["--time", "-2", "--report-interval-ms", "200"]).start();
    let reports = running.until("reports after all has been read", 40, |out| {
        (out.matches("max lag is 0 for partition").count() >= 3).then(|| out.to_owned())
    });
    running.kill();
    assert!(!reports.contains("doesn't match"), "{reports}");
}
