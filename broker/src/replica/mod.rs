//! Partitions on this broker: the log, its offsets, who waits for them, and when it is flushed; leaders, followers and
//! the fetching between them.

pub mod fetcher;
pub mod flush;
pub mod follower;
pub mod intake;
pub mod isr;
pub mod leader;
pub mod partition;
pub mod peers;
pub mod refill;
pub mod refusals;
pub mod repair;
pub mod replicas;
pub mod retries;
pub mod roles;
pub mod scrub;
pub mod session;
#[cfg(test)]
mod size_test;
pub mod spread;
pub mod storage;
pub mod throttle;
pub mod waiting;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use fetcher::{Peers, Surroundings};
use isr::ControllerChannel;

/// Begins to follow leaders and to look after in-sync replicas: the broker is registered, under `broker_epoch`. The
/// partitions' roles themselves follow the metadata; see [`replicas::Replicas::follow`].
pub fn start(broker: &Arc<Broker>, broker_epoch: i64, peers: Arc<dyn Peers>, controller: Arc<dyn ControllerChannel>) {
    broker.replicas.around.broker_epoch.store(broker_epoch, Ordering::Release);
    let [failed, full, cut] = [(); 3].map(|()| Arc::downgrade(broker));
    broker.replicas.fetchers.start(Surroundings {
        peers,
        clock: broker.clock.clone(),
        flusher: broker.replicas.flusher.clone(),
        offline: Box::new(move |error| {
            if let Some(broker) = failed.upgrade() {
                broker.log_dir_failed(error);
            }
        }),
        full: Box::new(move |partition, error| {
            if let Some(broker) = full.upgrade() {
                broker.replication_is_full(partition, error);
            }
        }),
        truncated: Box::new(move || {
            let Some(broker) = cut.upgrade() else { return };
            if let Err(error) = broker.replicas.write_checkpoints() {
                tracing::error!(%error, "recovery points not written after a cut");
            }
        }),
        runtime: tokio::runtime::Handle::current(),
        patience: fetcher::PATIENCE,
    });
    tokio::spawn(isr::run(broker.clone(), controller));
    tokio::spawn(isr::watch_lag(broker.clone()));
    tokio::spawn(repair::run(broker.clone()));
    tokio::spawn(scrub::run(broker.clone()));
}
