//! Whole frames: four bytes of size, a header, a message. The size counts file ranges too.

use crate::{
    header::{RequestHeader, ResponseHeader},
    message::{Message, Request},
    wire::{DecodeError, EncodeError, Encoded, Reader, Writer},
};

/// Enough for most answers without growing.
const CAPACITY: usize = 512;

/// A response as a frame. `header_version` comes from [`crate::ApiKey::response_header_version`].
pub fn encode_response<M: Message>(
    header_version: i16,
    correlation_id: i32,
    response: &M,
    version: i16,
) -> Result<Encoded, EncodeError> {
    let mut w = Writer::with_capacity(CAPACITY);
    w.i32(0);
    ResponseHeader { correlation_id }.encode(&mut w, header_version);
    response.encode(&mut w, version)?;
    w.patch_size(0)?;
    Ok(w.finish())
}

/// A request as a frame.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
    version: i16,
) -> Result<Encoded, EncodeError> {
    let header = RequestHeader {
        api_key: R::KEY as i16,
        api_version: version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
    };
    let mut w = Writer::with_capacity(CAPACITY);
    w.i32(0);
    header.encode(&mut w)?;
    request.encode(&mut w, version)?;
    w.patch_size(0)?;
    Ok(w.finish())
}

/// Reads the response to a request of type `R` from a frame without its size.
pub fn decode_response<R: Request>(r: &mut Reader, version: i16) -> Result<(ResponseHeader, R::Response), DecodeError> {
    let header = ResponseHeader::decode(r, R::KEY.response_header_version(version))?;
    Ok((header, R::Response::decode(r, version)?))
}
