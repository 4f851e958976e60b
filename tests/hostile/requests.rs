//! Every key and version: cut short, with bytes too many, and filled with numbers that lie.

use std::fmt::Debug;
use std::time::Duration;

use klamm_protocol::sample::{Kind, Sampler, Visitor};
use klamm_protocol::{ApiKey, Message, messages};
use klamm_tests::wire::{Connection, flexible_header, header};

use crate::fixture::{Fate, Target};

/// One request in one version, as bytes without the header.
struct Case {
    key: ApiKey,
    version: i16,
    /// With arbitrary values in every field.
    full: Vec<u8>,
    /// With empty values in every field: does nothing when it is carried out.
    empty: Vec<u8>,
}

impl Case {
    /// Kafka never answers a request to verify no transaction.
    fn kafka_forgets(&self, target: &Target) -> bool {
        !target.is_klamm() && self.key == ApiKey::AddPartitionsToTxn && self.version >= 4
    }

    fn frame(&self, body: &[u8]) -> Vec<u8> {
        let key = self.key as i16;
        let flexible = self.key.request_header_version(self.version) == 2;
        let mut frame = if flexible { flexible_header(key, self.version, 5) } else { header(key, self.version, 5) };
        frame.extend_from_slice(body);
        frame
    }
}

struct Collect(Vec<Case>);

impl Visitor for Collect {
    fn message<M: Message + Clone + PartialEq + Debug>(&mut self, kind: Kind) {
        let Kind::Request(key) = kind else { return };
        // Without Kafka's own guard these keys would change the cluster they are sent to.
        let internal = !key.on_broker() || matches!(key, ApiKey::UnregisterBroker | ApiKey::Envelope);
        if internal {
            return;
        }
        for version in key.stable_versions() {
            let full = sample::<M>(version);
            let Ok(empty) = M::default().to_bytes(version) else { continue };
            self.0.push(Case { key, version, full, empty: empty.to_vec() });
        }
    }
}

/// A sample of some length, so that there is something to cut.
fn sample<M: Message>(version: i16) -> Vec<u8> {
    let samples = (0..20).filter_map(|seed| {
        let value = M::sample(&mut Sampler::new(seed), version);
        value.to_bytes(version).ok().map(|b| b.to_vec())
    });
    samples.max_by_key(Vec::len).unwrap_or_default()
}

fn cases() -> Vec<Case> {
    let mut collect = Collect(Vec::new());
    messages::for_each(&mut collect);
    assert!(collect.0.len() > 150, "only {} requests", collect.0.len());
    collect.0
}

/// Sends a frame and a request that is always answered behind it: either one is answered or the connection closes.
fn fate(target: &Target, frame: &[u8]) -> Fate {
    let mut connection: Connection = target.connect_for(Duration::from_secs(5));
    let sent = connection.send(frame).and_then(|()| {
        // Produce without acknowledgement is rightly not answered: this one is.
        connection.send(&header(18, 0, 77))
    });
    if sent.is_err() { Fate::Closed } else { Fate::of(connection.receive()) }
}

#[test]
fn requests_cut_short_at_any_place_close_the_connection_or_fail() {
    let target = Target::new("cut requests");
    let mut count = 0;
    let (mut closed, mut answered) = (0, 0);
    for case in cases() {
        let len = case.full.len();
        let mut cuts = vec![0, 1, len / 3, len / 2, len.saturating_sub(1)];
        cuts.sort_unstable();
        cuts.dedup();
        for cut in cuts.into_iter().filter(|c| *c < len) {
            count += 1;
            match fate(&target, &case.frame(&case.full[..cut])) {
                Fate::Closed => closed += 1,
                Fate::Answered(_) => answered += 1,
                Fate::Silent => panic!("{:?} v{} cut at {cut} of {len}: silence", case.key, case.version),
            }
        }
    }
    println!("{count} cut requests: {closed} closed, {answered} answered");
    assert!(closed > count / 2, "most cut requests end the connection");
    target.unharmed(count);
}

#[test]
fn bytes_behind_a_request_do_no_harm() {
    let target = Target::new("trailing bytes");
    let mut count = 0;
    let (mut closed, mut answered) = (0, 0);
    for case in cases() {
        for extra in [1usize, 100, 70_000] {
            count += 1;
            let mut body = case.empty.clone();
            body.extend(std::iter::repeat_n(0xee, extra));
            match fate(&target, &case.frame(&body)) {
                Fate::Closed => closed += 1,
                Fate::Answered(_) => answered += 1,
                Fate::Silent if case.kafka_forgets(&target) => {}
                Fate::Silent => panic!("{:?} v{} with {extra} bytes more: silence", case.key, case.version),
            }
        }
    }
    println!("{count} requests with trailing bytes: {closed} closed, {answered} answered");
    target.unharmed(count);
}

#[test]
fn bodies_of_huge_numbers_allocate_nothing() {
    let target = Target::new("huge numbers");
    let mut count = 0;
    // As i32: 2^31−1, −1, 2139062143; as a compact length: 2^31−2 and more than five bytes.
    let patterns: [&[u8]; 5] = [&[0x7f, 0xff, 0xff, 0xff], &[0xff], &[0x7f], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0x80]];
    for case in cases() {
        for pattern in patterns {
            // At the start, and behind each of the first bytes of a good request.
            for keep in [0, 2, 4, 8, 10, 14] {
                if keep > case.empty.len() {
                    continue;
                }
                count += 1;
                let mut body = case.empty[..keep].to_vec();
                body.extend(pattern.iter().cycle().take(60));
                let fate = fate(&target, &case.frame(&body));
                let name = format!("{:?} v{} {pattern:02x?} behind {keep}", case.key, case.version);
                assert!(fate != Fate::Silent || case.kafka_forgets(&target), "{name}");
            }
        }
    }
    println!("{count} requests of huge numbers");
    target.unharmed(count);
}

#[test]
fn an_array_of_two_billion_in_one_request_costs_nothing() {
    let target = Target::new("arrays of 2^31-1");
    // One connection each, memory counted for that one alone.
    let mut metadata = header(3, 1, 5);
    metadata.extend_from_slice(&i32::MAX.to_be_bytes());
    let mut compact = flexible_header(3, 12, 5);
    compact.extend_from_slice(b"\xff\xff\xff\xff\x0f");
    for (name, frame) in [("Metadata v1", metadata), ("Metadata v12", compact)] {
        assert_eq!(Fate::of(target.connect().call(&frame)), Fate::Closed, "{name}");
    }
    target.unharmed(1);
}
