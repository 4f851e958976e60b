//! Two replicas with damage at different places, or at the same, and what becomes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_log::{Log, LogError, RealDisk, Recovery};
use klamm_metadata::Partition as Registered;
use klamm_protocol::Uuid;
use klamm_protocol::batch::BatchBuilder;

use super::*;
use crate::config::{Entries, Layers, TopicConfig};
use crate::metrics::Metrics;
use crate::replica::follower::{Fetched, Outcome};
use crate::replica::leader::Progress;
use crate::replica::partition::{Acks, Around, Origin, Topic};
use crate::replica::roles::{FollowerFetch, FollowerRead, FollowerRefused};

const TOPIC: Uuid = Uuid([9; 16]);
const BATCHES: i64 = 60;

fn open(dir: &Path, node: i32, recovery: Recovery, high_watermark: i64) -> Partition {
    let mut config = TopicConfig::resolve(&Layers::default(), &Entries::new());
    Arc::make_mut(&mut config.log).segment_bytes = 1_000;
    let config = Arc::new(config);
    let log = Log::open(RealDisk::shared(), dir, TOPIC, config.log.clone(), recovery, 0).unwrap();
    let topic = Topic::new("t".into(), TOPIC, Metrics::new().topic("t"), config);
    let around = Around::new(node, 30_000);
    *around.live.write() = Arc::new([(0, 1), (1, 1)].into());
    Partition::new(Arc::new(topic), 0, log, high_watermark, around)
}

fn registered(leader: i32, epoch: i32, isr: &[i32]) -> Registered {
    Registered {
        replicas: vec![0, 1],
        directories: vec![Uuid::ZERO; 2],
        isr: isr.to_vec(),
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        leader,
        leader_epoch: epoch,
        partition_epoch: epoch,
        leader_recovery_state: 0,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
    }
}

/// Checks all of a replica, as the scrub does. Whether it is damaged.
fn scrub(partition: &Partition) -> bool {
    partition.with_log(|log| {
        let mut base = 0;
        while let Some((at, unchecked)) = log.segment_to_check(base).unwrap() {
            log.checked(&unchecked.check().unwrap());
            base = at + 1;
        }
        log.damage().is_some()
    })
}

/// Reads as the broker does for a follower: what was found on disk is checked first.
fn fetch(leader: &Partition, follower: i32, asked: Position, epoch: i32) -> Result<Fetched, LogError> {
    let mut fresh = true;
    loop {
        let fetch = FollowerFetch {
            progress: Progress {
                follower,
                broker_epoch: 1,
                fetch_offset: asked.fetch_offset,
                log_start: asked.log_start,
                sent_after: 0,
            },
            leader_epoch: epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            max_bytes: 500,
            min_one: true,
            fresh,
        };
        fresh = false;
        let (read, offsets) = match leader.read_for_follower(&fetch, 0) {
            Err(FollowerRefused::Log(error)) => return Err(error),
            read => read.unwrap(),
        };
        let mut fetched =
            Fetched { high_watermark: offsets.high_watermark, log_start: offsets.log_start, ..Fetched::default() };
        match read {
            FollowerRead::Diverging(epoch, end) => fetched.diverging = Some((epoch, end)),
            FollowerRead::Records(read) => {
                fetched.records = read.bytes().unwrap();
                if let Some(unchecked) = read.unchecked {
                    let checked = unchecked.check().unwrap();
                    leader.with_log(|log| log.checked(&checked));
                    continue;
                }
            }
        }
        return Ok(fetched);
    }
}

/// Fetches until nothing more comes; what was taken back from what is kept, and where neither has anything.
fn follow(follower: &Partition, leader: &Partition, epoch: i32) -> (usize, Option<i64>) {
    let (from, to) = (leader.around().node_id, follower.around().node_id);
    let mut taken_back = 0;
    loop {
        let (epoch_here, asked) = follower.position(from).expect("it follows");
        assert_eq!(epoch_here, epoch);
        match fetch(leader, to, asked, epoch) {
            Ok(fetched) => match follower.take_fetched(epoch, asked, &fetched, 0).unwrap() {
                Some(Outcome::Appended(0)) => return (taken_back, None),
                outcome => assert!(outcome.is_some()),
            },
            Err(LogError::Corrupt(_)) => match follower.refill(epoch, asked, 0).unwrap() {
                Refilled::Bytes(bytes) => taken_back += bytes,
                Refilled::Nowhere(is_news) => {
                    assert!(is_news);
                    assert_eq!(follower.refill(epoch, asked, 0).unwrap(), Refilled::Nowhere(false), "told once");
                    return (taken_back, Some(asked.fetch_offset));
                }
                Refilled::Moot => panic!("nothing has changed"),
            },
            Err(other) => panic!("{other}"),
        }
    }
}

/// Two equal replicas, closed; their directories.
fn two(dir: &Path) -> [PathBuf; 2] {
    let dirs = [0, 1].map(|node| dir.join(format!("{node}/t-0")));
    let both = [0, 1].map(|node| {
        std::fs::create_dir_all(&dirs[node as usize]).unwrap();
        open(&dirs[node as usize], node, Recovery::default(), 0)
    });
    both[0].follow(&registered(0, 0, &[0, 1]), 0);
    both[1].follow(&registered(0, 0, &[0, 1]), 0);
    for n in 0..BATCHES {
        let mut builder = BatchBuilder::new(0);
        builder.push(n, None, Some(format!("value {n}").repeat(3).as_bytes()), &[]).unwrap();
        both[0].append(&builder.build().unwrap(), Origin::Client, Acks::Leader, 0).unwrap();
    }
    assert_eq!(follow(&both[1], &both[0], 0), (0, None));
    for partition in &both {
        partition.close().unwrap();
    }
    dirs
}

