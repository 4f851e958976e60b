//! Consumer groups as their users see them: an operator, an API server and brokers, all real.

use std::time::Duration;

use klamm_client::admin::offsets::CommittedOffset;
use klamm_client::{Client, ClientOptions, TopicPartition};
use klamm_tests::{Broker, Process, Tool, assert_contains, eventually};
use serde_json::{Value, json};

use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, condition, klamm, until_condition};
use crate::types::object;

fn produce(broker: &Broker, topic: &str, partition: i32, count: usize) {
    let lines = "record\n".repeat(count);
    klamm(broker, &format!("produce {topic} --partition {partition}")).stdin(lines).ok();
}

/// A member of a group, until it is dropped.
fn consumer(broker: &Broker, group: &str, topic: &str) -> Process {
    klamm(broker, &format!("consume {topic} --group {group}")).start()
}

/// What a group has committed in a partition.
fn committed(broker: &Broker, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let out = klamm(broker, &format!("groups describe {group} -o json")).run();
    let all: Value = serde_json::from_str(&out.out).ok()?;
    let rows = all[0]["partitions"].as_array()?.clone();
    let row = rows.into_iter().find(|row| row["topic"] == topic && row["partition"] == partition)?;
    row["current_offset"].as_i64()
}

fn group(space: &Namespace, broker: &Broker, name: &str, spec: Value) {
    let mut spec = spec;
    spec["bootstrapServers"] = broker.bootstrap().into();
    space.apply(&object("ConsumerGroup", name, &spec));
}

fn look(space: &Namespace, name: &str) {
    space.kubectl(["annotate", "--overwrite", "kmg", name, &format!("look={}", klamm_tests::unique("now"))]).ok();
}

#[test]
fn a_groups_state_members_and_lag_are_shown() {
    with_control_plane("groups::a_groups_state_members_and_lag_are_shown", || {
        install_types();
        let (space, broker) = (Namespace::new("groups"), Broker::start(&[]));
        let operator = Operator::start(&[&space]);
        klamm(&broker, "topics create orders --partitions 2").ok();
        group(
            &space,
            &broker,
            "billing",
            json!({ "topics": ["orders"], "lagPolicy": { "maxLag": 5, "maxLagTime": "1h" } }),
        );
        let nobody = until_condition(&space, "kmg", "billing", "Ready", "True/Watched");
        assert_eq!(condition(&nobody, "Active").as_deref(), Some("False/NoMembers"), "{nobody}");
        assert_eq!((&nobody["status"]["state"], &nobody["status"]["members"]), (&json!("Dead"), &json!(0)));
        assert_eq!(nobody["status"]["lag"]["uncommittedPartitions"], 2);

        let mut member = consumer(&broker, "billing", "orders");
        eventually("it is in the group", 30, || {
            look(&space, "billing");
            let found = space.get("kmg", "billing")?;
            (condition(&found, "Active").as_deref() == Some("True/Members")).then_some(())
        });
        produce(&broker, "orders", 0, 10);
        eventually("it has read and committed all", 30, || {
            (committed(&broker, "billing", "orders", 0) == Some(10)).then_some(())
        });
        look(&space, "billing");
        let read = until_condition(&space, "kmg", "billing", "LagHealthy", "True/WithinPolicy");
        assert_eq!(read["status"]["state"], "Stable", "{read}");
        space.kubectl(["get", "kmg"]).ok().expect("billing").expect("Stable");

        // Without its member it falls behind; the numbers are never more than what is there.
        member.signal("TERM");
        member.wait(Duration::from_secs(20)).expect("it ends");
        produce(&broker, "orders", 0, 30);
        look(&space, "billing");
        let late = until_condition(&space, "kmg", "billing", "LagHealthy", "False/TooFarBehind");
        let lag = &late["status"]["lag"];
        assert_eq!((&lag["total"], &lag["max"], &lag["maxPartition"]), (&json!(30), &json!(30), &json!("orders-0")));
        assert_eq!(late["status"]["topics"], json!([{ "name": "orders", "partitions": 2, "lag": 30 }]));
        let own = format!("namespace=\"{}\"", space.name());
        let series = operator.get("/metrics").expect("metrics");
        let value = |name: &str| {
            let line = series.lines().find(|line| line.starts_with(name) && line.contains(&own));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
        };
        assert_eq!((value("klamm_consumergroup_lag{"), value("klamm_consumergroup_members{")), (Some(30), Some(0)));
        space.kubectl(["delete", "kmg", "billing", "--timeout=30s"]).ok();
        assert_eq!(committed(&broker, "billing", "orders", 0), Some(10), "the group stays by default");
        eventually("its series are gone", 30, || (!operator.get("/metrics")?.contains(&own)).then_some(()));
    });
}

