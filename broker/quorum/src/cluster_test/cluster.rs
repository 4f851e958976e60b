//! Several nodes on real files and a simulated network, and the checker: what was acknowledged is there, once,
//! and every node applied the same sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::net::{Net, Random};
use crate::{Bootstrap, Freeze, MachineError, Quorum, QuorumConfig, QuorumError, StateMachine, Voter};

/// What a machine applied: offset and record.
type Applied = Vec<(u64, Bytes)>;

/// Remembers every record with its offset.
#[derive(Clone, Default)]
pub struct Tape(pub Arc<Mutex<Applied>>);

impl StateMachine for Tape {
    fn apply(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        let mut tape = self.0.lock();
        if tape.last().is_some_and(|(last, _)| *last >= offset) {
            return Err(format!("offset {offset} after {:?}", tape.last()).into());
        }
        tape.extend(records.iter().map(|r| (offset, r.clone())));
        Ok(())
    }

    fn snapshot(&self) -> Freeze {
        let frozen = self.0.lock().clone();
        Box::new(move || {
            let line = |(offset, record): (u64, Bytes)| [&offset.to_le_bytes()[..], &record[..]].concat().into();
            frozen.into_iter().map(line).collect()
        })
    }

    fn restore(&mut self, _offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        let line = |record: &Bytes| {
            let offset = record.get(..8).and_then(|o| o.try_into().ok()).map(u64::from_le_bytes);
            offset.map(|offset| (offset, record.slice(8..)))
        };
        let restored: Option<Applied> = records.iter().map(line).collect();
        *self.0.lock() = restored.ok_or("bad snapshot")?;
        Ok(())
    }
}

pub struct Running {
    pub quorum: Quorum,
    pub tape: Tape,
}

pub type Tune = Arc<dyn Fn(&mut QuorumConfig) + Send + Sync>;

pub struct Cluster {
    pub net: Arc<Net>,
    pub root: TempDir,
    pub nodes: BTreeMap<i32, Running>,
    /// How often a node's disk was replaced.
    pub disks: BTreeMap<i32, u8>,
    /// Every machine that ever ran.
    tapes: Vec<(i32, Tape)>,
    pub bootstrap: Bootstrap,
    pub tune: Tune,
}

pub fn port(id: i32) -> u16 {
    9000 + id as u16
}

pub fn ports(ids: &[i32]) -> Vec<u16> {
    ids.iter().map(|id| port(*id)).collect()
}

pub fn voters(ids: &[i32]) -> Bootstrap {
    Bootstrap::Voters(ids.iter().map(|id| (*id, "sim".to_owned(), port(*id))).collect())
}

pub fn records(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|t| Bytes::copy_from_slice(t.as_bytes())).collect()
}

impl Cluster {
    pub fn new(seed: u64, bootstrap: Bootstrap) -> Self {
        Self {
            net: Net::new(seed),
            // Memory where there is any: most of these tests are about messages, and sync some thousand times.
            root: TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap(),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            tapes: Vec::new(),
            bootstrap,
            tune: Arc::new(|_| {}),
        }
    }

    /// Nodes 0 to `n - 1`, formed and led.
    pub async fn of(n: i32, seed: u64) -> Self {
        let ids: Vec<i32> = (0..n).collect();
        let mut cluster = Self::new(seed, voters(&ids));
        for id in ids {
            cluster.start(id).await;
        }
        cluster.leader().await;
        cluster
    }

    pub fn voter(&self, id: i32) -> Voter {
        let mut directory_id = [id as u8 + 1; 16];
        directory_id[0] = self.disks.get(&id).copied().unwrap_or(0);
        Voter { host: "sim".into(), port: port(id), directory_id }
    }

    pub fn config(&self, id: i32) -> QuorumConfig {
        let disk = self.disks.get(&id).copied().unwrap_or(0);
        let mut config = QuorumConfig::new(self.root.path().join(format!("{id}-{disk}")), id, "sim");
        config.me = self.voter(id);
        config.bootstrap = self.bootstrap.clone();
        config.transport = self.net.link(port(id));
        (self.tune)(&mut config);
        config
    }

