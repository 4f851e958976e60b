//! Which partition a record goes to: by its key's hash exactly as Kafka's Java producer does, so that
//! records of one key meet in one partition whoever produced them; without a key, sticky.

use std::collections::HashMap;

use crate::client::random_u32;

/// The partition of a record with a key.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

/// Keeps records without a key on one partition until its batch is full, then moves on at random:
/// few full batches instead of many small ones.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: HashMap<String, i32>,
}

impl Sticky {
    /// The topic's current partition.
    pub(crate) fn partition(&mut self, topic: &str, partitions: i32) -> i32 {
        match self.current.get(topic) {
            Some(&current) if current < partitions => current,
            _ => self.advance(topic, partitions),
        }
    }

    /// Chooses another partition, since a batch of the current one was closed.
    pub(crate) fn advance(&mut self, topic: &str, partitions: i32) -> i32 {
        let count = u32::try_from(partitions.max(1)).unwrap_or(1);
        let mut chosen = (random_u32() % count) as i32;
        if self.current.get(topic) == Some(&chosen) && count > 1 {
            chosen = (chosen + 1) % partitions;
        }
        self.current.insert(topic.to_owned(), chosen);
        chosen
    }
}

/// 32-bit murmur2 with the seed the Java client uses.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let (words, tail) = data.as_chunks::<4>();
    let mut h = SEED ^ data.len() as u32;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn every_key_has_a_partition_in_range() {
        for length in 0..64 {
            let partition = partition_of_key(&vec![0xff; length], 7);
            assert!((0..7).contains(&partition));
        }
        assert_eq!(partition_of_key(b"x", 0), 0);
    }

    #[test]
    fn sticky_stays_and_then_moves() {
        let mut sticky = Sticky::default();
        let first = sticky.partition("t", 3);
        assert_eq!(sticky.partition("t", 3), first);
        assert_ne!(sticky.advance("t", 3), first);
        assert_eq!(sticky.partition("t", 1), 0);
    }
}
