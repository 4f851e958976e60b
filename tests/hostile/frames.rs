//! Frames whose size or start is a lie.

use std::time::Duration;

use klamm_tests::wire::{Connection, flexible_header, header};

use crate::fixture::{Fate, Target};

#[test]
fn frame_sizes_no_request_can_have_close_the_connection() {
    let target = Target::new("frame sizes");
    let sizes = [-1, 0, 1, 3, 7, i32::MAX, i32::MIN, -1_000_000, 104_857_601];
    for size in sizes {
        let mut connection = target.connect();
        connection.send_raw(&size.to_be_bytes()).expect("the size is sent");
        // What follows may meet a closed connection already.
        let _ = connection.send_raw(&[0xff; 64]);
        assert_eq!(Fate::of(connection.receive()), Fate::Closed, "size {size}");
    }
    target.unharmed(sizes.len());
}

#[test]
fn large_frames_that_never_come_hold_no_memory() {
    let target = Target::new("announced frames");
    if !target.is_klamm() {
        // Kafka sets the memory aside at once and dies of it.
        return;
    }
    // 50 times 100 MiB announced, a few bytes sent, the connections kept open.
    let connections: Vec<Connection> = (0..50)
        .map(|_| {
            let mut connection = target.connect();
            connection.send_raw(&104_857_600i32.to_be_bytes()).expect("the size is sent");
            connection.send_raw(&header(0, 9, 1)).expect("a header is sent");
            connection
        })
        .collect();
    target.unharmed(connections.len());
}

#[test]
fn a_million_tagged_fields_cost_no_more_than_their_bytes() {
    let target = Target::new("10^6 tagged fields");
    // ApiVersions v3 with the tags in the header, then with the tags in the body.
    for in_header in [true, false] {
        let mut frame = header(18, 3, 9);
        let mut tags = Vec::new();
        unsigned_varint(&mut tags, 1_000_000);
        for tag in 0..1_000_000u32 {
            unsigned_varint(&mut tags, tag);
            tags.push(0);
        }
        if in_header {
            frame.extend_from_slice(&tags);
            frame.extend_from_slice(b"\x02t\x021\x00");
        } else {
            frame.push(0);
            frame.extend_from_slice(b"\x02t\x021");
            frame.extend_from_slice(&tags);
        }
        let fate = Fate::of(target.connect().call(&frame));
        assert_ne!(fate, Fate::Silent, "tags in the header: {in_header}");
    }
    target.unharmed(2);
}

#[test]
fn lying_tags_and_overlong_numbers_close_or_fail() {
    let target = Target::new("overlong numbers");
    let bodies: [&[u8]; 6] = [
        // A count of tags with nothing behind it.
        b"\x02t\x021\xff\xff\xff\xff\x07",
        // A tag whose size is 2^31−1.
        b"\x02t\x021\x01\x00\xff\xff\xff\xff\x07",
        // Numbers of ten bytes.
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        // Tags out of order and twice the same.
        b"\x02t\x021\x02\x05\x00\x01\x00",
        b"\x02t\x021\x02\x05\x00\x05\x00",
    ];
    for body in bodies {
        let mut frame = flexible_header(18, 3, 9);
        frame.extend_from_slice(body);
        let fate = Fate::of(target.connect().call(&frame));
        assert_ne!(fate, Fate::Silent, "{body:02x?}");
    }
    target.unharmed(bodies.len());
}

#[test]
fn unknown_keys_and_versions_are_refused() {
    let target = Target::new("unknown keys and versions");
    let cases = [(-1i16, 0i16), (4, 0), (7, 0), (200, 0), (i16::MAX, 0), (3, -1), (3, 99), (0, 2), (1, i16::MAX)];
    for (key, version) in cases {
        let mut frame = header(key, version, 9);
        frame.extend_from_slice(&[0; 16]);
        let fate = Fate::of(target.connect().call(&frame));
        assert_eq!(fate, Fate::Closed, "key {key} version {version}");
    }
    // ApiVersions alone answers any version, in its oldest form, with UNSUPPORTED_VERSION.
    for version in [99, i16::MAX, -5] {
        let mut frame = header(18, version, 9);
        frame.extend_from_slice(&[0; 16]);
        match Fate::of(target.connect().call(&frame)) {
            Fate::Answered(body) => assert_eq!(body.get(..6), Some(&[0, 0, 0, 9, 0, 35][..]), "{body:?}"),
            other => panic!("ApiVersions v{version}: {other:?}"),
        }
    }
    target.unharmed(cases.len() + 3);
}

#[test]
fn junk_of_other_protocols_closes_the_connection() {
    let target = Target::new("junk");
    let junk: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for bytes in junk {
        let mut connection = target.connect();
        connection.send_raw(bytes).expect("the junk is sent");
        assert_eq!(Fate::of(connection.receive()), Fate::Closed, "{bytes:?}");
    }
    target.unharmed(junk.len());
}

#[test]
fn a_frame_in_single_bytes_is_answered_all_the_same() {
    let target = Target::new("single bytes");
    let mut request = header(18, 0, 3);
    request.splice(0..0, i32::try_from(request.len()).expect("a short frame").to_be_bytes());
    let mut connection = target.connect_for(Duration::from_secs(20));
    for byte in request {
        connection.send_raw(&[byte]).expect("a byte is sent");
    }
    assert!(matches!(Fate::of(connection.receive()), Fate::Answered(_)));
    target.unharmed(1);
}

fn unsigned_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
