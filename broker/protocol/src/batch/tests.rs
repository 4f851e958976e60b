//! Batches against Apache's own bytes, round trips, and damage.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::compress::Limits;

const T: i64 = 1_700_000_000_000;
const CAP: usize = 1 << 20;
const LIMITS: Limits = Limits { total: CAP, window: CAP };

/// The batch with another codec, by way of a walk as a broker does it.
fn recoded(batch: &BatchView<'_>, codec: Compression) -> Result<Bytes, BatchError> {
    let bytes = batch.walk(&mut Vec::new(), CAP)?.map(|record| record.unwrap().size).sum();
    recompress(batch, codec, None, bytes, LIMITS, CAP)
}

fn golden(name: &str) -> Bytes {
    let line = include_str!("testdata/batches.hex")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no batch {name}"));
    (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn header(key: &str, value: Option<&str>) -> Header {
    (Bytes::copy_from_slice(key.as_bytes()), value.map(|v| Bytes::copy_from_slice(v.as_bytes())))
}

/// What every golden batch with four records holds, at these offsets.
fn four_records(base_offset: i64) -> Vec<Record> {
    let record = |i: i64, timestamp, key: Option<&str>, value: Option<&str>, headers: Vec<Header>| Record {
        offset: base_offset + i,
        timestamp,
        key: key.map(|k| Bytes::copy_from_slice(k.as_bytes())),
        value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
        headers,
    };
    let duplicates =
        vec![header("trace", Some("a")), header("trace", Some("b")), header("none", None), header("", Some(""))];
    vec![
        record(0, T, Some("key-0"), Some("value-0"), duplicates),
        record(1, T - 250, None, Some("no key"), vec![]),
        record(2, T + 5_000_000_000, Some("tombstone"), None, vec![]),
        record(3, T + 70, Some(""), Some(&"x".repeat(300)), vec![header("trace", Some("c"))]),
    ]
}

fn fill(mut builder: BatchBuilder, records: &[Record]) -> Bytes {
    for r in records {
        builder.append(r.offset, r.timestamp, r.key.as_deref(), r.value.as_deref(), &r.headers).unwrap();
    }
    builder.build().unwrap()
}

fn records(batch: &RecordBatch) -> Vec<Record> {
    batch.records(CAP).collect::<Result<_, _>>().unwrap()
}

#[test]
fn apaches_batches_are_read_in_every_codec() {
    let plain = golden("plain/none");
    for (name, codec) in [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("lz4-level-17", Compression::Lz4),
        ("zstd", Compression::Zstd),
        ("zstd-level-22", Compression::Zstd),
    ] {
        let batch = RecordBatch::new(golden(&format!("plain/{name}"))).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header().compression(), Ok(codec), "{name}");
        assert_eq!(records(&batch), four_records(0), "{name}");
        let unpacked = recoded(&batch.view(), Compression::None).unwrap();
        assert_eq!(unpacked, plain, "{name}");
        let packed = recoded(&RecordBatch::new(plain.clone()).unwrap().view(), codec);
        assert_eq!(records(&RecordBatch::new(packed.unwrap()).unwrap()), four_records(0), "{name}");
    }
}

#[test]
fn the_builder_writes_apaches_bytes() {
    assert_eq!(fill(BatchBuilder::new(0), &four_records(0)), golden("plain/none"));

    let base = 1 << 40;
    let builder = BatchBuilder::new(base).producer(4711, 3, i32::MAX - 1).transactional().leader_epoch(12);
    let batch = fill(builder, &four_records(base));
    assert_eq!(batch, golden("transactional"));
    let parsed = BatchHeader::parse(&batch).unwrap();
    assert_eq!((parsed.last_sequence(), parsed.next_offset()), (1, base + 4));

    let builder = BatchBuilder::new(77).log_append_time(T + 1).leader_epoch(5);
    let batch = fill(builder, &four_records(77));
    assert_eq!(batch, golden("log-append-time"));
    let read = records(&RecordBatch::new(batch).unwrap());
    assert!(read.iter().all(|r| r.timestamp == T + 1));

    let mut builder = BatchBuilder::new(3);
    builder.push(-1, Some(b"a"), Some(b"b"), &[]).unwrap();
    assert_eq!(builder.build().unwrap(), golden("no-timestamp"));
}

#[test]
fn compaction_writes_apaches_bytes() {
    let horizon = T + 86_400_000;
    let mut builder =
        BatchBuilder::new(100).producer(9, 0, 40).leader_epoch(5).delete_horizon_ms(horizon).last_offset(111);
    builder.append(102, T, Some(b"k"), None, &[]).unwrap();
    builder.append(109, T + 1, Some(b"l"), None, &[]).unwrap();
    let batch = builder.build().unwrap();
    assert_eq!(batch, golden("delete-horizon"));
    let batch = RecordBatch::new(batch).unwrap();
    assert_eq!(batch.header().delete_horizon_ms(), Some(horizon));
    let read = records(&batch);
    assert_eq!((read[0].offset, read[0].timestamp), (102, T));
    assert_eq!((read[1].offset, read[1].timestamp), (109, T + 1));

    // Rewriting with all records gives the same batch again, with some fewer records.
    assert_eq!(fill(BatchBuilder::rewriting(batch.header()).unwrap(), &read), *batch.bytes());
    let fewer = fill(BatchBuilder::rewriting(batch.header()).unwrap(), &read[1..]);
    let fewer = RecordBatch::new(fewer).unwrap();
    assert_eq!(records(&fewer), read[1..]);
    assert_eq!((fewer.header().base_offset, fewer.header().next_offset()), (100, 112));

    let original = BatchBuilder::new(100).producer(9, 0, 40).transactional().leader_epoch(5).last_offset(111);
    let original = fill(original.compression(Compression::Zstd, None), &{
        let mut records = four_records(100);
        records.retain(|r| r.timestamp <= T);
        records
    });
    let emptied = BatchBuilder::rewriting(&BatchHeader::parse(&original).unwrap()).unwrap().build().unwrap();
    assert_eq!(emptied, golden("emptied"));
    assert_eq!(records(&RecordBatch::new(emptied).unwrap()), []);
}

#[test]
fn transaction_markers_are_apaches() {
    for (name, offset, commit) in [("commit", 200, true), ("abort", 201, false)] {
        let marker = EndTxnMarker { commit, coordinator_epoch: 31 };
        let batch = end_txn_marker(offset, 6, T, (4711, 3), marker).unwrap();
        assert_eq!(batch, golden(name));
        let batch = RecordBatch::new(batch).unwrap();
        assert!(batch.header().is_control() && batch.header().is_transactional());
        let mut scratch = Vec::new();
        let record = batch.view().walk(&mut scratch, CAP).unwrap().next().unwrap().unwrap();
        assert_eq!(EndTxnMarker::of(&record), Some(marker));
    }
    for id in -1..8 {
        assert_eq!(ControlType::from_key(&ControlType::from_id(id).key()), Some(ControlType::from_id(id)));
    }
    assert_eq!(ControlType::from_key(&[0, 0, 0]), None);
    assert_eq!(EndTxnMarker::parse(&ControlType::Commit.key(), &[0, 0, 0]), None);
    assert_eq!(EndTxnMarker::parse(&ControlType::LeaderChange.key(), &[0; 6]), None);
}

#[test]
fn the_builder_refuses_what_no_batch_can_say() {
    assert_eq!(BatchBuilder::new(0).build(), Err(BuildError::Empty));
    let mut builder = BatchBuilder::new(10);
    let mut append = |offset, timestamp| builder.append(offset, timestamp, None, None, &[]);
    append(12, -1).unwrap();
    assert_eq!(append(12, 0), Err(BuildError::Order { offset: 12, after: 12 }));
    assert!(matches!(append(9, 0), Err(BuildError::Order { offset: 9, .. })));
    assert!(matches!(append(10 + (1 << 31), 0), Err(BuildError::Range { what: "offset", .. })));
    assert!(append(i64::MIN, 0).is_err());
    assert!(matches!(append(13, i64::MAX), Err(BuildError::Range { what: "timestamp", base: -1, .. })));
    append(13, i64::MAX - 1).unwrap();
    assert!(builder.clone().build().is_ok());
    assert!(matches!(builder.clone().last_offset(11).build(), Err(BuildError::Range { what: "last offset", .. })));
    for bad in [builder.clone().transactional(), builder.clone().producer(1, -1, 0), builder.clone().producer(1, 0, -1)]
    {
        assert!(matches!(bad.build(), Err(BuildError::Producer(_))));
    }
}

#[test]
fn timestamps_are_found_without_reading_records() {
    for name in ["plain/none", "plain/gzip", "plain/zstd"] {
        let batch = RecordBatch::new(golden(name)).unwrap();
        let view = batch.view();
        let latest = TimestampOffset { timestamp: T + 5_000_000_000, offset: 2 };
        assert_eq!(view.max_timestamp(LIMITS), Ok(Some(latest)));
        assert_eq!(view.recompute_max_timestamp(LIMITS), Ok(latest.timestamp));
        let find = |timestamp, from| view.find_timestamp(timestamp, from, LIMITS).unwrap();
        assert_eq!(find(T - 250, 0), Some(TimestampOffset { timestamp: T, offset: 0 }));
        assert_eq!(find(T - 250, 1), Some(TimestampOffset { timestamp: T - 250, offset: 1 }));
        assert_eq!(find(T + 1, 0), Some(latest));
        assert_eq!(find(T, 3), Some(TimestampOffset { timestamp: T + 70, offset: 3 }));
        assert_eq!(find(T + 71, 3), None);
        assert_eq!(find(latest.timestamp + 1, 0), None);
        assert_eq!(find(0, 4), None);
    }
    let batch = RecordBatch::new(golden("log-append-time")).unwrap();
    let first = TimestampOffset { timestamp: T + 1, offset: 77 };
    assert_eq!(batch.view().max_timestamp(LIMITS), Ok(Some(first)));
    assert_eq!(batch.view().recompute_max_timestamp(LIMITS), Ok(T + 1));
    let batch = RecordBatch::new(golden("emptied")).unwrap();
    assert_eq!(batch.view().max_timestamp(LIMITS), Ok(None));
}

/// The batch with its header changed by `change`, and the CRC made right again.
fn altered(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    header.crc = super::header::crc32c(&bytes[super::header::CRC_FROM..]);
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    bytes
}

#[test]
fn counts_that_do_not_fit_are_errors() {
    let good = golden("plain/zstd");
    let read = |bytes: Vec<u8>| RecordBatch::new(bytes.into()).unwrap().records(CAP).collect::<Vec<_>>();
    let more = read(altered(&good, |h| h.records_count = 5));
    assert_eq!(more.len(), 5);
    assert!(matches!(more[4], Err(BatchError::Missing { declared: 5, found: 4, .. })));
    let fewer = read(altered(&good, |h| h.records_count = 3));
    assert_eq!(fewer.len(), 4);
    assert!(matches!(fewer[3], Err(BatchError::Trailing { count: 3, .. })));
    let none = read(altered(&good, |h| h.records_count = 0));
    assert!(matches!(none[..], [Err(BatchError::Trailing { count: 0, .. })]));
    let narrow = read(altered(&good, |h| h.last_offset_delta = 2));
    assert!(matches!(narrow[3], Err(BatchError::BadRecord { index: 3, .. })));
    let codec = read(altered(&good, |h| h.attributes |= 7));
    assert!(matches!(codec[..], [Err(BatchError::Compress(CompressError::UnknownCodec(7)))]));
}

#[test]
fn the_cap_holds_for_records_too() {
    let mut builder = BatchBuilder::new(0).compression(Compression::Gzip, None);
    builder.push(0, None, Some(&vec![0; 5 << 20]), &[]).unwrap();
    let bytes = builder.build().unwrap();
    assert!(bytes.len() < 10_000);
    let batch = RecordBatch::new(bytes).unwrap();
    let too_large = BatchError::Compress(CompressError::TooLarge { codec: Compression::Gzip, cap: CAP });
    assert_eq!(batch.records(CAP).next(), Some(Err(too_large.clone())));
    assert_eq!(batch.view().max_timestamp(LIMITS), Err(too_large));
    assert_eq!(batch.records(6 << 20).count(), 1);
}

fn rules() -> ProduceRules {
    ProduceRules { zstd_allowed: true, batch_bytes_max: 1_048_588 }
}

#[test]
fn a_producers_batch_is_taken_or_refused_with_the_code_kafka_gives() {
    let good = golden("plain/gzip");
    assert_eq!(validate(&good, &rules()), Ok(BatchHeader::parse(&good).unwrap()));
    let code = |bytes: &[u8], rules: ProduceRules| validate(bytes, &rules).unwrap_err().error_code();
    let check = |bytes: &[u8], expected| assert_eq!(code(bytes, rules()), expected);

    check(b"", ErrorCode::InvalidRecord);
    check(&good[..30], ErrorCode::CorruptMessage);
    check(&good[..good.len() - 1], ErrorCode::CorruptMessage);
    check(&[&good[..], &good[..]].concat(), ErrorCode::InvalidRecord);
    check(&[&good[..], b"x"].concat(), ErrorCode::InvalidRecord);
    let mut flipped = good.to_vec();
    flipped[70] ^= 0x20;
    check(&flipped, ErrorCode::CorruptMessage);
    let mut old = good.to_vec();
    old[16] = 1;
    check(&old, ErrorCode::InvalidRecord);

    let small = ProduceRules { batch_bytes_max: good.len() - 1, ..rules() };
    assert_eq!(code(&good, small), ErrorCode::MessageTooLarge);
    let before_v7 = ProduceRules { zstd_allowed: false, ..rules() };
    assert_eq!(code(&golden("plain/zstd"), before_v7), ErrorCode::UnsupportedCompressionType);
    assert!(validate(&good, &before_v7).is_ok());

    check(&altered(&good, |h| h.base_offset = 1), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.records_count = 0), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.records_count = 5), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.last_offset_delta = 4), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.last_offset_delta = i32::MAX), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.last_offset_delta = -1), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.attributes |= 0x20), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.attributes |= 0x08), ErrorCode::InvalidTimestamp);
    check(&altered(&good, |h| h.attributes |= 0x40), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.attributes |= 0x10), ErrorCode::InvalidRecord);
    check(&altered(&good, |h| h.attributes |= 0x07), ErrorCode::UnsupportedCompressionType);
    check(&altered(&good, |h| h.producer_id = 5), ErrorCode::InvalidRecord);
    let sequenced = altered(&good, |h| (h.producer_id, h.producer_epoch) = (5, 0));
    assert!(matches!(validate(&sequenced, &rules()), Err(Refused::Producer { sequence: -1, .. })));
    let complete =
        altered(&good, |h| (h.producer_id, h.producer_epoch, h.base_sequence, h.attributes) = (5, 0, 0, 0x11));
    assert!(validate(&complete, &rules()).is_ok());
}

