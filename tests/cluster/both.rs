//! Bits that flip on both replicas of a partition: at different places, and nothing is lost; at the same place, and
//! it is told, while everything else stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_protocol::batch::{BatchHeader, batches};
use klamm_tests::{Cluster, Peer, Plan, Random, Tool, wait_for};

use crate::checker::Report;
use crate::judge::{compare, figure, http_get, seed};
use crate::view::View;
use crate::workload::options;

const TOPIC: &str = "both";
const PARTITIONS: i32 = 6;
const HOLDERS: [usize; 2] = [0, 1];

/// All batches of a replica: file, position in it, header, length.
fn all_batches(cluster: &Cluster, node: usize, partition: i32) -> Vec<(PathBuf, usize, BatchHeader, usize)> {
    let dir = cluster.data(node).join(format!("{TOPIC}-{partition}"));
    let names = std::fs::read_dir(&dir).expect("a replica").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("a segment");
        let mut at = 0;
        for batch in batches(&bytes) {
            let (header, bytes) = batch.expect("a sound batch");
            found.push((file.clone(), at, header, bytes.len()));
            at += bytes.len();
        }
    }
    found
}

/// Flips a bit somewhere in this batch.
fn damage((file, at, _, len): &(PathBuf, usize, BatchHeader, usize), random: &mut Random) {
    let mut bytes = std::fs::read(file).expect("a segment");
    let place = at + random.below(*len as u64) as usize;
    bytes[place] ^= 1 << random.below(8);
    std::fs::write(file, bytes).expect("a flipped bit");
}

fn number(cluster: &Cluster, node: usize, name: &str) -> Option<u64> {
    let text = http_get(&cluster.admin(node), "/metrics")?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.rsplit(' ').next()?.parse::<f64>().ok()? as u64)
}

/// Nothing is damaged, kept or out of sync.
fn is_well(cluster: &mut Cluster, view: &View) -> bool {
    let zero = |name| HOLDERS.iter().all(|node| number(cluster, *node, name) == Some(0));
    zero("klamm_log_damaged_partitions ")
        && zero("klamm_log_repair_kept_bytes ")
        && zero("klamm_log_unrepairable_partitions ")
        && view.ailing(cluster).is_empty()
}

#[track_caller]
fn until_well(cluster: &mut Cluster, view: &View) {
    // Two looks at all segments, so that everything there is has been found.
    let rounds = |cluster: &Cluster| HOLDERS.map(|node| cluster.log(node).matches("all segments checked").count());
    let before = rounds(cluster);
    let well = wait_for(Duration::from_secs(240), || {
        let looked = rounds(cluster).iter().zip(before).all(|(now, before)| *now >= before + 3);
        (looked && is_well(cluster, view)).then_some(())
    });
    assert!(well.is_some(), "{:?}\n{}\n{}", view.ailing(cluster), cluster.log(0), cluster.log(1));
}

fn stop_holders(cluster: &mut Cluster) {
    for node in HOLDERS {
        assert_eq!(cluster.stop(node).1, 0);
    }
}

fn launch_holders(cluster: &mut Cluster) {
    for node in HOLDERS {
        cluster.launch(node);
    }
    for node in HOLDERS {
        cluster.until_up(node, 1);
    }
}

