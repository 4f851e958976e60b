//! The load: idempotent producers with acks=all, readers by assignment, a group with commits, a watcher of watermarks.
//!
//! All of it over `klamm-client`, on a runtime of its own, so that a test's thread is free to do harm. Everything that
//! happens is noted in a [`History`]; errors of clients are counted, for the client is to live through every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::group::{GroupConsumer, GroupOptions};
use klamm_client::{
    Client, ClientOptions, ConnectionOptions, Consumer, ConsumerOptions, Delivery, Isolation, OutOfRange, Producer,
    ProducerOptions, ProducerRecord, TopicPartition,
};

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::history::{CommitLook, History, Outcome, Reader, Seen, Send, Value};
use crate::random::Random;

/// Records of one producer in one partition that may wait for their acknowledgement.
const OUTSTANDING: usize = 400;

/// What kind of load.
#[derive(Debug, Clone)]
pub struct Load {
    /// The topic, which is there already.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many idempotent producers with acks=all.
    pub producers: u32,
    /// Records a second of each producer.
    pub rate: u32,
    /// Size of a record's value.
    pub value_bytes: usize,
    /// Readers that have all partitions assigned.
    pub readers: usize,
    /// Members of one group that commit.
    pub members: usize,
    /// What all choices are drawn from.
    pub seed: u64,
    /// How long a record is tried.
    pub delivery_timeout: Duration,
}

