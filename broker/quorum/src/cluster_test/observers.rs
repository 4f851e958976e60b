//! Nodes without a vote: they pull, go on after restarts, take snapshots, and get and lose seats online.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{Cluster, port, records};
use crate::{Bootstrap, QuorumError, Role};

/// Three voters and the observers 3 and up.
async fn with_observers(seed: u64, observers: i32) -> Cluster {
    let mut cluster = Cluster::of(3, seed).await;
    cluster.bootstrap = Bootstrap::Join((0..3).map(|id| ("sim".to_owned(), port(id))).collect());
    for id in 3..3 + observers {
        cluster.start(id).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn observers_follow_and_go_on_where_they_were() {
    let mut cluster = with_observers(21, 2).await;
    for round in 0..10 {
        cluster.put(&format!("{round}")).await;
    }
    cluster.agree().await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.voter_ids(4), [0, 1, 2]);
    assert_eq!(cluster.quorum(3).leader().borrow().leader, Some(leader));
    assert!(cluster.quorum(3).propose(records(&["no"])).await.is_err());
    // A restarted one has its log at once, and the rest soon.
    cluster.kill(4).await;
    cluster.put("while it was away").await;
    cluster.start(4).await;
    assert!(cluster.quorum(4).metrics().last_offset >= Some(10));
    cluster.agree().await;
    // The leader's death moves them to another voter.
    cluster.kill(leader).await;
    cluster.put("under the next leader").await;
    cluster.start(leader).await;
    cluster.agree().await;
    sleep(Duration::from_secs(8)).await;
    let now = cluster.leader().await;
    let replicas = cluster.quorum(now).replicas(1_000_000);
    assert_eq!(replicas.iter().filter(|r| r.votes).count(), 3);
    let end = cluster.quorum(now).metrics().last_offset.unwrap() + 1;
    for replica in &replicas {
        assert_eq!(replica.log_end_offset, Some(end), "{replica:?}");
        let (heard, caught_up) = (replica.last_fetch_ms.unwrap(), replica.last_caught_up_ms.unwrap());
        assert!(heard <= 1_000_000 && caught_up <= heard && caught_up > 997_000, "{replica:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn far_behind_means_a_snapshot_for_observers_and_voters() {
    let mut cluster = Cluster::new(22, super::cluster::voters(&[0, 1, 2]));
    cluster.tune = Arc::new(|config| {
        config.snapshot_records = 40;
        config.entries_kept = 5;
        config.segment_bytes = 16 << 10;
    });
    for id in 0..3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.put("first").await;
    cluster.kill(away).await;
    let big = "x".repeat(20_000);
    for round in 0..120 {
        cluster.put(&format!("{round} {big}")).await;
    }
    let purged = || cluster.quorum(leader).metrics().purged_offset.is_some_and(|o| o > 20);
    cluster.until("the leader to purge", purged).await;
    cluster.bootstrap = Bootstrap::Join((0..3).map(|id| ("sim".to_owned(), port(id))).collect());
    cluster.start(3).await;
    cluster.start(away).await;
    cluster.agree().await;
    for id in [3, away] {
        assert!(cluster.quorum(id).metrics().snapshot_offset.is_some(), "node {id} was given a snapshot");
    }
    for id in 0..4 {
        cluster.restart(id).await;
    }
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn seats_are_given_and_taken_without_a_restart() {
    let mut cluster = with_observers(23, 1).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    cluster.quorum(leader).add_voter(3, cluster.voter(3), Duration::from_secs(10)).await.unwrap();
    cluster.until("it to vote", || cluster.quorum(3).metrics().role == Role::Follower).await;
    cluster.agree().await;
    // Four voters; it can lead.
    for _ in 0..20 {
        let now = cluster.leader().await;
        if now == 3 {
            break;
        }
        let _ = cluster.quorum(now).resign().await;
        sleep(Duration::from_secs(1)).await;
        if cluster.leader().await != 3 && now != 3 {
            let others: Vec<i32> = (0..3).collect();
            for id in others {
                if cluster.leader().await == id {
                    cluster.kill(id).await;
                    sleep(Duration::from_secs(2)).await;
                    cluster.start(id).await;
                }
            }
        }
    }
    let leader = cluster.leader().await;
    let removed = if leader == 3 { 2 } else { 3 };
    let directory_id = cluster.voter(removed).directory_id;
    cluster.quorum(leader).remove_voter(removed, directory_id).await.unwrap();
    cluster.until("it to observe", || cluster.quorum(removed).metrics().role == Role::Observer).await;
    cluster.put("after").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_catches_up_leaves_no_trace() {
    let cluster = Cluster::of(3, 24).await;
    let leader = cluster.quorum(cluster.leader().await);
    let learners = || leader.metrics().learners.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let limit = Duration::from_secs(4);
    let late = leader.add_voter(9, cluster.voter(9), limit).await;
    assert!(matches!(late, Err(QuorumError::Behind { id: 9 })), "{late:?}");
    assert_eq!(learners(), []);
    // A caller that stops waiting leaves none either.
    let waited = tokio::time::timeout(limit / 4, leader.add_voter(9, cluster.voter(9), limit)).await;
    assert!(waited.is_err());
    assert_eq!(learners(), [9]);
    cluster.until("it to be forgotten", || learners().is_empty()).await;
    assert!(leader.replicas(0).iter().all(|r| r.id != 9));
    assert_eq!(leader.metrics().voters.len(), 3);
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_broken_off_change_left_behind_can_be_removed() {
    let cluster = Cluster::of(3, 25).await;
    let leader = cluster.quorum(cluster.leader().await);
    let phantom = cluster.voter(9);
    let add = openraft::ChangeMembers::AddNodes([(9, phantom.clone())].into());
    leader.inner.core.raft.change_membership(add, true).await.unwrap();
    assert_eq!(leader.metrics().learners, [(9, phantom.clone())]);
    assert!(matches!(leader.remove_voter(9, [7; 16]).await, Err(QuorumError::Change(_))));
    leader.remove_voter(9, phantom.directory_id).await.unwrap();
    assert_eq!(leader.metrics().learners, []);
    assert_eq!(leader.metrics().voters.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_keeps_a_follower_behind_and_alive() {
    let mut cluster = Cluster::new(24, super::cluster::voters(&[0, 1, 2]));
    let small = cluster.config(2).dir;
    std::fs::create_dir_all(&small).unwrap();
    let small = small.to_str().unwrap().to_owned();
    let run = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status();
    if !run(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &small]).is_ok_and(|s| s.success()) {
        println!("not tested: this user can't mount a small tmpfs");
        return;
    }
    for id in 0..3 {
        cluster.start(id).await;
    }
    cluster.bootstrap = Bootstrap::Join((0..2).map(|id| ("sim".to_owned(), port(id))).collect());
    while cluster.leader().await == 2 {
        cluster.quorum(2).resign().await.unwrap();
    }
    let big = "x".repeat(20_000);
    for round in 0..100 {
        cluster.put(&format!("{round} {big}")).await;
    }
    sleep(Duration::from_secs(5)).await;
    let (behind, end) = (cluster.quorum(2).metrics(), cluster.quorum(0).metrics().last_offset);
    println!("1 MiB holds {:?} of {end:?} entries of 20,000 bytes", behind.last_offset);
    assert!(behind.last_offset < end && cluster.quorum(2).inner.core.failure.get().is_none());
    assert!(run(&["mount", "-o", "remount,size=32m", &small]).unwrap().success());
    cluster.agree().await;
    cluster.kill(2).await;
    assert!(run(&["umount", "-l", &small]).unwrap().success());
}
