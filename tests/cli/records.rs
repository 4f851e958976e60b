//! `klamm produce` and `klamm consume`.

use std::io::{BufRead, BufReader, Read, Write};

use klamm_tests::process::Tool;
use klamm_tests::wait::eventually;
use klamm_tests::{broker::Broker, paths};
use serde_json::{Value, json};

use crate::{json, klamm, parse, refused, topic};

#[track_caller]
fn produce(name: &str, lines: &str, arguments: &[&str]) {
    klamm(&["produce", name]).args(arguments).stdin(lines).ok();
}

/// Everything in the topic.
#[track_caller]
fn consume(name: &str, arguments: &[&str]) -> String {
    klamm(&["consume", name, "--exit-at-end"]).args(arguments).ok().out
}

#[track_caller]
fn objects(name: &str) -> Vec<Value> {
    consume(name, &["--from-beginning", "-o", "json"]).lines().map(parse).collect()
}

#[test]
fn lines_come_back_in_order_with_every_codec() {
    let name = topic("cli-lines", 1);
    let mut expected = String::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: String = (0..500).map(|i| format!("{codec} {i}\n")).collect();
        produce(&name, &lines, &["--compression", codec]);
        expected.push_str(&lines);
    }
    assert!(consume(&name, &["--from-beginning"]) == expected);
    assert_eq!(consume(&name, &["--offset", "2498"]), "zstd 498\nzstd 499\n");
    assert_eq!(consume(&name, &["--offset", "-1"]), "zstd 499\n");
    assert_eq!(consume(&name, &["--from-beginning", "--max-messages", "2"]), "none 0\nnone 1\n");
    assert_eq!(consume(&name, &[]), "", "by default only new records are read");
}

#[test]
fn keys_headers_nulls_and_partitions_are_kept() {
    let name = topic("cli-keys", 2);
    let arguments =
        ["--key-separator", ":", "--header", "a=1", "--header", "a=2", "--null", "NULL", "--partition", "1"];
    produce(&name, "k:v:w\nk:NULL\n:\n", &arguments);
    let read = objects(&name);
    let picked: Vec<Value> = read.iter().map(|r| json!([r["partition"], r["offset"], r["key"], r["value"]])).collect();
    assert_eq!(picked, [json!([1, 0, "k", "v:w"]), json!([1, 1, "k", null]), json!([1, 2, "", ""])]);
    assert_eq!(read[0]["headers"], json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]));
    assert_eq!(read[0]["timestamp_type"], json!("create"));
    let arguments = ["--from-beginning", "--partition", "1", "--print-key"];
    assert_eq!(consume(&name, &arguments), "k\tv:w\nk\t\n\t\n");
    assert_eq!(consume(&name, &["--from-beginning", "--partition", "0"]), "");
    let formatted = consume(&name, &["--from-beginning", "-n", "1", "--format", r"%t/%p/%o %k=%s (%S) %h\n"]);
    assert_eq!(formatted, format!("{name}/1/0 k=v:w (3) a=1,a=2\n"));
}

#[test]
fn records_of_one_key_meet_in_the_partition_java_would_choose() {
    let name = topic("cli-hash", 100);
    produce(&name, "foobar:x\n21:x\nfoobar:y\n", &["-K", ":"]);
    let partitions: Vec<Value> = objects(&name).iter().map(|r| json!([r["key"], r["partition"]])).collect();
    // murmur2("foobar") = -790332482 and murmur2("21") = -973932308, sign bit cleared, modulo 100.
    let (foobar, twenty_one) = ((-790_332_482_i32 & i32::MAX) % 100, (-973_932_308_i32 & i32::MAX) % 100);
    for expected in [json!(["foobar", foobar]), json!(["21", twenty_one])] {
        assert!(partitions.contains(&expected), "{expected} not in {partitions:?}");
    }
}

#[test]
fn json_output_is_json_input() {
    let (from, to) = (topic("cli-json-from", 1), topic("cli-json-to", 1));
    produce(&from, "k:v\n:\n", &["-K", ":", "-H", "h=x"]);
    let text = consume(&from, &["--from-beginning", "-o", "json"]);
    produce(&to, &text, &["--json"]);
    let content = |name: &str| -> Vec<Value> {
        objects(name).iter().map(|r| json!([r["key"], r["value"], r["headers"], r["timestamp"]])).collect()
    };
    assert_eq!(content(&from), content(&to));
    let binary = r#"{"key_base64": "/w==", "value_base64": "AP8="}"#;
    produce(&to, &format!("{binary}\n"), &["--json"]);
    let last = objects(&to).pop().expect("a record");
    assert_eq!((&last["key_base64"], &last["value_base64"]), (&json!("/w=="), &json!("AP8=")));
    refused(&klamm(&["produce", &to, "--json"]).stdin("nonsense\n").run(), 1, "line 1 of the input");
}

#[test]
fn acks_decide_what_is_waited_for() {
    let name = topic("cli-acks", 1);
    for acks in ["0", "1", "all"] {
        produce(&name, &format!("{acks}\n"), &["--acks", acks]);
    }
    produce(&name, "plain\n", &["--idempotent=false"]);
    // With acks=0 nobody waits for the broker, so its record may come after later ones.
    let mut read: Vec<String> = consume(&name, &["--from-beginning"]).lines().map(str::to_owned).collect();
    read.sort();
    assert_eq!(read, ["0", "1", "all", "plain"]);
    refused(&klamm(&["produce", &name, "--acks", "1", "--idempotent"]).run(), 2, "--acks all");
}

