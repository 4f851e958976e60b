//! JoinGroup: who gets in, under which id, and what versions 0 to 9 are told.

use bytes::Bytes;
use klamm_protocol::Message;

use super::*;

#[test]
fn a_new_dynamic_member_gets_its_id_first_from_version_4_on() {
    for version in 0..=9 {
        let mut desk = Desk::quick();
        let joiner = Joiner::default().version(version);
        let first = desk.join_now(&joiner);
        if version < 4 {
            assert_eq!((first.error_code, first.generation_id), (0, 1), "v{version}");
        } else {
            assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code(), "v{version}");
            assert_eq!(desk.members("g"), Vec::<String>::new());
            let second = desk.join_now(&joiner.id(&first.member_id));
            assert_eq!((second.error_code, second.generation_id), (0, 1), "v{version}");
            assert_eq!(second.member_id, first.member_id);
        }
        assert!(first.member_id.starts_with("app-"), "{}", first.member_id);
        assert_eq!(first.member_id.len(), "app-".len() + 36);
    }
}

#[test]
fn a_member_that_brings_too_much_to_keep_stays_out() {
    let mut desk = Desk::quick();
    let large = Bytes::from(vec![0; 600 << 10]);
    let joiner = Joiner { protocols: vec![("range", large.clone()), ("roundrobin", large)], ..Joiner::default() };
    let refused = desk.join_now(&joiner.version(3));
    assert_eq!(refused.error_code, ErrorCode::MessageTooLarge.code());
    assert_eq!(desk.members("g"), Vec::<String>::new());
}

#[test]
fn every_answer_can_be_written_in_its_version() {
    for version in 0..=9 {
        let mut desk = Desk::quick();
        let mut joiner = Joiner::default().version(version);
        if version >= 5 {
            joiner = joiner.instance("i");
        }
        let mut good = desk.join_now(&joiner);
        good.to_bytes(version).unwrap();
        if version == 4 {
            good = desk.join_now(&joiner.clone().id(&good.member_id));
        }
        desk.sync("g", &good.member_id, 1, &[]);
        let again = match version {
            5.. => desk.join_now(&joiner),
            _ => desk.join_now(&joiner.clone().id(&good.member_id)),
        };
        let strange = desk.join_now(&joiner.clone().id("stranger"));
        let refused = desk.join_now(&Joiner { group: "", ..joiner.clone() });
        for response in [&good, &again, &strange, &refused] {
            response.to_bytes(version).unwrap_or_else(|e| panic!("v{version}: {e}: {response:?}"));
        }
        assert_eq!(strange.protocol_name, if version >= 7 { None } else { Some(String::new()) });
        assert_eq!(good.protocol_name.as_deref(), Some("range"));
    }
}

#[test]
fn what_is_refused() {
    let ok = Joiner::default();
    let cases = [
        (Joiner { group: "", ..ok.clone() }, ErrorCode::InvalidGroupId),
        (ok.clone().session_ms(5_999), ErrorCode::InvalidSessionTimeout),
        (ok.clone().session_ms(1_800_001), ErrorCode::InvalidSessionTimeout),
        (ok.clone().id("nobody"), ErrorCode::UnknownMemberId),
        (Joiner { group: "new", ..ok.clone() }.id("nobody"), ErrorCode::UnknownMemberId),
        (Joiner { protocol_type: "connect", ..ok.clone() }, ErrorCode::InconsistentGroupProtocol),
        (Joiner { group: "new", protocol_type: "", ..ok.clone() }, ErrorCode::InconsistentGroupProtocol),
        (Joiner { group: "new", protocols: vec![], ..ok.clone() }, ErrorCode::InconsistentGroupProtocol),
        (ok.clone().speaks(&["cooperative-sticky"]), ErrorCode::InconsistentGroupProtocol),
        (ok.clone().id("nobody").instance("i"), ErrorCode::UnknownMemberId),
    ];
    for (joiner, code) in cases {
        let mut desk = Desk::quick();
        desk.stable(&ok, 1);
        let written = desk.log.len();
        let response = desk.join_now(&joiner);
        assert_eq!(response.error_code, code.code(), "{:?} {}", joiner.group, joiner.member_id);
        assert_eq!(response.generation_id, -1);
        assert_eq!(desk.log.len(), written, "nothing is written for a refused join");
        assert_eq!(desk.state("new"), None);
        assert_eq!(desk.state("g"), Some(State::Stable));
    }
    for ms in [6_000, 1_800_000] {
        Desk::quick().member_id(&ok.clone().session_ms(ms));
    }
}

#[test]
fn a_group_may_follow_any_protocol_type_and_takes_a_new_one_when_empty() {
    let mut desk = Desk::quick();
    let connect =
        Joiner { protocol_type: "connect", protocols: vec![("compatible", vec![0xff; 9].into())], ..Joiner::default() };
    let ids = desk.stable(&connect, 2);
    assert_eq!(desk.c.group("g").unwrap().protocol_type(), Some("connect"));
    let leaving: Vec<_> = ids.iter().map(|id| (id.as_str(), None)).collect();
    desk.leave("g", &leaving, 5);
    assert_eq!(desk.state("g"), Some(State::Empty));
    desk.stable(&Joiner::default(), 1);
    assert_eq!(desk.c.group("g").unwrap().protocol_type(), Some("consumer"));
}

