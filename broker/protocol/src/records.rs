//! Records that Kafka keeps in its own topics, and how a record says what it is.
//!
//! Coordinators write a type number in front of a key (the key's body is always version 0) and a version in front of a
//! value. The metadata log writes a frame version, the type and the version in front of each record. The enums here
//! list each family; a log may hold types newer than this code, which decode to an error that names the key.
#![allow(missing_docs)] // The generated enums document their keys; the types are documented where they are defined.

use bytes::Bytes;

use crate::{
    message::Message,
    messages::*,
    wire::{DecodeError, DecodeErrorKind, EncodeError, Reader, Writer},
};

include!(concat!(env!("OUT_DIR"), "/records.rs"));

/// The frame version of metadata records.
const FRAME_VERSION: u32 = 1;

/// The records of one log, told apart by a type number.
pub trait Family: Sized {
    /// The record's type.
    fn key(&self) -> i16;

    /// The newest version of the record's table.
    fn max_version(&self) -> i16;

    /// Reads a record's body.
    fn read(r: &mut Reader, key: i16, version: i16) -> Result<Self, DecodeError>;

    /// Writes a record's body.
    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

#[cold]
fn unknown_key(r: &Reader, key: i16, family: &'static str) -> DecodeError {
    r.fail(DecodeErrorKind::Key(key.into()), "key").in_message(family)
}

/// A coordinator record's key: type number, then the body.
pub fn encode_key<F: Family>(key: &F) -> Result<Bytes, EncodeError> {
    let mut w = Writer::with_capacity(64);
    w.i16(key.key());
    key.write(&mut w, 0)?;
    w.finish().into_bytes()
}

/// Reads what [`encode_key`] wrote.
pub fn decode_key<F: Family>(bytes: Bytes) -> Result<F, DecodeError> {
    let mut r = Reader::new(bytes);
    let key = r.i16("key")?;
    F::read(&mut r, key, 0)
}

/// A coordinator record's value, or a control record's: version number, then the body.
pub fn encode_value<M: Message>(value: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::with_capacity(64);
    w.i16(version);
    value.encode(&mut w, version)?;
    w.finish().into_bytes()
}

/// Reads what [`encode_value`] wrote.
pub fn decode_value<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16("version")?;
    M::decode(&mut r, version)
}

/// Reads the value that belongs to a key of type `key`.
pub fn decode_value_of<F: Family>(key: i16, bytes: Bytes) -> Result<F, DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16("version")?;
    F::read(&mut r, key, version)
}

fn read_key_and_version(r: &mut Reader, family: &'static str) -> Result<(i16, i16), DecodeError> {
    let mut number = |field| {
        let n = r.uvarint(field)?;
        i16::try_from(n).map_err(|_| r.fail(DecodeErrorKind::Length(n.into()), field).in_message(family))
    };
    Ok((number("key")?, number("version")?))
}

impl MetadataRecord {
    /// The record as it stands in the metadata log, in `version` of its table.
    pub fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::with_capacity(64);
        w.uvarint(FRAME_VERSION);
        w.uvarint(self.key() as u32);
        w.uvarint(version as u32);
        self.write(&mut w, version)?;
        w.finish().into_bytes()
    }

    /// Reads a record of the metadata log.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let frame = r.uvarint("frame_version")?;
        if frame != FRAME_VERSION {
            return Err(r.fail(DecodeErrorKind::Length(frame.into()), "frame_version").in_message("MetadataRecord"));
        }
        let (key, version) = read_key_and_version(&mut r, "MetadataRecord")?;
        Self::read(&mut r, key, version)
    }
}

impl RemoteLogRecord {
    /// The record as it stands in `__remote_log_metadata`.
    pub fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::with_capacity(64);
        w.uvarint(self.key() as u32);
        w.uvarint(version as u32);
        self.write(&mut w, version)?;
        w.finish().into_bytes()
    }

    /// Reads a record of `__remote_log_metadata`.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let (key, version) = read_key_and_version(&mut r, "RemoteLogRecord")?;
        Self::read(&mut r, key, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinator_keys_begin_with_their_type() {
        let key = GroupKey::from(OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 7 });
        let bytes = encode_key(&key).unwrap();
        assert_eq!(bytes, &b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x07"[..]);
        assert_eq!(decode_key::<GroupKey>(bytes), Ok(key));
        let error = decode_key::<GroupKey>(Bytes::from_static(&[0, 99])).unwrap_err();
        assert_eq!(error.to_string(), "GroupKey.key at byte 2: unknown key 99");
    }

    #[test]
    fn values_begin_with_their_version() {
        let value = OffsetCommitValue { offset: 42, metadata: "m".into(), commit_timestamp: 5, ..Default::default() };
        for version in OffsetCommitValue::MIN_VERSION..=OffsetCommitValue::MAX_VERSION {
            let bytes = encode_value(&value, version).unwrap();
            assert_eq!(bytes[..2], version.to_be_bytes());
            assert_eq!(decode_value::<OffsetCommitValue>(bytes.clone()), Ok(value.clone()));
            assert_eq!(decode_value_of::<GroupValue>(1, bytes), Ok(GroupValue::OffsetCommit(value.clone())));
        }
    }

    #[test]
    fn metadata_records_carry_frame_type_and_version() {
        let record = MetadataRecord::from(TopicRecord { name: "t".into(), topic_id: crate::Uuid([1; 16]) });
        let bytes = record.to_bytes(0).unwrap();
        assert_eq!(bytes[..5], [1, 2, 0, 2, b't']);
        assert_eq!(MetadataRecord::from_bytes(bytes.clone()), Ok(record));
        for cut in 0..bytes.len() {
            assert!(MetadataRecord::from_bytes(bytes.slice(..cut)).is_err());
        }
        assert!(MetadataRecord::from_bytes(Bytes::from_static(&[2, 2, 0])).is_err());
        assert!(MetadataRecord::from_bytes(Bytes::from_static(&[1, 0x80, 0x80, 0x04, 0])).is_err());
        let error = MetadataRecord::from_bytes(Bytes::from_static(&[1, 100, 0])).unwrap_err();
        assert_eq!(*error.kind(), DecodeErrorKind::Key(100));
    }
}
