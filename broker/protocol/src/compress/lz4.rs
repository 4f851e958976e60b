//! Lz4 frames: read in every shape that clients send, written as Kafka's Java client does (64 KiB, independent
//! blocks, no checksums), which is also what its reader accepts.
//!
//! Read here rather than by the frame decoder of lz4_flex, which takes a frame cut off between blocks for a whole one
//! and sets up to 8 MiB aside for a frame of 15 bytes. Blocks are decoded straight into the output.

use std::hash::Hasher;

use lz4_flex::block::{
    DecompressError, compress_into, decompress_into, decompress_into_with_dict, get_maximum_output_size,
};
use twox_hash::XxHash32;

use super::stream::Limits;
use super::{CompressError, Compression, grow};

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
/// Length bit of a block that is stored as it is.
const STORED: u32 = 1 << 31;
/// How far back a block may refer into the ones before it.
const WINDOW: usize = 64 * 1024;
/// A byte of input extends a match by at most 255, and a sequence starts with a handful.
const RATIO_MAX: usize = 255;

const FLAG_VERSION_MASK: u8 = 0xc0;
const FLAG_VERSION: u8 = 0x40;
const FLAG_INDEPENDENT: u8 = 0x20;
const FLAG_BLOCK_SUM: u8 = 0x10;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_CONTENT_SUM: u8 = 0x04;
const FLAG_RESERVED: u8 = 0x02;
const FLAG_DICTIONARY: u8 = 0x01;

/// Block size code and bytes used for writing.
const WRITE_BLOCK_CODE: u8 = 4 << 4;
pub(super) const WRITE_BLOCK: usize = 64 * 1024;

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Lz4, what: what.into() }
}

fn xxh32(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    begin(out);
    input.chunks(WRITE_BLOCK).try_for_each(|block| compress_block(block, out))?;
    end(out);
    Ok(())
}

/// Writes the frame header.
pub(super) fn begin(out: &mut Vec<u8>) {
    let descriptor = [FLAG_VERSION | FLAG_INDEPENDENT, WRITE_BLOCK_CODE];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push((xxh32(&descriptor) >> 8) as u8);
}

/// Writes a block of at most [`WRITE_BLOCK`] bytes.
pub(super) fn compress_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let length_at = out.len();
    let at = length_at + 4;
    out.resize(at + get_maximum_output_size(block.len()), 0);
    let n = compress_into(block, &mut out[at..])
        .map_err(|e| CompressError::Encode { codec: Compression::Lz4, what: e.to_string() })?;
    let length = if n < block.len() {
        out.truncate(at + n);
        n as u32
    } else {
        out.truncate(at);
        out.extend_from_slice(block);
        block.len() as u32 | STORED
    };
    out[length_at..at].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Writes the end mark.
pub(super) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&0u32.to_le_bytes());
}

/// What the frame header says.
struct Frame {
    flags: u8,
    block_max: usize,
    content_size: Option<u64>,
}

/// Takes `N` bytes off the front of `rest`.
fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], CompressError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(|| corrupt(format!("{what} is cut off")))?;
    *rest = tail;
    Ok(*head)
}

fn frame(rest: &mut &[u8]) -> Result<Frame, CompressError> {
    if take::<4>(rest, "frame magic")? != MAGIC {
        return Err(corrupt("does not begin with the lz4 frame magic"));
    }
    let descriptor = *rest;
    let [flags, block] = take::<2>(rest, "frame header")?;
    if flags & FLAG_VERSION_MASK != FLAG_VERSION || flags & FLAG_RESERVED != 0 {
        return Err(corrupt(format!("frame flags {flags:#04x} are of another version")));
    }
    if flags & FLAG_DICTIONARY != 0 {
        return Err(corrupt("frame needs a dictionary"));
    }
    let block_max = match block >> 4 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return Err(corrupt(format!("frame has block size code {block:#04x}"))),
    };
    let content_size =
        if flags & FLAG_CONTENT_SIZE != 0 { Some(u64::from_le_bytes(take(rest, "content size")?)) } else { None };
    let covered = &descriptor[..descriptor.len() - rest.len()];
    let [sum] = take::<1>(rest, "frame header checksum")?;
    if sum != (xxh32(covered) >> 8) as u8 {
        return Err(corrupt("frame header does not match its checksum"));
    }
    Ok(Frame { flags, block_max, content_size })
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut blocks = Blocks::new(input, cap)?;
    while let Some(block) = blocks.next()? {
        let start = out.len();
        grow(out, block.room(&blocks.frame).min(cap - start), cap);
        let (before, into) = out.split_at_mut(start);
        let n = block.unpack(&blocks.frame, before, into, cap)?;
        out.truncate(start + n);
    }
    blocks.finish(out.len(), || xxh32(out))
}

/// The blocks of a frame, one after another.
struct Blocks<'a> {
    rest: &'a [u8],
    frame: Frame,
}

