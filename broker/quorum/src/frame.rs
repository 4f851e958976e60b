//! Frames of the journal: magic, length, CRC-32C, kind, and how much of the file was durable when it was written.
//!
//! The last field tells a torn tail from damage. A crash may leave any subset of the not yet synced blocks on
//! disk, so a bad frame followed by good ones is no proof of damage by itself. But when a later frame says
//! "everything up to here was already durable" and the bad frame lies below that mark, durable bytes have changed.

use bytes::{BufMut, Bytes};

/// `KLQ1`, read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"KLQ1");
/// Bytes before the payload: magic 4, payload length 4, CRC 4, kind 1, durable position 8.
pub const HEADER: usize = 21;
/// No payload may be larger. Proposals are bounded far below; this bounds what a damaged length makes us read.
pub const PAYLOAD_MAX: usize = 64 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of each file: who owns it, the vote and the purge mark so far.
    Head = 1,
    /// A log entry.
    Entry = 2,
    /// A vote.
    Vote = 3,
    /// All entries from an index on are void.
    Truncate = 4,
    /// All entries up to a log id are in a snapshot.
    Purge = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Head, Self::Entry, Self::Vote, Self::Truncate, Self::Purge].into_iter().find(|k| *k as u8 == byte)
    }
}

/// A frame found in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    /// Bytes of this file that were durable when the frame was written.
    pub durable: u64,
    pub payload: Bytes,
}

/// Appends one frame to `out`; `fill` writes the payload.
pub fn put(out: &mut Vec<u8>, kind: Kind, durable: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(MAGIC);
    out.put_u64_le(0);
    out.put_u8(kind as u8);
    out.put_u64_le(durable);
    fill(out);
    let len = (out.len() - start - HEADER) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(len, &out[start + 12..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

/// The frame that begins at `at`, or why there is none.
pub fn get(file: &Bytes, at: usize) -> Result<Frame, &'static str> {
    let rest = file.get(at..).unwrap_or_default();
    if rest.len() < HEADER {
        return Err("file ends within a frame header");
    }
    let word = |i: usize| u32::from_le_bytes([rest[i], rest[i + 1], rest[i + 2], rest[i + 3]]);
    if word(0) != MAGIC {
        return Err("no frame begins here");
    }
    let len = word(4);
    if len as usize > PAYLOAD_MAX {
        return Err("impossible frame length");
    }
    let end = HEADER + len as usize;
    if rest.len() < end {
        return Err("file ends within a frame");
    }
    if word(8) != checksum(len, &rest[12..end]) {
        return Err("checksum mismatch");
    }
    let kind = Kind::from_byte(rest[12]).ok_or("unknown frame kind")?;
    let mut durable = [0; 8];
    durable.copy_from_slice(&rest[13..21]);
    Ok(Frame { kind, durable: u64::from_le_bytes(durable), payload: file.slice(at + HEADER..at + end) })
}

/// Whether some whole frame after the bad one at `bad` proves that the bytes there had been durable.
pub fn was_durable(file: &Bytes, bad: usize) -> bool {
    let magic = MAGIC.to_le_bytes();
    let mut at = bad + 1;
    while let Some(found) = file.get(at..).and_then(|rest| rest.windows(4).position(|w| w == magic)) {
        at += found;
        if let Ok(frame) = get(file, at) {
            if frame.durable > bad as u64 {
                return true;
            }
            at += HEADER + frame.payload.len();
        } else {
            at += 1;
        }
    }
    false
}

fn checksum(len: u32, body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&len.to_le_bytes());
    digest.update(body);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_and_every_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        put(&mut out, Kind::Vote, 7, |o| o.extend_from_slice(b"payload"));
        let whole = Bytes::from(out.clone());
        let frame = get(&whole, 0).unwrap();
        assert_eq!((frame.kind, frame.durable, &frame.payload[..]), (Kind::Vote, 7, &b"payload"[..]));
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(get(&Bytes::from(bad), 0).is_err(), "bit {bit}");
        }
        for cut in 0..out.len() {
            assert!(get(&whole.slice(..cut), 0).is_err());
        }
    }
}
