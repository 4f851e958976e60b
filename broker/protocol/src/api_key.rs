//! The API keys and what must be known about a key before its body can be read.

use std::{fmt, ops::RangeInclusive};

use crate::wire::{DecodeError, DecodeErrorKind};

include!(concat!(env!("OUT_DIR"), "/api_keys.rs"));

/// What the schema says about a key.
struct Entry {
    name: &'static str,
    min: i16,
    max: i16,
    /// Newest version that is not marked unstable.
    max_stable: i16,
    request_flexible: i16,
    response_flexible: i16,
    broker: bool,
    controller: bool,
}

impl ApiKey {
    fn entry(self) -> &'static Entry {
        // `ENTRIES` is in the order of the variants.
        &ENTRIES[self.index()]
    }

    /// Kafka's name, e.g. `Produce`.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// All versions the codec knows.
    pub fn valid_versions(self) -> RangeInclusive<i16> {
        let entry = self.entry();
        entry.min..=entry.max
    }

    /// The versions that may be announced: without those still marked unstable.
    pub fn stable_versions(self) -> RangeInclusive<i16> {
        let entry = self.entry();
        entry.min..=entry.max_stable
    }

    /// The version of the request header that goes with a request of `version`: 1, or 2 with tagged fields.
    pub fn request_header_version(self, version: i16) -> i16 {
        if version >= self.entry().request_flexible { 2 } else { 1 }
    }

    /// The version of the response header that goes with a response of `version`: 0, or 1 with tagged fields.
    pub fn response_header_version(self, version: i16) -> i16 {
        // A client that does not know the broker's versions yet must be able to read this one in any case.
        if self == Self::ApiVersions || version < self.entry().response_flexible { 0 } else { 1 }
    }

    /// True when Kafka's brokers answer it.
    pub fn on_broker(self) -> bool {
        self.entry().broker
    }

    /// True when Kafka's controllers answer it.
    pub fn on_controller(self) -> bool {
        self.entry().controller
    }

    /// True when the key is none of Kafka's: brokers of one cluster use it among themselves.
    pub fn is_private(self) -> bool {
        self as i16 >= Self::PRIVATE_MIN
    }

    /// The lowest key that is not Kafka's.
    pub const PRIVATE_MIN: i16 = 10_000;
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<i16> for ApiKey {
    type Error = DecodeError;

    fn try_from(key: i16) -> Result<Self, DecodeError> {
        Self::from_i16(key).ok_or_else(|| DecodeError::new(DecodeErrorKind::Key(key.into()), "api_key", 0))
    }
}

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> i16 {
        key as i16
    }
}
