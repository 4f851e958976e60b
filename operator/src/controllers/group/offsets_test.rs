//! What is said of resets that are not done, or not as they were asked for.

use std::sync::Arc;

use klamm_client::TopicPartition;
use serde_json::{Value, json};

use super::look::Look;
use super::offsets;
use super::scaling_test::World;
use crate::brokers::{Address, Brokers};
use crate::clusters;
use crate::controllers::{Error, Reconcile as _, mock};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::ResetResult;
use crate::groups::facts::{Facts, PartitionFacts};

fn world(to: Value) -> World {
    World::new(json!({ "bootstrapServers": "127.0.0.1:1", "topics": ["t"], "reset": { "id": "r1", "to": to } }))
}

fn empty(committed: i64, end: i64) -> Facts {
    let partition = PartitionFacts { committed: Some(committed), start: 0, end };
    let partitions = [(TopicPartition::new("t", 0), partition)].into();
    Facts { state: "Empty".into(), partitions, ..Facts::default() }
}

/// Brokers that nobody answers for.
fn nobody(world: &World) -> Arc<Brokers> {
    clusters::way(&world.context, &Address::Plain("127.0.0.1:1".into())).expect("a way")
}

/// One look, as far as it is about the reset.
async fn pass(world: &World, facts: &Facts) -> Result<bool, Error> {
    let group = world.group();
    let mut look = Look::new(&group);
    let wanted = group.spec.reset.clone().expect("a reset");
    look.conditions.ready("Watched", "");
    let done = offsets::reset(&mut look, &world.context, &nobody(world), &wanted, facts).await;
    look.told_of_reset();
    look.write(&world.context).await?;
    done
}

/// What is said without anything being due.
async fn said_of(world: &World) {
    let group = world.group();
    let mut look = Look::new(&group);
    look.told_of_reset();
    look.write(&world.context).await.expect("it is taken");
}

fn said(world: &World) -> String {
    let conditions = world.group().status.expect("a status").conditions;
    let is = conditions.into_iter().find(|is| is.type_ == "ResetComplete").expect("ResetComplete");
    format!("{}/{}: {}", is.status, is.reason, is.message)
}

fn describe(world: &World, to: &Value) {
    let mut group = serde_json::to_value(world.group()).expect("JSON");
    group["spec"]["reset"]["to"] = to.clone();
    world.put(super::scaling_test::GROUP, group);
}

#[tokio::test]
async fn a_reset_that_waits_for_a_topic_says_which() {
    let world = world(json!({ "offset": "Earliest" }));
    let facts = Facts { missing: ["t".to_owned()].into(), ..Facts::default() };
    assert!(!pass(&world, &facts).await.expect("it waits"));
    assert_eq!(said(&world), "False/TopicsMissing: the reset waits: there is no topic t");
}

#[tokio::test]
async fn a_reset_of_some_topics_waits_for_those_only() {
    for to in [json!({ "offset": "Latest" }), json!({ "offsets": { "t-0": 4 } })] {
        let world = world(to.clone());
        let mut group = serde_json::to_value(world.group()).expect("JSON");
        group["spec"]["topics"] = json!(["t", "gone"]);
        if to["offset"].is_string() {
            group["spec"]["reset"]["topics"] = json!(["t"]);
        }
        world.put(super::scaling_test::GROUP, group.clone());
        let facts = Facts { missing: ["gone".to_owned()].into(), ..empty(4, 4) };
        assert!(!pass(&world, &facts).await.expect("nobody is asked"), "{to}");
        assert_eq!(said(&world), "True/Applied: all offsets are there already", "{to}");
    }
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_said_to_have_been_clamped() {
    // The group is at the end already: nothing moves, and it is not where it was asked to be.
    let world = world(json!({ "offsets": { "t-0": 99 } }));
    assert!(!pass(&world, &empty(4, 4)).await.expect("nobody is asked"));
    let wanted = "True/Applied: all offsets are there already; clamped to what there is: t-0: 99 -> 4";
    assert_eq!(said(&world), wanted);
    let last = world.group().status.and_then(|status| status.last_reset).expect("a reset");
    assert_eq!((last.result, last.clamped), (ResetResult::Applied, vec!["t-0: 99 -> 4".to_owned()]));
}

#[tokio::test]
async fn another_reset_under_a_used_id_is_not_said_to_be_applied() {
    let first = json!({ "offset": "Latest" });
    let world = world(first.clone());
    pass(&world, &empty(4, 4)).await.expect("nobody is asked");
    assert_eq!(said(&world), "True/Applied: all offsets are there already");
    describe(&world, &json!({ "offset": "Earliest" }));
    said_of(&world).await;
    assert!(said(&world).starts_with("True/DoneBefore: "), "{}", said(&world));
    // What was done is what is described again.
    describe(&world, &first);
    said_of(&world).await;
    assert_eq!(said(&world), "True/Applied: all offsets are there already");
}

#[tokio::test]
async fn a_group_that_nobody_was_ever_reached_for_is_not_held() {
    let spec = json!({ "bootstrapServers": "127.0.0.1:1", "deletionPolicy": "DeleteWhenEmpty" });
    let world = World::new(spec);
    mock::known::<ConsumerGroup>(&world.context, []);
    let error = ConsumerGroup::reconcile(&world.group(), &world.context).await.expect_err("nobody is there");
    assert_eq!(error.reason(), "ClusterUnreachable");
    assert_eq!(world.writes(), ["PATCH consumergroups/billing/status"], "no finalizer: there is nothing to wait for");
}
