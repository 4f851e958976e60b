//! Nodes that are not who they should be: a taken id, another cluster, swapped disks, addresses that lead elsewhere.
//!
//! Each has to say what is wrong, in its own log or in that of those it bothers, and must leave no trace: when it is
//! gone or mended, everything that was acknowledged is there and all nodes agree.

use std::path::Path;
use std::time::Duration;

use klamm_client::Acks;
use klamm_tests::process::Process;
use klamm_tests::{Cluster, Peer, Plan, Tool, assert_contains, eventually, paths, ports, unique};

use crate::judge::same_metadata;
use crate::posing::{read, write};
use crate::quorum::unseat;
use crate::view::View;

const TOPIC: &str = "kept";

fn cluster() -> (Cluster, View) {
    let mut cluster = Cluster::start(Plan { peer: Peer::Klamm, ..Plan::default() });
    let view = View::of(&cluster);
    view.create(&mut cluster, TOPIC, 1, &[]);
    view.run(write(&cluster.bootstrap(), TOPIC, "before", Acks::All));
    (cluster, view)
}

/// Everything is as it should be: in sync, writable, what was written before is there, all nodes agree.
#[track_caller]
fn unharmed(cluster: &mut Cluster, view: &View, written: &[&'static str]) {
    view.until_in_sync(cluster, Duration::from_secs(60));
    view.run(write(&cluster.bootstrap(), TOPIC, "after", Acks::All));
    let mut expected = written.to_vec();
    expected.push("after");
    assert_eq!(view.run(read(&cluster.bootstrap(), TOPIC, expected.len())), expected);
    assert!(same_metadata(cluster).is_some());
}

/// Exchanges two folders.
fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    std::fs::rename(one, &aside).expect("one is moved");
    std::fs::rename(other, one).expect("the other is moved");
    std::fs::rename(&aside, other).expect("the first is moved");
}

/// A node's configuration with some keys replaced, for a process of its own: it has its own ports and no data.
struct Stranger {
    process: Process,
    client: String,
}

impl Stranger {
    #[track_caller]
    fn like(cluster: &Cluster, id: usize, settings: &[(&str, &str)]) -> Stranger {
        let dir = paths::scratch_dir("stranger");
        let (client, controller) = (ports::free_port(), ports::free_port());
        let listeners = format!("PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}");
        let (data, admin) = (dir.join("data").display().to_string(), format!("127.0.0.1:{}", ports::free_port()));
        let mut own = vec![
            ("listeners", listeners.as_str()),
            ("advertised.listeners", &listeners),
            ("log.dirs", &data),
            ("klamm.admin.listener", &admin),
        ];
        own.extend(settings);
        let text = std::fs::read_to_string(cluster.properties(id)).expect("the model");
        let kept = |line: &&str| !own.iter().any(|(key, _)| line.split('=').next() == Some(*key));
        let mut text: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        for (key, value) in own.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{key}={value}\n"));
        }
        let file = dir.join(unique("stranger.properties"));
        std::fs::write(&file, text).expect("its configuration");
        let process = Tool::new(paths::klamm()).args(["broker", "--config"]).arg(file).start();
        Stranger { process, client: format!("127.0.0.1:{client}") }
    }

    fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Waits until it has logged this.
    #[track_caller]
    fn says(&self, text: &str) {
        let said = klamm_tests::wait_for(Duration::from_secs(30), || self.log().contains(text).then_some(()));
        assert!(said.is_some(), "expected {text:?} in:\n{}", self.log());
    }

    /// Waits for its end; gives the exit code.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let status = self.process.wait(Duration::from_secs(30));
        status.unwrap_or_else(|| panic!("it still runs:\n{}", self.log())).code().unwrap_or(-1)
    }
}

#[test]
fn nodes_whose_disks_were_swapped_refuse_to_start_and_are_well_once_they_are_swapped_back() {
    let (mut cluster, view) = cluster();
    for id in [0, 1] {
        assert_eq!(cluster.stop(id).1, 0);
    }
    let (one, other) = (cluster.data(0), cluster.data(1));
    swap(&one, &other);
    for (id, whose) in [(0, 1), (1, 0)] {
        cluster.launch(id);
        let (code, log) = cluster.ended(id);
        assert_eq!(code, 3, "{log}");
        let line = log.lines().find(|line| line.contains("not started")).unwrap_or_default();
        assert_contains(line, &format!("{} belongs to node {whose}, this is {id}", cluster.data(id).display()));
    }
    swap(&one, &other);
    for id in [0, 1] {
        cluster.restart(id);
    }
    unharmed(&mut cluster, &view, &["before"]);
    assert_eq!(cluster.stop_all(), [0, 0, 0]);
}

