//! Kafka's tools that read our bytes: kafka-dump-log on our files, the formatters on `__consumer_offsets`.

use std::path::PathBuf;

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, assert_contains, eventually, unique};

use crate::tools::{CONSUMER, DUMP_LOG, create, java, produce, python, values};

fn files(topic: &str, partition: u32, extension: &str) -> Vec<PathBuf> {
    let dir = Broker::shared().data().join(format!("{topic}-{partition}"));
    let listed = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = listed.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

fn dump(file: &std::path::Path, more: &[&str]) -> String {
    let output = Java::new(DUMP_LOG).args(["--files", &file.display().to_string()]).args(more).ok();
    assert!(!output.out.contains("isvalid: false"), "{output}");
    output.out
}

#[test]
fn dump_log_reads_our_segments() {
    let topic = unique("dumped");
    create(&topic, 1);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        // Long and repetitive, or librdkafka sends them plain.
        let stdin = (0..3).map(|i| format!("{codec}-{i} {}", "again ".repeat(100))).collect::<Vec<_>>().join("\n");
        crate::tools::kcat(&format!("-P -t {topic} -p 0 -z {codec} -X acks=all")).stdin(stdin).ok();
    }
    let segment = files(&topic, 0, "log");
    assert_eq!(segment.len(), 1, "{segment:?}");
    let text = dump(&segment[0], &["--print-data-log", "--deep-iteration"]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert_contains(&text, &format!("payload: {codec}-2"));
    }
    assert_contains(&text, "baseOffset: 0 ");
    assert_contains(&text, "compresscodec: zstd");
    assert_contains(&text, "isvalid: true");
    assert_contains(&text, "Log starting offset: 0");
}

#[test]
fn dump_log_reads_our_indexes_after_a_roll() {
    let topic = unique("rolled");
    crate::tools::python("admin.py", &["create", &topic, "1", "segment.bytes=1048576", "index.interval.bytes=4096"])
        .ok();
    for round in 0..60 {
        // Separate batches of about 50 kB, so that segments roll and indexes get entries.
        let big: Vec<String> = (0..50).map(|i| format!("{round}-{i}-{}", "x".repeat(1000))).collect();
        produce(&topic, 0, &big);
    }
    let segments = files(&topic, 0, "log");
    assert!(segments.len() >= 2, "{segments:?}");
    let index = files(&topic, 0, "index");
    let text = dump(&index[0], &["--index-sanity-check"]);
    assert_contains(&text, "passed sanity check");
    assert!(dump(&index[0], &[]).matches("offset: ").count() > 10);
    let times = files(&topic, 0, "timeindex");
    assert_contains(&dump(&times[0], &[]), "timestamp: ");
    // The producer snapshot that a roll leaves behind.
    let snapshots = files(&topic, 0, "snapshot");
    assert!(!snapshots.is_empty(), "a roll leaves a producer snapshot");
    dump(&snapshots[0], &[]);
}

#[test]
fn dump_log_decodes_our_offsets_topic() {
    let (topic, group) = (unique("decoded"), unique("decoded-g"));
    create(&topic, 1);
    python("admin.py", &["commit", &topic, &group, "0", "42"]).ok();
    let texts: Vec<String> = (0..5)
        .flat_map(|p| {
            let dir = Broker::shared().data().join(format!("__consumer_offsets-{p}"));
            if dir.exists() { files("__consumer_offsets", p, "log") } else { Vec::new() }
        })
        .map(|f| dump(&f, &["--offsets-decoder"]))
        .collect();
    let text = texts.join("\n");
    assert_contains(&text, &format!(r#""group":"{group}","topic":"{topic}","partition":0"#));
    assert_contains(&text, r#""offset":42"#);
}

#[test]
fn the_formatters_show_commits_and_group_metadata() {
    let (topic, group) = (unique("formatted"), unique("formatted-g"));
    create(&topic, 1);
    produce(&topic, 0, &values("v", 0..3));
    let mut member = python("member.py", &["--group", &group, "--topic", &topic, "--client", "c"]).start();
    member.until("three records", 30, |out| (out.matches("got ").count() == 3).then_some(()));
    member.signal("TERM");
    member.wait(std::time::Duration::from_secs(20));
    let formatted = |formatter: &str| {
        java(CONSUMER, "--topic __consumer_offsets --from-beginning --timeout-ms 4000")
            .args(["--formatter", &format!("org.apache.kafka.tools.consumer.{formatter}")])
            .run()
            .out
    };
    eventually("the commit at offset 3 in the offsets topic", 30, || {
        let text = formatted("OffsetsMessageFormatter");
        let wanted = format!(r#""group":"{group}","topic":"{topic}","partition":0"#);
        let line = text.lines().rfind(|l| l.contains(&wanted))?;
        line.contains(r#""offset":3"#).then_some(())
    });
    let text = formatted("GroupMetadataMessageFormatter");
    let lines: Vec<&str> = text.lines().filter(|l| l.contains(&group)).collect();
    assert!(!lines.is_empty(), "no metadata of {group} in:\n{text}");
    assert_contains(&lines.join("\n"), r#""protocolType":"consumer""#);
}