fn reopen(dirs: &[PathBuf; 2]) -> [Partition; 2] {
    let clean = Recovery { clean: true, recovery_point: BATCHES, ..Recovery::default() };
    [0, 1].map(|node| open(&dirs[node as usize], node, clean.clone(), BATCHES))
}

/// Garbles the batch of one record at `offset`.
fn damage(dir: &Path, offset: i64) {
    let mut logs: Vec<i64> = std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    logs.sort_unstable();
    let base = *logs.iter().rfind(|base| **base <= offset).unwrap();
    let file = dir.join(format!("{base:020}.log"));
    let mut bytes = std::fs::read(&file).unwrap();
    let mut at = 0;
    for _ in base..offset {
        at += 12 + i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    bytes[at + 30] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
}

fn content(dir: &Path) -> Vec<u8> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "log"));
    names.sort();
    names.iter().flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn kept(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|e| e == "aside")).count()
}

fn let_go(partition: &Partition) {
    for file in partition.let_go_of_kept(0).unwrap() {
        std::fs::remove_file(file).unwrap();
    }
}

/// As the controller has it: node 1 is repaired from node 0, joins the ISR, and node 0 is repaired from it.
fn repair_both(dirs: &[PathBuf; 2], restarts: bool) -> usize {
    let both = reopen(dirs);
    both[0].follow(&registered(0, 1, &[0, 1]), 0);
    both[1].follow(&registered(0, 1, &[0, 1]), 0);
    assert!(scrub(&both[1]), "the follower is damaged");
    both[0].follow(&registered(0, 2, &[0]), 0);
    both[1].follow_anew(&registered(0, 2, &[0]), 0, 0);
    assert!(both[1].take_cut(), "recovery points are written anew");
    assert!(both[1].kept_bytes() > 0 && kept(&dirs[1]) > 0);
    let mut follower = None;
    if restarts {
        // All that is known is on disk.
        let again = open(&dirs[1], 1, Recovery { refill: true, ..Recovery::default() }, 0);
        again.follow_anew(&registered(0, 2, &[0]), 0, 0);
        follower = Some(again);
    }
    let follower = follower.as_ref().unwrap_or(&both[1]);
    let (taken_back, stuck) = follow(follower, &both[0], 2);
    assert_eq!(stuck, None, "one of the two has every record");
    assert!(!follower.is_bereft());
    let_go(follower);
    assert!(kept(&dirs[1]) == 0, "it is all here again, and on disk");
    // It is in sync now, so that the other one can be repaired.
    assert!(scrub(&both[0]) && !scrub(follower));
    both[0].follow(&registered(0, 2, &[0, 1]), 0);
    follower.follow(&registered(1, 3, &[1]), 0);
    both[0].follow_anew(&registered(1, 3, &[1]), 0, 0);
    assert_eq!(follow(&both[0], follower, 3), (0, None));
    assert!(!scrub(&both[0]));
    both[0].follow(&registered(1, 3, &[0, 1]), 0);
    let_go(&both[0]);
    assert_eq!(kept(&dirs[0]), 0);
    both[0].close().unwrap();
    follower.close().unwrap();
    taken_back
}

#[test]
fn replicas_that_are_damaged_at_different_places_mend_each_other() {
    for (here, there) in [(10, 40), (40, 10), (10, 12), (12, 10), (0, 59), (59, 0), (30, 31)] {
        for restarts in [false, true] {
            let tmp = tempfile::tempdir().unwrap();
            let dirs = two(tmp.path());
            let good = content(&dirs[0]);
            assert_eq!(good, content(&dirs[1]));
            damage(&dirs[0], there);
            damage(&dirs[1], here);
            println!("damaged at {here} and {there}, restarts {restarts}");
            let taken_back = repair_both(&dirs, restarts);
            assert!(taken_back > 0 || there < here, "the leader could not give it");
            for dir in &dirs {
                assert_eq!(content(dir), good, "{here} and {there}, restarts {restarts}");
            }
        }
    }
}

#[test]
fn what_is_damaged_on_both_is_told_and_the_rest_is_kept() {
    let tmp = tempfile::tempdir().unwrap();
    let dirs = two(tmp.path());
    damage(&dirs[0], 20);
    damage(&dirs[1], 20);
    damage(&dirs[1], 5);
    let both = reopen(&dirs);
    both[0].follow(&registered(0, 1, &[0, 1]), 0);
    both[1].follow(&registered(0, 1, &[0, 1]), 0);
    assert!(scrub(&both[1]));
    both[0].follow(&registered(0, 2, &[0]), 0);
    both[1].follow_anew(&registered(0, 2, &[0]), 0, 0);
    assert_eq!(follow(&both[1], &both[0], 2).1, Some(20));
    assert!(both[1].is_bereft());
    let_go(&both[1]);
    assert!(both[1].kept_bytes() > 0, "what lies behind is not here again");
    // The operator gives these records up.
    both[0].with_log(|log| log.delete_records(21, 0)).unwrap();
    let (epoch, asked) = both[1].position(0).unwrap();
    assert!(matches!(fetch(&both[0], 1, asked, epoch), Err(LogError::OffsetOutOfRange { .. })));
    assert!(both[1].out_of_range(epoch, 21, 0).unwrap());
    assert_eq!(follow(&both[1], &both[0], 2).1, None);
    assert!(!both[1].is_bereft());
    assert_eq!(both[1].offsets().log_end, BATCHES);
    both[1].follow(&registered(0, 2, &[0, 1]), 0);
    let_go(&both[1]);
    assert_eq!((both[1].kept_bytes(), kept(&dirs[1])), (0, 0));
}
