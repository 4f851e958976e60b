//! Three replicas, a controller and a network that loses and delays, all drawn from one seed: whatever happens, no
//! committed record is lost or changed, an acknowledged one is committed, and replicas agree byte for byte below
//! their high watermarks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::{Log, RealDisk, Recovery};
use klamm_metadata::Partition as Registered;
use klamm_protocol::batch::{BatchBuilder, batches};
use klamm_protocol::{ErrorCode, Uuid};

use super::*;
use crate::config::{Entries, Layers};
use crate::metrics::Metrics;
use crate::replica::leader::LiveBrokers;
use crate::replica::partition::{Acks, Around, NotAppended, Origin, Topic};

const NODES: i32 = 3;
const LAG_MS: i64 = 100;

struct Node {
    dir: PathBuf,
    partition: Partition,
}

struct Answer {
    to: i32,
    epoch: i32,
    asked: Position,
    fetched: Fetched,
}

struct Cluster {
    _dir: tempfile::TempDir,
    nodes: Vec<Node>,
    state: Registered,
    live: LiveBrokers,
    config: TopicConfig,
    answers: Vec<Answer>,
    requests: Vec<(i32, i32, Position, FollowerFetch)>,
    acks: Vec<(i64, Bytes, Reached)>,
    /// What anybody could read: batches by base offset, and their end.
    committed: BTreeMap<i64, Bytes>,
    committed_end: i64,
    now_ms: i64,
    next_epoch: i64,
    produced: u64,
    rng: u64,
    counts: BTreeMap<&'static str, u32>,
}

