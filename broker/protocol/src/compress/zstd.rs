//! Zstandard, one call per payload, straight into the output.
//!
//! A streaming decoder sets aside the window that the frame asks for, up to 128 MiB at the highest level, before it
//! has seen any data. Decoding in one call needs no window, only an output large enough; the block headers give an
//! upper bound for that, and the cap limits it.

use std::cell::RefCell;

use ::zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use ::zstd::zstd_safe::{DCtx, compress_bound, get_error_name};

use super::{CompressError, Compression};

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
/// Most that one block decompresses to.
const BLOCK_MAX: u64 = 128 * 1024;
const LEVEL_DEFAULT: i32 = 3;

thread_local! {
    /// A context is some 100 KiB to set up, more work than a small batch; each thread keeps one.
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Zstd, what: what.into() }
}

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let level = level.unwrap_or(LEVEL_DEFAULT).clamp(-131_072, 22);
    let start = out.len();
    out.resize(start + compress_bound(input.len()), 0);
    let n = ::zstd::bulk::compress_to_buffer(input, &mut out[start..], level)
        .map_err(|e| CompressError::Encode { codec: Compression::Zstd, what: e.to_string() })?;
    out.truncate(start + n);
    Ok(())
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let too_large = CompressError::TooLarge { codec: Compression::Zstd, cap };
    let bound = match frames(input)? {
        Size::Exactly(size) if size > cap as u64 => return Err(too_large),
        Size::Exactly(size) | Size::AtMost(size) => size,
    };
    let room = usize::try_from(bound).unwrap_or(usize::MAX).min(cap);
    out.reserve_exact(room);
    let result = CONTEXT.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = DCtx::try_create();
        }
        match slot {
            Some(context) => context.decompress(out, input),
            None => Err(0usize.wrapping_sub(ZSTD_ErrorCode::ZSTD_error_memory_allocation as usize)),
        }
    });
    match result {
        // A buffer kept from an earlier call may have had room beyond the cap.
        Ok(n) if n > cap => Err(too_large),
        Ok(_) => Ok(()),
        Err(code)
            if bound > cap as u64
                && code == 0usize.wrapping_sub(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize) =>
        {
            Err(too_large)
        }
        Err(code) => Err(corrupt(get_error_name(code))),
    }
}

/// What frame and block headers say about the size of the output.
#[derive(Debug, PartialEq)]
enum Size {
    /// Every frame states its own.
    Exactly(u64),
    /// Some don't; this is what their blocks could hold.
    AtMost(u64),
}

/// Walks all frames and blocks of `input` without decoding any.
fn frames(input: &[u8]) -> Result<Size, CompressError> {
    if input.is_empty() {
        return Err(corrupt("no data"));
    }
    let mut rest = input;
    let mut total = 0u64;
    let mut exact = true;
    while !rest.is_empty() {
        let magic = u32::from_le_bytes(take(&mut rest, "frame magic")?);
        if magic & !0xf == SKIPPABLE {
            let length = u32::from_le_bytes(take(&mut rest, "skippable frame")?);
            skip(&mut rest, length as usize, "skippable frame")?;
            continue;
        }
        if magic != MAGIC {
            return Err(corrupt(format!("{magic:#010x} is not a zstd frame's magic")));
        }
        let (stated, possible) = frame(&mut rest)?;
        exact &= stated.is_some();
        total = total.saturating_add(stated.unwrap_or(possible));
    }
    Ok(if exact { Size::Exactly(total) } else { Size::AtMost(total) })
}

/// Takes a frame after its magic off `rest`: the size it states, and what its blocks could hold.
fn frame(rest: &mut &[u8]) -> Result<(Option<u64>, u64), CompressError> {
    let [descriptor] = take::<1>(rest, "frame header")?;
    let single_segment = descriptor & 0x20 != 0;
    let mut window = u64::MAX;
    if !single_segment {
        let [w] = take::<1>(rest, "window size")?;
        let base = 1u64 << (10 + (w >> 3));
        window = base + base / 8 * u64::from(w & 7);
    }
    skip(rest, [0, 1, 2, 4][usize::from(descriptor & 3)], "dictionary id")?;
    let stated = match (descriptor >> 6, single_segment) {
        (0, false) => None,
        (0, true) => Some(u64::from(take::<1>(rest, "content size")?[0])),
        (1, _) => Some(u64::from(u16::from_le_bytes(take(rest, "content size")?)) + 256),
        (2, _) => Some(u64::from(u32::from_le_bytes(take(rest, "content size")?))),
        _ => Some(u64::from_le_bytes(take(rest, "content size")?)),
    };
    let block_max = window.min(stated.unwrap_or(u64::MAX)).min(BLOCK_MAX);
    let mut possible = 0u64;
    loop {
        let [a, b, c] = take::<3>(rest, "block header")?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let size = (header >> 3) as usize;
        let (stored, holds) = match header >> 1 & 3 {
            0 => (size, size as u64),
            1 => (1, size as u64),
            2 => (size, block_max),
            _ => return Err(corrupt("block of a reserved type")),
        };
        skip(rest, stored, "block")?;
        possible = possible.saturating_add(holds);
        if header & 1 != 0 {
            break;
        }
    }
    if descriptor & 4 != 0 {
        skip(rest, 4, "content checksum")?;
    }
    Ok((stated, possible))
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], CompressError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(|| corrupt(format!("{what} is cut off")))?;
    *rest = tail;
    Ok(*head)
}

fn skip(rest: &mut &[u8], n: usize, what: &'static str) -> Result<(), CompressError> {
    let Some(tail) = rest.get(n..) else {
        return Err(corrupt(format!("{what} is cut off: {n} bytes, but {} are left", rest.len())));
    };
    *rest = tail;
    Ok(())
}
