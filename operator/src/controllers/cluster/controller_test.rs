//! What the controller does with the API server, against one that is made up: it stores what it is given, counts, and
//! fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// The API server's memory.
#[derive(Default)]
pub(super) struct State {
    objects: BTreeMap<String, Value>,
    requests: usize,
    writes: Vec<(String, String)>,
    pub(super) bodies: Vec<(String, String)>,
    pub(super) fail: Option<(usize, u16)>,
    /// With that request somebody else puts an object there.
    pub(super) meddle: Option<(usize, String, Value)>,
    /// Writes here are answered with that.
    pub(super) refuse: Option<(String, u16)>,
}

#[derive(Clone, Default)]
pub(super) struct Server(pub(super) Arc<Mutex<State>>);

impl Server {
    fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                match server.answer(head.method.as_str(), head.uri.path(), &body) {
                    Some((code, value)) => {
                        let body = Body::from(value.to_string().into_bytes());
                        send.send_response(Response::builder().status(code).body(body).expect("an answer"));
                    }
                    None => send.send_error(std::io::Error::other("the connection broke")),
                }
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        let mut state = self.0.lock();
        let number = state.requests;
        state.requests += 1;
        if let Some((_, at, object)) = state.meddle.take_if(|(at, ..)| *at == number) {
            state.objects.insert(at, object);
        }
        if let Some((at, code)) = state.fail
            && at == number
        {
            return (code != 0).then(|| (code, failure(code)));
        }
        if method != "GET"
            && let Some((refused, code)) = &state.refuse
            && refused == path
        {
            return Some((*code, failure(*code)));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        if method != "GET" {
            state.writes.push((method.to_owned(), path.to_owned()));
            state.bodies.push((path.to_owned(), String::from_utf8_lossy(body).into_owned()));
        }
        let whole = path.trim_end_matches("/status").to_owned();
        Some(match method {
            "GET"
                if path.ends_with('s')
                    && !state.objects.contains_key(path)
                    && path.split('/').next_back().is_some_and(|last| KINDS.contains(&last)) =>
            {
                let below = format!("{path}/");
                let items: Vec<Value> =
                    state.objects.iter().filter(|(at, _)| at.starts_with(&below)).map(|(_, v)| v.clone()).collect();
                (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            "GET" => match state.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => (404, failure(404)),
            },
            "PATCH" if path.ends_with("/status") => {
                let Some(object) = state.objects.get_mut(&whole) else { return Some((404, failure(404))) };
                object["status"] = sent["status"].clone();
                (200, object.clone())
            }
            "PATCH" | "PUT" => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(String::from);
                let there = state.objects.get(path).and_then(version);
                if version(&sent).is_some_and(|sent| there.is_some_and(|there| there != sent)) {
                    return Some((409, failure(409)));
                }
                // What is not a whole object is merged into the one that is there.
                let whole = !sent["apiVersion"].is_null();
                if let Some(object) = state.objects.get_mut(path).filter(|_| !whole) {
                    merge(object, &sent);
                    return Some((200, object.clone()));
                }
                let uid = format!("uid-of-{path}");
                (200, state.store(path.to_owned(), sent, &uid))
            }
            "POST" if path.ends_with("/events") => (201, sent),
            "POST" => {
                let at = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap_or_default());
                if state.objects.contains_key(&at) {
                    return Some((409, failure(409)));
                }
                (201, state.store(at.clone(), sent, &at))
            }
            "DELETE" => match state.objects.remove(path) {
                Some(object) => (200, object),
                None => (404, failure(404)),
            },
            other => panic!("{other} {path} is not expected"),
        })
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    pub(super) fn put(&self, path: &str, value: Value) {
        self.0.lock().objects.insert(path.to_owned(), value);
    }

    /// The writes since the last call, without Events.
    pub(super) fn writes(&self) -> Vec<String> {
        let mut state = self.0.lock();
        state.requests = 0;
        let writes = std::mem::take(&mut state.writes);
        let writes = writes.into_iter().filter(|(_, path)| !path.ends_with("/events"));
        writes
            .map(|(method, path)| format!("{method} {}", path.split("/namespaces/x/").last().unwrap_or_default()))
            .collect()
    }
}

