//! Gzip through flate2: one or more members back to back, checksum and length of each verified.

use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::stream::CHUNK;
use super::{CompressError, Compression, grow};

/// First guess at the size of the output; it only saves growing in small steps.
const STEP_MIN: usize = 4 * 1024;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut encoder = GzEncoder::new(out, self::level(level));
    encoder.write_all(input).and_then(|()| encoder.try_finish()).map_err(|e| failed(&e))
}

pub(super) fn level(level: Option<i32>) -> flate2::Compression {
    match level {
        None | Some(-1) => flate2::Compression::default(),
        Some(level) => flate2::Compression::new(level.clamp(1, 9) as u32),
    }
}

pub(super) fn failed(e: &std::io::Error) -> CompressError {
    CompressError::Encode { codec: Compression::Gzip, what: e.to_string() }
}

pub(super) fn decompress(input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let mut decoder = MultiGzDecoder::new(input);
    let mut filled = 0;
    loop {
        if filled == out.len() {
            if filled == cap {
                // Full. Fine if the stream ends here too; one byte more is too much.
                return match read(&mut decoder, &mut [0])? {
                    0 => Ok(()),
                    _ => Err(CompressError::TooLarge { codec: Compression::Gzip, cap }),
                };
            }
            let step = filled.max(4 * input.len()).max(STEP_MIN);
            grow(out, step.min(cap - filled), cap);
        }
        match read(&mut decoder, &mut out[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    out.truncate(filled);
    Ok(())
}

fn read(decoder: &mut MultiGzDecoder<&[u8]>, into: &mut [u8]) -> Result<usize, CompressError> {
    decoder.read(into).map_err(|e| CompressError::Corrupt { codec: Compression::Gzip, what: e.to_string().into() })
}

/// Chunks of a gzip stream. The decoder keeps 32 KiB to look back.
pub(super) struct Stream<'a>(MultiGzDecoder<&'a [u8]>);

impl<'a> Stream<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self(MultiGzDecoder::new(input))
    }

    pub(super) fn advance(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressError> {
        out.resize(CHUNK, 0);
        let n = read(&mut self.0, out)?;
        out.truncate(n);
        Ok(n > 0)
    }
}
