//! Arbitrary messages for tests: every field that a version has gets a value, edge cases included.

use bytes::Bytes;

use crate::{
    types::{Records, Uuid},
    wire::Wire,
};

/// A source of arbitrary values, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Sampler {
    state: u64,
    depth: u32,
}

impl Sampler {
    /// A source for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, depth: 0 }
    }

    /// 64 arbitrary bits (splitmix64).
    pub fn u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An arbitrary number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.u64() % n.max(1)
    }

    /// A number: small, extreme or anything.
    pub fn i64(&mut self) -> i64 {
        match self.below(8) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 => self.below(300) as i64,
            _ => self.u64() as i64,
        }
    }

    /// A number.
    pub fn i32(&mut self) -> i32 {
        match self.below(8) {
            0 => i32::MAX,
            1 => i32::MIN,
            _ => self.i64() as i32,
        }
    }

    /// A number.
    pub fn i16(&mut self) -> i16 {
        self.i32() as i16
    }

    /// A number.
    pub fn i8(&mut self) -> i8 {
        self.i32() as i8
    }

    /// A number.
    pub fn u16(&mut self) -> u16 {
        self.i32() as u16
    }

    /// A number.
    pub fn u32(&mut self) -> u32 {
        self.i32() as u32
    }

    /// A number, never NaN, so that equality means something.
    pub fn f64(&mut self) -> f64 {
        self.i32() as f64 / 16.0
    }

    /// True or false.
    pub fn bool(&mut self) -> bool {
        self.below(2) == 1
    }

    /// A UUID, sometimes zero.
    pub fn uuid(&mut self) -> Uuid {
        if self.below(6) == 0 {
            return Uuid::ZERO;
        }
        let high = u128::from(self.u64());
        Uuid((high << 64 | u128::from(self.u64())).to_be_bytes())
    }

    /// Text, sometimes empty, sometimes longer than one length byte can say, not only ASCII.
    pub fn string(&mut self) -> String {
        let len = self.len();
        let chars = ['a', 'Z', '0', '-', '.', 'ß', '語', '🦀'];
        (0..len).map(|_| chars[self.below(8) as usize]).collect()
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Bytes {
        let len = self.len();
        (0..len).map(|_| self.u64() as u8).collect()
    }

    /// Bytes in the place of record batches.
    pub fn records(&mut self) -> Records {
        Records::Bytes(self.bytes())
    }

    fn len(&mut self) -> u64 {
        match self.below(10) {
            0 => 0,
            1 => 100 + self.below(200),
            _ => self.below(12),
        }
    }

    /// A few values; fewer the deeper they lie.
    pub fn vec<T: Wire>(&mut self, version: i16) -> Vec<T> {
        let most = match self.depth {
            0 => 4,
            1 => 3,
            _ => 2,
        };
        let len = self.below(most + 1);
        self.depth += 1;
        let items = (0..len).map(|_| T::sample(self, version)).collect();
        self.depth -= 1;
        items
    }

    /// A value or, one time in four, null.
    pub fn opt<T: Wire>(&mut self, version: i16, nullable: bool) -> Option<T> {
        if nullable && self.below(4) == 0 { None } else { Some(T::sample(self, version)) }
    }
}

/// Called once for every message, see [`crate::messages::for_each`].
pub trait Visitor {
    /// A message and, when it is a request or response, its key.
    fn message<M: crate::Message + Clone + PartialEq + std::fmt::Debug>(&mut self, kind: Kind);
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request(crate::ApiKey),
    /// The response to a request.
    Response(crate::ApiKey),
    /// Not an RPC: a record, a marker, a file's content.
    Data,
}

impl Kind {
    /// Whether the message is none of Kafka's.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Request(key) | Self::Response(key) if key.is_private())
    }
}
