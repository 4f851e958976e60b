//! The signals that ask a broker to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, and SIGHUP, which a terminal that closes sends. SIGINT and SIGHUP stay ignored when whoever
/// started the broker wanted it so: `nohup` does, and a shell's script for what runs in the background. The JVM takes
/// all of this the same way.
pub struct Signals {
    terminate: Signal,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// A handler cannot be set.
    pub fn new() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let unless_ignored = |kind: SignalKind| (!is_ignored(&status, kind)).then(|| signal(kind)).transpose();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            hangup: unless_ignored(SignalKind::hangup())?,
        })
    }

    /// Resolves when one arrives.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            () = arrives(&mut self.interrupt) => {}
            () = arrives(&mut self.hangup) => {}
        }
    }
}

async fn arrives(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether a process with this `/proc/PID/status` ignores a signal. A status that says nothing is of a process that
/// ignores none.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(kind.as_raw_value() - 1).ok();
    bit.and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tklamm\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000000003\nSigCgt:\t0000000000004000\n";
        assert!(is_ignored(status, SignalKind::hangup()) && is_ignored(status, SignalKind::interrupt()));
        assert!(!is_ignored(status, SignalKind::terminate()) && !is_ignored(status, SignalKind::quit()));
        for nothing in ["", "SigIgn:\tx\n", "SigIgn:\t0000000000001000\n"] {
            assert!(!is_ignored(nothing, SignalKind::hangup()), "{nothing:?}");
        }
    }
}
