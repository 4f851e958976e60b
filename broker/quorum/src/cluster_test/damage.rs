//! Voters whose files lost what had been durable: what a broken disk does, and a crash never.

use std::fs;
use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use crate::journal::Journal;

fn newest_journal(dir: &Path) -> PathBuf {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.filter(|p| p.extension().is_some_and(|e| e == "journal")).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_lost_its_logs_end_is_given_it_again() {
    let mut cluster = Cluster::of(3, 5).await;
    for round in 0..20 {
        cluster.put(&format!("{round}")).await;
    }
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    cluster.agree().await;
    for cut in [40, 300, 3] {
        cluster.kill(victim).await;
        let path = newest_journal(&cluster.config(victim).dir);
        let whole = fs::read(&path).unwrap();
        let config = cluster.config(victim);
        let last = || Journal::open(&config.dir, config.owner(), config.segment_bytes).unwrap().unwrap().last();
        let before = last();
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert!(last() < before);
        cluster.start(victim).await;
        cluster.put(&format!("after a cut of {cut}")).await;
        let wanted = format!("after a cut of {cut}");
        assert!(cluster.agree().await.iter().any(|record| record == wanted.as_bytes()));
        assert_eq!(cluster.leader().await, leader, "nothing happened that the leader could be blamed for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_lost_a_vote_it_has_cast_does_not_start() {
    let mut cluster = Cluster::of(3, 6).await;
    let old = cluster.leader().await;
    cluster.put("before").await;
    cluster.kill(old).await;
    let new = cluster.leader().await;
    cluster.put("after").await;
    // Who voted for the new leader, and would vote for another of its term if the vote were gone.
    let voted = (0..3).find(|id| *id != old && *id != new).unwrap();
    cluster.kill(voted).await;
    let config = cluster.config(voted);
    let open = || Journal::open(&config.dir, config.owner(), config.segment_bytes).unwrap().unwrap();
    let vote = open().vote().unwrap();
    let path = newest_journal(&config.dir);
    let whole = fs::read(&path).unwrap();
    let mut cut = whole.len();
    while open().vote().is_some_and(|left| left.leader_id == vote.leader_id) {
        cut -= 1;
        fs::write(&path, &whole[..cut]).unwrap();
    }
    let before = fs::read(&path).unwrap();
    let Err(error) = crate::Quorum::open(config, super::cluster::Tape::default()).await else {
        panic!("it starts without its vote of {vote}");
    };
    assert!(error.to_string().contains("has voted in term"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before, "nothing was changed");
    // With its folder gone it is another voter, which has promised nothing.
    cluster.wipe(voted).await;
    cluster.start(old).await;
    cluster.start(voted).await;
    cluster.put("at last").await;
}
