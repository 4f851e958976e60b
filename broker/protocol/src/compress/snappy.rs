//! Snappy as Kafka's clients frame it: the 16-byte header of snappy-java, then blocks with a big-endian length each.
//!
//! librdkafka and others send one bare snappy block instead, so input without that header is taken as such.

use super::{CompressError, Compression, grow};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, then version 1 and oldest compatible version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes per block, as snappy-java has it.
const BLOCK: usize = 32 * 1024;
/// No snappy element gives more than 64 bytes for 3, so a block claiming more than this per byte is a lie.
const RATIO_MAX: usize = 22;

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Snappy, what: what.into() }
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&HEADER);
    for block in input.chunks(BLOCK) {
        let length_at = out.len();
        let at = length_at + 4;
        out.resize(at + snap::raw::max_compress_len(block.len()), 0);
        let n = encoder
            .compress(block, &mut out[at..])
            .map_err(|e| CompressError::Encode { codec: Compression::Snappy, what: e.to_string() })?;
        out[length_at..at].copy_from_slice(&(n as u32).to_be_bytes());
        out.truncate(at + n);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut decoder = snap::raw::Decoder::new();
    if !input.starts_with(&MAGIC) {
        return block(&mut decoder, input, cap, out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        // Several framed streams may follow each other. No block is as long as the magic would say.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER.len()..).ok_or_else(|| corrupt("stream header is cut off"))?;
            continue;
        }
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Err(corrupt("block length is cut off"));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((compressed, after)) = after.split_at_checked(length) else {
            return Err(corrupt(format!("block of {length} bytes, but {} are left", after.len())));
        };
        block(&mut decoder, compressed, cap, out)?;
        rest = after;
    }
    Ok(())
}

fn block(decoder: &mut snap::raw::Decoder, input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    if input.is_empty() {
        return Err(corrupt("empty block"));
    }
    let length = snap::raw::decompress_len(input).map_err(|e| corrupt(e.to_string()))?;
    if length > cap - out.len() {
        return Err(CompressError::TooLarge { codec: Compression::Snappy, cap });
    }
    if length > RATIO_MAX * input.len() {
        return Err(corrupt(format!("block of {} bytes claims to hold {length}", input.len())));
    }
    let start = out.len();
    grow(out, length, cap);
    let n = decoder.decompress(input, &mut out[start..]).map_err(|e| corrupt(e.to_string()))?;
    out.truncate(start + n);
    Ok(())
}
