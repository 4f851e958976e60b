//! Records byte for byte as Apache Kafka 4.3.1 writes them. The hex comes from its own serializer.

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::messages::GroupMetadataValue;
use klamm_protocol::messages::group_metadata_value::MemberMetadata;

use super::*;
use crate::records;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn check(record: &CoordinatorRecord, key: &str, value: Option<&str>) {
    assert_eq!(hex(&record.key), key);
    assert_eq!(record.value.as_ref().map(|v| hex(v)).as_deref(), value);
}

fn entry(
    offset: i64,
    epoch: Option<i32>,
    metadata: &str,
    commit_ms: i64,
    expire_ms: Option<i64>,
    id: bool,
) -> OffsetEntry {
    let topic_id = if id { Uuid(std::array::from_fn(|i| i as u8)) } else { Uuid::ZERO };
    let metadata = metadata.into();
    OffsetEntry { offset, leader_epoch: epoch.unwrap_or(-1), metadata, commit_ms, expire_ms, topic_id, partitions: 0 }
}

#[test]
fn offsets_are_written_as_kafka_does() {
    let cases = [
        (
            ("grüppe", "topic-a", 7, entry(1_234_567_890_123, Some(5), "méta", 1_700_000_000_000, None, true)),
            "000100076772c3bc7070650007746f7069632d6100000007",
            "00040000011f71fb04cb00000005066dc3a974610000018bcfe56800010010000102030405060708090a0b0c0d0e0f",
        ),
        (
            ("g", "t", 0, entry(0, None, "", 1, None, false)),
            "000100016700017400000000",
            "00040000000000000000ffffffff01000000000000000100",
        ),
        (
            ("g", "t", 0, entry(42, Some(3), "m", 1_000, Some(5_000), true)),
            "000100016700017400000000",
            "0001000000000000002a00016d00000000000003e80000000000001388",
        ),
    ];
    for ((group, topic, partition, entry), key, value) in cases {
        check(&records::offset(group, topic, partition, &entry).unwrap(), key, Some(value));
    }
    check(&records::offset_tombstone("g", "t", 9).unwrap(), "000100016700017400000009", None);
    check(&records::group_tombstone("g").unwrap(), "0002000167", None);
}

#[test]
fn how_many_partitions_a_topic_had_is_a_field_that_kafka_passes_over() {
    let guarded = OffsetEntry { partitions: 3, ..entry(0, None, "", 1, None, false) };
    let record = records::offset("g", "t", 0, &guarded).unwrap();
    // One tagged field more than Kafka writes: tag 10000, four bytes.
    let value = "00040000000000000000ffffffff01000000000000000101904e0400000003";
    check(&record, "000100016700017400000000", Some(value));
    let read = decode_record(&record.key, record.value.as_ref()).unwrap();
    assert!(matches!(read, Record::Offset(OffsetRecord { value: Some(value), .. }) if value == guarded));
}

const GROUP: &str = "00030008636f6e73756d657200000003000572616e6765000563312d69640000018bcfe5680100000002000563312d6964ffff0002633100092f31302e302e302e31000493e00000afc800000003010203000000020405000569322d6964000269320002633200102f303a303a303a303a303a303a303a310000ea60000027100000000000000000";

fn group_value() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("c1-id".into()),
        current_state_timestamp: 1_700_000_000_001,
        members: vec![
            MemberMetadata {
                member_id: "c1-id".into(),
                group_instance_id: None,
                client_id: "c1".into(),
                client_host: "/10.0.0.1".into(),
                rebalance_timeout: 300_000,
                session_timeout: 45_000,
                subscription: Bytes::from_static(&[1, 2, 3]),
                assignment: Bytes::from_static(&[4, 5]),
            },
            MemberMetadata {
                member_id: "i2-id".into(),
                group_instance_id: Some("i2".into()),
                client_id: "c2".into(),
                client_host: "/0:0:0:0:0:0:0:1".into(),
                rebalance_timeout: 60_000,
                session_timeout: 10_000,
                subscription: Bytes::new(),
                assignment: Bytes::new(),
            },
        ],
    }
}

