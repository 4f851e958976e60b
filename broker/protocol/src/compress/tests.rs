//! Round trips, damage, and bombs in every codec.

use std::io::Write;

use proptest::prelude::*;
use twox_hash::XxHash32;

use super::*;

const CODECS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Bytes that compress a little, from a seed.
fn text(len: usize, seed: u32) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|i| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 8 < 3 { b'a' + (x >> 29) as u8 } else { b"key-value-pairs "[i % 16] }
        })
        .collect()
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

#[test]
fn round_trips_at_sizes_around_block_bounds() {
    for codec in CODECS {
        for len in [0, 1, 100, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 300_000] {
            for data in [text(len, 7), noise(len), vec![0; len]] {
                let packed = compress(codec, None, &data).unwrap();
                assert_eq!(decompress(codec, &packed, len).unwrap(), data, "{codec} {len}");
                if len > 0 {
                    assert_eq!(
                        decompress(codec, &packed, len - 1),
                        Err(CompressError::TooLarge { codec, cap: len - 1 })
                    );
                }
            }
        }
    }
}

#[test]
fn every_level_is_taken_and_the_rest_clamped() {
    let data = text(50_000, 3);
    for codec in CODECS {
        for level in [i32::MIN, -1, 0, 1, 6, 9, 12, 22, i32::MAX] {
            let packed = compress(codec, Some(level), &data).unwrap();
            assert_eq!(decompress(codec, &packed, data.len()).unwrap(), data);
        }
        if codec == Compression::Gzip || codec == Compression::Zstd {
            let fast = compress(codec, Some(1), &data).unwrap();
            let best = compress(codec, codec.levels().map(|l| *l.end()), &data).unwrap();
            assert!(best.len() < fast.len(), "{codec}");
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    for codec in CODECS {
        for data in [text(700, 1), noise(300), vec![7; 90_000]] {
            let packed = compress(codec, None, &data).unwrap();
            for len in 0..packed.len() {
                match decompress(codec, &packed[..len], 1 << 20) {
                    Err(_) => {}
                    // A framed snappy stream has no end mark: cut between blocks it is a shorter stream, which the
                    // record count of the batch shows.
                    Ok(out) => {
                        assert_eq!(codec, Compression::Snappy, "{len} of {}", packed.len());
                        assert!(out.len() < data.len() && data.starts_with(&out));
                    }
                }
            }
        }
    }
}

#[test]
fn trailing_bytes_are_an_error() {
    for codec in CODECS {
        let mut packed = compress(codec, None, &text(700, 1)).unwrap();
        packed.push(0x55);
        assert!(decompress(codec, &packed, 1 << 20).is_err(), "{codec}");
    }
}

/// 64 MiB of zeros in each codec, as small as it gets.
fn bomb(codec: Compression) -> Vec<u8> {
    const SIZE: usize = 64 << 20;
    let megabyte = vec![0; 1 << 20];
    match codec {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            for _ in 0..SIZE >> 20 {
                encoder.write_all(&megabyte).unwrap();
            }
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            // The highest level whose window is set aside.
            let mut encoder = ::zstd::Encoder::new(Vec::new(), 16).unwrap();
            for _ in 0..SIZE >> 20 {
                encoder.write_all(&megabyte).unwrap();
            }
            encoder.finish().unwrap()
        }
        Compression::Snappy => {
            let one = compress(codec, None, &megabyte[..32 << 10]).unwrap();
            let mut all = one[..16].to_vec();
            for _ in 0..SIZE / (32 << 10) {
                all.extend_from_slice(&one[16..]);
            }
            all
        }
        Compression::Lz4 => {
            // Frame with 4 MiB blocks.
            let mut block = vec![0; lz4_flex::block::get_maximum_output_size(4 << 20)];
            let n = lz4_flex::block::compress_into(&vec![0; 4 << 20], &mut block).unwrap();
            let mut all = lz4_frame(0x60, 7 << 4, &[]);
            for _ in 0..SIZE / (4 << 20) {
                all.extend_from_slice(&(n as u32).to_le_bytes());
                all.extend_from_slice(&block[..n]);
            }
            all.extend_from_slice(&[0; 4]);
            all
        }
        Compression::None => unreachable!(),
    }
}

#[test]
fn bombs_cost_no_more_than_the_cap() {
    for codec in CODECS {
        let bomb = bomb(codec);
        for cap in [0, 1, 1_000, 100_000, 5_000_000] {
            let mut out = Vec::new();
            assert_eq!(
                decompress_into(codec, &bomb, cap, &mut out),
                Err(CompressError::TooLarge { codec, cap }),
                "{codec}"
            );
            assert!(out.capacity() <= cap.max(8), "{codec}: {} for a cap of {cap}", out.capacity());
        }
    }
}

#[test]
fn a_claimed_size_alone_reserves_nothing() {
    // Bare snappy block of 6 bytes that says it holds 100 MiB.
    let mut lie = vec![0x80, 0x80, 0x80, 0x32];
    lie.extend_from_slice(&[0, b'x']);
    let mut out = Vec::new();
    assert!(matches!(
        decompress_into(Compression::Snappy, &lie, 1 << 30, &mut out),
        Err(CompressError::Corrupt { .. })
    ));
    assert_eq!(out.capacity(), 0);
    // Zstd frame that asks for the largest window and has one tiny block.
    let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x09, 0x00, 0x00, b'x'];
    let mut out = Vec::new();
    let result = decompress_into(Compression::Zstd, &huge_window, 1 << 30, &mut out);
    assert!(out.capacity() <= 128 << 10);
    assert!(result.is_err() || out == b"x");
}

