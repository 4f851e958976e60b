//! Zstandard, in one call where possible, straight into the output.
//!
//! A streaming decoder sets aside the window that the frame asks for, up to 128 MiB at the highest level, before it
//! has seen any data. Decoding in one call needs no window, only an output large enough; the block headers give an
//! upper bound for that, and the cap limits it. [`Stream`] decodes in pieces what is large and has a small window.

use std::cell::RefCell;

use ::zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, compress_bound, get_error_name};

use super::stream::Limits;
use super::{CompressError, Compression};

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
/// Most that one block decompresses to.
const BLOCK_MAX: u64 = 128 * 1024;
const LEVEL_DEFAULT: i32 = 3;
/// What unpacks to no more than this is unpacked at once.
const WHOLE_MAX: u64 = 1 << 20;
/// The largest window that is set aside: what levels up to 16 ask for where they don't know the size.
const WINDOW_MAX: u64 = 4 << 20;
const ENCODE_WINDOW_LOG: u32 = 20;

thread_local! {
    /// A context is some 100 KiB to set up, more work than a small batch; each thread keeps one.
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

fn corrupt(what: impl Into<std::borrow::Cow<'static, str>>) -> CompressError {
    CompressError::Corrupt { codec: Compression::Zstd, what: what.into() }
}

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let start = out.len();
    out.resize(start + compress_bound(input.len()), 0);
    let n = ::zstd::bulk::compress_to_buffer(input, &mut out[start..], self::level(level)).map_err(|e| failed(&e))?;
    out.truncate(start + n);
    Ok(())
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let bound = frames(input)?.within(cap)?.size;
    decompress_whole(input, bound, cap, out)
}

fn decompress_whole(input: &[u8], bound: u64, cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let too_large = CompressError::TooLarge { codec: Compression::Zstd, cap };
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

/// What frame and block headers say about the output.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frames {
    /// Its size: what the frames state, or else what their blocks could hold.
    size: u64,
    /// Whether every frame states its size.
    exact: bool,
    /// The largest window.
    window: u64,
}

impl Frames {
    /// An error where the size is known and past `cap`.
    fn within(self, cap: usize) -> Result<Self, CompressError> {
        if self.exact && self.size > cap as u64 {
            return Err(CompressError::TooLarge { codec: Compression::Zstd, cap });
        }
        Ok(self)
    }
}

/// Chunks of zstd frames.
pub(super) enum Stream<'a> {
    /// All of it at once: its bound, and the cap on it.
    Whole(&'a [u8], u64, usize),
    /// In pieces, through the window that the decoder keeps.
    Pieces(DCtx<'static>, InBuffer<'a>),
    End,
}

impl<'a> Stream<'a> {
    pub(super) fn new(input: &'a [u8], limits: Limits) -> Result<Self, CompressError> {
        let frames = frames(input)?.within(limits.total)?;
        if frames.size <= WHOLE_MAX || frames.window > WINDOW_MAX {
            return Ok(Stream::Whole(input, frames.size, limits.window.min(limits.total)));
        }
        // Not the thread's context: that would keep the window.
        let mut context = DCtx::try_create().ok_or_else(|| corrupt("no memory for a decoder"))?;
        let set = context.set_parameter(DParameter::WindowLogMax(WINDOW_MAX.ilog2()));
        set.map_err(|code| corrupt(get_error_name(code)))?;
        Ok(Stream::Pieces(context, InBuffer::around(input)))
    }

    pub(super) fn advance(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressError> {
        match std::mem::replace(self, Stream::End) {
            Stream::Whole(input, bound, cap) => {
                out.clear();
                decompress_whole(input, bound, cap, out)?;
                Ok(true)
            }
            Stream::Pieces(mut context, mut input) => {
                out.resize(DCtx::out_size(), 0);
                let mut into = OutBuffer::around(&mut out[..]);
                loop {
                    let before = (input.pos, into.pos());
                    context.decompress_stream(&mut into, &mut input).map_err(|code| corrupt(get_error_name(code)))?;
                    if into.pos() == into.capacity() || before == (input.pos, into.pos()) {
                        break;
                    }
                }
                let n = into.pos();
                out.truncate(n);
                if n > 0 {
                    *self = Stream::Pieces(context, input);
                } else if input.pos < input.src.len() {
                    return Err(corrupt("decoding got stuck"));
                }
                // That the frames are whole was seen when their headers were walked.
                Ok(n > 0)
            }
            Stream::End => Ok(false),
        }
    }
}

/// An encoder for `size` bytes, with a window of at most 1 MiB: it runs per request, and its tables follow the window.
pub(super) fn encoder(
    level: Option<i32>,
    size: usize,
    out: Vec<u8>,
) -> Result<::zstd::Encoder<'static, Vec<u8>>, CompressError> {
    let level = self::level(level);
    let mut encoder = ::zstd::Encoder::new(out, level).map_err(|e| failed(&e))?;
    if level >= LEVEL_DEFAULT {
        encoder.window_log(ENCODE_WINDOW_LOG).map_err(|e| failed(&e))?;
    }
    encoder.set_pledged_src_size(Some(size as u64)).map_err(|e| failed(&e))?;
    Ok(encoder)
}

fn level(level: Option<i32>) -> i32 {
    level.unwrap_or(LEVEL_DEFAULT).clamp(-131_072, 22)
}

pub(super) fn failed(e: &std::io::Error) -> CompressError {
    CompressError::Encode { codec: Compression::Zstd, what: e.to_string() }
}

/// Walks all frames and blocks of `input` without decoding any.
fn frames(input: &[u8]) -> Result<Frames, CompressError> {
    if input.is_empty() {
        return Err(corrupt("no data"));
    }
    let mut rest = input;
    let mut all = Frames { size: 0, exact: true, window: 0 };
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
        let one = frame(&mut rest)?;
        all.exact &= one.exact;
        all.size = all.size.saturating_add(one.size);
        all.window = all.window.max(one.window);
    }
    Ok(all)
}

/// Takes a frame after its magic off `rest`.
fn frame(rest: &mut &[u8]) -> Result<Frames, CompressError> {
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
    // A single segment has no window of its own; its content is the window.
    let window = if single_segment { stated.unwrap_or(u64::MAX) } else { window };
    Ok(Frames { size: stated.unwrap_or(possible), exact: stated.is_some(), window })
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
