//! The broker under attack, and what must hold after each attack.

use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::{Request, frame, wire::Reader};
use klamm_tests::process::peak_kib;
use klamm_tests::wire::{Connection, brokers};
use klamm_tests::{Broker, Peer, eventually};

/// What one hostile connection may cost in resident memory.
pub const MIB_PER_CONNECTION: f64 = 8.0;

const LIMIT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A frame.
    Answered(Vec<u8>),
    /// The broker closed the connection.
    Closed,
    /// Neither, for as long as we waited.
    Silent,
}

impl Fate {
    /// What came of waiting for an answer.
    pub fn of(answer: std::io::Result<Vec<u8>>) -> Fate {
        match answer {
            Ok(body) => Fate::Answered(body),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Fate::Silent,
            Err(_) => Fate::Closed,
        }
    }
}

/// The broker, for one attack at a time.
pub struct Target {
    broker: &'static Broker,
    name: &'static str,
    rss_before_kib: u64,
    log_before: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Target {
    /// Takes the turn and notes the broker's memory and log.
    pub fn new(name: &'static str) -> Target {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        Target::on(&BROKER, name, &[])
    }

    /// The same with a broker that has little memory for requests under way.
    pub fn frugal(name: &'static str) -> Target {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        Target::on(&BROKER, name, &[("queued.max.request.bytes", "33554432")])
    }

    fn on(broker: &'static OnceLock<Broker>, name: &'static str, settings: &[(&str, &str)]) -> Target {
        static TURN: Mutex<()> = Mutex::new(());
        // A failed test must not fail the others.
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let all = [&[("num.partitions", "1"), ("log.cleaner.enable", "true")], settings].concat();
        let broker = broker.get_or_init(|| Broker::start(&all));
        let pid = broker.pid();
        // Peak memory is counted from here on.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Target { broker, name, rss_before_kib: broker.rss_kib(), log_before: broker.log().len(), _turn: turn }
    }

    /// Whether it is Klamm; Kafka's memory and log are no measure.
    pub fn is_klamm(&self) -> bool {
        self.broker.peer() == Peer::Klamm
    }

    /// A new connection.
    pub fn connect(&self) -> Connection {
        self.connect_for(LIMIT)
    }

    /// A new connection that gives up waiting after `limit`.
    #[track_caller]
    pub fn connect_for(&self, limit: Duration) -> Connection {
        let connection = Connection::open(self.broker.bootstrap(), limit);
        connection.unwrap_or_else(|e| panic!("{}: the broker takes no connection: {e}", self.name))
    }

    /// Sends one request in the codec's own encoding and reads its response.
    #[track_caller]
    pub fn call<R: Request>(&self, request: &R, version: i16) -> R::Response {
        let bytes = frame::encode_request(7, Some("hostile"), request, version).and_then(|e| e.into_bytes());
        let bytes = bytes.unwrap_or_else(|e| panic!("{e}"));
        let mut connection = self.connect();
        connection.send_raw(&bytes).expect("the request is sent");
        let answer = connection.receive().unwrap_or_else(|e| panic!("{} v{version}: no answer: {e}", R::NAME));
        let response = frame::decode_response::<R>(&mut Reader::new(Bytes::from(answer)), version);
        response.unwrap_or_else(|e| panic!("{} v{version}: {e}", R::NAME)).1
    }

    /// Creates a topic with one partition and waits until it takes requests.
    #[track_caller]
    pub fn topic(&self, name: &str, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let response = self.call(&request, 5);
        assert_eq!(response.topics.first().map(|t| t.error_code), Some(0), "{response:?}");
        eventually("the topic takes requests", 20, || {
            let code = super::batch::produce(self, name, &super::batch::plain(&[b"first"]));
            (code == Some(0)).then_some(())
        });
    }

    /// How far resident memory has risen at most since the attack began, in MiB.
    pub fn rise(&self) -> f64 {
        peak_kib(self.broker.pid()).saturating_sub(self.rss_before_kib) as f64 / 1024.0
    }

    /// What must hold after an attack over `connections` connections; prints the figures.
    #[track_caller]
    pub fn unharmed(&self, connections: usize) {
        let known = brokers(self.broker.bootstrap());
        assert!(matches!(known, Ok(1)), "{}: the broker no longer serves: {known:?}", self.name);
        let rise = self.rise();
        let per_connection = rise / connections.max(1) as f64;
        let log = self.broker.log();
        let new = log.get(self.log_before..).unwrap_or_default();
        let lines = new.lines().count();
        println!(
            "{}: {connections} connections, RSS peak +{rise:.1} MiB ({per_connection:.2} each), {lines} log lines",
            self.name
        );
        if self.is_klamm() {
            assert!(per_connection <= MIB_PER_CONNECTION, "{per_connection:.1} MiB for a hostile connection");
            assert!(!new.contains("panicked"), "a panic:\n{new}");
            assert!(lines <= connections + 5, "{lines} log lines for {connections} connections:\n{}", head(new));
        }
    }
}

fn head(text: &str) -> String {
    text.lines().take(20).collect::<Vec<_>>().join("\n")
}
