//! Free TCP ports on the loopback address.
//!
//! Taken below the range from which the kernel draws the local ports of outgoing connections, so that no client
//! grabs one between the probe and the broker's bind. `KLAMM_TEST_PORTS=FROM-TO` narrows the range.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nothing listens on, different at each call.
#[track_caller]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (from, to) = range();
    let size = u32::from(to - from) + 1;
    let start = std::process::id().wrapping_mul(61);
    for _ in 0..size {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = from + u16::try_from(start.wrapping_add(n) % size).expect("within the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {from} and {to}");
}

fn range() -> (u16, u16) {
    std::env::var("KLAMM_TEST_PORTS")
        .ok()
        .and_then(|r| {
            let (from, to) = r.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        })
        .unwrap_or((12_000, 31_000))
}
