//! kafka-reassign-partitions moves partitions with their data, as slowly as it is told; kafka-replica-verification
//! compares the copies.

use std::time::{Duration, Instant};

use klamm_tests::{Cluster, Tool, assert_contains, eventually, paths};

use crate::{cluster, create, java, kcat, klamm, partitions, produce, whole_again};

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

/// How many bytes a replica's log has.
fn size(cluster: &Cluster, broker: usize, topic: &str) -> u64 {
    let files = std::fs::read_dir(cluster.data(broker).join(format!("{topic}-0"))).into_iter().flatten().flatten();
    let logs = files.filter(|f| f.path().extension().is_some_and(|e| e == "log"));
    logs.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

#[test]
fn a_move_keeps_to_its_throttle() {
    const RATE: u64 = 1_000_000;
    let cluster = cluster();
    let topic = create(&cluster, "throttled", "0");
    let line = "x".repeat(999) + "\n";
    let args = format!("-P -t {topic} -p 0 -X acks=all -X batch.size=100000");
    kcat(&cluster, &args).stdin(line.repeat(8_000)).ok();
    let whole = size(&cluster, 0, &topic);
    assert!(whole > 8 * RATE, "{whole} bytes");
    let plan = format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"replicas":[2]}}]}}"#);
    let dir = paths::scratch_dir("plan");
    let file = dir.join("plan.json");
    std::fs::write(&file, plan).expect("the plan");
    let file = file.display();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            // When the new replica grew, and to what size.
            let mut steps = vec![(Instant::now(), 0)];
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end && steps.last().is_none_or(|(_, bytes)| *bytes < whole) {
                let bytes = size(&cluster, 2, &topic);
                if steps.last().is_none_or(|(_, last)| *last < bytes) {
                    steps.push((Instant::now(), bytes));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            steps
        });
        java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --execute --throttle {RATE}"))
            .ok()
            .expect(&format!("The inter-broker throttle limit was set to {RATE} B/s"));
        watch.join().expect("watched")
    });
    assert_eq!(watched.last().map(|(_, bytes)| *bytes), Some(whole), "all has been copied");
    // The first second's worth may pass at once; afterwards each piece is paid for by the time until the next.
    let begun = watched.iter().position(|(_, bytes)| *bytes > 2 * RATE).expect("a replica that grows");
    let (before, first, last, end) = (begun - 1, begun, watched.len() - 2, watched.len() - 1);
    let seconds = (watched[end].0 - watched[first].0).as_secs_f64();
    let rate = (watched[last].1 - watched[before].1) as f64 / seconds;
    println!("figures throttle of {RATE} B/s: {rate:.0} B/s over {seconds:.1} s");
    assert!((0.9..1.1).contains(&(rate / RATE as f64)), "{rate:.0} B/s instead of {RATE}: {watched:?}");
    let verified = eventually("the move is complete", 30, || {
        let verified = java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --verify")).ok();
        verified.out.contains("is completed").then_some(verified)
    });
    assert_contains(&verified.out, "Clearing broker-level throttles");
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

/// The replicas of each partition that a file asks for.
#[track_caller]
fn asked(file: &str) -> Vec<(i64, Vec<String>)> {
    let file: serde_json::Value = serde_json::from_str(file).unwrap_or_else(|e| panic!("{e}: {file}"));
    let partitions = file["partitions"].as_array().cloned().unwrap_or_default();
    let mut asked: Vec<_> = partitions
        .iter()
        .map(|p| {
            let ids = p["replicas"].as_array().cloned().unwrap_or_default();
            let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            ids.sort();
            (p["partition"].as_i64().unwrap_or(-1), ids)
        })
        .collect();
    asked.sort();
    asked
}