/// A block, its checksum verified.
enum Block<'a> {
    Stored(&'a [u8]),
    Packed(&'a [u8]),
}

impl<'a> Blocks<'a> {
    fn new(input: &'a [u8], cap: usize) -> Result<Self, CompressError> {
        let mut rest = input;
        let frame = frame(&mut rest)?;
        if frame.content_size.is_some_and(|size| size > cap as u64) {
            return Err(CompressError::TooLarge { codec: Compression::Lz4, cap });
        }
        Ok(Self { rest, frame })
    }

    /// `None` at the end mark.
    fn next(&mut self) -> Result<Option<Block<'a>>, CompressError> {
        let rest = &mut self.rest;
        let word = u32::from_le_bytes(take(rest, "block length")?);
        if word == 0 {
            return Ok(None);
        }
        let length = (word & !STORED) as usize;
        if length > self.frame.block_max {
            return Err(corrupt(format!("block of {length} bytes in a frame of {}-byte blocks", self.frame.block_max)));
        }
        let Some((block, after)) = rest.split_at_checked(length) else {
            return Err(corrupt(format!("block of {length} bytes, but {} are left", rest.len())));
        };
        *rest = after;
        let checked = self.frame.flags & FLAG_BLOCK_SUM != 0;
        if checked && u32::from_le_bytes(take(rest, "block checksum")?) != xxh32(block) {
            return Err(corrupt("block does not match its checksum"));
        }
        Ok(Some(if word & STORED != 0 { Block::Stored(block) } else { Block::Packed(block) }))
    }

    /// Checks what stands behind the last block against the content.
    fn finish(mut self, length: usize, sum: impl FnOnce() -> u32) -> Result<(), CompressError> {
        if self.frame.content_size.is_some_and(|size| size != length as u64) {
            return Err(corrupt(format!("frame holds {length} bytes, its header says otherwise")));
        }
        let checked = self.frame.flags & FLAG_CONTENT_SUM != 0;
        if checked && u32::from_le_bytes(take(&mut self.rest, "content checksum")?) != sum() {
            return Err(corrupt("content does not match its checksum"));
        }
        match self.rest.len() {
            0 => Ok(()),
            n => Err(corrupt(format!("{n} bytes follow the frame"))),
        }
    }
}

impl Block<'_> {
    /// Most bytes that it can hold.
    fn room(&self, frame: &Frame) -> usize {
        match self {
            Block::Stored(bytes) => bytes.len(),
            Block::Packed(bytes) => frame.block_max.min(RATIO_MAX * bytes.len() + 64),
        }
    }

    /// Unpacks into `into`, which the caller has made as large as [`Block::room`] or as `cap` leaves. `before` ends
    /// with what the blocks before it held.
    fn unpack(&self, frame: &Frame, before: &[u8], into: &mut [u8], cap: usize) -> Result<usize, CompressError> {
        let too_large = || CompressError::TooLarge { codec: Compression::Lz4, cap };
        let cut = into.len() < self.room(frame);
        let result = match self {
            Block::Stored(_) if cut => return Err(too_large()),
            Block::Stored(bytes) => {
                into.copy_from_slice(bytes);
                return Ok(bytes.len());
            }
            Block::Packed(bytes) if frame.flags & FLAG_INDEPENDENT != 0 || before.is_empty() => {
                decompress_into(bytes, into)
            }
            Block::Packed(bytes) => {
                decompress_into_with_dict(bytes, into, &before[before.len().saturating_sub(WINDOW)..])
            }
        };
        match result {
            Ok(n) => Ok(n),
            Err(DecompressError::OutputTooSmall { .. }) if cut => Err(too_large()),
            Err(e) => Err(corrupt(e.to_string())),
        }
    }
}

/// Chunks of an lz4 frame: a block each. Keeps as much of the blocks before as the next may refer to.
pub(super) struct Stream<'a> {
    /// `None` once all has been read.
    blocks: Option<Blocks<'a>>,
    before: Vec<u8>,
    total: usize,
    sum: XxHash32,
    cap: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(input: &'a [u8], limits: Limits) -> Result<Self, CompressError> {
        let blocks = Some(Blocks::new(input, limits.total)?);
        let cap = limits.window.min(limits.total);
        Ok(Self { blocks, before: Vec::new(), total: 0, sum: XxHash32::with_seed(0), cap })
    }

    pub(super) fn advance(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressError> {
        let Some(mut blocks) = self.blocks.take() else { return Ok(false) };
        let Some(block) = blocks.next()? else {
            let sum = &self.sum;
            blocks.finish(self.total, || sum.finish_32())?;
            return Ok(false);
        };
        out.clear();
        let room = block.room(&blocks.frame).min(self.cap);
        out.reserve_exact(room);
        out.resize(room, 0);
        let n = block.unpack(&blocks.frame, &self.before, out, self.cap)?;
        out.truncate(n);
        self.total += n;
        if blocks.frame.flags & FLAG_INDEPENDENT == 0 {
            remember(&mut self.before, out);
        }
        if blocks.frame.flags & FLAG_CONTENT_SUM != 0 {
            self.sum.write(out);
        }
        self.blocks = Some(blocks);
        Ok(true)
    }
}

/// Appends `block` to what can be referred to, and drops what is too far back.
fn remember(before: &mut Vec<u8>, block: &[u8]) {
    let block = &block[block.len().saturating_sub(WINDOW)..];
    let over = (before.len() + block.len()).saturating_sub(WINDOW);
    before.drain(..over);
    before.extend_from_slice(block);
}
