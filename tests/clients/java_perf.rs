//! kafka-producer-perf-test and kafka-consumer-perf-test.

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, unique};

use crate::tools::{create, java};

#[test]
fn the_perf_tools_write_and_read_a_hundred_thousand_records() {
    let topic = unique("perf");
    create(&topic, 3);
    Java::new("org.apache.kafka.tools.ProducerPerformance")
        .args(["--topic", &topic, "--num-records", "100000", "--record-size", "200", "--throughput", "-1"])
        .args(["--bootstrap-server", Broker::shared().bootstrap(), "--command-property", "acks=all"])
        .ok()
        .expect("100000 records sent")
        .expect("99.9th");
    let read = java(
        "org.apache.kafka.tools.ConsumerPerformance",
        &format!("--topic {topic} --num-records 100000 --timeout 30000 --group {topic}-g"),
    )
    .ok();
    let figures = read.out.lines().last().unwrap_or_default().split(", ").collect::<Vec<_>>();
    assert_eq!(figures.get(4), Some(&"100000"), "{read}");
}