#[test]
fn groups_are_written_as_kafka_does() {
    check(&records::group("g", &group_value()).unwrap(), "0002000167", Some(GROUP));
    let created = crate::classic::Group::created_value(77);
    let bytes = "0003000000000000ffffffff000000000000004d00000000";
    check(&records::group("g", &created).unwrap(), "0002000167", Some(bytes));
}

#[test]
fn a_group_goes_through_memory_unchanged() {
    let group = crate::classic::Group::from_value("g".into(), group_value());
    assert_eq!(group.to_value(|m| m.assignment.clone()), group_value());
}

#[test]
fn every_version_kafka_ever_wrote_is_read() {
    let tail = "0008636f6e73756d657200000003000572616e6765000563312d6964";
    let ms = "0000018bcfe56801";
    let one = "00000001000563312d69640002633100092f31302e302e302e31";
    let rest = "0000afc800000003010203000000020405";
    let groups = [
        (format!("0000{tail}{one}{rest}"), -1, -1),
        (format!("0001{tail}{one}000493e0{rest}"), -1, 300_000),
        (format!("0002{tail}{ms}{one}000493e0{rest}"), 1_700_000_000_001, 300_000),
    ];
    let key = unhex("0002000167");
    for (hex, state_ms, rebalance_ms) in groups {
        let Record::Group { value: Some(value), .. } = decode_record(&key, Some(&unhex(&hex))).unwrap() else {
            panic!("{hex}")
        };
        let mut expected = group_value();
        expected.members.truncate(1);
        expected.current_state_timestamp = state_ms;
        expected.members[0].rebalance_timeout = rebalance_ms;
        assert_eq!(*value, expected, "{hex}");
    }
    let v4 = "000409636f6e73756d6572000000030672616e67650663312d69640000018bcfe56801030663312d6964000363310a2f31302e302e302e31000493e00000afc804010203030405000669322d6964036932036332112f303a303a303a303a303a303a303a310000ea600000271001010000";
    let Record::Group { value: Some(value), .. } = decode_record(&key, Some(&unhex(v4))).unwrap() else { panic!() };
    assert_eq!(*value, group_value());

    let offsets = [
        ("000100016700017400000001", "0000000000000000002a00016d00000000000003e8", None, None),
        ("000000016700017400000001", "0000000000000000002a00016d00000000000003e8", None, None),
        ("000100016700017400000001", "0001000000000000002a00016d00000000000003e80000000000001388", None, Some(5_000)),
        ("000100016700017400000001", "0002000000000000002a00016d00000000000003e8", None, None),
        ("000100016700017400000001", "0003000000000000002a0000000300016d00000000000003e8", Some(3), None),
    ];
    for (key, value, epoch, expire) in offsets {
        let record = decode_record(&unhex(key), Some(&unhex(value))).unwrap();
        let value = Some(entry(42, epoch, "m", 1_000, expire, false));
        assert_eq!(record, Record::Offset(OffsetRecord { group: "g".into(), topic: "t".into(), partition: 1, value }));
    }
}

#[test]
fn other_kinds_of_records_are_skipped_and_broken_ones_told() {
    let mut c = Coordinator::new(Config::default());
    // A tombstone of a KIP-848 group, then kinds that do not exist yet.
    for key in ["0003000167", "7fff", "ffff00"] {
        c.replay(&unhex(key), None).unwrap();
        c.replay(&unhex(key), Some(&unhex("0009abcd"))).unwrap();
    }
    assert_eq!(c.groups().count(), 0);
    let broken = [
        ("", None),
        ("00", None),
        ("0001", None),
        ("00010005ab", None),
        ("0002000167", Some("")),
        ("0002000167", Some("0009")),
        ("0002000167", Some("00037fff")),
        ("000100016700017400000001", Some("0004")),
    ];
    for (key, value) in broken {
        assert!(c.replay(&unhex(key), value.map(unhex).as_ref()).is_err(), "{key} {value:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_replay(key in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
                             kind in 0u8..4, value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut c = Coordinator::new(Config::default());
        let mut typed = vec![0, kind];
        typed.extend_from_slice(&key);
        let mut versioned = vec![0, key.first().copied().unwrap_or(0) % 5];
        versioned.extend_from_slice(&value);
        let _ = c.replay(&Bytes::from(typed), Some(&Bytes::from(versioned)));
        let step = c.loaded(0);
        c.commit(step, 0);
    }
}
