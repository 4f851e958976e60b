//! kafka-metadata-quorum and `klamm quorum`; kafka-cluster, on the brokers' listeners and on the controllers'.

use std::collections::BTreeSet;

use klamm_tests::jvm::Java;
use klamm_tests::{Cluster, Peer, Tool, assert_contains, eventually, paths};

use crate::{admin, cluster, java, json, klamm, whole_again};

const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";

/// `kafka-cluster` with the addresses behind its subcommand. In a process of its own: it ends by exiting.
fn kafka_cluster(cluster: &Cluster, line: &str) -> Tool {
    let program = paths::cached("kafka/bin/kafka-cluster", "java.sh");
    Tool::new(program).args(line.split_whitespace()).args(["--bootstrap-server", &cluster.bootstrap()])
}

/// The same by way of a controller's listener.
fn by_controller(address: &str, line: &str) -> Tool {
    let program = paths::cached("kafka/bin/kafka-cluster", "java.sh");
    Tool::new(program).args(line.split_whitespace()).args(["--bootstrap-controller", address])
}

#[test]
fn the_quorum_is_described_by_brokers_and_by_controllers() {
    let cluster = cluster();
    let asked: Vec<_> = [java(&cluster, QUORUM, "describe --status")]
        .into_iter()
        .chain(cluster.ids().into_iter().map(|id| {
            Java::new(QUORUM).args(["--bootstrap-controller", &cluster.controller_address(id), "describe", "--status"])
        }))
        .map(|tool| tool.ok())
        .collect();
    for status in &asked {
        for id in cluster.ids() {
            assert_contains(&status.out, &format!("CONTROLLER://{}", cluster.controller_address(id)));
        }
        assert_contains(&status.out, "CurrentObservers:       []");
    }
    let replication = java(&cluster, QUORUM, "describe --replication").ok();
    let roles: Vec<_> = replication.lines().iter().filter_map(|l| l.split_whitespace().last()).collect();
    assert_eq!(roles.iter().filter(|role| **role == "Leader").count(), 1, "{replication}");
    assert_eq!(roles.iter().filter(|role| **role == "Follower").count(), 2, "{replication}");

    let ours = json(&klamm(&cluster, "quorum describe -o json").ok());
    assert_eq!(ours["nodes"].as_array().map(Vec::len), Some(3), "{ours}");
    assert_contains(&asked[0].out, &format!("LeaderId:               {}", ours["leader"]));
    klamm(&cluster, "quorum describe").ok().expect("NODE   ROLE");
}

#[test]
fn a_seat_that_is_taken_away_goes_back_to_a_node_that_runs() {
    let cluster = cluster();
    let quorum = || json(&klamm(&cluster, "quorum describe -o json").ok());
    let before = quorum();
    let nodes = before["nodes"].as_array().cloned().unwrap_or_default();
    let victim = nodes.iter().find(|node| node["role"] == "voter").expect("a voter that does not lead");
    let (id, directory) = (victim["id"].to_string(), victim["directory"].as_str().expect("a directory").to_owned());
    let wrong = java(
        &cluster,
        QUORUM,
        &format!("remove-controller --controller-id {id} --controller-directory-id=AAAAAAAAAAAAAAAAAAAAAQ"),
    )
    .run();
    assert_ne!(wrong.code, 0, "{wrong}");
    assert_contains(&wrong.text(), "does not vote");
    java(&cluster, QUORUM, &format!("remove-controller --controller-id {id} --controller-directory-id={directory}"))
        .ok()
        .expect("KRaft controller");
    let votes = |all: &serde_json::Value| {
        let nodes = all["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["role"] != "observer").count()
    };
    eventually("it votes again", 30, || (votes(&quorum()) == 3).then_some(()));

    let stranger = klamm(&cluster, "quorum remove 9").run();
    assert_eq!(stranger.code, 1, "{stranger}");
    assert_contains(&stranger.err, "hint: `klamm quorum describe`");
}

#[test]
fn endpoints_are_those_of_the_listener_that_is_asked() {
    let cluster = cluster();
    let id = kafka_cluster(&cluster, "cluster-id").ok();
    let first = cluster.controller_address(0);
    let same = by_controller(&first, "cluster-id").ok();
    assert_eq!(id.out, same.out);
    let brokers = kafka_cluster(&cluster, "list-endpoints").ok();
    let controllers = by_controller(&first, "list-endpoints").ok();
    for node in cluster.ids() {
        let port = |address: String| address.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default();
        assert_contains(&brokers.out, &port(cluster.address(node)));
        assert_contains(&controllers.out, &port(cluster.controller_address(node)));
    }
    assert!(!controllers.out.contains("broker") && brokers.out.contains("broker"), "{controllers}{brokers}");
    let wrong = by_controller(&cluster.address(0), "list-endpoints").run();
    assert_ne!(wrong.code, 0, "{wrong}");
    assert_contains(&wrong.text(), "MismatchedEndpointTypeException");
}

#[test]
fn a_broker_that_is_gone_is_unregistered_and_may_come_back() {
    let mut cluster = cluster();
    if cluster.peer() == Peer::Klamm {
        // Apache forgets a broker that lives: it then serves nobody until it is started again.
        let alive = kafka_cluster(&cluster, "unregister --id 2").run();
        assert_contains(&alive.text(), "stop it first");
    }
    cluster.stop(2);
    let fenced = eventually("it is fenced", 10, || {
        let all = kafka_cluster(&cluster, "list-endpoints --include-fenced-brokers").ok();
        all.lines()
            .iter()
            .find(|l| l.starts_with('2'))
            .filter(|l| l.contains("fenced") && !l.contains("unfenced"))
            .map(|l| (*l).to_owned())
    });
    assert_contains(&fenced, "broker");
    let brokers = json(&klamm(&cluster, "cluster describe -o json").ok());
    assert_eq!((&brokers["brokers"][2]["id"], &brokers["brokers"][2]["state"]), (&2.into(), &"fenced".into()));
    assert!(!kafka_cluster(&cluster, "list-endpoints").ok().lines().iter().any(|l| l.starts_with('2')));

    eventually("it may be unregistered", 20, || {
        let gone = kafka_cluster(&cluster, "unregister --id 2").run();
        gone.out.contains("Broker 2 is no longer registered.").then_some(())
    });
    let left = kafka_cluster(&cluster, "list-endpoints --include-fenced-brokers").ok();
    assert!(!left.lines().iter().any(|l| l.starts_with('2')), "{left}");
    let again = klamm(&cluster, "cluster unregister 2").run();
    assert_eq!(again.code, 1, "{again}");
    assert_contains(&again.err, "hint: `klamm cluster describe` shows the brokers");

    whole_again(&mut cluster);
    eventually("it votes again", 30, || {
        let status = admin(&cluster, 0, "/v1/status");
        (status["quorum"]["voters"].as_array().map(Vec::len) == Some(3)).then_some(())
    });
}

#[test]
fn all_brokers_come_to_the_same_metadata() {
    let cluster = cluster();
    let status = |id| admin(&cluster, id, "/v1/status");
    eventually("one offset and one hash", 20, || {
        let seen: BTreeSet<_> = cluster.ids().into_iter().map(|id| status(id)["metadata"].to_string()).collect();
        (seen.len() == 1).then_some(())
    });
    let one = status(1);
    assert_eq!(one["standing"], "active");
    assert_eq!(one["metadata"]["hash"].as_str().map(str::len), Some(32), "{one}");
}
