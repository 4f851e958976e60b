//! Bits that flip on one node's disk, while it is down and while it runs: nobody is ever served them, they are reported,
//! and the replica takes from another what they garbled.
//!
//! Beside the usual load a spy reads every replica on every broker again and again and checks each batch it is given. What
//! is flipped under a running broker is also dropped from the page cache: rot happens on the disk.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_tests::{Cluster, Peer, Plan, Random, Tool, wait_for};

use crate::judge::{figure, http_get, judge, seed};
use crate::view::View;
use crate::workload::Load;

const TOPIC: &str = "rot";
const PARTITIONS: i32 = 6;

/// What the spy was given of a replica.
#[derive(Debug, Default)]
struct Seen {
    records: i64,
    bytes: u64,
    /// Offsets that were refused as damaged.
    refused: i64,
}

/// Reads a replica from its start to its high watermark, past what is refused. Fails on any batch that is not what was
/// written. The error says why it could not be read to the end.
fn spy(view: &View, cluster: &Cluster, node: usize, partition: i32) -> Result<Seen, String> {
    let metadata = view.metadata(cluster, node, Some(&[TOPIC])).ok_or("no metadata")?;
    let topic_id = metadata.topics.first().ok_or("no topic")?.topic_id;
    let (mut offset, mut seen) = (0, Seen::default());
    loop {
        let wants = FetchPartition {
            partition,
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 200_000,
            ..Default::default()
        };
        let topic = FetchTopic { topic_id, partitions: vec![wants], ..Default::default() };
        let request = FetchRequest { max_bytes: 1 << 20, topics: vec![topic], session_epoch: -1, ..Default::default() };
        let answer = view.ask(&cluster.address(node), &request).map_err(|e| e.to_string())?;
        let data = answer.responses.first().and_then(|t| t.partitions.first()).ok_or("no partition")?;
        let place = format!("node {node} serves {TOPIC}-{partition} at {offset}");
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {}
            // What lies behind can be read.
            ErrorCode::KafkaStorageError | ErrorCode::CorruptMessage if offset < data.high_watermark => {
                seen.refused += 1;
                offset += 1;
                continue;
            }
            code => return Err(format!("{} at {offset}", code.name())),
        }
        let bytes = data.records.as_ref().and_then(|r| r.bytes()).cloned().unwrap_or_default();
        seen.bytes += bytes.len() as u64;
        let before = offset;
        for batch in klamm_protocol::batch::batches(&bytes) {
            // The last may be cut off.
            let Ok((header, bytes)) = batch else { break };
            klamm_protocol::batch::verify_crc(bytes).unwrap_or_else(|e| panic!("{place}: {e}"));
            let follows = header.base_offset == offset
                || (seen.refused > 0 && (header.base_offset..header.next_offset()).contains(&offset));
            assert!(follows, "{place}: a batch of offset {}, {offset} comes next", header.base_offset);
            offset = header.next_offset();
            seen.records += i64::from(header.records_count);
        }
        if offset >= data.high_watermark {
            return Ok(seen);
        }
        if offset == before {
            // Nothing below the high watermark is nothing to look at: it is being repaired.
            return Err(format!("nothing at {offset}, below the high watermark {}", data.high_watermark));
        }
    }
}

/// All replicas of all nodes.
fn spy_on_all(view: &View, cluster: &Cluster, all: &mut Spied) {
    for node in cluster.ids() {
        for partition in 0..PARTITIONS {
            match spy(view, cluster, node, partition) {
                Err(why) => all.unread = format!("{TOPIC}-{partition} on {node}: {why}"),
                Ok(seen) => {
                    all.whole += u64::from(seen.refused == 0);
                    all.bytes += seen.bytes;
                    all.refused += seen.refused;
                }
            }
        }
    }
}

/// What the spy has seen in all.
#[derive(Debug, Default)]
struct Spied {
    /// Replicas read to their high watermark without a gap.
    whole: u64,
    bytes: u64,
    refused: i64,
    /// Why one could not be read to its end, last.
    unread: String,
}

