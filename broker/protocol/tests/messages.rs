//! Every message in every version: what is written is read back, a cut frame is an error, extra bytes stay unread.

use bytes::{Bytes, BytesMut};
use klamm_protocol::{
    ApiKey, Message,
    messages::for_each,
    sample::{Kind, Sampler, Visitor},
    wire::{EncodeError, Reader},
};
use proptest::prelude::*;

struct RoundTrip {
    seed: u64,
    values: usize,
}

impl Visitor for RoundTrip {
    fn message<M: Message + Clone + PartialEq + std::fmt::Debug>(&mut self, _: Kind) {
        for version in M::MIN_VERSION..=M::MAX_VERSION {
            let mut s = Sampler::new(self.seed ^ (version as u64) << 48);
            let value = M::sample(&mut s, version);
            let name = M::NAME;
            let bytes = value.to_bytes(version).unwrap_or_else(|e| panic!("{name} v{version}: {e}"));
            let mut r = Reader::new(bytes.clone());
            let read = M::decode(&mut r, version).unwrap_or_else(|e| panic!("{name} v{version}: {e}\n{value:?}"));
            assert_eq!(read, value, "{name} v{version}");
            assert_eq!(r.remaining(), 0, "{name} v{version}");
            self.values += 1;
            cut::<M>(&mut s, &bytes, version);
            longer::<M>(&bytes, &value, version);
        }
    }
}

/// A frame that ends early, at every place when it is short, is an error.
fn cut<M: Message>(s: &mut Sampler, bytes: &Bytes, version: i16) {
    let places = bytes.len().min(256);
    for i in 0..places {
        let at = if bytes.len() <= 256 { i } else { s.below(bytes.len() as u64) as usize };
        let result = M::from_bytes(bytes.slice(..at), version);
        assert!(result.is_err(), "{} v{version} cut at {at} of {}", M::NAME, bytes.len());
    }
}

/// What follows a message is left for whoever reads on.
fn longer<M: Message + PartialEq + std::fmt::Debug>(bytes: &Bytes, value: &M, version: i16) {
    let mut long = BytesMut::from(&bytes[..]);
    long.extend_from_slice(b"tail");
    let mut r = Reader::new(long.freeze());
    assert_eq!(M::decode(&mut r, version).as_ref(), Ok(value));
    assert_eq!(r.rest(), &b"tail"[..]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_read_back_as_written(seed: u64) {
        let mut visitor = RoundTrip { seed, values: 0 };
        for_each(&mut visitor);
        prop_assert!(visitor.values > 500);
    }

    /// A value made for the newest version fits an older one, or the error names what does not.
    #[test]
    fn newer_values_fit_older_versions_or_say_why_not(seed: u64) {
        struct Older(u64);
        impl Visitor for Older {
            fn message<M: Message + Clone + PartialEq + std::fmt::Debug>(&mut self, _: Kind) {
                let value = M::sample(&mut Sampler::new(self.0), M::MAX_VERSION);
                for version in M::MIN_VERSION..=M::MAX_VERSION {
                    match value.to_bytes(version) {
                        Ok(bytes) => assert!(M::from_bytes(bytes, version).is_ok(), "{} v{version}", M::NAME),
                        Err(EncodeError::UnsupportedField { message, field, version: v }) => {
                            assert_eq!((message, v), (M::NAME, version));
                            assert!(!field.is_empty());
                        }
                        Err(EncodeError::Null { message, .. }) => assert_eq!(message, M::NAME),
                        Err(e) => panic!("{} v{version}: {e}", M::NAME),
                    }
                }
            }
        }
        for_each(&mut Older(seed));
    }
}

#[test]
fn every_version_takes_defaults() {
    struct Defaults;
    impl Visitor for Defaults {
        fn message<M: Message + Clone + PartialEq + std::fmt::Debug>(&mut self, _: Kind) {
            for version in M::MIN_VERSION..=M::MAX_VERSION {
                match M::default().to_bytes(version) {
                    Ok(bytes) => {
                        let read = M::from_bytes(bytes, version);
                        assert_eq!(read, Ok(M::default()), "{} v{version}", M::NAME);
                    }
                    // A default of null in a version that had no null yet: the caller must say something.
                    Err(EncodeError::Null { .. }) => {}
                    Err(e) => panic!("{} v{version}: {e}", M::NAME),
                }
            }
            let beyond = M::default().to_bytes(M::MAX_VERSION + 1);
            assert!(matches!(beyond, Err(EncodeError::UnsupportedVersion { .. })));
            assert!(M::from_bytes(Bytes::new(), M::MIN_VERSION - 1).is_err());
        }
    }
    for_each(&mut Defaults);
}

#[test]
fn the_keys_are_those_of_kafka_4_4() {
    struct Keys(Vec<ApiKey>, Vec<ApiKey>);
    impl Visitor for Keys {
        fn message<M: Message + Clone + PartialEq + std::fmt::Debug>(&mut self, kind: Kind) {
            match kind {
                Kind::Request(key) => {
                    assert_eq!(key.valid_versions(), M::MIN_VERSION..=M::MAX_VERSION);
                    assert_eq!(M::NAME, format!("{key}Request"));
                    self.0.push(key);
                }
                Kind::Response(key) => {
                    assert_eq!(key.valid_versions(), M::MIN_VERSION..=M::MAX_VERSION);
                    self.1.push(key);
                }
                Kind::Data => {}
            }
        }
    }
    let mut keys = Keys(Vec::new(), Vec::new());
    for_each(&mut keys);
    assert_eq!(keys.0, ApiKey::ALL);
    assert_eq!(keys.1, ApiKey::ALL);
    let (private, kafkas): (Vec<_>, Vec<_>) = ApiKey::ALL.iter().copied().partition(|key| key.is_private());
    assert!(private.iter().all(|key| !key.on_broker() && !key.on_controller()));
    let numbers: Vec<i16> = kafkas.into_iter().map(i16::from).collect();
    let expected: Vec<i16> = (0..=3).chain(8..=94).collect();
    assert_eq!(numbers, expected);
    for &key in ApiKey::ALL {
        assert_eq!(ApiKey::try_from(key as i16), Ok(key));
    }
    assert!(ApiKey::try_from(4).is_err());
    assert_eq!(ApiKey::InitProducerId.valid_versions(), 0..=6);
    assert_eq!(ApiKey::InitProducerId.stable_versions(), 0..=5);
}