#[test]
fn a_kept_buffer_does_not_raise_the_cap() {
    for codec in CODECS {
        let packed = compress(codec, None, &vec![1; 10_000]).unwrap();
        let mut out = Vec::with_capacity(1 << 20);
        assert_eq!(
            decompress_into(codec, &packed, 9_999, &mut out),
            Err(CompressError::TooLarge { codec, cap: 9_999 })
        );
        decompress_into(codec, &packed, 10_000, &mut out).unwrap();
        assert_eq!(out, vec![1; 10_000]);
    }
}

/// An lz4 frame header with these flags, and `optional` fields before the checksum.
fn lz4_frame(flags: u8, block: u8, optional: &[u8]) -> Vec<u8> {
    let mut out = vec![0x04, 0x22, 0x4d, 0x18, flags, block];
    out.extend_from_slice(optional);
    out.push((XxHash32::oneshot(0, &out[4..]) >> 8) as u8);
    out
}

#[test]
fn lz4_frames_of_every_shape() {
    let data = [text(100_000, 5), vec![3; 100_000]].concat();
    for flags in [0x40, 0x44, 0x48, 0x50, 0x5c, 0x60, 0x64, 0x68, 0x70, 0x7c] {
        for (code, size) in [(4u8, 64usize << 10), (5, 256 << 10), (6, 1 << 20), (7, 4 << 20)] {
            let content_size = (data.len() as u64).to_le_bytes();
            let optional = if flags & 0x08 != 0 { &content_size[..] } else { &[] };
            let mut packed = lz4_frame(flags, code << 4, optional);
            for (i, block) in data.chunks(size).enumerate() {
                let mut buffer = vec![0; lz4_flex::block::get_maximum_output_size(block.len())];
                let before = &data[..i * size];
                let n = if flags & 0x20 != 0 {
                    lz4_flex::block::compress_into(block, &mut buffer).unwrap()
                } else {
                    let window = &before[before.len().saturating_sub(64 << 10)..];
                    lz4_flex::block::compress_into_with_dict(block, &mut buffer, window).unwrap()
                };
                packed.extend_from_slice(&(n as u32).to_le_bytes());
                packed.extend_from_slice(&buffer[..n]);
                if flags & 0x10 != 0 {
                    packed.extend_from_slice(&XxHash32::oneshot(0, &buffer[..n]).to_le_bytes());
                }
            }
            packed.extend_from_slice(&[0; 4]);
            if flags & 0x04 != 0 {
                packed.extend_from_slice(&XxHash32::oneshot(0, &data).to_le_bytes());
            }
            assert_eq!(decompress(Compression::Lz4, &packed, data.len()).unwrap(), data, "{flags:#x} {code}");
            let streamed = in_pieces(Compression::Lz4, &packed, Limits::both(data.len()));
            assert_eq!(streamed.unwrap().0, data, "{flags:#x} {code}");
            let flipped = packed.len() - 6;
            packed[flipped] ^= 1;
            if flags & 0x14 != 0 {
                assert!(decompress(Compression::Lz4, &packed, data.len()).is_err());
            }
        }
    }
}