/// The files beside the segments: each is a copy of what is known from elsewhere, or is checked against it. A node that
/// comes back with any of them garbled starts, and holds and serves what it held before.
const BESIDE: [&str; 9] = [
    "leader-epoch-checkpoint",
    "partition.metadata",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    ".klamm_log_starts",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
    ".kafka_cleanshutdown",
    ".klamm_boot",
];

/// Flips a bit in each of the files beside the segments, of a node that is down. Returns how many there were.
fn flip_beside(random: &mut Random, data: &Path) -> u64 {
    let dirs = (0..PARTITIONS).map(|p| data.join(format!("{TOPIC}-{p}"))).chain([data.to_path_buf()]);
    let mut flipped = 0;
    // Where a log starts is known from three files: one that is sound will do.
    let starts = ["log-start-offset-checkpoint", ".klamm_log_starts", "leader-epoch-checkpoint"];
    let spared = starts[random.below(3) as usize];
    let spared = if data.join(spared).exists() { spared } else { starts[2] };
    for path in dirs.flat_map(|dir| BESIDE.map(|name| dir.join(name))).filter(|path| !path.ends_with(spared)) {
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        if let Some(at) = (bytes.len() as u64).checked_sub(1).map(|last| random.between(0, last) as usize) {
            bytes[at] ^= 1 << random.below(8);
            std::fs::write(&path, bytes).expect("a bit flips");
            flipped += 1;
        }
    }
    flipped
}

/// The files in which bits flip: segments mostly, and what lies beside them.
fn files(data: &Path) -> Vec<PathBuf> {
    let dirs = (0..PARTITIONS).map(|p| data.join(format!("{TOPIC}-{p}")));
    let inside = dirs.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()));
    let rots = |path: &PathBuf| {
        let ends = |suffix| path.extension().is_some_and(|e| e == suffix);
        ends("log") || ends("index") || ends("timeindex") || ends("snapshot")
    };
    let mut files: Vec<_> = inside.filter(rots).collect();
    files.sort();
    files
}

/// What a disk reads and writes at once.
const BLOCK: u64 = 4096;

/// Flips bits on the disk, past the page cache, and empties that of the files. Returns how many.
fn flip(random: &mut Random, data: &Path, bits: u64) -> u64 {
    let files = files(data);
    let logs: Vec<_> = files.iter().filter(|f| f.extension().is_some_and(|e| e == "log")).cloned().collect();
    let block = tempfile::NamedTempFile::new().expect("a file for a block");
    let dd = |args: [String; 5]| Tool::new("dd").args(args).args(["bs=4096", "status=none"]).run().code == 0;
    let mut flipped = 0;
    while flipped < bits {
        let among = if random.chance(900) { &logs } else { &files };
        let path = &among[random.below(among.len() as u64) as usize];
        let Ok(file) = std::fs::File::options().read(true).write(true).open(path) else { continue };
        let len = file.metadata().map_or(0, |m| m.len());
        if len == 0 {
            continue;
        }
        let (at, bit) = (random.below(len), random.below(8));
        let mut bytes = [0; BLOCK as usize];
        let from = at / BLOCK * BLOCK;
        if file.read_exact_at(&mut bytes, from).is_ok() {
            bytes[(at - from) as usize] ^= 1 << bit;
            std::fs::write(block.path(), bytes).expect("written");
            let (from, to) = (format!("if={}", block.path().display()), format!("of={}", path.display()));
            // The segment may just have been deleted.
            let (direct, careful) = ("oflag=direct".into(), "conv=notrunc,nocreat,fsync".into());
            flipped += u64::from(dd([from, to, format!("seek={}", at / BLOCK), direct, careful]));
        } else if len < BLOCK && file.read_exact_at(&mut bytes[..1], at).is_ok() {
            // Not a block yet.
            file.write_all_at(&[bytes[0] ^ 1 << bit], at).and_then(|()| file.sync_data()).expect("a bit flips");
            flipped += 1;
        }
    }
    for path in &files {
        let path = path.display();
        dd([format!("if={path}"), "iflag=nocache".into(), "count=0".into(), "ibs=4096".into(), "obs=4096".into()]);
    }
    flipped
}

