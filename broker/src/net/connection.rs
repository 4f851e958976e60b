//! One client connection: frames in, answers out, in order.
//!
//! A connection is served by one task, one request at a time, so answers leave in request order even
//! when a fetch is parked (Kafka mutes the channel for the same reason). One read may bring many
//! frames; their answers leave in one write. An idle connection holds no buffer.
//!
//! Invariant: the read buffer grows with the bytes that really arrived, never with an announced size, and beyond its
//! first 64 KiB only with memory from the broker's budget (see docs/decisions/011).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::ApiKey;
use klamm_protocol::wire::Encoded;
use tokio::io::Interest;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::api::{self, Refusal};
use crate::broker::Broker;
use crate::net::budget::Share;
use crate::net::send::SendQueue;
use crate::net::stream::Stream;
use crate::replica::session::Lease;

/// Reads ask the kernel for this much when nothing says that more is coming.
const READ_BYTES: usize = 64 * 1024;

/// A read takes no more than this of what comes behind the frame that it is for, though the buffer may have room: a
/// client that sends faster than it is served would make the buffer grow with every read, beyond what the processor's
/// caches hold, and as far as the system's buffers for the socket go.
const AHEAD_BYTES: usize = 256 * 1024;

/// While a frame is incomplete the buffer at most doubles, up to steps of this size.
const GROW_BYTES_MAX: usize = 1024 * 1024;

/// A read buffer that was larger than this goes with its request, instead of waiting for the next one.
const KEEP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A connection that waits for memory looks this often whether its client is still there.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// Answers are written once this many bytes wait, even if more requests are at hand.
const SEND_BYTES: usize = 256 * 1024;

/// A request that holds memory from the budget has to move this much between two looks of the reaper while others
/// wait for memory, and a byte otherwise; else, after so many looks, its connection ends.
const PROGRESS: [(usize, u32); 2] = [(1, 30), (64 * 1024, 5)];

/// What the reaper may ask of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Command {
    None = 0,
    /// Give back an idle read buffer.
    Trim = 1,
    /// End the connection once the request under way is answered: the broker stops.
    Close = 2,
    /// End the connection now: no byte has moved for too long.
    Expire = 3,
}

/// The part of a connection that the listener's reaper sees.
#[derive(Debug)]
pub struct Handle {
    /// Where the client is.
    pub peer: SocketAddr,
    /// When bytes last moved, in milliseconds of the broker's clock.
    last_active_ms: AtomicI64,
    command: AtomicU8,
    wake: Notify,
    /// Bytes that are here of an unfinished request that holds memory from the budget; 0 when there is none, or when
    /// it's not the client that keeps it from going on.
    incoming: AtomicUsize,
    /// The same at the reaper's last look, and for how many looks it has not moved enough. The reaper's own.
    seen: AtomicUsize,
    slow: AtomicU32,
}

impl Handle {
    /// A handle for a connection accepted at `now_ms`.
    pub fn new(peer: SocketAddr, now_ms: i64) -> Self {
        Self {
            peer,
            last_active_ms: AtomicI64::new(now_ms),
            command: AtomicU8::new(Command::None as u8),
            wake: Notify::new(),
            incoming: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
            slow: AtomicU32::new(0),
        }
    }

