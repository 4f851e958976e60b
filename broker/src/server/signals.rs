//! The signals that ask a broker to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, and SIGHUP, which a terminal that closes sends; the JVM takes it the same way.
pub struct Signals([Signal; 3]);

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// A handler cannot be set.
    pub fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    /// Resolves when one arrives.
    pub async fn received(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
