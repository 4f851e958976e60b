//! Lz4 frames: read in every shape that clients send, written as Kafka's Java client does (64 KiB, independent
//! blocks, no checksums), which is also what its reader accepts.
//!
//! Read here rather than by the frame decoder of lz4_flex, which takes a frame cut off between blocks for a whole one
//! and sets up to 8 MiB aside for a frame of 15 bytes. Blocks are decoded straight into the output.

use lz4_flex::block::{
    DecompressError, compress_into, decompress_into, decompress_into_with_dict, get_maximum_output_size,
};
use twox_hash::XxHash32;

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
const WRITE_BLOCK: usize = 64 * 1024;

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Lz4, what: what.into() }
}

fn xxh32(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let descriptor = [FLAG_VERSION | FLAG_INDEPENDENT, WRITE_BLOCK_CODE];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push((xxh32(&descriptor) >> 8) as u8);
    for block in input.chunks(WRITE_BLOCK) {
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
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    Ok(())
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
    let mut rest = input;
    let frame = frame(&mut rest)?;
    if frame.content_size.is_some_and(|size| size > cap as u64) {
        return Err(CompressError::TooLarge { codec: Compression::Lz4, cap });
    }
    loop {
        let word = u32::from_le_bytes(take(&mut rest, "block length")?);
        if word == 0 {
            break;
        }
        let length = (word & !STORED) as usize;
        if length > frame.block_max {
            return Err(corrupt(format!("block of {length} bytes in a frame of {}-byte blocks", frame.block_max)));
        }
        let Some((block, after)) = rest.split_at_checked(length) else {
            return Err(corrupt(format!("block of {length} bytes, but {} are left", rest.len())));
        };
        rest = after;
        if frame.flags & FLAG_BLOCK_SUM != 0 && u32::from_le_bytes(take(&mut rest, "block checksum")?) != xxh32(block) {
            return Err(corrupt("block does not match its checksum"));
        }
        if word & STORED != 0 {
            if length > cap - out.len() {
                return Err(CompressError::TooLarge { codec: Compression::Lz4, cap });
            }
            let start = out.len();
            grow(out, length, cap);
            out[start..].copy_from_slice(block);
        } else {
            decompress_block(&frame, block, cap, out)?;
        }
    }
    if frame.content_size.is_some_and(|size| size != out.len() as u64) {
        return Err(corrupt(format!("frame holds {} bytes, its header says otherwise", out.len())));
    }
    if frame.flags & FLAG_CONTENT_SUM != 0 && u32::from_le_bytes(take(&mut rest, "content checksum")?) != xxh32(out) {
        return Err(corrupt("content does not match its checksum"));
    }
    if !rest.is_empty() {
        return Err(corrupt(format!("{} bytes follow the frame", rest.len())));
    }
    Ok(())
}

fn decompress_block(frame: &Frame, block: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let start = out.len();
    let left = cap - start;
    let room = frame.block_max.min(RATIO_MAX * block.len() + 64);
    grow(out, room.min(left), cap);
    let (before, into) = out.split_at_mut(start);
    let result = if frame.flags & FLAG_INDEPENDENT != 0 || before.is_empty() {
        decompress_into(block, into)
    } else {
        decompress_into_with_dict(block, into, &before[before.len().saturating_sub(WINDOW)..])
    };
    match result {
        Ok(n) => {
            out.truncate(start + n);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if left < room => {
            Err(CompressError::TooLarge { codec: Compression::Lz4, cap })
        }
        Err(e) => Err(corrupt(e.to_string())),
    }
}
