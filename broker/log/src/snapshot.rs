//! Producer state on disk: Kafka's `ProducerSnapshot` version 1, `<20-digit offset>.snapshot`.
//!
//! A snapshot holds the state of all batches below the offset in its name. It has room for one batch per producer, as
//! in Kafka. Version i16, CRC-32C u32 of what follows, count i32, then 46 bytes per producer.

use crate::producers::Producers;

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

const VERSION: i16 = 1;
const HEAD: usize = 6;
const ENTRY: usize = 46;

/// One producer in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotEntry {
    pub producer_id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
    pub coordinator_epoch: i32,
    pub txn_start: i64,
}

/// The bytes of a snapshot.
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let mut all: Vec<_> = producers.iter().collect();
    all.sort_by_key(|(id, _)| *id);
    let mut out = Vec::with_capacity(HEAD + 4 + all.len() * ENTRY);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(all.len() as i32).to_be_bytes());
    for (id, p) in all {
        let last = p.last_batch();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&p.epoch.to_be_bytes());
        out.extend_from_slice(&p.last_sequence().to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |b| b.last_offset).to_be_bytes());
        out.extend_from_slice(&last.map_or(0, |b| b.offset_delta).to_be_bytes());
        out.extend_from_slice(&p.last_timestamp.to_be_bytes());
        out.extend_from_slice(&p.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&p.txn_start.unwrap_or(-1).to_be_bytes());
    }
    let crc = crc32c(&out[HEAD..]);
    out[2..HEAD].copy_from_slice(&crc.to_be_bytes());
    out
}

/// Reads a snapshot; `None` when it is garbled or of another version.
pub(crate) fn decode(bytes: &[u8]) -> Option<Producers> {
    let mut r = Fields(bytes);
    if r.i16()? != VERSION {
        return None;
    }
    let crc = r.i32()? as u32;
    if crc32c(r.0) != crc {
        return None;
    }
    let count = usize::try_from(r.i32()?).ok()?;
    if r.0.len() != count.checked_mul(ENTRY)? {
        return None;
    }
    let mut producers = Producers::default();
    for _ in 0..count {
        producers.restore(&SnapshotEntry {
            producer_id: r.i64()?,
            epoch: r.i16()?,
            last_sequence: r.i32()?,
            last_offset: r.i64()?,
            offset_delta: r.i32()?,
            timestamp: r.i64()?,
            coordinator_epoch: r.i32()?,
            txn_start: r.i64()?,
        });
    }
    Some(producers)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_protocol::batch::BatchHeader;

    fn some_producers() -> Producers {
        let mut producers = Producers::default();
        for id in [7, 3] {
            producers.note(&BatchHeader {
                base_offset: id * 100,
                last_offset_delta: 4,
                max_timestamp: 1_000 + id,
                producer_id: id,
                producer_epoch: 2,
                base_sequence: 10,
                attributes: if id == 3 { 0x10 } else { 0 },
                ..BatchHeader::default()
            });
        }
        producers
    }

    #[test]
    fn goes_both_ways() {
        let producers = some_producers();
        let bytes = encode(&producers);
        assert_eq!(bytes.len(), 10 + 2 * ENTRY);
        let again = decode(&bytes).unwrap();
        assert_eq!(again.get(3), producers.get(3));
        assert_eq!(again.get(7), producers.get(7));
        assert_eq!(again.first_unstable_offset(), Some(300));
        assert_eq!(encode(&again), bytes);
    }

    #[test]
    fn any_cut_or_flip_is_noticed() {
        let bytes = encode(&some_producers());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(decode(&bad).is_none(), "flip at {at}");
        }
        assert!(decode(&[0; 64]).is_none());
    }
}
