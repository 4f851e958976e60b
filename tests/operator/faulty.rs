//! A reverse proxy between an operator and the API server, which makes faults and remembers what was asked.
//!
//! It speaks plain HTTP to the operator and, as administrator, TLS to the API server: one connection there for each
//! request. Which requests go wrong, and how, a [`Plan`] says, drawn from a seed. Invariant: what is in the audit as
//! passed on, and nothing else, has reached the API server through it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klamm_tests::{Random, paths};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::kubernetes::identity::pki;
use crate::kubernetes::{PORT, address};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Answered at once with this status and, if there is one, so many seconds of `Retry-After`.
    Status(u16, Option<u32>),
    /// The connection ends instead of an answer, and nobody has seen the request.
    Dropped,
    /// Carried out; the connection ends in the middle of the answer.
    Cut,
    /// Never answered, on a connection that stays.
    Silent,
}

/// Which requests go wrong.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Those whose method and path, as `PATCH /apis/…`, have this in them.
    pub of: &'static str,
    /// One of these is drawn.
    pub faults: Vec<Fault>,
    /// How many of a thousand.
    pub thousandths: u64,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    /// Method and path.
    pub what: String,
    /// `None`: passed on.
    pub fault: Option<Fault>,
}

impl Asked {
    /// Whether it may have changed something, other than who leads.
    pub fn acts(&self) -> bool {
        let passed = matches!(self.fault, None | Some(Fault::Cut));
        passed && !self.what.starts_with("GET") && !self.what.contains("/leases")
    }
}

struct State {
    plan: Mutex<Option<(Plan, Random)>>,
    audit: Mutex<Vec<Asked>>,
    /// Connections of earlier ages carry nothing any more.
    age: AtomicU64,
    tls: TlsConnector,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The proxy; it ends with this.
pub struct Proxy {
    runtime: Runtime,
    state: Arc<State>,
    port: u16,
    accepting: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Proxy {
    /// One that makes no faults yet.
    pub fn start() -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let state = State { plan: Mutex::default(), audit: Mutex::default(), age: AtomicU64::new(0), tls: as_admin() };
        let port = klamm_tests::ports::free_port();
        let proxy =
            Proxy { runtime: runtime.expect("a runtime"), state: Arc::new(state), port, accepting: Mutex::default() };
        proxy.accept();
        proxy
    }

    /// A kubeconfig that leads through it.
    pub fn kubeconfig(&self) -> String {
        let file = paths::scratch_dir("proxy").join("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://127.0.0.1:{}", self.port) } }],
            "users": [{ "name": "nobody", "user": {} }],
            "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "nobody" } }],
        });
        std::fs::write(&file, text.to_string()).expect("a kubeconfig");
        file.display().to_string()
    }

    /// From now on requests go wrong as planned; none do without a plan.
    pub fn plan(&self, plan: Option<Plan>, seed: u64) {
        *lock(&self.state.plan) = plan.map(|plan| (plan, Random::new(seed)));
    }

    /// What is open now stays open and carries nothing any more, as connections do whose state somebody on the way has
    /// forgotten.
    pub fn forget(&self) {
        self.state.age.fetch_add(1, Ordering::SeqCst);
    }

    /// Refuses connections, and ends those that there are.
    pub fn refuse(&self) {
        if let Some(task) = lock(&self.accepting).take() {
            task.abort();
        }
    }

    /// Accepts connections.
    pub fn accept(&self) {
        let (state, port) = (Arc::clone(&self.state), self.port);
        let listener = klamm_tests::eventually("the port is free", 10, || {
            self.runtime.block_on(TcpListener::bind(("127.0.0.1", port))).ok()
        });
        let task = self.runtime.spawn(async move {
            // Those that it has accepted end with it.
            let mut all = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let state = Arc::clone(&state);
                        all.spawn(async move {
                            let _ = carry(&state, stream).await;
                        });
                    }
                    Some(_) = all.join_next() => {}
                }
            }
        });
        *lock(&self.accepting) = Some(task);
    }

    /// What was asked since a moment.
    pub fn since(&self, moment: Instant) -> Vec<Asked> {
        lock(&self.state.audit).iter().filter(|asked| asked.at >= moment).cloned().collect()
    }
}

/// The most requests in any second from a moment on.
pub fn busiest_second(asked: &[Asked]) -> usize {
    let from = |first: &Asked| {
        asked.iter().filter(|one| one.at >= first.at && one.at < first.at + Duration::from_secs(1)).count()
    };
    asked.iter().map(from).max().unwrap_or(0)
}

fn as_admin() -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(pki("ca.crt")).expect("the authority");
    roots.add(authority).expect("the authority");
    let own = CertificateDer::from_pem_file(pki("admin.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(pki("admin.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)
        .expect("a client");
    TlsConnector::from(Arc::new(config))
}

/// One request as it came.
struct Request {
    head: Vec<u8>,
    what: String,
    body: Vec<u8>,
}

/// Reads one; `None` at the end of the connection.
async fn request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let what = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let field = |line: &str| Some(line.split_once(':')?.1.trim().to_owned());
    let length = text.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:")).and_then(field);
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    // One connection there is for one request.
    let kept = text.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head = kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    Ok(Some(Request { head: head.into_bytes(), what, body: bytes[end..end + length].to_vec() }))
}

async fn carry(state: &State, mut near: TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    let age = state.age.load(Ordering::SeqCst);
    while let Some(request) = request(&mut near).await? {
        let mut fault = lock(&state.plan).as_mut().and_then(|(plan, random)| {
            let wrong = request.what.contains(plan.of) && random.chance(plan.thousandths);
            wrong.then(|| random.pick(&plan.faults))
        });
        if state.age.load(Ordering::SeqCst) != age {
            fault = Some(Fault::Silent);
        }
        lock(&state.audit).push(Asked { at: Instant::now(), what: request.what.clone(), fault });
        match fault {
            Some(Fault::Status(code, after)) => near.write_all(refusal(code, after).as_bytes()).await?,
            Some(Fault::Dropped) => return Ok(()),
            Some(Fault::Silent) => return until_closed(&mut near).await,
            Some(Fault::Cut) | None => return pass(state, near, &request, fault.is_some(), age).await,
        }
    }
    Ok(())
}

/// Passes a request on, and its answer back.
async fn pass(state: &State, mut near: TcpStream, request: &Request, cut: bool, age: u64) -> io::Result<()> {
    let mut far = connect(state).await?;
    far.write_all(&request.head).await?;
    far.write_all(&request.body).await?;
    far.flush().await?;
    let mut buffer = vec![0; 64 * 1024];
    let mut gone = [0; 1];
    loop {
        let read = tokio::select! {
            read = far.read(&mut buffer) => read.unwrap_or(0),
            // Who waits for a watch says nothing: this is the end of the connection.
            _ = near.read(&mut gone) => return Ok(()),
        };
        if state.age.load(Ordering::SeqCst) != age {
            return until_closed(&mut near).await;
        }
        if read == 0 {
            return near.shutdown().await;
        }
        if cut {
            return near.write_all(&buffer[..read / 2]).await;
        }
        near.write_all(&buffer[..read]).await?;
    }
}

async fn connect(state: &State) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((address(0), PORT)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(address(0)).map_err(io::Error::other)?;
    state.tls.connect(name, stream).await
}

async fn until_closed(near: &mut TcpStream) -> io::Result<()> {
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.map(drop)
}

fn refusal(code: u16, after: Option<u32>) -> String {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("a fault of the test: {reason}"),
    });
    let body = body.to_string();
    let after = after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\n{after}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
