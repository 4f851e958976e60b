//! Record batches that lie about themselves, and batches that grow when unpacked.

use klamm_protocol::compress::{Compression, compress};
use klamm_protocol::messages::ListOffsetsRequest;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_tests::unique;

use crate::batch::{Batch, plain, produce, produce_bytes, record, varint};
use crate::fixture::Target;

const NONE: i16 = 0;
const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const RECORD_LIST_TOO_LARGE: i16 = 18;
const INVALID_TIMESTAMP: i16 = 32;
const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const INVALID_RECORD: i16 = 87;

/// Fails unless the broker gives one of `codes` (a closed connection counts as −2).
#[track_caller]
fn expect(target: &Target, topic: &str, name: &str, batch: &Batch, codes: &[i16]) {
    let code = produce(target, topic, batch).unwrap_or(-2);
    println!("  {name}: {code}");
    // Where Kafka is taken by surprise itself, it says UNKNOWN_SERVER_ERROR.
    let surprised = code == -1 && !target.is_klamm();
    assert!(surprised || codes.contains(&code), "{name}: error code {code}, not one of {codes:?}");
}

#[test]
fn batches_that_lie_about_themselves_are_refused() {
    let target = Target::new("lying batches");
    let topic = unique("lies");
    target.topic(&topic, &[]);
    let good = plain(&[b"one", b"two"]);
    expect(&target, &topic, "a good batch", &good, &[NONE]);

    let refused: Vec<(&str, Batch, &[i16])> = vec![
        ("a wrong checksum", Batch { crc: Some(0xdead_beef), ..good.clone() }, &[CORRUPT_MESSAGE]),
        (
            "magic 0",
            Batch { magic: 0, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT],
        ),
        (
            "magic 1",
            Batch { magic: 1, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT],
        ),
        (
            "magic 3",
            Batch { magic: 3, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT],
        ),
        (
            "zero records",
            Batch { count: 0, last_offset_delta: -1, payload: vec![], ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        ("zero records with payload", Batch { count: 0, ..good.clone() }, &[INVALID_RECORD, CORRUPT_MESSAGE]),
        ("a negative count", Batch { count: -5, ..good.clone() }, &[INVALID_RECORD, CORRUPT_MESSAGE]),
        (
            "a count above the records",
            Batch { count: 3, last_offset_delta: 2, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a count of 2^31-1",
            Batch { count: i32::MAX, last_offset_delta: i32::MAX - 1, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a count that differs from the last offset",
            Batch { count: 3, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a last offset below the count",
            Batch { last_offset_delta: 0, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        ("a control batch", Batch { attributes: 0x20, ..good.clone() }, &[INVALID_RECORD, CORRUPT_MESSAGE]),
        ("a base offset that is not 0", Batch { base_offset: 5, ..good.clone() }, &[INVALID_RECORD, CORRUPT_MESSAGE]),
        (
            "compression 7",
            Batch { attributes: 7, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE, -2],
        ),
        (
            "a length that is too long",
            Batch { length: Some(1 << 20), ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, -2],
        ),
        (
            "a length that is too short",
            Batch { length: Some(20), ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, -2],
        ),
        ("a negative length", Batch { length: Some(-7), ..good.clone() }, &[INVALID_RECORD, CORRUPT_MESSAGE, -2]),
        (
            "a producer without a sequence",
            Batch { producer_id: 7, producer_epoch: 0, ..good.clone() },
            &[INVALID_RECORD, CORRUPT_MESSAGE, OUT_OF_ORDER_SEQUENCE_NUMBER],
        ),
        (
            "a producer with a negative epoch",
            Batch { producer_id: 7, base_sequence: 0, ..good.clone() },
            &[NONE, INVALID_RECORD, CORRUPT_MESSAGE, INVALID_PRODUCER_EPOCH],
        ),
    ];
    let count = refused.len() + 6;
    for (name, batch, codes) in &refused {
        expect(&target, &topic, name, batch, codes);
    }
    let mut two = good.bytes();
    two.extend(good.bytes());
    let raw: [(&str, Vec<u8>); 4] = [
        ("two batches", two),
        ("no batch at all", Vec::new()),
        ("half a batch", good.bytes()[..40].to_vec()),
        ("junk", vec![0x5a; 500]),
    ];
    for (name, bytes) in raw {
        let code = produce_bytes(&target, &topic, bytes).unwrap_or(-2);
        println!("  {name}: {code}");
        assert!([INVALID_RECORD, CORRUPT_MESSAGE, -2].contains(&code), "{name}: error code {code}");
    }
    expect(&target, &topic, "a good batch again", &good, &[NONE]);
    target.unharmed(count);
}

#[test]
fn oversize_batches_are_refused() {
    let target = Target::new("oversize batches");
    let topic = unique("oversize");
    target.topic(&topic, &[("max.message.bytes", "10000")]);
    let big = plain(&[&[7; 20_000]]);
    expect(&target, &topic, "above max.message.bytes", &big, &[MESSAGE_TOO_LARGE]);
    let topic = unique("oversize-segment");
    target.topic(&topic, &[("max.message.bytes", "9000000"), ("segment.bytes", "1048576")]);
    let big = plain(&[&vec![7; 3 << 20]]);
    expect(&target, &topic, "above the segment's size", &big, &[RECORD_LIST_TOO_LARGE]);
    target.unharmed(2);
}

#[test]
fn records_that_lie_are_refused_where_records_are_looked_at() {
    let target = Target::new("lying records");
    // A compacted topic needs each record's key.
    let topic = unique("compacted");
    target.topic(&topic, &[("cleanup.policy", "compact")]);
    let good = plain(&[b"one"]);
    let mut keyless = good.clone();
    keyless.payload.clear();
    record(&mut keyless.payload, 0, None, b"value");
    let mut short = good.clone();
    short.payload.truncate(3);
    let mut long = good.clone();
    long.payload.extend_from_slice(b"more");
    let mut huge_key = good.clone();
    huge_key.payload.clear();
    // A record of 12 bytes whose key would have 2^31−1.
    let mut body = vec![0, 0, 0];
    varint(&mut body, i64::from(i32::MAX));
    body.extend_from_slice(b"abcd");
    varint(&mut huge_key.payload, body.len() as i64);
    huge_key.payload.extend_from_slice(&body);
    let mut many_headers = good.clone();
    many_headers.payload.clear();
    let mut body = vec![0, 0, 0, 2, b'k', 2, b'v'];
    varint(&mut body, i64::from(i32::MAX));
    varint(&mut many_headers.payload, body.len() as i64);
    many_headers.payload.extend_from_slice(&body);
    let gibberish = Batch { attributes: 4, payload: vec![0x11; 300], ..good.clone() };
    for (name, batch) in [
        ("no key", keyless),
        ("a record cut short", short),
        ("bytes behind the records", long),
        ("a key of 2^31-1", huge_key),
        ("2^31-1 headers", many_headers),
        ("zstd that is none", gibberish),
    ] {
        expect(&target, &topic, name, &batch, &[INVALID_RECORD, CORRUPT_MESSAGE]);
    }
    let future = Batch { base_timestamp: i64::MAX - 1, max_timestamp: i64::MAX - 1, ..good.clone() };
    expect(&target, &topic, "a time far ahead", &future, &[INVALID_TIMESTAMP]);
    expect(&target, &topic, "a good batch", &good, &[NONE]);
    target.unharmed(7);
}

/// A batch below 1 MiB that unpacks to `mib` MiB of zeros.
fn bomb(codec: Compression, mib: usize) -> Batch {
    let mut records = Vec::new();
    record(&mut records, 0, Some(b"key"), &vec![0; mib << 20]);
    let payload = compress(codec, None, &records).expect("zeros compress");
    assert!(payload.len() < 1_048_000, "{codec}: {} bytes", payload.len());
    Batch { attributes: i16::from(codec.id()), last_offset_delta: 0, count: 1, payload, ..plain(&[b"x"]) }
}

const BOMBS: [(Compression, usize); 4] =
    [(Compression::Gzip, 256), (Compression::Snappy, 16), (Compression::Lz4, 200), (Compression::Zstd, 512)];

/// Bombs that a broker which looks inside may well take.
const SMALL_BOMBS: [(Compression, usize); 4] =
    [(Compression::Gzip, 60), (Compression::Snappy, 16), (Compression::Lz4, 60), (Compression::Zstd, 60)];

/// What may be answered to a bomb: the records are sound, only too many bytes perhaps.
const BOMB_CODES: [i16; 5] = [NONE, INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE];

/// Produces a bomb to a new topic with this configuration; the broker must stay within its memory.
fn explode(name: &'static str, (codec, mib): (Compression, usize), configs: &[(&str, &str)], codes: &[i16]) {
    let batch = bomb(codec, mib);
    let target = Target::new(name);
    let topic = unique("bomb");
    target.topic(&topic, configs);
    expect(&target, &topic, &format!("{codec}, {mib} MiB"), &batch, codes);
    target.unharmed(1);
}

#[test]
fn zip_bombs_cost_nothing_where_nothing_is_unpacked() {
    for bomb in BOMBS {
        explode("zip bomb", bomb, &[], &[NONE, INVALID_RECORD, CORRUPT_MESSAGE]);
    }
}

#[test]
fn zip_bombs_meet_a_limit_where_records_are_looked_at() {
    for bomb in BOMBS {
        explode("zip bomb on a compacted topic", bomb, &[("cleanup.policy", "compact")], &BOMB_CODES);
    }
}

#[test]
fn records_are_looked_at_through_a_window() {
    for bomb in SMALL_BOMBS {
        let name = "a large batch on a compacted topic";
        explode(name, bomb, &[("cleanup.policy", "compact")], &[NONE]);
        let name = "a large batch where times are bounded";
        explode(name, bomb, &[("message.timestamp.before.max.ms", "9000000000000")], &[NONE]);
    }
}

#[test]
fn records_are_recompressed_through_a_window() {
    for (bomb, codec) in SMALL_BOMBS.into_iter().zip(["zstd", "gzip", "zstd", "lz4"]) {
        // Smaller afterwards, or too large for the topic: both are fine.
        explode("a large batch recompressed", bomb, &[("compression.type", codec)], &BOMB_CODES);
    }
    for bomb in BOMBS {
        let name = "a bomb to be stored uncompressed";
        explode(name, bomb, &[("compression.type", "uncompressed")], &[MESSAGE_TOO_LARGE, INVALID_RECORD]);
    }
}

#[test]
fn zip_bombs_in_the_log_cost_nothing_when_a_time_is_looked_up() {
    for (codec, mib) in BOMBS {
        let mut batch = bomb(codec, mib);
        // Later than what the topic begins with, so that a search by time ends in this batch.
        batch.base_timestamp += 1_000;
        batch.max_timestamp += 1_000;
        let target = Target::new("time looked up in a zip bomb");
        let topic = unique("bomb-time");
        target.topic(&topic, &[]);
        if produce(&target, &topic, &batch) != Some(NONE) {
            continue;
        }
        // By time, then by the largest time.
        for (timestamp, version) in [(batch.max_timestamp, 7), (batch.max_timestamp - 1, 2), (-3, 7)] {
            let partition = ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() };
            let asked = ListOffsetsTopic { name: topic.clone(), partitions: vec![partition] };
            let request = ListOffsetsRequest { replica_id: -1, topics: vec![asked], ..Default::default() };
            let found = &target.call(&request, version).topics[0].partitions[0];
            println!("  {codec}, {mib} MiB: time {timestamp}: offset {} error {}", found.offset, found.error_code);
            assert_eq!((found.error_code, found.offset > 0), (NONE, true), "{codec}");
        }
        target.unharmed(1);
    }
}
