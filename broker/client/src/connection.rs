//! One TCP connection to one broker: version negotiation, framing, pipelining, timeouts.
//!
//! A single task owns the socket. Requests reach it through a bounded queue and are written in the
//! order in which [`Connection::start`] was called; answers are matched in the same order, as Kafka
//! promises. When anything is out of line (a correlation id, a frame size, a late answer) the
//! connection is closed and every waiting call fails: nothing after that point could be trusted.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::ApiKey;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::header::{RequestHeader, ResponseHeader};
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::wire::{Piece, Reader, Writer};
use klamm_protocol::{Message, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::error::{ClientError, Result};
use crate::tls::Tls;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Sent in every request header; brokers log it and group descriptions show it.
    pub client_id: String,
    /// Bound on name resolution, TCP connect, TLS handshake and version negotiation together.
    pub connect_timeout: Duration,
    /// Bound on one answer, for calls that don't bring their own.
    pub request_timeout: Duration,
    /// Largest answer accepted, in bytes.
    pub frame_bytes_max: usize,
    /// Requests that may wait for answers at the same time; more callers queue.
    pub in_flight_max: usize,
    /// TLS; plain text without.
    pub tls: Option<Tls>,
    /// The cluster's id and the node that is meant. Another that answers in its place refuses, if it knows of this
    /// (KIP-1242).
    pub meant: Option<(String, i32)>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "klamm".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            frame_bytes_max: 128 << 20,
            in_flight_max: 128,
            tls: None,
            meant: None,
        }
    }
}

/// A negotiated connection. Clones share it; it closes when the last clone is dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    options: ConnectionOptions,
    queue: mpsc::Sender<Outgoing>,
    in_flight: Arc<Semaphore>,
    correlation: AtomicI32,
    versions: OnceLock<Versions>,
    /// Why the connection ended, once it has.
    end: Arc<OnceLock<Arc<str>>>,
    /// Dropped or set to make the socket task stop.
    stop: watch::Sender<bool>,
}

/// What the broker said it can do.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    ranges: HashMap<i16, (i16, i16)>,
    features: HashMap<String, i16>,
}

impl Versions {
    /// The broker's range of versions for a request, if it knows it at all.
    pub fn range(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.ranges.get(&(key as i16)).copied()
    }

    /// The finalized level of a feature such as `transaction.version`; 0 when absent.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// Newest version both sides speak, not above `cap`.
    fn common<R: Request>(&self, cap: i16) -> Option<i16> {
        let (min, max) = self.range(R::KEY)?;
        let version = R::MAX_VERSION.min(max).min(cap);
        (version >= min && version >= R::MIN_VERSION).then_some(version)
    }
}

/// A request that was sent (or is queued) and whose answer has not been read yet.
pub struct Pending<R: Request> {
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Bytes>,
    version: i16,
    timeout: Duration,
    request: PhantomData<fn() -> R>,
}

struct Outgoing {
    frame: Vec<Bytes>,
    /// Who waits for the answer or, where none comes (Produce with acks=0), for the frame to be written.
    waiter: Result<Waiter, oneshot::Sender<()>>,
}