#[test]
fn a_disk_of_another_cluster_is_refused() {
    let (mut cluster, view) = cluster();
    let text = std::fs::read_to_string(cluster.properties(1)).expect("its configuration");
    assert_eq!(cluster.stop(1).1, 0);
    let other = "5L6g3nShT-eMCtK--X86sw";
    let changed: Vec<&str> = text.lines().filter(|line| !line.starts_with("cluster.id=")).collect();
    std::fs::write(cluster.properties(1), format!("{}\ncluster.id={other}\n", changed.join("\n"))).expect("written");
    cluster.launch(1);
    let (code, log) = cluster.ended(1);
    assert_eq!(code, 3, "{log}");
    assert_contains(log.lines().find(|line| line.contains("not started")).unwrap_or_default(), other);
    std::fs::write(cluster.properties(1), text).expect("written");
    cluster.restart(1);
    unharmed(&mut cluster, &view, &["before"]);
}

#[test]
fn a_second_node_with_a_taken_id_stays_outside() {
    let (mut cluster, view) = cluster();
    // On the same disk, while the first one runs.
    let data = cluster.data(1).display().to_string();
    let mut same = Stranger::like(&cluster, 1, &[("log.dirs", &data)]);
    assert_eq!(same.ends(), 3, "{}", same.log());
    same.says("in use by another process");
    // On a disk of its own.
    let mut second = Stranger::like(&cluster, 1, &[]);
    second.says("refused a request of this one");
    assert_contains(&second.log(), "node id 1");
    // What it is asked itself, it does not answer as if it were the first.
    let brokers = view.metadata(&cluster, 0, None).expect("metadata").brokers;
    let address = brokers.iter().find(|b| b.node_id == 1).map(|b| format!("127.0.0.1:{}", b.port));
    assert_eq!(address, Some(cluster.address(1)), "the first one's address, not {}", second.client);
    view.run(write(&cluster.bootstrap(), TOPIC, "meanwhile", Acks::All));
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
    // Seats change while it listens: the first one keeps its own.
    let quorum = |cluster: &mut Cluster| {
        let (controller, _) = view.controller_now(cluster)?;
        view.quorum(cluster, controller)
    };
    let seat = |cluster: &mut Cluster| {
        let voters = quorum(cluster)?.current_voters;
        voters.iter().find(|v| v.replica_id == 1).map(|v| v.replica_directory_id)
    };
    let before = eventually("the first one's seat", 30, || seat(&mut cluster));
    eventually("the second one to listen", 60, || {
        quorum(&mut cluster)?.observers.iter().any(|o| o.replica_id == 1).then_some(())
    });
    unseat(&view, &mut cluster, 2).expect("a seat to give anew");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(eventually("the first one's seat", 30, || seat(&mut cluster)), before);
    second.process.signal("TERM");
    second.ends();
    unharmed(&mut cluster, &view, &["before", "meanwhile"]);
    assert_eq!(cluster.stop_all(), [0, 0, 0]);
}

#[test]
fn a_node_of_another_cluster_stays_outside() {
    let (mut cluster, view) = cluster();
    let seeds = cluster.ids().into_iter().map(|id| cluster.controller_address(id)).collect::<Vec<_>>().join(",");
    let settings = [
        ("node.id", "3"),
        ("cluster.id", "5L6g3nShT-eMCtK--X86sw"),
        ("controller.quorum.voters", ""),
        ("controller.quorum.bootstrap.servers", &seeds),
    ];
    let mut stranger = Stranger::like(&cluster, 0, &settings);
    stranger.says("this is cluster 4L6g3nShT-eMCtK--X86sw, the sender's is 5L6g3nShT-eMCtK--X86sw");
    let told = |cluster: &Cluster| cluster.ids().iter().any(|id| cluster.log(*id).contains("the sender's is 5L6g3nS"));
    eventually("the cluster says so as well", 10, || told(&cluster).then_some(()));
    assert_eq!(stranger.ends(), 2, "{}", stranger.log());
    stranger.says("belong to another cluster");
    assert_eq!(view.metadata(&cluster, 0, None).expect("metadata").brokers.len(), 3);
    unharmed(&mut cluster, &view, &["before"]);
}

#[test]
fn a_node_that_asks_where_no_voter_listens_says_so_and_goes_on_waiting() {
    let (mut cluster, view) = cluster();
    let clients = cluster.bootstrap();
    let settings =
        [("node.id", "3"), ("controller.quorum.voters", ""), ("controller.quorum.bootstrap.servers", &clients)];
    let mut stranger = Stranger::like(&cluster, 0, &settings);
    stranger.says("not taken into the metadata quorum yet");
    assert_contains(&stranger.log(), "are these its listeners?");
    stranger.process.signal("TERM");
    assert_eq!(stranger.ends(), 0, "{}", stranger.log());
    unharmed(&mut cluster, &view, &["before"]);
}