const KINDS: [&str; 5] = ["pods", "services", "persistentvolumeclaims", "secrets", "events"];

impl State {
    pub(super) fn remove(&mut self, at: &str) {
        self.objects.remove(at);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    fn store(&mut self, path: String, mut object: Value, uid: &str) -> Value {
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = self.writes.len().to_string().into();
        if object["kind"] == "Service" && object["spec"]["type"] == "NodePort" {
            object["spec"]["ports"][0]["nodePort"] = 30001.into();
        }
        self.objects.insert(path, object.clone());
        object
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (key, value) in fields {
        match value.is_null() {
            true => drop(object.as_object_mut().map(|object| object.remove(key))),
            false => merge(&mut object[key], value),
        }
    }
}

fn failure(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "made up" })
}

const HERE: &str = "/apis/klamm.dev/v1alpha1/namespaces/x/clusters/prod";
pub(super) const SET: &str = "/apis/apps/v1/namespaces/x/statefulsets/prod";

/// A Cluster and the API server that has it.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) context: Context,
}

impl World {
    pub(super) fn new(spec: Value) -> World {
        let server = Server::default();
        server.put(
            HERE,
            json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster", "spec": spec,
                "metadata": { "name": "prod", "namespace": "x", "uid": "e203a878", "generation": 1 } }),
        );
        let settings: Settings = crate::controllers::mock::settings();
        let context =
            Context::new(server.client(), Arc::new(settings), Metrics::new().expect("metrics")).expect("a context");
        World { server, context }
    }

    pub(super) fn cluster(&self) -> Cluster {
        serde_json::from_value(self.server.get(HERE).expect("the Cluster")).expect("a Cluster")
    }

    pub(super) async fn pass(&self) -> Result<(), Error> {
        Cluster::reconcile(&self.cluster(), &self.context).await.map(|_| ())
    }

    pub(super) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut object = self.server.get(HERE).expect("the Cluster");
        edit(&mut object);
        self.server.put(HERE, object);
    }

    pub(super) fn condition(&self, kind: &str) -> String {
        let status = self.cluster().status.expect("a status");
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("the condition");
        format!("{}/{}", found.status, found.reason)
    }

    /// All that is stored, without what differs from run to run.
    fn all(&self) -> BTreeMap<String, Value> {
        let mut all = self.server.0.lock().objects.clone();
        for object in all.values_mut() {
            if object["kind"] == "Secret" {
                object["data"] = Value::Null;
            }
            object["metadata"]["resourceVersion"] = Value::Null;
            for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastTransitionTime"] = Value::Null;
            }
            if object["status"]["operation"].is_object() {
                object["status"]["operation"]["startedAt"] = Value::Null;
            }
        }
        all
    }
}

pub(super) fn outside() -> Value {
    json!({ "replicas": 2, "listeners": [{ "name": "plain", "port": 9092 }, { "name": "out", "port": 9094, "type": "nodeport" }] })
}

#[tokio::test]
async fn why_pods_cannot_be_created_is_told() {
    let world = World::new(json!({ "replicas": 2 }));
    let said = |name: &str, at: jiff::Timestamp, why: &str| {
        let event = json!({ "kind": "Event", "apiVersion": "v1", "metadata": { "name": name, "namespace": "x" },
            "involvedObject": {}, "lastTimestamp": at.to_string(), "reason": "FailedCreate",
            "message": format!("create Pod prod-1 in StatefulSet prod failed error: {why}") });
        world.server.put(&format!("/api/v1/namespaces/x/events/{name}"), event);
    };
    let now = jiff::Timestamp::now();
    said("old", now - jiff::SignedDuration::from_hours(1), "long ago");
    said("last", now, "exceeded quota: few");
    said("earlier", now - jiff::SignedDuration::from_mins(1), "no policy admits it");
    // The StatefulSet is made, and looked at afterwards.
    for _ in 0..2 {
        world.pass().await.unwrap();
    }
    let status = world.cluster().status.expect("a status");
    for kind in ["BrokersReady", "Ready"] {
        let told = status.conditions.iter().find(|condition| condition.type_ == kind).expect("the condition");
        assert!(told.message.contains("prod-1 (FailedCreate: exceeded quota: few)"), "{kind}: {}", told.message);
    }
}

