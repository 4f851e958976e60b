//! Fetching against a leader played by the test: real partitions on both sides, and links that the test can cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use klamm_log::faulty::{Fault, FaultyDisk, Op};
use klamm_log::{Log, Recovery};
use klamm_metadata::Partition as Registered;
use klamm_protocol::Records;
use klamm_protocol::batch::BatchBuilder;
use klamm_protocol::messages::fetch_response::FetchableTopicResponse;

use super::*;
use crate::config::{BrokerConfig, Entries, Layers, Settings, TopicConfig};
use crate::metrics::Metrics;
use crate::replica::leader::Progress;
use crate::replica::partition::{Acks, Append, Origin, Topic};
use crate::replica::roles::{FollowerFetch, FollowerRead, FollowerRefused};
use crate::replica::waiting::FetchWaiter;

const PATIENCE_HERE: Duration = Duration::from_millis(50);
const TOPIC: Uuid = Uuid([9; 16]);

fn open(disk: &FaultyDisk, dir: &std::path::Path, node: i32, index: i32) -> Arc<Partition> {
    let config = Arc::new(TopicConfig::resolve(&Layers::default(), &Entries::new()));
    let path = dir.join(format!("{node}/t-{index}"));
    std::fs::create_dir_all(&path).unwrap();
    let log = Log::open(Arc::new(disk.clone()), &path, TOPIC, config.log.clone(), Recovery::default(), 0).unwrap();
    let topic = Topic::new("t".into(), TOPIC, Metrics::new().topic("t"), config);
    let around = Around::new(node, 30_000);
    *around.live.write() = Arc::new([(0, 1), (1, 1)].into());
    Arc::new(Partition::new(Arc::new(topic), index, log, 0, around))
}

fn registered() -> Registered {
    Registered {
        replicas: vec![0, 1],
        directories: vec![Uuid::ZERO; 2],
        isr: vec![0, 1],
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        leader: 0,
        leader_epoch: 0,
        partition_epoch: 0,
        leader_recovery_state: 0,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
    }
}

/// Broker 0.
#[derive(Default)]
struct Leader {
    partitions: BTreeMap<i32, Arc<Partition>>,
    connections: AtomicUsize,
    cut: AtomicBool,
    /// So many fetches get no answer, as when packets are lost.
    silent: AtomicUsize,
    /// A fetch that asks for a shorter wait is answered after it.
    longest_wait_ms: i32,
}

/// A connection to it with its one session.
struct Session {
    leader: Arc<Leader>,
    wants: Mutex<BTreeMap<i32, FetchPartition>>,
    epoch: Mutex<i32>,
    answered: AtomicU64,
}

impl Peers for Arc<Leader> {
    fn connect(&self, broker: i32) -> Boxed<'_, Result<Box<dyn Link>, String>> {
        assert_eq!(broker, 0);
        self.connections.fetch_add(1, Ordering::SeqCst);
        let session = Session {
            leader: self.clone(),
            wants: Mutex::default(),
            epoch: Mutex::new(0),
            answered: AtomicU64::default(),
        };
        Box::pin(async move { Ok(Box::new(session) as Box<dyn Link>) })
    }
}

impl Session {
    fn read(&self, fresh: bool) -> Vec<PartitionData> {
        let mut answers = Vec::new();
        for (index, wants) in self.wants.lock().iter() {
            let fetch = FollowerFetch {
                progress: Progress {
                    follower: 1,
                    broker_epoch: 1,
                    fetch_offset: wants.fetch_offset,
                    log_start: wants.log_start_offset,
                    sent_after: self.answered.load(Ordering::SeqCst),
                },
                leader_epoch: wants.current_leader_epoch,
                last_fetched_epoch: wants.last_fetched_epoch,
                max_bytes: usize::try_from(wants.partition_max_bytes).unwrap(),
                min_one: true,
                fresh,
            };
            let read = match self.leader.partitions[index].read_for_follower(&fetch, 0) {
                Err(FollowerRefused::Code(code)) => {
                    let error_code = code.code();
                    answers.push(PartitionData { partition_index: *index, error_code, ..Default::default() });
                    continue;
                }
                read => read.unwrap(),
            };
            let (FollowerRead::Records(read), offsets) = read else { panic!("the logs don't differ") };
            let Some(range) = read.range else { continue };
            let mut bytes = vec![0; range.len as usize];
            std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut bytes, range.position).unwrap();
            answers.push(PartitionData {
                partition_index: *index,
                high_watermark: offsets.high_watermark,
                log_start_offset: offsets.log_start,
                records: Some(Records::Bytes(bytes.into())),
                ..Default::default()
            });
        }
        answers
    }
}

