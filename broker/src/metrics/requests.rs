//! Requests by key: how many of each version, which error codes, how long they took. Tables by key are made when a key
//! is first used, so that the eighty keys nobody asks for cost nothing.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use klamm_protocol::{ApiKey, ErrorCode};
use parking_lot::Mutex;

use super::table;
use super::text::Text;
use super::times::{Times, Window, histogram};

/// More than there are keys.
const KEYS: usize = 128;
/// More than any key has versions; a newer one is counted with the last.
const VERSIONS: usize = 24;

/// What is counted for one key.
#[derive(Debug, Default)]
struct Counted {
    versions: [AtomicU64; VERSIONS],
    times: Times,
    errors: Mutex<BTreeMap<i16, u64>>,
}

/// Counters of all keys.
#[derive(Debug)]
pub(super) struct Requests {
    keys: [OnceLock<Box<Counted>>; KEYS],
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { keys: [const { OnceLock::new() }; KEYS] }
    }
}

/// What rendering remembers of each key.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// By key, and by which of its names.
    by_name: BTreeMap<(usize, usize), Window>,
}

impl Requests {
    fn key(&self, key: ApiKey) -> &Counted {
        let at = usize::try_from(key as i16).unwrap_or(0).min(KEYS - 1);
        self.keys[at].get_or_init(Box::default)
    }

    pub(super) fn record(&self, key: ApiKey, version: i16, us: u64) {
        let counted = self.key(key);
        let version = usize::try_from(version).unwrap_or(0).min(VERSIONS - 1);
        counted.versions[version].fetch_add(1, Ordering::Relaxed);
        counted.times.record(us);
    }

    pub(super) fn error(&self, key: ApiKey, error: ErrorCode) {
        *self.key(key).errors.lock().entry(error.code()).or_default() += 1;
    }

    pub(super) fn render(&self, text: &mut Text, windows: &mut Windows, now_ms: i64) {
        let used = || {
            let all = self.keys.iter().enumerate();
            all.filter_map(|(at, counted)| Some((at, key_of(at)?, &**counted.get()?)))
        };
        for (_, key, counted) in used() {
            for name in names(key) {
                for (version, count) in counted.versions.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        text.value(&table::REQUESTS, &[name, &version.to_string()], count);
                    }
                }
            }
        }
        for (_, key, counted) in used() {
            for (code, count) in counted.errors.lock().iter() {
                let error = ErrorCode::from_code(*code).name();
                names(key).for_each(|name| text.value(&table::REQUEST_ERRORS, &[name, error], count));
            }
        }
        for (at, key, counted) in used() {
            for (i, name) in names(key).enumerate() {
                let window = windows.by_name.entry((at, i)).or_default();
                window.summary(text, &table::REQUEST_TIME_MS, &[name], &counted.times, now_ms);
            }
        }
        for (_, key, counted) in used() {
            histogram(text, &table::REQUEST_SECONDS, &[key.name()], &counted.times);
        }
    }
}

fn key_of(at: usize) -> Option<ApiKey> {
    i16::try_from(at).ok().and_then(ApiKey::from_i16)
}

/// The names a key's series have. Kafka counts a consumer's fetch under a name of its own as well; there are no
/// followers yet, so every fetch is one.
fn names(key: ApiKey) -> impl Iterator<Item = &'static str> {
    let consumer = (key == ApiKey::Fetch).then_some("FetchConsumer");
    std::iter::once(key.name()).chain(consumer)
}
