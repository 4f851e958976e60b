//! kafka-python: a client with its own protocol code.

use klamm_tests::unique;

use crate::tools::python;

#[test]
fn it_produces_in_every_codec_consumes_in_a_group_and_administers() {
    let topic = unique("kp");
    python("kafka_python.py", &[&topic]).limit(120).ok().expect("kafka-python ok");
}
