//! What every generated message can do.

use bytes::Bytes;

use crate::{
    api_key::ApiKey,
    wire::{DecodeError, DecodeErrorKind, EncodeError, Encoded, Reader, Wire, Writer},
};

/// A message: one table of fields over a range of versions.
pub trait Message: Wire + Default {
    /// Kafka's name for it, e.g. `ProduceRequest`.
    const NAME: &'static str;
    /// Oldest version.
    const MIN_VERSION: i16;
    /// Newest version.
    const MAX_VERSION: i16;
    /// First version with compact lengths and tagged fields; `i16::MAX` when none has.
    const FLEXIBLE_FROM: i16;

    /// Reads the message; what follows it stays in the reader.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if version < Self::MIN_VERSION || version > Self::MAX_VERSION {
            let kind = DecodeErrorKind::Version { version, min: Self::MIN_VERSION, max: Self::MAX_VERSION };
            return Err(DecodeError::new(kind, "version", r.position()).in_message(Self::NAME));
        }
        Self::get(r, "", version, version >= Self::FLEXIBLE_FROM).map_err(|e| e.in_message(Self::NAME))
    }

    /// Writes the message.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if version < Self::MIN_VERSION || version > Self::MAX_VERSION {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        self.put(w, "", version, version >= Self::FLEXIBLE_FROM).map_err(|e| e.in_message(Self::NAME))
    }

    /// The message alone, in pieces.
    fn to_encoded(&self, version: i16) -> Result<Encoded, EncodeError> {
        let mut w = Writer::new();
        self.encode(&mut w, version)?;
        Ok(w.finish())
    }

    /// The message alone, in one buffer.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        self.to_encoded(version)?.into_bytes()
    }

    /// Reads the message from a buffer of its own.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes), version)
    }
}

/// A request, which knows its key and its response.
pub trait Request: Message {
    /// Its API key.
    const KEY: ApiKey;
    /// What answers it, in the same version.
    type Response: Message;
}

/// A record, which knows its type: the first number of a coordinator's record key, or the key in a metadata record.
pub trait Record: Message {
    /// Its type.
    const KEY: i16;
}
