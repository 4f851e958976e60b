//! The TLS handshake of a connection that a listener of protocol SSL accepted: bounded in time and number, and told in
//! one line when it is refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::connection::Connection;
use super::stream::TlsStream;
use crate::broker::Broker;
use crate::tls::{self, ListenerTls};

/// How long a handshake may take, the wait for its turn included.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Makes the handshake. Notes in `connection` whom the client's certificate names. `None` when there is nobody to serve,
/// which has been logged.
pub async fn shake(
    broker: &Broker,
    tls: &ListenerTls,
    stream: TcpStream,
    connection: &mut Connection,
) -> Option<(TlsStream, BytesMut)> {
    let handle = connection.handle.clone();
    let done = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_WITHIN, accept(tls, stream)) => done,
        () = handle.closed() => return None,
    };
    let peer = handle.peer;
    let error = match done {
        Ok(Ok((stream, input, subject))) => {
            if let Some(subject) = subject.as_deref() {
                if connection.serves.quorum || *connection.listener == *broker.config.inter_broker_listener {
                    info!(listener = %connection.listener, %peer, subject, "a node has connected");
                } else {
                    debug!(listener = %connection.listener, %peer, subject, "a client has shown its certificate");
                }
            }
            connection.subject = subject;
            return Some((stream, input));
        }
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {HANDSHAKE_WITHIN:?}")),
    };
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) {
        // A port scan, a health check, another node that looks whether this one is there.
        debug!(listener = %connection.listener, %peer, %error, "connection lost during the TLS handshake");
        return None;
    }
    broker.metrics.connection_refused();
    let cause = format!("tls {} {}", connection.listener, peer.ip());
    if let Some(held_back) = broker.complaints.due(&cause, broker.clock.now_ms()) {
        let reason = reason(&error);
        warn!(listener = %connection.listener, %peer, reason, held_back, "TLS handshake refused");
    }
    None
}

async fn accept(tls: &ListenerTls, stream: TcpStream) -> io::Result<(TlsStream, BytesMut, Option<Arc<str>>)> {
    // Who says nothing must not take a turn from those who do.
    stream.readable().await?;
    let turn = tls.handshakes.acquire().await;
    let config = tls.server().ok_or_else(|| io::Error::other("the listener has no certificate"))?;
    let (stream, session) = TlsAcceptor::from(config).accept(stream).await?.into_inner();
    drop(turn);
    let own = session.peer_certificates().and_then(<[_]>::first);
    let subject = own.and_then(|certificate| tls::subject(certificate)).map(Arc::from);
    let mut input = BytesMut::new();
    let stream = TlsStream::new(stream, session, &mut input)?;
    Ok((stream, input, subject))
}

/// The error in words that lead to its cause.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => "what came is not TLS; does the client speak plain text?".to_owned(),
        Some(rustls::Error::NoCertificatesPresented) => "the client shows no certificate".to_owned(),
        Some(rustls::Error::InvalidCertificate(why)) => format!("the client's certificate: {why}"),
        Some(rustls::Error::AlertReceived(alert)) => format!("the client refuses: {alert:?}"),
        _ => error.to_string(),
    }
}
