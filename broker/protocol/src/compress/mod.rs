//! The four codecs of record batches: gzip, snappy, lz4, zstd, each in the framing that Kafka's clients use.
//!
//! Decompression takes a hard cap on its output. Buffers grow with the data, never past the cap, and a stream that
//! would go on is an error at that point: a few hostile bytes can't cost more memory than the caller allowed.

mod gzip;
mod lz4;
mod snappy;
mod stream;
mod zstd;

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use stream::{Decoder, Encoder, Limits};

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of snappy-java ("xerial"); a single bare block is read too.
    Snappy,
    /// One lz4 frame.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// The attributes of a batch name a codec that doesn't exist.
    #[error("compression codec {0} is unknown")]
    UnknownCodec(u8),
    /// The output passes the cap.
    #[error("{codec} data decompresses to more than the {cap} bytes allowed")]
    TooLarge {
        /// The codec in use.
        codec: Compression,
        /// The cap that was given.
        cap: usize,
    },
    /// The compressed bytes are damaged or cut off.
    #[error("{codec} data is damaged: {what}")]
    Corrupt {
        /// The codec in use.
        codec: Compression,
        /// What is wrong with it.
        what: Cow<'static, str>,
    },
    /// The compressor failed, which well-formed input and levels don't cause.
    #[error("{codec} compression failed: {what}")]
    Encode {
        /// The codec in use.
        codec: Compression,
        /// What the compressor said.
        what: String,
    },
}

impl Compression {
    /// Every codec, by its number.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The number in a batch's attributes.
    pub fn id(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec of this number.
    pub fn from_id(id: u8) -> Result<Compression, CompressError> {
        Compression::ALL.into_iter().find(|codec| codec.id() == id).ok_or(CompressError::UnknownCodec(id))
    }

    /// The name in configurations and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The levels that `compression.*.level` takes, as in Kafka. Gzip also takes -1, its default.
    pub fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Compression::None | Compression::Snappy => None,
            Compression::Gzip => Some(1..=9),
            Compression::Lz4 => Some(1..=17),
            Compression::Zstd => Some(-131_072..=22),
        }
    }

    /// The level used where none is configured, as in Kafka.
    pub fn default_level(self) -> Option<i32> {
        match self {
            Compression::None | Compression::Snappy => None,
            Compression::Gzip => Some(-1),
            Compression::Lz4 => Some(9),
            Compression::Zstd => Some(3),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| format!("{name:?} is not a compression codec; it is none, gzip, snappy, lz4 or zstd"))
    }
}

/// Compresses `input` at `level`, or at the codec's default. Levels outside of the codec's range count as the nearest
/// one in it. The lz4 encoder has a single, fast level and takes no notice.
pub fn compress(codec: Compression, level: Option<i32>, input: &[u8]) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    compress_into(codec, level, input, &mut out)?;
    Ok(out)
}

/// As [`compress`], appending to `out`. After an error `out` has its old length.
pub fn compress_into(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressError> {
    let start = out.len();
    let result = match codec {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::compress(level, input, out),
        Compression::Snappy => snappy::compress(input, out),
        Compression::Lz4 => lz4::compress(input, out),
        Compression::Zstd => zstd::compress(level, input, out),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Decompresses all of `input` to at most `cap` bytes.
pub fn decompress(codec: Compression, input: &[u8], cap: usize) -> Result<Vec<u8>, CompressError> {
    let mut out = Vec::new();
    decompress_into(codec, input, cap, &mut out)?;
    // Slices of it may live long, and the first guess at its size is generous.
    if out.capacity() / 2 > out.len() {
        out.shrink_to_fit();
    }
    Ok(out)
}

/// As [`decompress`], into a buffer that keeps its allocation from call to call; what it held is lost. After an error
/// it is empty.
pub fn decompress_into(codec: Compression, input: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    out.clear();
    let result = match codec {
        Compression::None if input.len() > cap => Err(CompressError::TooLarge { codec, cap }),
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::decompress(input, cap, out),
        Compression::Snappy => snappy::decompress(input, cap, out),
        Compression::Lz4 => lz4::decompress(input, cap, out),
        Compression::Zstd => zstd::decompress(input, cap, out),
    };
    if result.is_err() {
        out.clear();
    }
    result
}

/// Makes `out` longer by `more` zero bytes, which the caller has checked against `cap`. Doubles the allocation as it
/// goes, but not past the cap, as `Vec` would.
fn grow(out: &mut Vec<u8>, more: usize, cap: usize) {
    let needed = out.len() + more;
    if needed > out.capacity() {
        let target = (2 * out.capacity()).min(cap).max(needed);
        out.reserve_exact(target - out.len());
    }
    out.resize(needed, 0);
}

#[cfg(test)]
mod tests;
