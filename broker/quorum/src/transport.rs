//! The way to other nodes, as the quorum asks for it: one request, one answer, bytes both ways.
//!
//! The broker implements it over its controller listener. Delivery is best effort: an answer may be lost, and a
//! request may arrive twice or late. Everything sent here bears that.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// A future that owns what it needs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Node id, -1 when only the address is known.
    pub id: i32,
    /// Host name or address of its controller listener.
    pub host: String,
    /// Port of that listener.
    pub port: u16,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id >= 0 {
            write!(f, "node {} at ", self.id)?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer within the time given.
    #[error("no answer in time")]
    Timeout,
}

/// Carries one request to a peer's [`crate::Quorum::receive`] and its answer back.
pub trait Transport: Send + Sync + 'static {
    /// Calls `to`. Gives up after `timeout`; a future that is dropped may leave the request under way.
    fn call(&self, to: Peer, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// The transport of a node that runs alone: it reaches nobody.
#[derive(Debug)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn call(&self, to: Peer, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(async move { Err(TransportError::Unreachable(format!("no way to {to}"))) })
    }
}
