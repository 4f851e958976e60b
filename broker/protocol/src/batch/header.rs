//! The fixed 61-byte batch header: parse, write back, checksum, and patch without touching the payload.
//!
//! Layout: base offset i64, batch length i32, leader epoch i32, magic i8, CRC u32, attributes i16, last offset delta
//! i32, base timestamp i64, max timestamp i64, producer id i64, producer epoch i16, base sequence i32, count i32.
//! The CRC-32C covers attributes to the end, so base offset and leader epoch can be assigned without a new checksum.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

use super::BatchError;
use crate::compress::{CompressError, Compression};

/// Bytes of a batch header.
pub const HEADER_LEN: usize = 61;
/// Bytes before those that the length field counts (base offset and the length itself).
pub const LOG_OVERHEAD: usize = 12;
/// Bytes of base offset, length and leader epoch: all a broker changes on a plain append.
pub const PREFIX_LEN: usize = 16;
/// The record format written and read here.
pub const MAGIC: i8 = 2;

/// Where the CRC field and the bytes it covers begin.
const CRC_AT: usize = 17;
pub(super) const CRC_FROM: usize = 21;

pub(super) const TIMESTAMP_TYPE: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;
pub(super) const CODEC_MASK: i16 = 0x07;

/// Whose clock the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    #[default]
    CreateTime,
    /// The broker's at append: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The header of a record batch, as plain fields.
///
/// A parsed header has magic 2, a length of at least the header's, and counts and deltas that aren't negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record when the batch was written.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: i32,
    /// Record format, always 2.
    pub magic: i8,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control and delete-horizon bits.
    pub attributes: i16,
    /// Last offset of the batch as written, relative to the base offset; compaction keeps it.
    pub last_offset_delta: i32,
    /// Timestamp that record deltas count from, or the delete horizon when that bit is set.
    pub base_timestamp: i64,
    /// Largest record timestamp, or the append time for `LogAppendTime`.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Epoch of that producer, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch; 0 after compaction emptied it.
    pub records_count: i32,
}

impl Default for BatchHeader {
    /// An empty, plain batch at offset 0 of no known producer.
    fn default() -> Self {
        BatchHeader {
            base_offset: 0,
            batch_length: (HEADER_LEN - LOG_OVERHEAD) as i32,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: 0,
        }
    }
}

