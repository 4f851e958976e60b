//! What a Cluster's status says, case by case.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use super::live::{Configured, Told};
use super::observed::Seen;
use super::rolling::Rolling;
use super::status::{Problem, View, build};
use super::storage::Volumes;
use crate::controllers::cluster::scaling::{Limited, Scaling};
use crate::crd::cluster::{BrokerState, ClusterStatus, OperationStep, OperationType, Progress};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn seen(id: i32, state: BrokerState) -> Seen {
    Seen {
        pod: format!("prod-{id}"),
        exists: true,
        state,
        why: None,
        runs: state == BrokerState::Running,
        in_sync: state == BrokerState::Running,
        template: Some("new".into()),
        description: None,
        version: Some("1".into()),
        node: None,
    }
}

/// A cluster of brokers in these states.
fn view(states: &[BrokerState]) -> View {
    let brokers: BTreeMap<_, _> = (0..).zip(states).map(|(id, state)| (id, seen(id, *state))).collect();
    let count = i32::try_from(states.len()).unwrap();
    View {
        generation: Some(3),
        asked: count,
        replicas: Some(count),
        brokers,
        template: Some("new".into()),
        selector: "a=b".into(),
        paused: false,
        problem: None,
        waiting: None,
        warnings: Vec::new(),
        told: Some(Told { cluster_id: "id".into(), ..Told::default() }),
        moved: BTreeSet::new(),
        configured: Configured::Applied,
        volumes: Volumes::Fit,
        renewing: false,
        rolling: None,
        unsettled: false,
        hindered: None,
        scaling: None,
        limited: None,
        listeners: Vec::new(),
    }
}

use BrokerState::{Failing, Running, Starting};

/// `Ready=True/Serving Stalled=…` of the conditions named.
#[track_caller]
fn check(status: &ClusterStatus, expected: &str) {
    for wanted in expected.split_whitespace() {
        let kind = wanted.split('=').next().unwrap();
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        let found = found.map(|c| format!("{kind}={}/{}", c.status, c.reason));
        assert_eq!(found.as_deref(), Some(wanted), "{:#?}", status.conditions);
    }
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
}

/// The status of a cluster that has been complete once.
fn complete() -> ClusterStatus {
    build(&view(&[Running, Running, Running]), None, at(1))
}

#[test]
fn a_new_cluster_is_created_until_all_brokers_are_ready_and_configured() {
    let mut nothing = view(&[]);
    (nothing.asked, nothing.replicas, nothing.told, nothing.configured) = (3, None, None, Configured::NotAsked);
    let first = build(&nothing, None, at(1));
    check(&first, "Ready=False/Creating Reconciling=True/Creating Stalled=False/Fine BrokersReady=False/NoBroker");
    check(&first, "ConfigApplied=Unknown/NoBroker UpToDate=Unknown/NoBroker StorageReady=True/AsDescribed");
    let second = build(&view(&[Running, Starting, Starting]), Some(&first), at(2));
    check(&second, "Ready=False/Creating BrokersReady=False/NotAllReady Reconciling=True/Creating");
    assert_eq!(second.operation.as_ref().map(|o| (o.kind, o.started_at.0)), Some((OperationType::Create, at(1))));
    let mut unconfigured = view(&[Running, Running, Running]);
    unconfigured.configured = Configured::NotAsked;
    check(&build(&unconfigured, Some(&second), at(3)), "Ready=False/Creating");
    let done = build(&view(&[Running, Running, Running]), Some(&second), at(4));
    check(&done, "Ready=True/Serving Reconciling=False/Done Stalled=False/Fine BrokersReady=True/AllReady");
    assert_eq!((done.operation, done.ready_replicas, done.replicas, done.updated_replicas), (None, 3, 3, 3));
    assert_eq!((done.version.as_deref(), done.cluster_id.as_deref()), (Some("1"), Some("id")));
}

#[test]
fn a_status_that_says_nothing_new_is_the_same() {
    let first = complete();
    assert_eq!(build(&view(&[Running, Running, Running]), Some(&first), at(99)), first);
}