#[test]
fn members_vote_for_a_protocol_they_all_speak() {
    let cases: &[(&[&[&'static str]], &str)] = &[
        (&[&["a"]], "a"),
        (&[&["a", "b"], &["b", "a"], &["b", "a"]], "b"),
        (&[&["a", "b"], &["b"]], "b"),
        (&[&["c", "a", "b"], &["c", "b"], &["b", "c"]], "c"),
        // A tie goes to what the leader prefers.
        (&[&["b", "a"], &["a", "b"]], "b"),
    ];
    for (members, chosen) in cases {
        let mut desk = Desk::default();
        let tickets: Vec<_> =
            members.iter().map(|speaks| desk.join(&Joiner::default().version(3).speaks(speaks))).collect();
        desk.pass(60_000);
        for ticket in tickets {
            let response = desk.joined(ticket).unwrap();
            assert_eq!(response.protocol_name.as_deref(), Some(*chosen), "{members:?}");
        }
    }
}

#[test]
fn a_protocol_named_twice_counts_once() {
    let mut desk = Desk::default();
    desk.join(&Joiner::default().version(3).speaks(&["a", "a"]));
    // Counted twice, "a" would seem to be spoken by two members.
    let refused = desk.join_now(&Joiner::default().version(3).speaks(&["b"]));
    assert_eq!(refused.error_code, ErrorCode::InconsistentGroupProtocol.code());
    let other = desk.join(&Joiner::default().version(3).speaks(&["a", "b"]));
    desk.pass(60_000);
    assert_eq!(desk.joined(other).unwrap().protocol_name.as_deref(), Some("a"));
}

#[test]
fn the_leader_alone_hears_of_the_members() {
    let mut desk = Desk::default();
    let one = desk.join(&Joiner::default().version(3).reads(&["x"]));
    let two = desk.join(&Joiner::default().version(3).reads(&["y"]));
    desk.pass(60_000);
    let (one, two) = (desk.joined(one).unwrap(), desk.joined(two).unwrap());
    assert_eq!(one.leader, one.member_id, "the first one leads");
    assert_eq!(two.leader, one.member_id);
    assert!(two.members.is_empty());
    let mut heard: Vec<_> = one.members.iter().map(|m| (m.member_id.as_str(), m.metadata.clone())).collect();
    heard.sort();
    let mut expected =
        vec![(one.member_id.as_str(), subscription(&["x"])), (two.member_id.as_str(), subscription(&["y"]))];
    expected.sort();
    assert_eq!(heard, expected);
}

#[test]
fn a_group_has_a_largest_size() {
    let config = Config { group_members_max: 2, initial_rebalance_delay_ms: 0, ..Config::default() };
    let mut desk = Desk::new(config);
    let ids = desk.stable(&Joiner::default(), 2);
    let refused = desk.join_now(&Joiner::default());
    assert_eq!(refused.error_code, ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(desk.state("g"), Some(State::Stable));

    // The limit is lowered: the next rebalance admits one, the other is out.
    desk.c.set_config(Config { group_members_max: 1, initial_rebalance_delay_ms: 0, ..Config::default() });
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    let other = desk.join_now(&Joiner::default().id(&ids[1]));
    assert_eq!(other.error_code, ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(desk.joined(leader).unwrap().error_code, 0, "nobody is left to wait for");
    assert_eq!(desk.members("g"), [ids[0].clone()]);
}

#[test]
fn ids_that_nobody_uses_lapse_and_are_limited() {
    let mut desk = Desk::new(Config { pending_members_max: 3, ..Config::default() });
    for _ in 0..3 {
        desk.member_id(&Joiner::default());
    }
    let refused = desk.join_now(&Joiner::default());
    assert_eq!(refused.error_code, ErrorCode::GroupMaxSizeReached.code());
    desk.pass(10_000);
    let id = desk.member_id(&Joiner::default());
    desk.pass(10_000);
    let late = desk.join_now(&Joiner::default().id(&id));
    assert_eq!(late.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_dynamic_id_cannot_be_used_with_an_instance_id() {
    let mut desk = Desk::quick();
    let id = desk.member_id(&Joiner::default());
    let mixed = desk.join_now(&Joiner::default().id(&id).instance("i"));
    assert_eq!(mixed.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_repeated_join_answers_the_one_before() {
    let mut desk = Desk::default();
    let id = desk.member_id(&Joiner::default());
    let first = desk.join(&Joiner::default().id(&id));
    let second = desk.join(&Joiner::default().id(&id));
    assert_eq!(desk.joined(first).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    desk.pass(3_000);
    assert_eq!(desk.joined(second).unwrap().error_code, 0);
}
