//! The codec against Apache Kafka 4.4's own serializers: every message, every version, both ways.
//!
//! One JVM (`java/Peer.java`) holds Apache's message classes. What we write it reads, shows field by field and writes
//! again; what it makes from its own schemas we read, compare field by field, and write again. Equal bytes and equal
//! fields by name, so neither a wrong type nor two swapped names gets through; absent fields prove the defaults.
//! `KLAMM_WIRE_VALUES` sets the number of values for each version and direction, `KLAMM_WIRE_SEED` what they are.

mod peer;
mod shown;

use std::{collections::BTreeMap, env, fmt::Debug};

use bytes::Bytes;
use klamm_protocol::{
    ApiKey, FileRange, Message, Records,
    frame::{encode_request, encode_response},
    header::{RequestHeader, ResponseHeader},
    messages::{self, FetchResponse, for_each},
    sample::{Kind, Sampler, Visitor},
    wire::{Piece, Reader, Writer},
};
use peer::Peer;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How much was compared.
#[derive(Debug, Default)]
struct Counts {
    keys: usize,
    messages: usize,
    versions: usize,
    values: usize,
    bytes: usize,
}

struct Compare<'a> {
    peer: &'a Peer,
    counts: Counts,
    /// Ours to Apache, or Apache's to us.
    ours: bool,
    values: u64,
    seed: u64,
}

impl Visitor for Compare<'_> {
    fn message<M: Message + Clone + PartialEq + Debug>(&mut self, kind: Kind) {
        if kind.is_private() {
            return;
        }
        self.counts.keys += usize::from(matches!(kind, Kind::Request(_)));
        self.counts.messages += 1;
        for version in M::MIN_VERSION..=M::MAX_VERSION {
            self.counts.versions += 1;
            for n in 0..self.values {
                let seed = (self.seed.wrapping_add(n) << 16) ^ version as u64;
                self.counts.bytes +=
                    if self.ours { self.ours::<M>(version, seed) } else { self.theirs::<M>(version, seed) };
                self.counts.values += 1;
            }
        }
    }
}

impl Compare<'_> {
    fn ours<M: Message + Debug>(&self, version: i16, seed: u64) -> usize {
        let value = M::sample(&mut Sampler::new(seed), version);
        let place = format!("{} v{version} seed {seed}", M::NAME);
        let bytes = value.to_bytes(version).unwrap_or_else(|e| panic!("{place}: {e}"));
        let answer = self.peer.read(M::NAME, version, &bytes).unwrap_or_else(|e| panic!("{place}: {e}\n{value:?}"));
        assert_eq!(
            shown::plain(&answer.shown),
            shown::plain(&format!("{value:?}")),
            "{place}: Apache left, ours right"
        );
        assert_eq!(answer.bytes, bytes, "{place}: Apache writes other bytes\n{value:?}");
        bytes.len()
    }

    fn theirs<M: Message + Debug>(&self, version: i16, seed: u64) -> usize {
        let place = format!("{} v{version} seed {seed}", M::NAME);
        let answer = self.peer.make(M::NAME, version, seed).unwrap_or_else(|e| panic!("{place}: {e}"));
        let mut r = Reader::new(answer.bytes.clone());
        let value = M::decode(&mut r, version).unwrap_or_else(|e| panic!("{place}: {e}\n{}", answer.shown));
        assert_eq!(r.remaining(), 0, "{place}");
        assert_eq!(
            shown::plain(&answer.shown),
            shown::plain(&format!("{value:?}")),
            "{place}: Apache left, ours right"
        );
        let again = value.to_bytes(version).unwrap_or_else(|e| panic!("{place}: {e}\n{value:?}"));
        assert_eq!(again, answer.bytes, "{place}: we write other bytes\n{value:?}");
        again.len()
    }
}

fn compare(ours: bool) -> Counts {
    let values = setting("KLAMM_WIRE_VALUES", 12);
    let mut compare =
        Compare { peer: Peer::shared(), counts: Counts::default(), ours, values, seed: setting("KLAMM_WIRE_SEED", 1) };
    for_each(&mut compare);
    compare.counts
}

#[test]
fn apache_reads_what_we_write() {
    println!("ours to Apache: {:?}", compare(true));
}

#[test]
fn we_read_what_apache_writes() {
    println!("Apache's to us: {:?}", compare(false));
}

