//! Groups that change while they run: new topics, new partitions, members that come, go and die.

use std::time::Duration;

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, Peer, Process, eventually, unique, wait_for};

use crate::tools::{CONFIGS, GROUPS, TOPICS, create, java, produce, python, row, values};

/// The partitions that a member holds now, from the lines it prints on each change.
fn held(member: &Process) -> Vec<String> {
    let out = member.stdout();
    let line = out.lines().rev().find_map(|l| l.strip_prefix("holds"));
    line.map(|l| l.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

/// All members together hold each of `wanted` once.
fn shared(members: &[Process], wanted: usize, least_each: usize) -> Option<()> {
    let each: Vec<Vec<String>> = members.iter().map(held).collect();
    let mut all = each.concat();
    all.sort();
    let count = all.len();
    all.dedup();
    (count == wanted && all.len() == wanted && each.iter().all(|h| h.len() >= least_each)).then_some(())
}

fn member(group: &str, topic: &str, strategy: &str, client: &str) -> Process {
    python("member.py", &["--group", group, "--topic", topic, "--strategy", strategy, "--client", client]).start()
}

#[test]
fn a_topic_created_while_a_regex_subscriber_runs_is_picked_up_by_librdkafka() {
    let (base, group) = (unique("rx"), unique("rx-g"));
    create(&format!("{base}-one"), 1);
    produce(&format!("{base}-one"), 0, &["first".into()]);
    let mut reader = member(&group, &format!("^{base}-.*"), "range", "rx");
    reader.until("the first topic's record", 30, |out| out.contains("first").then_some(()));
    create(&format!("{base}-two"), 1);
    produce(&format!("{base}-two"), 0, &["second".into()]);
    reader.until("the new topic's record", 40, |out| out.contains("second").then_some(()));
}

#[test]
fn a_topic_created_while_a_regex_subscriber_runs_is_picked_up_by_java() {
    let (base, group) = (unique("jrx"), unique("jrx-g"));
    create(&format!("{base}-one"), 1);
    produce(&format!("{base}-one"), 0, &["first".into()]);
    let reader =
        Java::new("Apps").args(["regex", Broker::shared().bootstrap(), &format!("{base}-.*"), &group, "2"]).start();
    reader.until("the first topic's record", 40, |out| out.contains("first").then_some(()));
    create(&format!("{base}-two"), 1);
    produce(&format!("{base}-two"), 0, &["second".into()]);
    reader.finish().expect_ok().expect(&format!("value {base}-two second"));
}

#[test]
fn growing_a_topic_rebalances_its_group() {
    let (topic, group) = (unique("grow"), unique("grow-g"));
    create(&topic, 2);
    let members = [member(&group, &topic, "range", "a"), member(&group, &topic, "range", "b")];
    eventually("one partition each", 40, || shared(&members, 2, 1));
    java(TOPICS, &format!("--alter --topic {topic} --partitions 6")).ok();
    eventually("three partitions each", 40, || shared(&members, 6, 3));
    produce(&topic, 5, &["to a new partition".into()]);
    eventually("the record in the new partition is read", 30, || {
        members.iter().any(|m| m.stdout().contains("to a new partition")).then_some(())
    });
}

/// Consumers that begin at the end, and hear of a new partition when there are records in it already: how many of those
/// each reads. First of guarded groups, then of others.
#[test]
fn a_guarded_group_reads_new_partitions_from_their_first_record() {
    if Broker::shared().peer() == Peer::Apache {
        // It does not know the configuration.
        return;
    }
    let topic = unique("late");
    create(&topic, 2);
    let groups = ["guarded-java", "guarded-python", "java", "python"].map(unique);
    for group in &groups[..2] {
        let set =
            format!("--alter --entity-type groups --entity-name {group} --add-config klamm.new.partitions.guard=true");
        java(CONFIGS, &set).ok();
    }
    let java_reader =
        |group: &String| Java::new("Apps").args(["late", Broker::shared().bootstrap(), &topic, group]).start();
    let (guarded, plain) = (java_reader(&groups[0]), java_reader(&groups[2]));
    let python_reader =
        |group: &String| python("member.py", &["--group", group, "--topic", &topic, "--reset", "latest"]);
    let mut members = [python_reader(&groups[1]).start(), python_reader(&groups[3]).start()];
    for java in [&guarded, &plain] {
        java.until("a commit", 60, |out| out.contains("ready").then_some(()));
    }
    // librdkafka commits what it has read.
    eventually("librdkafka has read something", 60, || {
        produce(&topic, 0, &["first".into()]);
        members.iter().all(|m| m.stdout().contains("first")).then_some(())
    });
    eventually("librdkafka has committed it", 30, || {
        let offsets = |group: &String| java(GROUPS, &format!("--describe --group {group}")).ok();
        let committed =
            |group: &String| row(&offsets(group), &[group, &topic, "0"]).get(3).is_some_and(|at| *at != "-");
        (committed(&groups[1]) && committed(&groups[3])).then_some(())
    });
    for member in &mut members {
        member.signal("STOP");
    }
    java(TOPICS, &format!("--alter --topic {topic} --partitions 3")).ok();
    produce(&topic, 2, &values("early", 0..3));
    for member in &mut members {
        member.signal("CONT");
    }
    // All of them: who begins at the end may begin there after what was late for another.
    let outs = eventually("what comes later is read by all", 60, || {
        produce(&topic, 2, &["late".into()]);
        let outs = [guarded.stdout(), plain.stdout(), members[0].stdout(), members[1].stdout()];
        outs.iter().all(|out| out.contains("got late")).then_some(outs)
    });
    let [guarded_java, plain_java, guarded_python, plain_python] = outs;
    for java in [guarded, plain] {
        java.finish().expect_ok();
    }
    for (who, out, wanted) in [
        ("Java, guarded", guarded_java, 3),
        ("librdkafka, guarded", guarded_python, 3),
        ("Java", plain_java, 0),
        ("librdkafka", plain_python, 0),
    ] {
        assert!(out.contains("got late"), "{who}:\n{out}");
        assert_eq!(out.matches("got early").count(), wanted, "{who}:\n{out}");
    }
}

#[test]
fn a_killed_members_partitions_move_to_the_others() {
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let (topic, group) = (unique("killed"), unique("killed-g"));
        create(&topic, 6);
        let mut members = vec![
            member(&group, &topic, strategy, "a"),
            member(&group, &topic, strategy, "b"),
            member(&group, &topic, strategy, "c"),
        ];
        eventually(&format!("two partitions each ({strategy})"), 60, || shared(&members, 6, 2));
        members.pop().expect("three members").kill();
        eventually(&format!("three partitions each after a kill ({strategy})"), 60, || shared(&members, 6, 3));
        for partition in 0..6 {
            produce(&topic, partition, &[format!("after-{partition}")]);
        }
        eventually("a record of every partition is read", 30, || {
            let out: String = members.iter().map(Process::stdout).collect();
            (0..6).all(|p| out.contains(&format!("after-{p}"))).then_some(())
        });
    }
}

#[test]
fn cooperative_sticky_moves_no_more_than_it_must() {
    let (topic, group) = (unique("coop"), unique("coop-g"));
    create(&topic, 6);
    for partition in 0..6 {
        produce(&topic, partition, &values(&format!("p{partition}"), 0..20));
    }
    let mut members = vec![member(&group, &topic, "cooperative-sticky", "a")];
    eventually("one member holds all", 40, || shared(&members, 6, 6));
    members.push(member(&group, &topic, "cooperative-sticky", "b"));
    members.push(member(&group, &topic, "cooperative-sticky", "c"));
    eventually("two each", 60, || shared(&members, 6, 2));
    // The first member keeps two of its partitions throughout: it never gives up all of them.
    let first = members[0].stdout();
    let lost: usize =
        first.lines().filter_map(|l| l.strip_prefix("revoked")).map(|l| l.split_whitespace().count()).sum();
    assert!(lost <= 5, "the first member gave up {lost} of 6:\n{first}");
    assert!(!first.contains("holds\n"), "the first member held nothing at some time:\n{first}");
    // One that leaves in an orderly way hands over at once, not after a session timeout.
    let mut leaver = members.pop().expect("three members");
    leaver.signal("TERM");
    leaver.wait(std::time::Duration::from_secs(20));
    eventually("three each after one left", 20, || shared(&members, 6, 3));
    // Whoever got a partition last may not have read it yet.
    let mut unread = String::new();
    let all_read = wait_for(Duration::from_secs(20), || {
        let all: String = members.iter().map(Process::stdout).collect::<String>() + &leaver.stdout();
        let wanted = (0..6).flat_map(|partition| (0..20).map(move |n| format!("p{partition}-{n}\n")));
        unread = wanted.filter(|value| !all.contains(value.as_str())).collect();
        unread.is_empty().then_some(())
    });
    assert!(all_read.is_some(), "never read: {unread}");
}
