//! Record batches, format v2 ("magic 2"): the only record format a Kafka 4 broker stores or serves.
//!
//! `header` reads and rewrites the fixed 61 bytes without touching the payload. Every length and count read here is
//! checked against the bytes at hand before it is used; bad input is a [`BatchError`], never a panic.

mod header;

pub use header::{
    BatchHeader, Batches, HEADER_LEN, LOG_OVERHEAD, MAGIC, PREFIX_LEN, TimestampType, batches,
    patch_prefix, set_max_timestamp, verify_crc,
};

/// Why bytes are not a usable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("{what} needs {needed} bytes, but only {have} are there")]
    Truncated {
        /// Which part was being read.
        what: &'static str,
        /// Bytes that part takes.
        needed: usize,
        /// Bytes available.
        have: usize,
    },
    /// The length field is smaller than a batch header.
    #[error("batch length field is {0}, a batch has at least 49 bytes after it")]
    BadLength(i32),
    /// Message sets of format v0/v1, or no Kafka data at all.
    #[error("batch has magic {0}, only magic 2 is supported")]
    BadMagic(i8),
    /// A header field has a value no writer produces.
    #[error("batch header field {field} is {value}")]
    BadField {
        /// Field name.
        field: &'static str,
        /// The value found.
        value: i64,
    },
    /// The stored checksum is not that of the bytes.
    #[error(
        "batch at offset {base_offset} has CRC {stored:#010x}, its bytes give {computed:#010x}"
    )]
    BadCrc {
        /// Base offset from the header.
        base_offset: i64,
        /// CRC in the header.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
}
