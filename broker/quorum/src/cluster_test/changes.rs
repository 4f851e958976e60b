//! Seats: growing, shrinking, new addresses, replaced disks; under load.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Load, check, port, ports, records, voters};
use crate::{Bootstrap, QuorumError, Voter};

/// Does what the controller does: asks the leader for one step after the other.
async fn reseat(cluster: &Cluster, ids: &[i32]) {
    let wanted: BTreeMap<i32, Voter> = ids.iter().map(|id| (*id, cluster.voter(*id))).collect();
    for _ in 0..200 {
        let leader = cluster.leader().await;
        match cluster.quorum(leader).reseat(&wanted).await {
            Ok(false) => return,
            Ok(true) => {}
            Err(QuorumError::NotLeader { .. } | QuorumError::Undecided | QuorumError::Change(_)) => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the voters never become {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn one_node_grows_to_five_and_back_to_three_under_load() {
    let mut cluster = Cluster::new(11, Bootstrap::Alone);
    // A node that was formed without an address, as a single broker is.
    let mut config = cluster.config(0);
    config.me = Voter::default();
    let alone = crate::Quorum::open(config, super::cluster::Tape::default()).await.unwrap();
    alone.propose(records(&["alone"])).await.unwrap();
    alone.shutdown().await;
    drop(alone);
    cluster.start(0).await;
    cluster
        .until("its address to be written down", || cluster.quorum(0).metrics().voters[0].1 == cluster.voter(0))
        .await;
    let load = Load::start(&cluster, 4);
    cluster.bootstrap = Bootstrap::Join(vec![("sim".into(), port(0))]);
    for id in 1..5 {
        cluster.start(id).await;
        load.refresh(&cluster);
    }
    cluster.until("three voters", || cluster.voter_ids(0) == [0, 1, 2]).await;
    reseat(&cluster, &[0, 1, 2, 3, 4]).await;
    cluster.until("five voters", || cluster.nodes.keys().all(|id| cluster.voter_ids(*id) == [0, 1, 2, 3, 4])).await;
    sleep(Duration::from_millis(300)).await;
    // The two lowest leave, the leader among them.
    reseat(&cluster, &[2, 3, 4]).await;
    cluster.until("all to know", || cluster.nodes.keys().all(|id| cluster.voter_ids(*id) == [2, 3, 4])).await;
    sleep(Duration::from_millis(300)).await;
    let history = load.stop().await;
    let texts = cluster.agree().await;
    check(&history, &texts);
    println!(
        "1 to 5 to 3 voters under load: {} acknowledged, {} refused, longest gap {:?}",
        history.acked.len(),
        history.refused,
        history.gap
    );
    assert!(history.acked.len() > 50 && history.gap < Duration::from_millis(700));
    // Removed nodes go on as observers.
    assert!(cluster.quorum(0).metrics().applied_offset.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_voter_with_an_empty_disk_comes_back_as_a_new_one() {
    let mut cluster = Cluster::of(3, 12).await;
    for round in 0..20 {
        cluster.put(&format!("{round}")).await;
    }
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    cluster.wipe(wiped).await;
    let load = Load::start(&cluster, 2);
    cluster.start(wiped).await;
    let started = Instant::now();
    let back = |cluster: &Cluster| {
        let voters = cluster.quorum(leader).metrics().voters;
        voters.len() == 3 && voters.iter().any(|(id, v)| *id == wiped && *v == cluster.voter(wiped))
    };
    cluster.until("the wiped voter to be one again", || back(&cluster)).await;
    println!("a wiped voter votes again {:?} (simulated) after its start", started.elapsed());
    let history = load.stop().await;
    check(&history, &cluster.agree().await);
    // And it counts: with another one gone it keeps the quorum going.
    let other = (0..3).find(|id| *id != leader && *id != wiped).unwrap();
    cluster.kill(other).await;
    cluster.put("with the new disk").await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_never_helps_to_elect_a_leader_that_lacks_entries() {
    for seed in 0..4 {
        let mut cluster = Cluster::of(3, 100 + seed).await;
        let a = cluster.leader().await;
        let (b, c) = ((a + 1) % 3, (a + 2) % 3);
        // B lacks what A and C have confirmed.
        cluster.kill(b).await;
        cluster.put("only on two").await;
        cluster.kill(a).await;
        cluster.wipe(c).await;
        cluster.start(b).await;
        cluster.start(c).await;
        for _ in 0..60 {
            sleep(Duration::from_millis(500)).await;
            assert_eq!(cluster.ready(), None, "seed {seed}: a leader without the acknowledged entry");
        }
        cluster.start(a).await;
        let texts = cluster.agree().await;
        assert_eq!(texts, records(&["only on two", "end"]));
        cluster
            .until("three voters", || cluster.quorum(a).metrics().voters.iter().any(|(_, v)| *v == cluster.voter(c)))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_node_with_a_taken_id_is_turned_away() {
    let mut cluster = Cluster::of(3, 13).await;
    let leader = cluster.leader().await;
    let taken = (leader + 1) % 3;
    let mut config = cluster.config(taken);
    config.dir = cluster.root.path().join("impostor");
    config.me.directory_id = [99; 16];
    config.me.port = 9099;
    config.transport = cluster.net.link(9099);
    config.bootstrap = voters(&[0, 1, 2]);
    let impostor = crate::Quorum::open(config, super::cluster::Tape::default()).await.unwrap();
    cluster.net.plug(9099, impostor.clone());
    sleep(Duration::from_secs(10)).await;
    let voters = cluster.quorum(leader).metrics().voters;
    assert_eq!(voters.iter().find(|(id, _)| *id == taken).unwrap().1, cluster.voter(taken));
    assert!(cluster.quorum(leader).metrics().refusals > 0);
    // Nor when seats change while it pulls the log.
    let mut seats: BTreeMap<i32, Voter> = (0..3).map(|id| (id, cluster.voter(id))).collect();
    seats.insert(taken, Voter { port: 9099, directory_id: [99; 16], ..cluster.voter(taken) });
    let changed = cluster.quorum(leader).reseat(&seats).await;
    assert!(matches!(changed, Err(QuorumError::Change(_))), "{changed:?}");
    let voters = cluster.quorum(leader).metrics().voters;
    assert_eq!(voters.iter().find(|(id, _)| *id == taken).unwrap().1, cluster.voter(taken));
    // Nor while the true one restarts.
    cluster.kill(taken).await;
    sleep(Duration::from_secs(10)).await;
    let leader = cluster.leader().await;
    let voters = cluster.quorum(leader).metrics().voters;
    assert_eq!(voters.iter().find(|(id, _)| *id == taken).unwrap().1, cluster.voter(taken));
    cluster.start(taken).await;
    assert!(impostor.propose(records(&["mine"])).await.is_err());
    assert!(matches!(
        cluster
            .quorum(leader)
            .add_voter(taken, Voter { directory_id: [99; 16], ..cluster.voter(taken) }, Duration::from_secs(9))
            .await,
        Err(QuorumError::Change(_))
    ));
    cluster.net.unplug(9099);
    impostor.stop().await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_moved_tells_its_address() {
    let mut cluster = Cluster::of(3, 14).await;
    let moved = (cluster.leader().await + 1) % 3;
    cluster.kill(moved).await;
    let mut config = cluster.config(moved);
    config.me.port = 9050;
    config.transport = cluster.net.link(9050);
    let tape = super::cluster::Tape::default();
    let quorum = crate::Quorum::open(config, tape).await.unwrap();
    cluster.net.plug(9050, quorum.clone());
    let leader = cluster.leader().await;
    let known = || cluster.quorum(leader).metrics().voters.iter().any(|(id, v)| *id == moved && v.port == 9050);
    cluster.until("the new address", known).await;
    let end = cluster.put("there").await;
    cluster.until("it to follow there", || quorum.metrics().applied_offset >= Some(end)).await;
    cluster.net.unplug(9050);
    quorum.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_removed_while_away_learns_it_and_disturbs_nobody() {
    let mut cluster = Cluster::of(3, 15).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    cluster.net.isolate(port(gone), &ports(&[0, 1, 2]));
    sleep(Duration::from_secs(3)).await;
    let directory_id = cluster.voter(gone).directory_id;
    let wrong = cluster.quorum(leader).remove_voter(gone, [7; 16]).await;
    assert!(matches!(wrong, Err(QuorumError::Change(_))));
    cluster.quorum(leader).remove_voter(gone, directory_id).await.unwrap();
    cluster.net.heal();
    let before = cluster.ready().unwrap();
    cluster.until("it to learn", || cluster.voter_ids(gone).len() == 2).await;
    assert_eq!(cluster.ready(), Some(before));
    cluster.agree().await;
    cluster.restart(gone).await;
    cluster.agree().await;
    assert_eq!(cluster.voter_ids(leader).len(), 2, "it doesn't take back what it was made to give up");
}
