//! Messages come back as they were; any bytes are a message or malformed.

use openraft::EntryPayload;
use proptest::prelude::*;

use super::*;
use crate::types::{Batch, log_id};

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(bytes.clone().into());
        let _ = Answer::decode(bytes.into());
    }
}

fn ids() -> impl Strategy<Value = Option<LogId>> {
    proptest::option::of((0..NUMBER_MAX, 0..NUMBER_MAX).prop_map(|(term, index)| log_id(term, index)))
}

fn votes() -> impl Strategy<Value = Vote> {
    (0..NUMBER_MAX, any::<i32>(), any::<bool>()).prop_map(|(term, id, committed)| {
        let mut vote = Vote::new(term, id);
        vote.committed = committed;
        vote
    })
}

fn voters() -> impl Strategy<Value = Voter> {
    ("[a-z.]{0,12}", any::<u16>(), any::<[u8; 16]>()).prop_map(|(host, port, directory_id)| Voter {
        host,
        port,
        directory_id,
    })
}

fn data() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from)
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0..NUMBER_MAX, 0..NUMBER_MAX, data(), any::<Option<u64>>()).prop_map(|(term, index, record, only)| {
        let payload = EntryPayload::Normal(Batch { records: vec![record].into(), term: only });
        Entry { log_id: log_id(term, index), payload }
    });
    proptest::collection::vec(entry, 0..4)
}

fn asks() -> impl Strategy<Value = Ask> {
    let list = proptest::collection::vec((any::<i32>(), "[a-z]{0,9}", any::<u16>()), 0..4);
    let number = 0..NUMBER_MAX;
    prop_oneof![
        list.prop_map(|voters| Ask::Probe { voters }),
        (number.clone(), ids()).prop_map(|(term, last)| Ask::PreVote { term, last }),
        (votes(), ids()).prop_map(|(vote, last)| Ask::Vote { vote, last }),
        (votes(), ids(), ids(), entries()).prop_map(|(vote, prev, commit, entries)| Ask::Append {
            vote,
            prev,
            commit,
            entries
        }),
        (votes(), number.clone(), number.clone(), data()).prop_map(|(vote, size, position, data)| Ask::Snapshot {
            vote,
            upto: log_id(1, size),
            size,
            position,
            data
        }),
        number.clone().prop_map(|term| Ask::Transfer { term }),
        voters().prop_map(|me| Ask::Join { me }),
        (voters(), ids(), proptest::option::of(number.clone()), any::<u32>(), any::<u32>())
            .prop_map(|(me, last, applied, bytes_max, wait_ms)| Ask::Fetch { me, last, applied, bytes_max, wait_ms }),
        (ids(), number, any::<u32>()).prop_map(|(upto, position, bytes_max)| Ask::FetchSnapshot {
            upto,
            position,
            bytes_max
        }),
    ]
}

fn replies() -> impl Strategy<Value = Reply> {
    let node = || proptest::option::of((any::<i32>(), voters()));
    let appended = prop_oneof![
        Just(Appended::Done),
        ids().prop_map(Appended::Partly),
        Just(Appended::Conflict),
        votes().prop_map(Appended::HigherVote),
    ];
    let members = proptest::collection::vec((any::<i32>(), voters()), 0..4);
    prop_oneof![
        (1..8u8, "[a-z ]{0,40}", node()).prop_map(|(why, reason, leader)| Reply::Refused {
            why: Refusal::from_byte(why).unwrap(),
            reason,
            leader
        }),
        (any::<bool>(), any::<bool>(), node(), members).prop_map(|(formed, agrees, leader, members)| Reply::Probe {
            formed,
            agrees,
            leader,
            members
        }),
        any::<bool>().prop_map(|granted| Reply::PreVote { granted }),
        (votes(), any::<bool>(), ids()).prop_map(|(vote, granted, last)| Reply::Vote { vote, granted, last }),
        appended.prop_map(Reply::Append),
        (0..NUMBER_MAX, proptest::option::of(votes())).prop_map(|(position, vote)| Reply::Snapshot { position, vote }),
        Just(Reply::Transfer),
        any::<bool>().prop_map(|voter| Reply::Join { voter }),
        (votes(), ids(), entries(), node()).prop_map(|(vote, commit, entries, leader)| Reply::Entries {
            vote,
            commit,
            entries,
            leader
        }),
        votes().prop_map(|vote| Reply::SnapshotNeeded { vote }),
        Just(Reply::Unknown),
        (0..NUMBER_MAX, 0..NUMBER_MAX, data()).prop_map(|(at, size, data)| Reply::SnapshotPart {
            upto: log_id(at, at),
            size,
            data
        }),
    ]
}

fn identities() -> impl Strategy<Value = Identity> {
    (any::<i32>(), any::<[u8; 16]>()).prop_map(|(id, directory_id)| Identity { id, directory_id })
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was_and_none_comes_of_a_part(
        cluster_id in "[a-z]{0,9}", from in identities(), to in proptest::option::of(identities()), ask in asks(),
    ) {
        let request = Request { cluster_id, from, to, ask };
        let bytes = request.encode();
        prop_assert_eq!(Request::decode(bytes.clone()).unwrap(), request);
        for end in 0..bytes.len() {
            prop_assert!(Request::decode(bytes.slice(..end)).is_err());
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was_and_none_comes_of_a_part(from in identities(), reply in replies()) {
        let answer = Answer { from, reply };
        let bytes = answer.encode();
        prop_assert_eq!(Answer::decode(bytes.clone()).unwrap(), answer);
        for end in 0..bytes.len() {
            prop_assert!(Answer::decode(bytes.slice(..end)).is_err());
        }
    }
}

#[test]
fn a_host_longer_than_any_name_is_malformed() {
    let decoded = |host: usize| {
        let me = Voter { host: "h".repeat(host), port: 1, directory_id: [1; 16] };
        let from = Identity { id: 5, directory_id: [1; 16] };
        let fetch = Ask::Fetch { me: me.clone(), last: None, applied: None, bytes_max: 1, wait_ms: 0 };
        let probe = Ask::Probe { voters: vec![(1, me.host.clone(), 1)] };
        [Ask::Join { me }, fetch, probe].map(|ask| {
            let request = Request { cluster_id: "c".into(), from: from.clone(), to: None, ask };
            Request::decode(request.encode()).err()
        })
    };
    assert_eq!(decoded(HOST_BYTES_MAX), [None, None, None]);
    assert_eq!(
        decoded(HOST_BYTES_MAX + 1),
        [Some(Malformed("host")), Some(Malformed("host")), Some(Malformed("host"))]
    );
}

#[test]
fn a_message_that_is_made_of_empty_records_is_malformed() {
    let decoded = |records: usize, entries: u64| {
        let batch = || EntryPayload::Normal(Batch::new(vec![Bytes::new(); records]));
        let entries = (0..entries).map(|index| Entry { log_id: log_id(1, index), payload: batch() }).collect();
        let ask = Ask::Append { vote: Vote::new(1, 1), prev: None, commit: None, entries };
        let from = Identity { id: 1, directory_id: [1; 16] };
        Request::decode(Request { cluster_id: "c".into(), from, to: None, ask }.encode()).err()
    };
    assert_eq!(decoded(300_000, 1), None);
    assert_eq!(decoded(500_000, 1), Some(Malformed("record count")));
    assert_eq!(decoded(100_000, 5), Some(Malformed("record count")), "in several entries");
    assert_eq!(decoded(0, ENTRIES_MAX as u64), None);
    assert_eq!(decoded(0, ENTRIES_MAX as u64 + 1), Some(Malformed("entry count")));
}
