//! Reads every segment from time to time and checks it, so that damage is found while another replica still has the
//! records, not when somebody needs them.
//!
//! One segment at a time, on a blocking thread, at most `klamm.log.scrub.bytes.per.second`. What was not in the page
//! cache before is let go of again, so that nothing useful is pushed out of it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm_log::DiskFile;
use klamm_protocol::arrivals::Arrivals;

use super::partition::Partition;
use super::repair;
use crate::broker::Broker;

/// How long after the start the first round begins, unless rounds are more frequent than that.
const FIRST: Duration = Duration::from_secs(600);
/// How often a change of the settings is looked for.
const LOOK: Duration = Duration::from_secs(60);

/// Begins a round whenever the interval is over, until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let started = Instant::now();
    let mut last: Option<Instant> = None;
    loop {
        let config = broker.replicas.config();
        let interval = u64::try_from(config.scrub_interval_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        let due = interval.map(|interval| match last {
            Some(last) => (last + interval).saturating_duration_since(Instant::now()),
            None => (started + interval.min(FIRST)).saturating_duration_since(Instant::now()),
        });
        tokio::select! {
            () = tokio::time::sleep(due.unwrap_or(LOOK).min(LOOK)) => {}
            _ = broker.stopping() => return,
        }
        if due.is_none_or(|due| due > LOOK) {
            continue;
        }
        last = Some(Instant::now());
        let scrubbing = broker.clone();
        let round = tokio::task::spawn_blocking(move || round(&scrubbing));
        match round.await {
            Ok((bytes, segments)) if bytes > 0 => {
                let damaged = broker.replicas.damaged.count();
                let ms = last.map_or(0, |last| last.elapsed().as_millis());
                tracing::info!(bytes, segments, ms, damaged, "all segments checked");
            }
            Ok(_) => {}
            Err(panic) => broker.stop(crate::broker::Stop::Broken(format!("checking segments: {panic}"))),
        }
    }
}

/// Checks all that is there; returns bytes and segments.
fn round(broker: &Arc<Broker>) -> (u64, u64) {
    let (mut bytes, mut segments) = (0, 0);
    for partition in broker.replicas.partitions() {
        let mut base = 0;
        while !broker.is_stopping() && !partition.is_deleted() {
            match scrub(broker, &partition, base) {
                Some((at, len)) => {
                    base = at + 1;
                    bytes += u64::from(len);
                    segments += 1;
                }
                None => break,
            }
        }
    }
    (bytes, segments)
}

/// Checks the segment at or after `base`; its base and length, `None` when there is none.
fn scrub(broker: &Arc<Broker>, partition: &Arc<Partition>, base: i64) -> Option<(i64, u32)> {
    let next = partition.with_log(|log| log.segment_to_check(base));
    let (at, unchecked) = match next {
        Ok(next) => next?,
        Err(error) => {
            tracing::warn!(partition = %partition.dir_name(), %error, "a segment could not be checked");
            return None;
        }
    };
    let len = unchecked.len();
    let gentle = |file| Arc::new(Gentle { broker: broker.clone(), file }) as Arc<dyn DiskFile>;
    repair::check_one(broker, partition, unchecked.through(gentle));
    Some((at, len))
}

/// A file read slowly and without a trace in the page cache.
struct Gentle {
    broker: Arc<Broker>,
    file: Arc<dyn DiskFile>,
}

impl std::fmt::Debug for Gentle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

fn refuse<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl DiskFile for Gentle {
    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        refuse()
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        if self.broker.is_stopping() {
            return Err(io::Error::other("the broker stops"));
        }
        let began = Instant::now();
        let arrivals = || self.file.arrivals().map(|arrivals| arrivals.count());
        let before = arrivals();
        let read = self.file.read_at(buf, position)?;
        if let Some(len) = std::num::NonZeroU64::new(read as u64).filter(|_| before != arrivals()) {
            // Advice only.
            let _ = rustix::fs::fadvise(&*self.file.file(), position, Some(len), rustix::fs::Advice::DontNeed);
        }
        let rate = u64::try_from(self.broker.replicas.config().scrub_rate).unwrap_or(1).max(1);
        let due = Duration::from_micros((read as u64).saturating_mul(1_000_000) / rate);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        Ok(read)
    }

    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        self.file.arrivals()
    }

    fn sync_data(&self) -> io::Result<()> {
        refuse()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn lock(&self) -> io::Result<()> {
        refuse()
    }

    fn file(&self) -> Arc<File> {
        self.file.file()
    }
}
