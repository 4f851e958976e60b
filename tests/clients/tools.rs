//! Short names for the tools that several files use.

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, Output, Tool, paths};

/// `kafka-topics`.
pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
/// `kafka-configs`.
pub const CONFIGS: &str = "kafka.admin.ConfigCommand";
/// `kafka-consumer-groups`.
pub const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
/// `kafka-console-producer`.
pub const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
/// `kafka-console-consumer`.
pub const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
/// `kafka-get-offsets`.
pub const GET_OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
/// `kafka-delete-records`.
pub const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
/// `kafka-dump-log`.
pub const DUMP_LOG: &str = "org.apache.kafka.tools.DumpLogSegments";

/// A Java tool with `--bootstrap-server` of the shared broker and the arguments of `line`, split at spaces.
pub fn java(class: &str, line: &str) -> Java {
    java_on(Broker::shared(), class, line)
}

/// The same against another broker.
pub fn java_on(broker: &Broker, class: &str, line: &str) -> Java {
    Java::new(class).args(["--bootstrap-server", broker.bootstrap()]).args(line.split_whitespace())
}

/// Creates a topic on the shared broker, through kcat's library-free sibling: the Java tool.
#[track_caller]
pub fn create(topic: &str, partitions: u32) {
    create_on(Broker::shared(), topic, partitions);
}

/// The same on another broker.
#[track_caller]
pub fn create_on(broker: &Broker, topic: &str, partitions: u32) {
    python_on(broker, "admin.py", &["create", topic, &partitions.to_string()]).ok();
}

/// `kcat -b BOOTSTRAP` with the arguments of `line`, split at spaces.
pub fn kcat(line: &str) -> Tool {
    kcat_on(Broker::shared(), line)
}

/// The same against another broker.
pub fn kcat_on(broker: &Broker, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

/// A program of `tests/clients/python` against the shared broker.
pub fn python(program: &str, args: &[&str]) -> Tool {
    python_on(Broker::shared(), program, args)
}

/// The same against another broker.
pub fn python_on(broker: &Broker, program: &str, args: &[&str]) -> Tool {
    Tool::new(paths::cached("python/bin/python", "python.sh"))
        .arg("-u")
        .arg(paths::tests_dir().join("clients/python").join(program))
        .arg(broker.bootstrap())
        .args(args)
}

/// The ids of the shared broker's nodes.
#[track_caller]
pub fn nodes() -> Vec<String> {
    python("admin.py", &["brokers"]).ok().out.split_whitespace().map(str::to_owned).collect()
}

/// Produces `values`, one record each, to one partition of a topic, and waits for the acknowledgements.
#[track_caller]
pub fn produce_on(broker: &Broker, topic: &str, partition: u32, values: &[String]) {
    kcat_on(broker, &format!("-P -t {topic} -p {partition} -X acks=all")).stdin(values.join("\n") + "\n").ok();
}

/// The same to the shared broker.
#[track_caller]
pub fn produce(topic: &str, partition: u32, values: &[String]) {
    produce_on(Broker::shared(), topic, partition, values);
}

/// `prefix-FROM` to `prefix-(TO-1)`.
pub fn values(prefix: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("{prefix}-{i}")).collect()
}

/// The lines of an output, sorted.
pub fn sorted(output: &Output) -> Vec<String> {
    let mut lines: Vec<String> = output.out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A row of a table that a tool printed: the first line that holds all of `words`, as its words.
#[track_caller]
pub fn row<'a>(output: &'a Output, words: &[&str]) -> Vec<&'a str> {
    let row = output.out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let mut rows = row.filter(|r| words.iter().all(|w| r.contains(w)));
    rows.next().unwrap_or_else(|| panic!("no row with {words:?} in:\n{output}"))
}
