//! How many consumers there are, against an API server that is made up: what is asked of it, what is written, what is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Request, Response};
use klamm_client::TopicPartition;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::look::Look;
use super::scaling;
use crate::controllers::{Context, Reconcile as _, mock};
use crate::crd::{Cluster, ConsumerGroup};
use crate::groups::facts::{Facts, PartitionFacts};
use crate::metrics::Metrics;

pub(super) const GROUP: &str = "/apis/klamm.dev/v1alpha1/namespaces/x/consumergroups/billing";
pub(super) const TARGET: &str = "/apis/apps/v1/namespaces/x/deployments/billing/scale";
pub(super) const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/x/horizontalpodautoscalers";
const KEDA: &str = "/apis/keda.sh/v1alpha1/namespaces/x/scaledobjects";

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Value>,
    /// Method and path of each write but Events.
    pub(super) writes: Vec<String>,
    /// After so many writes the operator dies: nothing is taken any more.
    pub(super) dies: Option<usize>,
    /// The next write to a target finds that somebody was there first.
    pub(super) meddle: bool,
    /// What the operator has no right to: a method and a path.
    pub(super) denied: Option<(&'static str, &'static str)>,
}

/// A ConsumerGroup, its target, and who has them.
#[derive(Clone)]
pub(super) struct World {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) context: Context,
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "made up" }))
}

impl State {
    fn answer(&mut self, method: &str, path: &str, sent: &Value) -> (u16, Value) {
        if self.denied == Some((method, path)) {
            return failure(403, "Forbidden");
        }
        match method {
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if path == AUTOSCALERS => (200, json!({ "metadata": {}, "items": [] })),
                // As the API server answers about types that there are not.
                None if path == KEDA => (404, "404 page not found".into()),
                None => failure(404, "NotFound"),
            },
            "POST" => (201, sent.clone()),
            _ if self.dies == Some(0) => failure(500, "InternalError"),
            _ => {
                self.dies = self.dies.map(|left| left - 1);
                self.writes.push(format!("{method} {}", path.split("/namespaces/x/").last().unwrap_or_default()));
                if let Some(whole) = path.strip_suffix("/status") {
                    let Some(object) = self.objects.get_mut(whole) else { return failure(404, "NotFound") };
                    object["status"] = sent["status"].clone();
                    return (200, object.clone());
                }
                let Some(object) = self.objects.get_mut(path) else { return failure(404, "NotFound") };
                if path.ends_with("/scale") {
                    let stale = sent["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"];
                    if stale || std::mem::take(&mut self.meddle) {
                        return failure(409, "Conflict");
                    }
                    object["spec"] = sent["spec"].clone();
                } else {
                    object["metadata"]["finalizers"] = sent["metadata"]["finalizers"].clone();
                }
                (200, object.clone())
            }
        }
    }
}

impl World {
    pub(super) fn new(spec: Value) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let answering = Arc::clone(&state);
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = answering.lock().answer(head.method.as_str(), head.uri.path(), &sent);
                let body = Body::from(answer.to_string().into_bytes());
                send.send_response(Response::builder().status(code).body(body).expect("an answer"));
            }
        });
        let mut settings = crate::controllers::mock::settings();
        settings.allow_scale_targets = true;
        let client = Client::new(service, "default");
        let context = Context::new(client, Arc::new(settings), Metrics::new().expect("metrics")).expect("a context");
        let world = Self { state, context };
        world.put(
            GROUP,
            json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "ConsumerGroup", "spec": spec,
                "metadata": { "name": "billing", "namespace": "x", "uid": "g", "generation": 1,
                    "creationTimestamp": "2026-01-02T00:00:00Z" } }),
        );
        world
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.state.lock().objects.insert(path.to_owned(), object);
    }

    pub(super) fn target(&self, asked: i32, there: i32) {
        self.put(
            TARGET,
            json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": { "name": "billing", "namespace": "x", "uid": "u", "resourceVersion": "7" },
                "spec": { "replicas": asked }, "status": { "replicas": there, "selector": "app=billing" } }),
        );
    }

    pub(super) fn asked(&self) -> Option<i64> {
        self.state.lock().objects.get(TARGET)?["spec"]["replicas"].as_i64()
    }

    pub(super) fn group(&self) -> ConsumerGroup {
        serde_json::from_value(self.state.lock().objects[GROUP].clone()).expect("a ConsumerGroup")
    }

    pub(super) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().writes)
    }

    pub(super) fn condition(&self, kind: &str) -> String {
        let status = self.group().status.expect("a status");
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        found.map_or_else(|| "none".into(), |found| format!("{}/{}", found.status, found.reason))
    }

    /// One look at the consumers, as the controller does it.
    async fn pass(&self, facts: &Facts) {
        let group = self.group();
        let mut look = Look::new(&group);
        look.conditions.ready("Watched", "");
        scaling::step(&mut look, &self.context, facts, None).await.expect("a step");
        look.write(&self.context).await.expect("a status");
    }
}

