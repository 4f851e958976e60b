//! The admin HTTP server (`klamm.admin.listener`): `/livez`, `/readyz`, `/metrics`, `/v1/status`. Read-only.
//!
//! It is the first to start and the last to stop, so that a long recovery can be watched. It lives on the small runtime,
//! so that it answers while requests stall; what takes time (a page of metrics) runs on a blocking thread. Connections, header bytes and idle times are bounded: nobody has to authenticate here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::cluster::health;
use crate::complaints::Complaints;
use crate::config::HostPort;
use crate::metrics::{ControllerFacts, MetricsSource, QuorumNode, Snapshot};

/// Connections at the same time; a further one takes the place of one that asks nothing.
const CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Time for a request's head to arrive, the wait for the next request on a connection included.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// With all places taken, those that ask nothing by now are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the server tells.
pub trait AdminSource: Send + Sync + 'static {
    /// Why this broker is not ready, if it isn't.
    fn not_ready(&self) -> Option<String>;
    /// The text of `/metrics`; `None` as long as there is nothing to measure.
    fn metrics(&self) -> Option<String>;
    /// The body of `/v1/status`.
    fn status(&self) -> Value;
    /// The body of `/v1/brokers/{id}/restart-safety`.
    ///
    /// # Errors
    /// Why nobody can tell, as a status and a line: who asks must then take it as unsafe.
    fn restart_safety(&self, broker: i32) -> Result<Value, (StatusCode, String)>;
}

/// A running admin server.
pub struct Admin {
    running: Option<(SocketAddr, JoinHandle<()>)>,
    view: Arc<BrokerView>,
}

impl Admin {
    /// From now on it tells about `broker`; before, it only says that one is starting.
    pub fn show(&self, broker: &Arc<Broker>) {
        // There is one broker in a process, so the first one stays.
        let _ = self.view.broker.set(broker.clone());
    }

    /// Where it listens; `None` when it is off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|(address, _)| *address)
    }

    /// Stops accepting. Connections end with their runtime.
    pub fn stop(self) {
        if let Some((_, task)) = self.running {
            task.abort();
        }
    }
}

/// Starts the server on `control`. Call it on the runtime that serves requests: `/metrics` tells how busy that one is.
///
/// # Errors
/// The address cannot be bound.
pub async fn start(wanted: Option<&HostPort>, control: &Runtime) -> io::Result<Admin> {
    let view = Arc::new(BrokerView { broker: OnceLock::new(), requests: Handle::current(), busy: Mutex::default() });
    let Some(wanted) = wanted else { return Ok(Admin { running: None, view }) };
    let host = if wanted.host.is_empty() { "0.0.0.0".to_owned() } else { wanted.host.clone() };
    let port = wanted.port;
    let bind = control.spawn(async move { TcpListener::bind((host, port)).await });
    let listener = bind.await.map_err(io::Error::other)?;
    let listener =
        listener.map_err(|e| io::Error::new(e.kind(), format!("klamm.admin.listener: cannot bind {wanted}: {e}")))?;
    let address = listener.local_addr()?;
    let task = control.spawn(serve(listener, view.clone()));
    tracing::info!(%address, "admin HTTP listens");
    Ok(Admin { running: Some((address, task)), view })
}

