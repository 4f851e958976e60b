//! Events: what happened to an object, for `kubectl describe`. Told when something changes, never at every look.
//!
//! The same again within a few minutes counts in the Event that is there. Another note is another Event, though its reason is
//! the same: that broker 1 is restarted is news after broker 0. kube's own recorder would drop it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::FIELD_MANAGER;
use crate::controllers::Context;

/// The most that fits into an Event's note, in bytes.
const NOTE: usize = 1024;
/// For so long after the last time the same is the same Event.
const SAME: Duration = Duration::from_secs(360);
/// So many different notes of one object with one reason are told within that time; a further one counts in the last.
const DIFFERENT: usize = 20;
/// Of an object's name in that of an Event, which has to end in something of its own.
const NAME: usize = 200;

/// Tells what happened to `object`. That it cannot be told (the namespace is being deleted, say) is no reason to do
/// anything else differently.
pub async fn publish(
    context: &Context,
    object: &impl Resource<DynamicType = ()>,
    kind: EventType,
    reason: &str,
    action: &str,
    note: impl Into<String>,
) {
    let mut note = note.into();
    note.truncate(note.floor_char_boundary(NOTE));
    if let Err(error) = context.recorder.publish(object, kind, reason, action, note).await {
        tracing::debug!(object = object.name_any(), reason, %error, "an Event could not be written");
    }
}

/// Writes Events, and knows those that it has written lately.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    /// Who tells.
    instance: String,
    told: Arc<Mutex<Told>>,
}

/// What was told lately: of what, by which notes.
type Told = HashMap<u64, HashMap<u64, Lately>>;

/// An Event that is there.
#[derive(Clone, Debug)]
struct Lately {
    name: String,
    count: i32,
    at: Instant,
}

impl Recorder {
    /// One that tells in this process's name.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, told: Arc::default() }
    }

    async fn publish(
        &self,
        object: &impl Resource<DynamicType = ()>,
        kind: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) -> Result<(), kube::Error> {
        let regarding = object.object_ref(&());
        let warning = kind == EventType::Warning;
        let of =
            hash(&(&regarding.kind, &regarding.namespace, &regarding.name, &regarding.uid, warning, reason, action));
        let api: Api<Event> = Api::namespaced(self.client.clone(), regarding.namespace.as_deref().unwrap_or("default"));
        let mut said = hash(&note);
        if let Some((known, Lately { name, count, .. })) = self.known(of, said) {
            let series = EventSeries { count: count + 1, last_observed_time: MicroTime(Timestamp::now()) };
            let patch = Patch::Merge(json!({ "series": series }));
            match api.patch(&name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    self.remember(of, known, name, count + 1);
                    return Ok(());
                }
                // Somebody has deleted it.
                Err(kube::Error::Api(status)) if status.is_not_found() => said = known,
                Err(error) => return Err(error),
            }
        }
        let now = Timestamp::now();
        let mut start = regarding.name.clone().unwrap_or_default();
        start.truncate(start.floor_char_boundary(NAME));
        let name = format!("{start}.{:x}", now.as_nanosecond());
        let event = Event {
            action: Some(action.into()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            note: Some(note),
            reason: Some(reason.into()),
            regarding: Some(regarding),
            reporting_controller: Some(FIELD_MANAGER.into()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if warning { "Warning" } else { "Normal" }.into()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        self.remember(of, said, name, 1);
        Ok(())
    }

    /// The Event that this counts in, with what it is known by.
    fn known(&self, of: u64, said: u64) -> Option<(u64, Lately)> {
        let mut told = self.told.lock();
        told.retain(|_, notes| {
            notes.retain(|_, event| event.at.elapsed() < SAME);
            !notes.is_empty()
        });
        let notes = told.get(&of)?;
        if let Some(same) = notes.get(&said) {
            return Some((said, same.clone()));
        }
        let last = notes.iter().max_by_key(|(_, event)| event.at).filter(|_| notes.len() >= DIFFERENT)?;
        Some((*last.0, last.1.clone()))
    }

    fn remember(&self, of: u64, said: u64, name: String, count: i32) {
        let event = Lately { name, count, at: Instant::now() };
        self.told.lock().entry(of).or_default().insert(said, event);
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;
    use crate::crd::Topic;

    /// Requests, with what was sent.
    type Asked = Arc<Mutex<Vec<(String, Value)>>>;

    /// A recorder, and what it asks an API server for that takes everything.
    fn recorder() -> (Recorder, Asked) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let asked = Asked::default();
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await.expect("a body")).expect("JSON");
                all.lock().push((format!("{} {}", head.method, head.uri.path()), body));
                let answer = json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {} });
                let body = Body::from(answer.to_string().into_bytes());
                send.send_response(Response::new(body));
            }
        });
        (Recorder::new(Client::new(service, "x"), "one".into()), asked)
    }

    fn topic(name: &str) -> Topic {
        let object =
            json!({ "metadata": { "name": name, "namespace": "a" }, "spec": { "bootstrapServers": "b:9092" } });
        serde_json::from_value(object).expect("a Topic")
    }

    async fn tell(recorder: &Recorder, topic: &Topic, note: &str) {
        recorder.publish(topic, EventType::Normal, "Asked", "Restart", note.into()).await.expect("it is taken");
    }

    #[tokio::test(start_paused = true)]
    async fn another_note_is_another_event_and_the_same_one_counts() {
        let ((recorder, asked), topic) = (recorder(), topic("t"));
        for note in ["broker 0 is restarted", "broker 1 is restarted", "broker 1 is restarted"] {
            tell(&recorder, &topic, note).await;
        }
        let all = std::mem::take(&mut *asked.lock());
        let notes: Vec<_> = all.iter().map(|(_, body)| body["note"].as_str().unwrap_or_default()).collect();
        assert_eq!(notes, ["broker 0 is restarted", "broker 1 is restarted", ""]);
        let (second, again) = (&all[1].1["metadata"]["name"], &all[2]);
        let path = "/apis/events.k8s.io/v1/namespaces/a/events";
        assert_eq!(again.0, format!("PATCH {path}/{}", second.as_str().expect("a name")));
        assert_eq!(again.1["series"]["count"], 2);
        // Much later it is news again.
        tokio::time::advance(SAME).await;
        tell(&recorder, &topic, "broker 1 is restarted").await;
        assert_eq!(asked.lock()[0].0, format!("POST {path}"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_object_tells_more_than_people_read() {
        let ((recorder, asked), topic) = (recorder(), topic(&"x".repeat(250)));
        for n in 0..100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            tell(&recorder, &topic, &format!("it took {n} ms")).await;
        }
        let all = asked.lock();
        let created: Vec<_> = all.iter().filter(|(what, _)| what.starts_with("POST")).collect();
        assert_eq!((all.len(), created.len()), (100, DIFFERENT));
        assert_eq!(all[99].1["series"]["count"], 81);
        assert!(
            created.iter().all(|(_, body)| body["metadata"]["name"].as_str().is_some_and(|name| name.len() <= 253))
        );
    }
}