#[test]
fn snappy_bare_blocks_and_repeated_streams() {
    let data = text(200_000, 9);
    let bare = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(decompress(Compression::Snappy, &bare, data.len()).unwrap(), data);
    let framed = compress(Compression::Snappy, None, &data).unwrap();
    let twice = [framed.clone(), framed].concat();
    assert_eq!(decompress(Compression::Snappy, &twice, 2 * data.len()).unwrap(), data.repeat(2));
}

#[test]
fn gzip_members_and_zstd_frames_back_to_back() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let parts = [text(5_000, 1), text(70_000, 2)];
        let packed = parts.iter().map(|part| compress(codec, None, part).unwrap()).collect::<Vec<_>>().concat();
        assert_eq!(decompress(codec, &packed, 75_000).unwrap(), parts.concat());
        assert_eq!(in_pieces(codec, &packed, Limits::both(75_000)).unwrap().0, parts.concat());
        assert!(decompress(codec, &packed, 74_999).is_err());
    }
}

#[test]
fn zstd_streams_without_a_content_size() {
    for level in [1, 3, 19, 22] {
        for data in [text(1_000, 1), text(500_000, 1), vec![0; 2 << 20]] {
            let mut encoder = ::zstd::Encoder::new(Vec::new(), level).unwrap();
            for chunk in data.chunks(10_000) {
                encoder.write_all(chunk).unwrap();
                encoder.flush().unwrap();
            }
            let packed = encoder.finish().unwrap();
            assert_eq!(decompress(Compression::Zstd, &packed, data.len()).unwrap(), data);
            assert_eq!(in_pieces(Compression::Zstd, &packed, Limits::both(data.len())).unwrap().0, data);
            assert!(decompress(Compression::Zstd, &packed, data.len() - 1).is_err());
        }
    }
}

