//! Headers in front of every request and response.

use crate::{
    api_key::ApiKey,
    wire::{DecodeError, EncodeError, Reader, Writer},
};

/// What precedes a request's body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which request; may be one nobody knows.
    pub api_key: i16,
    /// Its version; may be one nobody knows.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads a header. The client id keeps its 16-bit length in flexible versions too, so a header can be read up to
    /// there for unknown keys and versions; those are taken to be without tagged fields.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let inner = |r: &mut Reader| {
            let header = Self {
                api_key: r.i16("api_key")?,
                api_version: r.i16("api_version")?,
                correlation_id: r.i32("correlation_id")?,
                client_id: r.string(false, "client_id")?,
            };
            if header.version() >= 2 {
                r.skip_tags()?;
            }
            Ok(header)
        };
        inner(r).map_err(|e: DecodeError| e.in_message("RequestHeader"))
    }

    /// Writes the header in the version that its key and version ask for.
    pub fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i16(self.api_key);
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        w.string(self.client_id.as_deref(), false, "client_id").map_err(|e| e.in_message("RequestHeader"))?;
        if self.version() >= 2 {
            w.uvarint(0);
        }
        Ok(())
    }

    /// The header's own version: 2 (with tagged fields) or 1.
    pub fn version(&self) -> i16 {
        match ApiKey::from_i16(self.api_key) {
            Some(key) if key.valid_versions().contains(&self.api_version) => {
                key.request_header_version(self.api_version)
            }
            // Clients newer than this broker ask for ApiVersions first, and flexibly.
            Some(ApiKey::ApiVersions) if self.api_version > 0 => 2,
            _ => 1,
        }
    }
}

/// What precedes a response's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads a header of `header_version`, see [`ApiKey::response_header_version`].
    pub fn decode(r: &mut Reader, header_version: i16) -> Result<Self, DecodeError> {
        let inner = |r: &mut Reader| {
            let correlation_id = r.i32("correlation_id")?;
            if header_version >= 1 {
                r.skip_tags()?;
            }
            Ok(Self { correlation_id })
        };
        inner(r).map_err(|e: DecodeError| e.in_message("ResponseHeader"))
    }

    /// Writes a header of `header_version`.
    pub fn encode(&self, w: &mut Writer, header_version: i16) {
        w.i32(self.correlation_id);
        if header_version >= 1 {
            w.uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn decode(bytes: &'static [u8]) -> (RequestHeader, usize) {
        let mut r = Reader::new(Bytes::from_static(bytes));
        let header = RequestHeader::decode(&mut r).unwrap();
        (header, r.remaining())
    }

    #[test]
    fn headers_of_the_future_can_be_read() {
        // ApiVersions v120 of a newer client: flexible, with tagged fields we do not know.
        let (header, left) = decode(b"\x00\x12\x00\x78\x00\x00\x00\x05\x00\x02me\x01\x00\x03abcrest");
        assert_eq!((header.api_key, header.api_version, header.correlation_id), (18, 120, 5));
        assert_eq!((header.client_id.as_deref(), left), (Some("me"), 4));
        // A key nobody knows, and a version nobody knows: up to the client id.
        let (header, left) = decode(b"\x03\xe8\x00\x00\x00\x00\x00\x05\xff\xff\x00\x00");
        assert_eq!((header.api_key, header.client_id, left), (1000, None, 2));
        let (_, left) = decode(b"\x00\x03\x00\x63\x00\x00\x00\x05\xff\xff\x00\x00");
        assert_eq!(left, 2);
    }

    #[test]
    fn a_short_header_names_the_field() {
        let error = RequestHeader::decode(&mut Reader::new(Bytes::from_static(b"\x00\x03\x00"))).unwrap_err();
        assert_eq!(error.to_string(), "RequestHeader.api_version at byte 2: needs 2 bytes, 1 left");
    }
}