    pub async fn start(&mut self, id: i32) {
        let tape = Tape::default();
        let quorum = Quorum::open(self.config(id), tape.clone()).await.unwrap();
        self.net.plug(port(id), quorum.clone());
        self.tapes.push((id, tape.clone()));
        self.nodes.insert(id, Running { quorum, tape });
    }

    /// Gone without a word.
    pub async fn kill(&mut self, id: i32) {
        self.net.unplug(port(id));
        let Some(running) = self.nodes.remove(&id) else { return };
        running.quorum.stop().await;
        let core = Arc::downgrade(&running.quorum.inner.core);
        drop(running);
        // Requests it was answering, and callers of the test, let go of the files.
        while core.strong_count() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn restart(&mut self, id: i32) {
        self.kill(id).await;
        self.start(id).await;
    }

    /// Kills a node and gives it an empty disk.
    pub async fn wipe(&mut self, id: i32) {
        self.kill(id).await;
        *self.disks.entry(id).or_default() += 1;
    }

    pub fn quorum(&self, id: i32) -> &Quorum {
        &self.nodes[&id].quorum
    }

    pub fn ready(&self) -> Option<(i32, u64)> {
        let leads = |(id, node): (&i32, &Running)| {
            let now = *node.quorum.leader().borrow();
            (now.ready && now.leader == Some(*id)).then_some((*id, now.term))
        };
        self.nodes.iter().filter_map(leads).max_by_key(|(_, term)| *term)
    }

    /// Waits for a leader that is ready.
    pub async fn leader(&self) -> i32 {
        self.until("a ready leader", || self.ready().is_some()).await;
        self.ready().unwrap().0
    }

    pub async fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let waited = timeout(Duration::from_secs(60), async {
            while !happened() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            panic!("waited in vain for {what}\n{}", self.describe());
        }
    }

    fn describe(&self) -> String {
        let one = |(id, n): (&i32, &Running)| {
            let m = n.quorum.metrics();
            let voters: Vec<i32> = m.voters.iter().map(|(id, _)| *id).collect();
            let (end, applied) = (m.last_offset, m.applied_offset);
            format!(
                "{id}: {:?} term {} leader {:?} last {end:?} applied {applied:?} voters {voters:?}\n",
                m.role, m.term, m.leader
            )
        };
        self.nodes.iter().map(one).collect()
    }

    pub fn voter_ids(&self, id: i32) -> Vec<i32> {
        self.quorum(id).metrics().voters.iter().map(|(id, _)| *id).collect()
    }

    /// Proposes through whoever leads until it is done.
    pub async fn put(&self, text: &str) -> u64 {
        for _ in 0..1000 {
            let Some((id, _)) = self.ready() else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            match self.quorum(id).propose(records(&[text])).await {
                Ok(offset) => return offset,
                Err(QuorumError::NotLeader { .. }) => sleep(Duration::from_millis(10)).await,
                Err(other) => panic!("{text}: {other}"),
            }
        }
        panic!("no leader took {text}\n{}", self.describe());
    }

    /// Waits until all running nodes have applied the same, and checks every machine that ever ran against it.
    pub async fn agree(&self) -> Vec<Bytes> {
        let end = self.put("end").await;
        let all = || self.nodes.values().all(|n| n.quorum.metrics().applied_offset >= Some(end));
        self.until("all nodes to have applied everything", all).await;
        let (first, rest) = self.nodes.values().next().map(|n| (n.tape.0.lock().clone(), &self.nodes)).unwrap();
        for (id, node) in rest {
            let tape = node.tape.0.lock();
            let differs = tape.iter().zip(&first).position(|(a, b)| a != b);
            assert!(differs.is_none() && tape.len() == first.len(), "node {id} differs at {differs:?}");
        }
        for (id, tape) in &self.tapes {
            let tape = tape.0.lock();
            assert!(
                tape.len() <= first.len() && tape[..] == first[..tape.len()],
                "an earlier run of node {id} differs"
            );
        }
        first.into_iter().map(|(_, record)| record).collect()
    }
}

/// What clients know.
#[derive(Default)]
pub struct History {
    pub acked: BTreeSet<String>,
    /// Nobody knows whether these took effect.
    pub open: BTreeSet<String>,
    pub refused: u64,
    /// When the last one was acknowledged, and the longest time between two.
    last: Option<Instant>,
    pub gap: Duration,
}

impl History {
    fn acknowledged(&mut self, text: String) {
        self.open.remove(&text);
        self.acked.insert(text);
        let now = Instant::now();
        let gap = self.last.map_or(Duration::ZERO, |last| now - last);
        self.gap = self.gap.max(gap);
        self.last = Some(now);
    }
}

/// Proposes all the time, through whatever node leads.
pub struct Load {
    pub history: Arc<Mutex<History>>,
    pub nodes: Arc<Mutex<BTreeMap<i32, Quorum>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(cluster: &Cluster, clients: u64) -> Self {
        let nodes: Arc<Mutex<BTreeMap<i32, Quorum>>> = Arc::default();
        let history = Arc::<Mutex<History>>::default();
        let load = Self { history, nodes, clients: Vec::new() };
        load.refresh(cluster);
        let start = |client| tokio::spawn(run(client, load.nodes.clone(), load.history.clone()));
        Self { clients: (0..clients).map(start).collect(), ..load }
    }