#[test]
fn a_node_whose_list_of_voters_mixes_up_addresses_says_so_and_the_others_go_on() {
    let (mut cluster, view) = cluster();
    // The list is read while the data directory is empty: node 0 comes back with a new disk and a wrong list.
    assert_eq!(cluster.stop(0).1, 0);
    cluster.wipe(0);
    let text = std::fs::read_to_string(cluster.properties(0)).expect("its configuration");
    let (one, two) = (cluster.controller_address(1), cluster.controller_address(2));
    let mixed = text.replace(&format!("1@{one},2@{two}"), &format!("1@{two},2@{one}"));
    assert_ne!(mixed, text);
    std::fs::write(cluster.properties(0), mixed).expect("written");
    cluster.launch(0);
    view.run(write(&cluster.address(1), TOPIC, "meanwhile", Acks::All));
    // The quorum's own list of members tells where they are; the wrong one does no harm.
    unharmed(&mut cluster, &view, &["before", "meanwhile"]);
    assert_eq!(cluster.stop_all(), [0, 0, 0]);
}

#[test]
fn a_cluster_forms_only_once_all_mean_the_same_addresses() {
    let mut cluster = Cluster::start(Plan { peer: Peer::Klamm, ..Plan::default() });
    let view = View::of(&cluster);
    cluster.kill_all();
    for id in cluster.ids() {
        cluster.wipe(id);
    }
    let text = std::fs::read_to_string(cluster.properties(0)).expect("its configuration");
    let (one, two) = (cluster.controller_address(1), cluster.controller_address(2));
    let mixed = text.replace(&format!("1@{one},2@{two}"), &format!("1@{two},2@{one}"));
    assert_ne!(mixed, text);
    std::fs::write(cluster.properties(0), mixed).expect("written");
    for id in cluster.ids() {
        cluster.launch(id);
    }
    for (id, missing) in [(0, "names other voters"), (1, "node 0 at"), (2, "node 0 at")] {
        eventually(&format!("node {id} says what it waits for"), 30, || {
            let log = cluster.log(id);
            let line = log.lines().find(|line| line.contains("waiting for all voters before the metadata quorum"))?;
            line.contains(missing).then_some(())
        });
    }
    cluster.kill(0);
    std::fs::write(cluster.properties(0), text).expect("written");
    cluster.launch(0);
    for id in cluster.ids() {
        cluster.until_up(id, 3);
    }
    view.create(&mut cluster, TOPIC, 1, &[]);
    unharmed(&mut cluster, &view, &[]);
}

#[test]
fn nothing_is_taken_from_a_broker_that_answers_at_anothers_address() {
    let (mut cluster, view) = cluster();
    let leader = view.leader(&mut cluster, TOPIC, 0);
    let other = (leader + 1) % 3;
    // The leader says that clients and brokers find it where another one is.
    assert_eq!(cluster.stop(leader).1, 0);
    let text = std::fs::read_to_string(cluster.properties(leader)).expect("its configuration");
    let (right, wrong) = (cluster.address(leader), cluster.address(other));
    let lie = text.replace(
        &format!("advertised.listeners=PLAINTEXT://{right}"),
        &format!("advertised.listeners=PLAINTEXT://{wrong}"),
    );
    assert_ne!(lie, text);
    std::fs::write(cluster.properties(leader), lie).expect("written");
    cluster.launch(leader);
    cluster.until_up(leader, 3);
    let other_leader = view.leader(&mut cluster, TOPIC, 0);
    assert_ne!(other_leader, leader);
    view.run(write(&cluster.address(other_leader), TOPIC, "meanwhile", Acks::All));
    view.until_in_sync(&mut cluster, Duration::from_secs(60));
    // Where it leads, its followers notice that they are led elsewhere.
    view.create(&mut cluster, "elsewhere", 3, &[]);
    for follower in cluster.ids().into_iter().filter(|id| *id != leader) {
        eventually(&format!("node {follower} says so"), 20, || {
            let log = cluster.log(follower);
            let line = log.lines().find(|line| line.contains("another node or cluster answers there"))?;
            (line.contains(&format!("broker={leader}")) && line.contains(&wrong)).then_some(())
        });
    }
    // Put right again, all is well.
    assert_eq!(cluster.stop(leader).1, 0);
    std::fs::write(cluster.properties(leader), text).expect("written");
    cluster.restart(leader);
    unharmed(&mut cluster, &view, &["before", "meanwhile"]);
}
