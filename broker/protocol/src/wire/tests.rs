//! Numbers, strings and pieces at their edges.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::types::FileRange;

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes))
}

fn written(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().into_bytes().unwrap()
}

proptest! {
    #[test]
    fn variable_length_numbers_come_back(a: u32, b: u64, c: i32, d: i64, shift in 0..64u32) {
        let (b, d) = (b >> shift, d >> shift);
        let (a, c) = (a >> (shift / 2), c >> (shift / 2));
        let bytes = written(|w| {
            w.uvarint(a);
            w.uvarlong(b);
            w.varint(c);
            w.varlong(d);
        });
        let mut r = Reader::new(bytes);
        prop_assert_eq!(r.uvarint("a"), Ok(a));
        prop_assert_eq!(r.uvarlong("b"), Ok(b));
        prop_assert_eq!(r.varint("c"), Ok(c));
        prop_assert_eq!(r.varlong("d"), Ok(d));
        prop_assert_eq!(r.remaining(), 0);
    }

    #[test]
    fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        for read in [
            |r: &mut Reader| r.uvarint("x").map(u64::from),
            |r: &mut Reader| r.uvarlong("x"),
            |r: &mut Reader| r.varint("x").map(|x| x as u64),
            |r: &mut Reader| r.varlong("x").map(|x| x as u64),
        ] {
            let mut r = reader(&bytes);
            if read(&mut r).is_ok() {
                prop_assert!(r.position() <= 10 && r.position() <= bytes.len());
            }
        }
    }
}

#[test]
fn variable_length_numbers_end_with_their_type() {
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).uvarint("x"), Ok(u32::MAX));
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint("x"), Ok(i32::MIN));
    // Zeros at the end are wasteful, yet some writers reserve room that way.
    assert_eq!(reader(&[0x81, 0x80, 0x80, 0x80, 0x00]).uvarint("x"), Ok(1));
    for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &[0xff; 12]] {
        let error = reader(bytes).uvarint("x").unwrap_err();
        assert_eq!(*error.kind(), DecodeErrorKind::Varint, "{bytes:x?}");
    }
    let mut longest = [0xff; 10];
    longest[9] = 1;
    assert_eq!(reader(&longest).uvarlong("x"), Ok(u64::MAX));
    longest[9] = 2;
    assert_eq!(*reader(&longest).uvarlong("x").unwrap_err().kind(), DecodeErrorKind::Varint);
    assert!(matches!(reader(&[0x80]).uvarint("x").unwrap_err().kind(), DecodeErrorKind::Truncated { .. }));
}

#[test]
fn lengths_are_null_or_possible() {
    assert_eq!(reader(&[0xff, 0xff]).string(false, "s"), Ok(None));
    assert_eq!(reader(&[0]).string(true, "s"), Ok(None));
    assert_eq!(reader(&[1]).string(true, "s"), Ok(Some(String::new())));
    assert_eq!(*reader(&[0xff, 0xfe]).string(false, "s").unwrap_err().kind(), DecodeErrorKind::Length(-2));
    assert_eq!(*reader(&[0x80, 0, 0, 0]).bytes(false, "b").unwrap_err().kind(), DecodeErrorKind::Length(-0x8000_0000));
    let error = reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).bytes(true, "b").unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::Length(0xffff_fffe));
    assert_eq!(*reader(&[3, 0xc3, 0x28]).string(true, "s").unwrap_err().kind(), DecodeErrorKind::Utf8);
    let error = <String as Wire>::get(&mut reader(&[0]), "s", 0, true).unwrap_err();
    assert_eq!(error.to_string(), "s at byte 1: null is not allowed");
}

#[test]
fn strings_end_at_the_length_that_kafka_ends_them() {
    let text = "x".repeat(0x7fff);
    for flexible in [false, true] {
        let bytes = written(|w| w.string(Some(&text), flexible, "s").unwrap());
        assert_eq!(Reader::new(bytes).string(flexible, "s"), Ok(Some(text.clone())));
        let longer = format!("{text}x");
        let error = Writer::new().string(Some(&longer), flexible, "s").unwrap_err();
        assert_eq!(error, EncodeError::TooLong { message: "", field: "s", len: 0x8000 });
    }
    let mut bytes = BytesMut::from(&[0x81, 0x80, 0x02][..]);
    bytes.resize(3 + 0x8000, b'x');
    assert_eq!(*Reader::new(bytes.freeze()).string(true, "s").unwrap_err().kind(), DecodeErrorKind::Length(0x8000));
}