#[test]
fn every_message_of_apache_is_here_with_the_same_versions() {
    #[derive(Default)]
    struct Names(BTreeMap<String, (i16, i16)>);
    impl Visitor for Names {
        fn message<M: Message + Clone + PartialEq + Debug>(&mut self, kind: Kind) {
            if !kind.is_private() {
                self.0.insert(M::NAME.to_owned(), (M::MIN_VERSION, M::MAX_VERSION));
            }
        }
    }
    let mut ours = Names::default();
    for_each(&mut ours);
    // Headers are not generated; `headers_agree` compares them.
    ours.0.insert("RequestHeader".into(), (1, 2));
    ours.0.insert("ResponseHeader".into(), (0, 1));
    let theirs = Peer::shared().messages();
    // Tables without a version: messages of keys that Kafka has removed.
    let theirs: BTreeMap<_, _> = theirs.into_iter().filter(|(_, (min, max))| min <= max).collect();
    assert_eq!(ours.0, theirs);
    println!("{} messages", theirs.len());
}

#[test]
fn headers_agree() {
    let keys = Peer::shared().keys();
    let mut seen = Vec::new();
    for line in &keys {
        let key = ApiKey::try_from(line.key).unwrap_or_else(|e| panic!("{}: {e}", line.name));
        assert_eq!(key.name(), line.name);
        assert!(key.valid_versions().contains(&line.version), "{key} v{}", line.version);
        assert_eq!(key.stable_versions().contains(&line.version), line.stable, "{key} v{}", line.version);
        assert_eq!(key.request_header_version(line.version), line.request_header, "{key} v{}", line.version);
        assert_eq!(key.response_header_version(line.version), line.response_header, "{key} v{}", line.version);
        let header = RequestHeader {
            api_key: line.key,
            api_version: line.version,
            correlation_id: -7,
            client_id: Some("klamm ß".into()),
        };
        let mut w = Writer::new();
        header.encode(&mut w).unwrap();
        w.raw(b"body");
        let bytes = w.finish().into_bytes().unwrap();
        let theirs = Peer::shared().header(&bytes);
        assert_eq!(theirs, Ok(format!("{} {} -7 klamm ß 4", line.key, line.version)), "{key} v{}", line.version);
        let mut r = Reader::new(bytes);
        assert_eq!(RequestHeader::decode(&mut r), Ok(header));
        assert_eq!(r.rest(), &b"body"[..]);
        seen.push(key);
    }
    seen.dedup();
    let kafkas: Vec<_> = ApiKey::ALL.iter().copied().filter(|key| !key.is_private()).collect();
    assert_eq!(seen, kafkas);
    println!("{} keys, {} versions", seen.len(), keys.len());
}

#[test]
fn frames_count_everything_that_follows_their_size() {
    let request = messages::MetadataRequest::default();
    let frame = encode_request(5, Some("me"), &request, 12).unwrap().into_bytes().unwrap();
    assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
    assert_eq!(Peer::shared().header(&frame.slice(4..)).map(|h| h[..8].to_owned()), Ok("3 12 5 m".into()));

    // A file range in the middle of a response is counted and keeps its place.
    let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
    let range = FileRange { file, position: 100, len: 70_000, cached: None };
    let partition =
        messages::fetch_response::PartitionData { records: Some(Records::File(range.clone())), ..Default::default() };
    let mut with_bytes = partition.clone();
    with_bytes.records = Some(Records::Bytes(Bytes::from(vec![7; 70_000])));
    let response = |partition| FetchResponse {
        responses: vec![messages::fetch_response::FetchableTopicResponse {
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in [4, 11, 12, 18] {
        let header = ApiKey::Fetch.response_header_version(version);
        let filed = encode_response(header, 9, &response(partition.clone()), version).unwrap();
        let plain = encode_response(header, 9, &response(with_bytes.clone()), version).unwrap();
        assert_eq!(filed.len(), plain.len());
        assert!(filed.pieces.contains(&Piece::File(range.clone())));
        let bytes = plain.into_bytes().unwrap();
        assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_be_bytes());
        let Some(Piece::Bytes(first)) = filed.pieces.first() else { panic!("bytes come first") };
        assert_eq!(first, &bytes[..first.len()]);
        assert!(filed.into_bytes().is_err());
        let mut r = Reader::new(bytes.slice(4..));
        assert_eq!(ResponseHeader::decode(&mut r, header), Ok(ResponseHeader { correlation_id: 9 }));
        let read = FetchResponse::decode(&mut r, version).unwrap();
        assert_eq!(read.responses[0].partitions[0].records, with_bytes.records);
    }
}