/// A group that has read all but so many records of each partition.
pub(super) fn facts(members: usize, lags: &[i64]) -> Facts {
    let partition = |lag: &i64| PartitionFacts { committed: Some(1000 - lag), start: 0, end: 1000 };
    let partitions = lags.iter().zip(0..).map(|(lag, number)| (TopicPartition::new("orders", number), partition(lag)));
    let state = if members == 0 { "Empty" } else { "Stable" };
    Facts { state: state.into(), members, partitions: partitions.collect(), ..Facts::default() }
}

fn spec(more: Value) -> Value {
    let mut scale = json!({ "targetRef": { "name": "billing" }, "minReplicas": 0, "maxReplicas": 9,
        "lagPerReplica": 100, "upWindow": "0s", "downWindow": "0s" });
    scale.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "clusterRef": { "name": "prod" }, "scale": scale })
}

#[tokio::test]
async fn consumers_come_with_the_lag_and_go_with_it() {
    let world = World::new(spec(json!({})));
    world.target(0, 0);
    world.pass(&facts(0, &[0, 0, 0])).await;
    assert_eq!(world.asked(), Some(0));
    world.writes();
    world.pass(&facts(0, &[150, 3, 0])).await;
    let status = "PATCH consumergroups/billing/status";
    assert_eq!(world.writes(), [status, "PATCH deployments/billing/scale", status]);
    assert_eq!((world.asked(), world.condition("ScalingActive").as_str()), (Some(2), "True/Scaled"));
    let status = world.group().status.unwrap().scaling.unwrap();
    assert!(status.desired_replicas == 2 && status.last_scale_time.is_some(), "{status:?}");
    // Those have to come first.
    world.pass(&facts(0, &[900, 900, 900])).await;
    assert_eq!((world.asked(), world.condition("ScalingActive").as_str()), (Some(2), "True/WaitingForPods"));
    world.target(2, 2);
    world.pass(&facts(2, &[900, 900, 900])).await;
    assert_eq!((world.asked(), world.condition("ScalingLimited").as_str()), (Some(3), "True/Partitions"));
    world.target(3, 3);
    world.writes();
    world.pass(&facts(3, &[0, 0, 0])).await;
    assert_eq!((world.asked(), world.condition("ScalingLimited").as_str()), (Some(0), "False/WithinLimits"));
    // Nothing changes, nothing is written.
    world.target(0, 0);
    world.pass(&facts(0, &[0, 0, 0])).await;
    world.writes();
    world.pass(&facts(0, &[0, 0, 0])).await;
    assert!(world.writes().is_empty());
}