#[test]
fn a_broker_that_is_away_matters_when_partitions_do() {
    let away = |unavailable: Option<usize>| {
        let mut view = view(&[Running, Starting, Running]);
        view.told.as_mut().unwrap().unavailable = unavailable;
        build(&view, Some(&complete()), at(9))
    };
    check(&away(Some(0)), "Ready=True/Degraded BrokersReady=False/NotAllReady Reconciling=True/BrokersNotReady");
    check(&away(Some(7)), "Ready=False/PartitionsUnavailable");
    check(&away(None), "Ready=True/Degraded");
    let mut silent = view(&[Running, Starting, Running]);
    silent.told = None;
    check(&build(&silent, Some(&complete()), at(9)), "Ready=False/BrokersUnreachable");
}

#[test]
fn all_that_are_left_are_not_all_that_there_should_be() {
    let fewer = |told: Option<Option<usize>>| {
        let mut view = view(&[Running]);
        view.asked = 3;
        view.told = told.map(|unavailable| Told { cluster_id: "id".into(), unavailable, ..Told::default() });
        build(&view, Some(&complete()), at(9))
    };
    check(&fewer(None), "Ready=False/BrokersUnreachable");
    check(&fewer(Some(Some(4))), "Ready=False/PartitionsUnavailable");
    check(&fewer(Some(None)), "Ready=True/Serving");
}

#[test]
fn the_last_broker_of_a_restart_that_was_asked_for_is_restarted_for_that_too() {
    let mut before = complete();
    let operation = json!({
        "type": "RollingRestart", "reason": "RestartAsked", "step": "Running", "message": "", "brokers": [0], "remaining": 1,
        "startedAt": "2026-01-01T00:00:00Z", "progressedAt": "2026-01-01T00:00:00Z",
    });
    before.operation = Some(serde_json::from_value(operation).expect("an operation"));
    let status = build(&view(&[Starting, Running, Running]), Some(&before), at(9));
    assert_eq!(status.operation.expect("one that goes on").reason, "RestartAsked");
}

#[test]
fn a_broker_that_fails_stalls_and_says_why() {
    let mut view = view(&[Running, Failing, Running]);
    view.brokers.get_mut(&1).unwrap().why = Some("ImagePullBackOff: no such image".into());
    let status = build(&view, None, at(1));
    check(&status, "Stalled=True/BrokersFail Ready=False/Creating");
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!(stalled.message, "prod-1 (ImagePullBackOff: no such image)");
}

#[test]
fn an_older_description_is_shown_and_left() {
    let mut view = view(&[Running, Running, Running]);
    view.brokers.get_mut(&1).unwrap().template = Some("old".into());
    view.asked = 5;
    let status = build(&view, Some(&complete()), at(9));
    check(&status, "UpToDate=False/RestartRequired Ready=True/Serving Reconciling=False/Done Stalled=False/Fine");
    let operation = status.operation.clone().unwrap();
    assert_eq!((operation.kind, operation.step), (OperationType::RollingRestart, OperationStep::Pending));
    assert_eq!((operation.brokers.as_slice(), operation.started_at.0), (&[1][..], at(9)));
    assert_eq!((status.updated_replicas, status.brokers[1].up_to_date), (2, false));
    assert_eq!(build(&view, Some(&status), at(10)), status);
}

fn rolling(step: OperationStep, left: &[i32]) -> Option<Rolling> {
    let (reason, message, left) = ("TemplateChanged", "m".to_owned(), left.to_vec());
    Some(Rolling { reason, step, message, broker: Some(1), blocked_by: Some("t-0".into()), left })
}

#[test]
fn brokers_that_nobody_makes_do_not_start() {
    let mut nothing = view(&[]);
    (nothing.asked, nothing.replicas, nothing.told, nothing.configured) = (3, None, None, Configured::NotAsked);
    let held =
        |view: &View| build(view, None, at(1)).operation.map(|held| (held.kind, held.step, held.message)).unwrap();
    assert_eq!(held(&nothing).1, OperationStep::Running);
    let mut paused = nothing.clone();
    paused.paused = true;
    let (kind, step, message) = held(&paused);
    assert_eq!((kind, step), (OperationType::Create, OperationStep::Pending));
    assert!(message.ends_with("spec.paused is true: nothing is changed"), "{message}");
    check(&build(&paused, None, at(1)), "Ready=False/Creating Reconciling=False/Paused");
    nothing.problem = Some(Problem { reason: "NameTaken".into(), message: "m".into() });
    let (_, step, message) = held(&nothing);
    assert_eq!(step, OperationStep::Pending);
    assert!(message.ends_with("see Stalled"), "{message}");
}

