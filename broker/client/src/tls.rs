//! TLS for connections that this side opens. What to show and whom to trust is a rustls configuration, which may be
//! replaced while connections come and go: each new one uses the configuration of its moment.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The configuration that new connections use. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ClientConfig>>>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Begins with this configuration.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// New connections use this configuration from now on.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The handshake with the host that `address` (`host:port`) names.
    pub(crate) async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no host name for TLS")))?;
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsConnector::from(config).connect(name, stream).await
    }
}
