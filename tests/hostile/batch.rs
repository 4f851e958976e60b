//! Record batches put together by hand, so that every field can lie.

use bytes::Bytes;
use klamm_protocol::Records;
use klamm_protocol::messages::ProduceRequest;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use crate::fixture::Target;

/// The fields of a version 2 batch header, and the bytes behind it.
#[derive(Debug, Clone)]
pub struct Batch {
    pub base_offset: i64,
    /// `None`: what it must be.
    pub length: Option<i32>,
    pub magic: i8,
    /// `None`: what it must be.
    pub crc: Option<u32>,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    pub payload: Vec<u8>,
}

/// A good batch of records with these values.
pub fn plain(values: &[&[u8]]) -> Batch {
    let mut payload = Vec::new();
    for (i, value) in values.iter().enumerate() {
        record(&mut payload, i as i64, Some(b"k"), value);
    }
    let count = i32::try_from(values.len()).expect("a few values");
    Batch {
        base_offset: 0,
        length: None,
        magic: 2,
        crc: None,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count,
        payload,
    }
}

/// Appends one record.
pub fn record(out: &mut Vec<u8>, offset_delta: i64, key: Option<&[u8]>, value: &[u8]) {
    let mut body = vec![0];
    varint(&mut body, 0);
    varint(&mut body, offset_delta);
    match key {
        Some(key) => {
            varint(&mut body, key.len() as i64);
            body.extend_from_slice(key);
        }
        None => varint(&mut body, -1),
    }
    varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    varint(&mut body, 0);
    varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

/// A zigzag number of variable length.
pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push((bits & 0x7f) as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

impl Batch {
    /// The batch as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut checked = Vec::with_capacity(self.payload.len() + 40);
        checked.extend_from_slice(&self.attributes.to_be_bytes());
        checked.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        checked.extend_from_slice(&self.base_timestamp.to_be_bytes());
        checked.extend_from_slice(&self.max_timestamp.to_be_bytes());
        checked.extend_from_slice(&self.producer_id.to_be_bytes());
        checked.extend_from_slice(&self.producer_epoch.to_be_bytes());
        checked.extend_from_slice(&self.base_sequence.to_be_bytes());
        checked.extend_from_slice(&self.count.to_be_bytes());
        checked.extend_from_slice(&self.payload);
        let length = self.length.unwrap_or_else(|| i32::try_from(checked.len() + 9).expect("a batch"));
        let mut out = Vec::with_capacity(checked.len() + 21);
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&self.magic.to_be_bytes());
        out.extend_from_slice(&self.crc.unwrap_or_else(|| crc32c(&checked)).to_be_bytes());
        out.extend_from_slice(&checked);
        out
    }
}

/// Produces a batch to partition 0 with acks=all; gives the partition's error code, `None` when the connection closed.
pub fn produce(target: &Target, topic: &str, batch: &Batch) -> Option<i16> {
    produce_bytes(target, topic, batch.bytes())
}

/// The same with bytes that need not be a batch.
pub fn produce_bytes(target: &Target, topic: &str, records: Vec<u8>) -> Option<i16> {
    let partition = PartitionProduceData { index: 0, records: Some(Records::Bytes(Bytes::from(records))) };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 20_000, topic_data: vec![topic], ..Default::default() };
    let frame = klamm_protocol::frame::encode_request(3, Some("hostile"), &request, 9).ok()?.into_bytes().ok()?;
    let mut connection = target.connect_for(std::time::Duration::from_secs(30));
    connection.send_raw(&frame).ok()?;
    let answer = connection.receive().ok()?;
    let mut reader = klamm_protocol::wire::Reader::new(Bytes::from(answer));
    let (_, response) = klamm_protocol::frame::decode_response::<ProduceRequest>(&mut reader, 9).ok()?;
    Some(response.responses.first()?.partition_responses.first()?.error_code)
}

/// CRC-32C, bit by bit through a table of our own.
pub fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<[u32; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|i| (0..8).fold(i as u32, |c, _| if c & 1 == 1 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 }))
    });
    !bytes.iter().fold(!0u32, |crc, byte| crc >> 8 ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[test]
fn our_crc_is_castagnoli() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