struct Waiter {
    correlation_id: i32,
    answer: oneshot::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects to `host:port` and negotiates versions.
    pub async fn open(address: &str, options: ConnectionOptions) -> Result<Self> {
        let limit = options.connect_timeout;
        let opened = timeout(limit, async {
            let failed = |source| ClientError::Connect { address: address.to_owned(), source: Arc::new(source) };
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            // Small requests must not wait for the answer to earlier ones (Nagle).
            let _ = stream.set_nodelay(true);
            match options.tls.clone() {
                None => Self::over(stream, address, options).await,
                Some(tls) => Self::over(tls.connect(stream, address).await.map_err(failed)?, address, options).await,
            }
        });
        opened
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { what: format!("connecting to {address}"), after: limit }))
    }

    /// Negotiates over a stream that is already open; `address` is only for messages.
    pub async fn over<S>(stream: S, address: &str, options: ConnectionOptions) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (queue, outgoing) = mpsc::channel(options.in_flight_max.max(1));
        let (stop, stopped) = watch::channel(false);
        let end = Arc::new(OnceLock::new());
        tokio::spawn(drive(stream, outgoing, stopped, options.frame_bytes_max, Arc::clone(&end)));
        let connection = Self {
            shared: Arc::new(Shared {
                address: address.to_owned(),
                in_flight: Arc::new(Semaphore::new(options.in_flight_max.max(1))),
                options,
                queue,
                correlation: AtomicI32::new(0),
                versions: OnceLock::new(),
                end,
                stop,
            }),
        };
        let versions = connection.negotiate().await?;
        let _ = connection.shared.versions.set(versions);
        Ok(connection)
    }

    /// The address this connection was opened to.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// What the broker can do.
    pub fn versions(&self) -> Versions {
        self.shared.versions.get().cloned().unwrap_or_default()
    }

    /// Closes the connection, since nothing is to be expected over it; the error for who waits.
    pub(crate) fn give_up(&self, why: &str) -> ClientError {
        self.shared.close(why);
        self.shared.lost()
    }

    /// Whether the connection can no longer be used.
    pub fn is_closed(&self) -> bool {
        self.shared.end.get().is_some() || self.shared.queue.is_closed()
    }

    /// Closes the connection; calls that wait for an answer fail.
    pub fn close(&self) {
        self.shared.close("closed by this side");
    }

    /// The newest version of `R` both sides speak.
    pub fn version_of<R: Request>(&self) -> Result<i16> {
        self.version_below::<R>(i16::MAX)
    }

    /// The newest version of `R` both sides speak that is not above `cap`.
    pub fn version_below<R: Request>(&self, cap: i16) -> Result<i16> {
        let versions = self.shared.versions.get();
        versions.and_then(|v| v.common::<R>(cap)).ok_or_else(|| ClientError::Unsupported {
            address: self.shared.address.clone(),
            api: R::KEY.name(),
            client_min: R::MIN_VERSION,
            client_max: R::MAX_VERSION.min(cap),
        })
    }

    /// Sends a request in the newest common version and waits for its answer.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response> {
        let version = self.version_of::<R>()?;
        self.call_at(request, version).await
    }

    /// As [`call`](Self::call), in the newest common version that is not above `cap`.
    pub async fn call_capped<R: Request>(&self, request: &R, cap: i16) -> Result<R::Response> {
        let version = self.version_below::<R>(cap)?;
        self.call_at(request, version).await
    }

    /// Sends a request in exactly this version and waits for its answer.
    pub async fn call_at<R: Request>(&self, request: &R, version: i16) -> Result<R::Response> {
        self.start(request, version, self.shared.options.request_timeout).await?.answer().await
    }

    /// As [`call`](Self::call) with a time limit of its own, for requests that the broker parks.
    pub async fn call_within<R: Request>(&self, request: &R, limit: Duration) -> Result<R::Response> {
        let version = self.version_of::<R>()?;
        self.start(request, version, limit).await?.answer().await
    }

    /// Queues a request and returns at once; requests leave in the order of these calls.
    pub async fn start<R: Request>(&self, request: &R, version: i16, limit: Duration) -> Result<Pending<R>> {
        let (correlation_id, frame) = self.shared.frame(request, version)?;
        let permit = Arc::clone(&self.shared.in_flight).acquire_owned().await;
        let permit = permit.map_err(|_| self.shared.lost())?;
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter { correlation_id, answer: sender, _permit: permit };
        self.shared.send(Outgoing { frame, waiter: Ok(waiter) }).await?;
        let shared = Arc::clone(&self.shared);
        Ok(Pending { shared, answer, version, timeout: limit, request: PhantomData })
    }

    /// Sends a request that has no answer: Produce with acks=0. Returns when the operating system has it.
    pub async fn send_unanswered<R: Request>(&self, request: &R, version: i16) -> Result<()> {
        let (_, frame) = self.shared.frame(request, version)?;
        let (sender, written) = oneshot::channel();
        self.shared.send(Outgoing { frame, waiter: Err(sender) }).await?;
        written.await.map_err(|_| self.shared.lost())
    }

    /// Asks for the version table. A broker that doesn't know our version answers in version 0 and
    /// names the newest it knows; then one more round settles it.
    async fn negotiate(&self) -> Result<Versions> {
        let meant = self.shared.options.meant.clone();
        let request = ApiVersionsRequest {
            client_software_name: "klamm".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: meant.as_ref().map_or(-1, |(_, node)| *node),
            cluster_id: meant.map(|(cluster, _)| cluster),
            ..Default::default()
        };
        let mut version = ApiVersionsRequest::MAX_VERSION;
        for _ in 0..2 {
            let limit = self.shared.options.connect_timeout;
            let pending = self.start(&request, version, limit).await?;
            let body = pending.body().await?;
            let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
            let downgraded = body.starts_with(&unsupported) && version > 0;
            let answer_version = if downgraded { 0 } else { version };
            let answer: ApiVersionsResponse = self.shared.decode(body, answer_version)?;
            if !downgraded {
                ClientError::check(format!("version negotiation with {}", self.address()), answer.error_code, None)?;
                return Ok(Versions::of(answer));
            }
            let known = answer.api_keys.iter().find(|k| k.api_key == ApiKey::ApiVersions as i16);
            version = known.map_or(0, |k| k.max_version).clamp(0, version - 1);
        }
        Err(ClientError::Malformed {
            address: self.shared.address.clone(),
            reason: "the broker refuses the version of ApiVersions it named itself".to_owned(),
        })
    }
}

