//! The journal under crashes (cut anywhere), damage (a bit anywhere) and the ordinary life of a Raft log.

use std::fs;

use openraft::EntryPayload;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::types::Batch;

fn owner() -> Owner {
    Owner { cluster_id: "c".into(), node_id: 7 }
}

pub(super) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let records = [Bytes::from(vec![index as u8; size])];
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Batch::new(records)) }
}

pub(super) fn fresh(dir: &Path, segment_bytes: u64) -> Journal {
    Journal::create(dir, owner(), segment_bytes, None, &[entry(1, 0, 3)]).unwrap()
}

pub(super) fn reopen(dir: &Path, segment_bytes: u64) -> Journal {
    Journal::open(dir, owner(), segment_bytes).unwrap().unwrap()
}

pub(super) fn done(journal: &mut Journal, sync: Sync) {
    sync.run().unwrap();
    journal.synced(&sync);
}

fn append(journal: &mut Journal, entries: &[Entry]) {
    let sync = journal.append(entries).unwrap();
    done(journal, sync);
}

pub(super) fn indexes(journal: &Journal) -> Vec<u64> {
    journal.read(0..u64::MAX, usize::MAX).unwrap().iter().map(|e| e.log_id.index).collect()
}

fn newest_file(dir: &Path) -> PathBuf {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.to_str().unwrap().ends_with(SUFFIX));
    paths.sort();
    paths.pop().unwrap()
}

#[test]
fn votes_and_entries_are_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let mut journal = fresh(dir.path(), 1 << 20);
    append(&mut journal, &[entry(1, 1, 10), entry(1, 2, 400_000)]);
    append(&mut journal, &[entry(2, 3, 5)]);
    let sync = journal.set_vote(Vote::new(3, 7)).unwrap();
    done(&mut journal, sync);
    let sync = journal.truncate(3).unwrap();
    done(&mut journal, sync);
    append(&mut journal, &[entry(3, 3, 6)]);
    drop(journal);
    let journal = reopen(dir.path(), 1 << 20);
    assert_eq!(journal.vote(), Some(Vote::new(3, 7)));
    assert_eq!(journal.last(), Some(log_id(3, 3)));
    assert_eq!(indexes(&journal), [0, 1, 2, 3]);
    assert_eq!(journal.read(1..4, 1).unwrap().len(), 1, "a small budget still gives one entry");
    let last = journal.read(3..4, usize::MAX).unwrap();
    assert_eq!(last[0].payload, entry(3, 3, 6).payload);
}

#[test]
fn purging_deletes_files_and_keeps_the_vote() {
    let dir = TempDir::new().unwrap();
    let mut journal = fresh(dir.path(), 4096);
    let sync = journal.set_vote(Vote::new_committed(1, 7)).unwrap();
    done(&mut journal, sync);
    for index in 1..200 {
        journal.reserve(200).unwrap();
        append(&mut journal, &[entry(1, index, 100)]);
    }
    let before = journal.size();
    journal.purge(log_id(1, 150)).unwrap();
    assert!(journal.size() < before / 2, "{} of {before}", journal.size());
    drop(journal);
    let mut journal = reopen(dir.path(), 4096);
    assert_eq!(journal.vote(), Some(Vote::new_committed(1, 7)));
    assert_eq!(journal.purged(), Some(log_id(1, 150)));
    assert_eq!(indexes(&journal), (151..200).collect::<Vec<_>>());
    journal.purge(log_id(4, 500)).unwrap();
    append(&mut journal, &[entry(4, 501, 1)]);
    drop(journal);
    let journal = reopen(dir.path(), 4096);
    assert_eq!((journal.last(), indexes(&journal)), (Some(log_id(4, 501)), vec![501]));
}

