//! Keeps this broker's partitions in line with the metadata: opens them at the start, follows each change,
//! and publishes an image to clients once it holds here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm_metadata::Image;

use super::NoStart;
use crate::broker::{Broker, Stop};
use crate::coordinator::{OFFSETS_TOPIC, guard};
use crate::replica::partition::Partition;
use crate::replica::replicas::Followed;

/// How often partitions that could not be opened are tried again.
const REOPEN_EVERY: Duration = Duration::from_secs(10);

/// How often a start or stop that takes long says how far it has got.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Opens the partitions of the committed image, publishes it, and goes on following from there.
///
/// # Errors
/// The log directory cannot be read or written.
pub async fn begin(broker: &Arc<Broker>) -> Result<(), NoStart> {
    let clean = broker.replicas.storage().was_clean();
    let (image, offset, _) = broker.controller.take_changes();
    let opening = (broker.clone(), image.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let (broker, image) = opening;
        broker.replicas.storage().set_strays_aside(&image, || broker.random.uuid())?;
        let followed = broker.replicas.open_all(&image, &broker.clock);
        broker.replicas.storage().restore_log_starts(&broker.replicas.partitions())?;
        Ok::<_, klamm_log::dirs::DirError>(followed)
    });
    let began = Instant::now();
    let opened = telling_progress(broker, "opening partitions", opened).await;
    let followed = opened.map_err(NoStart::storage)?.map_err(NoStart::storage)?;
    let partitions = broker.replicas.partitions().len();
    if partitions > 0 {
        let ms = began.elapsed().as_millis();
        tracing::info!(partitions, after_clean_stop = clean, ms, "partitions opened");
    }
    tell_groups(broker, &image, followed);
    broker.groups.guard(broker, &image);
    broker.controller.publish(image, offset);
    tokio::spawn(publish(broker.clone()));
    tokio::spawn(reopen(broker.clone()));
    Ok(())
}

/// Waits for `task`, which works on all partitions, and says every few seconds how far it has got.
pub async fn telling_progress<T>(
    broker: &Broker,
    what: &str,
    mut task: tokio::task::JoinHandle<T>,
) -> Result<T, tokio::task::JoinError> {
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    tick.reset();
    loop {
        tokio::select! {
            result = &mut task => return result,
            _ = tick.tick() => if let Some((done, total)) = broker.replicas.progress() {
                tracing::info!(done, total, "{what}");
            }
        }
    }
}

/// Brings this broker in line with each committed image and publishes it, for as long as it runs.
async fn publish(broker: Arc<Broker>) {
    loop {
        broker.controller.committed().await;
        let (image, offset, changes) = broker.controller.take_changes();
        if changes.is_empty() {
            broker.controller.publish(image, offset);
            continue;
        }
        let following = (broker.clone(), image.clone());
        let may_have_grown = guard::is_concerned(&changes);
        let followed = tokio::task::spawn_blocking(move || {
            let (broker, image) = following;
            broker.replicas.follow(&image, &changes, &|| broker.random.uuid(), &broker.clock)
        });
        match followed.await {
            Ok(followed) => tell_groups(&broker, &image, followed),
            Err(panic) => broker.stop(Stop::Broken(format!("following the metadata: {panic}"))),
        }
        if may_have_grown {
            broker.groups.guard(&broker, &image);
        }
        broker.controller.publish(image, offset);
    }
}

fn tell_groups(broker: &Arc<Broker>, image: &Arc<Image>, followed: Followed) {
    broker.groups.set_image(image);
    if followed.deleted.iter().any(|(name, _)| name == OFFSETS_TOPIC) {
        broker.groups.release();
    }
    if let Some(topic) = image.topic(OFFSETS_TOPIC) {
        broker.groups.set_partitions(topic.partitions.len());
    }
    let offsets = |partition: &Arc<Partition>| &*partition.topic.name == OFFSETS_TOPIC;
    for partition in followed.unled.iter().filter(|p| offsets(p)) {
        broker.groups.unload(partition.index);
    }
    let ours: Vec<_> = followed.led.into_iter().filter(offsets).collect();
    if !ours.is_empty() {
        broker.groups.take_over(broker, ours);
    }
    if !followed.deleted.is_empty() {
        broker.groups.on_topics_deleted(broker, &followed.deleted);
    }
}

/// Tries again to open partitions that could not be opened: the disk may have room by now, or the damage be mended.
async fn reopen(broker: Arc<Broker>) {
    let mut tick = tokio::time::interval(REOPEN_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = broker.replicas.reopen_soon.notified() => {}
            _ = broker.stopping() => return,
        }
        if broker.replicas.offline_count() == 0 {
            continue;
        }
        let image = broker.controller.image();
        let trying = (broker.clone(), image.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let (broker, image) = trying;
            broker.replicas.reopen(&image, &broker.clock)
        });
        match opened.await {
            Ok(followed) => tell_groups(&broker, &image, followed),
            Err(panic) => broker.stop(Stop::Broken(format!("opening partitions: {panic}"))),
        }
    }
}