#[test]
fn a_plan_of_klamms_is_carried_out_and_verified_by_apaches_tool() {
    let cluster = cluster();
    let topic = create(&cluster, "ours", "0:1,0:2,0:1,1:0");
    produce(&cluster, &topic, 0, 1000);
    let planned = klamm(&cluster, &format!("reassign plan --topics {topic} --drain 0 -o json")).ok();
    assert_eq!(asked(&planned.out).len(), 4, "{planned}");
    let dir = paths::scratch_dir("ours");
    let file = dir.join("plan.json");
    std::fs::write(&file, &planned.out).expect("the plan");
    let file = file.display();
    java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --execute")).ok().expect("Successfully started");
    eventually("the moves are complete", 30, || {
        let verified = java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --verify")).ok();
        (verified.out.matches("is completed").count() == 4).then_some(())
    });
    let rows = partitions(&cluster, &topic);
    assert!(rows.iter().all(|(_, replicas, _)| *replicas == ["1", "2"]), "{rows:?}");
    klamm(&cluster, &format!("reassign execute {file}")).ok().expect("nothing to move");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn a_plan_of_apaches_tool_is_carried_out_by_klamm() {
    let cluster = cluster();
    let topic = create(&cluster, "theirs", "0:1,0:1,0:1");
    produce(&cluster, &topic, 0, 1000);
    let dir = paths::scratch_dir("theirs");
    let topics = dir.join("topics.json");
    std::fs::write(&topics, format!(r#"{{"version":1,"topics":[{{"topic":"{topic}"}}]}}"#)).expect("the topics");
    let topics = topics.display();
    let generated =
        java(&cluster, REASSIGN, &format!("--topics-to-move-json-file {topics} --broker-list 1,2 --generate")).ok();
    let (_, proposed) = generated.out.split_once("Proposed partition reassignment configuration").expect("a proposal");
    let file = dir.join("plan.json");
    std::fs::write(&file, proposed.trim()).expect("the plan");
    let file = file.display();
    klamm(&cluster, &format!("reassign execute {file}")).ok().expect("3 partitions moved");
    let verified = java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --verify")).ok();
    assert_eq!(verified.out.matches("is completed").count(), 3, "{verified}");
    let rows: Vec<Vec<String>> = partitions(&cluster, &topic).into_iter().map(|(_, replicas, _)| replicas).collect();
    assert_eq!(rows, asked(proposed.trim()).into_iter().map(|(_, ids)| ids).collect::<Vec<_>>());
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn a_file_that_names_an_unknown_broker_changes_nothing() {
    let cluster = cluster();
    let topic = create(&cluster, "misnamed", "0,1");
    let dir = paths::scratch_dir("misnamed");
    let file = dir.join("plan.json");
    let plan = |first: u32| {
        let plan = serde_json::json!({"version": 1, "partitions": [
            {"topic": topic, "partition": 1, "replicas": [2]},
            {"topic": topic, "partition": 0, "replicas": [first]},
        ]});
        std::fs::write(&file, plan.to_string()).expect("the plan");
    };
    let unthrottled = || {
        let configs = klamm(&cluster, &format!("configs describe topic {topic}")).ok();
        assert!(!configs.out.contains("throttled"), "{configs}");
    };
    plan(99);
    let execute = format!("reassign execute {} --throttle 1000000", file.display());
    let refused = klamm(&cluster, &execute).run();
    assert!(refused.code == 1, "{refused}");
    assert_contains(&refused.err, &format!("{topic}-0: no broker 99 is registered"));
    unthrottled();
    let rows = partitions(&cluster, &topic);
    assert!(rows[0].1 == ["0"] && rows[1].1 == ["1"], "{rows:?}");
    plan(2);
    klamm(&cluster, &execute).ok().expect("2 partitions moved");
    unthrottled();
    // Names of a broker that has gone meanwhile are taken off with the rest.
    let names = format!("configs alter topic {topic} --set follower.replication.throttled.replicas=0:99");
    klamm(&cluster, &names).ok();
    klamm(&cluster, &execute).ok().expect("nothing to move");
    unthrottled();
    let refused = klamm(&cluster, &execute.replace("1000000", "-1")).run();
    assert!(refused.code == 2, "{refused}");
    assert_contains(&refused.err, "invalid value '-1' for '--throttle <BYTES/S>'");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn moves_that_cannot_end_are_taken_back_by_either_tool() {
    let mut cluster = cluster();
    let topic = create(&cluster, "stuck", "0:1");
    produce(&cluster, &topic, 0, 1000);
    cluster.kill(2);
    let dir = paths::scratch_dir("stuck");
    let file = dir.join("plan.json");
    let plan = format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"replicas":[2,1]}}]}}"#);
    std::fs::write(&file, plan).expect("the plan");
    let file = file.display();
    for cancel in ["apache", "klamm"] {
        let tool = format!("--reassignment-json-file {file}");
        // Apache's tool would not begin a move to a broker that is down.
        klamm(&cluster, &format!("reassign execute {file} --no-wait")).ok().expect("1 moves begun");
        klamm(&cluster, "reassign status").ok().expect(&topic);
        java(&cluster, REASSIGN, "--list").ok().expect(&format!("{topic}-0"));
        match cancel {
            "klamm" => klamm(&cluster, "reassign cancel").ok().expect("cancelled"),
            // Without the option it would have the broker that is down forget its throttle, and fail.
            _ => java(&cluster, REASSIGN, &format!("{tool} --cancel --preserve-throttles"))
                .ok()
                .expect("Successfully cancelled"),
        };
        eventually("nothing is being moved", 10, || {
            klamm(&cluster, "reassign status").ok().out.contains("nothing is being moved").then_some(())
        });
        let rows = partitions(&cluster, &topic);
        assert_eq!(rows[0].1, ["0", "1"], "{rows:?}");
    }
    whole_again(&mut cluster);
    let _ = std::fs::remove_dir_all(dir);
}