#[test]
fn a_cut_at_any_byte_costs_only_what_lies_behind_it() {
    let dir = TempDir::new().unwrap();
    let mut journal = fresh(dir.path(), 1 << 20);
    let mut ends = vec![journal.size()];
    for index in 1..40 {
        append(&mut journal, &[entry(1, index, 20)]);
        ends.push(journal.size());
    }
    drop(journal);
    let path = newest_file(dir.path());
    let whole = fs::read(&path).unwrap();
    let head = frame::HEADER + frame::get(&Bytes::from(whole.clone()), 0).unwrap().payload.len();
    for cut in head..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut journal = reopen(dir.path(), 1 << 20);
        let kept = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        assert_eq!(indexes(&journal), (0..kept).collect::<Vec<_>>(), "cut at {cut}");
        append(&mut journal, &[entry(2, kept, 1)]);
        drop(journal);
        assert_eq!(reopen(dir.path(), 1 << 20).last(), Some(log_id(2, kept)));
    }
}

#[test]
fn damage_in_durable_bytes_is_an_error_and_never_a_shorter_log() {
    let dir = TempDir::new().unwrap();
    let mut journal = fresh(dir.path(), 1 << 20);
    for index in 1..20 {
        append(&mut journal, &[entry(1, index, 20)]);
    }
    let last_two = {
        let sizes: Vec<_> = journal.positions.iter().map(|p| p.at).collect();
        sizes[sizes.len() - 2] as usize
    };
    drop(journal);
    let path = newest_file(dir.path());
    let whole = fs::read(&path).unwrap();
    // A frame is known to have been durable once a later one was written after its sync.
    for at in 0..last_two {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let error = Journal::open(dir.path(), owner(), 1 << 20).err().unwrap();
        assert!(matches!(error, QuorumError::Damaged { .. }), "byte {at}: {error}");
    }
}

#[test]
fn unsynced_blocks_that_a_crash_lost_are_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    let mut journal = fresh(dir.path(), 1 << 20);
    append(&mut journal, &[entry(1, 1, 20)]);
    let lost = journal.size() as usize;
    // Two writes without a sync in between; the first one's bytes never reach the disk.
    let _ = journal.append(&[entry(1, 2, 20)]).unwrap();
    let end = journal.size() as usize;
    let _ = journal.append(&[entry(1, 3, 20)]).unwrap();
    drop(journal);
    let path = newest_file(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[lost..end].fill(0);
    fs::write(&path, bytes).unwrap();
    assert_eq!(indexes(&reopen(dir.path(), 1 << 20)), [0, 1]);
}

#[test]
fn another_nodes_folder_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    drop(fresh(dir.path(), 1 << 20));
    let other = Owner { cluster_id: "other".into(), node_id: 7 };
    let error = Journal::open(dir.path(), other, 1 << 20).err().unwrap();
    assert!(matches!(error, QuorumError::Foreign { .. }), "{error}");
    assert_eq!(indexes(&reopen(dir.path(), 1 << 20)), [0]);
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Truncate(u8),
    Purge(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5u8, 0..600u16).prop_map(|(n, size)| Step::Append(n, size)),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_history_reads_like_a_list(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = TempDir::new().unwrap();
        let mut journal = fresh(dir.path(), 2048);
        let mut model = vec![0u64];
        let mut end = 1;
        let mut term = 1;
        for step in steps {
            match step {
                Step::Append(n, size) => {
                    let entries: Vec<_> = (end..end + u64::from(n)).map(|i| entry(term, i, size.into())).collect();
                    journal.reserve(100).unwrap();
                    append(&mut journal, &entries);
                    model.extend(end..end + u64::from(n));
                    end += u64::from(n);
                }
                Step::Truncate(pick) if !model.is_empty() => {
                    let at = model[pick as usize % model.len()];
                    let sync = journal.truncate(at).unwrap();
                    done(&mut journal, sync);
                    model.retain(|i| *i < at);
                    end = at;
                    term += 1;
                }
                Step::Purge(pick) if !model.is_empty() => {
                    let at = model[pick as usize % model.len()];
                    let upto = journal.read(at..at + 1, 0).unwrap()[0].log_id;
                    journal.purge(upto).unwrap();
                    model.retain(|i| *i > at);
                }
                Step::Reopen => journal = { drop(journal); reopen(dir.path(), 2048) },
                _ => {}
            }
            prop_assert_eq!(indexes(&journal), model.clone());
            prop_assert_eq!(journal.last().map_or(0, |id| id.index + 1), end);
        }
    }
}
