//! The end of every fault test: all in sync again, everything read, the histories checked, the replicas compared.

use std::path::Path;
use std::time::Duration;

use klamm_tests::{Cluster, Peer};

use crate::checker::{Report, check, replicas};
use crate::history::History;
pub use klamm_tests::seed;
pub use klamm_tests::settings::setting;

use crate::view::View;
use crate::workload::Running;

/// `ci`, or `long` with `KLAMM_LONG=1`.
pub fn figure(ci: u64, long: u64) -> u64 {
    if klamm_tests::long() { long } else { ci }
}

/// How often a controller held a broker's host for cut off, by what the processes have said.
pub fn taken_for_cut_off(cluster: &Cluster) -> usize {
    let logs = cluster.ids().into_iter().map(|id| cluster.log(id));
    logs.map(|log| log.lines().filter(|line| line.contains("fenced: nothing is heard of it")).count()).sum()
}

/// Ends a run and judges it. Fails the test on any anomaly; prints the figures otherwise.
#[track_caller]
pub fn judge(name: &str, mut cluster: Cluster, view: &View, running: Running, notes: &str) -> History {
    let seed = running.seed();
    let in_sync = view.until_in_sync(&mut cluster, Duration::from_secs(60));
    let errors = running.errors();
    let history = running.finish();
    let mut report = check(&history);
    if cluster.peer() == Peer::Klamm {
        same_metadata(&mut cluster);
    }
    let placed = view.partitions(&mut cluster, &history.topic);
    let codes = cluster.stop_all();
    for (partition, log) in &history.log {
        let end = log.last().map_or(0, |seen| seen.offset + 1);
        let replicas = placed.get(partition).map(|p| p.replicas.as_slice()).unwrap_or_default();
        let nodes: Vec<usize> = replicas.iter().filter_map(|id| usize::try_from(*id).ok()).collect();
        assert!(nodes.len() >= cluster.ids().len().min(3), "{}-{partition} is on {nodes:?} alone", history.topic);
        compare(&cluster, &history.topic, *partition, end, &nodes, &mut report);
    }
    println!(
        "figures {name}: {notes}{}{} acked, {} not acked, {} in the log, {} shown to readers, {} to the group, \
         {} looks at commits, {} at watermarks; longest time without an acknowledgement in a partition {} ms; in sync {in_sync:.1?} after \
         the last fault; {report}; seed {seed}",
        if notes.is_empty() { "" } else { "; " },
        history.acked(),
        history.not_acked(),
        history.log.values().map(Vec::len).sum::<usize>(),
        history.readers.iter().flat_map(|r| r.stretches.values()).flatten().map(Vec::len).sum::<usize>(),
        history.members.iter().flat_map(|r| r.stretches.values()).flatten().map(Vec::len).sum::<usize>(),
        history.commits.len(),
        history.watermarks.iter().flat_map(|w| w.values()).map(Vec::len).sum::<usize>(),
        history.gaps(0).values().max().copied().unwrap_or(0),
    );
    for error in errors.iter().take(12) {
        println!("  client: {}", error.chars().take(300).collect::<String>());
    }
    if !report.is_clean() {
        for node in cluster.ids() {
            let told = cluster.log(node);
            let told = told.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
            told.for_each(|line| println!("  node {node}: {line}"));
        }
    }
    assert!(report.is_clean(), "{name}, KLAMM_CLUSTER_SEED={seed}: {report}");
    if cluster.peer() == Peer::Klamm {
        assert!(codes.iter().all(|code| *code == 0), "{name}: exit codes {codes:?}");
    }
    history
}

/// Compares a partition's files on these nodes up to the end that readers saw.
pub fn compare(cluster: &Cluster, topic: &str, partition: i32, end: i64, nodes: &[usize], report: &mut Report) {
    let name = format!("{topic}-{partition}");
    let copies: Vec<(usize, Vec<u8>)> =
        nodes.iter().map(|id| (*id, segments(&cluster.data(*id).join(&name)))).collect();
    replicas(&name, end, &copies, report);
}

/// All segments of a partition's folder, in order.
fn segments(dir: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    files.sort();
    files.iter().flat_map(|p| std::fs::read(p).unwrap_or_default()).collect()
}

/// The hash of the metadata that nodes tell with the offset it is of, if they do: equal wherever the offsets are.
#[track_caller]
pub fn same_metadata(cluster: &mut Cluster) -> Option<(u64, String)> {
    let ids = cluster.ids();
    let told = klamm_tests::wait_for(Duration::from_secs(10), || {
        let hashes: Vec<Option<(u64, String)>> = ids.iter().map(|id| state_hash(&cluster.admin(*id))).collect();
        let offset = |told: &Option<(u64, String)>| told.as_ref().map(|(offset, _)| *offset);
        // Told by nobody, or by everyone of the same offset.
        hashes.windows(2).all(|pair| offset(&pair[0]) == offset(&pair[1])).then_some(hashes)
    });
    let told = told.expect("nodes that stand at one metadata offset");
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "metadata differs: {told:?}");
    told.into_iter().next().flatten()
}

/// `metadata.offset` and `metadata.hash` of a node's `/v1/status`.
fn state_hash(admin: &str) -> Option<(u64, String)> {
    let status: serde_json::Value = serde_json::from_str(&http_get(admin, "/v1/status")?).ok()?;
    let metadata = status.get("metadata")?;
    Some((metadata.get("offset")?.as_u64()?, metadata.get("hash")?.to_string()))
}

/// The body of an answer of the admin HTTP, whatever its status.
pub fn http_get(address: &str, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let to = address.parse().ok()?;
    let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}
