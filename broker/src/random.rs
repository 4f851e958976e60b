//! The one place where the broker draws random numbers. Everything below it gets them as arguments.

use klamm_protocol::Uuid;

/// The kernel's random numbers.
#[derive(Debug, Default)]
pub struct Random;

impl Random {
    /// Sixteen random bytes.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0u8; 16];
        // With 16 bytes the call neither blocks nor comes up short once the kernel's pool is seeded,
        // and it is seeded long before a process like this one starts.
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        assert!(got == Ok(bytes.len()), "the kernel gave no random numbers: {got:?}");
        bytes
    }

    /// A random (version 4) UUID; never zero.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = self.bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// A number from 1 to `i32::MAX`.
    pub fn positive_i32(&self) -> i32 {
        let [a, b, c, d, ..] = self.bytes();
        (i32::from_be_bytes([a, b, c, d]) & i32::MAX).max(1)
    }

    /// Any 64 bits.
    pub fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
