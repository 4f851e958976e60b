//! Clients that hang up while the controller decides. A cancelled request once let the next decision run on an image
//! that was about to change; the two contradicted each other, and the metadata log stopped the broker.

use std::io::Write;
use std::net::TcpStream;

use klamm_tests::{Broker, Tool, paths};

/// A frame: Metadata version 4 that asks for `topic`, which is made on first use.
fn metadata(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1];
    body.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.push(1);
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

#[test]
fn a_client_that_hangs_up_leaves_no_decision_half_done() {
    let mut broker = Broker::start(&[]);
    for round in 0..50 {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(broker.bootstrap()).expect("connected");
            stream.write_all(&metadata(&format!("hangup-{round}"))).expect("sent");
            // Dropped: closed without waiting for the answer.
        }
    }
    assert!(broker.alive(), "{}", broker.log());
    let create = ["-b", broker.bootstrap(), "topics", "create", "after"];
    Tool::new(paths::klamm()).args(create).limit(60).ok();
    assert!(!broker.log().contains("can't be applied"), "{}", broker.log());
}