#[tokio::test]
async fn windows_go_on_when_another_operator_looks() {
    let world = World::new(spec(json!({ "downWindow": "5m" })));
    world.target(3, 3);
    world.pass(&facts(3, &[0, 0, 0])).await;
    assert_eq!((world.asked(), world.condition("ScalingActive").as_str()), (Some(3), "True/Stabilizing"));
    let earlier = |seconds: i64| {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        let mut state = world.state.lock();
        let pending = &mut state.objects.get_mut(GROUP).unwrap()["status"]["scaling"]["pending"];
        assert_eq!((&pending["from"], &pending["to"]), (&json!(3), &json!(0)));
        pending["since"] = then.to_string().into();
    };
    earlier(240);
    world.pass(&facts(3, &[0, 0, 0])).await;
    assert_eq!(world.asked(), Some(3));
    earlier(301);
    world.pass(&facts(3, &[0, 0, 0])).await;
    assert_eq!(world.asked(), Some(0));
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_looked_at_again() {
    let world = World::new(spec(json!({})));
    world.target(1, 1);
    world.state.lock().meddle = true;
    world.pass(&facts(1, &[900, 900])).await;
    assert_eq!(world.asked(), Some(1));
    world.pass(&facts(1, &[900, 900])).await;
    assert_eq!(world.asked(), Some(2));
}

#[tokio::test]
async fn another_autoscaler_has_it() {
    let reference = |kind: &str, name: &str| json!({ "apiVersion": "apps/v1", "kind": kind, "name": name });
    let hpa = |kind: &str, name: &str| {
        json!({ "metadata": {}, "items": [{ "metadata": { "name": "theirs" },
            "spec": { "maxReplicas": 3, "scaleTargetRef": reference(kind, name) } }] })
    };
    let keda = |reference: Value| {
        json!({ "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObjectList", "metadata": {},
            "items": [{ "metadata": { "name": "theirs" }, "spec": { "scaleTargetRef": reference } }] })
    };
    for (path, found, refused) in [
        (AUTOSCALERS, hpa("Deployment", "billing"), true),
        (AUTOSCALERS, hpa("StatefulSet", "billing"), false),
        (AUTOSCALERS, hpa("Deployment", "other"), false),
        (KEDA, keda(json!({ "name": "billing" })), true),
        (KEDA, keda(json!({ "name": "billing", "kind": "StatefulSet" })), false),
        (KEDA, keda(json!({ "name": "other" })), false),
    ] {
        let world = World::new(spec(json!({})));
        world.target(1, 1);
        world.put(path, found.clone());
        world.pass(&facts(1, &[900, 900])).await;
        assert_eq!(world.asked(), Some(if refused { 1 } else { 2 }), "{found}");
        let said = ["ScalingActive", "Stalled", "Ready"].map(|kind| world.condition(kind));
        let expected = match refused {
            true => ["False/ScaleConflict", "True/ScaleConflict", "False/ScaleConflict"],
            false => ["True/Scaled", "False/Watched", "True/Watched"],
        };
        assert_eq!(said, expected, "{found}");
    }
}

#[tokio::test]
async fn the_older_of_two_groups_has_it() {
    let other = |created: &str, mode: &str| -> ConsumerGroup {
        let mut spec = spec(json!({ "mode": mode }));
        spec["groupId"] = "other".into();
        let meta = json!({ "name": "other", "namespace": "x", "uid": "o", "creationTimestamp": format!("{created}T00:00:00Z") });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).expect("a ConsumerGroup")
    };
    for (created, mode, asked) in [("2026-01-01", "Auto", 1), ("2026-01-03", "Auto", 2), ("2026-01-01", "Manual", 2)] {
        let world = World::new(spec(json!({})));
        world.target(1, 1);
        mock::known(&world.context, [other(created, mode)]);
        world.pass(&facts(1, &[900, 900])).await;
        assert_eq!(world.asked(), Some(asked), "{created} {mode}");
    }
}