impl Link for Session {
    fn fetch<'a>(&'a self, request: &'a FetchRequest, _: Duration) -> Boxed<'a, Result<FetchResponse, String>> {
        Box::pin(async move {
            assert_eq!(request.session_epoch, *self.epoch.lock(), "epochs follow each other");
            assert_eq!(request.session_id, if request.session_epoch == 0 { 0 } else { 5 });
            *self.epoch.lock() += 1;
            for wants in request.topics.iter().flat_map(|topic| topic.partitions.clone()) {
                self.wants.lock().insert(wants.partition, wants);
            }
            for gone in request.forgotten_topics_data.iter().flat_map(|topic| topic.partitions.clone()) {
                self.wants.lock().remove(&gone);
            }
            let silent = |n: usize| n.checked_sub(1);
            if self.leader.silent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, silent).is_ok() {
                std::future::pending::<()>().await;
            }
            let mut fresh = true;
            loop {
                let waiter = FetchWaiter::new(1);
                for index in self.wants.lock().keys() {
                    self.leader.partitions[index].follower_waiters().register(&waiter);
                }
                let partitions = self.read(fresh);
                fresh = false;
                if self.leader.cut.swap(false, Ordering::SeqCst) {
                    return Err("cut".into());
                }
                let sent_after = self.answered.load(Ordering::SeqCst);
                let wanted = |index: &i32| self.leader.partitions[index].wants_fetch_after(sent_after);
                if !partitions.is_empty() || self.wants.lock().keys().any(wanted) {
                    let moments = self.leader.partitions.values().map(|p| p.around.moment.load(Ordering::SeqCst));
                    self.answered.store(moments.max().unwrap_or(0), Ordering::SeqCst);
                    let topic = FetchableTopicResponse { topic_id: TOPIC, partitions, ..Default::default() };
                    return Ok(FetchResponse { session_id: 5, responses: vec![topic], ..Default::default() });
                }
                // Nobody but the test ends the longest wait: a fetch that needs its timer would hang.
                let wait = u64::try_from(request.max_wait_ms).unwrap();
                if request.max_wait_ms == self.leader.longest_wait_ms {
                    waiter.woken().await;
                } else if timeout(Duration::from_millis(wait), waiter.woken()).await.is_err() {
                    return Ok(FetchResponse { session_id: 5, ..Default::default() });
                }
            }
        })
    }
}

struct Pair {
    _dir: tempfile::TempDir,
    leader: Arc<Leader>,
    followers: Vec<Arc<Partition>>,
    fetchers: Arc<Fetchers>,
    /// The followers'.
    disk: FaultyDisk,
    /// How often a follower told that there is no room for what its leader waits for.
    full: Arc<AtomicUsize>,
}

fn pair(partitions: i32) -> Pair {
    pair_that_waits(partitions, 10)
}

