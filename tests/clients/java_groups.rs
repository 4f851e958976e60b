//! kafka-consumer-groups: list, describe (offsets, members, state), reset offsets every way, delete.

use klamm_tests::{Broker, Process, assert_contains, eventually, paths, unique};

use crate::tools::{GROUPS, create, java, produce, python, row, values};

/// A member of a group in a process of its own, with its partitions assigned.
fn member(group: &str, topic: &str, client: &str) -> Process {
    let mut member = python("member.py", &["--group", group, "--topic", topic, "--client", client]).start();
    member.until("an assignment", 30, |out| out.contains("assigned").then_some(()));
    member
}

#[test]
fn a_live_group_is_listed_and_described() {
    let (topic, group) = (unique("live"), unique("live-g"));
    create(&topic, 2);
    produce(&topic, 0, &values("v", 0..7));
    let mut live = member(&group, &topic, "reader");
    live.until("seven records", 30, |out| (out.matches("got ").count() == 7).then_some(()));

    assert!(java(GROUPS, "--list").ok().lines().contains(&group.as_str()));
    let listed = java(GROUPS, "--list --state").ok();
    assert_eq!(row(&listed, &[&group]).last(), Some(&"Stable"));
    let listed = java(GROUPS, "--list --state Stable").ok();
    assert_contains(&listed.out, &group);
    let listed = java(GROUPS, "--list --type").ok();
    assert_eq!(row(&listed, &[&group]).last(), Some(&"Classic"));

    // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
    eventually("the offset is committed", 20, || {
        let described = java(GROUPS, &format!("--describe --group {group}")).ok();
        let zero = row(&described, &[&group, &topic, "0"]);
        (zero.get(3..6) == Some(&["7", "7", "0"]) && zero.last() == Some(&"reader")).then_some(())
    });
    let members = java(GROUPS, &format!("--describe --group {group} --members --verbose")).ok();
    let line = row(&members, &[&group, "reader"]).join(" ");
    assert_contains(&line, &format!("{topic}:0,1"));
    let state = java(GROUPS, &format!("--describe --group {group} --state --verbose")).ok();
    let line = row(&state, &[&group, "Stable"]).join(" ");
    assert_contains(&line, "range");
    let all = java(GROUPS, "--describe --all-groups --state").ok();
    assert_contains(&all.out, &group);

    // A group with members keeps its offsets and can't be deleted.
    let refused = java(GROUPS, &format!("--delete --group {group}")).run();
    assert_contains(&refused.text(), "GroupNotEmptyException");
    let refused =
        java(GROUPS, &format!("--reset-offsets --group {group} --topic {topic} --to-earliest --execute")).run();
    assert_contains(&refused.text(), "inactive");
    let refused = java(GROUPS, &format!("--delete-offsets --group {group} --topic {topic}")).run();
    assert_contains(&refused.text(), "GroupSubscribedToTopicException");

    live.signal("TERM");
    live.wait(std::time::Duration::from_secs(20));
    eventually("the group is empty", 20, || {
        let state = java(GROUPS, &format!("--describe --group {group} --state")).ok();
        state.out.contains("Empty").then_some(())
    });
    java(GROUPS, &format!("--delete --group {group}")).ok().expect("was successful");
    assert!(!java(GROUPS, "--list").ok().lines().contains(&group.as_str()));
}

#[test]
fn offsets_are_reset_every_way_there_is() {
    let (topic, group) = (unique("reset"), unique("reset-g"));
    create(&topic, 1);
    produce(&topic, 0, &values("v", 0..10));
    let between = python("admin.py", &["now"]).ok().out.trim().to_owned();
    produce(&topic, 0, &values("w", 0..10));
    python("admin.py", &["commit", &topic, &group, "0", "5"]).ok();

    let committed = || {
        let described = java(GROUPS, &format!("--describe --group {group}")).ok();
        row(&described, &[&group, &topic])[3].to_owned()
    };
    assert_eq!(committed(), "5");
    let reset = |how: &str| java(GROUPS, &format!("--reset-offsets --group {group} --topic {topic} {how}")).ok();
    // Without --execute it only tells.
    assert_eq!(row(&reset("--to-latest --dry-run"), &[&topic]).last(), Some(&"20"));
    assert_eq!(committed(), "5");
    for (how, offset) in [
        ("--to-latest", "20"),
        ("--to-earliest", "0"),
        ("--to-offset 7", "7"),
        ("--to-offset 4000", "20"),
        ("--shift-by -3", "17"),
        ("--to-current", "17"),
        ("--by-duration P1D", "0"),
    ] {
        let output = reset(&format!("{how} --execute"));
        assert_eq!(row(&output, &[&topic]).last(), Some(&offset), "{how}");
        assert_eq!(committed(), offset, "{how}");
    }
    reset(&format!("--to-datetime {between} --execute"));
    assert_eq!(committed(), "10", "--to-datetime {between}");

    let plan = reset("--to-offset 3 --export --dry-run");
    let file = paths::scratch().join(unique("plan"));
    std::fs::write(&file, &plan.out).expect("the plan");
    assert_contains(&plan.out, "3");
    java(GROUPS, &format!("--reset-offsets --group {group} --execute --from-file {}", file.display())).ok();
    assert_eq!(committed(), "3");

    java(GROUPS, &format!("--delete-offsets --group {group} --topic {topic}")).ok().expect("Successful");
    let gone = java(GROUPS, &format!("--describe --group {group}")).run();
    assert!(!gone.out.contains(&topic), "{gone}");
}

#[test]
fn a_group_that_never_was_is_said_not_to_exist() {
    let group = unique("absent");
    Broker::shared();
    let output = java(GROUPS, &format!("--describe --group {group}")).run();
    assert_contains(&output.text(), "GroupIdNotFoundException");
    let output = java(GROUPS, &format!("--delete --group {group}")).run();
    assert_contains(&output.text(), "GroupIdNotFoundException");
}
