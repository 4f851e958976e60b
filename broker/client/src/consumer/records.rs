//! From the bytes of a Fetch answer to records: skips what lies before the position, control batches
//! and, under read_committed, the records of aborted transactions.

use std::collections::{BTreeSet, VecDeque};

use klamm_protocol::batch::{BatchError, ControlType, RecordBatch, TimestampType};
use klamm_protocol::messages::fetch_response::PartitionData;

use super::fetch::Part;
use super::{ConsumedRecord, ConsumerOptions};
use crate::Isolation;
use crate::error::{ClientError, Result};

/// What a fetch brought for one partition.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) records: Vec<ConsumedRecord>,
    pub(super) next_offset: i64,
}

/// Reads one partition's share of an answer.
pub(super) fn read(part: &Part, data: &PartitionData, options: &ConsumerOptions) -> Result<Read> {
    let mut read = Read { records: Vec::new(), next_offset: part.offset };
    let Some(bytes) = data.records.as_ref().and_then(|records| records.bytes()) else {
        return Ok(read);
    };
    let mut aborted = Aborted::of(data, options.isolation);
    let bad = |error: BatchError| ClientError::Malformed { address: part.at.to_string(), reason: error.to_string() };
    for batch in RecordBatch::all(bytes.clone()) {
        let batch = match batch {
            Ok(batch) => batch,
            // The answer's size limit cuts off the last batch; it comes whole with the next fetch.
            Err(BatchError::Truncated { .. }) if read.next_offset > part.offset => break,
            Err(error) => return Err(bad(error)),
        };
        let header = *batch.header();
        if header.next_offset() <= read.next_offset {
            continue;
        }
        batch.verify_crc().map_err(bad)?;
        aborted.reach(header.last_offset());
        if header.is_control() {
            let marker = batch.records(options.decompressed_bytes_max).next().transpose().map_err(bad)?;
            let key = marker.and_then(|record| record.key);
            if key.is_some_and(|key| ControlType::from_key(&key) == Some(ControlType::Abort)) {
                aborted.end(header.producer_id);
            }
        } else if !(header.is_transactional() && aborted.contains(header.producer_id)) {
            for record in batch.records(options.decompressed_bytes_max) {
                let record = record.map_err(bad)?;
                if record.offset < part.offset {
                    continue;
                }
                read.records.push(ConsumedRecord {
                    topic: part.topic.clone(),
                    partition: part.at.partition,
                    offset: record.offset,
                    leader_epoch: header.partition_leader_epoch,
                    timestamp: record.timestamp,
                    log_append_time: header.timestamp_type() == TimestampType::LogAppendTime,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
        read.next_offset = header.next_offset();
    }
    Ok(read)
}

/// Producers whose transaction, at the point reached in the log, is going to be aborted.
#[derive(Debug, Default)]
struct Aborted {
    /// First offset and producer of aborted transactions that begin further on, in order.
    ahead: VecDeque<(i64, i64)>,
    now: BTreeSet<i64>,
}

impl Aborted {
    fn of(data: &PartitionData, isolation: Isolation) -> Self {
        if isolation == Isolation::ReadUncommitted {
            return Self::default();
        }
        let listed = data.aborted_transactions.iter().flatten();
        let mut ahead: Vec<(i64, i64)> = listed.map(|t| (t.first_offset, t.producer_id)).collect();
        ahead.sort_unstable();
        Self { ahead: ahead.into(), now: BTreeSet::new() }
    }

    fn reach(&mut self, offset: i64) {
        while let Some((_, producer)) = self.ahead.pop_front_if(|(first, _)| *first <= offset) {
            self.now.insert(producer);
        }
    }

    fn contains(&self, producer: i64) -> bool {
        self.now.contains(&producer)
    }

    fn end(&mut self, producer: i64) {
        self.now.remove(&producer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;
    use bytes::Bytes;
    use klamm_protocol::Records;
    use klamm_protocol::batch::{BatchBuilder, EndTxnMarker, end_txn_marker};
    use klamm_protocol::messages::fetch_response::AbortedTransaction;

    fn batch(base: i64, values: &[&str], transactional_producer: Option<i64>) -> Bytes {
        let mut builder = BatchBuilder::new(base);
        if let Some(id) = transactional_producer {
            builder = builder.producer(id, 0, 0).transactional();
        }
        for value in values {
            builder.push(1, None, Some(value.as_bytes()), &[]).expect("fits");
        }
        builder.build().expect("builds")
    }

    fn data(pieces: &[Bytes], aborted: &[(i64, i64)]) -> PartitionData {
        let transaction = |&(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset };
        PartitionData {
            records: Some(Records::Bytes(pieces.concat().into())),
            aborted_transactions: Some(aborted.iter().map(transaction).collect()),
            ..Default::default()
        }
    }

    fn values(offset: i64, data: &PartitionData, isolation: Isolation) -> (Vec<String>, i64) {
        let part = Part { at: TopicPartition::new("t", 0), topic: "t".into(), offset, leader_epoch: -1, term: 0 };
        let options = ConsumerOptions { isolation, ..Default::default() };
        let read = read(&part, data, &options).expect("reads");
        let text = |r: ConsumedRecord| String::from_utf8_lossy(&r.value.unwrap_or_default()).into_owned();
        (read.records.into_iter().map(text).collect(), read.next_offset)
    }

    #[test]
    fn starts_inside_of_a_batch_and_leaves_out_a_cut_one() {
        let (first, second) = (batch(0, &["a", "b", "c"], None), batch(3, &["d"], None));
        let cut = second.slice(..second.len() - 1);
        let (read, next) = values(1, &data(&[first, cut], &[]), Isolation::ReadUncommitted);
        assert_eq!((read, next), (vec!["b".to_owned(), "c".to_owned()], 3));
    }

    #[test]
    fn aborted_transactions_are_hidden_only_from_read_committed() {
        let marker = |offset, producer, commit| {
            let marker = EndTxnMarker { commit, coordinator_epoch: 0 };
            end_txn_marker(offset, 0, 1, (producer, 0), marker).expect("builds")
        };
        let pieces = [
            batch(0, &["bad"], Some(7)),
            batch(1, &["good"], Some(8)),
            marker(2, 7, false),
            batch(3, &["later"], Some(7)),
            marker(4, 8, true),
        ];
        let data = data(&pieces, &[(7, 0)]);
        let (read, next) = values(0, &data, Isolation::ReadCommitted);
        assert_eq!((read, next), (vec!["good".to_owned(), "later".to_owned()], 5));
        assert_eq!(values(0, &data, Isolation::ReadUncommitted).0.len(), 3);
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = batch(0, &["a"], None).to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        let part = Part { at: TopicPartition::new("t", 0), topic: "t".into(), offset: 0, leader_epoch: -1, term: 0 };
        let read = read(&part, &data(&[bytes.into()], &[]), &ConsumerOptions::default());
        assert!(matches!(read, Err(ClientError::Malformed { .. })));
    }
}