/// Followers that let their fetches be parked for so many milliseconds.
fn pair_that_waits(partitions: i32, longest_wait_ms: i32) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new();
    settings.add_flag("listeners=PLAINTEXT://127.0.0.1:0").unwrap();
    settings.add_flag(&format!("replica.fetch.wait.max.ms={longest_wait_ms}")).unwrap();
    let config = BrokerConfig::from_settings(&settings).unwrap().config;
    let mut leader = Leader { longest_wait_ms, ..Leader::default() };
    let mut followers = Vec::new();
    let (disk, full) = (FaultyDisk::new(), Arc::new(AtomicUsize::new(0)));
    let told = full.clone();
    for index in 0..partitions {
        let led = open(&FaultyDisk::new(), dir.path(), 0, index);
        led.follow(&registered(), 0);
        leader.partitions.insert(index, led);
        let follower = open(&disk, dir.path(), 1, index);
        follower.follow(&registered(), 0);
        followers.push(follower);
    }
    let leader = Arc::new(leader);
    let fetchers = Fetchers::new(config.replication, followers[0].around.clone());
    fetchers.around.broker_epoch.store(1, Ordering::SeqCst);
    fetchers.start(Surroundings {
        peers: Arc::new(leader.clone()),
        clock: Clock::default(),
        flusher: Arc::default(),
        offline: Box::new(|error| panic!("{error}")),
        full: Box::new(move |_, _| {
            told.fetch_add(1, Ordering::SeqCst);
        }),
        truncated: Box::new(|| {}),
        runtime: tokio::runtime::Handle::current(),
        patience: PATIENCE_HERE,
    });
    Pair { _dir: dir, leader, followers, fetchers, disk, full }
}

impl Pair {
    /// The leader takes a record over.
    fn append(&self, index: i32, acks: Acks) -> Append {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, Some(b"value"), &[]).unwrap();
        self.leader.partitions[&index].append(&builder.build().unwrap(), Origin::Client, acks, 0).unwrap()
    }

    /// Writes with acks=all and waits for the follower.
    async fn write(&self, index: i32) {
        let led = &self.leader.partitions[&index];
        let append = self.append(index, Acks::All);
        append.commit.expect("the follower is waited for").await.unwrap().unwrap();
        let end = led.offsets().log_end;
        assert_eq!(led.offsets().high_watermark, end);
        assert_eq!(self.followers[index as usize].offsets().log_end, end);
    }
}

#[tokio::test]
async fn what_is_written_reaches_the_follower_and_is_committed() {
    let pair = pair(2);
    for follower in &pair.followers {
        pair.fetchers.assign(follower, Some(0));
    }
    for _ in 0..20 {
        pair.write(0).await;
        pair.write(1).await;
    }
    assert_eq!(pair.fetchers.failed(), 0);
}

#[tokio::test]
async fn a_partition_that_comes_while_a_fetch_is_parked_is_fetched_at_once() {
    let pair = pair(2);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    // The session's fetch is parked, and nothing is written to partition 0 any more.
    pair.fetchers.assign(&pair.followers[1], Some(0));
    pair.write(1).await;
}

