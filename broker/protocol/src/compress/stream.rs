//! Compression and decompression piece by piece, for bytes that are looked at or passed on but never kept.
//!
//! A [`Decoder`] holds one chunk of output and what its codec needs to look back, so a batch that unpacks to hundreds
//! of MiB costs a few. An [`Encoder`] takes pieces of any size. Invariant: neither's memory grows with the number of
//! bytes that pass through, except for the encoder's output.

use std::io::Write;

use flate2::write::GzEncoder;

use super::{CompressError, Compression, gzip, lz4, snappy, zstd};

/// Bytes per chunk where the codec leaves the choice.
pub(super) const CHUNK: usize = 64 * 1024;

/// What decompressing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of output in all.
    pub total: usize,
    /// Most bytes held at once. Only matters for what can't be unpacked in pieces: a bare snappy block, or a zstd
    /// frame with a window of more than 4 MiB.
    pub window: usize,
}

impl Limits {
    /// Where one bound is enough.
    pub fn both(bytes: usize) -> Limits {
        Limits { total: bytes, window: bytes }
    }
}

/// Decompresses in chunks.
pub struct Decoder<'a> {
    codec: Compression,
    kind: Kind<'a>,
    cap: usize,
    total: usize,
    chunk: Vec<u8>,
}

enum Kind<'a> {
    Stored(std::slice::Chunks<'a, u8>),
    Gzip(gzip::Stream<'a>),
    Snappy(snappy::Stream<'a>),
    Lz4(lz4::Stream<'a>),
    Zstd(zstd::Stream<'a>),
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `input`.
    ///
    /// # Errors
    /// The input's first bytes or announced sizes are already wrong.
    pub fn new(codec: Compression, input: &'a [u8], limits: Limits) -> Result<Decoder<'a>, CompressError> {
        let kind = match codec {
            Compression::None => Kind::Stored(input.chunks(CHUNK)),
            Compression::Gzip => Kind::Gzip(gzip::Stream::new(input)),
            Compression::Snappy => Kind::Snappy(snappy::Stream::new(input, limits)),
            Compression::Lz4 => Kind::Lz4(lz4::Stream::new(input, limits)?),
            Compression::Zstd => Kind::Zstd(zstd::Stream::new(input, limits)?),
        };
        Ok(Decoder { codec, kind, cap: limits.total, total: 0, chunk: Vec::new() })
    }

    /// Decodes the next chunk, which [`Decoder::chunk`] then gives; false at the end of the input. Chunks may be empty.
    ///
    /// # Errors
    /// The input is damaged or cut off, or there is more in it than allowed.
    pub fn advance(&mut self) -> Result<bool, CompressError> {
        let out = &mut self.chunk;
        let more = match &mut self.kind {
            Kind::Stored(chunks) => {
                out.clear();
                chunks.next().map(|chunk| out.extend_from_slice(chunk)).is_some()
            }
            Kind::Gzip(stream) => stream.advance(out)?,
            Kind::Snappy(stream) => stream.advance(out)?,
            Kind::Lz4(stream) => stream.advance(out)?,
            Kind::Zstd(stream) => stream.advance(out)?,
        };
        if !more {
            out.clear();
        }
        self.total += out.len();
        if self.total > self.cap {
            return Err(CompressError::TooLarge { codec: self.codec, cap: self.cap });
        }
        Ok(more)
    }

    /// The chunk decoded last.
    pub fn chunk(&self) -> &[u8] {
        &self.chunk
    }
}

/// Compresses in pieces.
pub struct Encoder(Kinds);

enum Kinds {
    Stored(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Blocks),
    Lz4(Blocks),
    Zstd(Box<::zstd::Encoder<'static, Vec<u8>>>),
}

/// For codecs that compress block by block.
struct Blocks {
    out: Vec<u8>,
    pending: Vec<u8>,
    size: usize,
    compress: fn(&[u8], &mut Vec<u8>) -> Result<(), CompressError>,
}

impl Blocks {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), CompressError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.size - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == self.size {
                self.block()?;
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Result<(), CompressError> {
        (self.compress)(&self.pending, &mut self.out)?;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, CompressError> {
        if !self.pending.is_empty() {
            self.block()?;
        }
        Ok(self.out)
    }
}

impl Encoder {
    /// An encoder that appends to `out`. `level` as in [`super::compress`]; `size` is how many bytes will be written.
    ///
    /// # Errors
    /// The compressor can't be set up.
    pub fn new(
        codec: Compression,
        level: Option<i32>,
        size: usize,
        mut out: Vec<u8>,
    ) -> Result<Encoder, CompressError> {
        Ok(Encoder(match codec {
            Compression::None => Kinds::Stored(out),
            Compression::Gzip => Kinds::Gzip(GzEncoder::new(out, gzip::level(level))),
            Compression::Snappy => {
                snappy::begin(&mut out);
                Kinds::Snappy(Blocks {
                    out,
                    pending: Vec::new(),
                    size: snappy::BLOCK,
                    compress: snappy::compress_block,
                })
            }
            Compression::Lz4 => {
                lz4::begin(&mut out);
                Kinds::Lz4(Blocks { out, pending: Vec::new(), size: lz4::WRITE_BLOCK, compress: lz4::compress_block })
            }
            Compression::Zstd => Kinds::Zstd(Box::new(zstd::encoder(level, size, out)?)),
        }))
    }

    /// Compresses more bytes.
    ///
    /// # Errors
    /// The compressor's own.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        match &mut self.0 {
            Kinds::Stored(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Kinds::Gzip(encoder) => encoder.write_all(bytes).map_err(|e| gzip::failed(&e)),
            Kinds::Snappy(blocks) | Kinds::Lz4(blocks) => blocks.write(bytes),
            Kinds::Zstd(encoder) => encoder.write_all(bytes).map_err(|e| zstd::failed(&e)),
        }
    }

    /// Bytes of output so far, those included that were there before.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kinds::Stored(out) => out.len(),
            Kinds::Gzip(encoder) => encoder.get_ref().len(),
            Kinds::Snappy(blocks) | Kinds::Lz4(blocks) => blocks.out.len(),
            Kinds::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Whether there is no output yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the stream and gives the whole output.
    ///
    /// # Errors
    /// The compressor's own.
    pub fn finish(self) -> Result<Vec<u8>, CompressError> {
        match self.0 {
            Kinds::Stored(out) => Ok(out),
            Kinds::Gzip(encoder) => encoder.finish().map_err(|e| gzip::failed(&e)),
            Kinds::Snappy(blocks) => blocks.finish(),
            Kinds::Lz4(blocks) => {
                let mut out = blocks.finish()?;
                lz4::end(&mut out);
                Ok(out)
            }
            Kinds::Zstd(encoder) => encoder.finish().map_err(|e| zstd::failed(&e)),
        }
    }
}