#[test]
fn bytes_share_the_frame() {
    let frame = written(|w| w.bytes(Some(&Bytes::from(vec![5; 100])), true, "b").unwrap());
    let inside = frame.as_ptr_range();
    let bytes = Reader::new(frame).bytes(true, "b").unwrap().unwrap();
    assert!(inside.contains(&bytes.as_ptr()));
}

fn file(len: u32) -> FileRange {
    FileRange { file: Arc::new(tempfile()), position: 3, len, cached: None }
}

fn tempfile() -> std::fs::File {
    std::fs::File::open("/dev/null").unwrap()
}

#[test]
fn pieces_keep_their_places() {
    let large = Bytes::from(vec![9; 8192]);
    let range = file(70_000);
    let mut w = Writer::new();
    w.i16(1);
    w.records(Some(&Records::File(range.clone())), false, "r").unwrap();
    w.records(Some(&Records::Bytes(large.clone())), false, "r").unwrap();
    w.i8(2);
    assert_eq!(w.len(), 2 + 4 + 70_000 + 4 + 8192 + 1);
    let encoded = w.finish();
    assert_eq!(encoded.len(), 2 + 4 + 70_000 + 4 + 8192 + 1);
    let expected = [
        Piece::Bytes(Bytes::from_static(&[0, 1, 0, 1, 0x11, 0x70])),
        Piece::File(range),
        Piece::Bytes(Bytes::from_static(&[0, 0, 0x20, 0])),
        Piece::Bytes(large.clone()),
        Piece::Bytes(Bytes::from_static(&[2])),
    ];
    assert_eq!(encoded.pieces, expected);
    // The batch went through by reference.
    let Piece::Bytes(shared) = &encoded.pieces[3] else { panic!("bytes expected") };
    assert_eq!(shared.as_ptr(), large.as_ptr());
    assert!(encoded.into_bytes().is_err());
}

#[test]
fn an_empty_file_range_is_no_piece() {
    let mut w = Writer::new();
    w.records(Some(&Records::File(file(0))), true, "r").unwrap();
    assert_eq!(w.finish().into_bytes().unwrap(), &[1][..]);
}

#[test]
fn tagged_fields_grow_their_size_in_place() {
    for len in [0, 1, 126, 127, 128, 200, 16_383, 16_384, 20_000] {
        let content = Bytes::from(vec![7; len]);
        let bytes = written(|w| {
            w.u8(0xee);
            put_tag(w, 5, "t", |w| {
                w.raw(&content);
                Ok(())
            })
            .unwrap();
            w.u8(0xdd);
        });
        let mut r = Reader::new(bytes);
        assert_eq!(r.u8("x"), Ok(0xee));
        assert_eq!((r.uvarint("tag"), r.uvarint("size")), (Ok(5), Ok(len as u32)));
        assert_eq!(r.remaining(), len + 1);
        assert_eq!(r.rest()[..len], content);
        assert_eq!(r.rest()[len], 0xdd);
    }
}

#[test]
fn pieces_inside_a_tagged_field_move_with_it() {
    let large = Bytes::from(vec![7; 5000]);
    let mut w = Writer::new();
    w.bytes(Some(&large), true, "before").unwrap();
    put_tag(&mut w, 0, "t", |w| w.bytes(Some(&large), true, "inside")).unwrap();
    w.u8(0xdd);
    let mut r = Reader::new(w.finish().into_bytes().unwrap());
    assert_eq!(r.bytes(true, "before"), Ok(Some(large.clone())));
    assert_eq!((r.uvarint("tag"), r.uvarint("size")), (Ok(0), Ok(5002)));
    assert_eq!(r.bytes(true, "inside"), Ok(Some(large)));
    assert_eq!(r.u8("x"), Ok(0xdd));
    assert_eq!(r.remaining(), 0);
}

#[test]
fn the_budget_is_charged_before_the_allocation() {
    let bytes = written(|w| w.long_length(Some(1000), false, "v").unwrap());
    let mut bytes = BytesMut::from(&bytes[..]);
    bytes.resize(8004, 0);
    let bytes = bytes.freeze();
    let read = |budget| {
        let mut r = Reader::with_budget(bytes.clone(), budget);
        <Vec<i64> as Wire>::get(&mut r, "v", 0, false).map(|v| (v.len(), r.budget()))
    };
    assert_eq!(read(8000), Ok((1000, 0)));
    let error = read(7999).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::Budget { needed: 8000, left: 7999 });
}
