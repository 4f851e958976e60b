//! Housekeeping of the logs, on blocking threads: retention, removal of files, fsync by `flush.ms`,
//! checkpoints, and closing the files of partitions that nobody uses.
//!
//! Each round visits one partition at a time and holds its lock only for that visit.

use std::sync::Arc;
use std::time::Duration;

use klamm_log::LogError;
use klamm_log::dirs::DirError;
use tokio::time::{MissedTickBehavior, interval};

use crate::broker::{Broker, Stop};
use crate::clock::Clock;
use crate::replica::partition::Partition;
use crate::replica::replicas::Replicas;

/// How often renamed files are looked at, and `flush.ms` is checked.
const TICK: Duration = Duration::from_secs(1);

/// How often files of idle partitions are closed.
const CLOSE_IDLE: Duration = Duration::from_secs(30);

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(100));
    let every = |period| {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval.reset();
        interval
    };
    let mut tick = every(TICK);
    let mut idle = every(CLOSE_IDLE);
    let mut retention = every(ms(broker.config.retention_check_interval_ms));
    let mut high_watermarks = every(ms(broker.config.replication.high_watermark_checkpoint_interval_ms));
    let mut checkpoint = every(ms(broker.config.recovery_checkpoint_interval_ms));
    loop {
        let round: fn(&Broker) -> Result<(), DirError> = tokio::select! {
            _ = tick.tick() => |broker| { flush_by_time(broker); remove_files(&broker.replicas, &broker.clock) },
            _ = retention.tick() => |broker| apply_retention(&broker.replicas, &broker.clock),
            _ = checkpoint.tick() => write_checkpoints,
            _ = high_watermarks.tick() => |broker| {
                let written = broker.replicas.write_high_watermarks();
                written.and(let_go_of_kept(&broker.replicas, &broker.clock))
            },
            _ = idle.tick() => |broker| close_idle(&broker.replicas),
            _ = broker.stopping() => return,
        };
        broker.clock.observe();
        let working = broker.clone();
        match tokio::task::spawn_blocking(move || round(&working)).await {
            Ok(Ok(())) => {}
            Ok(Err(DirError::Log(error))) if error.is_disk_failure() => broker.log_dir_failed(&error),
            Ok(Err(error)) => tracing::error!(%error, "housekeeping failed; it is tried again"),
            Err(panic) => broker.stop(Stop::Broken(format!("housekeeping: {panic}"))),
        }
    }
}

/// Visits every partition; one that fails does not keep the others from their turn.
fn each(replicas: &Replicas, mut visit: impl FnMut(&Arc<Partition>) -> Result<(), LogError>) -> Result<(), DirError> {
    let mut result = Ok(());
    for partition in replicas.partitions() {
        if let Err(error) = visit(&partition) {
            result = result.and(Err(error.into()));
        }
    }
    result
}

fn flush_by_time(broker: &Broker) {
    let now_ms = broker.clock.settled_ms();
    for hosted in broker.replicas.topics() {
        if hosted.topic.config().log.flush_ms == i64::MAX {
            continue;
        }
        for partition in hosted.partitions() {
            if partition.with_log(|log| log.flush_due(now_ms)) {
                broker.replicas.flusher.flush_later(&partition);
            }
        }
    }
}

/// Removes the files whose delay is over.
///
/// # Errors
/// One could not be removed; it is tried again.
pub fn remove_files(replicas: &Replicas, clock: &Clock) -> Result<(), DirError> {
    let now_ms = clock.settled_ms();
    let due: Vec<_> = replicas.take_trashed();
    let mut result = Ok(());
    for partition in due {
        let (removed, left) = partition.with_log(|log| (log.delete_expired_files(now_ms), log.next_file_deletion_ms()));
        if left.is_some() {
            replicas.trashed(&partition);
        }
        result = result.and(removed.map(|_| ()));
    }
    Ok(result.and(replicas.storage().remove_doomed(now_ms))?)
}

/// Lets go of what has been kept for long enough, and of producers that were silent for as long.
///
/// # Errors
/// A partition's, after all others have had their turn.
pub fn apply_retention(replicas: &Replicas, clock: &Clock) -> Result<(), DirError> {
    let now_ms = clock.settled_ms();
    let age_ms = clock.age_ms();
    each(replicas, |partition| {
        let high_watermark = partition.offsets().high_watermark;
        let removed = partition.with_log(|log| {
            log.expire_producers(clock.now_ms(), now_ms);
            log.apply_retention(age_ms, high_watermark)
        })?;
        if removed > 0 {
            tracing::info!(partition = %partition.dir_name(), segments = removed, "retention removed segments");
            replicas.trashed(partition);
        }
        Ok(())
    })
}

/// Removes what repairs have kept and do not need any more.
///
/// # Errors
/// A partition's, after all others have had their turn.
pub fn let_go_of_kept(replicas: &Replicas, clock: &Clock) -> Result<(), DirError> {
    each(replicas, |partition| {
        for file in partition.let_go_of_kept(clock.settled_ms())? {
            tracing::info!(file = %file.display(), "what a repair had kept is here again: removed");
            replicas.storage().remove_file(&file)?;
        }
        Ok(())
    })
}

fn write_checkpoints(broker: &Broker) -> Result<(), DirError> {
    broker.replicas.write_checkpoints()
}

/// Closes the files that nobody has used since the last time.
///
/// # Errors
/// A partition's, after all others have had their turn.
pub fn close_idle(replicas: &Replicas) -> Result<(), DirError> {
    each(replicas, |partition| partition.with_log(|log| log.close_idle_files()))
}
