//! One question in every announced version.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, MetadataRequest, create_topics_request::CreatableTopic,
    metadata_request::MetadataRequestTopic,
};
use klamm_protocol::{Request, Uuid, frame, wire::Reader};
use klamm_tests::wire::Connection;
use klamm_tests::{Broker, eventually, unique};

/// A topic with one record, and the id it was given.
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

/// Sends one request and reads the response to its last byte.
#[track_caller]
pub fn call<R: Request>(request: &R, version: i16) -> R::Response {
    let bytes = frame::encode_request(11, Some("versions"), request, version).and_then(|e| e.into_bytes());
    let bytes = bytes.unwrap_or_else(|e| panic!("{} v{version}: {e}", R::NAME));
    let limit = Duration::from_secs(20);
    let mut connection = Connection::open(Broker::shared().bootstrap(), limit).expect("a connection");
    connection.send_raw(&bytes).expect("the request is sent");
    let answer = connection.receive().unwrap_or_else(|e| panic!("{} v{version}: no answer: {e}", R::NAME));
    let mut reader = Reader::new(Bytes::from(answer));
    let decoded = frame::decode_response::<R>(&mut reader, version);
    let (header, response) = decoded.unwrap_or_else(|e| panic!("{} v{version}: {e}", R::NAME));
    assert_eq!(header.correlation_id, 11, "{} v{version}", R::NAME);
    assert_eq!(reader.remaining(), 0, "{} v{version}: bytes behind the answer", R::NAME);
    response
}

/// The versions of a key that the broker announces and our codec knows.
pub fn versions<R: Request>() -> Vec<i16> {
    static ANNOUNCED: OnceLock<HashMap<i16, (i16, i16)>> = OnceLock::new();
    let announced = ANNOUNCED.get_or_init(|| {
        let response = call(&ApiVersionsRequest::default(), 0);
        response.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect()
    });
    let key = R::KEY;
    let (min, max) = *announced.get(&(key as i16)).unwrap_or_else(|| panic!("{key} is not announced"));
    let known = key.stable_versions();
    (min.max(*known.start())..=max.min(*known.end())).collect()
}

/// Asks in every version and checks the error codes that `codes` finds in the answer.
#[track_caller]
pub fn ask<R: Request>(
    what: &str,
    expected: &[i16],
    build: impl Fn(i16) -> R,
    codes: impl Fn(&R::Response) -> Vec<i16>,
) {
    let versions = versions::<R>();
    for version in &versions {
        let response = call(&build(*version), *version);
        let found = codes(&response);
        let fine = !found.is_empty() && found.iter().all(|c| expected.contains(c));
        assert!(fine, "{} v{version}, {what}: {found:?}, not {expected:?}", R::NAME);
    }
    println!("{}: {what}: v{:?}–{:?}", R::NAME, versions.first(), versions.last());
}

/// A new topic with two partitions that take requests.
#[track_caller]
pub fn topic(what: &str) -> Topic {
    let name = unique(what);
    let topic = CreatableTopic { name: name.clone(), num_partitions: 2, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 20_000, ..Default::default() };
    let created = call(&request, 7);
    assert_eq!(created.topics.first().map(|t| t.error_code), Some(0), "{created:?}");
    let asked = MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), ..Default::default() };
    let id = eventually("the topic has leaders", 20, || {
        let response = call(&request, 12);
        let found = response.topics.first()?;
        let led = found.partitions.len() == 2 && found.partitions.iter().all(|p| p.error_code == 0);
        (found.error_code == 0 && led).then_some(found.topic_id)
    });
    Topic { name, id }
}
