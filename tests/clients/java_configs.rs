//! kafka-configs: topic and broker configuration, seen and changed.

use klamm_tests::{assert_contains, broker, unique};

use crate::tools::{CONFIGS, create, java};

#[test]
fn topic_configs_are_set_shown_and_removed() {
    let topic = unique("configs");
    create(&topic, 1);
    let topics = format!("--entity-type topics --entity-name {topic}");
    java(CONFIGS, &format!("--alter {topics} --add-config retention.ms=1000000,cleanup.policy=[compact,delete]"))
        .ok()
        .expect("Completed updating config for topic");
    let shown = java(CONFIGS, &format!("--describe {topics}")).ok();
    assert_contains(&shown.out, "retention.ms=1000000");
    assert_contains(&shown.out, "cleanup.policy=compact,delete");
    assert_contains(&shown.out, "DYNAMIC_TOPIC_CONFIG");
    java(CONFIGS, &format!("--alter {topics} --delete-config retention.ms")).ok();
    let shown = java(CONFIGS, &format!("--describe {topics}")).ok();
    assert!(!shown.out.contains("retention.ms"), "{shown}");
    let all = java(CONFIGS, &format!("--describe {topics} --all")).ok();
    let min_isr = if broker::nodes() == 1 { "min.insync.replicas=1" } else { "min.insync.replicas=2" };
    for key in ["max.message.bytes=1048588", "segment.bytes=1073741824", min_isr, "compression.type=producer"] {
        assert_contains(&all.out, key);
    }
    assert_contains(&all.out, "DEFAULT_CONFIG");
}

#[test]
fn bad_values_and_unknown_keys_are_refused() {
    let topic = unique("bad-config");
    create(&topic, 1);
    for pair in
        ["no.such.key=1", "retention.ms=soon", "cleanup.policy=burn", "segment.bytes=-5", "min.insync.replicas=0"]
    {
        let refused =
            java(CONFIGS, &format!("--alter --entity-type topics --entity-name {topic} --add-config {pair}")).run();
        assert_eq!(refused.code, 1, "{refused}");
        assert_contains(&refused.text(), "InvalidConfigurationException");
    }
    let shown = java(CONFIGS, &format!("--describe --entity-type topics --entity-name {topic}")).ok();
    assert!(!shown.out.contains('='), "nothing was changed: {shown}");
}

#[test]
fn broker_configs_are_shown_and_a_dynamic_one_is_changed() {
    let node = crate::tools::nodes().remove(0);
    let broker = format!("--entity-type brokers --entity-name {node}");
    let all = java(CONFIGS, &format!("--describe {broker} --all")).ok();
    for key in [
        "listeners=",
        "log.dirs=",
        "num.partitions=3",
        "log.segment.bytes=1073741824",
        "auto.create.topics.enable=true",
    ] {
        assert_contains(&all.out, key);
    }
    assert_contains(&all.out, "STATIC_BROKER_CONFIG");
    java(CONFIGS, &format!("--alter {broker} --add-config log.retention.ms=604800001")).ok();
    let shown = java(CONFIGS, &format!("--describe {broker}")).ok();
    assert_contains(&shown.out, "log.retention.ms=604800001");
    java(CONFIGS, &format!("--alter {broker} --delete-config log.retention.ms")).ok();
    let refused = java(CONFIGS, &format!("--alter {broker} --add-config log.dirs=/elsewhere")).run();
    assert_eq!(refused.code, 1, "{refused}");
    assert_contains(&refused.text(), "InvalidRequestException");
}

#[test]
fn topic_configs_really_act() {
    let topic = unique("acting");
    create(&topic, 1);
    let alter = |pair: &str| {
        java(CONFIGS, &format!("--alter --entity-type topics --entity-name {topic} --add-config {pair}")).ok();
    };
    alter("max.message.bytes=2000");
    let big = "x".repeat(5000);
    let refused =
        crate::tools::kcat(&format!("-P -t {topic} -p 0 -X acks=all -X message.timeout.ms=8000")).stdin(big).run();
    assert_ne!(refused.code, 0, "{refused}");
    assert_contains(&refused.err, "too large");
    alter("message.timestamp.type=LogAppendTime");
    crate::tools::produce(&topic, 0, &["stamped".into()]);
    let read = crate::tools::python("records.py", &["stamps", &topic]).ok();
    assert_contains(&read.out, "log-append stamped");
}
