//! kafka-console-producer and kafka-console-consumer.

use klamm_tests::unique;

use crate::tools::{CONSUMER, PRODUCER, create, java, sorted};

#[test]
fn what_the_console_producer_sends_the_console_consumer_reads_from_the_beginning() {
    let topic = unique("console");
    create(&topic, 1);
    java(PRODUCER, &format!("--topic {topic} --reader-property parse.key=true --reader-property key.separator=:"))
        .args(["--reader-property", "parse.headers=true"])
        .stdin("h1:a,h1:b\tk1:v1\nh:x\tk2:v2\nh:x\tk3:\n")
        .ok();
    let read = java(CONSUMER, &format!("--topic {topic} --from-beginning --max-messages 3 --timeout-ms 30000"))
        .args(["--formatter-property", "print.key=true", "--formatter-property", "print.headers=true"])
        .args(["--formatter-property", "print.offset=true", "--formatter-property", "print.partition=true"])
        .ok();
    assert_eq!(
        read.lines(),
        [
            "Partition:0\tOffset:0\th1:a,h1:b\tk1\tv1",
            "Partition:0\tOffset:1\th:x\tk2\tv2",
            "Partition:0\tOffset:2\th:x\tk3\t"
        ]
    );
    read.expect("Processed a total of 3 messages");
}

#[test]
fn a_console_consumer_group_goes_on_where_it_stopped() {
    let (topic, group) = (unique("console-group"), unique("g"));
    create(&topic, 1);
    let send = |text: &str| java(PRODUCER, &format!("--topic {topic}")).stdin(text).ok();
    let read = |n: u32| {
        java(CONSUMER, &format!("--topic {topic} --group {group} --from-beginning --max-messages {n}"))
            .args(["--timeout-ms", "30000"])
            .ok()
    };
    send("one\ntwo\nthree\n");
    assert_eq!(read(3).lines(), ["one", "two", "three"]);
    send("four\nfive\n");
    assert_eq!(read(2).lines(), ["four", "five"]);
}

#[test]
fn include_with_a_regex_reads_every_matching_topic() {
    let base = unique("inc");
    for suffix in ["red", "blue", "other"] {
        create(&format!("{base}.{suffix}"), 2);
        crate::tools::produce(&format!("{base}.{suffix}"), 1, &[format!("from {suffix}")]);
    }
    let read = java(CONSUMER, "--from-beginning --max-messages 2 --timeout-ms 30000")
        .args(["--include", &format!("{base}\\.(red|blue)")])
        .ok();
    assert_eq!(sorted(&read), ["from blue", "from red"]);
}

#[test]
fn the_console_consumer_reads_one_partition_from_an_offset() {
    let topic = unique("console-at");
    create(&topic, 2);
    crate::tools::produce(&topic, 1, &crate::tools::values("v", 0..5));
    let read = java(CONSUMER, &format!("--topic {topic} --partition 1 --offset 3 --max-messages 2 --timeout-ms 30000"));
    assert_eq!(read.ok().lines(), ["v-3", "v-4"]);
}
