//! Connections against a broker played by the test over an in-memory pipe.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::header::RequestHeader;
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse, InitProducerIdRequest};
use klamm_protocol::wire::Reader;
use klamm_protocol::{ApiKey, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{Connection, ConnectionOptions};
use crate::error::{ClientError, Result};

/// The broker's side.
struct Broker(DuplexStream);

impl Broker {
    async fn request(&mut self) -> RequestHeader {
        let size = self.0.read_i32().await.expect("a frame");
        let mut frame = vec![0; size as usize];
        self.0.read_exact(&mut frame).await.expect("a whole frame");
        RequestHeader::decode(&mut Reader::new(frame.into())).expect("a header")
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the client listens");
    }

    /// Answers with a response header of version 0, or of version 1 when `flexible`.
    async fn answer(&mut self, correlation_id: i32, flexible: bool, body: &Bytes) {
        let mut frame = BytesMut::new();
        frame.put_i32(4 + i32::from(flexible) + body.len() as i32);
        frame.put_i32(correlation_id);
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        self.send(&frame).await;
    }

    /// Answers version negotiation: knows ApiVersions and Heartbeat.
    async fn negotiate(&mut self) {
        let header = self.request().await;
        let body = versions().to_bytes(header.api_version).expect("encodes");
        self.answer(header.correlation_id, false, &body).await;
    }

    async fn heartbeat(&mut self) -> RequestHeader {
        let header = self.request().await;
        assert_eq!(header.api_key, ApiKey::Heartbeat as i16);
        header
    }

    async fn answer_heartbeat(&mut self, header: &RequestHeader, throttle_time_ms: i32) {
        let response = HeartbeatResponse { throttle_time_ms, ..Default::default() };
        let body = response.to_bytes(header.api_version).expect("encodes");
        self.answer(header.correlation_id, true, &body).await;
    }
}

fn versions() -> ApiVersionsResponse {
    let range = |key: ApiKey, max_version| ApiVersion { api_key: key as i16, min_version: 0, max_version };
    ApiVersionsResponse {
        api_keys: vec![range(ApiKey::ApiVersions, 3), range(ApiKey::Heartbeat, 99)],
        ..Default::default()
    }
}

fn options() -> ConnectionOptions {
    ConnectionOptions { frame_bytes_max: 1000, ..Default::default() }
}

async fn pair() -> (Connection, Broker) {
    let (ours, theirs) = duplex(1 << 20);
    let mut broker = Broker(theirs);
    let (connection, ()) = tokio::join!(Connection::over(ours, "test:1", options()), broker.negotiate());
    (connection.expect("negotiates"), broker)
}

fn reason<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(ClientError::Disconnected { reason, .. }) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_older_broker_names_its_version_and_is_asked_again_in_it() {
    let (ours, theirs) = duplex(1 << 20);
    let mut broker = Broker(theirs);
    let script = async {
        let first = broker.request().await;
        assert!(first.api_version > 3);
        let refusal = ApiVersionsResponse { error_code: 35, ..versions() };
        broker.answer(first.correlation_id, false, &refusal.to_bytes(0).expect("encodes")).await;
        let second = broker.request().await;
        assert_eq!(second.api_version, 3);
        broker.answer(second.correlation_id, false, &versions().to_bytes(3).expect("encodes")).await;
    };
    let (connection, ()) = tokio::join!(Connection::over(ours, "test:1", options()), script);
    let connection = connection.expect("negotiates");
    assert_eq!(connection.version_of::<HeartbeatRequest>().ok(), Some(HeartbeatRequest::MAX_VERSION));
    assert_eq!(connection.version_below::<HeartbeatRequest>(2).ok(), Some(2));
}

#[tokio::test]
async fn a_request_the_broker_does_not_know_is_not_sent() {
    let (connection, _broker) = pair().await;
    let result = connection.call(&InitProducerIdRequest::default()).await;
    assert!(matches!(result, Err(ClientError::Unsupported { .. })));
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn pipelined_requests_get_their_own_answers() {
    let (connection, mut broker) = pair().await;
    let request = HeartbeatRequest::default();
    let script = async {
        let headers = [broker.heartbeat().await, broker.heartbeat().await, broker.heartbeat().await];
        for (header, throttle) in headers.iter().zip([7, 8, 9]) {
            broker.answer_heartbeat(header, throttle).await;
        }
    };
    let calls = async { tokio::join!(connection.call(&request), connection.call(&request), connection.call(&request)) };
    let ((a, b, c), ()) = tokio::join!(calls, script);
    let throttle = |answer: Result<HeartbeatResponse>| answer.map(|a| a.throttle_time_ms).ok();
    assert_eq!([throttle(a), throttle(b), throttle(c)], [Some(7), Some(8), Some(9)]);
}

#[tokio::test]
async fn an_answer_to_another_request_ends_the_connection() {
    let (connection, mut broker) = pair().await;
    let script = async {
        let mut header = broker.heartbeat().await;
        header.correlation_id += 1;
        broker.answer_heartbeat(&header, 0).await;
    };
    let request = HeartbeatRequest::default();
    let (result, ()) = tokio::join!(connection.call(&request), script);
    assert!(reason(result).contains("another request"));
    assert!(connection.is_closed());
}

#[tokio::test]
async fn an_unasked_answer_ends_the_connection() {
    let (connection, mut broker) = pair().await;
    broker.send(&[0, 0, 0, 4, 0, 0, 0, 9]).await;
    assert_eq!(broker.0.read(&mut [0; 1]).await.ok(), Some(0));
    let result = connection.call(&HeartbeatRequest::default()).await;
    assert!(reason(result).contains("no request"));
}

#[tokio::test]
async fn impossible_frame_sizes_end_the_connection() {
    for size in [-1, 0, 3, 1001, i32::MAX] {
        let (connection, mut broker) = pair().await;
        let script = async {
            broker.heartbeat().await;
            broker.send(&size.to_be_bytes()).await;
        };
        let request = HeartbeatRequest::default();
        let (result, ()) = tokio::join!(connection.call(&request), script);
        assert!(reason(result).contains("bytes"), "size {size}");
    }
}

#[tokio::test]
async fn another_protocol_is_told_by_its_name() {
    let alert = [0x15, 3, 3, 0, 2, 2, 0x46].as_slice();
    for (said, name) in [(b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "speaks HTTP"), (alert, "speaks TLS")] {
        let (ours, mut theirs) = duplex(1 << 20);
        let script = async { theirs.write_all(said).await.expect("written") };
        let (result, ()) = tokio::join!(Connection::over(ours, "test:1", options()), script);
        let said = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(name), "{said}");
    }
}

#[tokio::test]
async fn a_broker_that_goes_away_fails_everyone_who_waits() {
    let (connection, mut broker) = pair().await;
    let script = async {
        broker.heartbeat().await;
        broker.heartbeat().await;
        broker.send(&[0, 0, 0, 9, 0]).await;
        drop(broker);
    };
    let request = HeartbeatRequest::default();
    let calls = async { tokio::join!(connection.call(&request), connection.call(&request)) };
    let ((a, b), ()) = tokio::join!(calls, script);
    assert!(reason(a).contains("in the middle") && reason(b).contains("in the middle"));
}

#[tokio::test]
async fn malformed_bodies_are_errors() {
    let (connection, mut broker) = pair().await;
    let script = async {
        let header = broker.heartbeat().await;
        broker.answer(header.correlation_id, true, &Bytes::from_static(b"\0")).await;
    };
    let request = HeartbeatRequest::default();
    let (result, ()) = tokio::join!(connection.call(&request), script);
    assert!(matches!(result, Err(ClientError::Malformed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_a_timeout_and_ends_the_connection() {
    let (connection, mut broker) = pair().await;
    let request = HeartbeatRequest::default();
    let (result, _) = tokio::join!(connection.call_within(&request, Duration::from_secs(5)), broker.heartbeat());
    assert!(matches!(result, Err(ClientError::Timeout { .. })));
    assert!(connection.is_closed());
    assert!(reason(connection.call(&request).await).contains("in time"));
}

#[tokio::test]
async fn a_request_without_an_answer_is_written_before_the_call_returns() {
    let (connection, mut broker) = pair().await;
    connection.send_unanswered(&HeartbeatRequest::default(), 4).await.expect("is written");
    drop(connection);
    assert_eq!(broker.heartbeat().await.api_version, 4);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_socket() {
    let (connection, mut broker) = pair().await;
    drop(connection);
    assert_eq!(broker.0.read(&mut [0; 1]).await.ok(), Some(0));
}
