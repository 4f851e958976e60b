//! KafkaJS: produce, consume, administer.

use klamm_tests::{Broker, Tool, broker, paths, unique};

#[test]
fn it_produces_consumes_and_administers() {
    let modules = paths::cached("node/node_modules/kafkajs", "node.sh");
    Tool::new("node")
        .arg(paths::tests_dir().join("clients/node/kafkajs.js"))
        .args([Broker::shared().bootstrap_one(), &unique("kjs"), &broker::nodes().to_string()])
        .env("KAFKAJS", modules)
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
        .limit(120)
        .ok()
        .expect("kafkajs ok");
}