impl Load {
    /// Three producers of 1,000 records a second, a reader, two members.
    pub fn new(topic: &str, partitions: i32, seed: u64) -> Load {
        Load {
            topic: topic.to_owned(),
            partitions,
            producers: 3,
            rate: 1000,
            value_bytes: 100,
            readers: 1,
            members: 2,
            seed,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// Options of a client that means to live through faults: it gives up on a silent broker soon, and on nothing else.
pub fn options() -> ClientOptions {
    ClientOptions {
        connection: ConnectionOptions {
            connect_timeout: Duration::from_millis(1500),
            request_timeout: Duration::from_secs(3),
            ..Default::default()
        },
        api_timeout: Duration::from_secs(60),
        backoff: Duration::from_millis(20),
        backoff_max: Duration::from_millis(250),
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    bootstrap: String,
    start: Instant,
    /// No further sends.
    enough: AtomicBool,
    /// Where each partition ends, once all sends are settled: readers stop there.
    ends: Mutex<Option<BTreeMap<i32, i64>>>,
    acked: AtomicU64,
    /// Milliseconds since the start of the last acknowledgement by partition.
    last_ack: Vec<AtomicU64>,
    errors: Mutex<BTreeMap<String, u64>>,
    sends: Mutex<Vec<Send>>,
    /// Highest acknowledged commit by partition.
    promised: Mutex<BTreeMap<i32, i64>>,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn error(&self, who: &str, error: &dyn std::fmt::Display) {
        let mut errors = lock(&self.errors);
        *errors.entry(format!("{who}: {error}")).or_default() += 1;
    }

    fn ends(&self) -> Option<BTreeMap<i32, i64>> {
        lock(&self.ends).clone()
    }

    async fn client(&self, who: &str) -> Client {
        loop {
            match Client::connect(&self.bootstrap, options()).await {
                Ok(client) => return client,
                Err(error) => self.error(who, &error),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for a task that has no reason to go on for long.
    async fn end<T>(&self, what: &str, task: JoinHandle<T>) -> T {
        match timeout(Duration::from_secs(90), task).await {
            Ok(ended) => ended.unwrap_or_else(|e| panic!("{what}: {e}")),
            Err(_) => panic!(
                "{what} did not come to the end {:?}; promised {:?}; errors {:#?}",
                self.ends(),
                lock(&self.promised),
                lock(&self.errors)
            ),
        }
    }

    fn group(&self) -> String {
        format!("{}-group", self.load.topic)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A load that runs.
#[derive(Debug)]
pub struct Running {
    runtime: Runtime,
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<Reader>>,
    members: Vec<JoinHandle<Reader>>,
    commits: JoinHandle<Vec<CommitLook>>,
    watermarks: JoinHandle<BTreeMap<i32, Vec<i64>>>,
}

impl Load {
    /// Starts it all.
    pub fn start(self, bootstrap: &str) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Shared {
            last_ack: (0..self.partitions).map(|_| AtomicU64::new(0)).collect(),
            load: self,
            bootstrap: bootstrap.to_owned(),
            start: Instant::now(),
            enough: AtomicBool::new(false),
            ends: Mutex::default(),
            acked: AtomicU64::new(0),
            errors: Mutex::default(),
            sends: Mutex::default(),
            promised: Mutex::default(),
        });
        let load = &shared.load;
        Running {
            producers: (0..load.producers).map(|n| runtime.spawn(produce(shared.clone(), n))).collect(),
            readers: (0..load.readers).map(|n| runtime.spawn(read(shared.clone(), n))).collect(),
            members: (0..load.members).map(|n| runtime.spawn(join(shared.clone(), n))).collect(),
            commits: runtime.spawn(look_at_commits(shared.clone())),
            watermarks: runtime.spawn(watch(shared.clone())),
            shared,
            runtime,
        }
    }
}

impl Running {
    /// Records acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// What the run was drawn from.
    pub fn seed(&self) -> u64 {
        self.shared.load.seed
    }

    /// Milliseconds since the run began.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Waits until every partition has had an acknowledgement of a record after `since_ms`; gives how long after.
    #[track_caller]
    pub fn writable_since(&self, since_ms: u64, limit: Duration) -> Duration {
        let all = || {
            let last = self.shared.last_ack.iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or(0);
            (last > since_ms).then_some(())
        };
        let started = Instant::now();
        assert!(
            crate::wait_for(limit, all).is_some(),
            "not every partition could be written to within {:?}; last acknowledgements at {:?} of {} ms\n{}",
            started.elapsed(),
            self.shared.last_ack,
            self.now_ms(),
            self.errors().join("\n")
        );
        Duration::from_millis(self.now_ms().saturating_sub(since_ms))
    }

    /// Waits for this many more acknowledgements.
    #[track_caller]
    pub fn more(&self, count: u64, limit: Duration) {
        let goal = self.acked() + count;
        let reached = crate::wait_for(limit, || (self.acked() >= goal).then_some(()));
        assert!(reached.is_some(), "{} of {goal} acknowledged\n{}", self.acked(), self.errors().join("\n"));
    }

    /// Errors that clients gave out, with how often.
    pub fn errors(&self) -> Vec<String> {
        lock(&self.shared.errors).iter().map(|(what, count)| format!("{count} × {what}")).collect()
    }

    /// How many errors the clients of one kind (`producer`, `reader`, `member`) gave out.
    pub fn errors_of(&self, who: &str) -> u64 {
        lock(&self.shared.errors).iter().filter(|(what, _)| what.starts_with(who)).map(|(_, count)| count).sum()
    }

    /// Ends the sending, lets everybody read to the end, reads the log once more and gives it all.
    #[track_caller]
    pub fn finish(self) -> History {
        let Running { runtime, shared, producers, readers, members, commits, watermarks } = self;
        shared.enough.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for producer in producers {
                producer.await.expect("a producer");
            }
            let log = timeout(Duration::from_secs(600), whole_log(&shared)).await.expect("the log is read in time");
            let ends = log.iter().map(|(p, log)| (*p, log.last().map_or(0, |s| s.offset + 1))).collect();
            *lock(&shared.ends) = Some(ends);
            let sends = std::mem::take(&mut *lock(&shared.sends));
            let topic = shared.load.topic.clone();
            let mut history = History { topic, log, sends, ..History::default() };
            for reader in readers {
                history.readers.push(shared.end("a reader", reader).await);
            }
            for member in members {
                history.members.push(shared.end("a member of the group", member).await);
            }
            history.commits = shared.end("the look at commits", commits).await;
            history.watermarks.push(shared.end("the watcher", watermarks).await);
            history
        })
    }
}

async fn produce(shared: Arc<Shared>, number: u32) {
    let who = format!("producer {number}");
    let client = shared.client(&who).await;
    let options = ProducerOptions {
        linger: Duration::from_millis(5),
        delivery_timeout: shared.load.delivery_timeout,
        ..Default::default()
    };
    let producer = Producer::start(&client, options).expect("good options");
    // Deliveries of one partition settle in order; those of another must not wait for them.
    let mut collectors = Vec::new();
    let mut queues = Vec::new();
    for partition in 0..shared.load.partitions {
        let (queue, deliveries) = mpsc::unbounded_channel();
        queues.push((queue, Arc::new(Semaphore::new(OUTSTANDING))));
        collectors.push(tokio::spawn(collect(shared.clone(), partition, deliveries, who.clone())));
    }
    let mut random = Random::new(shared.load.seed.wrapping_mul(31).wrapping_add(u64::from(number)));
    let began = Instant::now();
    let mut next = 0u32;
    while !shared.enough.load(Ordering::Relaxed) {
        // In step with the rate, a few records each time; what a stall held up is made up for.
        let due = began + Duration::from_secs_f64(f64::from(next) / f64::from(shared.load.rate));
        if let Some(early) = due.checked_duration_since(Instant::now()).filter(|early| early.as_millis() > 2) {
            sleep(early).await;
            continue;
        }
        let value = Value { producer: number, number: next };
        let partition = i32::try_from(random.below(shared.load.partitions as u64)).unwrap_or(0);
        let (queue, room) = &queues[partition as usize];
        let Ok(permit) = room.clone().try_acquire_owned() else {
            // One partition that stands still must not hold up the others.
            sleep(Duration::from_millis(2)).await;
            continue;
        };
        next += 1;
        let record = ProducerRecord {
            topic: shared.load.topic.clone(),
            partition: Some(partition),
            key: Some(format!("k{}", random.below(500)).into()),
            value: Some(value.to_bytes(shared.load.value_bytes).into()),
            ..Default::default()
        };
        let sent_ms = shared.now_ms() as u32;
        match producer.send(record).await {
            Ok(delivery) => {
                // The collector lives as long as its queue.
                let _ = queue.send((value, sent_ms, delivery, permit));
            }
            Err(error) => {
                shared.error(&who, &error);
                lock(&shared.sends).push(Send {
                    value,
                    partition,
                    outcome: Outcome::Failed,
                    sent_ms,
                    done_ms: sent_ms,
                });
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(queues);
    for collector in collectors {
        let _ = collector.await;
    }
}

type Underway = (Value, u32, Delivery, tokio::sync::OwnedSemaphorePermit);

async fn collect(shared: Arc<Shared>, partition: i32, mut queue: mpsc::UnboundedReceiver<Underway>, who: String) {
    let mut done = Vec::new();
    while let Some((value, sent_ms, delivery, _permit)) = queue.recv().await {
        let outcome = match delivery.wait().await {
            Ok(delivered) => {
                shared.acked.fetch_add(1, Ordering::Relaxed);
                shared.last_ack[partition as usize].store(u64::from(sent_ms).max(1), Ordering::Relaxed);
                Outcome::Acked { offset: delivered.offset, leader: delivered.leader }
            }
            Err(error) => {
                shared.error(&who, &error);
                Outcome::Unknown
            }
        };
        done.push(Send { value, partition, outcome, sent_ms, done_ms: shared.now_ms() as u32 });
    }
    lock(&shared.sends).extend(done);
}

fn consumer_options() -> ConsumerOptions {
    // A position that is out of range means that something committed is gone.
    ConsumerOptions { out_of_range: OutOfRange::Fail, max_wait: Duration::from_millis(200), ..Default::default() }
}

fn at_the_start(shared: &Shared) -> Vec<(TopicPartition, i64)> {
    (0..shared.load.partitions).map(|p| (TopicPartition::new(&shared.load.topic, p), 0)).collect()
}

fn reached(positions: &BTreeMap<TopicPartition, i64>, ends: &BTreeMap<i32, i64>) -> bool {
    positions.iter().all(|(at, position)| ends.get(&at.partition).is_none_or(|end| position >= end))
}

async fn read(shared: Arc<Shared>, number: usize) -> Reader {
    let mut reader = Reader::new(format!("reader {number}"));
    let client = shared.client(&reader.name).await;
    until_known(&shared, &client).await;
    let mut consumer = Consumer::new(&client, consumer_options());
    consumer.assign(at_the_start(&shared));
    loop {
        match consumer.poll(1000).await {
            Ok(records) => note(&mut reader, &shared, records),
            Err(error) => {
                shared.error(&reader.name, &error);
                sleep(Duration::from_millis(100)).await;
            }
        }
        if shared.ends().is_some_and(|ends| reached(&consumer.positions(), &ends)) {
            return reader;
        }
    }
}

fn note(reader: &mut Reader, shared: &Shared, records: Vec<klamm_client::ConsumedRecord>) {
    for record in records {
        match record.value.as_deref().and_then(Value::parse) {
            Some(value) => {
                let seen = Seen { offset: record.offset, value, epoch: record.leader_epoch };
                reader.saw(record.partition, seen);
            }
            None => shared.error(&reader.name, &format!("offset {} holds no value of ours", record.offset)),
        }
    }
}

/// Metadata of the topic, without which a consumer finds no leader.
async fn until_known(shared: &Shared, client: &Client) {
    while let Err(error) = client.topic(&shared.load.topic).await {
        shared.error("metadata", &error);
        sleep(Duration::from_millis(100)).await;
    }
}

async fn join(shared: Arc<Shared>, number: usize) -> Reader {
    let mut reader = Reader::new(format!("member {number}"));
    let client = shared.client(&reader.name).await;
    let options = GroupOptions {
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_millis(500),
        auto_commit_interval: None,
        start: OffsetSpec::Earliest,
        ..Default::default()
    };
    let topics = [shared.load.topic.clone()];
    let mut member = GroupConsumer::new(&client, &shared.group(), topics, options, consumer_options());
    let mut generation = 0;
    let mut commit_due = Instant::now();
    loop {
        let polled = member.poll(1000).await;
        if member.generation() != generation {
            generation = member.generation();
            reader.moved();
        }
        match polled {
            Ok(records) => note(&mut reader, &shared, records),
            Err(error) => {
                shared.error(&reader.name, &error);
                sleep(Duration::from_millis(100)).await;
            }
        }
        let ends = shared.ends();
        let positions = member.positions();
        let at_end = member.is_member() && ends.as_ref().is_some_and(|ends| reached(&positions, ends));
        if commit_due <= Instant::now() || at_end {
            commit_due = Instant::now() + Duration::from_millis(300);
            match member.commit().await {
                Ok(()) => {
                    let mut promised = lock(&shared.promised);
                    // At its start a partition may have nothing committed.
                    for (at, offset) in positions.iter().filter(|(_, offset)| **offset > 0) {
                        let highest = promised.entry(at.partition).or_default();
                        *highest = (*highest).max(*offset);
                    }
                }
                Err(error) => shared.error(&format!("commit of {}", reader.name), &error),
            }
        }
        // The group is done when all that was committed reaches to the end; then also those without partitions go.
        if let Some(ends) = &ends
            && ends.iter().all(|(p, end)| *end == 0 || lock(&shared.promised).get(p).is_some_and(|at| at >= end))
        {
            return reader;
        }
    }
}

async fn look_at_commits(shared: Arc<Shared>) -> Vec<CommitLook> {
    let mut looks = Vec::new();
    if shared.load.members == 0 {
        return looks;
    }
    let client = shared.client("watcher").await;
    while shared.ends().is_none() {
        sleep(Duration::from_millis(500)).await;
        let promised = lock(&shared.promised).clone();
        match client.group_offsets(&shared.group(), false).await {
            Ok(offsets) => {
                for (partition, promised) in promised {
                    let found = offsets.get(&TopicPartition::new(&shared.load.topic, partition));
                    let found = found.map_or(-1, |c| c.offset);
                    looks.push(CommitLook { partition, promised, found });
                }
            }
            Err(error) => shared.error("watcher", &error),
        }
    }
    looks
}

async fn watch(shared: Arc<Shared>) -> BTreeMap<i32, Vec<i64>> {
    let client = shared.client("watcher").await;
    let all: BTreeSet<TopicPartition> = at_the_start(&shared).into_iter().map(|(at, _)| at).collect();
    let mut series: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    while shared.ends().is_none() {
        match client.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await {
            Ok(offsets) => {
                for (at, listed) in offsets {
                    match listed {
                        Ok(listed) => series.entry(at.partition).or_default().push(listed.offset),
                        Err(error) => shared.error("watcher", &error),
                    }
                }
            }
            Err(error) => shared.error("watcher", &error),
        }
        sleep(Duration::from_millis(200)).await;
    }
    series
}

/// The log from its beginning to the end it has now.
async fn whole_log(shared: &Shared) -> BTreeMap<i32, Vec<Seen>> {
    let client = shared.client("final read").await;
    let all: BTreeSet<TopicPartition> = at_the_start(shared).into_iter().map(|(at, _)| at).collect();
    let ends = loop {
        let listed = client.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await;
        let ends = listed.and_then(|l| l.into_iter().map(|(at, o)| Ok((at.partition, o?.offset))).collect());
        match ends {
            Ok(ends) => break ends,
            Err(error) => shared.error("final read", &error),
        }
    };
    let ends: BTreeMap<i32, i64> = ends;
    let mut reader = Reader::new("final read");
    let mut consumer = Consumer::new(&client, consumer_options());
    consumer.assign(at_the_start(shared));
    while !reached(&consumer.positions(), &ends) {
        match consumer.poll(5000).await {
            Ok(records) => note(&mut reader, shared, records),
            Err(error) => {
                shared.error("final read", &error);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let one = |(p, stretches): (i32, Vec<Vec<Seen>>)| (p, stretches.into_iter().flatten().collect());
    reader.stretches.into_iter().map(one).collect()
}