#[test]
fn codec_numbers_and_names() {
    for codec in Compression::ALL {
        assert_eq!(Compression::from_id(codec.id()), Ok(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
    }
    assert_eq!(Compression::from_id(5), Err(CompressError::UnknownCodec(5)));
    assert!("lzma".parse::<Compression>().is_err());
}

/// All chunks of a stream, and the largest allocation on the way.
fn in_pieces(codec: Compression, packed: &[u8], limits: Limits) -> Result<(Vec<u8>, usize), CompressError> {
    let mut decoder = Decoder::new(codec, packed, limits)?;
    let (mut all, mut most) = (Vec::new(), 0);
    while decoder.advance()? {
        all.extend_from_slice(decoder.chunk());
        most = most.max(decoder.chunk().len());
    }
    assert!(!decoder.advance()?, "{codec}: the end is the end");
    Ok((all, most))
}

#[test]
fn streams_give_what_was_put_in_at_any_size() {
    for codec in Compression::ALL {
        for len in [0, 1, 32_768, 65_536, 65_537, 700_000, 3 << 20] {
            for data in [text(len, 7), noise(len), vec![0; len]] {
                let mut encoder = Encoder::new(codec, None, len, b"before".to_vec()).unwrap();
                data.chunks(50_001).for_each(|piece| encoder.write(piece).unwrap());
                let packed = encoder.finish().unwrap();
                let packed = packed.strip_prefix(b"before").unwrap();
                if codec != Compression::None {
                    assert!(len < 3 << 20 || data[1] != 0 || packed.len() < len / 10, "{codec} compresses");
                    assert_eq!(decompress(codec, packed, len).unwrap(), data, "{codec} {len}");
                }
                let limits = Limits { total: len, window: 4 << 20 };
                assert_eq!(in_pieces(codec, packed, limits).unwrap().0, data, "{codec} {len}");
                if len > 0 {
                    assert!(in_pieces(codec, packed, Limits { total: len - 1, ..limits }).is_err(), "{codec} {len}");
                }
            }
        }
    }
}

#[test]
fn bombs_are_read_through_a_window() {
    for codec in CODECS {
        let packed = bomb(codec);
        let limits = Limits { total: 64 << 20, window: 4 << 20 };
        let mut decoder = Decoder::new(codec, &packed, limits).unwrap();
        let mut total = 0;
        while decoder.advance().unwrap() {
            total += decoder.chunk().len();
            assert!(decoder.chunk().len() <= limits.window, "{codec}");
        }
        assert_eq!(total, limits.total, "{codec}");
        let less = Limits { total: limits.total - 1, ..limits };
        assert_eq!(in_pieces(codec, &packed, less), Err(CompressError::TooLarge { codec, cap: less.total }));
    }
}

#[test]
fn what_has_to_be_held_whole_meets_the_window() {
    let data = text(5 << 20, 9);
    let bare = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    // A frame whose window is its whole content.
    let zstd = ::zstd::bulk::compress(&data, 22).unwrap();
    for (codec, packed) in [(Compression::Snappy, bare), (Compression::Zstd, zstd)] {
        let limits = Limits { total: 100 << 20, window: data.len() };
        assert_eq!(in_pieces(codec, &packed, limits).unwrap().0, data, "{codec}");
        let less = Limits { window: data.len() - 1, ..limits };
        assert_eq!(in_pieces(codec, &packed, less), Err(CompressError::TooLarge { codec, cap: less.window }));
    }
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(CODECS.to_vec())
}

proptest! {
    #[test]
    fn any_bytes_come_back(codec in codec(), data in prop::collection::vec(any::<u8>(), 0..5_000), repeat in 1usize..40) {
        let data = data.repeat(repeat);
        let packed = compress(codec, None, &data).unwrap();
        prop_assert_eq!(decompress(codec, &packed, data.len()).unwrap(), data);
    }

    #[test]
    fn damage_never_panics_nor_passes_the_cap(
        codec in codec(),
        len in 0usize..100_000,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cap in 0usize..150_000,
    ) {
        let mut packed = compress(codec, None, &text(len, 11)).unwrap();
        for (at, byte) in damage {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        let mut out = Vec::new();
        let whole = decompress_into(codec, &packed, cap, &mut out);
        prop_assert!(out.len() <= cap && out.capacity() <= cap.max(8));
        // Piece by piece, the same is accepted.
        let pieces = in_pieces(codec, &packed, Limits::both(cap));
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let Ok((pieces, _)) = pieces {
            prop_assert_eq!(pieces, out);
        }
    }

    #[test]
    fn garbage_never_panics(codec in codec(), start in 0usize..3, garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        // With a valid beginning, to get past the magic.
        let mut packed = compress(codec, None, &text(100, 1)).unwrap();
        packed.truncate([0, 7, 16][start].min(packed.len()));
        packed.extend_from_slice(&garbage);
        let mut out = Vec::new();
        let _ = decompress_into(codec, &packed, 50_000, &mut out);
        prop_assert!(out.capacity() <= 50_000);
    }
}
