//! Every file beside the segments deleted or garbled, after an orderly stop and after a kill: readers see what they saw.
//!
//! The files of the metadata quorum and `meta.properties` are not among them: those say who the node is and what it has
//! promised, and nothing else holds that.

use std::path::{Path, PathBuf};

use klamm_tests::{Broker, Peer, Random, Tool, paths};

const TOPICS: [(&str, &str); 3] = [("plain", ""), ("keyed", "cleanup.policy=compact"), ("flushed", "flush.messages=1")];

fn kcat(broker: &Broker, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

/// All that readers can ask for: records with offsets and times, and offsets by time.
fn seen(broker: &Broker) -> Vec<String> {
    let mut seen = Vec::new();
    for (topic, _) in TOPICS {
        let read = kcat(broker, &format!("-C -t {topic} -o beginning -e -q -f %p:%o:%T:%k:%s\\n")).ok();
        let mut lines: Vec<String> = read.lines().into_iter().map(str::to_owned).collect();
        lines.sort_unstable();
        let times: Vec<i64> = lines.iter().filter_map(|l| l.split(':').nth(2)?.parse().ok()).collect();
        let newest = times.iter().max().copied().unwrap_or(0);
        let oldest = times.iter().min().copied().unwrap_or(0);
        for time in [oldest, oldest + (newest - oldest) / 2, newest, newest + 1] {
            for partition in 0..2 {
                let asked = kcat(broker, &format!("-Q -t {topic}:{partition}:{time}")).ok();
                seen.push(asked.out.trim().to_owned());
            }
        }
        seen.extend(lines);
    }
    seen
}

fn side_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !name.starts_with("__cluster_metadata") {
                side_files(&path, found);
            }
        } else if !name.ends_with(".log") && name != "meta.properties" && name != ".lock" {
            found.push(path);
        }
    }
}

/// What happens to a side file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Deleted,
    Inverted,
    /// As after a power loss on some file systems.
    Zeroed,
    Random,
    /// Its first four bytes, where a format may have a length or a version, are as large as can be.
    Prefix,
}

impl Harm {
    const ALL: [Harm; 5] = [Harm::Deleted, Harm::Inverted, Harm::Zeroed, Harm::Random, Harm::Prefix];

    fn to(self, path: &Path, random: &mut Random) {
        let mut bytes = std::fs::read(path).expect("a side file");
        if self == Harm::Deleted || bytes.is_empty() {
            std::fs::remove_file(path).expect("removed");
            return;
        }
        match self {
            Harm::Inverted => bytes.iter_mut().for_each(|byte| *byte = !*byte),
            Harm::Zeroed => bytes.fill(0),
            Harm::Random => bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            _ => bytes.iter_mut().zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(byte, with)| *byte = with),
        }
        std::fs::write(path, bytes).expect("garbled");
    }
}

#[test]
fn side_files_deleted_or_garbled_change_no_read() {
    if Peer::chosen() != Peer::Klamm || klamm_tests::broker::nodes() > 1 {
        return;
    }
    let settings = [("log.segment.bytes", "1048576"), ("log.index.interval.bytes", "1000")];
    let mut broker = Broker::start(&settings);
    let klamm = |broker: &Broker, line: &str, input: String| {
        let tool = Tool::new(paths::klamm()).args(["-b", broker.bootstrap()]).args(line.split_whitespace());
        tool.stdin(input).ok()
    };
    for (topic, config) in TOPICS {
        let config = if config.is_empty() { String::new() } else { format!("--config {config}") };
        klamm(&broker, &format!("topics create {topic} --partitions 2 {config}"), String::new());
        let lines: Vec<String> = (0..3000).map(|i| format!("k{}:{i} {}", i % 97, "x".repeat(800))).collect();
        kcat(&broker, &format!("-P -t {topic} -K : -X acks=all -X enable.idempotence=true -X batch.num.messages=20"))
            .stdin(lines.join("\n"))
            .ok();
    }
    // What was deleted must stay so: only a checkpoint, its copy and the epoch file know from where on.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = klamm_client::Client::connect(broker.bootstrap(), klamm_client::ClientOptions::default()).await;
        let before = [(0, 123), (1, 321)].into();
        client.expect("connected").delete_records("plain", &before).await.expect("deleted");
    });
    let expected = seen(&broker);
    let long = std::env::var_os("KLAMM_LONG").is_some();
    let mut random = Random::new(7);
    let (mut harmed, mut starts) = (0, 0);
    for orderly in [true, false] {
        for harm in Harm::ALL {
            // All at once, but for one of those that know where a log starts; in the long run also each kind by itself.
            let spared = ["log-start-offset-checkpoint", ".klamm_log_starts", "leader-epoch-checkpoint"];
            let mut kinds: Vec<String> = spared.map(|name| format!("all but {name}")).into();
            if long {
                let mut found = Vec::new();
                side_files(&broker.data(), &mut found);
                let mut names: Vec<String> = found
                    .iter()
                    .map(|p| p.extension().or(p.file_name()).expect("a name").to_string_lossy().into())
                    .collect();
                names.sort();
                names.dedup();
                kinds.extend(names);
            }
            for kind in kinds {
                match orderly {
                    true => assert_eq!(broker.stop(), 0),
                    false => broker.kill(),
                }
                let mut found = Vec::new();
                side_files(&broker.data(), &mut found);
                found.retain(|path| match kind.strip_prefix("all but ") {
                    Some(spared) => !path.ends_with(spared),
                    None => path.to_string_lossy().ends_with(&kind),
                });
                for path in &found {
                    harm.to(path, &mut random);
                }
                harmed += found.len();
                starts += 1;
                broker.restart();
                let what = format!("orderly stop: {orderly}, {harm:?}, kind {kind:?}, {} files", found.len());
                let now = seen(&broker);
                let other = now.iter().zip(&expected).find(|(a, b)| a != b);
                assert!(
                    other.is_none() && now.len() == expected.len(),
                    "{what}: {other:?}, {} of {}",
                    now.len(),
                    expected.len()
                );
            }
        }
    }
    println!(
        "figures R9 side files: {harmed} files deleted or garbled in {starts} starts, {} answers the same each time",
        expected.len()
    );
    assert!(harmed > 60, "{harmed}");
}