#[tokio::test]
async fn a_cluster_is_applied_once() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    let expected = [
        "POST secrets",
        "POST secrets",
        "PATCH services/prod-brokers",
        "PATCH services/prod-bootstrap",
        "PATCH services/prod-bootstrap-out",
        "PATCH services/prod-out-0",
        "PATCH services/prod-out-1",
        "PATCH serviceaccounts/prod",
        "PATCH networkpolicies/prod",
        "PATCH poddisruptionbudgets/prod",
        "PATCH configmaps/prod-config",
        "PATCH statefulsets/prod",
        "PATCH clusters/prod/status",
    ];
    assert_eq!(world.server.writes(), expected);
    for pass in 0..3 {
        world.pass().await.unwrap();
        // Five to see what there is, one for why pods are missing, two for certificates, one for each object.
        assert_eq!(world.server.0.lock().requests, 18, "pass {pass}");
        assert!(world.server.writes().is_empty(), "pass {pass}");
    }
    assert_eq!(world.condition("Ready"), "False/Creating");
    let bodies = world.server.0.lock().bodies.clone();
    for (path, body) in bodies.iter().filter(|(path, _)| !path.contains("/secrets")) {
        assert!(!body.contains("PRIVATE KEY") && !body.contains("UFJJVkFURSBLRVk"), "{path} holds a key");
    }
}

#[tokio::test]
async fn what_others_change_is_changed_back_by_one_write() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    world.server.writes();
    let path = "/api/v1/namespaces/x/services/prod-bootstrap";
    let mut service = world.server.get(path).unwrap();
    service["spec"]["ports"][0]["port"] = 1.into();
    service["spec"]["clusterIP"] = "10.0.0.1".into();
    world.server.put(path, service);
    world.pass().await.unwrap();
    assert_eq!(world.server.writes(), ["PATCH services/prod-bootstrap"]);
    world.pass().await.unwrap();
    assert!(world.server.writes().is_empty());
}

#[tokio::test]
async fn whichever_request_fails_the_next_pass_goes_on() {
    let calm = World::new(outside());
    calm.pass().await.unwrap();
    let (expected, requests) = (calm.all(), calm.server.0.lock().requests);
    assert!(requests > 20);
    // 0: the connection breaks.
    for code in [0, 409, 429, 500, 503] {
        for number in 0..requests {
            let world = World::new(outside());
            world.server.0.lock().fail = Some((number, code));
            let _ = world.pass().await;
            world.server.0.lock().fail = None;
            world.pass().await.unwrap_or_else(|e| panic!("request {number}, {code}: {e}"));
            assert_eq!(world.all(), expected, "request {number}, {code}");
            assert!(world.server.writes().iter().all(|write| !write.starts_with("DELETE")));
        }
    }
}

#[tokio::test]
async fn what_keeps_it_from_going_on_is_said() {
    for before in [false, true] {
        let world = World::new(outside());
        if before {
            world.pass().await.unwrap();
            let claims = json!({ "metadata": { "labels": {} } });
            world.edit(|cluster| cluster["spec"]["podTemplate"] = claims);
            world.edit(|cluster| cluster["metadata"]["generation"] = 2.into());
            world.edit(|cluster| cluster["spec"]["resources"] = json!({ "limits": { "memory": "1Gi" } }));
        }
        world.server.0.lock().refuse = Some((SET.into(), 500));
        world.pass().await.expect_err("the StatefulSet cannot be written");
        assert_eq!(world.condition("Reconciling"), "True/KubernetesError");
        let status = world.cluster().status.unwrap();
        let find = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().clone();
        assert!(find("Reconciling").message.contains("made up"), "{:?}", find("Reconciling"));
        // What was known of the description before is not said of this one.
        let ready = if before { ("False/Creating", Some(1)) } else { ("Unknown/KubernetesError", Some(1)) };
        assert_eq!((world.condition("Ready").as_str(), find("Ready").observed_generation), ready);
        let events = |world: &World| {
            world
                .server
                .0
                .lock()
                .bodies
                .iter()
                .filter(|(_, body)| body.contains("KubernetesError") && body.contains("\"note\""))
                .count()
        };
        assert_eq!(events(&world), 1);
        // Said once, and taken back.
        world.pass().await.expect_err("still not");
        assert_eq!(events(&world), 1);
        world.server.0.lock().refuse = None;
        world.pass().await.unwrap();
        assert_eq!(world.condition("Reconciling"), "True/Creating");
    }
}