/// What kafka-reassign-partitions prints for the way back, and what it proposes.
fn generated(cluster: &Cluster, topic: &str, brokers: &str, dir: &std::path::Path) -> (String, String) {
    let topics = dir.join("topics.json");
    std::fs::write(&topics, format!(r#"{{"version":1,"topics":[{{"topic":"{topic}"}}]}}"#)).expect("the topics");
    let arguments = format!("--topics-to-move-json-file {} --broker-list {brokers} --generate", topics.display());
    let printed = java(cluster, REASSIGN, &arguments).ok().out;
    let (current, proposed) = printed.split_once("Proposed partition reassignment configuration").expect("a proposal");
    let current = current.trim().strip_prefix("Current partition replica assignment").expect("the way back");
    (current.trim().to_owned(), proposed.trim().to_owned())
}

#[test]
fn the_way_back_that_apaches_tool_prints_names_directories_and_either_tool_takes_it() {
    let cluster = cluster();
    let topic = create(&cluster, "back", "0,0");
    produce(&cluster, &topic, 0, 1000);
    let dir = paths::scratch_dir("back");
    let (current, proposed) = generated(&cluster, &topic, "2", &dir);
    assert_contains(&current, &cluster.data(0).display().to_string());
    let (back, there) = (dir.join("back.json"), dir.join("there.json"));
    std::fs::write(&back, &current).expect("the way back");
    std::fs::write(&there, proposed).expect("the plan");
    let (back, there) = (back.display(), there.display());
    let on = |id: &str| {
        let rows = partitions(&cluster, &topic);
        assert!(rows.iter().all(|(_, replicas, _)| *replicas == [id]), "{rows:?}");
    };
    for tool in ["apache", "klamm"] {
        klamm(&cluster, &format!("reassign execute {there}")).ok().expect("2 partitions moved");
        on("2");
        match tool {
            "klamm" => klamm(&cluster, &format!("reassign execute {back}")).ok().expect("2 partitions moved"),
            _ => java(&cluster, REASSIGN, &format!("--reassignment-json-file {back} --execute"))
                .ok()
                .expect("Successfully started partition reassignments")
                .expect(&format!("for replica {topic}-0 with broker 0")),
        };
        eventually("all is back, and in its directory", 30, || {
            let verified = java(&cluster, REASSIGN, &format!("--reassignment-json-file {back} --verify")).ok();
            let moved = verified.out.matches("completed successfully").count();
            (verified.out.matches("is completed").count() == 2 && moved == 2).then_some(())
        });
        on("0");
    }
    // Where it is already, and a directory that is not there.
    java(&cluster, REASSIGN, &format!("--reassignment-json-file {back} --execute")).ok();
    klamm(&cluster, &format!("reassign execute {back}")).ok().expect("nothing to move");
    let wrong = current.replace(&cluster.data(0).display().to_string(), "/nowhere");
    let file = dir.join("wrong.json");
    std::fs::write(&file, wrong).expect("a wrong file");
    let file = file.display();
    let refused = klamm(&cluster, &format!("reassign execute {file}")).run();
    assert!(refused.code == 1 && refused.err.contains("broker 0 has no log directory /nowhere"), "{refused}");
    let refused = java(&cluster, REASSIGN, &format!("--reassignment-json-file {file} --execute")).run();
    assert!(refused.code != 0, "{refused}");
    on("0");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn a_move_into_a_named_directory_can_be_taken_back() {
    let cluster = cluster();
    let topic = create(&cluster, "named", "0:1");
    let line = "x".repeat(999) + "\n";
    let args = format!("-P -t {topic} -p 0 -X acks=all -X batch.size=100000");
    kcat(&cluster, &args).stdin(line.repeat(8_000)).ok();
    let dir = paths::scratch_dir("named");
    let (one, two) = (cluster.data(1), cluster.data(2));
    let plan = serde_json::json!({"version": 1, "partitions": [
        {"topic": topic, "partition": 0, "replicas": [2, 1], "log_dirs": [two.display().to_string(), one.display().to_string()]},
    ]});
    let file = dir.join("plan.json");
    std::fs::write(&file, plan.to_string()).expect("the plan");
    let file = format!("--reassignment-json-file {}", file.display());
    java(&cluster, REASSIGN, &format!("{file} --execute --throttle 20000"))
        .ok()
        .expect(&format!("for replica {topic}-0 with broker 2"));
    java(&cluster, REASSIGN, "--list").ok().expect(&format!("{topic}-0"));
    java(&cluster, REASSIGN, &format!("{file} --cancel")).ok().expect("Successfully cancelled");
    eventually("nothing is being moved", 10, || {
        klamm(&cluster, "reassign status").ok().out.contains("nothing is being moved").then_some(())
    });
    let rows = partitions(&cluster, &topic);
    assert_eq!(rows[0].1, ["0", "1"], "{rows:?}");
    let left = klamm(&cluster, &format!("configs describe topic {topic}")).ok();
    assert!(!left.out.contains("throttled"), "{left}");
    let _ = std::fs::remove_dir_all(dir);
}
