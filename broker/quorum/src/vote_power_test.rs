//! Elections among three voters whose machines lose power at any moment: nobody votes for two in one term, no term has
//! two leaders, and no voter is kept from coming back. With the sync of a vote left out that must be found.
//!
//! Each voter's storage is the real one; candidates, messages and the rule by which a vote is given are made here.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::disk::made;
use crate::journal::Owner;
use crate::journal::power::{Files, lose_power};
use crate::types::{Batch, log_id};

const VOTERS: usize = 3;
const STEPS: usize = 60;
const SEGMENT: u64 = 1024;
/// Seeds that are tried.
const SEEDS: u64 = 50;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct Voter {
    dir: TempDir,
    id: i32,
    store: LogStore,
    /// Whom it has told that it has its vote, by term.
    told: BTreeMap<u64, i32>,
}

fn owner(id: i32) -> Owner {
    Owner { cluster_id: "c".into(), node_id: id }
}

fn store(journal: Journal) -> LogStore {
    LogStore { journal: Arc::new(Mutex::new(journal)), failure: Failure::default() }
}

fn entry(term: u64, index: u64) -> Entry {
    let records = [bytes::Bytes::from(vec![index as u8; 40])];
    Entry { log_id: log_id(term, index), payload: openraft::EntryPayload::Normal(Batch::new(records)) }
}

impl Voter {
    fn new(id: i32, planted: Option<Bug>) -> Self {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        if let Some(bug) = planted {
            made::plant(dir.path(), bug);
        }
        let journal = Journal::create(dir.path(), owner(id), SEGMENT, None, &[entry(0, 0)]).unwrap();
        Self { dir, id, store: store(journal), told: BTreeMap::new() }
    }

    fn vote(&self) -> Vote {
        self.store.journal.lock().vote().unwrap_or_default()
    }

    /// Asked for its vote: gives it unless it has given another one in this term, or has seen a later one. What it says
    /// is told once it is stored.
    async fn asked(&mut self, term: u64, candidate: i32) -> Result<bool, String> {
        let (now, wanted) = (self.vote(), Vote::new(term, candidate));
        let same = now.leader_id == wanted.leader_id;
        if !same && now.leader_id.term >= term {
            return Ok(false);
        }
        if !same {
            self.store.save_vote(&wanted).await.map_err(|e| e.to_string())?;
        }
        let before = *self.told.entry(term).or_insert(candidate);
        if before != candidate {
            return Err(format!("{} has voted for {before} and for {candidate} in term {term}", self.id));
        }
        Ok(true)
    }

    /// Takes an entry of a leader, synced with what was written before it, and perhaps what makes a new file.
    async fn append(&mut self, term: u64) -> Result<(), String> {
        let write = move |journal: &mut Journal| {
            journal.reserve(100)?;
            let index = journal.last().map_or(0, |id| id.index + 1);
            journal.append(&[entry(term, index)])
        };
        self.store.write(write).await.map_err(|e| e.to_string())
    }

    /// Its machine loses power, perhaps in the middle of storing a vote that nobody hears of.
    fn loses_power(&mut self, random: &mut Random) -> Result<(), String> {
        if random.one_in(3) {
            let later = Vote::new(self.vote().leader_id.term + 1, self.id);
            drop(self.store.journal.lock().set_vote(later).map_err(|e| e.to_string())?);
        }
        let paths = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path());
        let durable: Files = paths
            .map(|path| {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.truncate(usize::try_from(made::durable(&path)).unwrap());
                (path, bytes)
            })
            .collect();
        lose_power(self.dir.path(), &durable, &mut || random.one_in(2));
        let journal =
            Journal::open(self.dir.path(), owner(self.id), SEGMENT).map_err(|e| format!("{}: {e}", self.id))?;
        let journal = journal.ok_or("its journal is gone")?;
        // As at a start: who has forgotten a vote must not take part any more.
        let copy = vote_copy::read(self.dir.path()).filter(|copy| vote_copy::is_newer(copy, journal.vote()));
        if let Some(copy) = copy {
            return Err(format!("{} does not come back: its journal has forgotten {copy}", self.id));
        }
        self.store = store(journal);
        Ok(())
    }
}

/// A history of elections, appends and losses of power; says what went wrong.
async fn play(seed: u64, planted: Option<Bug>) -> Result<usize, String> {
    let mut random = Random(seed);
    let mut voters: Vec<Voter> = (0..VOTERS).map(|id| Voter::new(id as i32, planted)).collect();
    let mut leaders: BTreeMap<u64, i32> = BTreeMap::new();
    for _ in 0..STEPS {
        let one = random.below(VOTERS);
        match random.below(4) {
            0 => voters[one].loses_power(&mut random)?,
            1 => {
                let term = voters[one].vote().leader_id.term;
                voters[one].append(term).await?;
            }
            _ => {
                let (candidate, term) = (voters[one].id, voters[one].vote().leader_id.term + 1);
                let mut votes = usize::from(voters[one].asked(term, candidate).await?);
                for other in (0..VOTERS).filter(|other| *other != one) {
                    // A question or its answer is lost.
                    if random.one_in(3) {
                        continue;
                    }
                    let given = voters[other].asked(term, candidate).await?;
                    votes += usize::from(given && !random.one_in(4));
                }
                if votes > VOTERS / 2 && *leaders.entry(term).or_insert(candidate) != candidate {
                    return Err(format!("{} and {candidate} lead in term {term}", leaders[&term]));
                }
            }
        }
    }
    Ok(leaders.len())
}

fn run(seed: u64, planted: Option<Bug>) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(play(seed, planted))
}

#[test]
fn nobody_votes_twice_whenever_power_is_lost() {
    let seeds = if std::env::var_os("KLAMM_LONG").is_some() { 20_000 } else { SEEDS };
    let mut led = 0;
    for seed in 1..=seeds {
        led += run(seed, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    assert!(led > 5 * seeds as usize, "{led} leaders in {seeds} histories");
}

#[test]
fn a_vote_that_is_not_synced_is_found() {
    for (bug, given, shows) in
        [(Bug::VoteNotSynced, 1, "has voted for"), (Bug::VoteOnlyInCopy, 1, "does not come back")]
    {
        let finds = |seed: &u64| run(*seed, Some(bug)).is_err_and(|why| why.contains(shows));
        let found = std::iter::once(given).chain(1..=SEEDS).find(finds);
        let seed = found.unwrap_or_else(|| panic!("{bug:?} is not found by {SEEDS} seeds"));
        println!("figures: {bug:?} is found by seed {seed}: {}", run(seed, Some(bug)).unwrap_err());
    }
}