impl Versions {
    fn of(answer: ApiVersionsResponse) -> Self {
        let ranges = answer.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version)));
        let features = answer.finalized_features.into_iter().map(|f| (f.name, f.max_version_level));
        Self { ranges: ranges.collect(), features: features.collect() }
    }
}

impl<R: Request> Pending<R> {
    /// Waits for the answer.
    pub async fn answer(self) -> Result<R::Response> {
        let (shared, version) = (Arc::clone(&self.shared), self.version);
        let body = self.body().await?;
        shared.decode(body, version)
    }

    /// The answer's bytes after the response header.
    async fn body(self) -> Result<Bytes> {
        let frame = match timeout(self.timeout, self.answer).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(self.shared.lost()),
            Err(_) => {
                // Answers come in order: behind a lost one nothing will arrive either.
                self.shared.close("an answer did not come in time");
                let what = format!("{} to {}", R::KEY.name(), self.shared.address);
                return Err(ClientError::Timeout { what, after: self.timeout });
            }
        };
        let mut reader = Reader::new(frame);
        let header_version = R::KEY.response_header_version(self.version);
        ResponseHeader::decode(&mut reader, header_version)
            .map_err(|e| ClientError::malformed(&self.shared.address, &e))?;
        Ok(reader.rest())
    }
}

impl Shared {
    fn frame<R: Request>(&self, request: &R, version: i16) -> Result<(i32, Vec<Bytes>)> {
        let correlation_id = self.correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let header = RequestHeader {
            api_key: R::KEY as i16,
            api_version: version,
            correlation_id,
            client_id: Some(self.options.client_id.clone()),
        };
        let mut writer = Writer::new();
        header.encode(&mut writer)?;
        request.encode(&mut writer, version)?;
        let encoded = writer.finish();
        let size = i32::try_from(encoded.len())
            .map_err(|_| ClientError::Invalid("the request is larger than 2 GiB".to_owned()))?;
        let mut frame = vec![Bytes::copy_from_slice(&size.to_be_bytes())];
        for piece in encoded.pieces {
            match piece {
                Piece::Bytes(bytes) => frame.push(bytes),
                Piece::File(_) => {
                    let reason = "requests must hold their records in memory";
                    return Err(ClientError::Invalid(reason.to_owned()));
                }
            }
        }
        Ok((correlation_id, frame))
    }

    fn decode<M: Message>(&self, body: Bytes, version: i16) -> Result<M> {
        let mut reader = Reader::new(body);
        M::decode(&mut reader, version).map_err(|e| ClientError::malformed(&self.address, &e))
    }

