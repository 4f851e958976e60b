//! confluent-kafka for Python: a recent librdkafka inside a program.

use klamm_tests::{broker, unique};

use crate::tools::{create, python};

#[test]
fn four_codecs_keys_and_duplicate_headers_come_back() {
    let topic = unique("ck-codec");
    create(&topic, 3);
    python("records.py", &["codecs", &topic]).ok().expect("codecs ok: none gzip snappy lz4 zstd");
}

#[test]
fn an_idempotent_producer_keeps_order_across_partitions() {
    let topic = unique("ck-idem");
    create(&topic, 4);
    python("records.py", &["idempotent", &topic, "20000"]).ok().expect("idempotent ok: 20000");
}

#[test]
fn the_admin_client_does_its_rounds() {
    let topic = unique("ck-admin");
    python("admin.py", &["tour", &topic, &broker::nodes().to_string()]).limit(90).ok().expect("tour ok");
}

#[test]
fn offsets_by_time_seek_and_watermarks() {
    let topic = unique("ck-seek");
    create(&topic, 1);
    python("records.py", &["seek", &topic]).ok().expect("seek ok");
}

#[test]
fn a_static_member_keeps_its_partitions_across_a_restart() {
    let topic = unique("ck-static");
    create(&topic, 2);
    python("records.py", &["static", &topic, &unique("ck-static-g")]).limit(90).ok().expect("static ok");
}
