//! kafka-topics: every verb, and what it says when refused.

use klamm_tests::{Broker, assert_contains, broker, eventually, unique};

use crate::tools::{TOPICS, java};

#[test]
fn a_topic_is_created_listed_described_grown_and_deleted() {
    let topic = unique("verbs");
    java(TOPICS, &format!("--create --topic {topic} --partitions 3 --replication-factor {}", broker::nodes()))
        .args(["--config", "retention.ms=3600000", "--config", "max.message.bytes=200000"])
        .ok()
        .expect(&format!("Created topic {topic}."));
    assert!(java(TOPICS, "--list").ok().lines().contains(&topic.as_str()));

    let described = java(TOPICS, &format!("--describe --topic {topic}")).ok();
    for part in ["PartitionCount: 3", "max.message.bytes=200000", "retention.ms=3600000"] {
        assert_contains(&described.out, part);
    }
    assert_contains(&described.out, &format!("ReplicationFactor: {}", broker::nodes()));
    assert_eq!(described.out.matches("Leader: ").count(), 3, "{described}");
    assert_contains(&described.out, "Isr: ");

    java(TOPICS, &format!("--alter --topic {topic} --partitions 5")).ok();
    let grown = java(TOPICS, &format!("--describe --topic {topic}")).ok();
    assert_contains(&grown.out, "PartitionCount: 5");
    assert_eq!(grown.out.matches("Leader: none").count(), 0, "{grown}");

    java(TOPICS, &format!("--delete --topic {topic}")).ok();
    eventually("the topic is gone from the list", 20, || {
        (!java(TOPICS, "--list").ok().lines().contains(&topic.as_str())).then_some(())
    });
}

#[test]
fn describe_filters_find_overrides_and_nothing_unhealthy() {
    let topic = unique("filters");
    // In sync are all replicas: exactly at the minimum.
    let configs = format!("--config cleanup.policy=compact --config min.insync.replicas={}", broker::nodes());
    java(TOPICS, &format!("--create --topic {topic} --partitions 2 {configs}")).ok();
    let overridden = java(TOPICS, &format!("--describe --topic {topic} --topics-with-overrides")).ok();
    assert_contains(&overridden.out, &topic);
    for filter in ["--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"] {
        let found = java(TOPICS, &format!("--describe --topic {topic} {filter}")).ok();
        assert_eq!(found.out.trim(), "", "{filter}");
    }
    let at = java(TOPICS, &format!("--describe --topic {topic} --at-min-isr-partitions")).ok();
    assert_eq!(at.out.matches("Leader: ").count(), 2, "{at}");
}

#[test]
fn a_topic_is_described_by_its_id() {
    let topic = unique("by-id");
    java(TOPICS, &format!("--create --topic {topic} --partitions 1")).ok();
    let described = java(TOPICS, &format!("--describe --topic {topic}")).ok();
    let id = described.out.split("TopicId: ").nth(1).and_then(|t| t.split_whitespace().next());
    let id = id.unwrap_or_else(|| panic!("no topic id: {described}"));
    assert_eq!(id.len(), 22, "{id}");
    assert_contains(&java(TOPICS, &format!("--describe --topic-id {id}")).ok().out, &topic);
}

#[test]
fn if_not_exists_and_if_exists_make_repeats_harmless() {
    let topic = unique("repeat");
    let create = format!("--create --topic {topic} --partitions 1 --if-not-exists");
    java(TOPICS, &create).ok();
    java(TOPICS, &create).ok();
    java(TOPICS, &format!("--delete --topic {topic}-absent --if-exists")).ok();
    java(TOPICS, &format!("--alter --topic {topic}-absent --partitions 3 --if-exists")).ok();
}

#[test]
fn refusals_say_why() {
    let topic = unique("refused");
    java(TOPICS, &format!("--create --topic {topic} --partitions 2")).ok();
    let refused = |line: &str, why: &str| {
        let output = java(TOPICS, line).run();
        assert_eq!(output.code, 1, "{output}");
        assert_contains(&output.text(), why);
    };
    refused(&format!("--create --topic {topic}"), "already exists");
    refused(&format!("--alter --topic {topic} --partitions 1"), "InvalidPartitionsException");
    refused(
        &format!("--create --topic {topic}-x --replication-factor {}", broker::nodes() + 1),
        "InvalidReplicationFactorException",
    );
    refused(
        &format!("--create --topic {topic}-x --partitions 1 --config no.such.config=1"),
        "InvalidConfigurationException",
    );
    refused(
        &format!("--create --topic {topic}-x --partitions 1 --config retention.ms=soon"),
        "Not a number of type LONG",
    );
    refused("--create --topic bad$name", "InvalidTopicException");
    refused(&format!("--create --topic {}", "x".repeat(250)), "InvalidTopicException");
    refused(&format!("--describe --topic {topic}-absent"), "does not exist as expected");
    refused(&format!("--delete --topic {topic}-absent"), "does not exist as expected");
}

#[test]
fn names_that_differ_by_dot_and_underscore_collide() {
    let base = unique("collide");
    java(TOPICS, &format!("--create --topic {base}.a_b")).ok();
    let output = java(TOPICS, &format!("--create --topic {base}_a.b")).run();
    assert_eq!(output.code, 1, "{output}");
    assert_contains(&output.text(), "InvalidTopicException");
    let longest = format!("{base}-{}", "x".repeat(249 - base.len() - 1));
    java(TOPICS, &format!("--create --topic {longest}")).ok();
}

#[test]
fn a_replica_assignment_is_taken_as_given() {
    let topic = unique("assigned");
    let node = crate::tools::nodes().remove(0);
    java(TOPICS, &format!("--create --topic {topic} --replica-assignment {node},{node}")).ok();
    let described = java(TOPICS, &format!("--describe --topic {topic}")).ok();
    assert_eq!(described.out.matches(&format!("Leader: {node}")).count(), 2, "{described}");
    let output = java(TOPICS, &format!("--create --topic {topic}-x --replica-assignment 4711")).run();
    assert_eq!(output.code, 1, "{output}");
    assert_contains(&output.text(), "InvalidReplicaAssignmentException");
}

#[test]
fn growing_leaves_old_records_where_they_are() {
    let topic = unique("grown");
    java(TOPICS, &format!("--create --topic {topic} --partitions 1")).ok();
    crate::tools::produce(&topic, 0, &crate::tools::values("old", 0..10));
    java(TOPICS, &format!("--alter --topic {topic} --partitions 3")).ok();
    crate::tools::produce(&topic, 2, &crate::tools::values("new", 0..1));
    let old = crate::tools::kcat(&format!("-C -t {topic} -p 0 -o beginning -e -q")).ok();
    assert_eq!(old.lines(), crate::tools::values("old", 0..10));
    let new = crate::tools::kcat(&format!("-C -t {topic} -p 2 -o beginning -e -q")).ok();
    assert_eq!(new.lines(), ["new-0"]);
}

#[test]
fn internal_topics_can_be_left_out_of_the_list() {
    let broker = Broker::shared();
    let topic = unique("internal");
    crate::tools::create(&topic, 1);
    // A committed offset brings `__consumer_offsets` into being.
    crate::tools::python_on(broker, "admin.py", &["commit", &topic, &format!("{topic}-g"), "0", "0"]).ok();
    assert!(java(TOPICS, "--list").ok().lines().contains(&"__consumer_offsets"));
    assert!(!java(TOPICS, "--list --exclude-internal").ok().lines().contains(&"__consumer_offsets"));
}