    async fn send(&self, outgoing: Outgoing) -> Result<()> {
        self.queue.send(outgoing).await.map_err(|_| self.lost())
    }

    fn close(&self, reason: &str) {
        let _ = self.end.set(Arc::from(reason));
        let _ = self.stop.send(true);
    }

    fn lost(&self) -> ClientError {
        let reason = self.end.get().cloned().unwrap_or_else(|| Arc::from("closed"));
        ClientError::Disconnected { address: self.address.clone(), reason }
    }
}

/// The socket's task: reads and writes until either side ends, then fails whoever waits.
async fn drive<S: AsyncRead + AsyncWrite>(
    stream: S,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut stopped: watch::Receiver<bool>,
    frame_bytes_max: usize,
    end: Arc<OnceLock<Arc<str>>>,
) {
    let waiting = Mutex::new(VecDeque::new());
    let (read_half, write_half) = tokio::io::split(stream);
    let reason = tokio::select! {
        reason = read_answers(read_half, &waiting, frame_bytes_max) => reason,
        reason = write_requests(write_half, &mut outgoing, &waiting) => reason,
        _ = stopped.wait_for(|stop| *stop) => "closed by this side".to_owned(),
    };
    // The reason must be in place before the waiters' channels are dropped: they read it.
    let _ = end.set(Arc::from(reason));
}

async fn write_requests<W: AsyncWrite + Unpin>(
    stream: W,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    waiting: &Mutex<VecDeque<Waiter>>,
) -> String {
    let mut stream = BufWriter::with_capacity(16 << 10, stream);
    let mut written = Vec::new();
    while let Some(mut next) = outgoing.recv().await {
        // Whatever else is queued goes out with the same flush.
        loop {
            match next.waiter {
                Ok(waiter) => waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiter),
                Err(unanswered) => written.push(unanswered),
            }
            for piece in next.frame {
                if let Err(error) = stream.write_all(&piece).await {
                    return error.to_string();
                }
            }
            match outgoing.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        if let Err(error) = stream.flush().await {
            return error.to_string();
        }
        for unanswered in written.drain(..) {
            // The caller may have given up.
            let _ = unanswered.send(());
        }
    }
    "no longer used".to_owned()
}

async fn read_answers<R: AsyncRead + Unpin>(
    stream: R,
    waiting: &Mutex<VecDeque<Waiter>>,
    frame_bytes_max: usize,
) -> String {
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    loop {
        let size = match stream.read_i32().await {
            Ok(size) => size,
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return "closed by the broker".to_owned();
            }
            Err(error) => return error.to_string(),
        };
        let size = match usize::try_from(size) {
            Ok(size) if (4..=frame_bytes_max).contains(&size) => size,
            _ => return no_answer(size, frame_bytes_max),
        };
        // Grown as bytes arrive, so a size alone doesn't make us allocate.
        let mut frame = Vec::with_capacity(size.min(64 << 10));
        match (&mut stream).take(size as u64).read_to_end(&mut frame).await {
            Ok(read) if read == size => {}
            Ok(_) => return "closed by the broker in the middle of an answer".to_owned(),
            Err(error) => return error.to_string(),
        }
        let frame = Bytes::from(frame);
        let waiter = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(waiter) = waiter else {
            return "the broker sent an answer to no request".to_owned();
        };
        if frame[..4] != waiter.correlation_id.to_be_bytes() {
            return "the broker's answer belongs to another request".to_owned();
        }
        // The caller may have given up; then the answer is simply dropped.
        let _ = waiter.answer.send(frame);
    }
}

/// What is wrong with four bytes that are no size of an answer: most often they are another protocol's first ones.
fn no_answer(size: i32, frame_bytes_max: usize) -> String {
    match size.to_be_bytes() {
        [b'H', b'T', b'T', b'P'] => "whoever answers speaks HTTP, and not Kafka's protocol".to_owned(),
        // An alert, or a handshake, of any version.
        [0x15 | 0x16, 3, ..] => "whoever answers speaks TLS, and is asked without".to_owned(),
        _ => format!("answer of {size} bytes (at most {frame_bytes_max} are accepted)"),
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
