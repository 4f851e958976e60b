//! A reset that stops consumers, with an operator that is killed after every write: offsets move once, and as many consumers
//! run in the end as before.
//!
//! The API server is made up, and so is the group: what the brokers would be told is told to a counter here.

use serde_json::{Value, json};

use super::look::Look;
use super::pausing::{self, Stopped};
use super::scaling_test::{AUTOSCALERS, GROUP, TARGET, World};
use crate::controllers::{Error, Reconcile as _};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::{ResetResult, ResetStatus};

fn spec(mode: &str) -> Value {
    json!({
        "clusterRef": { "name": "prod" },
        "scale": { "targetRef": { "name": "billing" }, "mode": mode, "maxReplicas": 9 },
        "reset": { "id": "r1", "to": { "offset": "Earliest" }, "whenActive": "PauseTarget" },
    })
}

fn is_done(group: &ConsumerGroup) -> bool {
    group.status.as_ref().is_some_and(|status| status.last_reset.is_some())
}

fn ended(result: ResetResult) -> ResetStatus {
    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
    let (preview, clamped) = (Vec::new(), Vec::new());
    ResetStatus { id: "r1".into(), result, message: None, partitions: 1, preview, clamped, asked: None, at }
}

/// One look, in the order of `Look::at`; `moved` counts what brokers were told.
async fn pass(world: &World, empty: bool, moved: &mut usize) -> Result<String, Error> {
    let group = world.group();
    let mut look = Look::new(&group);
    let mut said = String::new();
    if is_done(&group) {
        pausing::start(&mut look, &world.context).await?;
    } else {
        let wanted = group.spec.reset.clone().expect("a reset");
        match pausing::stop(&mut look, &world.context, &wanted, empty, false).await? {
            Stopped::Yes => {
                // The brokers, who refuse while there are members. The commits tell of themselves, see `groups::reset`.
                assert!(empty);
                *moved = 1;
                look.status.last_reset = Some(ended(ResetResult::Applied));
                pausing::start(&mut look, &world.context).await?;
            }
            Stopped::NotYet(reason, why) => said = format!("{reason}: {why}"),
            Stopped::Never(why) => {
                look.status.last_reset = Some(ended(ResetResult::Failed));
                pausing::start(&mut look, &world.context).await?;
                said = format!("Never: {why}");
            }
        }
    }
    look.conditions.ready("Watched", "");
    look.write(&world.context).await?;
    Ok(said)
}

/// Pods follow what is asked for.
fn live(world: &World) -> i64 {
    let mut state = world.state.lock();
    let target = state.objects.get_mut(TARGET).expect("a target");
    target["status"]["replicas"] = target["spec"]["replicas"].clone();
    target["spec"]["replicas"].as_i64().expect("a number")
}

#[tokio::test]
async fn wherever_the_operator_dies_it_comes_to_the_same_end() {
    for dies in 0..12 {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        world.state.lock().dies = Some(dies);
        let (mut moved, mut stopped) = (0, false);
        for round in 0..12 {
            let members = world.state.lock().objects[TARGET]["status"]["replicas"].as_i64().unwrap();
            if pass(&world, members == 0, &mut moved).await.is_err() {
                // Another one begins.
                world.state.lock().dies = None;
            }
            let paused = world.group().status.and_then(|status| status.pause);
            if world.asked() == Some(0) {
                stopped = true;
                let pause = paused.unwrap_or_else(|| panic!("{dies}, round {round}: nobody knows how many there were"));
                assert_eq!((pause.replicas, pause.uid.as_str()), (3, "u"));
                assert!(world.group().metadata.finalizers.is_some_and(|all| all.len() == 1), "it has to stay");
            }
            live(&world);
        }
        let status = world.group().status.unwrap();
        assert_eq!((world.asked(), moved, stopped, &status.pause), (Some(3), 1, true, &None), "{dies}");
        assert_eq!(status.last_reset.map(|last| last.result), Some(ResetResult::Applied), "{dies}");
    }
}