/// Takes `N` bytes at `at`; the caller has checked that they are there.
fn take<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. The payload need not be there; compare [`total_len`](Self::total_len).
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Message sets of the older formats are shorter than this header but have their magic at the same place.
        if let Some(&magic) = bytes.get(16)
            && magic as i8 != MAGIC
        {
            return Err(BatchError::BadMagic(magic as i8));
        }
        let Some(b) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { what: "batch header", needed: HEADER_LEN, have: bytes.len() });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(take(b, 0)),
            batch_length: i32::from_be_bytes(take(b, 8)),
            partition_leader_epoch: i32::from_be_bytes(take(b, 12)),
            magic: b[16] as i8,
            crc: u32::from_be_bytes(take(b, CRC_AT)),
            attributes: i16::from_be_bytes(take(b, CRC_FROM)),
            last_offset_delta: i32::from_be_bytes(take(b, 23)),
            base_timestamp: i64::from_be_bytes(take(b, 27)),
            max_timestamp: i64::from_be_bytes(take(b, 35)),
            producer_id: i64::from_be_bytes(take(b, 43)),
            producer_epoch: i16::from_be_bytes(take(b, 51)),
            base_sequence: i32::from_be_bytes(take(b, 53)),
            records_count: i32::from_be_bytes(take(b, 57)),
        };
        if header.batch_length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::BadLength(header.batch_length));
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::BadField { field: "lastOffsetDelta", value: i64::from(header.last_offset_delta) });
        }
        if header.records_count < 0 {
            return Err(BatchError::BadField { field: "recordsCount", value: i64::from(header.records_count) });
        }
        Ok(header)
    }

    /// The header's bytes, with the `crc` field as it stands.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        b[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        b[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        b[16] = self.magic as u8;
        b[17..21].copy_from_slice(&self.crc.to_be_bytes());
        b[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        b[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        b[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        b[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        b[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        b[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        b[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        b[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        b
    }

    /// The first 16 bytes with another offset and leader epoch: write these, then the batch from byte 16 on.
    pub fn prefix(&self, base_offset: i64, leader_epoch: i32) -> [u8; PREFIX_LEN] {
        let mut b = [0; PREFIX_LEN];
        b[0..8].copy_from_slice(&base_offset.to_be_bytes());
        b[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        b[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        b
    }

    /// This header with another timestamp type and max timestamp, and the CRC that goes with them.
    ///
    /// The payload isn't read: a CRC is linear, so the old one and the changed header bytes give the new one. It holds
    /// for the bytes only if the old one did.
    #[must_use]
    pub fn with_max_timestamp(&self, timestamp_type: TimestampType, max_timestamp: i64) -> BatchHeader {
        let mut new = *self;
        new.max_timestamp = max_timestamp;
        match timestamp_type {
            TimestampType::CreateTime => new.attributes &= !TIMESTAMP_TYPE,
            TimestampType::LogAppendTime => new.attributes |= TIMESTAMP_TYPE,
        }
        let payload = self.total_len() - HEADER_LEN;
        let old_sum = crc32c(&self.to_bytes()[CRC_FROM..]);
        let new_sum = crc32c(&new.to_bytes()[CRC_FROM..]);
        new.crc ^= behind_zeros(old_sum ^ new_sum, payload);
        new
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        LOG_OVERHEAD + self.batch_length.max((HEADER_LEN - LOG_OVERHEAD) as i32) as usize
    }

    /// The last offset the batch takes up, also when compaction removed that record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence number of the last record, or -1 without a producer. After `i32::MAX` comes 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & i64::from(i32::MAX)) as i32
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, CompressError> {
        Compression::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker of the broker's own (end of a transaction, leader change, snapshot).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whose clock the timestamps are.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    /// When compaction may drop the batch's tombstones, once it has decided that.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }
}

/// CRC-32C (Castagnoli, "iSCSI").
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

/// CRC-32C's polynomial without its highest term, lowest bit first, as everywhere below: bit 31 is x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Product of two polynomials, modulo that of the CRC.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        if a >> bit & 1 != 0 {
            product ^= b;
        }
        b = if b & 1 != 0 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

/// x^8, x^16, x^32, …: what 1, 2, 4, … zero bytes multiply a CRC with.
const POWERS: [u32; 32] = {
    let mut powers = [1 << 23; 32];
    let mut i = 1;
    while i < 32 {
        powers[i] = multiply(powers[i - 1], powers[i - 1]);
        i += 1;
    }
    powers
};

/// What a difference of two CRCs becomes after `len` more bytes, whichever they are. Much cheaper than reading the
/// bytes, and than the general function of crc-fast for it.
fn behind_zeros(difference: u32, len: usize) -> u32 {
    (0..).zip(POWERS).filter(|(bit, _)| len >> bit & 1 != 0).fold(difference, |crc, (_, power)| multiply(power, crc))
}

/// The header and the exact bytes of the batch at the start of `bytes`.
pub(super) fn split(bytes: &[u8]) -> Result<(BatchHeader, &[u8]), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let needed = header.total_len();
    match bytes.get(..needed) {
        Some(batch) => Ok((header, batch)),
        None => Err(BatchError::Truncated { what: "record batch", needed, have: bytes.len() }),
    }
}

/// Checks the CRC of the batch at the start of `bytes`, which must hold all of it; returns its header.
pub fn verify_crc(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let (header, batch) = split(bytes)?;
    let computed = crc32c(&batch[CRC_FROM..]);
    if computed != header.crc {
        return Err(BatchError::BadCrc { base_offset: header.base_offset, stored: header.crc, computed });
    }
    Ok(header)
}

/// Gives the batch at the start of `bytes` its offset and leader epoch; the CRC doesn't cover them.
pub fn patch_prefix(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    bytes[..PREFIX_LEN].copy_from_slice(&header.prefix(base_offset, leader_epoch));
    Ok(())
}

/// Gives the batch at the start of `bytes` another timestamp type and max timestamp, and the CRC to match. Only the
/// header need be there, and the CRC must have been right before.
pub fn set_max_timestamp(
    bytes: &mut [u8],
    timestamp_type: TimestampType,
    max_timestamp: i64,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?.with_max_timestamp(timestamp_type, max_timestamp);
    bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    Ok(())
}

/// The batches of `bytes` one after another: each header with all of that batch's bytes.
///
/// Stops after the first error, so a batch cut off at the end (normal in fetch answers) is one final
/// [`BatchError::Truncated`]. CRCs aren't checked.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// Iterator of [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// Where the next batch begins; after an error, where the bad one does.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        match split(self.bytes) {
            Ok((header, batch)) => {
                self.bytes = &self.bytes[batch.len()..];
                self.position += batch.len();
                Some(Ok((header, batch)))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(payload: &[u8]) -> Vec<u8> {
        let mut header = BatchHeader {
            batch_length: (HEADER_LEN - LOG_OVERHEAD + payload.len()) as i32,
            last_offset_delta: 4,
            records_count: 5,
            base_timestamp: 1_000,
            max_timestamp: 2_000,
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: i32::MAX - 2,
            ..BatchHeader::default()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        header.crc = crc32c(&bytes[CRC_FROM..]);
        bytes[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        bytes
    }

    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn prefix_patch_keeps_the_crc() {
        let mut bytes = batch(b"payload");
        patch_prefix(&mut bytes, 1 << 40, 9).unwrap();
        let header = verify_crc(&bytes).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (1 << 40, 9));
        assert_eq!(header.next_offset(), (1 << 40) + 5);
        assert_eq!(header.to_bytes(), bytes[..HEADER_LEN]);
    }

    #[test]
    fn max_timestamp_patch_gives_the_right_crc_for_any_payload_length() {
        for len in [0, 1, 7, 64, 1_000, 70_001] {
            let mut bytes = batch(&vec![0xa5; len]);
            set_max_timestamp(&mut bytes, TimestampType::LogAppendTime, 1_700_000_000_000).unwrap();
            let header = verify_crc(&bytes).unwrap();
            assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
            assert_eq!(header.max_timestamp, 1_700_000_000_000);
        }
    }

    #[test]
    fn sequence_wraps_to_zero() {
        let header = BatchHeader::parse(&batch(b"")).unwrap();
        assert_eq!(header.last_sequence(), 1);
    }

    #[test]
    fn a_flipped_bit_after_the_crc_is_found() {
        let good = batch(b"some payload");
        for at in CRC_FROM..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(verify_crc(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn batches_end_with_one_error_for_a_cut_off_tail() {
        let one = batch(b"abc");
        let mut bytes = [one.clone(), one.clone(), one.clone()].concat();
        bytes.truncate(bytes.len() - 1);
        let mut it = batches(&bytes);
        assert_eq!(it.next().unwrap().unwrap().1, one);
        assert_eq!(it.next().unwrap().unwrap().1, one);
        assert_eq!(it.position(), 2 * one.len());
        assert!(matches!(it.next(), Some(Err(BatchError::Truncated { what: "record batch", .. }))));
        assert_eq!(it.next(), None);
    }

    #[test]
    fn nonsense_headers_are_refused() {
        let good = batch(b"");
        let with = |at: usize, b: u8| {
            let mut bytes = good.clone();
            bytes[at] = b;
            BatchHeader::parse(&bytes)
        };
        assert_eq!(with(16, 1), Err(BatchError::BadMagic(1)));
        assert_eq!(with(11, 48), Err(BatchError::BadLength(48)));
        assert!(matches!(with(8, 0xff), Err(BatchError::BadLength(_))));
        assert!(matches!(with(23, 0xff), Err(BatchError::BadField { field: "lastOffsetDelta", .. })));
        assert!(matches!(with(57, 0xff), Err(BatchError::BadField { field: "recordsCount", .. })));
        assert!(matches!(BatchHeader::parse(&good[..60]), Err(BatchError::Truncated { .. })));
        assert_eq!(BatchHeader::parse(&[0; 20]), Err(BatchError::BadMagic(0)));
    }
}
