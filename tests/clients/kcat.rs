//! kcat: librdkafka 2.0 from the shell.

use klamm_tests::{assert_contains, broker, unique};

use crate::tools::{create, kcat, produce, sorted, values};

const MANY: u32 = 5000;

#[test]
fn metadata_lists_brokers_and_partitions() {
    let topic = unique("kcat-meta");
    create(&topic, 3);
    let listed = kcat("-L").ok();
    assert_contains(&listed.out, &format!("{} brokers:", broker::nodes()));
    assert_contains(&listed.out, &format!("topic \"{topic}\" with 3 partitions:"));
}

fn round_trip(codec: &str) {
    let topic = unique("kcat-codec");
    create(&topic, 3);
    let sent = values(codec, 0..MANY);
    kcat(&format!("-P -t {topic} -z {codec} -X acks=all")).stdin(sent.join("\n")).ok();
    let read = kcat(&format!("-C -t {topic} -o beginning -e -q")).ok();
    let mut sent = sent;
    sent.sort();
    assert_eq!(sorted(&read), sent);
}

#[test]
fn gzip_records_come_back() {
    round_trip("gzip");
}

#[test]
fn snappy_records_come_back() {
    round_trip("snappy");
}

#[test]
fn lz4_records_come_back() {
    round_trip("lz4");
}

#[test]
fn zstd_records_come_back() {
    round_trip("zstd");
}

#[test]
fn plain_records_come_back_with_acks_0_1_and_all() {
    for acks in ["0", "1", "all"] {
        let topic = unique("kcat-acks");
        create(&topic, 1);
        kcat(&format!("-P -t {topic} -X acks={acks}")).stdin(values("v", 0..100).join("\n")).ok();
        // Without acknowledgements the last record may still be on its way.
        klamm_tests::eventually("a hundred records in order", 20, || {
            let read = kcat(&format!("-C -t {topic} -o beginning -e -q")).ok();
            (read.lines() == values("v", 0..100)).then_some(())
        });
    }
}

#[test]
fn an_idempotent_producer_writes_each_record_once() {
    let topic = unique("kcat-idem");
    create(&topic, 1);
    let sent = values("v", 0..MANY);
    kcat(&format!("-P -t {topic} -X enable.idempotence=true")).stdin(sent.join("\n")).ok();
    let read = kcat(&format!("-C -t {topic} -o beginning -e -q")).ok();
    assert_eq!(read.lines(), sent);
}

#[test]
fn keys_and_headers_with_duplicate_names_come_back() {
    let topic = unique("kcat-head");
    create(&topic, 1);
    kcat(&format!("-P -t {topic} -K: -H a=1 -H b=2 -H a=3")).stdin("key:value\n").ok();
    let read = kcat(&format!("-C -t {topic} -o beginning -e -q -f %k|%s|%h|%o\\n")).ok();
    assert_eq!(read.lines(), ["key|value|a=1,b=2,a=3|0"]);
}

#[test]
fn a_group_reads_every_partition() {
    let (topic, group) = (unique("kcat-group"), unique("kcat-g"));
    create(&topic, 3);
    for partition in 0..3 {
        produce(&topic, partition, &values(&partition.to_string(), 0..100));
    }
    let read = kcat(&format!("-G {group} -X auto.offset.reset=earliest -c 300 -q {topic}")).ok();
    assert_eq!(read.lines().len(), 300);
    assert_eq!(sorted(&read).iter().collect::<std::collections::BTreeSet<_>>().len(), 300);
}

#[test]
fn offsets_are_found_by_time_and_from_the_end() {
    let topic = unique("kcat-query");
    create(&topic, 1);
    produce(&topic, 0, &values("v", 0..50));
    assert_contains(&kcat(&format!("-Q -t {topic}:0:1")).ok().out, "offset 0");
    let last = kcat(&format!("-C -t {topic} -p 0 -o -10 -e -q")).ok();
    assert_eq!(last.lines(), values("v", 40..50));
}
