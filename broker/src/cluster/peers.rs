//! Connections to other nodes of the cluster, kept open between calls.
//!
//! A call takes an idle connection to the address or opens one, and gives it back afterwards. A
//! connection carries one call at a time: a request that the other side parks never holds up another.

use std::collections::HashMap;
use std::time::Duration;

use klamm_client::{ClientError, Connection, ConnectionOptions, Tls};
use klamm_protocol::Request;
use parking_lot::Mutex;

/// Idle connections kept to one address; more are closed after their call.
const IDLE_MAX: usize = 4;

/// A pool of connections by address.
#[derive(Default)]
pub struct Peers {
    options: ConnectionOptions,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("addresses", &self.idle.lock().len()).finish_non_exhaustive()
    }
}

impl Peers {
    /// A pool whose connections go by `client_id`, take at most `connect_timeout` to open, and use `tls`, if any.
    pub fn new(client_id: String, connect_timeout: Duration, tls: Option<Tls>) -> Self {
        let options = ConnectionOptions { client_id, connect_timeout, in_flight_max: 1, tls, ..Default::default() };
        Self { options, idle: Mutex::default() }
    }

    /// Sends `request` to the node at `address`, in the newest version of ours: nodes of one cluster
    /// don't negotiate what only they speak.
    ///
    /// # Errors
    /// The node cannot be reached, or did not answer within `limit`. It may have got the request all the same.
    pub async fn call<R: Request>(
        &self,
        address: &str,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let connection = match self.take_idle(address) {
            Some(connection) => connection,
            None => Connection::open(address, self.options.clone()).await?,
        };
        let answer = match connection.start(request, R::MAX_VERSION, limit).await {
            Ok(pending) => pending.answer().await,
            Err(error) => Err(error),
        };
        match &answer {
            Ok(_) => self.give_back(address, connection),
            // The others lead to the same place: what happened to this one will have happened to them.
            Err(_) => _ = self.idle.lock().remove(address),
        }
        answer
    }

    fn take_idle(&self, address: &str) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(address)?;
        connections.retain(|connection| !connection.is_closed());
        connections.pop()
    }

    fn give_back(&self, address: &str, connection: Connection) {
        let mut idle = self.idle.lock();
        let connections = idle.entry(address.to_owned()).or_default();
        if connections.len() < IDLE_MAX && !connection.is_closed() {
            connections.push(connection);
        }
    }

    /// Closes every idle connection.
    pub fn close(&self) {
        self.idle.lock().clear();
    }
}
