//! Several requests in one write: each is answered when it can be, whatever stands behind it.

use std::time::{Duration, Instant};

use klamm_tests::wire::header;

use crate::fixture::{Fate, Target};

/// `body` with its length in front.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = i32::try_from(body.len()).expect("a small frame").to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

/// A fetch of one partition that waits `wait_ms` for a MiB that never comes.
fn waiting_fetch(topic: &str, wait_ms: i32, correlation: i32) -> Vec<u8> {
    let mut frame = header(1, 4, correlation);
    frame.extend_from_slice(&(-1i32).to_be_bytes());
    frame.extend_from_slice(&wait_ms.to_be_bytes());
    frame.extend_from_slice(&(1i32 << 20).to_be_bytes());
    frame.extend_from_slice(&(1i32 << 20).to_be_bytes());
    frame.push(0);
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&i16::try_from(topic.len()).expect("a short name").to_be_bytes());
    frame.extend_from_slice(topic.as_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&0i32.to_be_bytes());
    frame.extend_from_slice(&0i64.to_be_bytes());
    frame.extend_from_slice(&(1i32 << 20).to_be_bytes());
    frame
}

fn correlation(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|id| i32::from_be_bytes(*id))
}

#[test]
fn an_answer_does_not_wait_for_the_request_behind_it() {
    let target = Target::new("a waiting request behind others");
    target.topic("pipeline", &[]);
    let mut connection = target.connect();
    let mut sent = framed(&header(18, 0, 1));
    sent.extend(framed(&header(18, 0, 2)));
    sent.extend(framed(&waiting_fetch("pipeline", 4_000, 3)));
    sent.extend(framed(&header(18, 0, 4)));
    let started = Instant::now();
    connection.send_raw(&sent).expect("the requests are sent");
    for id in [1, 2] {
        assert_eq!(correlation(&connection.receive().expect("an answer")), Some(id));
    }
    assert!(started.elapsed() < Duration::from_secs(2), "answered after {:?}", started.elapsed());
    for id in [3, 4] {
        assert_eq!(correlation(&connection.receive().expect("an answer")), Some(id));
    }
    assert!(started.elapsed() > Duration::from_secs(3), "the fetch waited only {:?}", started.elapsed());
    target.unharmed(1);
}

#[test]
fn what_was_asked_before_a_broken_request_is_answered() {
    let target = Target::new("a broken request behind others");
    // A size no frame has; a key that nobody serves.
    for broken in [(-1i32).to_be_bytes().to_vec(), framed(&header(0x7f7f, 0, 9))] {
        let mut connection = target.connect();
        let mut sent: Vec<u8> = (1..=3).flat_map(|id| framed(&header(18, 0, id))).collect();
        sent.extend(broken);
        connection.send_raw(&sent).expect("the requests are sent");
        for id in 1..=3 {
            let answer = connection.receive().unwrap_or_else(|e| panic!("answer {id}: {e}"));
            assert_eq!(correlation(&answer), Some(id));
        }
        assert_eq!(Fate::of(connection.receive()), Fate::Closed);
    }
    target.unharmed(2);
}
