//! The journal on a disk that loses power: what was synced is there, and of the rest a prefix of what was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{done, entry, fresh, indexes, reopen};
use super::*;

const BLOCK: usize = 64;

/// What a reader of the journal sees.
type State = (Option<Vote>, Vec<u64>);

fn state(journal: &Journal) -> State {
    (journal.vote(), indexes(journal))
}

/// The files as they are, or as they were when they were last durable.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Leaves of each file what was durable, and of what came after it blocks that `keep` picks; others read as zeros, or
/// are not there at the end.
pub fn lose_power(dir: &Path, durable: &Files, keep: &mut impl FnMut() -> bool) {
    for (path, written) in files(dir) {
        let safe = durable.get(&path).map_or(0, Vec::len);
        let mut left = written[..safe].to_vec();
        for block in written[safe..].chunks(BLOCK) {
            let kept = keep();
            left.extend(block.iter().map(|byte| if kept { *byte } else { 0 }));
        }
        if keep() {
            let end = left.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            left.truncate(end.max(safe));
        }
        fs::write(path, left).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Vote,
    Truncate(u8),
    Purge(u8),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4u8, 0..300u16).prop_map(|(n, size)| Step::Append(n, size)),
        2 => Just(Step::Vote),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        2 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KLAMM_LONG").is_some() { 20_000 } else { 150 }))]
    #[test]
    fn a_power_loss_keeps_what_was_synced(
        steps in proptest::collection::vec(step(), 1..30),
        picks in proptest::collection::vec(any::<bool>(), 64),
        rounds in 1..3usize,
    ) {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let mut journal = fresh(dir.path(), 1024);
        let mut term = 1;
        let mut pick = picks.iter().copied().cycle();
        for _ in 0..rounds {
            let mut durable = files(dir.path());
            // The states since the last sync, the one that is durable first.
            let mut states = vec![state(&journal)];
            let mut last = None;
            for step in &steps {
                let end = journal.last().map_or(0, |id| id.index + 1);
                let first = journal.purged().map_or(0, |id| id.index + 1);
                match step {
                    Step::Append(n, size) => {
                        // May begin a new file, and makes the old one durable then.
                        let before = journal.segments.len();
                        journal.reserve(100).unwrap();
                        if journal.segments.len() > before {
                            durable = files(dir.path());
                            states = vec![state(&journal)];
                        }
                        for index in end..end + u64::from(*n) {
                            last = Some(journal.append(&[entry(term, index, (*size).into())]).unwrap());
                            states.push(state(&journal));
                        }
                    }
                    Step::Vote => {
                        term += 1;
                        last = Some(journal.set_vote(Vote::new(term, 7)).unwrap());
                    }
                    Step::Truncate(pick) if first < end => {
                        let at = first + u64::from(*pick) % (end - first);
                        term += 1;
                        last = Some(journal.truncate(at).unwrap());
                    }
                    Step::Purge(pick) if first < end => {
                        let at = first + u64::from(*pick) % (end - first);
                        let upto = journal.read(at..at + 1, 0).unwrap()[0].log_id;
                        journal.purge(upto).unwrap();
                        durable = files(dir.path());
                        states = vec![state(&journal)];
                        last = None;
                    }
                    Step::Sync => {
                        if let Some(sync) = last.take() {
                            done(&mut journal, sync);
                            durable = files(dir.path());
                            states = vec![state(&journal)];
                        }
                    }
                    _ => {}
                }
                states.push(state(&journal));
            }
            drop(journal);
            lose_power(dir.path(), &durable, &mut || pick.next().unwrap_or(true));
            journal = reopen(dir.path(), 1024);
            let found = state(&journal);
            prop_assert!(states.contains(&found), "{found:?} is none of {states:?}");
        }
    }
}
