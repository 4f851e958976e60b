//! Memory that clients can make the broker hold for requests that are still on their way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use klamm_tests::unique;
use klamm_tests::wire::header;

use crate::batch::{plain, produce};
use crate::fixture::{Fate, Target};

const MIB: usize = 1 << 20;
const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const KLAMM_QUORUM: i16 = 10_000;

/// The first bytes of a frame of `size` bytes.
fn beginning(size: usize, key: i16, version: i16) -> Vec<u8> {
    let mut bytes = i32::try_from(size).expect("a frame's size").to_be_bytes().to_vec();
    bytes.extend_from_slice(&header(key, version, 9));
    bytes
}

#[test]
fn half_sent_frames_of_many_connections_share_a_budget() {
    const CONNECTIONS: usize = 50;
    let target = Target::frugal("20 of 50 MB from each of 50 connections");
    if !target.is_klamm() {
        return;
    }
    let topic = unique("budget");
    target.topic(&topic, &[]);
    let (small, large) = (plain(&[&[7; 1_000]]), plain(&[&[7; 900_000]]));
    let quiet = Instant::now();
    assert_eq!((produce(&target, &topic, &small), produce(&target, &topic, &large)), (Some(0), Some(0)));
    let quiet = quiet.elapsed();
    let over = AtomicBool::new(false);
    let mut slowest = Duration::ZERO;
    let mut rounds = 0;
    let closed = std::thread::scope(|scope| {
        let hostile: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (target, over) = (&target, &over);
                scope.spawn(move || {
                    let mut connection = target.connect_for(Duration::from_millis(500));
                    let mut sent = connection.send_raw(&beginning(50 * MIB, PRODUCE, 9));
                    for _ in 0..20 {
                        // Not read from, the connection takes no more at some point.
                        sent = sent.and_then(|()| connection.send_raw(&vec![0; MIB]));
                    }
                    // Held open until the end, or until the broker has enough of it.
                    loop {
                        let fate = Fate::of(connection.receive());
                        if fate != Fate::Silent || over.load(Ordering::Relaxed) {
                            return fate == Fate::Closed;
                        }
                    }
                })
            })
            .collect();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(12) {
            let round = Instant::now();
            assert_eq!(produce(&target, &topic, &small), Some(0), "an honest producer goes on");
            assert_eq!(produce(&target, &topic, &large), Some(0), "so does one with large batches");
            slowest = slowest.max(round.elapsed());
            rounds += 1;
        }
        over.store(true, Ordering::Relaxed);
        hostile.into_iter().map(|h| h.join().expect("a hostile client")).filter(|closed| *closed).count()
    });
    let rise = target.rise();
    println!(
        "figures: {CONNECTIONS} half-sent frames of 50 MB: RSS +{rise:.1} MiB of a budget of 32, {closed} closed; \
         {rounds} rounds of an honest producer, slowest {slowest:?}, before {quiet:?}"
    );
    // The budget, one frame that may pass it, and what the honest rounds and the sockets take.
    assert!(rise <= 32.0 + 20.0 + 2.0 + 14.0, "RSS +{rise:.1} MiB");
    assert!(closed > 0, "who holds memory and sends nothing is closed");
    assert!(slowest < Duration::from_secs(2) + 10 * quiet, "{slowest:?} for an honest round");
    target.unharmed(CONNECTIONS);
}

#[test]
fn a_frame_larger_than_the_budget_is_taken_all_the_same() {
    let target = Target::frugal("a frame of 40 MB and a budget of 32");
    let topic = unique("large-frame");
    target.topic(&topic, &[("max.message.bytes", "50000000")]);
    for _ in 0..3 {
        assert_eq!(produce(&target, &topic, &plain(&[&vec![7; 40 * MIB]])), Some(0));
    }
    // 40 MB of an honest producer; the limit for hostile connections is counted over as many.
    target.unharmed(10);
}

#[test]
fn a_frame_larger_than_its_key_can_need_is_refused_at_once() {
    let target = Target::new("frames too large for their key");
    if !target.is_klamm() {
        return;
    }
    for (key, version, size) in
        [(METADATA, 9, 7 * MIB), (API_VERSIONS, 3, MIB), (API_VERSIONS, 3, 50 * MIB), (KLAMM_QUORUM, 0, 19 * MIB)]
    {
        let mut connection = target.connect();
        connection.send_raw(&beginning(size, key, version)).expect("the beginning is sent");
        assert_eq!(Fate::of(connection.receive()), Fate::Closed, "{size} bytes with key {key}");
    }
    target.unharmed(3);
}
