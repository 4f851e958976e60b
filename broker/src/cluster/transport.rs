//! Carries the quorum's messages to other nodes, inside of KlammQuorum requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ClientError, Tls};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::KlammQuorumRequest;
use klamm_quorum::{BoxFuture, Peer, Transport, TransportError};

use super::peers::Peers;
use crate::config::HostPort;

/// How long a connection to a voter may take to open.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// See the module's head.
#[derive(Debug)]
pub struct QuorumTransport {
    peers: Arc<Peers>,
}

impl QuorumTransport {
    /// The transport of node `node_id`.
    pub fn new(node_id: i32, tls: Option<Tls>) -> Self {
        Self { peers: Arc::new(Peers::new(format!("quorum-{node_id}"), CONNECT_WITHIN, tls)) }
    }
}

impl Transport for QuorumTransport {
    fn call(&self, to: Peer, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let peers = self.peers.clone();
        Box::pin(async move {
            let address = HostPort { host: to.host, port: to.port }.to_string();
            let request = KlammQuorumRequest { message: request };
            let answer = match tokio::time::timeout(timeout, peers.call(&address, &request, timeout)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(ClientError::Timeout { .. })) | Err(_) => return Err(TransportError::Timeout),
                Ok(Err(error)) => return Err(TransportError::Unreachable(error.to_string())),
            };
            if answer.error_code != 0 {
                let code = ErrorCode::from_code(answer.error_code).name().to_owned();
                return Err(TransportError::Unreachable(answer.error_message.unwrap_or(code)));
            }
            Ok(answer.message)
        })
    }
}