#[tokio::test]
async fn what_belongs_to_others_is_not_touched() {
    let world = World::new(outside());
    let path = "/api/v1/namespaces/x/services/prod-bootstrap";
    let theirs = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "prod-bootstrap" }, "spec": {} });
    world.server.put(path, theirs.clone());
    world.pass().await.unwrap();
    assert_eq!(world.server.get(path), Some(theirs));
    assert_eq!(world.condition("Stalled"), "True/NameTaken");
    assert_eq!(world.condition("Ready"), "False/NameTaken");
    assert!(world.server.get(SET).is_none(), "no half of a cluster is begun");
}

#[tokio::test]
async fn what_the_api_server_refuses_stalls() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    let requests = world.server.0.lock().requests;
    world.server.writes();
    let mut stalled = 0;
    // A few more than at first: pods are missing now, and that is asked about.
    for number in 0..requests + 4 {
        // Another one each time: not every request that fails keeps it from being applied.
        let other = json!({ "spec": { "priorityClassName": format!("class-{number}") } });
        world.edit(|cluster| cluster["spec"]["podTemplate"] = other);
        world.server.0.lock().requests = 0;
        world.server.0.lock().fail = Some((number, 422));
        if world.pass().await.is_ok() && world.condition("Stalled") == "True/Refused" {
            stalled += 1;
        }
    }
    assert_eq!(stalled, 1, "only the StatefulSet was to be written");
}

#[tokio::test]
async fn nothing_is_changed_while_paused() {
    let world = World::new(outside());
    world.edit(|cluster| cluster["spec"]["paused"] = true.into());
    world.pass().await.unwrap();
    assert_eq!(world.server.writes(), ["PATCH clusters/prod/status"]);
    world.edit(|cluster| cluster["spec"]["paused"] = false.into());
    world.pass().await.unwrap();
    world.server.writes();
    world.edit(|cluster| {
        cluster["spec"]["paused"] = true.into();
        cluster["spec"]["config"] = json!({ "num.partitions": 7 });
    });
    world.pass().await.unwrap();
    assert!(world.server.writes().iter().all(|write| write == "PATCH clusters/prod/status"));
}

#[tokio::test]
async fn services_of_a_listener_go_with_it() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    world.server.writes();
    world.edit(|cluster| {
        cluster["spec"]["listeners"].as_array_mut().unwrap().pop();
    });
    world.pass().await.unwrap();
    let deleted: Vec<_> = world.server.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    let expected = ["prod-bootstrap-out", "prod-out-0", "prod-out-1"].map(|name| format!("DELETE services/{name}"));
    assert_eq!(deleted, expected);
}

impl World {
    /// Pods by what the StatefulSet says now, in place of those that there are.
    fn run_pods(&self) {
        let template = self.server.get(SET).expect("brokers")["spec"]["template"].clone();
        for id in 0..2 {
            let mut pod = template.clone();
            pod["metadata"]["name"] = format!("prod-{id}").into();
            pod["metadata"]["namespace"] = "x".into();
            self.server.put(&format!("/api/v1/namespaces/x/pods/prod-{id}"), pod);
        }
    }

    /// Whom the NetworkPolicy lets in at a port, if anybody.
    fn admitted(&self, port: i32) -> Option<Value> {
        let policy = self.server.get("/apis/networking.k8s.io/v1/namespaces/x/networkpolicies/prod").expect("a policy");
        let rules = policy["spec"]["ingress"].as_array().expect("rules").clone();
        rules.into_iter().find(|rule| rule["ports"][0]["port"] == port).map(|rule| rule["from"].clone())
    }

    fn listen(&self, listeners: Value) {
        self.edit(|cluster| cluster["spec"]["listeners"] = listeners);
    }
}