#[tokio::test]
async fn a_cut_connection_is_made_anew() {
    let pair = pair(1);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    let before = pair.leader.connections.load(Ordering::SeqCst);
    pair.leader.cut.store(true, Ordering::SeqCst);
    pair.write(0).await;
    assert!(pair.leader.connections.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn a_leader_that_does_not_answer_is_asked_anew_soon_and_with_growing_patience() {
    let pair = pair(1);
    pair.leader.silent.store(3, Ordering::SeqCst);
    let since = Instant::now();
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    assert_eq!(pair.leader.connections.load(Ordering::SeqCst), 4);
    // 50, 100 and 200 ms, not three times the half minute of a socket.
    let took = since.elapsed();
    assert!(took >= PATIENCE_HERE * 7 && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_leader_hears_at_once_that_nobody_replaced_it_and_never_when_somebody_did() {
    let pair = pair(1);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    // The follower's fetch is parked, and nothing is written.
    let led = &pair.leader.partitions[&0];
    for _ in 0..3 {
        let confirmed = led.when_confirmed().unwrap().expect("the follower has to say so");
        confirmed.await.unwrap().unwrap();
    }
    // The follower leads now, and the one before has not heard of it: what was on its way says nothing.
    let elected = Registered { leader: 1, leader_epoch: 1, partition_epoch: 1, ..registered() };
    pair.followers[0].follow(&elected, 0);
    let mut doubtful = led.when_confirmed().unwrap().expect("the follower has to say so");
    pair.fetchers.assign(&pair.followers[0], None);
    while !pair.fetchers.lanes.lock().lanes.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(doubtful.try_recv().is_err());
    led.follow(&elected, 0);
    assert_eq!(doubtful.await.unwrap(), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(led.when_confirmed().unwrap_err(), ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn tasks_without_partitions_end() {
    let pair = pair(1);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    pair.fetchers.assign(&pair.followers[0], None);
    while !pair.fetchers.lanes.lock().lanes.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_leader_that_has_not_heard_of_its_election_is_asked_again_soon() {
    let pair = pair(1);
    let elected = Registered { leader_epoch: 1, partition_epoch: 1, ..registered() };
    pair.followers[0].follow(&elected, 0);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    while pair.fetchers.failed() == 0 {
        tokio::task::yield_now().await;
    }
    pair.leader.partitions[&0].follow(&elected, 0);
    pair.write(0).await;
}

#[tokio::test]
async fn what_was_left_out_for_a_moment_does_not_wait_for_what_happens_to_others() {
    let pair = pair_that_waits(2, 30_000);
    let elected = Registered { leader_epoch: 1, partition_epoch: 1, ..registered() };
    pair.followers[1].follow(&elected, 0);
    for follower in &pair.followers {
        pair.fetchers.assign(follower, Some(0));
    }
    pair.write(0).await;
    while pair.fetchers.failed() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The session's fetch is parked without it.
    pair.leader.partitions[&1].follow(&elected, 0);
    timeout(Duration::from_secs(10), pair.write(1)).await.expect("fetched before the other fetch is over");
}

#[tokio::test]
async fn a_debt_that_a_new_rate_forgives_is_not_waited_for() {
    let pair = pair(1);
    let follower = &pair.followers[0];
    let throttled = [("follower.replication.throttled.replicas".to_owned(), "*".to_owned())].into();
    follower.topic.set_config(Arc::new(TopicConfig::resolve(&Layers::default(), &throttled)));
    for replica in [follower, &pair.leader.partitions[&0]] {
        replica.follow(&Registered { isr: vec![0], partition_epoch: 1, ..registered() }, 0);
    }
    let throttle = &follower.around.throttles.follower;
    throttle.set_rate(1);
    throttle.passes(1_000_000, Clock::default().now_ms());
    pair.append(0, Acks::Leader);
    pair.fetchers.assign(follower, Some(0));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(follower.offsets().log_end, 0, "held back");
    throttle.set_rate(1_000_000);
    let fetched = async {
        while follower.offsets().log_end == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), fetched).await.expect("fetched at the new rate");
}

#[tokio::test]
async fn a_follower_without_room_tells_while_it_is_waited_for() {
    let pair = pair(1);
    pair.fetchers.assign(&pair.followers[0], Some(0));
    pair.write(0).await;
    assert_eq!(pair.full.load(Ordering::SeqCst), 0);
    pair.disk.fail(Op::Write, 0, Fault::FullAfter(0));
    pair.append(0, Acks::Leader);
    while pair.full.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // Out of sync it costs nobody anything.
    pair.followers[0].follow(&Registered { isr: vec![0], partition_epoch: 1, ..registered() }, 0);
    let (before, tried) = (pair.full.load(Ordering::SeqCst), pair.disk.count(Op::Write));
    while pair.disk.count(Op::Write) < tried + 4 {
        tokio::task::yield_now().await;
    }
    pair.disk.heal();
    let led = pair.leader.partitions[&0].offsets().log_end;
    while pair.followers[0].offsets().log_end < led {
        tokio::task::yield_now().await;
    }
    assert!(pair.full.load(Ordering::SeqCst) <= before + 1, "one may have been under way");
}
