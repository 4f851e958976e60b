//! Bytes from an enemy: decoding ends without a panic and allocates no more than the reader's budget.
//!
//! A program without a harness, since the allocator counts the whole process.

use std::alloc::System;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::{
    Message,
    header::RequestHeader,
    messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, for_each},
    sample::{Kind, Sampler, Visitor},
    wire::{DecodeErrorKind, Reader},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// An error, and rounding.
const SLACK: usize = 256;

fn decode<M: Message>(bytes: &Bytes, version: i16, budget: usize) -> Option<M> {
    let mut r = Reader::with_budget(bytes.clone(), budget);
    let region = Region::new(ALLOCATOR);
    let result = M::decode(&mut r, version);
    let allocated = region.change().bytes_allocated;
    let charged = budget - r.budget();
    assert!(allocated <= charged + SLACK, "{} v{version}: {allocated} bytes allocated, {charged} charged", M::NAME);
    result.ok()
}

/// Random bytes, and valid ones with some of their bytes changed.
struct Random(u64);

impl Visitor for Random {
    fn message<M: Message + Clone + PartialEq + std::fmt::Debug>(&mut self, _: Kind) {
        for version in M::MIN_VERSION..=M::MAX_VERSION {
            let mut s = Sampler::new(self.0 ^ version as u64);
            let len = s.below(200);
            let noise: Bytes = (0..len).map(|_| s.u64() as u8).collect();
            decode::<M>(&noise, version, 4096);
            let Ok(valid) = M::sample(&mut s, version).to_bytes(version) else {
                panic!("{} v{version} has no bytes", M::NAME);
            };
            for _ in 0..8 {
                let mut bytes = BytesMut::from(&valid[..]);
                for _ in 0..1 + s.below(3) {
                    if !bytes.is_empty() {
                        let at = s.below(bytes.len() as u64) as usize;
                        bytes[at] = if s.bool() { 0xff } else { s.u64() as u8 };
                    }
                }
                decode::<M>(&bytes.freeze(), version, 16 * 1024);
            }
            if !valid.is_empty() {
                // The biggest count, length or size in the place of every byte.
                for at in 0..valid.len().min(64) {
                    for hostile in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x07]] {
                        let mut bytes = BytesMut::from(&valid[..at]);
                        bytes.put_slice(hostile);
                        bytes.put_slice(&valid[at..]);
                        decode::<M>(&bytes.freeze(), version, 16 * 1024);
                    }
                }
            }
        }
    }
}

fn a_million_unknown_tags_cost_no_memory() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[1, 1]); // two empty compact strings
    bytes.put_slice(&[0xc0, 0x84, 0x3d]); // 1,000,000 tags
    for _ in 0..1_000_000 {
        bytes.put_slice(&[0xff, 0x01, 0]); // tag 255, no bytes
    }
    let bytes = bytes.freeze();
    let region = Region::new(ALLOCATOR);
    let mut r = Reader::with_budget(bytes, 0);
    let read = ApiVersionsRequest::decode(&mut r, 3);
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(r.remaining(), 0);
    assert_eq!(region.change().bytes_allocated, 0);
}

fn hostile_counts_are_refused_before_allocating() {
    for (version, bytes) in [(0, &[0x7f, 0xff, 0xff, 0xff][..]), (9, &[0xff, 0xff, 0xff, 0xff, 0x07])] {
        let region = Region::new(ALLOCATOR);
        let error = MetadataRequest::from_bytes(Bytes::copy_from_slice(bytes), version).unwrap_err();
        assert!(region.change().bytes_allocated < SLACK);
        assert!(matches!(error.kind(), DecodeErrorKind::Count { .. }), "{error}");
        assert_eq!((error.message(), error.field()), ("MetadataRequest", "Topics"));
    }
    // A count that the remaining bytes could hold, yet whose elements take more memory than allowed.
    let mut bytes = BytesMut::from(&[0x00, 0x0f, 0x42, 0x40][..]);
    bytes.resize(4_000_000, 0);
    let error = MetadataRequest::decode(&mut Reader::with_budget(bytes.freeze(), 1 << 20), 0).unwrap_err();
    assert!(matches!(error.kind(), DecodeErrorKind::Budget { .. }), "{error}");
}

fn a_known_tag_may_appear_once_and_must_fill_its_size() {
    // Fetch v12 from its end: the tagged section with the cluster id twice.
    let plain = FetchRequest::default().to_bytes(12).unwrap();
    let mut twice = BytesMut::from(&plain[..plain.len() - 1]);
    twice.put_slice(&[2, 0, 2, 2, b'a', 0, 2, 2, b'a']);
    let error = FetchRequest::from_bytes(twice.freeze(), 12).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::DuplicateTag(0));
    let mut long = BytesMut::from(&plain[..plain.len() - 1]);
    long.put_slice(&[1, 0, 3, 2, b'a', b'b']);
    let error = FetchRequest::from_bytes(long.freeze(), 12).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::TagSize { left: 1 });
    // The field's content cannot reach beyond its size either.
    let mut short = BytesMut::from(&plain[..plain.len() - 1]);
    short.put_slice(&[1, 0, 1, 2, b'a', b'b']);
    assert!(FetchRequest::from_bytes(short.freeze(), 12).is_err());
}

fn random_headers_end_without_a_panic() {
    let mut s = Sampler::new(7);
    for _ in 0..20_000 {
        let key = s.below(100) as i16;
        let mut bytes = BytesMut::new();
        bytes.put_i16(key);
        bytes.put_i16(s.below(20) as i16);
        let len = s.below(40);
        bytes.extend((0..len).map(|_| s.u64() as u8));
        _ = RequestHeader::decode(&mut Reader::with_budget(bytes.freeze(), 1024));
    }
}

fn main() {
    for seed in 0..6 {
        for_each(&mut Random(seed << 32));
    }
    a_million_unknown_tags_cost_no_memory();
    hostile_counts_are_refused_before_allocating();
    a_known_tag_may_appear_once_and_must_fill_its_size();
    random_headers_end_without_a_panic();
    println!("hostile bytes cost no more than the budget");
}