#[tokio::test]
async fn a_listener_stays_open_until_no_broker_has_it() {
    let friends = json!([{ "podSelector": { "matchLabels": { "team": "billing" } } }]);
    let mut before = outside();
    before["listeners"][1]["allowedPeers"] = friends.clone();
    let of_listener = ["prod-bootstrap-out", "prod-out-0", "prod-out-1"].map(|name| format!("DELETE services/{name}"));
    // Taken away; only for inside from now on; at another port.
    for (after, port) in [
        (json!([{ "name": "plain", "port": 9092 }]), None),
        (json!([{ "name": "plain", "port": 9092 }, { "name": "out", "port": 9094 }]), Some(Value::Null)),
        (json!([{ "name": "plain", "port": 9092 }, { "name": "near", "port": 9095 }]), None),
    ] {
        let world = World::new(before.clone());
        world.pass().await.unwrap();
        world.run_pods();
        world.pass().await.unwrap();
        world.server.writes();
        world.listen(after.clone());
        for pass in 0..2 {
            world.pass().await.unwrap();
            let writes = world.server.writes();
            assert!(writes.iter().all(|write| !write.starts_with("DELETE")), "{after}: {writes:?}");
            assert!(pass == 0 || writes.is_empty(), "{after}: {writes:?}");
        }
        let kept = if port.is_some() { port.clone() } else { Some(friends.clone()) };
        assert_eq!(world.admitted(9094), kept, "{after}");
        // One has been restarted, and so has the other.
        let old = world.server.get("/api/v1/namespaces/x/pods/prod-1").expect("a pod");
        world.run_pods();
        let new = world.server.get("/api/v1/namespaces/x/pods/prod-1").expect("a pod");
        world.server.put("/api/v1/namespaces/x/pods/prod-1", old);
        world.pass().await.unwrap();
        assert!(world.server.writes().iter().all(|write| !write.starts_with("DELETE")), "{after}");
        world.server.put("/api/v1/namespaces/x/pods/prod-1", new);
        world.pass().await.unwrap();
        let deleted: Vec<_> = world.server.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
        assert_eq!(deleted, of_listener, "{after}");
        assert_eq!(world.admitted(9094), port, "{after}");
    }
}

#[tokio::test]
async fn clients_inside_begin_at_the_old_port_until_no_broker_has_it() {
    let bootstrap = "/api/v1/namespaces/x/services/prod-bootstrap";
    let listener = |name: &str, port: i32| json!({ "name": name, "port": port });
    // At another port; taken away beside another one; only for outside from now on.
    for (before, after) in [
        (json!([listener("plain", 9092)]), json!([listener("plain", 9095)])),
        (json!([listener("near", 9095), listener("plain", 9092)]), json!([listener("near", 9095)])),
        (json!([listener("plain", 9092)]), json!([{ "name": "plain", "port": 9094, "type": "nodeport" }])),
    ] {
        let world = World::new(json!({ "replicas": 2, "listeners": before }));
        let open = || {
            let service = world.server.get(bootstrap)?;
            let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let names: BTreeSet<String> = ports.iter().map(|port| port["name"].to_string()).collect();
            assert_eq!(names.len(), ports.len(), "names of ports differ: {ports:?}");
            Some(ports.iter().filter_map(|port| port["port"].as_i64()).collect::<BTreeSet<_>>())
        };
        world.pass().await.unwrap();
        world.run_pods();
        world.pass().await.unwrap();
        world.server.writes();
        world.listen(after.clone());
        for pass in 0..3 {
            world.pass().await.unwrap();
            let writes = world.server.writes();
            assert!(pass < 2 || writes.is_empty(), "{after}: {writes:?}");
            assert!(open().is_some_and(|open| open.contains(&9092)), "{after}: {writes:?}");
        }
        world.run_pods();
        world.pass().await.unwrap();
        let inside = after[0]["type"].is_null().then(|| BTreeSet::from([9095]));
        assert_eq!(open(), inside, "{after}");
    }
}

#[tokio::test]
async fn a_cluster_that_goes_is_left_alone() {
    let world = World::new(outside());
    world.edit(|cluster| cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    world.pass().await.unwrap();
    assert_eq!(world.server.0.lock().requests, 0);
}

#[tokio::test]
async fn an_authority_that_was_spoilt_stalls() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    let path = "/api/v1/namespaces/x/secrets/prod-brokers-ca";
    let mut secret = world.server.get(path).unwrap();
    secret["data"]["ca.key"] = "bm9uc2Vuc2U=".into();
    world.server.put(path, secret.clone());
    world.server.writes();
    world.pass().await.unwrap();
    assert_eq!(world.condition("Stalled"), "True/CertificateError");
    assert_eq!(world.server.get(path), Some(secret));
}