#[test]
fn a_description_that_is_corrected_while_the_first_brokers_start_is_not_there_yet() {
    let mut view = view(&[BrokerState::Starting]);
    view.brokers.get_mut(&0).unwrap().template = Some("old".into());
    view.rolling = rolling(OperationStep::WaitingForBroker, &[0]);
    view.configured = Configured::NotAsked;
    check(&build(&view, None, at(9)), "UpToDate=False/Rolling Ready=False/Creating Reconciling=True/Creating");
    view.rolling = rolling(OperationStep::Pending, &[0]);
    check(&build(&view, None, at(9)), "UpToDate=False/RestartRequired");
}

#[test]
fn a_roll_is_shown_until_its_last_broker_is_back() {
    let mut view = view(&[Running, Running, Running]);
    view.brokers.get_mut(&1).unwrap().template = Some("old".into());
    view.rolling = rolling(OperationStep::WaitingForSafety, &[1]);
    let first = build(&view, Some(&complete()), at(9));
    check(&first, "UpToDate=False/Rolling Ready=True/Serving Reconciling=True/Rolling Stalled=False/Fine");
    let operation = first.operation.clone().unwrap();
    assert_eq!((operation.broker, operation.blocked_by.as_deref()), (Some(1), Some("t-0")));
    assert_eq!(build(&view, Some(&first), at(10)), first, "no write as long as nothing changes");
    // Its pod is a new one, and starts.
    let seen = view.brokers.get_mut(&1).unwrap();
    (seen.template, seen.state) = (Some("new".into()), Starting);
    (view.rolling, view.told.as_mut().unwrap().unavailable) = (None, Some(0));
    let second = build(&view, Some(&first), at(11));
    check(&second, "UpToDate=False/Rolling Ready=True/Degraded Reconciling=True/Rolling");
    let operation = second.operation.clone().unwrap();
    assert_eq!(
        (operation.step, operation.started_at.0),
        (OperationStep::WaitingForBroker, at(9)),
        "it is the same roll"
    );
    view.brokers.get_mut(&1).unwrap().state = Running;
    let third = build(&view, Some(&second), at(12));
    check(&third, "UpToDate=True/AsDescribed Ready=True/Serving Reconciling=False/Done");
    assert_eq!(third.operation, None);
    // A broker that is away later belongs to no roll.
    view.brokers.get_mut(&1).unwrap().state = Starting;
    check(&build(&view, Some(&third), at(13)), "UpToDate=True/AsDescribed Reconciling=True/BrokersNotReady");
}

#[test]
fn a_roll_that_waits_for_its_window_is_no_work_under_way() {
    let mut view = view(&[Running, Running, Running]);
    view.rolling = rolling(OperationStep::Pending, &[0, 1, 2]);
    let status = build(&view, Some(&complete()), at(9));
    check(&status, "UpToDate=False/RestartRequired Reconciling=False/Done Stalled=False/Fine Ready=True/Serving");
}

#[test]
fn another_number_of_brokers_is_shown() {
    for (asked, kind, about) in [(5, OperationType::ScaleOut, vec![3, 4]), (2, OperationType::ScaleIn, vec![2])] {
        let mut view = view(&[Running, Running, Running]);
        view.asked = asked;
        let status = build(&view, Some(&complete()), at(9));
        check(&status, "UpToDate=False/Scaling Reconciling=True/Scaling Ready=True/Serving");
        assert_eq!(status.operation.map(|o| (o.kind, o.brokers)), Some((kind, about)));
        assert_eq!(status.replicas, 3);
        view.problem = Some(Problem { reason: "InvalidConfig".into(), message: "m".into() });
        let status = build(&view, Some(&complete()), at(9));
        check(&status, "UpToDate=False/ScalingPending Reconciling=False/Stalled");
    }
}

