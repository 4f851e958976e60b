//! Certificates and keys in force: what listeners of protocol SSL show and whom they trust, and what this node shows
//! when it connects to others.
//!
//! The PEM files are looked at every few seconds. When one has changed, or its key has in the dynamic configuration, all
//! of its listener's are read again and new connections use them; those that are open stay. Invariant: what is in force
//! has been read whole and fits together. A change that doesn't leaves the old in force and is logged once.

mod material;
mod subject;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use crate::config::BrokerConfig;
use crate::config::tls::{Pem, TlsSettings};
use material::{Material, Uses};

pub use material::BadMaterial;
pub use subject::{not_after, subject};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Handshakes of one listener that may be under way at once; others wait for their turn.
const HANDSHAKES_MAX: usize = 128;

/// TLS of all listeners that speak it.
#[derive(Debug, Default)]
pub struct Tls {
    by_listener: BTreeMap<String, Arc<ListenerTls>>,
}

impl Tls {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// A file cannot be read, or what it holds can't be used.
    pub fn open(config: &BrokerConfig) -> Result<Tls, BadMaterial> {
        let mut by_listener = BTreeMap::new();
        for (name, settings) in &config.tls {
            let uses = Uses {
                server: config.listeners.iter().any(|l| l.name == *name),
                client: *name == config.inter_broker_listener || name == config.quorum_listener(),
            };
            by_listener.insert(name.clone(), Arc::new(ListenerTls::open(name, uses, settings.clone())?));
        }
        Ok(Tls { by_listener })
    }

    /// TLS of the listener of this name; `None` when it speaks plain text.
    pub fn listener(&self, name: &str) -> Option<Arc<ListenerTls>> {
        self.by_listener.get(name).cloned()
    }

    /// TLS of connections to the listener of this name on other nodes; `None` when it speaks plain text.
    pub fn client(&self, name: &str) -> Option<klamm_client::Tls> {
        self.by_listener.get(name)?.client.clone()
    }

    /// When the certificates that are shown run out, by listener, in seconds since 1970.
    pub fn expiries(&self) -> Vec<(String, i64)> {
        let listeners = self.by_listener.values().map(|l| (l.name.clone(), l.expires.load(Ordering::Relaxed)));
        listeners.filter(|(_, expires)| *expires != 0).collect()
    }

    /// Whether any listener speaks it.
    pub fn is_used(&self) -> bool {
        !self.by_listener.is_empty()
    }

    /// Reads again what has changed on the disk, or in `settings`, which are in force now.
    pub fn look(&self, settings: &BTreeMap<String, TlsSettings>) {
        for (name, listener) in &self.by_listener {
            if let Some(settings) = settings.get(name) {
                listener.look(settings);
            }
        }
    }
}

/// TLS of a client that only connects.
///
/// # Errors
/// A file cannot be read, or what it holds can't be used.
pub fn for_client(settings: &TlsSettings) -> Result<klamm_client::Tls, BadMaterial> {
    let client = Material::read(settings, Uses { server: false, client: true })?.client;
    client.map(klamm_client::Tls::new).ok_or_else(|| BadMaterial {
        key: "ssl.truststore.location".to_owned(),
        reason: "is needed to check the certificates of brokers".to_owned(),
    })
}

/// TLS of one listener.
pub struct ListenerTls {
    name: String,
    uses: Uses,
    server: RwLock<Option<Arc<ServerConfig>>>,
    client: Option<klamm_client::Tls>,
    /// When the certificate that is shown runs out, in seconds since 1970; 0 when that is not known.
    expires: AtomicI64,
    /// A turn for each handshake.
    pub handshakes: Semaphore,
    seen: Mutex<Seen>,
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the last look saw, whether it could be used or not.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    settings: TlsSettings,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// By what a file that was replaced or rewritten is known.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Seen {
    fn now(settings: TlsSettings) -> Seen {
        let sources = [&settings.chain, &settings.private_key, &settings.trusted];
        let paths = sources.into_iter().flatten().filter_map(|source| match &source.pem {
            Pem::File(path) => Some(path.clone()),
            Pem::Inline(_) => None,
        });
        let stamp = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some(Stamp { modified: (file.mtime(), file.mtime_nsec()), bytes: file.len(), inode: file.ino() })
        };
        let files = paths.flat_map(|path| match path.is_dir() {
            true => material::IN_DIRECTORY.map(|file| path.join(file)).to_vec(),
            false => vec![path],
        });
        let files = files.map(|path| (path.clone(), stamp(&path))).collect();
        Seen { settings, files }
    }
}

impl ListenerTls {
    fn open(name: &str, uses: Uses, settings: TlsSettings) -> Result<ListenerTls, BadMaterial> {
        // Noted before they are read: a change in between is found at the next look.
        let seen = Seen::now(settings);
        let Material { server, client, subject, expires } = Material::read(&seen.settings, uses)?;
        tracing::info!(listener = name, subject, "certificate read");
        Ok(ListenerTls {
            name: name.to_owned(),
            uses,
            server: RwLock::new(server),
            client: client.map(klamm_client::Tls::new),
            expires: AtomicI64::new(expires.unwrap_or(0)),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            seen: Mutex::new(seen),
        })
    }

    /// What new connections are served with.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.server.read().clone()
    }

    fn look(&self, settings: &TlsSettings) {
        let now = Seen::now(settings.clone());
        let mut seen = self.seen.lock();
        if *seen == now {
            return;
        }
        match Material::read(&now.settings, self.uses) {
            Ok(Material { server, client, subject, expires }) => {
                self.expires.store(expires.unwrap_or(0), Ordering::Relaxed);
                *self.server.write() = server;
                if let (Some(tls), Some(client)) = (&self.client, client) {
                    tls.replace(client);
                }
                tracing::info!(listener = self.name, subject, "certificates changed; new connections use them");
            }
            Err(error) => {
                tracing::warn!(listener = self.name, %error, "changed certificates cannot be used; the old stay in force");
            }
        }
        *seen = now;
    }
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
