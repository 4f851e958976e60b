//! Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, InitProducerId, Metadata.

use bytes::Bytes;
use klamm_protocol::batch::BatchBuilder;
use klamm_protocol::messages::*;
use klamm_protocol::{Records, Uuid};
use klamm_tests::eventually;

use crate::ask::{Topic, ask, call, topic};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(0);
    builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[]).expect("a record");
    builder.build().expect("a batch")
}

fn produce_to(topic: &Topic, version: i16) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData { index: 0, records: Some(Records::Bytes(batch())) };
    let by_id = version >= 13;
    let topic = TopicProduceData {
        name: if by_id { String::new() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::ZERO },
        partition_data: vec![data],
    };
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
}

fn nowhere() -> Topic {
    Topic { name: klamm_tests::unique("nowhere"), id: Uuid([7; 16]) }
}

fn filled() -> Topic {
    let topic = topic("filled");
    eventually("a record is written", 20, || {
        let response = call(&produce_to(&topic, 9), 9);
        (response.responses[0].partition_responses[0].error_code == 0).then_some(())
    });
    topic
}

#[test]
fn produce() {
    let topic = filled();
    let codes = |r: &ProduceResponse| r.responses[0].partition_responses.iter().map(|p| p.error_code).collect();
    ask("a record", &[0], |v| produce_to(&topic, v), codes);
    // With automatic creation a produce does not create: only Metadata does.
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID], |v| produce_to(&nowhere(), v), codes);
}

fn fetch_from(topic: &Topic, partition: i32, offset: i64, version: i16) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition =
        FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let by_id = version >= 13;
    let topic = FetchTopic {
        topic: if by_id { String::new() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::ZERO },
        partitions: vec![partition],
    };
    FetchRequest { max_wait_ms: 100, min_bytes: 1, max_bytes: 1 << 20, topics: vec![topic], ..Default::default() }
}

#[test]
fn fetch() {
    let topic = filled();
    let codes = |r: &FetchResponse| {
        let partitions = r.responses.iter().flat_map(|t| &t.partitions);
        partitions.map(|p| p.error_code).chain([r.error_code].into_iter().filter(|c| *c != 0)).collect()
    };
    ask(
        "a record",
        &[0],
        |v| fetch_from(&topic, 0, 0, v),
        |r: &FetchResponse| {
            let partition = &r.responses[0].partitions[0];
            assert!(partition.records.as_ref().is_some_and(|r| !r.is_empty()), "no records: {r:?}");
            assert!(partition.high_watermark >= 1);
            codes(r)
        },
    );
    ask("the empty end", &[0], |v| fetch_from(&topic, 1, 0, v), codes);
    ask("beyond the end", &[1], |v| fetch_from(&topic, 0, 1000, v), codes);
    let missing = [UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID];
    ask("no such topic", &missing, |v| fetch_from(&nowhere(), 0, 0, v), codes);
    ask("no such partition", &missing, |v| fetch_from(&topic, 9, 0, v), codes);
}

#[test]
fn list_offsets() {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let topic = filled();
    let request = |name: &str, timestamp: i64| {
        let partition = ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() };
        let topic = ListOffsetsTopic { name: name.into(), partitions: vec![partition] };
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
    };
    let codes = |r: &ListOffsetsResponse| vec![r.topics[0].partitions[0].error_code];
    for (what, timestamp, offset) in
        [("latest", -1, 1), ("earliest", -2, 0), ("by time", 1_600_000_000_000, 0), ("by a time to come", i64::MAX, -1)]
    {
        ask(
            what,
            &[0],
            |_| request(&topic.name, timestamp),
            |r: &ListOffsetsResponse| {
                assert_eq!(r.topics[0].partitions[0].offset, offset, "{what}: {r:?}");
                codes(r)
            },
        );
    }
    // UNSUPPORTED_VERSION where the version does not know the question.
    for timestamp in [-3, -4, -5, -6] {
        ask("a special time", &[0, 35], |_| request(&topic.name, timestamp), codes);
    }
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere", -1), codes);
}

#[test]
fn offset_for_leader_epoch() {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let topic = filled();
    let request = |name: &str| {
        let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: 0 };
        let topic = OffsetForLeaderTopic { topic: name.into(), partitions: vec![partition] };
        OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] }
    };
    let codes = |r: &OffsetForLeaderEpochResponse| vec![r.topics[0].partitions[0].error_code];
    ask(
        "epoch 0",
        &[0],
        |_| request(&topic.name),
        |r: &OffsetForLeaderEpochResponse| {
            assert_eq!(r.topics[0].partitions[0].end_offset, 1, "{r:?}");
            codes(r)
        },
    );
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere"), codes);
}

#[test]
fn delete_records() {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let topic = filled();
    let request = |name: &str, offset: i64| {
        let partition = DeleteRecordsPartition { partition_index: 0, offset };
        let topic = DeleteRecordsTopic { name: name.into(), partitions: vec![partition] };
        DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 }
    };
    let codes = |r: &DeleteRecordsResponse| vec![r.topics[0].partitions[0].error_code];
    ask("the first record", &[0], |_| request(&topic.name, 1), codes);
    ask("beyond the end", &[1], |_| request(&topic.name, 1000), codes);
    ask("no such topic", &[UNKNOWN_TOPIC_OR_PARTITION], |_| request("nowhere", 0), codes);
}

#[test]
fn init_producer_id() {
    let request =
        |_| InitProducerIdRequest { transactional_id: None, producer_id: -1, producer_epoch: -1, ..Default::default() };
    // The first block of ids may still be on its way.
    eventually("ids are given out", 20, || (call(&request(2), 2).error_code == 0).then_some(()));
    ask("an id", &[0], request, |r: &InitProducerIdResponse| {
        assert!(r.producer_id >= 0 && r.producer_epoch == 0, "{r:?}");
        vec![r.error_code]
    });
}

#[test]
fn metadata() {
    use metadata_request::MetadataRequestTopic;
    let topic = topic("known");
    let request = |name: &str| {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() }
    };
    let codes = |r: &MetadataResponse| {
        assert_eq!(r.brokers.len(), 1);
        r.topics.iter().map(|t| t.error_code).collect()
    };
    ask(
        "one topic",
        &[0],
        |_| request(&topic.name),
        |r: &MetadataResponse| {
            assert_eq!(r.topics[0].partitions.len(), 2, "{r:?}");
            codes(r)
        },
    );
    // All topics: null, in version 0 an empty list.
    let everything = |version: i16| MetadataRequest {
        topics: (version == 0).then(Vec::new),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    ask("all topics", &[0], everything, |r: &MetadataResponse| {
        assert!(r.topics.iter().any(|t| t.name.as_deref() == Some(&topic.name)));
        codes(r)
    });
    ask("an illegal name", &[17], |_| request("a/b"), codes);
    let absent = |version: i16| MetadataRequest {
        // Before version 4 asking always creates.
        allow_auto_topic_creation: version < 4,
        ..request(&klamm_tests::unique("absent"))
    };
    ask("an absent topic", &[UNKNOWN_TOPIC_OR_PARTITION, 5, 0], absent, codes);
}