#[test]
fn what_goes_on_with_the_number_of_brokers_is_shown_but_for_restarts_that_go_on() {
    let mut view = view(&[Running, Running, Running]);
    let progress = Some(Progress { partitions_left: 3, bytes_left: 1 << 20 });
    view.asked = 2;
    view.scaling = Some(Scaling {
        kind: OperationType::ScaleIn,
        reason: "ReplicasChanged",
        step: OperationStep::Draining,
        message: "m".into(),
        broker: Some(2),
        blocked_by: None,
        left: vec![2],
        progress,
    });
    let status = build(&view, Some(&complete()), at(9));
    check(&status, "UpToDate=False/Scaling Reconciling=True/Scaling Ready=True/Serving");
    let operation = status.operation.clone().unwrap();
    assert_eq!((operation.step, operation.broker, operation.progress), (OperationStep::Draining, Some(2), progress));
    assert_eq!(build(&view, Some(&status), at(10)), status, "since when stays");
    let kind = |view: &View| build(view, Some(&complete()), at(9)).operation.map(|operation| operation.kind);
    view.rolling = rolling(OperationStep::Pending, &[0]);
    assert_eq!(kind(&view), Some(OperationType::ScaleIn));
    view.rolling = rolling(OperationStep::Restarting, &[0]);
    assert_eq!(kind(&view), Some(OperationType::RollingRestart));
    // A wish that is not fulfilled is said to be none.
    (view.rolling, view.scaling) = (None, None);
    view.limited = Some(Limited { reason: "Quorum", message: "m".into() });
    let status = build(&view, Some(&complete()), at(9));
    check(&status, "ScalingLimited=True/Quorum UpToDate=True/AsDescribed Reconciling=False/Done");
    assert_eq!(status.operation, None);
}

#[test]
fn brokers_that_are_added_are_no_end_of_what_took_others_away() {
    let scaling = |kind: OperationType, step: OperationStep| Scaling {
        kind,
        reason: "ReplicasChanged",
        step,
        message: "m".into(),
        broker: None,
        blocked_by: None,
        left: vec![],
        progress: None,
    };
    let mut view = view(&[Running, Running, Running]);
    let mut before = complete();
    let mut kind = |next: Scaling| {
        view.scaling = Some(next);
        before = build(&view, Some(&before), at(9));
        before.operation.as_ref().map(|operation| operation.kind)
    };
    let (into, out) = (OperationType::ScaleIn, OperationType::ScaleOut);
    assert_eq!(kind(scaling(into, OperationStep::Unregistering)), Some(into));
    assert_eq!(kind(scaling(out, OperationStep::Spreading)), Some(into), "its end");
    assert_eq!(kind(scaling(out, OperationStep::Running)), Some(out));
    assert_eq!(kind(scaling(out, OperationStep::WaitingForBroker)), Some(out));
}

#[test]
fn what_cannot_be_is_stalled_for_every_tool() {
    let mut view = view(&[Running]);
    view.problem = Some(Problem { reason: "InvalidConfig".into(), message: "m".into() });
    view.template = None;
    check(
        &build(&view, Some(&complete()), at(9)),
        "Ready=False/InvalidConfig Stalled=True/InvalidConfig Reconciling=False/Stalled",
    );
}

#[test]
fn brokers_refuse_or_do_not_answer() {
    let with = |configured: Configured| {
        let mut view = view(&[Running]);
        view.configured = configured;
        build(&view, Some(&complete()), at(9))
    };
    check(
        &with(Configured::Refused("x".into())),
        "ConfigApplied=False/Refused Ready=True/Serving Stalled=True/ConfigRefused",
    );
    check(&with(Configured::Paused), "ConfigApplied=Unknown/Paused Ready=True/Serving Stalled=False/Fine");
    check(&with(Configured::Unreachable("x".into())), "ConfigApplied=Unknown/Unreachable Ready=True/Serving");
}

