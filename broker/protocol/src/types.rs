//! The field types Kafka has and Rust has not: record batches in memory or in a file, and Kafka's UUIDs.

use std::{fmt, fs::File, str::FromStr, sync::Arc};

use bytes::Bytes;

use crate::arrivals::Cached;

/// A part of a file, ready for `sendfile`.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The open file.
    pub file: Arc<File>,
    /// First byte.
    pub position: u64,
    /// Number of bytes.
    pub len: u32,
    /// Of what was checked when the range was made: what comes from the disk since has to be checked anew.
    pub cached: Option<Cached>,
}

impl FileRange {
    /// The position behind it.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.len)
    }
}

impl PartialEq for FileRange {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.position == other.position && self.len == other.len
    }
}

/// Record batches, one after the other. Decoding always gives `Bytes`.
#[derive(Debug, Clone, PartialEq)]
pub enum Records {
    /// In memory.
    Bytes(Bytes),
    /// In a segment file.
    File(FileRange),
}

impl Records {
    /// The batches when they are in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }

    /// Their length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(range) => range.len as usize,
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<FileRange> for Records {
    fn from(range: FileRange) -> Self {
        Self::File(range)
    }
}

/// A UUID, written the way Kafka writes it: 22 characters of unpadded URL-safe base64.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// All zeros: "no id".
    pub const ZERO: Self = Self([0; 16]);
    /// The topic id of the cluster metadata log.
    pub const METADATA_TOPIC: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Stands for a log directory whose replica is lost: damaged, or on a disk that failed.
    pub const LOST_DIRECTORY: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// True for [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// From 16 random bytes, the version (4) and variant bits set.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 22];
        let bits = u128::from_be_bytes(self.0);
        for (i, out) in text.iter_mut().enumerate() {
            // 21 characters of six bits, and the last two bits as the high ones of the 22nd.
            let six = if i < 21 { bits >> (122 - 6 * i) } else { bits << 4 };
            *out = ALPHABET[(six & 0x3f) as usize];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a UUID in Kafka's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: 22 characters of URL-safe base64 expected")]
pub struct UuidError;

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        // Padding is optional, as in Kafka.
        let text = text.strip_suffix("==").unwrap_or(text);
        if text.len() != 22 {
            return Err(UuidError);
        }
        let mut bits = 0u128;
        for (i, c) in text.bytes().enumerate() {
            let six = ALPHABET.iter().position(|&a| a == c).ok_or(UuidError)? as u128;
            bits = if i < 21 { bits << 6 | six } else { bits << 2 | six >> 4 };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uuids_are_written_as_kafka_writes_them() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAQ==".parse(), Ok(Uuid::METADATA_TOPIC));
        for bad in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAA+", "AAAAAAAAAAAAAAAAAAAAAAA", "ßßßßßßßßßßß"] {
            assert_eq!(bad.parse::<Uuid>(), Err(UuidError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn uuids_come_back(bytes: [u8; 16]) {
            prop_assert_eq!(Uuid(bytes).to_string().parse(), Ok(Uuid(bytes)));
        }
    }
}
