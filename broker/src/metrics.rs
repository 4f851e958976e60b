//! Metrics: counters that the hot paths add to, and the text of `/metrics`, in which everything else is computed from a
//! snapshot when somebody asks.
//!
//! [`table`] declares each metric once. Counters are plain atomics, found once and then held: a topic's eight take 64
//! bytes, where a registry's own would take some kilobytes for each of 50,000 topics. The `prometheus` crate gives what
//! it knows about the process.

mod collect;
mod requests;
mod snapshot;
pub mod table;
mod text;
mod times;

#[cfg(test)]
mod docs_test;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use klamm_protocol::{ApiKey, ErrorCode};
use parking_lot::Mutex;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

pub use collect::space;
pub use snapshot::{
    BrokerFacts, ControllerFacts, GroupFacts, LogFacts, MetricsSource, PartitionFacts, QuorumNode, Snapshot, TopicFacts,
};
pub use times::Times;

use requests::Requests;
use table::Def;
use text::Text;
use times::{Window, histogram};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! topic_counters {
    ($($(#[$doc:meta])* $field:ident: $def:ident),+ $(,)?) => {
        /// Counters of a topic.
        #[derive(Debug, Default)]
        pub struct TopicCounters { $($(#[$doc])* pub $field: Counter),+ }

        impl TopicCounters {
            const DEFS: &[(&Def, fn(&TopicCounters) -> &Counter)] = &[$((&table::$def, |c| &c.$field)),+];
        }
    };
}

topic_counters! {
    /// Bytes produced.
    bytes_in: BYTES_IN,
    /// Bytes consumed.
    bytes_out: BYTES_OUT,
    /// Bytes of refused batches.
    bytes_rejected: BYTES_REJECTED,
    /// Records produced.
    messages_in: MESSAGES_IN,
    /// Produce requests that named the topic.
    produce_requests: PRODUCE_REQUESTS,
    /// Fetch requests that named the topic.
    fetch_requests: FETCH_REQUESTS,
    /// Produce requests refused for the topic.
    failed_produce_requests: FAILED_PRODUCE,
    /// Fetch requests refused for the topic.
    failed_fetch_requests: FAILED_FETCH,
}

/// A topic's counters, found once and kept by whoever serves the topic.
#[derive(Clone, Debug)]
pub struct TopicMetrics(Arc<TopicCounters>);

impl Deref for TopicMetrics {
    type Target = TopicCounters;

    fn deref(&self) -> &TopicCounters {
        &self.0
    }
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, TopicMetrics>,
    /// What deleted topics had counted: the sums over all topics must not fall.
    gone: TopicCounters,
}

/// All metrics of the broker.
#[derive(Debug, Default)]
pub struct Metrics {
    topics: Mutex<Topics>,
    requests: Requests,
    flushes: Times,
    connections_created: Counter,
    connections_refused: Counter,
    connections_expired: Counter,
    damages: Counter,
    panics: Counter,
    /// What rendering remembers from one time to the next; also keeps renderings from running side by side.
    rendering: Mutex<Rendering>,
}

#[derive(Debug, Default)]
struct Rendering {
    requests: requests::Windows,
    flushes: Window,
}

impl Metrics {
    /// Nothing counted.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// The counters of a topic.
    pub fn topic(&self, name: &str) -> TopicMetrics {
        let mut topics = self.topics.lock();
        if let Some(metrics) = topics.by_name.get(name) {
            return metrics.clone();
        }
        let metrics = TopicMetrics(Arc::default());
        topics.by_name.insert(name.into(), metrics.clone());
        metrics
    }

    /// The topic is gone, and its series with it.
    pub fn remove_topic(&self, name: &str) {
        let mut topics = self.topics.lock();
        if let Some(metrics) = topics.by_name.remove(name) {
            for (_, field) in TopicCounters::DEFS {
                field(&topics.gone).inc_by(field(&metrics).get());
            }
        }
    }

    /// A request has been answered.
    pub fn request(&self, key: ApiKey, version: i16, elapsed: Duration) {
        self.requests.record(key, version, micros(elapsed));
    }

    /// An answer carried this error code; `ErrorCode::None` counts, too.
    pub fn request_error(&self, key: ApiKey, error: ErrorCode) {
        self.requests.error(key, error);
    }

    /// A log was flushed to disk.
    pub fn flush(&self, elapsed: Duration) {
        self.flushes.record(micros(elapsed));
    }

    /// A connection was accepted.
    pub fn connection_created(&self) {
        self.connections_created.inc();
    }

    /// A connection was closed at once because a limit is reached.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A connection was closed because it was idle.
    pub fn connection_expired(&self) {
        self.connections_expired.inc();
    }

    /// Damaged records were found.
    pub fn damage_found(&self) {
        self.damages.inc();
    }

    /// A panic was caught.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// The text of `/metrics`. `now_ms` is a clock that does not jump.
    pub fn render(&self, source: &dyn MetricsSource, now_ms: i64) -> String {
        let mut rendering = self.rendering.lock();
        let snapshot = source.snapshot();
        let mut text = Text::default();
        self.render_topics(&mut text);
        self.requests.render(&mut text, &mut rendering.requests, now_ms);
        rendering.flushes.summary(&mut text, &table::FLUSHES_MS, &[], &self.flushes, now_ms);
        histogram(&mut text, &table::FLUSH_SECONDS, &[], &self.flushes);
        for (def, counter) in [
            (&table::CONNECTIONS_CREATED, &self.connections_created),
            (&table::CONNECTIONS_REFUSED, &self.connections_refused),
            (&table::CONNECTIONS_EXPIRED, &self.connections_expired),
            (&table::DAMAGES, &self.damages),
            (&table::PANICS, &self.panics),
        ] {
            text.value(def, &[], counter.get());
        }
        snapshot.render(&mut text);
        render_process(&mut text);
        let mut out = text.finish();
        out.push_str(&process_metrics());
        out
    }

    fn render_topics(&self, text: &mut Text) {
        let topics = self.topics.lock();
        for (def, field) in TopicCounters::DEFS {
            let total: u64 = topics.by_name.values().map(|counters| field(counters).get()).sum();
            text.value(def, &[""], total + field(&topics.gone).get());
            for (name, counters) in &topics.by_name {
                text.value(def, &[name], field(counters).get());
            }
        }
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Memory, open files and so on of the process, in the names every Prometheus client uses.
fn process_metrics() -> String {
    let registry = Registry::new();
    if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
        tracing::debug!(%error, "no process metrics");
    }
    let mut families = registry.gather();
    // The crate counts whole seconds only; see below.
    families.retain(|family| family.name() != table::PROCESS_CPU.name);
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

/// CPU time, and what the kernel counts as real disk traffic of the process.
fn render_process(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, user and system time in hundredths of a second; the second field may hold blanks, and ends
    // with the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    if let [user, system] = ticks[..] {
        text.value(&table::PROCESS_CPU, &[], (user + system) as f64 / 100.0);
    }
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    for (def, name) in [(&table::DISK_READ, "read_bytes:"), (&table::DISK_WRITE, "write_bytes:")] {
        if let Some(bytes) = field(name) {
            text.value(def, &[], bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl MetricsSource for Nothing {
        fn snapshot(&self) -> Snapshot {
            Snapshot::default()
        }
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|l| l == line)
    }

    #[test]
    fn a_topics_series_come_and_go_and_the_sum_stays() {
        let metrics = Metrics::new();
        let (a, b) = (metrics.topic("a"), metrics.topic("b"));
        a.bytes_in.inc_by(10);
        metrics.topic("a").bytes_in.inc_by(1);
        b.bytes_in.inc_by(5);
        b.messages_in.inc();
        let text = metrics.render(&Nothing, 0);
        assert!(has(&text, "kafka_server_brokertopicmetrics_bytesin_total{topic=\"a\"} 11"), "{text}");
        assert!(has(&text, "kafka_server_brokertopicmetrics_bytesin_total 16"));
        metrics.remove_topic("a");
        metrics.remove_topic("a");
        let text = metrics.render(&Nothing, 1);
        assert!(!text.contains("topic=\"a\""));
        assert!(has(&text, "kafka_server_brokertopicmetrics_bytesin_total 16"));
        assert!(has(&text, "kafka_server_brokertopicmetrics_messagesin_total{topic=\"b\"} 1"));
    }

    #[test]
    fn every_line_is_well_formed_and_every_metric_has_one_head() {
        let metrics = Metrics::new();
        metrics.topic("t\"1").bytes_in.inc();
        metrics.request(ApiKey::Fetch, 17, Duration::from_micros(300));
        metrics.request_error(ApiKey::Fetch, ErrorCode::OffsetOutOfRange);
        metrics.flush(Duration::from_millis(3));
        let text = metrics.render(&Nothing, 0);
        let mut heads = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(heads.insert(rest.split(' ').next().unwrap().to_owned()), "twice: {line}");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(heads.contains(name) || base.is_some_and(|base| heads.contains(base)), "no head: {line}");
            }
        }
        assert!(
            has(&text, "kafka_network_requestmetrics_requests_total{request=\"Fetch\",version=\"17\"} 1"),
            "{text}"
        );
        let error = "kafka_network_requestmetrics_errors_total{request=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1";
        assert!(has(&text, error));
        assert!(text.contains("process_resident_memory_bytes") && text.contains("\nprocess_cpu_seconds_total "));
    }
}