#[tokio::test]
async fn who_pauses_the_resource_in_the_middle_is_told_what_stays_stopped() {
    let world = World::new(spec("Manual"));
    world.target(3, 3);
    pass(&world, false, &mut 0).await.unwrap();
    let mut group = world.group();
    group.metadata.annotations = Some([("klamm.dev/paused".to_owned(), "true".to_owned())].into());
    let mut look = Look::new(&group);
    look.at(&world.context).await.unwrap();
    look.write(&world.context).await.unwrap();
    assert_eq!(world.asked(), Some(0), "nothing is done");
    let conditions = world.group().status.unwrap().conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").expect("Ready");
    let said =
        "klamm.dev/paused is set: nothing is done; Deployment billing stays stopped for reset r1: it had 3 replicas";
    assert_eq!(ready.message, said);
}

#[tokio::test]
async fn each_step_is_noted_before_it_is_done() {
    let world = World::new(spec("Auto"));
    world.target(3, 3);
    let mut moved = 0;
    pass(&world, false, &mut moved).await.unwrap();
    let (group, scale) = ("PATCH consumergroups/billing", "PATCH deployments/billing/scale");
    let status = format!("{group}/status");
    assert_eq!(world.writes(), [group, &status, scale, &status]);
    live(&world);
    assert!(pass(&world, false, &mut moved).await.unwrap().starts_with("Stopping"));
    world.writes();
    pass(&world, true, &mut moved).await.unwrap();
    assert_eq!(world.writes(), [&status, scale, &status]);
    assert_eq!(world.asked(), Some(3));
}

