//! Log compaction in the background: one partition at a time, on a blocking thread.
//!
//! The log decides whether compacting it is worth it and swaps the result in, both under its lock; the
//! work between holds none, so appends and reads go on.

use std::sync::Arc;
use std::time::Duration;

use klamm_log::{CompactionLimits, LogError};

use crate::broker::{Broker, Stop};
use crate::replica::intake;
use crate::replica::partition::Partition;

/// Pause between rounds: the default of Kafka's `log.cleaner.backoff.ms`.
const PAUSE: Duration = Duration::from_secs(15);

/// Keys that one run remembers: about 16 MB.
const KEYS_MAX: usize = 400_000;

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = broker.stopping() => return,
        }
        let working = broker.clone();
        if let Err(panic) = tokio::task::spawn_blocking(move || round(&working)).await {
            broker.stop(Stop::Broken(format!("compaction: {panic}")));
        }
    }
}

/// Looks at every compacted partition once.
fn round(broker: &Broker) {
    let mut cleaned = false;
    for hosted in broker.replicas.topics() {
        if !hosted.topic.config().log.compact {
            continue;
        }
        for partition in hosted.partitions() {
            match compact(broker, &partition) {
                Ok(compacted) => cleaned |= compacted,
                Err(error) if error.is_disk_failure() => broker.log_dir_failed(&error),
                Err(error) => tracing::error!(partition = %partition.dir_name(), %error, "not compacted"),
            }
        }
    }
    if cleaned && let Err(error) = broker.replicas.write_cleaner_checkpoint() {
        tracing::error!(%error, "how far logs are compacted could not be written");
    }
}

fn compact(broker: &Broker, partition: &Arc<Partition>) -> Result<bool, LogError> {
    if partition.is_deleted() {
        return Ok(false);
    }
    let now_ms = broker.clock.age_ms();
    let high_watermark = partition.offsets().high_watermark;
    let Some(begun) = partition.with_log(|log| log.begin_compaction(high_watermark, now_ms))? else { return Ok(false) };
    let (from, to) = begun.range();
    // One unpacked batch is held at a time, and none was let in that unpacks to more.
    let max_decompressed = intake::unpacked_bytes_max(&partition.topic.config());
    let done = begun.run(CompactionLimits { keys: KEYS_MAX, max_decompressed })?;
    let (read, written) = done.bytes;
    let segments = partition.with_log(|log| log.finish_compaction(done, broker.clock.settled_ms()))?;
    broker.replicas.trashed(partition);
    tracing::info!(partition = %partition.dir_name(), from, to, read, written, segments, "compacted");
    Ok(true)
}