#[test]
fn records_are_held_to_the_topics_rules() {
    for name in ["plain/none", "plain/snappy"] {
        let batch = RecordBatch::new(golden(name)).unwrap();
        let check = |rules: &RecordRules| check_records(&batch.view(), rules, LIMITS);
        let walked = check(&RecordRules::default()).unwrap();
        assert_eq!(walked.max_timestamp, T + 5_000_000_000);
        assert!(walked.consecutive);
        assert_eq!(walked.records_bytes, golden("plain/none").len() - HEADER_LEN);

        let keys = check(&RecordRules { keys_required: true, timestamps: None }).unwrap_err();
        assert_eq!(keys, Refused::Records(vec![RefusedRecord { index: 1, fault: RecordFault::NoKey }]));
        assert_eq!(keys.error_code(), ErrorCode::InvalidRecord);

        let both = check(&RecordRules { keys_required: true, timestamps: Some(0..=T + 100) }).unwrap_err();
        assert_eq!(both.error_code(), ErrorCode::InvalidTimestamp);
        assert_eq!(
            both.to_string(),
            "2 records of the batch refused; record 1 has no key, which a compacted topic needs"
        );
        let early = check(&RecordRules { keys_required: false, timestamps: Some(T..=i64::MAX) }).unwrap_err();
        assert!(matches!(early, Refused::Records(r) if r.len() == 1 && r[0].index == 1));
    }
    let unstamped = RecordBatch::new(golden("no-timestamp")).unwrap();
    let rules = RecordRules { keys_required: true, timestamps: Some(T..=T) };
    let walked = check_records(&unstamped.view(), &rules, LIMITS).unwrap();
    assert_eq!(walked.max_timestamp, -1);
    let gaps = RecordBatch::new(golden("delete-horizon")).unwrap();
    assert!(!check_records(&gaps.view(), &RecordRules::default(), LIMITS).unwrap().consecutive);
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

prop_compose! {
    fn any_record()(
        gap in 1i64..5,
        timestamp in prop_oneof![Just(-1), 0..i64::MAX / 2],
        key in prop::option::of(bytes(20)),
        value in prop::option::of(bytes(200)),
        headers in prop::collection::vec((bytes(4), prop::option::of(bytes(10))), 0..4),
    ) -> Record {
        Record { offset: gap, timestamp, key, value, headers }
    }
}

prop_compose! {
    fn any_records()(base in 0..i64::MAX / 2, mut records in prop::collection::vec(any_record(), 1..30)) -> (i64, Vec<Record>) {
        let mut offset = base - 1;
        for record in &mut records {
            offset += record.offset;
            record.offset = offset;
        }
        (base, records)
    }
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_was_built_is_read((base, wanted) in any_records(), codec in any_codec(), other in any_codec()) {
        let bytes = fill(BatchBuilder::new(base).compression(codec, None), &wanted);
        let batch = RecordBatch::new(bytes.clone()).unwrap();
        batch.verify_crc().unwrap();
        prop_assert_eq!(batch.header().records_count as usize, wanted.len());
        prop_assert_eq!(batch.header().last_offset(), wanted.last().unwrap().offset);
        prop_assert_eq!(batch.header().max_timestamp, wanted.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(&records(&batch), &wanted);

        let mut scratch = Vec::new();
        let view = batch.view();
        prop_assert_eq!(view.recompute_max_timestamp(LIMITS), Ok(batch.header().max_timestamp));
        let walked: Vec<_> = view.walk(&mut scratch, CAP).unwrap().map(Result::unwrap).collect();
        for (view, record) in walked.iter().zip(&wanted) {
            prop_assert_eq!((view.offset, view.timestamp), (record.offset, record.timestamp));
            prop_assert_eq!((view.key, view.value), (record.key.as_deref(), record.value.as_deref()));
            prop_assert_eq!(view.headers.len(), record.headers.len());
        }
        drop(walked);
        let again = recoded(&view, other).unwrap();
        prop_assert_eq!(&records(&RecordBatch::new(again).unwrap()), &wanted);
        let rewritten = fill(BatchBuilder::rewriting(batch.header()).unwrap(), &wanted);
        prop_assert_eq!(rewritten, bytes);
    }

    #[test]
    fn every_truncation_is_an_error((base, wanted) in any_records(), codec in any_codec(), cut in any::<prop::sample::Index>()) {
        let good = fill(BatchBuilder::new(base).compression(codec, None), &wanted);
        let cut = good.slice(..cut.index(good.len()));
        prop_assert!(RecordBatch::new(cut.clone()).is_err());
        prop_assert!(validate(&cut, &rules()).is_err());
        // Also when length and CRC have been made to match the shorter batch.
        if cut.len() >= HEADER_LEN {
            let len = (cut.len() - LOG_OVERHEAD) as i32;
            let mut short = cut.to_vec();
            short[8..12].copy_from_slice(&len.to_be_bytes());
            let batch = RecordBatch::new(altered(&short, |_| ()).into()).unwrap();
            prop_assert!(batch.verify_crc().is_ok());
            prop_assert!(batch.records(CAP).any(|r| r.is_err()));
            prop_assert!(batch.view().max_timestamp(LIMITS).is_err());
        }
    }

    #[test]
    fn damage_never_panics(
        (base, wanted) in any_records(),
        codec in any_codec(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cap in 0usize..20_000,
    ) {
        let mut bytes = fill(BatchBuilder::new(base).compression(codec, None), &wanted).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = validate(&bytes, &rules());
        for batch in RecordBatch::all(bytes.into()) {
            let Ok(batch) = batch else { break };
            let _ = batch.header().last_sequence();
            let _ = batch.records(cap).count();
            let mut scratch = Vec::new();
            let limits = Limits::both(cap);
            let _ = batch.view().find_timestamp(0, 0, limits);
            let rules = RecordRules { keys_required: true, timestamps: Some(0..=5) };
            let _ = check_records(&batch.view(), &rules, limits);
            let _ = recompress(&batch.view(), Compression::Lz4, None, cap, limits, 1 << 20);
            // A walk that keeps nothing judges as one that keeps all.
            let whole = batch.view().walk(&mut scratch, cap).and_then(|walk| {
                walk.map(|record| record.map(|r| r.size)).sum::<Result<usize, _>>()
            });
            let glance = check_records(&batch.view(), &RecordRules { keys_required: true, timestamps: None }, limits);
            match (whole, glance) {
                (Ok(size), Ok(walked)) => prop_assert_eq!(size, walked.records_bytes),
                (Ok(_), Err(Refused::Records(_))) | (Err(_), Err(Refused::Batch(_))) => {}
                (whole, glance) => prop_assert!(false, "{:?} but {:?}", whole, glance),
            }
            prop_assert!(scratch.capacity() <= cap.max(8));
        }
    }
}
