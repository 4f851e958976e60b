//! The metadata quorum: topics created without pause while voters are killed and paused, a voter's disk wiped, seats moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, ClientError};
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::RemoveRaftVoterRequest;
use klamm_tests::{Cluster, Peer, Plan, Random};

use crate::judge::{figure, judge, same_metadata, seed};
use crate::kills::pass;
use crate::view::View;
use crate::workload::{Load, options};

/// Creates topics until told to stop; gives the names of those whose creation was acknowledged.
async fn create(bootstrap: String, enough: Arc<AtomicBool>) -> Vec<String> {
    let mut created = Vec::new();
    let mut client = None;
    let mut next = 0;
    while !enough.load(Ordering::Relaxed) {
        let Some(known) = &client else {
            client = Client::connect(&bootstrap, options()).await.ok();
            continue;
        };
        let name = format!("made-{next}");
        next += 1;
        let topic =
            NewTopic { name: name.clone(), partitions: Some(1), replication_factor: Some(3), ..Default::default() };
        match known.create_topic(&topic).await {
            // A repeated request may find what its first try has made.
            Ok(_) => created.push(name),
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => created.push(name),
            Err(ClientError::Kafka { .. }) => {}
            Err(_) => client = None,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    created
}

/// Takes a voter's seat away and waits until all three sit again. Says whether the seat was taken.
#[track_caller]
pub fn unseat(view: &View, cluster: &mut Cluster, voter: usize) -> Result<(), String> {
    let id = i32::try_from(voter).expect("a small id");
    let mut taken = Err(String::new());
    // A controller that is asked to take its own seat hands over and says so: the next one is asked then.
    for _ in 0..3 {
        let controller = view.controller(cluster);
        let Some(quorum) = view.quorum(cluster, controller) else { continue };
        let Some(sits) = quorum.current_voters.iter().find(|v| v.replica_id == id) else { break };
        let request =
            RemoveRaftVoterRequest { cluster_id: None, voter_id: id, voter_directory_id: sits.replica_directory_id };
        taken = match view.ask(&cluster.address(controller), &request) {
            Ok(answer) if answer.error_code == 0 => Ok(()),
            Ok(answer) => Err(format!("controller {controller}: {} {:?}", answer.error_code, answer.error_message)),
            Err(error) => Err(format!("controller {controller}: {error}")),
        };
        if taken.is_ok() {
            break;
        }
    }
    klamm_tests::eventually("three voters", 60, || {
        let (controller, _) = view.controller_now(cluster)?;
        let voters = view.quorum(cluster, controller)?.current_voters;
        (voters.len() == 3).then_some(())
    });
    taken
}

#[test]
fn no_decision_is_lost_when_voters_are_killed_paused_and_wiped() {
    let rounds = figure(8, 100);
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, "records", 3, &[]);
    let running = Load { rate: 300, ..Load::new("records", 3, seed) }.start(&cluster.bootstrap());
    let enough = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let creating = runtime.spawn(create(cluster.bootstrap(), enough.clone()));
    let (mut wiped, mut reseated) = (0, 0);
    for round in 0..rounds {
        pass(Duration::from_millis(random.between(300, 1500)));
        let controller = view.controller(&mut cluster);
        let victim = if random.chance(600) { controller } else { random.below(3) as usize };
        if cluster.peer() == Peer::Klamm && round % 4 == 1 {
            // A voter loses its seat; it gets it back by itself, since its id is among the lowest.
            match unseat(&view, &mut cluster, victim) {
                Ok(()) => reseated += 1,
                Err(why) => println!("voter {victim} kept its seat, {why}"),
            }
        } else if random.chance(300) {
            cluster.pause(victim);
            pass(Duration::from_millis(random.between(300, 4000)));
            cluster.resume(victim);
        } else {
            cluster.kill(victim);
            pass(Duration::from_millis(random.between(50, 1500)));
            // Once in a while the disk is gone, too.
            if cluster.peer() == Peer::Klamm && round % 4 == 3 {
                cluster.wipe(victim);
                wiped += 1;
            }
            cluster.launch(victim);
        }
        running.writable_since(running.now_ms(), Duration::from_secs(60));
        view.until_in_sync(&mut cluster, Duration::from_secs(90));
    }
    enough.store(true, Ordering::Relaxed);
    let created = runtime.block_on(creating).expect("the creator");
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    for node in cluster.ids() {
        let answer = view.metadata(&cluster, node, None).expect("an answer");
        let known: std::collections::BTreeSet<&str> = answer.topics.iter().filter_map(|t| t.name.as_deref()).collect();
        let lost: Vec<&String> = created.iter().filter(|name| !known.contains(name.as_str())).collect();
        assert!(lost.is_empty(), "node {node} lacks {lost:?}");
    }
    let hash = if cluster.peer() == Peer::Klamm { same_metadata(&mut cluster) } else { None };
    let notes = format!(
        "{rounds} rounds of killing and pausing voters, {wiped} of them wiped, {reseated} unseated; {} topics created meanwhile, all on all nodes; \
         metadata hash {}",
        created.len(),
        hash.map_or("not told".into(), |(offset, hash)| format!("equal on all at offset {offset}: {hash}"))
    );
    judge("R18 quorum", cluster, &view, running, &notes);
}