/// All batches of a log.
fn content(partition: &Partition) -> Vec<(i64, i64, Bytes)> {
    partition.with_log(|log| {
        let mut offset = log.log_start_offset();
        let mut found = Vec::new();
        while let Some(range) = log.read(offset, 1 << 20, i64::MAX, true).unwrap().range {
            let mut bytes = vec![0; range.len as usize];
            std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut bytes, range.position).unwrap();
            for batch in batches(&bytes) {
                let (header, bytes) = batch.unwrap();
                offset = header.next_offset();
                found.push((header.base_offset, offset, Bytes::copy_from_slice(bytes)));
            }
        }
        found
    })
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<i32> = (0..NODES).collect();
        let mut config = TopicConfig::resolve(&Layers::default(), &Entries::new());
        Arc::make_mut(&mut config.log).segment_bytes = 2_000;
        config.min_insync_replicas = 1 + (seed % 2) as i32;
        let mut cluster = Self {
            nodes: Vec::new(),
            state: Registered {
                replicas: all.clone(),
                directories: vec![Uuid::ZERO; 3],
                isr: all.clone(),
                removing_replicas: Vec::new(),
                adding_replicas: Vec::new(),
                leader: 0,
                leader_epoch: 0,
                partition_epoch: 0,
                leader_recovery_state: 0,
                elr: Vec::new(),
                last_known_elr: Vec::new(),
            },
            live: all.iter().map(|id| (*id, i64::from(*id))).collect(),
            config,
            answers: Vec::new(),
            requests: Vec::new(),
            acks: Vec::new(),
            committed: BTreeMap::new(),
            committed_end: 0,
            now_ms: 0,
            next_epoch: 10,
            produced: 0,
            rng: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            counts: BTreeMap::new(),
            _dir: dir,
        };
        for id in all {
            let path = cluster._dir.path().join(format!("{id}/t-0"));
            std::fs::create_dir_all(&path).unwrap();
            let partition = cluster.open(id, &path, 0);
            cluster.nodes.push(Node { dir: path, partition });
            cluster.publish(id);
        }
        cluster
    }

    fn open(&self, id: i32, dir: &std::path::Path, high_watermark: i64) -> Partition {
        let config = Arc::new(self.config.clone());
        let topic = Topic::new("t".into(), Uuid([7; 16]), Metrics::new().topic("t"), config.clone());
        let log = Log::open(RealDisk::shared(), dir, topic.id, config.log.clone(), Recovery::default(), 0).unwrap();
        Partition::new(Arc::new(topic), 0, log, high_watermark, Around::new(id, LAG_MS))
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 16) % below
    }

    fn any_node(&mut self) -> i32 {
        self.random(NODES as u64) as i32
    }

    fn at(&self, id: i32) -> &Partition {
        &self.nodes[id as usize].partition
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The node hears of the controller's decisions so far.
    fn publish(&mut self, id: i32) {
        *self.at(id).around.live.write() = Arc::new(self.live.clone());
        self.at(id).follow(&self.state.clone(), self.now_ms);
        self.at(id).on_brokers_changed();
    }

    fn produce(&mut self, id: i32) {
        self.produced += 1;
        let mut builder = BatchBuilder::new(0);
        for i in 0..1 + self.random(3) {
            let value = format!("{}-{i}", self.produced);
            builder.push(self.now_ms, None, Some(value.as_bytes()), &[]).unwrap();
        }
        let batch = builder.build().unwrap();
        let acks = if self.random(3) == 0 { Acks::Leader } else { Acks::All };
        match self.at(id).append(&batch, Origin::Client, acks, self.now_ms) {
            Ok(append) => {
                self.count("appended");
                if let Some(reached) = append.commit {
                    self.acks.push((append.appended.base_offset, batch, reached));
                }
            }
            Err(NotAppended::Refused(ErrorCode::NotLeaderOrFollower | ErrorCode::NotEnoughReplicas)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// A follower asks its leader; the request and the answer may each arrive, be lost, or come later.
    fn fetch(&mut self, id: i32) {
        let leader = self.at(id).leader();
        let Some((epoch, asked)) = self.at(id).position(leader) else { return };
        let fetch = FollowerFetch {
            progress: Progress {
                follower: id,
                broker_epoch: self.live.get(&id).copied().unwrap_or(-1),
                fetch_offset: asked.fetch_offset,
                log_start: asked.log_start,
                sent_after: 0,
            },
            leader_epoch: epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            max_bytes: 100 + self.random(1_000) as usize,
            min_one: true,
            fresh: true,
        };
        match self.random(10) {
            0 => {}
            1 => self.requests.push((leader, epoch, asked, fetch)),
            _ => self.serve(leader, epoch, asked, fetch),
        }
    }

    fn serve(&mut self, leader: i32, epoch: i32, asked: Position, fetch: FollowerFetch) {
        let (read, offsets) = match self.at(leader).read_for_follower(&fetch, self.now_ms) {
            Ok(answered) => answered,
            Err(FollowerRefused::Code(_)) => return,
            Err(FollowerRefused::Log(error)) => panic!("{error}"),
        };
        let mut fetched =
            Fetched { high_watermark: offsets.high_watermark, log_start: offsets.log_start, ..Fetched::default() };
        match read {
            FollowerRead::Diverging(epoch, end) => fetched.diverging = Some((epoch, end)),
            FollowerRead::Records(read) => {
                if let Some(range) = read.range {
                    let mut bytes = vec![0; range.len as usize];
                    std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut bytes, range.position).unwrap();
                    fetched.records = bytes.into();
                }
            }
        }
        let answer = Answer { to: fetch.progress.follower, epoch, asked, fetched };
        match self.random(10) {
            0 => {}
            1 => self.answers.push(answer),
            _ => self.take(answer),
        }
    }

    fn take(&mut self, answer: Answer) {
        let taken = self.at(answer.to).take_fetched(answer.epoch, answer.asked, &answer.fetched, self.now_ms);
        match taken {
            Ok(Some(Outcome::Truncated(_))) => self.count("truncated"),
            Ok(Some(Outcome::Appended(bytes))) if bytes > 0 => self.count("replicated"),
            // A late answer is refused, since the log has moved on.
            Ok(_) | Err(Unusable::Answer(_)) => {}
            Err(Unusable::Log(error)) => panic!("{error}"),
        }
    }

    /// The controller elects, out of the ISR.
    fn elect(&mut self) {
        let candidates: Vec<i32> = self.state.isr.iter().copied().filter(|id| self.live.contains_key(id)).collect();
        if candidates.is_empty() {
            return;
        }
        // Half of the time the one that hurts most.
        let shortest = candidates.iter().copied().min_by_key(|id| self.at(*id).offsets().log_end);
        self.state.leader = match shortest {
            Some(shortest) if self.random(2) == 0 => shortest,
            _ => candidates[self.random(candidates.len() as u64) as usize],
        };
        self.state.leader_epoch += 1;
        self.state.partition_epoch += 1;
        self.count("elected");
    }

    fn alter_partition(&mut self, id: i32) {
        let Some((proposal, _)) = self.at(id).proposal() else { return };
        let lost = self.random(5);
        if lost == 0 {
            return;
        }
        let eligible = |(id, epoch): &(i32, i64)| self.live.get(id).is_some_and(|live| *epoch == -1 || live == epoch);
        let verdict = if proposal.leader_epoch != self.state.leader_epoch || self.state.leader != id {
            Verdict::Refused(ErrorCode::FencedLeaderEpoch)
        } else if proposal.partition_epoch != self.state.partition_epoch {
            Verdict::Refused(ErrorCode::InvalidUpdateVersion)
        } else if !proposal.isr.iter().all(eligible) {
            Verdict::Refused(ErrorCode::IneligibleReplica)
        } else {
            self.state.isr = proposal.isr.iter().map(|(id, _)| *id).collect();
            self.state.partition_epoch += 1;
            self.count("altered");
            Verdict::Done {
                leader_epoch: self.state.leader_epoch,
                partition_epoch: self.state.partition_epoch,
                isr: self.state.isr.clone(),
                recovering: false,
            }
        };
        // The answer to the leader may be lost; it asks again or hears of it as metadata.
        if lost > 1 {
            self.at(id).on_verdict(proposal.id, verdict);
            return;
        }
        // Until then it goes on with what it believes, which is when an election hurts most.
        for _ in 0..self.random(4) {
            self.produce(id);
            let other = self.any_node();
            self.fetch(other);
            self.check();
        }
        if self.random(2) == 0 {
            self.elect();
        }
    }

    /// The process dies and comes back under another epoch, with what was in its files and an old checkpoint.
    fn restart(&mut self, id: i32) {
        self.live.remove(&id);
        if self.state.isr.len() > 1 {
            self.state.isr.retain(|other| *other != id);
            self.state.partition_epoch += 1;
        }
        if self.state.leader == id {
            self.state.leader = -1;
            self.state.leader_epoch += 1;
            self.state.partition_epoch += 1;
        }
        let known = self.at(id).offsets().high_watermark;
        let checkpoint = known.saturating_sub(self.random(10) as i64);
        let dir = self.nodes[id as usize].dir.clone();
        let partition = self.open(id, &dir, checkpoint);
        self.nodes[id as usize].partition = partition;
        self.live.insert(id, self.next_epoch);
        self.next_epoch += 1;
        if self.state.leader == -1 {
            self.elect();
        }
        self.publish(id);
        self.count("restarted");
    }

    fn step(&mut self) {
        self.now_ms += self.random(10) as i64;
        let id = self.any_node();
        match self.random(40) {
            0..12 => self.produce(self.state.leader.max(0)),
            12..14 => self.produce(id),
            14..29 => self.fetch(id),
            29..33 => self.publish(id),
            33 => {
                if !self.answers.is_empty() {
                    let at = self.random(self.answers.len() as u64) as usize;
                    let answer = self.answers.swap_remove(at);
                    self.take(answer);
                }
            }
            34 => {
                if let Some((leader, epoch, asked, fetch)) = self.requests.pop() {
                    self.serve(leader, epoch, asked, fetch);
                }
            }
            35 | 36 => self.alter_partition(id),
            37 => self.at(id).check_lag(self.now_ms),
            38 if self.random(2) == 0 => self.elect(),
            39 if self.random(4) == 0 => self.restart(id),
            _ => self.alter_partition(self.state.leader.max(0)),
        }
        self.check();
    }

    fn check(&mut self) {
        for id in 0..NODES {
            let end = self.at(id).offsets().high_watermark;
            for (base, batch_end, bytes) in content(self.at(id)) {
                if batch_end > end {
                    break;
                }
                let known = self.committed.entry(base).or_insert_with(|| bytes.clone());
                assert_eq!(*known, bytes, "node {id} has another batch at {base}, below its high watermark {end}");
                self.committed_end = self.committed_end.max(batch_end);
            }
        }
        if self.state.leader >= 0 {
            let log: BTreeMap<i64, Bytes> =
                content(self.at(self.state.leader)).into_iter().map(|(base, _, bytes)| (base, bytes)).collect();
            for (base, bytes) in &self.committed {
                assert_eq!(
                    log.get(base),
                    Some(bytes),
                    "leader {} lost what was committed at {base}",
                    self.state.leader
                );
            }
        }
        let mut waiting = std::mem::take(&mut self.acks);
        waiting.retain_mut(|(base, batch, reached)| match reached.try_recv() {
            Ok(Ok(())) => {
                let kept = self.committed.get(base).unwrap_or_else(|| panic!("acknowledged at {base}, not committed"));
                assert_eq!(kept[61..], batch[61..], "another batch than the acknowledged one at {base}");
                *self.counts.entry("acknowledged").or_default() += 1;
                false
            }
            Ok(Err(_)) => false,
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
            Err(tokio::sync::oneshot::error::TryRecvError::Closed) => false,
        });
        self.acks.extend(waiting);
    }

    /// With nothing failing any more, everybody gets to the same end, and all of it is committed.
    fn heal(&mut self) {
        self.rng = 0x1234_5678_9ABC_DEF1;
        self.elect();
        for _ in 0..400 {
            self.now_ms += 5;
            for id in 0..NODES {
                self.publish(id);
                let leader = self.at(id).leader();
                if let Some((epoch, asked)) = self.at(id).position(leader) {
                    let progress = Progress {
                        follower: id,
                        broker_epoch: self.live[&id],
                        fetch_offset: asked.fetch_offset,
                        log_start: asked.log_start,
                        sent_after: 0,
                    };
                    let (last_fetched_epoch, max_bytes) = (asked.last_fetched_epoch, 10_000);
                    let fetch = FollowerFetch {
                        progress,
                        leader_epoch: epoch,
                        last_fetched_epoch,
                        max_bytes,
                        min_one: true,
                        fresh: true,
                    };
                    self.serve(leader, epoch, asked, fetch);
                }
                self.alter_partition(id);
            }
            self.check();
        }
        let ends: Vec<_> = (0..NODES).map(|id| self.at(id).offsets()).collect();
        assert_eq!(self.state.isr.len(), 3, "not all in sync: {:?} {ends:?}", self.state);
        assert!(ends.iter().all(|o| o.log_end == ends[0].log_end), "{ends:?}");
        let leader = self.at(self.state.leader).offsets();
        assert_eq!(leader.high_watermark, leader.log_end, "{:?}", self.state);
    }
}

#[test]
fn nothing_committed_is_lost_whatever_happens() {
    let seeds = std::env::var("KLAMM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8u64);
    let first = std::env::var("KLAMM_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1u64);
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in first..first + seeds {
        let run = std::panic::catch_unwind(|| {
            let mut cluster = Cluster::new(seed);
            for _ in 0..400 {
                cluster.step();
            }
            cluster.heal();
            cluster.counts
        });
        match run {
            Ok(found) => found.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n),
            Err(_) => panic!("seed {seed}: run again with KLAMM_SEED={seed} KLAMM_SEEDS=1"),
        }
    }
    // The test is worth something only if all of it happens.
    for what in ["acknowledged", "altered", "elected", "replicated", "restarted", "truncated"] {
        assert!(counts.get(what).is_some_and(|n| *n >= 10), "{what}: {counts:?}");
    }
    println!("{counts:?}");
}