#[tokio::test]
async fn who_keeps_consumers_stopped_has_them() {
    let pause = |name: &str| json!({ "reset": "r", "kind": "Deployment", "name": name, "uid": "u", "replicas": 3 });
    for (name, woken) in [("billing", false), ("another", true)] {
        let world = World::new(spec(json!({})));
        world.target(0, 0);
        let meta =
            json!({ "name": "other", "namespace": "x", "uid": "o", "creationTimestamp": "2026-01-03T00:00:00Z" });
        let other = json!({ "metadata": meta, "spec": { "clusterRef": { "name": "prod" } }, "status": { "pause": pause(name) } });
        let other: ConsumerGroup = serde_json::from_value(other).expect("a ConsumerGroup");
        mock::known(&world.context, [other]);
        world.pass(&facts(0, &[900, 900])).await;
        assert_eq!(world.asked(), Some(if woken { 2 } else { 0 }), "{name}: {}", world.condition("ScalingActive"));
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_said_and_the_group_is_watched() {
    for denied in [("GET", TARGET), ("PATCH", TARGET), ("GET", AUTOSCALERS), ("GET", KEDA)] {
        let world = World::new(spec(json!({})));
        world.target(1, 1);
        world.state.lock().denied = Some(denied);
        world.pass(&facts(1, &[900, 900])).await;
        let said = ["ScalingActive", "Stalled", "Ready"].map(|kind| world.condition(kind));
        assert_eq!(said, ["False/Forbidden", "True/Forbidden", "False/Forbidden"], "{denied:?}");
        assert_eq!(world.asked(), Some(1), "{denied:?}");
        world.state.lock().denied = None;
        world.pass(&facts(1, &[900, 900])).await;
        assert_eq!((world.asked(), world.condition("ScalingActive").as_str()), (Some(2), "True/Scaled"), "{denied:?}");
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_looked_at_keeps_its_consumers() {
    let world = World::new(spec(json!({})));
    world.target(3, 3);
    world.pass(&facts(3, &[900, 900, 900])).await;
    world.writes();
    // There is no such Cluster.
    for _ in 0..3 {
        ConsumerGroup::reconcile(&world.group(), &world.context).await.unwrap();
    }
    assert_eq!(world.condition("ScalingActive"), "Unknown/ClusterNotFound");
    assert_eq!((world.asked(), world.writes()), (Some(3), vec!["PATCH consumergroups/billing/status".to_owned()]));
}

#[tokio::test]
async fn brokers_and_operators_are_no_consumers() {
    let path = TARGET.replace("deployments", "statefulsets");
    let set = |selector: &str| {
        json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "billing", "uid": "u" },
            "spec": { "replicas": 3 }, "status": { "replicas": 3, "selector": selector } })
    };
    let of_brokers = "app.kubernetes.io/component=broker,app.kubernetes.io/instance=prod,app.kubernetes.io/name=klamm";
    let cluster = json!({ "metadata": { "name": "billing", "namespace": "x", "uid": "c" }, "spec": {} });
    let cluster: Cluster = serde_json::from_value(cluster).expect("a Cluster");
    let operator = "app.kubernetes.io/instance=a,app.kubernetes.io/name=klamm-operator";
    let cases = [(of_brokers, false, true), (operator, false, true), ("app=a", true, true), ("app=a", false, false)];
    for (selector, known, refused) in cases {
        let world = World::new(spec(json!({ "targetRef": { "name": "billing", "kind": "StatefulSet" } })));
        world.put(&path, set(selector));
        if known {
            mock::known(&world.context, [cluster.clone()]);
        }
        world.pass(&facts(3, &[0, 0, 0])).await;
        let said = world.condition("ScalingActive");
        assert_eq!(said, if refused { "False/TargetRefused" } else { "True/Scaled" }, "{selector} {known}");
        let asked = world.state.lock().objects[&path]["spec"]["replicas"].as_i64();
        assert_eq!(asked, Some(if refused { 3 } else { 0 }));
    }
}

#[tokio::test]
async fn what_may_not_be_is_said_and_nothing_is_asked() {
    let mut world = World::new(spec(json!({})));
    Arc::make_mut(&mut world.context.settings).allow_scale_targets = false;
    world.target(3, 3);
    world.pass(&facts(3, &[0, 0])).await;
    assert_eq!((world.asked(), world.condition("Stalled").as_str()), (Some(3), "True/NotAllowed"));

    let world = World::new(spec(json!({ "mode": "Manual" })));
    world.target(3, 3);
    world.pass(&facts(3, &[0, 0])).await;
    assert_eq!((world.asked(), world.condition("ScalingActive").as_str()), (Some(3), "False/Manual"));
    assert_eq!(world.condition("Ready"), "True/Watched");

    let world = World::new(spec(json!({})));
    world.pass(&facts(3, &[0, 0])).await;
    assert_eq!(world.condition("Reconciling"), "True/TargetNotFound");
}