    /// Milliseconds since bytes last moved.
    pub fn idle_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.last_active_ms.load(Ordering::Relaxed)
    }

    /// One look of the reaper at an unfinished request that holds memory: whether it has taken too long. `short`: others
    /// wait for that memory.
    pub fn is_stuck(&self, short: bool) -> bool {
        let here = self.incoming.load(Ordering::Relaxed);
        let before = self.seen.swap(here, Ordering::Relaxed);
        let (enough, looks) = PROGRESS[usize::from(short)];
        // Fewer bytes than before are another request's.
        let moved = here.checked_sub(before).unwrap_or(here);
        if here == 0 || moved >= enough {
            self.slow.store(0, Ordering::Relaxed);
            return false;
        }
        self.slow.fetch_add(1, Ordering::Relaxed) + 1 >= looks
    }

    /// Asks the connection to end after the answer that it is working on.
    pub fn close(&self) {
        self.command.store(Command::Close as u8, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends the connection, whatever it is waiting for.
    pub fn expire(&self) {
        self.command.store(Command::Expire as u8, Ordering::Release);
        self.wake.notify_one();
    }

    /// Asks the connection to give back its read buffer if it is idle.
    pub fn trim(&self) {
        let from = Command::None as u8;
        let _ = self.command.compare_exchange(from, Command::Trim as u8, Ordering::AcqRel, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn closing(&self) -> bool {
        self.command.load(Ordering::Acquire) >= Command::Close as u8
    }

    /// Waits until the connection is to end.
    pub async fn closed(&self) {
        while !self.closing() {
            self.wake.notified().await;
        }
    }

    fn expired(&self) -> bool {
        self.command.load(Ordering::Acquire) == Command::Expire as u8
    }
}

/// What a listener is for. It may be for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serves {
    /// Clients, and brokers that fetch.
    pub clients: bool,
    /// The metadata quorum and requests to the controller.
    pub quorum: bool,
}

/// A connection as its request handlers see it.
#[derive(Debug)]
pub struct Connection {
    /// Shared with the listener's reaper.
    pub handle: Arc<Handle>,
    /// Name of the listener that accepted it, upper case (`PLAINTEXT`).
    pub listener: Arc<str>,
    /// What that listener is for.
    pub serves: Serves,
    /// The broker that has handed requests on over this connection; −1 for none.
    pub broker_id: AtomicI32,
    /// Whom the client's certificate names, if it has shown one that is trusted.
    pub subject: Option<Arc<str>>,
    /// What ApiVersions said of the client: name and version, empty until then.
    pub software: parking_lot::Mutex<(String, String)>,
    /// The fetch session of a follower, which ends with the connection.
    pub follows: parking_lot::Mutex<Option<Lease>>,
    /// The moment at which a follower's fetch was last answered here; 0 for never.
    pub answered_follower: AtomicU64,
}

impl Connection {
    /// What stands in for a connection when this broker asks itself.
    pub fn local(listener: &str) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let serves = Serves { clients: true, quorum: true };
        Self {
            handle: Arc::new(Handle::new(nowhere, 0)),
            listener: listener.into(),
            serves,
            broker_id: AtomicI32::new(-1),
            subject: None,
            software: Default::default(),
            follows: Default::default(),
            answered_follower: Default::default(),
        }
    }
}

/// Why a connection ended, for the log line.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer closed, or the socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the peer sent can't be answered.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The frame's announced size is out of bounds.
    #[error("frame of {size} bytes; socket.request.max.bytes is {max}")]
    FrameSize {
        /// The announced size.
        size: i32,
        /// The limit in force.
        max: i32,
    },
    /// The frame is larger than any honest request with its key.
    #[error("frame of {size} bytes with API key {key}; such requests have at most {max}")]
    FrameSizeForKey {
        /// The announced size.
        size: usize,
        /// The API key.
        key: i16,
        /// The most that such a request may have.
        max: usize,
    },
    /// Idle for longer than `connections.max.idle.ms`, or the broker stops.
    #[error("closed by the broker")]
    Closed,
}

/// Serves `stream` until either side ends it. `input` has been read already.
pub async fn serve<S: Stream>(broker: Arc<Broker>, stream: S, input: BytesMut, connection: Connection) {
    let handle = connection.handle.clone();
    let mut serving = Serving::new(&broker, stream, input, &connection);
    let mut ended = serving.run().await;
    if matches!(ended, Err(Ended::Refused(_) | Ended::FrameSize { .. })) {
        // What was asked before the request that ends the connection has been done: its answers leave.
        ended = serving.flush().await.and(ended);
    }
    serving.stream.finish();
    match ended {
        Ok(()) => debug!(peer = %handle.peer, "connection ended by the client"),
        Err(Ended::Io(e)) => debug!(peer = %handle.peer, error = %e, "connection lost"),
        Err(Ended::Closed) => debug!(peer = %handle.peer, "connection closed: idle or stopping"),
        Err(e) => warn!(peer = %handle.peer, listener = %connection.listener, reason = %e, "connection closed"),
    }
    let other = connection.broker_id.load(Ordering::Relaxed);
    if other >= 0 {
        broker.suspects.report(other);
    }
}