#[test]
fn volumes_and_pauses() {
    let mut growing = view(&[Running]);
    growing.volumes = Volumes::Growing("data-prod-0".into());
    check(&build(&growing, Some(&complete()), at(9)), "StorageReady=False/Growing Reconciling=True/VolumesGrow");
    growing.volumes = Volumes::Refused("no".into());
    check(&build(&growing, Some(&complete()), at(9)), "StorageReady=False/CannotGrow Reconciling=False/Stalled");
    let mut paused = view(&[Running]);
    paused.paused = true;
    check(&build(&paused, Some(&complete()), at(9)), "Reconciling=False/Paused Ready=True/Serving");
    let mut warned = view(&[Running]);
    warned.warnings = vec!["w".into()];
    check(&build(&warned, Some(&complete()), at(9)), "Warning=True/HardlyMeant");
}

#[test]
fn brokers_that_tell_old_addresses_have_to_be_restarted() {
    let before = complete();
    let mut moved = view(&[Running, Running, Running]);
    moved.moved = [1].into();
    let status = build(&moved, Some(&before), at(5));
    check(&status, "Ready=True/Serving UpToDate=False/RestartRequired");
    assert_eq!((status.updated_replicas, status.ready_replicas), (2, 3));
    assert_eq!(status.brokers.iter().map(|broker| broker.up_to_date).collect::<Vec<_>>(), [true, false, true]);
    let operation = status.operation.as_ref().unwrap();
    assert_eq!((operation.reason.as_str(), &operation.brokers[..]), ("AddressChanged", &[1][..]));
    let restarted = build(&view(&[Running, Running, Running]), Some(&status), at(9));
    check(&restarted, "UpToDate=True/AsDescribed");
    assert!(restarted.operation.is_none());
}

#[test]
fn what_keeps_the_first_brokers_from_coming_is_told() {
    let mut view = view(&[Running, BrokerState::Pending, BrokerState::Pending]);
    view.hindered = Some("brokers 1, 2: Unschedulable: no room".into());
    let operation = build(&view, None, at(1)).operation.unwrap();
    assert_eq!((operation.kind, operation.blocked_by), (OperationType::Create, view.hindered.clone()));
    // What moves does not wait for them.
    view.scaling = Some(Scaling {
        kind: OperationType::ScaleOut,
        reason: "ReplicasChanged",
        step: OperationStep::Spreading,
        message: "m".into(),
        broker: None,
        blocked_by: None,
        left: vec![2],
        progress: None,
    });
    assert_eq!(build(&view, Some(&complete()), at(9)).operation.unwrap().blocked_by, None);
}

#[test]
fn what_nobody_was_asked_about_stays_as_it_was_said() {
    let mut view = view(&[Running, Starting, Starting]);
    (view.told, view.configured) = (None, Configured::Later);
    let status = build(&view, Some(&complete()), at(9));
    check(&status, "Ready=Unknown/NotAsked ConfigApplied=True/Applied BrokersReady=False/NotAllReady");
    check(&build(&view, None, at(9)), "Ready=Unknown/NotAsked ConfigApplied=Unknown/NotAsked");
    view.brokers.values_mut().for_each(|seen| seen.state = Running);
    check(&build(&view, Some(&complete()), at(9)), "Ready=True/Serving ConfigApplied=True/Applied");
}

#[test]
fn once_a_broker_is_forgotten_the_next_one_may_go() {
    let mut view = view(&[Running, Running, Running]);
    let after = |view: &View| super::pause(view, &build(view, Some(&complete()), at(9)));
    assert_eq!(after(&view), super::AGAIN);
    let mut at_step = |step: OperationStep, blocked: bool| {
        view.scaling = Some(Scaling {
            kind: OperationType::ScaleIn,
            reason: "ReplicasChanged",
            step,
            message: "m".into(),
            broker: Some(3),
            blocked_by: blocked.then(|| "no".into()),
            left: vec![3],
            progress: None,
        });
        after(&view)
    };
    assert_eq!(at_step(OperationStep::Unregistering, false), super::NEXT);
    assert_eq!(at_step(OperationStep::Unregistering, true), super::UNTOLD, "the brokers did not do it");
    assert_eq!(at_step(OperationStep::Draining, false), super::UNTOLD);
    assert_eq!(at_step(OperationStep::Pending, false), super::AGAIN);
}
