//! Metadata records as bytes: KRaft's own frame (frame version, type, version, body), newest version of each.

use bytes::Bytes;
use klamm_protocol::records::Family;
pub use klamm_protocol::records::MetadataRecord;
use klamm_protocol::wire::{DecodeError, EncodeError};

/// Writes records for the metadata log.
pub fn encode(records: &[MetadataRecord]) -> Result<Vec<Bytes>, EncodeError> {
    records.iter().map(|record| record.to_bytes(record.max_version())).collect()
}

/// Reads records of the metadata log. A type that this code doesn't know is an error: its state would differ.
pub fn decode(records: &[Bytes]) -> Result<Vec<MetadataRecord>, DecodeError> {
    records.iter().map(|bytes| MetadataRecord::from_bytes(bytes.clone())).collect()
}
