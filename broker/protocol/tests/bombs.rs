//! Compression bombs in every codec: decompressing to a cap takes about that much memory, wherever it is allocated.
//!
//! A program without a harness, since it looks at the peak of the whole process, C libraries included.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};

use klamm_protocol::compress::{CompressError, Compression, compress, decompress};

const BOMB: u64 = 512 << 20;
const CAP: usize = 8 << 20;
/// Codec state, page rounding, and what a growing buffer leaves behind.
const SLACK: usize = 4 << 20;

/// A size of this process from the system's books. `None` where it keeps none.
fn process_bytes(field: &str) -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
}

fn zeros() -> impl Read {
    io::repeat(0).take(BOMB)
}

type Bomb = (Compression, Vec<u8>);

fn bombs() -> Result<Vec<Bomb>, Box<dyn Error>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut zeros(), &mut gzip)?;

    let mut zstd = zstd::Encoder::new(Vec::new(), 1)?;
    io::copy(&mut zeros(), &mut zstd)?;

    // Framed snappy and lz4 are one block many times over, between a beginning and an end.
    let repeated = |codec, block: usize, head: usize, tail: usize| -> Result<Vec<u8>, CompressError> {
        let one = compress(codec, None, &vec![0; block])?;
        let mut all = one[..head].to_vec();
        for _ in 0..BOMB / block as u64 {
            all.write_all(&one[head..one.len() - tail])
                .map_err(|e| CompressError::Encode { codec, what: e.to_string() })?;
        }
        all.extend_from_slice(&one[one.len() - tail..]);
        Ok(all)
    };
    let snappy = repeated(Compression::Snappy, 32 << 10, 16, 0)?;
    let lz4 = repeated(Compression::Lz4, 64 << 10, 7, 4)?;

    // A frame that asks for the largest window a decoder takes, 2 GiB, and holds one byte.
    let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, b'x'];
    Ok(vec![
        (Compression::Gzip, gzip.finish()?),
        (Compression::Snappy, snappy),
        (Compression::Lz4, lz4),
        (Compression::Zstd, zstd.finish()?),
        (Compression::Zstd, window),
    ])
}

fn main() -> Result<(), Box<dyn Error>> {
    for (codec, bomb) in bombs()? {
        // Makes the peak start again from here; where that isn't allowed, the check is only weaker.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let before = process_bytes("VmRSS:");
        let result = decompress(codec, &bomb, CAP);
        let peak = process_bytes("VmHWM:");
        println!("{codec}: {} bytes, {result:?}, {before:?} -> {peak:?}", bomb.len());
        if bomb.len() > 100 {
            assert_eq!(result, Err(CompressError::TooLarge { codec, cap: CAP }));
        } else {
            assert_eq!(result, Ok(b"x".to_vec()));
        }
        if let (Some(before), Some(peak)) = (before, peak) {
            let took = peak.saturating_sub(before);
            assert!(took <= CAP + SLACK, "{codec} took {took} bytes for a cap of {CAP}");
        }
    }
    println!("bombs cost no more than the cap");
    Ok(())
}
