//! fsync before the acknowledgement, by group commit.
//!
//! One fsync round is under way at a time for a log directory. Whoever needs one joins the next
//! round; all waiters of a round are answered together, so the cost of a flush is shared by
//! everything that arrived while the one before it ran (DESIGN decision 12). A failed fsync is never
//! retried: the log that failed is offline, and so is the directory.

use std::sync::Arc;
use std::time::Duration;

use klamm_log::LogError;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::partition::Partition;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// What one round is to sync, and who waits for it.
type Round = Vec<(Arc<Partition>, Done)>;

type Done = oneshot::Sender<Result<(), Arc<LogError>>>;

/// Collects flush requests of one log directory and carries them out in rounds.
#[derive(Debug, Default)]
pub struct Flusher {
    waiting: Mutex<Round>,
    wake: Notify,
}

impl Flusher {
    /// Resolves once everything appended to `partition` before this call is on disk. The request is
    /// made by the call itself, not by the first poll.
    ///
    /// # Errors
    /// The fsync failed; the records may be lost and must not be acknowledged.
    pub fn flush(&self, partition: &Arc<Partition>) -> impl Future<Output = Result<(), Arc<LogError>>> + use<> {
        let (done, wait) = oneshot::channel();
        self.waiting.lock().push((partition.clone(), done));
        self.wake.notify_one();
        let dir = partition.dir_name();
        async move {
            match wait.await {
                Ok(result) => result,
                Err(_) => Err(Arc::new(stopped(dir, "the flusher has stopped"))),
            }
        }
    }

    /// Asks for an fsync of `partition` without waiting for it.
    pub fn flush_later(&self, partition: &Arc<Partition>) {
        let (done, _) = oneshot::channel();
        self.waiting.lock().push((partition.clone(), done));
        self.wake.notify_one();
    }

    /// Whether a round is asked for.
    pub fn is_wanted(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    /// Carries out one round on the calling thread, for who has no tasks; the first error, if any.
    pub fn flush_now(&self, now_ms: i64) -> Option<Arc<LogError>> {
        let round = std::mem::take(&mut *self.waiting.lock());
        sync(round, now_ms)
    }

    /// Carries out rounds for as long as the broker runs. `offline` is told of each failure.
    pub async fn run(self: Arc<Self>, clock: &Clock, metrics: &Metrics, offline: impl Fn(&LogError)) {
        loop {
            self.wake.notified().await;
            loop {
                let round = std::mem::take(&mut *self.waiting.lock());
                if round.is_empty() {
                    break;
                }
                let began_ms = clock.now_ms();
                if let Some(error) = carry_out(round, clock.settled_ms()).await {
                    offline(&error);
                }
                metrics.flush(Duration::from_millis(u64::try_from(clock.now_ms() - began_ms).unwrap_or(0)));
            }
        }
    }
}

/// One round, on a blocking thread.
async fn carry_out(round: Round, now_ms: i64) -> Option<Arc<LogError>> {
    let work = tokio::task::spawn_blocking(move || sync(round, now_ms));
    work.await.unwrap_or_else(|e| Some(Arc::new(stopped(String::new(), &format!("flush panicked: {e}")))))
}

/// Syncs what a round asks for and answers it; the first error, if any.
fn sync(round: Round, now_ms: i64) -> Option<Arc<LogError>> {
    let mut partitions: Vec<(Arc<Partition>, Vec<Done>)> = Vec::new();
    for (partition, done) in round {
        match partitions.iter_mut().find(|(p, _)| Arc::ptr_eq(p, &partition)) {
            Some((_, waiters)) => waiters.push(done),
            None => partitions.push((partition, vec![done])),
        }
    }
    let mut first_error = None;
    for (partition, waiters) in partitions {
        let result = partition.flush(now_ms).map_err(Arc::new);
        if let Err(error) = &result {
            first_error.get_or_insert_with(|| error.clone());
        }
        for done in waiters {
            // The waiter's connection may be gone; its records are on disk all the same.
            let _ = done.send(result.clone());
        }
    }
    first_error
}

fn stopped(dir: String, reason: &str) -> LogError {
    LogError::Offline { dir: dir.into(), reason: reason.into() }
}