    /// Nodes were started or killed; the load must let go of those before they are killed.
    pub fn refresh(&self, cluster: &Cluster) {
        *self.nodes.lock() = cluster.nodes.iter().map(|(id, n)| (*id, n.quorum.clone())).collect();
    }

    pub fn forget(&self, id: i32) {
        self.nodes.lock().remove(&id);
    }

    pub async fn stop(self) -> History {
        for client in self.clients {
            client.abort();
            let _ = client.await;
        }
        self.nodes.lock().clear();
        std::mem::take(&mut self.history.lock())
    }
}

async fn run(client: u64, nodes: Arc<Mutex<BTreeMap<i32, Quorum>>>, history: Arc<Mutex<History>>) {
    let mut random = Random::new(client + 1);
    for number in 0.. {
        let text = format!("{client}-{number}");
        loop {
            let pick = {
                let nodes = nodes.lock();
                let leads = |q: &Quorum| q.leader().borrow().ready;
                nodes.values().find(|q| leads(q)).cloned()
            };
            let Some(quorum) = pick else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            history.lock().open.insert(text.clone());
            let done = quorum.propose(records(&[&text])).await;
            drop(quorum);
            match done {
                Ok(_) => {
                    history.lock().acknowledged(text);
                    break;
                }
                // Certainly without effect: the same again must not make two of it.
                Err(QuorumError::NotLeader { .. }) => history.lock().refused += 1,
                Err(_) => break,
            }
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(random.below(10))).await;
    }
}

/// Nothing acknowledged is missing, nothing is there twice, nothing came from nowhere.
pub fn check(history: &History, records: &[Bytes]) {
    let texts: Vec<String> = records.iter().map(|r| String::from_utf8_lossy(r).into_owned()).collect();
    let set: BTreeSet<&String> = texts.iter().collect();
    let lost: Vec<_> = history.acked.iter().filter(|t| !set.contains(t)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let proposed = texts.iter().filter(|t| t.contains('-'));
    let unknown: Vec<_> =
        proposed.clone().filter(|t| !history.acked.contains(*t) && !history.open.contains(*t)).collect();
    assert!(unknown.is_empty(), "refused and yet there: {unknown:?}");
    let count = proposed.count();
    let unique = set.iter().filter(|t| t.contains('-')).count();
    assert_eq!(count, unique, "something is there twice");
}
