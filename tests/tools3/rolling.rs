//! kafka-verifiable-producer and -consumer while each broker in turn is killed and comes back.

use klamm_tests::{Tool, paths};

use crate::{cluster, create, whole_again};

const RECORDS: usize = 6000;

#[test]
fn what_was_acknowledged_is_consumed_through_kills_of_every_broker() {
    let mut cluster = cluster();
    let topic = create(&cluster, "rolling", "0:1:2,1:2:0,2:0:1");
    // Each in a process of its own: they end when they are killed, and not before.
    let tool = |name: &str, line: &str| {
        let program = paths::cached(&format!("kafka/bin/{name}"), "java.sh");
        let tool = Tool::new(program).args(["--bootstrap-server", &cluster.bootstrap()]);
        tool.args(line.split_whitespace()).start()
    };
    let reads = format!("--topic {topic} --group-id {topic} --max-messages -1 --reset-policy earliest");
    let mut consumer = tool("kafka-verifiable-consumer", &reads);
    let writes = format!("--topic {topic} --max-messages {RECORDS} --throughput 500 --acks -1");
    let mut producer = tool("kafka-verifiable-producer", &writes);
    let acked = |out: &str| out.lines().filter(|l| l.contains("producer_send_success")).count();
    for id in cluster.ids() {
        producer.until("some records more", 30, |out| (acked(out) > 200 + 1500 * id).then_some(()));
        cluster.kill(id);
        whole_again(&mut cluster);
    }
    producer.until("the end of the producer", 60, |out| out.contains("\"tool_data\"").then_some(()));
    let produced = producer.finish();
    let acked = acked(&produced.out);
    // It does not try again what a dying broker did not answer.
    assert!(acked >= RECORDS / 2, "{acked} of {RECORDS} were acknowledged\n{}", produced.err);
    let consumed = |out: &str| -> usize {
        let lines = out.lines().filter(|l| l.contains("\"records_consumed\""));
        let counts = lines.filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()?["count"].as_u64());
        counts.sum::<u64>() as usize
    };
    consumer.until("everything acknowledged", 60, |out| (consumed(out) >= acked).then_some(()));
    consumer.kill();
}