#[test]
fn batches_fit_what_the_topic_takes() {
    let name = topic("cli-small", 1);
    klamm(&["configs", "alter", "topic", &name, "--set", "max.message.bytes=2000"]).ok();
    let lines: String = (0..500).map(|i| format!("line number {i}\n")).collect();
    eventually("the config is in force", 10, || {
        let configs = json(&["configs", "describe", "topic", &name, "--key", "max.message.bytes"]);
        (configs[0]["value"] == json!("2000")).then_some(())
    });
    produce(&name, &lines, &[]);
    assert!(consume(&name, &["--from-beginning"]) == lines);
    let long = klamm(&["produce", &name]).stdin("x".repeat(3000)).run();
    refused(&long, 1, "MESSAGE_TOO_LARGE");
    refused(&long, 1, "max.message.bytes");
}

#[test]
fn records_can_be_given_as_arguments() {
    let name = topic("cli-value", 1);
    // What is on stdin stays there.
    produce(&name, "not this\n", &["--value", "1:one", "--value", "2:two", "-K", ":"]);
    assert_eq!(consume(&name, &["--from-beginning"]), "one\ntwo\n");
}

#[test]
fn a_bad_line_stops_behind_what_came_before() {
    let name = topic("cli-bad-line", 1);
    let output = klamm(&["produce", &name, "-K", ":"]).stdin("a:1\nb\nc:3\n").run();
    refused(&output, 1, "line 2 of the input has no key separator");
    assert_eq!(consume(&name, &["--from-beginning"]), "1\n");
}

#[test]
fn times_choose_where_to_begin() {
    let name = topic("cli-time", 1);
    let old = r#"{"value": "old", "timestamp": 1000000000000}"#;
    let new = r#"{"value": "new", "timestamp": 1500000000000}"#;
    klamm(&["configs", "alter", "topic", &name, "--set", "retention.ms=-1"]).ok();
    produce(&name, &format!("{old}\n{new}\n"), &["--json"]);
    for (time, expected) in [
        ("0", "old\nnew\n"),
        ("1000000000001", "new\n"),
        ("2017-07-14T02:40:00Z", "new\n"),
        ("2017-07-14T02:40:00.001Z", ""),
        ("1s", ""),
    ] {
        assert_eq!(consume(&name, &["--from-timestamp", time]), expected, "{time}");
    }
    refused(&klamm(&["consume", &name, "--from-timestamp", "yesterday"]).run(), 2, "15m");
}

#[test]
fn several_topics_are_read_at_once() {
    let (one, two) = (topic("cli-one", 1), topic("cli-two", 1));
    produce(&one, "1\n", &[]);
    produce(&two, "2\n", &[]);
    let output = klamm(&["consume", &one, &two, "--from-beginning", "--exit-at-end"]).ok();
    let mut lines = output.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "2"]);
}

#[test]
fn new_records_appear_as_they_are_written_and_an_interrupt_ends_cleanly() {
    let name = topic("cli-follow", 1);
    let mut reader = klamm(&["consume", &name, "--from-beginning"]).start();
    for word in ["one", "two"] {
        produce(&name, &format!("{word}\n"), &[]);
        reader.until(word, 20, |out| out.contains(word).then_some(()));
    }
    reader.signal("INT");
    let output = reader.finish();
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (0, "one\ntwo\n", ""));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let name = topic("cli-pipe", 1);
    let lines: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
    produce(&name, &lines, &[]);
    let mut child = std::process::Command::new(paths::klamm())
        .args(["consume", &name, "--from-beginning", "--bootstrap", Broker::shared().bootstrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("klamm runs");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut first = String::new();
    out.read_line(&mut first).expect("a line");
    drop(out);
    let mut errors = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut errors).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((first.as_str(), errors.as_str(), status.code()), ("line 0\n", "", Some(0)));
}

#[test]
fn records_written_while_the_broker_is_killed_arrive_once_and_in_order() {
    let mut broker = Broker::start(&[("num.partitions", "1")]);
    let name = klamm_tests::unique("cli-kill");
    let address = broker.bootstrap().to_owned();
    let at = |arguments: &[&str]| Tool::new(paths::klamm()).args(arguments).env("KLAMM_BOOTSTRAP", &address);
    at(&["topics", "create", &name]).ok();
    let producer = at(&["produce", &name, "--timeout", "60"]);
    let consumer = at(&["consume", &name, "--from-beginning", "--exit-at-end"]);
    let (mut stdin, mut stdout) = producer.converse();
    for i in 0..3000 {
        if i == 1000 {
            eventually("some lines are written", 30, || {
                let described = at(&["topics", "describe", &name, "-o", "json"]).ok();
                (parse(&described.out)[0]["partitions"][0]["end_offset"] != json!(0)).then_some(())
            });
            broker.kill();
        }
        if i == 2000 {
            broker.restart();
        }
        writeln!(stdin, "{i}").expect("the producer reads");
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the producer ends");
    let expected: String = (0..3000).map(|i| format!("{i}\n")).collect();
    assert!(consumer.ok().out == expected, "records are lost, repeated or out of order");
}

#[test]
fn producing_creates_a_topic_where_the_broker_allows_it() {
    let name = klamm_tests::unique("cli-auto");
    produce(&name, "x\n", &[]);
    assert_eq!(json(&["topics", "describe", &name])[0]["partitions"].as_array().map(Vec::len), Some(3));
    refused(&klamm(&["consume", &klamm_tests::unique("cli-none")]).run(), 1, "UNKNOWN_TOPIC_OR_PARTITION");
}
