//! ListGroups, DescribeGroups, and what metrics read.

use klamm_protocol::Message;
use klamm_protocol::messages::{DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse};

use super::*;

fn list(desk: &Desk, states: &[&str], types: &[&str]) -> Vec<String> {
    let strings = |of: &[&str]| of.iter().map(|s| (*s).to_string()).collect();
    let request = ListGroupsRequest { states_filter: strings(states), types_filter: strings(types) };
    desk.c.list_groups(&request).into_iter().map(|g| g.group_id).collect()
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut desk = Desk::quick();
    desk.stable(&Joiner::of("stable"), 1);
    desk.commit("simple", "", -1, "t", (0, 1));
    desk.join(&Joiner::of("completing").version(3));
    desk.stable(&Joiner::of("preparing"), 1);
    desk.join(&Joiner::of("preparing").version(3));
    let all = ["completing", "preparing", "simple", "stable"];
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &[], &all),
        (&["Stable"], &[], &["stable"]),
        (&["stable", " EMPTY "], &[], &["simple", "stable"]),
        (&["PreparingRebalance"], &[], &["preparing"]),
        (&["completingrebalance"], &["classic"], &["completing"]),
        (&["Dead"], &[], &[]),
        (&["nonsense"], &[], &[]),
        (&[], &["Classic"], &all),
        (&[], &["consumer"], &[]),
        (&[], &["nonsense"], &[]),
        (&[], &["share", "classic"], &all),
    ];
    for (states, types, expected) in cases {
        assert_eq!(list(&desk, states, types), *expected, "{states:?} {types:?}");
    }
    let groups = desk.c.list_groups(&ListGroupsRequest::default());
    assert_eq!(groups[2].protocol_type, "", "a group that only holds offsets has no type");
    assert_eq!((groups[3].protocol_type.as_str(), groups[3].group_type.as_str()), ("consumer", "classic"));
    for version in 0..=5 {
        ListGroupsResponse { groups: groups.clone(), ..Default::default() }.to_bytes(version).unwrap();
    }
}

#[test]
fn a_stable_group_is_described_with_what_its_members_said_and_got() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let group = desk.c.describe_group("g", 5);
    assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"));
    assert_eq!((group.protocol_type.as_str(), group.protocol_data.as_str()), ("consumer", "range"));
    for member in &group.members {
        let i = ids.iter().position(|id| *id == member.member_id).unwrap();
        assert_eq!(member.member_assignment, format!("a{i}"));
        assert_eq!(member.member_metadata, subscription(&["t"]));
        assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("app", "/127.0.0.1"));
    }
    assert_eq!(group.authorized_operations, i32::MIN);
    desk.join(&Joiner::default().version(3));
    let group = desk.c.describe_group("g", 5);
    assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("PreparingRebalance", ""));
    assert!(group.members.iter().all(|m| m.member_metadata.is_empty()));
    for version in 0..=6 {
        let groups = vec![desk.c.describe_group("g", version), desk.c.describe_group("none", version)];
        DescribeGroupsResponse { groups, ..Default::default() }.to_bytes(version).unwrap();
    }
}

#[test]
fn a_group_that_does_not_exist_is_dead_and_from_version_6_an_error() {
    let desk = Desk::quick();
    for version in 0..=6 {
        let group = desk.c.describe_group("none", version);
        assert_eq!((group.group_id.as_str(), group.group_state.as_str()), ("none", "Dead"));
        let code = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
        assert_eq!(group.error_code, code.code());
        assert_eq!(group.error_message.is_some(), version >= 6);
    }
}

#[test]
fn what_metrics_read() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    desk.commit("g", &ids[0], desk.generation("g"), "t", (3, 17));
    let group = desk.c.groups().next().unwrap();
    assert_eq!((group.id(), group.state(), group.members().len()), ("g", State::Stable, 2));
    let member = group.members().next().unwrap();
    assert_eq!((member.client_id(), member.client_host(), member.instance_id()), ("app", "/127.0.0.1", None));
    let all: Vec<_> = desk.c.committed().map(|(g, t, p, e)| (g, t, p, e.offset)).collect();
    assert_eq!(all, [("g", "t", 3, 17)]);
    assert_eq!(desk.c.committed_offset("g", "t", 3).map(|e| e.commit_ms), Some(desk.now));
    let counters = desk.c.counters();
    assert_eq!((counters.completed_rebalances, counters.offset_commits), (1, 1));
    assert_eq!(State::ALL.map(State::name), ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"]);
}

#[test]
fn idle_groups_are_small() {
    // A group that only holds offsets, as most do on a broker with many: itself, its keys, one partition.
    let group = size_of::<crate::classic::Group>();
    let offset = size_of::<(i32, OffsetEntry)>();
    assert!(group <= 512 && offset <= 80, "group {group}, offset {offset}");
}