#[tokio::test]
async fn certificates_that_are_not_there_are_told_of() {
    let listener = json!({ "name": "tls", "port": 9092, "tls": { "secretName": "mine" } });
    let world = World::new(json!({ "replicas": 1, "listeners": [listener] }));
    world.pass().await.unwrap();
    assert_eq!(world.condition("Warning"), "True/HardlyMeant");
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mine" } });
    world.server.put("/api/v1/namespaces/x/secrets/mine", secret.clone());
    world.pass().await.unwrap();
    let status = world.cluster().status.unwrap();
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Warning"));
    assert_eq!(world.server.get("/api/v1/namespaces/x/secrets/mine"), Some(secret));
}

#[tokio::test]
async fn who_comes_too_late_looks_again_and_tells_nobody() {
    let world = World::new(outside());
    world.pass().await.unwrap();
    let before = world.cluster().status;
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    let events = |world: &World| {
        let bodies = &world.server.0.lock().bodies;
        bodies.iter().filter(|(path, _)| path.ends_with("/events")).count()
    };
    let told = events(&world);
    world.server.0.lock().refuse = Some((SET.into(), 409));
    let error = world.pass().await.unwrap_err();
    assert!(error.is_late(), "{error}");
    assert_eq!((world.cluster().status, events(&world)), (before.clone(), told));
    // Nor when somebody has written to it between the look and the write.
    world.server.0.lock().refuse = None;
    let mut theirs = world.server.get(SET).unwrap();
    theirs["metadata"]["generation"] = 77.into();
    let mut late = 0;
    for number in 0..20 {
        world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 8 + number }));
        world.server.writes();
        theirs["metadata"]["generation"] = (77 + number).into();
        world.server.0.lock().meddle = Some((number, SET.into(), theirs.clone()));
        late += usize::from(world.pass().await.is_err_and(|error| matches!(error, Error::Changed(_))));
        assert_ne!(world.condition("Reconciling"), "True/Error");
    }
    assert!(late > 0);
    // What goes on and on is told of.
    world.server.0.lock().refuse = Some((SET.into(), 409));
    for _ in 0..LATE {
        world.context.failed("Cluster/x/prod");
    }
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 99 }));
    assert!(world.pass().await.is_err());
    assert_eq!(world.condition("Reconciling"), "True/KubernetesError");
    world.server.0.lock().refuse = None;
    world.context.succeeded("Cluster/x/prod");
    world.pass().await.unwrap();
    assert_ne!(world.condition("Reconciling"), "True/KubernetesError");
}

#[test]
fn what_was_asked_for_is_no_warning() {
    let condition = |kind: &str, status: &str, reason: &str| -> Condition {
        let time = "2026-01-01T00:00:00Z";
        let object =
            json!({ "type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": time });
        serde_json::from_value(object).unwrap()
    };
    let news = |kind: &str, was: &str, is: &str, reason: &str| {
        super::news::kind(Some(&condition(kind, was, "")), &condition(kind, is, reason))
    };
    for reason in ["Rolling", "RestartRequired", "Scaling", "ScalingPending"] {
        assert_eq!(news("UpToDate", "True", "False", reason), Some(EventType::Normal), "{reason}");
    }
    assert_eq!(news("UpToDate", "False", "True", "AsDescribed"), Some(EventType::Normal));
    assert_eq!(news("StorageReady", "True", "False", "Growing"), Some(EventType::Normal));
    assert_eq!(news("StorageReady", "True", "False", "CannotGrow"), Some(EventType::Warning));
    assert_eq!(news("Ready", "True", "False", "PartitionsUnavailable"), Some(EventType::Warning));
    assert_eq!(news("ConfigApplied", "True", "False", "Refused"), Some(EventType::Warning));
    assert_eq!(news("Stalled", "False", "True", "BrokersFail"), Some(EventType::Warning));
}