#[tokio::test]
async fn who_would_start_them_again_keeps_them_from_being_stopped() {
    let hpa = |least: i32| {
        json!({ "metadata": {}, "items": [{ "metadata": { "name": "theirs" }, "spec": { "minReplicas": least,
            "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "billing" } } }] })
    };
    for (least, stopped) in [(0, false), (1, true)] {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        world.put(AUTOSCALERS, hpa(least));
        let said = pass(&world, false, &mut 0).await.unwrap();
        assert_eq!(world.asked(), Some(if stopped { 0 } else { 3 }), "{said}");
        assert_eq!(said.starts_with("ScaleConflict: HorizontalPodAutoscaler theirs"), !stopped, "{said}");
    }
}

#[tokio::test]
async fn of_two_groups_of_one_target_one_scales_and_the_other_does_not_stop_it() {
    for (created, mode, stopped) in
        [("2026-01-01", "Auto", false), ("2026-01-03", "Auto", false), ("2026-01-03", "Manual", true)]
    {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        let meta = json!({ "name": "other", "namespace": "x", "uid": "o", "creationTimestamp": format!("{created}T00:00:00Z") });
        let other = serde_json::from_value::<ConsumerGroup>(json!({ "metadata": meta, "spec": spec(mode) }));
        crate::controllers::mock::known(&world.context, [other.expect("a ConsumerGroup")]);
        let said = pass(&world, false, &mut 0).await.unwrap();
        assert_eq!(world.asked(), Some(if stopped { 0 } else { 3 }), "{created} {mode}: {said}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_waited_for() {
    for denied in [("GET", TARGET), ("PATCH", TARGET), ("GET", AUTOSCALERS)] {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        world.state.lock().denied = Some(denied);
        for _ in 0..3 {
            let said = pass(&world, false, &mut 0).await.unwrap();
            assert!(said.starts_with("Forbidden: the operator's role lacks a right"), "{denied:?}: {said}");
        }
        world.state.lock().denied = None;
        pass(&world, false, &mut 0).await.unwrap();
        assert_eq!(world.asked(), Some(0), "{denied:?}");
    }
}

#[tokio::test]
async fn a_resource_that_goes_starts_them_first() {
    let world = World::new(spec("Manual"));
    world.target(3, 3);
    pass(&world, false, &mut 0).await.unwrap();
    assert_eq!(world.asked(), Some(0));
    world.state.lock().objects.get_mut(GROUP).unwrap()["metadata"]["deletionTimestamp"] = "2026-01-09T00:00:00Z".into();
    world.writes();
    super::leave::leave(&world.group(), &world.context).await.unwrap();
    let (group, scale) = ("PATCH consumergroups/billing", "PATCH deployments/billing/scale");
    assert_eq!(world.writes(), [scale, group]);
    assert_eq!(world.asked(), Some(3));
    assert!(world.group().metadata.finalizers.is_none_or(|all| all.is_empty()));
}

/// Somebody has taken the right to scale from the operator. Where the namespace stays, nobody else would start them.
#[tokio::test]
async fn a_resource_that_goes_waits_for_the_right_to_start_them_unless_all_goes() {
    for (goes, expected) in [(false, false), (true, true)] {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        pass(&world, false, &mut 0).await.unwrap();
        let mut namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "x" } });
        if goes {
            namespace["metadata"]["deletionTimestamp"] = "2026-01-09T00:00:00Z".into();
        }
        world.state.lock().objects.insert("/api/v1/namespaces/x".into(), namespace);
        world.state.lock().objects.get_mut(GROUP).unwrap()["metadata"]["deletionTimestamp"] =
            "2026-01-09T00:00:00Z".into();
        world.state.lock().denied = Some(("GET", TARGET));
        let left = super::leave::leave(&world.group(), &world.context).await;
        assert_eq!(left.is_ok(), expected);
        assert_eq!(world.group().metadata.finalizers.is_none_or(|all| all.is_empty()), expected);
    }
}

#[tokio::test]
async fn what_was_stopped_for_too_long_is_started_again() {
    let world = World::new(spec("Manual"));
    world.target(3, 3);
    pass(&world, false, &mut 0).await.unwrap();
    live(&world);
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(601);
    world.state.lock().objects.get_mut(GROUP).unwrap()["status"]["pause"]["stoppedAt"] = long_ago.to_string().into();
    let said = pass(&world, false, &mut 0).await.unwrap();
    assert!(said.starts_with("Never: Deployment billing was stopped for 10m"), "{said}");
    assert_eq!(world.asked(), Some(3));
}

#[tokio::test]
async fn they_are_started_in_time_though_nobody_can_be_asked() {
    for (seconds, asked) in [(540, 0), (601, 3)] {
        let world = World::new(spec("Manual"));
        world.target(3, 3);
        pass(&world, false, &mut 0).await.unwrap();
        live(&world);
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        world.state.lock().objects.get_mut(GROUP).unwrap()["status"]["pause"]["stoppedAt"] = then.to_string().into();
        // There is no such Cluster.
        ConsumerGroup::reconcile(&world.group(), &world.context).await.unwrap();
        assert_eq!(world.asked(), Some(asked), "{seconds}");
        let last = world.group().status.unwrap().last_reset.map(|last| last.result);
        assert_eq!(last, (asked > 0).then_some(ResetResult::Failed));
        ConsumerGroup::reconcile(&world.group(), &world.context).await.unwrap();
        assert_eq!((world.asked(), world.condition("Ready").as_str()), (Some(asked), "False/ClusterNotFound"));
    }
}

#[tokio::test]
async fn what_runs_only_for_a_moment_is_not_remembered_wrongly() {
    // Somebody deploys meanwhile: that number is the one to go back to.
    let world = World::new(spec("Manual"));
    world.target(3, 3);
    let mut moved = 0;
    pass(&world, false, &mut moved).await.unwrap();
    world.target(5, 2);
    pass(&world, false, &mut moved).await.unwrap();
    pass(&world, false, &mut moved).await.unwrap();
    assert_eq!(world.asked(), Some(0));
    live(&world);
    pass(&world, true, &mut moved).await.unwrap();
    assert_eq!((world.asked(), moved), (Some(5), 1));
}
