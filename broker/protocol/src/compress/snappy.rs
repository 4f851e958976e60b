//! Snappy as Kafka's clients frame it: the 16-byte header of snappy-java, then blocks with a big-endian length each.
//!
//! librdkafka and others send one bare snappy block instead, so input without that header is taken as such.

use super::stream::Limits;
use super::{CompressError, Compression, grow};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, then version 1 and oldest compatible version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes per block, as snappy-java has it.
pub(super) const BLOCK: usize = 32 * 1024;
/// No snappy element gives more than 64 bytes for 3, so a block claiming more than this per byte is a lie.
const RATIO_MAX: usize = 22;

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Snappy, what: what.into() }
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    begin(out);
    input.chunks(BLOCK).try_for_each(|block| compress_block(block, out))
}

pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
}

pub(super) fn compress_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let length_at = out.len();
    let at = length_at + 4;
    out.resize(at + snap::raw::max_compress_len(block.len()), 0);
    let n = snap::raw::Encoder::new()
        .compress(block, &mut out[at..])
        .map_err(|e| CompressError::Encode { codec: Compression::Snappy, what: e.to_string() })?;
    out[length_at..at].copy_from_slice(&(n as u32).to_be_bytes());
    out.truncate(at + n);
    Ok(())
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut decoder = snap::raw::Decoder::new();
    let mut blocks = Blocks::new(input);
    while let Some(compressed) = blocks.next()? {
        block(&mut decoder, compressed, cap, out)?;
    }
    Ok(())
}

/// The compressed blocks, one after another.
enum Blocks<'a> {
    /// No framing: the whole input, once.
    Bare(Option<&'a [u8]>),
    Framed(&'a [u8]),
}

impl<'a> Blocks<'a> {
    fn new(input: &'a [u8]) -> Self {
        if input.starts_with(&MAGIC) { Blocks::Framed(input) } else { Blocks::Bare(Some(input)) }
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, CompressError> {
        let rest = match self {
            Blocks::Bare(input) => return Ok(input.take()),
            Blocks::Framed(rest) => rest,
        };
        // Several framed streams may follow each other. No block is as long as the magic would say.
        while rest.starts_with(&MAGIC) {
            *rest = rest.get(HEADER.len()..).ok_or_else(|| corrupt("stream header is cut off"))?;
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Err(corrupt("block length is cut off"));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((compressed, after)) = after.split_at_checked(length) else {
            return Err(corrupt(format!("block of {length} bytes, but {} are left", after.len())));
        };
        *rest = after;
        Ok(Some(compressed))
    }
}

/// Chunks of a snappy stream: a block each.
pub(super) struct Stream<'a> {
    decoder: snap::raw::Decoder,
    blocks: Blocks<'a>,
    cap: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(input: &'a [u8], limits: Limits) -> Self {
        let cap = limits.window.min(limits.total);
        Self { decoder: snap::raw::Decoder::new(), blocks: Blocks::new(input), cap }
    }

    pub(super) fn advance(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressError> {
        out.clear();
        let Some(compressed) = self.blocks.next()? else { return Ok(false) };
        block(&mut self.decoder, compressed, self.cap, out)?;
        Ok(true)
    }
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