fn metric(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let text = http_get(&cluster.admin(node), "/metrics").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

/// Waits until a node has checked all its segments so many times more.
#[track_caller]
fn looked_at(cluster: &Cluster, node: usize, times: usize) {
    let rounds = || cluster.log(node).matches("all segments checked").count();
    let before = rounds();
    klamm_tests::eventually("all segments checked", 120, || (rounds() >= before + times).then_some(()));
}

#[test]
fn flipped_bits_on_one_node_are_never_served_and_are_repaired() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    let seed = seed();
    let mut random = Random::new(seed);
    let plan = Plan::default()
        .set("log.segment.bytes", "1048576")
        .set("log.index.interval.bytes", "1000")
        .set("klamm.log.scrub.interval.ms", "1000")
        .set("klamm.log.scrub.bytes.per.second", "200000000");
    let mut cluster = Cluster::start(plan);
    let view = View::of(&cluster);
    view.create(&mut cluster, TOPIC, PARTITIONS, &[]);
    let load = Load { value_bytes: 700, rate: 300, ..Load::new(TOPIC, PARTITIONS, seed) };
    let running = load.start(&cluster.bootstrap());
    running.more(figure(2_500, 20_000), Duration::from_secs(120));
    let victim = 1;
    let (mut flipped, mut beside, mut found, mut rounds) = (0, 0, 0, 0);
    let mut spied = Spied::default();
    let (count, bits) = (figure(3, 40), figure(40, 25));
    while rounds < count {
        let data = cluster.data(victim);
        match rounds % 4 {
            0 | 2 => {
                let _ = if rounds % 4 == 0 {
                    cluster.stop(victim).1
                } else {
                    cluster.kill(victim);
                    0
                };
                flipped += flip(&mut random, &data, bits);
                beside += flip_beside(&mut random, &data);
                cluster.launch(victim);
                cluster.until_up(victim, 1);
            }
            _ => flipped += flip(&mut random, &data, bits),
        }
        spy_on_all(&view, &cluster, &mut spied);
        // Every damaged place is found in the end: a repair begins at the first of a log and takes all behind it along, so that
        // two rounds which begin after the flips have seen everything.
        let begun = metric(&cluster, victim, "klamm_log_damage_found_total");
        looked_at(&cluster, victim, 2);
        let mended = wait_for(Duration::from_secs(60), || {
            let here = metric(&cluster, victim, "klamm_log_damaged_partitions");
            (here == 0 && view.ailing(&mut cluster).is_empty()).then_some(())
        });
        assert!(
            mended.is_some(),
            "still damaged or out of sync: {:?}\n{}",
            view.ailing(&mut cluster),
            cluster.log(victim)
        );
        spy_on_all(&view, &cluster, &mut spied);
        found += metric(&cluster, victim, "klamm_log_damage_found_total").max(begun);
        rounds += 1;
    }
    looked_at(&cluster, victim, 2);
    let left = metric(&cluster, victim, "klamm_log_damaged_partitions");
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    let before = spied.whole;
    spied.unread = String::new();
    spy_on_all(&view, &cluster, &mut spied);
    println!("  in the end {} replicas read whole; {}", spied.whole - before, spied.unread);
    let notes = format!(
        "{flipped} bits flipped in segments, indexes and snapshots and {beside} in the files beside them in {rounds} rounds; \
         the spy read {} replicas to their end, {} MB, met {} refusals and no damaged batch; {found} damaged places reported",
        spied.whole,
        spied.bytes / 1_000_000,
        spied.refused,
    );
    judge("R8 bit rot", cluster, &view, running, &notes);
    assert_eq!(left, 0);
    assert!(found > 0, "nothing was reported");
}
