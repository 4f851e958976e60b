//! kafka-get-offsets and kafka-delete-records.

use klamm_tests::{assert_contains, paths, unique};

use crate::tools::{DELETE_RECORDS, GET_OFFSETS, create, java, produce, python, values};

#[test]
fn offsets_are_found_at_either_end_and_by_time() {
    let topic = unique("offsets");
    create(&topic, 2);
    produce(&topic, 0, &values("v", 0..5));
    let between = python("admin.py", &["millis"]).ok().out.trim().to_owned();
    produce(&topic, 0, &values("w", 0..5));
    let at = |time: &str| {
        let output = java(GET_OFFSETS, &format!("--topic {topic} --time {time}")).ok();
        output.out.trim().replace(&format!("{topic}:"), "")
    };
    assert_eq!(at("latest"), "0:10\n1:0");
    assert_eq!(at("-1"), "0:10\n1:0");
    assert_eq!(at("earliest"), "0:0\n1:0");
    // A partition without a record at or after that time is left out.
    assert_eq!(at(&between), "0:5");
    assert_contains(&at("max-timestamp"), "0:");
    assert_contains(&at("earliest-local"), "0:0");
    let one = java(GET_OFFSETS, &format!("--topic-partitions {topic}:0")).ok();
    assert_eq!(one.out.trim(), format!("{topic}:0:10"));
    let internal = java(GET_OFFSETS, "--exclude-internal-topics --time latest").ok();
    assert!(!internal.out.contains("__consumer_offsets"), "{internal}");
}

#[test]
fn deleted_records_are_gone_and_the_rest_stays() {
    let topic = unique("deleted");
    create(&topic, 1);
    produce(&topic, 0, &values("v", 0..20));
    let delete = |offset: i64| {
        let file = paths::scratch().join(unique("delete.json"));
        let json = format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"offset":{offset}}}]}}"#);
        std::fs::write(&file, json).expect("the file of offsets");
        java(DELETE_RECORDS, &format!("--offset-json-file {}", file.display())).run()
    };
    assert_contains(&delete(15).out, "low_watermark: 15");
    let left = crate::tools::kcat(&format!("-C -t {topic} -p 0 -o beginning -e -q")).ok();
    assert_eq!(left.lines(), values("v", 15..20));
    assert_contains(&delete(4000).text(), "OffsetOutOfRangeException");
    // −1 is the high watermark: everything goes.
    assert_contains(&delete(-1).out, "low_watermark: 20");
    assert_eq!(java(GET_OFFSETS, &format!("--topic {topic} --time earliest")).ok().out.trim(), format!("{topic}:0:20"));
    produce(&topic, 0, &values("v", 20..21));
    let left = crate::tools::kcat(&format!("-C -t {topic} -p 0 -o beginning -e -q -f %o:%s\\n")).ok();
    assert_eq!(left.lines(), ["20:v-20"]);
}