fn read(cluster: &Cluster) -> Vec<String> {
    let kcat = Tool::new("kcat").args(["-b", &cluster.bootstrap(), "-C", "-t", TOPIC, "-o", "beginning", "-e", "-q"]);
    let mut lines: Vec<String> = kcat.args(["-f", "%p:%o:%s\\n"]).ok().lines().into_iter().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn sides(cluster: &Cluster, node: usize, path: &Path) -> Vec<String> {
    let dir = cluster.data(node).join(path);
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
    names.filter_map(|name| Some(name.to_str()?.to_owned())).filter(|name| name.ends_with(".aside")).collect()
}

#[test]
fn two_replicas_damaged_at_different_places_lose_nothing() {
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
    let assignments = (0..PARTITIONS).map(|p| if p % 2 == 0 { vec![0, 1] } else { vec![1, 0] });
    let new = NewTopic { name: TOPIC.to_owned(), assignments: assignments.collect(), ..Default::default() };
    let bootstrap = cluster.bootstrap();
    let created = view.run(async { Client::connect(&bootstrap, options()).await?.create_topic(&new).await });
    created.unwrap_or_else(|e| panic!("topic {TOPIC}: {e}"));
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    for partition in 0..PARTITIONS {
        let lines: Vec<String> = (0..1500).map(|n| format!("{n} {}", "x".repeat(1_300))).collect();
        let kcat = Tool::new("kcat").args(["-b", &bootstrap, "-P", "-t", TOPIC, "-p", &partition.to_string()]);
        kcat.args(["-X", "acks=all", "-X", "enable.idempotence=true", "-X", "batch.num.messages=20"])
            .stdin(lines.join("\n"))
            .ok();
    }
    let expected = read(&cluster);
    assert_eq!(expected.len(), 1500 * PARTITIONS as usize);

    let (mut places, rounds) = (0, figure(1, 8));
    for _ in 0..rounds {
        stop_holders(&mut cluster);
        for partition in 0..PARTITIONS {
            let here = HOLDERS.map(|node| all_batches(&cluster, node, partition));
            // The last batch may lie behind no other that would give its offset away.
            let count = here[0].len() as u64 - 1;
            for _ in 0..1 + random.below(3) {
                // Neighbours of one that is damaged cannot vouch for each other.
                let (a, b) = (random.below(count) as usize, random.below(count) as usize);
                if a.abs_diff(b) < 4 {
                    continue;
                }
                damage(&here[0][a], &mut random);
                damage(&here[1][b], &mut random);
                places += 2;
                break;
            }
        }
        launch_holders(&mut cluster);
        until_well(&mut cluster, &view);
        assert!(read(&cluster) == expected, "readers see something else than before");
    }
    let taken_back: usize =
        HOLDERS.iter().map(|node| cluster.log(*node).matches("taken back from what the repair").count()).sum();
    println!(
        "figures R8 both replicas: {places} places on two replicas of {PARTITIONS} partitions in {rounds} rounds, all mended, \
         {taken_back} times from what a repair had kept; seed {seed}"
    );

    // The same record on both.
    stop_holders(&mut cluster);
    let here = HOLDERS.map(|node| all_batches(&cluster, node, 0));
    let middle = here[0].len() / 2;
    let (first, next) = (here[0][middle].2.base_offset, here[0][middle].2.next_offset());
    for batches in &here {
        let at = batches.iter().position(|(_, _, header, _)| header.base_offset == first).expect("the same batches");
        damage(&batches[at], &mut random);
    }
    launch_holders(&mut cluster);
    let told = wait_for(Duration::from_secs(120), || {
        let counted = HOLDERS.iter().filter_map(|node| number(&cluster, *node, "klamm_log_unrepairable_partitions "));
        (counted.sum::<u64>() == 1).then_some(())
    });
    let logs = || format!("{}\n{}", cluster.log(0), cluster.log(1));
    assert!(told.is_some(), "{}", logs());
    assert!(logs().contains("damaged at the same place here and at the leader"), "{}", logs());
    let kept: usize = HOLDERS.iter().map(|node| sides(&cluster, *node, Path::new(&format!("{TOPIC}-0"))).len()).sum();
    assert!(kept > 0, "what lies behind is kept");
    // The operator gives up what is damaged, and what is before it.
    let given_up = BTreeMap::from([(0, next)]);
    let deleted =
        view.run(async { Client::connect(&bootstrap, options()).await?.delete_records(TOPIC, &given_up).await });
    deleted.unwrap_or_else(|e| panic!("records not deleted: {e}"));
    until_well(&mut cluster, &view);
    let left: Vec<String> = expected
        .iter()
        .filter(|line| {
            let mut parts = line.split(':');
            let (partition, offset) = (parts.next(), parts.next().and_then(|o| o.parse::<i64>().ok()));
            partition != Some("0") || offset >= Some(next)
        })
        .cloned()
        .collect();
    assert!(read(&cluster) == left, "readers see something else than what is left");
    let codes = cluster.stop_all();
    let mut report = Report::default();
    for partition in 1..PARTITIONS {
        compare(&cluster, TOPIC, partition, 1500, &HOLDERS, &mut report);
    }
    assert!(report.is_clean(), "{report}");
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
}