#[test]
fn a_group_begins_where_it_is_told_to() {
    with_control_plane("groups::a_group_begins_where_it_is_told_to", || {
        install_types();
        let (space, broker) = (Namespace::new("begin"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        klamm(&broker, "topics create orders --partitions 2").ok();
        produce(&broker, "orders", 0, 4);
        let spec = |edge: &str| json!({ "topics": ["orders"], "initialOffsets": { "offset": edge } });
        group(&space, &broker, "first", spec("Earliest"));
        group(&space, &broker, "last", spec("Latest"));
        let timed = json!({ "topics": ["orders"], "initialOffsets": { "timestamp": "2020-01-01T00:00:00Z" } });
        group(&space, &broker, "timed", timed);
        for (name, offset) in [("first", 0), ("last", 4), ("timed", 0)] {
            until_condition(&space, "kmg", name, "OffsetsInitialized", "True/Committed");
            let found = [0, 1].map(|partition| committed(&broker, name, "orders", partition));
            assert_eq!(found, [Some(offset), Some(0)], "{name}");
        }
        let shown = until_condition(&space, "kmg", "first", "Ready", "True");
        assert_eq!(shown["status"]["lag"]["total"], 4, "{shown}");
        // It is said once: what the group commits itself stays.
        klamm(&broker, "groups reset-offsets first --topic orders --to-latest").ok();
        look(&space, "first");
        eventually("it is seen", 30, || (space.get("kmg", "first")?["status"]["lag"]["total"] == 0).then_some(()));
        assert_eq!(committed(&broker, "first", "orders", 0), Some(4));
        // Partitions that come later begin at their first record.
        klamm(&broker, "topics alter orders --partitions 3").ok();
        produce(&broker, "orders", 2, 3);
        look(&space, "first");
        eventually("the new partition has a commit", 30, || {
            (committed(&broker, "first", "orders", 2) == Some(0)).then_some(())
        });
        let member = klamm(&broker, "consume orders --group first -n 3").ok();
        assert_contains(&member.out, "record");
        // Who waits for it before consumers start is not told too soon.
        group(&space, &broker, "early", json!({ "topics": ["bills"], "initialOffsets": { "offset": "Earliest" } }));
        until_condition(&space, "kmg", "early", "OffsetsInitialized", "False/TopicsMissing");
        klamm(&broker, "topics create bills --partitions 1").ok();
        look(&space, "early");
        until_condition(&space, "kmg", "early", "OffsetsInitialized", "True/Committed");
        // A name that is mistyped is no success.
        group(&space, &broker, "typo", json!({ "reset": { "id": "1", "to": { "offset": "Earliest" } } }));
        until_condition(&space, "kmg", "typo", "ResetComplete", "False/Failed");
    });
}

/// A running consumer that begins at the end hears of a new partition when there are records in it already.
#[test]
fn what_a_topic_gains_is_read_from_its_first_record_while_the_group_runs() {
    with_control_plane("groups::what_a_topic_gains_is_read_from_its_first_record_while_the_group_runs", || {
        install_types();
        let (space, broker) = (Namespace::new("guard"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        let topic = |partitions: i32| {
            let spec =
                json!({ "bootstrapServers": broker.bootstrap(), "partitions": partitions, "replicationFactor": 1 });
            space.apply(&object("Topic", "orders", &spec));
            eventually("the topic is as described", 60, || {
                let found = space.get("kmt", "orders")?;
                let ready = condition(&found, "Ready")?.starts_with("True");
                (ready && found["status"]["partitions"] == partitions).then_some(())
            });
        };
        topic(1);
        let spec = json!({ "topics": ["orders"], "initialOffsets": { "offset": "Latest" }, "deletionPolicy": "DeleteWhenEmpty" });
        group(&space, &broker, "guarded", spec);
        until_condition(&space, "kmg", "guarded", "OffsetsInitialized", "True/Committed");

        let reader = |group: &str| {
            let line = format!("-b {} -G {group} -f %s\\n -u -X auto.offset.reset=latest", broker.bootstrap());
            let refresh = "-X topic.metadata.refresh.interval.ms=1000 -X auto.commit.interval.ms=200 orders";
            Tool::new("kcat").args(line.split_whitespace()).args(refresh.split_whitespace()).start()
        };
        let mut readers = ["guarded", "plain"].map(reader);
        eventually("both have read and committed", 60, || {
            produce(&broker, "orders", 0, 1);
            let both = ["guarded", "plain"].iter().all(|group| committed(&broker, group, "orders", 0) > Some(0));
            both.then_some(())
        });
        for reader in &mut readers {
            reader.signal("STOP");
        }
        topic(2);
        klamm(&broker, "produce orders --partition 1").stdin("early\nearly\n").ok();
        assert_eq!(committed(&broker, "guarded", "orders", 1), Some(0), "at once, though the group has members");
        for reader in &mut readers {
            reader.signal("CONT");
        }
        eventually("both read what comes later", 60, || {
            klamm(&broker, "produce orders --partition 1").stdin("late\n").ok();
            readers.iter().all(|reader| reader.stdout().contains("late")).then_some(())
        });
        let early = readers.each_ref().map(|reader| reader.stdout().matches("early").count());
        assert_eq!(early, [2, 0], "guarded and not");
        look(&space, "guarded");
        let found = until_condition(&space, "kmg", "guarded", "Active", "True/Members");
        assert_eq!(condition(&found, "OffsetsInitialized").as_deref(), Some("True/Committed"), "{found}");
        // The guard goes with the group.
        for reader in &mut readers {
            reader.signal("TERM");
            reader.wait(Duration::from_secs(20)).expect("it ends");
        }
        space.kubectl(["delete", "kmg", "guarded", "--timeout=90s"]).limit(100).ok();
        let left = klamm(&broker, "configs describe group guarded -o json").ok();
        assert!(!left.out.contains("\"group\""), "{left}");
    });
}

#[test]
fn a_reset_is_done_once_and_only_without_members() {
    with_control_plane("groups::a_reset_is_done_once_and_only_without_members", || {
        install_types();
        let (space, broker) = (Namespace::new("reset"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        klamm(&broker, "topics create orders --partitions 1").ok();
        produce(&broker, "orders", 0, 8);
        klamm(&broker, "consume orders --group g --from-beginning -n 8").ok();
        eventually("it has committed", 30, || (committed(&broker, "g", "orders", 0) == Some(8)).then_some(()));
        let spec = |id: &str, to: Value, more: Value| {
            let mut reset = json!({ "id": id, "to": to });
            reset.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            json!({ "reset": reset })
        };
        let last = |name: &str| space.get("kmg", name).map(|found| found["status"]["lastReset"].clone());

        group(&space, &broker, "g", spec("one", json!({ "offset": "Earliest" }), json!({ "dryRun": true })));
        until_condition(&space, "kmg", "g", "ResetComplete", "True/DryRun");
        assert_eq!(last("g").expect("a reset")["preview"], json!(["orders-0: 8 -> 0"]));
        assert_eq!(committed(&broker, "g", "orders", 0), Some(8), "nothing is done");
        group(&space, &broker, "g", spec("one", json!({ "offset": "Earliest" }), json!({})));
        until_condition(&space, "kmg", "g", "ResetComplete", "True/Applied");
        assert_eq!(committed(&broker, "g", "orders", 0), Some(0));
        space.kubectl(["describe", "kmg", "g"]).ok().expect("ResetPreviewed").expect("ResetApplied");

        // Once: the same id again does nothing, whatever the group has done meanwhile.
        klamm(&broker, "consume orders --group g -n 5").ok();
        eventually("it has committed", 30, || (committed(&broker, "g", "orders", 0) == Some(5)).then_some(()));
        look(&space, "g");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(committed(&broker, "g", "orders", 0), Some(5));

        // While it has members a reset waits, or fails, as asked.
        let mut member = consumer(&broker, "g", "orders");
        eventually("it has a member, and has read all", 30, || {
            (committed(&broker, "g", "orders", 0) == Some(8)).then_some(())
        });
        group(&space, &broker, "g", spec("two", json!({ "shiftBy": -3 }), json!({ "whenActive": "Fail" })));
        until_condition(&space, "kmg", "g", "ResetComplete", "False/Failed");
        group(&space, &broker, "g", spec("three", json!({ "shiftBy": -3 }), json!({})));
        until_condition(&space, "kmg", "g", "ResetComplete", "False/Waiting");
        assert_eq!(committed(&broker, "g", "orders", 0), Some(8));
        member.signal("TERM");
        member.wait(Duration::from_secs(20)).expect("it ends");
        until_condition(&space, "kmg", "g", "ResetComplete", "True/Applied");
        assert_eq!(committed(&broker, "g", "orders", 0), Some(5));
        group(&space, &broker, "g", spec("four", json!({ "offsets": { "orders-7": 1 } }), json!({})));
        until_condition(&space, "kmg", "g", "ResetComplete", "False/Failed");
        assert_contains(last("g").expect("a reset")["message"].as_str().unwrap_or(""), "orders-7");
        group(&space, &broker, "g", spec("five", json!({ "timestamp": "2020-01-01T00:00:00Z" }), json!({})));
        until_condition(&space, "kmg", "g", "ResetComplete", "True/Applied");
        assert_eq!(committed(&broker, "g", "orders", 0), Some(0));
    });
}

#[test]
fn a_group_goes_only_when_it_is_empty_and_stale_offsets_are_told() {
    with_control_plane("groups::a_group_goes_only_when_it_is_empty_and_stale_offsets_are_told", || {
        install_types();
        let (space, broker) = (Namespace::new("leave"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        klamm(&broker, "topics create orders --partitions 1").ok();
        produce(&broker, "orders", 0, 8);
        klamm(&broker, "consume orders --group g --from-beginning -n 8").ok();
        eventually("it has committed", 30, || (committed(&broker, "g", "orders", 0) == Some(8)).then_some(()));

        // Commits that speak of what is not there any more are no lag.
        group(&space, &broker, "g", json!({ "deletionPolicy": "DeleteWhenEmpty" }));
        until_condition(&space, "kmg", "g", "Ready", "True/Watched");
        let beyond = [(TopicPartition::new("orders", 0), CommittedOffset { offset: 99, ..CommittedOffset::default() })];
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let committed_beyond = runtime.block_on(async {
            let client = Client::connect(broker.bootstrap(), ClientOptions::default()).await?;
            client.commit_offsets("g", None, &beyond.into()).await
        });
        committed_beyond.expect("a commit");
        look(&space, "g");
        let stale = until_condition(&space, "kmg", "g", "OffsetsStale", "True/TopicRecreated");
        assert_eq!(stale["status"]["lag"]["total"], 0);

        // Another resource for the group waits, and goes without taking the group along.
        group(&space, &broker, "h", json!({ "groupId": "g", "deletionPolicy": "DeleteWhenEmpty" }));
        until_condition(&space, "kmg", "h", "Ready", "False/ResourceConflict");
        // So does one that comes by another address of the same cluster.
        let elsewhere = broker.bootstrap().replace("127.0.0.1", "localhost");
        assert_ne!(elsewhere, broker.bootstrap());
        let theirs = json!({
            "bootstrapServers": elsewhere, "groupId": "g", "deletionPolicy": "DeleteWhenEmpty",
            "reset": { "id": "theirs", "to": { "offset": "Earliest" } },
        });
        space.apply(&object("ConsumerGroup", "thief", &theirs));
        until_condition(&space, "kmg", "thief", "Ready", "False/ResourceConflict");
        space.kubectl(["delete", "kmg", "thief", "--timeout=30s"]).limit(40).ok();
        space.kubectl(["delete", "kmg", "h", "--timeout=30s"]).ok();
        assert!(committed(&broker, "g", "orders", 0).is_some());

        let mut member = consumer(&broker, "g", "orders");
        eventually("it has a member", 30, || {
            let out = klamm(&broker, "groups describe g -o json").run().out;
            out.contains("Stable").then_some(())
        });
        space.kubectl(["delete", "kmg", "g", "--wait=false"]).ok();
        until_condition(&space, "kmg", "g", "Ready", "False/GroupActive");
        member.signal("TERM");
        member.wait(Duration::from_secs(20)).expect("it ends");
        space.kubectl(["wait", "--for=delete", "--timeout=60s", "kmg/g"]).limit(70).ok();
        let out = klamm(&broker, "groups describe g").run();
        assert_ne!(out.code, 0, "{out}");
    });
}
