//! An API server that is made up, for tests of controllers: it has a few objects, takes every write and remembers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::{reflector, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Context, Watched};
use crate::metrics::Metrics;
use crate::render::golden_settings;
use crate::settings::Settings;

/// See the module's head.
#[derive(Clone, Default)]
pub struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// What was written: the path, and the body.
    pub writes: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// Has an object at a path, or nothing if that is null.
    pub fn put(&self, path: &str, object: Value) {
        self.objects.lock().insert(path.to_owned(), object);
    }

    /// What a controller has, with this server.
    pub fn context(&self) -> Context {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                let (code, answer) = server.answer(head.method.as_str(), head.uri.path(), &body);
                let body = Body::from(answer.to_string().into_bytes());
                send.send_response(Response::builder().status(code).body(body).expect("an answer"));
            }
        });
        let settings = Arc::new(settings());
        Context::new(Client::new(service, "default"), settings, Metrics::new().expect("metrics")).expect("a context")
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let kind = |name: &str| {
            json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic",
                "metadata": { "name": name, "namespace": "a" }, "spec": { "bootstrapServers": "b:9092" } })
        };
        match method {
            "GET" => {
                let objects = self.objects.lock();
                if objects.get(path).is_some_and(Value::is_null) {
                    return (404, json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" }));
                }
                if let Some(object) = objects.get(path) {
                    return (200, object.clone());
                }
                let below = format!("{path}/");
                let items: Vec<&Value> =
                    objects.iter().filter(|(at, _)| at.starts_with(&below)).map(|(_, object)| object).collect();
                (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            "POST" => (201, sent),
            _ => {
                self.writes.lock().push((path.to_owned(), sent));
                let name = path.trim_end_matches("/status").rsplit('/').next().unwrap_or_default();
                (200, kind(name))
            }
        }
    }
}

/// The operator's settings. No label of a name is as long as this: nobody is asked for it, and that brokers are not reached is
/// said in the same words each time.
pub fn settings() -> Settings {
    Settings { cluster_domain: "x".repeat(64), ..golden_settings() }
}

/// Makes objects known, as if a watch had brought them.
pub fn known<K: Watched>(context: &Context, objects: impl IntoIterator<Item = K>) {
    brought(context, objects.into_iter().map(|object| DeserializeGuard(Ok(object))));
}

/// The same for objects of which some may not be readable.
pub fn brought<K: Watched>(context: &Context, objects: impl IntoIterator<Item = DeserializeGuard<K>>) {
    let (store, mut writer) = reflector::store::<DeserializeGuard<K>>();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::InitApply(object));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    K::known(context).add(store);
}
