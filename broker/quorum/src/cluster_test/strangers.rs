//! What must be refused: other clusters, other targets, non-members, nonsense. Nothing changes by it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::net::Random;
use crate::message::{Answer, Ask, Identity, Refusal, Reply, Request};
use crate::types::{Batch, Entry, Vote, log_id};
use crate::{Quorum, Voter};

fn identity(cluster: &Cluster, id: i32) -> Identity {
    Identity { id, directory_id: cluster.voter(id).directory_id }
}

async fn refused(quorum: &Quorum, request: Request) -> Refusal {
    let answer = quorum.receive(request.encode()).await.unwrap();
    match Answer::decode(answer).unwrap().reply {
        Reply::Refused { why, .. } => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn asks(from: i32, term: u64) -> Vec<Ask> {
    let mut won = Vote::new(term, from);
    won.committed = true;
    let batch = Batch::new(vec![Bytes::from_static(b"evil")]);
    let entry = Entry { log_id: log_id(term, 0), payload: openraft::EntryPayload::Normal(batch) };
    vec![
        Ask::PreVote { term, last: Some(log_id(term, 1 << 40)) },
        Ask::Vote { vote: Vote::new(term, from), last: Some(log_id(term, 1 << 40)) },
        Ask::Append { vote: won, prev: None, commit: Some(log_id(term, 5)), entries: vec![entry] },
        Ask::Snapshot {
            vote: won,
            upto: log_id(term, 900),
            size: 10,
            position: 0,
            data: Bytes::from_static(b"0123456789"),
        },
        Ask::Transfer { term },
    ]
}

#[tokio::test(start_paused = true)]
async fn strangers_change_nothing() {
    let cluster = Cluster::of(3, 31).await;
    cluster.put("mine").await;
    let (leader, term) = cluster.ready().unwrap();
    let follower = (leader + 1) % 3;
    let me = identity(&cluster, follower);
    let quorum = cluster.quorum(follower);
    let mut count = 0;
    let mut expect = async |from: Identity, to: Option<Identity>, cluster_id: &str, ask: Ask, why: Refusal| {
        let request = Request { cluster_id: cluster_id.to_owned(), from, to, ask };
        let text = format!("{request:?}");
        assert_eq!(refused(quorum, request).await, why, "{text}");
        count += 1;
    };
    let unknown = Identity { id: 7, directory_id: [7; 16] };
    let wiped = Identity { id: leader, directory_id: [8; 16] };
    let known = identity(&cluster, leader);
    for ask in asks(7, term + 5) {
        expect(unknown.clone(), Some(me.clone()), "sim", ask, Refusal::Stranger).await;
    }
    for ask in asks(leader, term + 5) {
        expect(wiped.clone(), Some(me.clone()), "sim", ask, Refusal::Stranger).await;
    }
    for ask in asks(leader, term + 5) {
        expect(known.clone(), Some(me.clone()), "another", ask, Refusal::OtherCluster).await;
    }
    for ask in asks(leader, term + 5) {
        let other_disk = Identity { id: follower, directory_id: [9; 16] };
        expect(known.clone(), Some(other_disk), "sim", ask, Refusal::OtherNode).await;
    }
    for ask in asks(leader, term + 5) {
        expect(known.clone(), Some(identity(&cluster, leader)), "sim", ask, Refusal::OtherNode).await;
    }
    for ask in asks(leader, term + 5) {
        expect(known.clone(), None, "sim", ask, Refusal::Malformed).await;
    }
    // A member that speaks for another one.
    for ask in asks(follower, term + 5).into_iter().skip(1).take(3) {
        expect(known.clone(), Some(me.clone()), "sim", ask, Refusal::Malformed).await;
    }
    // Entries with a gap, from a later term than their leader's, or falling terms.
    let mut won = Vote::new(term, leader);
    won.committed = true;
    let entry = |term, index| Entry { log_id: log_id(term, index), payload: openraft::EntryPayload::Blank };
    for entries in [vec![entry(term, 900)], vec![entry(term + 1, 0)], vec![entry(term, 0), entry(0, 1)]] {
        let ask = Ask::Append { vote: won, prev: None, commit: None, entries };
        expect(known.clone(), Some(me.clone()), "sim", ask, Refusal::Malformed).await;
    }
    assert_eq!(quorum.metrics().refusals, count);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.ready(), Some((leader, term)));
    assert_eq!(cluster.agree().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_stranger_sends_is_refused_by_its_head() {
    let cluster = Cluster::of(3, 34).await;
    let (leader, term) = cluster.ready().unwrap();
    let follower = (leader + 1) % 3;
    let to = || Some(identity(&cluster, follower));
    let stranger = || Identity { id: 7, directory_id: [7; 16] };
    let cases = [
        (stranger(), to(), "sim", Refusal::Stranger),
        (stranger(), None, "sim", Refusal::Malformed),
        (identity(&cluster, leader), to(), "another", Refusal::OtherCluster),
        (identity(&cluster, leader), Some(stranger()), "sim", Refusal::OtherNode),
        (identity(&cluster, leader), to(), "sim", Refusal::Malformed),
    ];
    for (from, to, cluster_id, why) in cases {
        for ask in asks(from.id, term + 5) {
            let request = Request { cluster_id: cluster_id.into(), from: from.clone(), to: to.clone(), ask };
            // The body makes no sense, which is found out only when it is looked at.
            let whole = request.encode();
            let head = 1 + 4 + cluster_id.len() + 20 + 1 + if to.is_some() { 20 } else { 0 } + 1;
            let answer = cluster.quorum(follower).receive(whole.slice(..head)).await.unwrap();
            match Answer::decode(answer).unwrap().reply {
                Reply::Refused { why: said, .. } => assert_eq!(said, why, "{request:?}"),
                other => panic!("not refused: {other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_none_is_refused() {
    let cluster = Cluster::of(3, 32).await;
    let (leader, term) = cluster.ready().unwrap();
    let follower = (leader + 1) % 3;
    let mut vote = Vote::new(term, leader);
    vote.committed = true;
    let upto = log_id(term, 900);
    let send = async |size, position, data: &'static [u8]| {
        let ask = Ask::Snapshot { vote, upto, size, position, data: Bytes::from_static(data) };
        let (from, to) = (identity(&cluster, leader), Some(identity(&cluster, follower)));
        let request = Request { cluster_id: "sim".into(), from, to, ask };
        let answer = cluster.quorum(follower).receive(request.encode()).await.unwrap();
        Answer::decode(answer).unwrap().reply
    };
    assert!(matches!(send(1 << 50, 0, b"abc").await, Reply::Refused { why: Refusal::Malformed, .. }));
    assert!(matches!(send(6, 3, b"def").await, Reply::Refused { why: Refusal::Busy, .. }));
    assert!(matches!(send(6, 0, b"abc").await, Reply::Snapshot { position: 3, vote: None }));
    assert!(matches!(send(6, 4, b"ef").await, Reply::Snapshot { position: 3, vote: None }));
    assert!(matches!(send(6, 3, b"def").await, Reply::Refused { why: Refusal::Malformed, .. }));
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn any_bytes_get_an_answer_and_damage_nothing() {
    let cluster = Cluster::of(3, 33).await;
    cluster.put("mine").await;
    let (leader, term) = cluster.ready().unwrap();
    let follower = (leader + 1) % 3;
    let mut random = Random::new(33);
    let mut seeds: Vec<Bytes> = Vec::new();
    let mut all = asks(leader, term);
    all.push(Ask::Probe { voters: vec![(1, "host".into(), 9)] });
    all.push(Ask::Join { me: Voter { host: "x".into(), port: 1, directory_id: [3; 16] } });
    all.push(Ask::Fetch { me: cluster.voter(leader), last: None, applied: None, bytes_max: u32::MAX, wait_ms: 0 });
    all.push(Ask::FetchSnapshot { upto: None, position: 1 << 40, bytes_max: u32::MAX });
    for ask in all {
        let (from, to) = (identity(&cluster, leader), Some(identity(&cluster, follower)));
        seeds.push(Request { cluster_id: "sim".into(), from, to, ask }.encode());
    }
    let mut answered = 0;
    for round in 0..4_000u64 {
        let mut bytes = seeds[(round % seeds.len() as u64) as usize].to_vec();
        // Behind the target: the sender is taken for a member, so the body is all that protects this node.
        let body = 1 + 7 + 20 + 1 + 20;
        if round % 3 == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        } else {
            let at = body + random.below((bytes.len() - body) as u64) as usize;
            // The kind stays: whole messages with the leader's vote are not what this is about.
            let at = if round % 3 == 1 { at.max(body + 14) } else { random.below(body as u64) as usize };
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        let answer = cluster.quorum(follower).receive(bytes.into()).await.unwrap();
        Answer::decode(answer).unwrap();
        answered += 1;
    }
    println!("{answered} damaged messages answered");
    for node in cluster.nodes.values() {
        assert!(node.quorum.inner.core.failure.get().is_none());
    }
}
