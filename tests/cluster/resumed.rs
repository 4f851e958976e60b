//! Moves that were begun by a command that is gone: the next one sees them, may throttle them anew, watches them to the
//! end; and nobody's throttle is left behind.

use std::path::Path;
use std::time::Duration;

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Plan, eventually, paths};
use serde_json::{Value, json};

use crate::balance::{counts, klamm, parsed};
use crate::view::View;
use crate::workload::options;

const TOPIC: &str = "again";
const PARTITIONS: i32 = 2;
const LINES: usize = 3_000;
/// So slow that nothing ends by itself.
const SLOW: &str = "--throttle 1000";
const FAST: u64 = 100_000_000;

/// A plan that puts all partitions on one broker.
fn plan(dir: &Path, broker: i32) -> String {
    let file = dir.join(format!("to-{broker}.json"));
    let partition = |p| json!({"topic": TOPIC, "partition": p, "replicas": [broker]});
    let plan = json!({"version": 1, "partitions": (0..PARTITIONS).map(partition).collect::<Vec<_>>()});
    std::fs::write(&file, plan.to_string()).expect("the plan");
    file.display().to_string()
}

#[track_caller]
fn ongoing(cluster: &Cluster) -> Vec<Value> {
    parsed(&klamm(cluster, "reassign status -o json").ok()).as_array().cloned().unwrap_or_default()
}

/// Has moves begin, slowly, by a command that is killed then.
#[track_caller]
fn begun_and_left(cluster: &Cluster, file: &str) {
    let mut tool = klamm(cluster, &format!("reassign execute {file} {SLOW}")).start();
    eventually("the moves go on", 20, || (ongoing(cluster).len() == PARTITIONS as usize).then_some(()));
    tool.kill();
    assert!(throttles(cluster).contains("replicas"), "{}", throttles(cluster));
}