/// Accepts until aborted.
async fn serve(listener: TcpListener, source: Arc<dyn AdminSource>) {
    let router = router(source);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let idle = Arc::new(Idle::default());
    let (complaints, started) = (Complaints::default(), Instant::now());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let full = || {
                    let now_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
                    if let Some(held_back) = complaints.due("full", now_ms) {
                        tracing::warn!(%peer, held_back, "admin HTTP: all {CONNECTIONS} places are taken; the connection that asked nothing for longest is closed");
                    }
                };
                let Some(place) = place(&places, &idle, full).await else { return };
                let (router, idle) = (router.clone(), idle.clone());
                tokio::spawn(async move {
                    let _place = place;
                    connection(stream, router, idle).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would spin.
                tracing::warn!(%error, "admin HTTP: accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A place, if need be that of the connection that is idle for longest; `full` is told. `None` is never the answer
/// while the server runs.
async fn place(places: &Arc<Semaphore>, idle: &Idle, full: impl Fn()) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Some(place);
    }
    loop {
        if idle.close_oldest() {
            full();
        }
        if let Ok(place) = tokio::time::timeout(LOOK_AGAIN, places.clone().acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Connections without a request under way: their heads are awaited, or their answers not read. The first is it for
/// longest.
#[derive(Default)]
struct Idle(Mutex<IdleConnections>);

#[derive(Default)]
struct IdleConnections {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl Idle {
    /// `leave` ends the connection. The number it gets is good for [`Idle::end`].
    fn begin(&self, leave: &Arc<Notify>) -> u64 {
        let mut idle = self.0.lock();
        idle.next += 1;
        let number = idle.next;
        idle.waiting.insert(number, leave.clone());
        number
    }

    fn end(&self, number: u64) {
        self.0.lock().waiting.remove(&number);
    }

    /// False when there is none.
    fn close_oldest(&self) -> bool {
        let oldest = self.0.lock().waiting.pop_first();
        oldest.inspect(|(_, leave)| leave.notify_one()).is_some()
    }
}

/// Of one connection: idle until it is dropped, but for the time of its requests.
struct Idling {
    all: Arc<Idle>,
    leave: Arc<Notify>,
    number: Mutex<u64>,
}

impl Idling {
    fn request_begins(&self) {
        self.all.end(*self.number.lock());
    }

    fn request_ends(&self) {
        *self.number.lock() = self.all.begin(&self.leave);
    }
}

impl Drop for Idling {
    fn drop(&mut self) {
        self.request_begins();
    }
}

async fn connection(stream: TcpStream, router: Router, all: Arc<Idle>) {
    let leave = Arc::new(Notify::new());
    let number = Mutex::new(all.begin(&leave));
    let idling = Arc::new(Idling { all, leave: leave.clone(), number });
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (idling, answer) = (idling.clone(), router.call(request));
        async move {
            idling.request_begins();
            let answer = answer.await;
            idling.request_ends();
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = serving => served,
        () = leave.notified() => return,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin HTTP: connection ended");
    }
}

type Source = State<Arc<dyn AdminSource>>;

fn router(source: Arc<dyn AdminSource>) -> Router {
    let wrong_path = "not found; there are /livez /readyz /metrics /v1/status /v1/brokers/{id}/restart-safety\n";
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/brokers/{id}/restart-safety", get(restart_safety))
        .fallback(async move || (StatusCode::NOT_FOUND, wrong_path))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n"))
        .with_state(source)
}

async fn readyz(State(source): Source) -> Response {
    match source.not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(source): Source) -> Response {
    const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    match tokio::task::spawn_blocking(move || source.metrics()).await {
        Ok(Some(text)) => (TEXT, text).into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the broker is starting\n").into_response(),
        Err(error) => failed(&error),
    }
}

async fn status(State(source): Source) -> Response {
    match tokio::task::spawn_blocking(move || source.status()).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(error) => failed(&error),
    }
}

async fn restart_safety(State(source): Source, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<i32>() else {
        return (StatusCode::BAD_REQUEST, format!("{id} is no broker id\n")).into_response();
    };
    match tokio::task::spawn_blocking(move || source.restart_safety(id)).await {
        Ok(Ok(safety)) => axum::Json(safety).into_response(),
        Ok(Err((status, why))) => (status, why + "\n").into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &tokio::task::JoinError) -> Response {
    tracing::error!(%error, "admin HTTP: no answer");
    (StatusCode::INTERNAL_SERVER_ERROR, "failed; the log says why\n").into_response()
}

/// A broker as the admin server sees it.
struct BrokerView {
    /// Empty until its log directory and the metadata log are open.
    broker: OnceLock<Arc<Broker>>,
    /// The runtime that serves requests.
    requests: Handle,
    /// When its workers were last looked at, and how long they had been busy by then.
    busy: Mutex<Option<(Instant, Duration)>>,
}

impl BrokerView {
    /// Share of time the workers were idle since the last call.
    fn idle(&self) -> Option<f64> {
        let metrics = self.requests.metrics();
        let workers = metrics.num_workers();
        let busy: Duration = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
        let now = Instant::now();
        let (then, busy_then) = self.busy.lock().replace((now, busy))?;
        let whole = now.duration_since(then).as_secs_f64() * workers as f64;
        let share = busy.saturating_sub(busy_then).as_secs_f64() / whole;
        (whole > 0.0).then_some(1.0 - share.min(1.0))
    }
}

/// The broker, with what only this server knows.
struct Measured<'v>(&'v BrokerView, &'v Broker);

impl MetricsSource for Measured<'_> {
    fn snapshot(&self) -> Snapshot {
        Snapshot { idle: self.0.idle(), ..self.1.snapshot() }
    }
}

impl AdminSource for BrokerView {
    fn not_ready(&self) -> Option<String> {
        match self.broker.get() {
            None => Some("starting: opening the log directory and the metadata log".to_owned()),
            Some(broker) => not_ready(broker.is_ready(), broker.is_stopping(), broker.replicas.progress())
                .or_else(|| health::why_not_in_sync(broker)),
        }
    }

    fn restart_safety(&self, id: i32) -> Result<Value, (StatusCode, String)> {
        let starting = || (StatusCode::SERVICE_UNAVAILABLE, "the broker is starting".to_owned());
        health::restart_safety(self.broker.get().ok_or_else(starting)?, id)
    }

    fn metrics(&self) -> Option<String> {
        let broker = self.broker.get()?;
        Some(broker.metrics.render(&Measured(self, broker), broker.clock.now_ms()))
    }

    fn status(&self) -> Value {
        let listeners = |listeners: &[crate::config::Listener]| -> Vec<Value> {
            let one = |l: &crate::config::Listener| json!({"name": l.name, "address": l.address.to_string(), "protocol": l.protocol.name()});
            listeners.iter().map(one).collect()
        };
        let mut status = match self.broker.get() {
            None => json!({"version": env!("CARGO_PKG_VERSION"), "state": "starting or stopping", "ready": false}),
            Some(broker) => {
                let mut status = status_of(&broker.snapshot());
                let (image, offset) = broker.controller.committed_image();
                // Equal on all nodes that stand at one offset.
                let hash = format!("{:032x}", klamm_metadata::state_hash(&image));
                let spared = image
                    .maintenance()
                    .iter()
                    .map(|(id, until)| json!({"broker": id, "until_ms": until, "leaders": image.led_by(*id).count()}));
                status["maintenance"] = spared.collect();
                status["metadata"] = json!({"offset": offset, "hash": hash});
                status["listeners"] = listeners(&broker.config.listeners).into();
                status["advertised"] = listeners(&broker.config.advertised).into();
                status["standing"] = broker.lifecycle.standing().borrow().name().into();
                status
            }
        };
        status["not_ready"] = self.not_ready().into();
        status
    }
}

/// Why a broker is not ready. `progress` counts the partitions that have been opened, or closed.
fn not_ready(ready: bool, stopping: bool, progress: Option<(usize, usize)>) -> Option<String> {
    if ready {
        return None;
    }
    Some(match (stopping, progress) {
        (false, None) => "starting".to_owned(),
        (false, Some((done, total))) => format!("recovering: {done} of {total} partitions"),
        (true, None) => "stopping".to_owned(),
        (true, Some((done, total))) => format!("stopping: {done} of {total} partitions closed"),
    })
}

/// What a snapshot gives for `/v1/status`.
fn status_of(s: &Snapshot) -> Value {
    let held = s.topics.iter().flat_map(|topic| &topic.partitions);
    let in_state = |state: &str| s.groups.iter().filter(|group| group.state == state).count();
    let dirs =
        s.log_dirs.iter().map(|(path, total, free)| json!({"path": path, "total_bytes": total, "free_bytes": free}));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": s.node_id,
        "cluster_id": s.cluster_id,
        "state": if s.ready { "running" } else { "starting or stopping" },
        "ready": s.ready,
        "uptime_seconds": s.uptime_s,
        "topics": s.topics.len(),
        "partitions": {
            "cluster": held.clone().count(),
            "here": held.clone().filter(|p| p.log.is_some()).count(),
            "led": held.clone().filter(|p| p.log.is_some() && p.leader == s.node_id).count(),
            "offline": held.clone().filter(|p| p.leader < 0).count(),
            "under_replicated": held.filter(|p| p.in_sync < p.replicas).count(),
        },
        "groups": {
            "total": s.groups.len(),
            "stable": in_state("Stable"),
            "empty": in_state("Empty"),
            "rebalancing": in_state("PreparingRebalance") + in_state("CompletingRebalance"),
        },
        "connections": s.connections,
        "brokers": s.brokers.iter().map(|b| json!({"id": b.id, "address": b.address, "fenced": b.fenced})).collect::<Vec<_>>(),
        "quorum": quorum_of(&s.controller),
        "log_dirs": dirs.collect::<Vec<_>>(),
        "failed_log_dirs": s.failed_log_dirs,
    })
}

/// The metadata quorum. How far the others are, and who observes, only its leader knows.
fn quorum_of(c: &ControllerFacts) -> Value {
    let node = |node: &QuorumNode| json!({"id": node.id, "address": node.address, "log_end_offset": node.end});
    let nodes = |votes: bool| c.nodes.iter().filter(|node| node.votes == votes).map(node).collect::<Vec<_>>();
    json!({
        "leader": c.leader,
        "epoch": c.epoch,
        "role": c.role,
        "applied": c.applied,
        "last": c.last,
        "snapshot": c.snapshot,
        "journal_bytes": c.journal_bytes,
        "voters": nodes(true),
        "observers": nodes(false),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fake(AtomicBool);

    impl AdminSource for Fake {
        fn not_ready(&self) -> Option<String> {
            (!self.0.load(Ordering::Relaxed)).then(|| "the dog ate it".to_owned())
        }

        fn restart_safety(&self, broker: i32) -> Result<Value, (StatusCode, String)> {
            if broker == 1 { Ok(json!({"safe": true})) } else { Err((StatusCode::NOT_FOUND, "unknown".into())) }
        }

        fn metrics(&self) -> Option<String> {
            self.0.load(Ordering::Relaxed).then(|| "m 1\n".to_owned())
        }

        fn status(&self) -> Value {
            status_of(&Snapshot::default())
        }
    }

    #[test]
    fn the_reason_tells_how_far_it_has_got() {
        let text = |stopping, progress| not_ready(false, stopping, progress).unwrap();
        assert_eq!(not_ready(true, false, None), None);
        assert_eq!(text(false, None), "starting");
        assert_eq!(text(false, Some((3, 11))), "recovering: 3 of 11 partitions");
        assert_eq!(text(true, Some((3, 11))), "stopping: 3 of 11 partitions closed");
    }

    #[tokio::test]
    async fn it_answers_before_there_is_a_broker() {
        let control = Handle::current();
        let view = BrokerView { broker: OnceLock::new(), requests: control, busy: Mutex::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(view)));
        let get = async |path: &str| {
            ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
        };
        assert!(get("/livez").await.starts_with("HTTP/1.1 200 "));
        let ready = get("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("starting: opening the log directory"), "{ready}");
        assert!(get("/metrics").await.starts_with("HTTP/1.1 503 "));
        assert!(get("/v1/status").await.contains("\"not_ready\":\"starting"));
        server.abort();
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_make_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Fake(AtomicBool::new(true)))));
        let mut hostile = Vec::new();
        for n in 0..3 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some send nothing at all, some a head without an end; some have had an answer.
            let sent: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /livez HTTP/1.1\r\nX: ",
                _ => b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
            };
            stream.write_all(sent).await.unwrap();
            hostile.push(stream);
        }
        let asked = Instant::now();
        for path in ["/livez", "/readyz", "/metrics"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = tokio::time::timeout(Duration::from_secs(3), ask(address, &request)).await;
            assert!(answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200 ")), "{path}");
        }
        assert!(asked.elapsed() < HEAD_TIME, "before the head's time is over");
        let mut byte = [0];
        let first = tokio::time::timeout(Duration::from_secs(3), hostile[0].read(&mut byte)).await;
        assert!(matches!(first, Ok(Ok(0) | Err(_))), "the oldest was closed: {first:?}");
        server.abort();
    }

    #[test]
    fn the_one_that_is_idle_for_longest_goes_and_none_that_is_asking() {
        let all = Arc::new(Idle::default());
        let connection = || {
            let leave = Arc::new(Notify::new());
            let number = Mutex::new(all.begin(&leave));
            Idling { all: all.clone(), leave, number }
        };
        let (first, second, third) = (connection(), connection(), connection());
        first.request_begins();
        second.request_begins();
        second.request_ends();
        let waiting = || all.0.lock().waiting.values().cloned().collect::<Vec<_>>();
        let is = |leave: &Arc<Notify>, one: &Idling| Arc::ptr_eq(leave, &one.leave);
        assert!(is(&waiting()[0], &third) && is(&waiting()[1], &second));
        assert!(all.close_oldest() && all.close_oldest());
        assert!(!all.close_oldest(), "the first is being answered");
        first.request_ends();
        drop(first);
        assert!(waiting().is_empty());
    }

    #[tokio::test]
    async fn answers() {
        let source = Arc::new(Fake(AtomicBool::new(false)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, source.clone()));
        let get = async |path: &str| {
            ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
        };

        assert!(get("/livez").await.starts_with("HTTP/1.1 200 "));
        let not_ready = get("/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503 ") && not_ready.ends_with("not ready: the dog ate it\n"));
        assert!(get("/metrics").await.starts_with("HTTP/1.1 503 "));
        source.0.store(true, Ordering::Relaxed);
        assert!(get("/readyz").await.starts_with("HTTP/1.1 200 "));
        let metrics = get("/metrics").await;
        assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("m 1\n"));
        let status = get("/v1/status").await;
        let body: Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["topics"], 0);
        assert!(get("/v1/brokers/1/restart-safety").await.ends_with("{\"safe\":true}"));
        assert!(get("/v1/brokers/2/restart-safety").await.starts_with("HTTP/1.1 404 "));
        assert!(get("/v1/brokers/x/restart-safety").await.starts_with("HTTP/1.1 400 "));
        assert!(get("/nope").await.starts_with("HTTP/1.1 404 "));
        let post =
            ask(address, "POST /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.ends_with("only GET is allowed\n"));
        let big = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES));
        assert!(!ask(address, &big).await.starts_with("HTTP/1.1 200 "));
        assert!(!ask(address, "\x16\x03\x01\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        server.abort();
    }
}