struct Serving<'a, S> {
    broker: &'a Arc<Broker>,
    stream: S,
    connection: &'a Connection,
    input: BytesMut,
    output: SendQueue,
    frame_bytes_max: i32,
    /// Memory from the broker's budget for the frame that is being received or handled.
    share: Share<'a>,
}

impl<'a, S: Stream> Serving<'a, S> {
    fn new(broker: &'a Arc<Broker>, stream: S, input: BytesMut, connection: &'a Connection) -> Self {
        Self {
            broker,
            stream,
            connection,
            input,
            output: SendQueue::default(),
            share: broker.requests.share(),
            frame_bytes_max: i32::try_from(broker.config.request_max_bytes).unwrap_or(i32::MAX),
        }
    }

    async fn run(&mut self) -> Result<(), Ended> {
        loop {
            while let Some(frame) = self.next_frame()? {
                let answer = self.answer(frame).await?;
                if self.share.bytes() > 0 {
                    self.give_back();
                }
                if let Some(answer) = answer {
                    self.output.push(answer)?;
                    if self.output.len() >= SEND_BYTES {
                        self.flush().await?;
                    }
                }
                if self.connection.handle.closing() {
                    self.flush().await?;
                    return Err(Ended::Closed);
                }
            }
            self.flush().await?;
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Handles one request. The answers before it are sent only when it has to wait: those of requests that came
    /// in one read then leave in one write.
    async fn answer(&mut self, frame: Bytes) -> Result<Option<Encoded>, Ended> {
        let mut handling = pin!(api::handle(self.broker, self.connection, frame));
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(handling.as_mut().poll(cx))).await {
            return Ok(answer?);
        }
        self.flush().await?;
        tokio::select! {
            biased;
            answer = handling => Ok(answer?),
            () = self.gone() => Err(Ended::Closed),
        }
    }

    /// Resolves when a request that is parked has nobody left to be answered: the client has closed its
    /// side, or the reaper ends the connection.
    async fn gone(&self) {
        let mut watching = true;
        loop {
            tokio::select! {
                ready = self.stream.tcp().ready(Interest::READABLE), if watching => match ready {
                    Ok(ready) if !ready.is_read_closed() => watching = false,
                    _ => return,
                },
                () = self.connection.handle.wake.notified() => {
                    if self.connection.handle.expired() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes the next whole frame off the input, without its size prefix.
    fn next_frame(&mut self) -> Result<Option<Bytes>, Ended> {
        let Some(size) = self.announced()? else { return Ok(None) };
        if self.input.len() < 4 + size {
            return Ok(None);
        }
        self.input.advance(4);
        let frame = self.input.split_to(size);
        if self.share.bytes() > 0 {
            self.connection.handle.incoming.store(0, Ordering::Relaxed);
        }
        // Only Produce, and what is large, profits from sharing the read buffer. Any other request gets its own
        // small allocation, so that what a handler keeps never pins the buffer.
        let produce = frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes());
        let share = produce || size > READ_BYTES;
        Ok(Some(if share { frame.freeze() } else { Bytes::copy_from_slice(&frame) }))
    }

    /// The size that the frame at the head of the input announces, once four bytes are there.
    fn announced(&self) -> Result<Option<usize>, Ended> {
        let Some(prefix) = self.input.first_chunk::<4>() else { return Ok(None) };
        let size = i32::from_be_bytes(*prefix);
        let max = self.frame_bytes_max;
        if size < api::FRAME_BYTES_MIN || size > max {
            return Err(Ended::FrameSize { size, max });
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > api::FRAME_BYTES_COMMON
            && let Some(&[high, low]) = self.input.get(4..6)
        {
            let key = i16::from_be_bytes([high, low]);
            let max = api::frame_bytes_max(key, size);
            if size > max {
                return Err(Ended::FrameSizeForKey { size, key, max });
            }
        }
        Ok(Some(size))
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        let handle = &self.connection.handle;
        let clock = &self.broker.clock;
        let stalled = async {
            while !handle.expired() {
                handle.wake.notified().await;
            }
        };
        let progress = || handle.last_active_ms.store(clock.now_ms(), Ordering::Relaxed);
        tokio::select! {
            biased;
            sent = self.output.flush(&mut self.stream, progress) => Ok(sent?),
            () = stalled => Err(Ended::Closed),
        }
    }

    /// Waits for bytes and reads what is there; 0 when the peer closed.
    async fn read(&mut self) -> Result<usize, Ended> {
        let handle = &self.connection.handle;
        loop {
            if handle.closing() {
                return Err(Ended::Closed);
            }
            tokio::select! {
                biased;
                ready = self.stream.tcp().readable() => ready?,
                () = handle.wake.notified() => {
                    let trim = Command::Trim as u8;
                    let _ = handle.command.compare_exchange(trim, Command::None as u8, Ordering::AcqRel, Ordering::Relaxed);
                    if self.input.is_empty() {
                        self.input = BytesMut::new();
                    }
                    continue;
                }
            }
            let room = self.make_room().await?;
            match self.stream.read_some(&mut self.input, room) {
                Ok(n) => {
                    if self.share.bytes() > 0 {
                        handle.incoming.store(self.input.len(), Ordering::Relaxed);
                    }
                    handle.last_active_ms.store(self.broker.clock.now_ms(), Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Gives the buffer room for what is missing, as far as the client has earned it; answers how much to read.
    async fn make_room(&mut self) -> Result<usize, Ended> {
        let have = self.input.len();
        let frame = self.announced()?.map(|size| 4 + size);
        let missing = frame.map_or(READ_BYTES, |frame| frame.saturating_sub(have));
        // At most twice what has arrived: a peer pays for each byte of memory with half a byte sent.
        let more = missing.min(have.clamp(READ_BYTES, GROW_BYTES_MAX));
        if let Some(frame) = frame
            && have + more > READ_BYTES
        {
            let weight =
                self.input.get(4..6).map_or(1, |key| api::memory_per_byte(i16::from_be_bytes([key[0], key[1]])));
            self.claim(weight * frame, weight * have, weight * (have + more)).await?;
        }
        self.input.reserve(more);
        Ok(missing.max(AHEAD_BYTES))
    }

    /// Takes memory for `to` bytes of a frame of `frame`, of which `have` are here, from the budget. While there is none,
    /// nothing is read.
    async fn claim(&mut self, frame: usize, have: usize, to: usize) -> Result<(), Ended> {
        let (budget, handle) = (&self.broker.requests, &self.connection.handle);
        loop {
            let freed = budget.freed();
            if self.share.grow(frame, have, to) {
                return Ok(());
            }
            // That nothing comes is not the client's doing now.
            handle.incoming.store(0, Ordering::Relaxed);
            tokio::select! {
                () = freed => {}
                () = handle.wake.notified() => {}
                () = tokio::time::sleep(CLAIM_AGAIN) => {
                    if self.stream.tcp().ready(Interest::READABLE).await?.is_read_closed() {
                        return Err(Ended::Closed);
                    }
                }
            }
            if handle.closing() {
                return Err(Ended::Closed);
            }
        }
    }

    /// The request that held memory from the budget is done.
    fn give_back(&mut self) {
        if self.share.bytes() > KEEP_BYTES_MAX {
            // What is left, if anything, are the first bytes of the next.
            self.input = BytesMut::from(&self.input[..]);
        }
        self.share.give_back();
    }
}