/// All that is configured of throttles.
#[track_caller]
fn throttles(cluster: &Cluster) -> String {
    let resources = std::iter::once(format!("topic {TOPIC}")).chain((0..3).map(|id| format!("broker {id}")));
    let described = resources.map(|resource| klamm(cluster, &format!("configs describe {resource}")).ok().out);
    described.collect::<String>().lines().filter(|line| line.contains("throttled")).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn all_on(cluster: &Cluster, broker: i32) {
    let described = parsed(&klamm(cluster, &format!("topics describe {TOPIC} -o json")).ok());
    let partitions = described[0]["partitions"].as_array().cloned().unwrap_or_default();
    assert!(partitions.iter().all(|p| p["replicas"] == json!([broker])), "{described}");
}

#[test]
fn moves_of_a_command_that_was_killed_are_seen_throttled_anew_and_watched() {
    let mut cluster = Cluster::start(Plan { nodes: 3, ..Plan::default() });
    let view = View::of(&cluster);
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        let assignments = vec![vec![0]; PARTITIONS as usize];
        client.create_topic(&NewTopic { name: TOPIC.into(), assignments, ..Default::default() }).await
    })
    .expect("the topic");
    let lines: String = (0..LINES).map(|n| format!("{n:01000}\n")).collect();
    for partition in 0..PARTITIONS {
        klamm(&cluster, &format!("produce {TOPIC} -p {partition}")).stdin(lines.clone()).ok();
    }
    let dir = paths::scratch_dir("resumed");
    let [to_0, to_1] = [0, 1].map(|broker| plan(&dir, broker));

    // Whoever asks for the same is told that it goes on, and watches it, whether by a file or by a plan made now.
    begun_and_left(&cluster, &to_1);
    klamm(&cluster, &format!("reassign execute {to_1} --no-wait"))
        .ok()
        .expect("nothing else to move, 2 moves from before go on");
    let unwaited =
        klamm(&cluster, &format!("reassign execute --topics {TOPIC} --drain 0 --yes --no-wait -o json")).ok();
    let results: Vec<Value> = parsed(&unwaited)["moves"].as_array().cloned().unwrap_or_default();
    assert!(results.len() == 2 && results.iter().all(|m| m["result"] == "ongoing"), "{unwaited}");
    let mut watching = klamm(&cluster, &format!("reassign execute --topics {TOPIC} --drain 0 --yes")).start();
    eventually("it says what goes on", 20, || {
        let said = watching.stderr();
        (said.contains("2 moves from before go on") && said.contains("0 of 2 partitions moved")).then_some(())
    });
    assert!(watching.stderr().contains("throttled as before"), "{}", watching.stderr());
    assert!(watching.stderr().contains("MiB left"), "what is copied already is on its way: {}", watching.stderr());
    assert!(watching.wait(Duration::ZERO).is_none(), "they go on: {}", watching.stdout());

    // A second command changes how fast they are.
    let faster = klamm(&cluster, &format!("reassign execute {to_1} --throttle {FAST}")).ok();
    assert!(faster.err.contains(&format!("throttled to 1000 bytes a second, to {FAST} from now on")), "{faster}");
    assert!(faster.err.contains(&format!("moves from before are throttled to {FAST} bytes a second")), "{faster}");
    assert!(faster.out.contains("2 partitions moved") && !faster.out.contains(" 0 B copied"), "{faster}");
    let code = watching.wait(Duration::from_secs(30)).and_then(|status| status.code());
    assert_eq!(code, Some(0), "{}\n{}", watching.stdout(), watching.stderr());
    assert!(watching.stdout().contains("2 partitions moved"), "{}", watching.stdout());
    assert_eq!(throttles(&cluster), "", "both have come to their end");
    all_on(&cluster, 1);

    // A drain takes over what leaves its broker.
    begun_and_left(&cluster, &to_0);
    let drained = klamm(&cluster, &format!("brokers drain 1 --yes --throttle {FAST}")).ok();
    assert!(drained.err.contains("2 moves from before go on") && drained.out.contains("partitions moved"), "{drained}");
    assert_eq!((throttles(&cluster).as_str(), counts(&cluster, "replicas")[&1]), ("", 0), "{drained}");
    klamm(&cluster, "brokers uncordon 1").ok();
    all_on(&cluster, 0);

    // The throttle alone is changed by a command of its own; a file whose moves have ended takes off what is left.
    eventually("the controller lets it have replicas again", 10, || {
        (!klamm(&cluster, "brokers list").ok().out.contains("cordoned")).then_some(())
    });
    begun_and_left(&cluster, &to_1);
    klamm(&cluster, &format!("reassign throttle {FAST}")).ok().expect(&format!("throttled to {FAST} bytes a second"));
    eventually("the moves end", 30, || ongoing(&cluster).is_empty().then_some(()));
    let nothing = klamm(&cluster, &format!("reassign execute --topics {TOPIC} --drain 0 --yes")).ok();
    assert!(nothing.out.contains("nothing to move"), "{nothing}");
    assert!(nothing.err.contains(&format!("left on topics {TOPIC}: `klamm reassign throttle off`")), "{nothing}");
    klamm(&cluster, &format!("reassign execute {to_1}")).ok().expect("nothing to move");
    assert_eq!(throttles(&cluster), "");
    let refused = klamm(&cluster, "reassign throttle 1000").run();
    assert!(refused.code == 1 && refused.err.contains("nothing is being moved"), "{refused}");

    // Who takes moves back takes their throttles off, unless told otherwise.
    begun_and_left(&cluster, &to_0);
    let kept = klamm(&cluster, "reassign cancel --preserve-throttles").ok();
    assert!(kept.out.contains("cancelled") && kept.err.contains("`klamm reassign throttle off`"), "{kept}");
    assert!(throttles(&cluster).contains("replicas"), "{kept}");
    klamm(&cluster, "reassign throttle off").ok().expect(TOPIC);
    assert_eq!(throttles(&cluster), "");
    eventually("taken back", 20, || ongoing(&cluster).is_empty().then_some(()));
    begun_and_left(&cluster, &to_0);
    klamm(&cluster, "reassign cancel").ok().expect("cancelled");
    assert_eq!(throttles(&cluster), "");
    all_on(&cluster, 1);

    let read = klamm(&cluster, &format!("consume {TOPIC} --from-beginning --exit-at-end")).ok();
    assert_eq!(read.out.lines().count(), LINES * PARTITIONS as usize);
    let _ = std::fs::remove_dir_all(dir);
    view.until_in_sync(&mut cluster, Duration::from_secs(30));
}
