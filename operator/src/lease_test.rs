//! The Lease against an API server that is made up: it keeps one object, counts its versions, and falls silent.

use std::sync::Arc;

use http::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;

/// The one object, and whether the server answers.
#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    silent: bool,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    /// A keeper of its own for `me`.
    fn lease(&self, me: &str) -> Lease {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            // Who gets no answer waits: nothing is dropped.
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                if server.0.lock().silent {
                    unanswered.push(send);
                    continue;
                }
                let (code, value) = server.answer(head.method.as_str(), serde_json::from_slice(&body).ok());
                let body = Body::from(value.to_string().into_bytes());
                send.send_response(Response::builder().status(code).body(body).expect("an answer"));
            }
        });
        let (held, told) = watch::channel(false);
        let api = Api::namespaced(Client::new(service, "x"), "x");
        let keeper = Keeper { api, me: me.into(), last: None, seen: None, failing: false };
        Lease { held: told, task: tokio::spawn(keeper.keep(held)) }
    }

    fn answer(&self, method: &str, sent: Option<Value>) -> (u16, Value) {
        let mut state = self.0.lock();
        let refused = |code: u16, reason: &str| {
            (
                code,
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "" }),
            )
        };
        match (method, sent) {
            ("GET", _) => match &state.lease {
                Some(lease) => (200, lease.clone()),
                None => refused(404, "NotFound"),
            },
            ("POST", _) if state.lease.is_some() => refused(409, "AlreadyExists"),
            ("PATCH", Some(sent))
                if state.lease.as_ref().is_none_or(|lease| {
                    lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"]
                }) =>
            {
                refused(409, "Conflict")
            }
            ("POST" | "PATCH", Some(sent)) => {
                let mut lease =
                    state.lease.take().unwrap_or_else(|| json!({ "metadata": sent["metadata"], "spec": {} }));
                for (key, value) in sent["spec"].as_object().into_iter().flatten() {
                    lease["spec"][key] = value.clone();
                }
                state.version += 1;
                lease["metadata"]["resourceVersion"] = state.version.to_string().into();
                state.lease = Some(lease.clone());
                (200, lease)
            }
            other => panic!("{other:?} is not expected"),
        }
    }

    fn holder(&self) -> Option<String> {
        let state = self.0.lock();
        state.lease.as_ref()?["spec"]["holderIdentity"].as_str().map(String::from)
    }

    fn silent(&self, silent: bool) {
        self.0.lock().silent = silent;
    }
}

#[test]
fn nobody_is_disturbed_while_he_renews() {
    let spec = |holder: Option<&str>, seconds| LeaseSpec {
        holder_identity: holder.map(String::from),
        lease_duration_seconds: seconds,
        ..LeaseSpec::default()
    };
    let long = Duration::from_secs(3600);
    for (held, seen_for, wanted) in [
        (spec(None, None), Duration::ZERO, Step::Take),
        (spec(Some(""), Some(15)), Duration::ZERO, Step::Take),
        (spec(Some("me"), Some(15)), long, Step::Renew),
        (spec(Some("you"), Some(15)), Duration::from_secs(14), Step::Wait),
        (spec(Some("you"), Some(15)), Duration::from_secs(15), Step::Take),
        (spec(Some("you"), Some(60)), Duration::from_secs(15), Step::Wait),
        (spec(Some("you"), None), DURATION, Step::Take),
        (spec(Some("you"), Some(-1)), Duration::from_secs(14), Step::Wait),
    ] {
        assert_eq!(step(&held, "me", seen_for), wanted, "{held:?} for {seen_for:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_held_given_back_and_taken_at_the_next_look() {
    let server = Server::default();
    let mut first = server.lease("first");
    first.acquired().await;
    let mut second = server.lease("second");
    sleep(DURATION * 4).await;
    assert!(*first.held.borrow() && !*second.held.borrow());
    let since = Instant::now();
    first.release().await;
    second.acquired().await;
    assert!(since.elapsed() <= EVERY, "{:?}", since.elapsed());
    assert_eq!(server.holder().as_deref(), Some("second"));
    assert_eq!(server.0.lock().lease.as_ref().map(|lease| lease["spec"]["leaseTransitions"].clone()), Some(json!(2)));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_nobody_answers_has_lost_it_before_another_takes_it() {
    let (server, cut) = (Server::default(), Server::default());
    let mut first = cut.lease("first");
    first.acquired().await;
    // What the first one has written is what the second one sees, and the first one reaches nobody any more.
    *server.0.lock() = State { lease: cut.0.lock().lease.clone(), version: 7, silent: false };
    cut.silent(true);
    let since = Instant::now();
    let mut second = server.lease("second");
    first.lost().await;
    assert!(since.elapsed() <= RENEWED_WITHIN, "{:?}", since.elapsed());
    assert!(!*second.held.borrow());
    second.acquired().await;
    assert!(since.elapsed() >= DURATION && since.elapsed() <= DURATION + EVERY, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_is_lived_through() {
    let server = Server::default();
    let mut lease = server.lease("me");
    lease.acquired().await;
    for _ in 0..5 {
        server.silent(true);
        sleep(RENEWED_WITHIN - 2 * EVERY).await;
        server.silent(false);
        // What was not answered is not answered later either.
        sleep(EVERY * 3).await;
    }
    assert!(*lease.held.borrow(), "the attempt under way does not keep the next one from being made");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_want_it_one_gets_it_and_who_is_robbed_knows() {
    let server = Server::default();
    let mut all: Vec<Lease> = (0..5).map(|n| server.lease(&format!("operator-{n}"))).collect();
    sleep(DURATION).await;
    assert_eq!(all.iter().filter(|lease| *lease.held.borrow()).count(), 1);
    let at = all.iter().position(|lease| *lease.held.borrow()).expect("one holds it");
    if let Some(lease) = &mut server.0.lock().lease {
        lease["spec"]["holderIdentity"] = "somebody".into();
        lease["metadata"]["resourceVersion"] = "99".into();
    }
    let since = Instant::now();
    all[at].lost().await;
    assert!(since.elapsed() <= EVERY, "{:?}", since.elapsed());
}
