//! Start and stop order of a broker.
//!
//! Start: admin HTTP, log directory, metadata log, listeners, registration, partitions; clients that come
//! earlier wait. Stop, the other way round: others take over, listeners, connections, logs, metadata log,
//! admin HTTP; then the directory is marked clean. Requests run on one runtime; the quorum, heartbeats, group
//! timers and admin HTTP on a small one of their own, so that a page-cache write that stalls never delays them.

mod follow;
mod open;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::broker::{Broker, Stop};
use crate::cluster::forward::IsrChannel;
use crate::cluster::lifecycle::Standing;
use crate::cluster::whereabouts;
use crate::config::BrokerConfig;
use crate::replica::peers::ByImage;
use crate::{cleaner, controller, maintenance, replica, tls};
use open::Opened;
use signals::Signals;

/// Exit code for a configuration that cannot be used.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code for storage that failed.
pub const EXIT_STORAGE: u8 = 3;
/// Exit code for a broken invariant.
pub const EXIT_BROKEN: u8 = 70;

/// Why a broker did not start: what to print, and the exit code.
#[derive(Debug)]
pub struct NoStart {
    code: u8,
    why: String,
}

impl NoStart {
    fn config(why: impl ToString) -> Self {
        Self { code: EXIT_CONFIG, why: why.to_string() }
    }

    fn storage(why: impl ToString) -> Self {
        Self { code: EXIT_STORAGE, why: why.to_string() }
    }
}

/// Runs a broker until it is told to stop.
pub fn run(config: BrokerConfig) -> ExitCode {
    let code = match start_and_wait(config) {
        Ok(Stop::No | Stop::Asked) => return ExitCode::SUCCESS,
        Ok(Stop::Refused(why)) => {
            tracing::error!(why, "stopped: the cluster does not take this broker");
            EXIT_CONFIG
        }
        Ok(Stop::Storage(why)) => {
            tracing::error!(why, "stopped: the storage failed");
            EXIT_STORAGE
        }
        Ok(Stop::Broken(why)) => {
            tracing::error!(why, "stopped: an invariant is broken");
            EXIT_BROKEN
        }
        Err(NoStart { code, why }) => {
            tracing::error!("not started: {why}");
            code
        }
    };
    ExitCode::from(code)
}

fn start_and_wait(config: BrokerConfig) -> Result<Stop, NoStart> {
    open::check_supported(&config)?;
    let control = runtime("control", 1)?;
    let requests = runtime("worker", config.worker_threads)?;
    let stop = requests.block_on(async {
        let signals = Signals::new().map_err(|e| NoStart { code: EXIT_BROKEN, why: format!("signals: {e}") });
        let mut signals = signals?;
        tracing::info!(log_dirs = ?config.log_dirs, node_id = config.node_id, "broker starts");
        tokio::select! {
            opened = open::open(config, &control) => serve(opened?, &control, signals).await,
            () = signals.received() => {
                tracing::info!("stopped during the start");
                Ok(Stop::Asked)
            }
        }
    });
    // What still runs is idle or blocked on a peer; nothing of it holds data.
    requests.shutdown_timeout(Duration::from_millis(500));
    control.shutdown_timeout(Duration::from_millis(500));
    stop
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, NoStart> {
    let mut builder = Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder
        .thread_name(name)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .map_err(|e| NoStart { code: EXIT_BROKEN, why: format!("no threads: {e}") })
}

/// Serves until the broker is to stop, then stops it in order.
async fn serve(opened: Opened, control: &Runtime, signals: Signals) -> Result<Stop, NoStart> {
    let Opened { broker, listeners, introduction, admin } = opened;
    let bound = listeners.iter().filter_map(|l| Some(format!("{}://{}", l.name(), l.address().ok()?)));
    let listeners_text = bound.collect::<Vec<_>>().join(",");
    let mut accepting = Vec::new();
    for listener in listeners {
        // A listener that only nodes use must not wait behind clients.
        let accept = listener.serves_only_nodes();
        let task = listener.accept(broker.clone());
        accepting.push(if accept { control.spawn(task) } else { tokio::spawn(task) });
    }
    control.spawn(reap(broker.clone()));
    control.spawn(watch_quorum(broker.clone()));
    if broker.tls.is_used() {
        control.spawn(watch_certificates(broker.clone()));
    }
    control.spawn(controller::active::run(broker.clone()));
    control.spawn(whereabouts::keep(broker.clone()));
    let registering = broker.clone();
    control.spawn(async move { registering.lifecycle.run(&registering, introduction).await });
    tokio::spawn(stop_when_asked(broker.clone(), signals));

    let started = tokio::select! {
        started = start(&broker, control) => started,
        _ = broker.stopping() => Ok(()),
    };
    if let Err(NoStart { code, why }) = started {
        tracing::error!("not started: {why}");
        broker.stop(if code == EXIT_STORAGE { Stop::Storage(why) } else { Stop::Refused(why) });
    }
    if !broker.is_stopping() {
        let (node_id, cluster_id) = (broker.config.node_id, broker.controller.cluster_id());
        tracing::info!(node_id, %cluster_id, listeners = listeners_text, "broker started");
    }

    let reason = broker.stopping().await;
    for accept in accepting {
        // It ends by itself once the broker stops.
        let _ = accept.await;
    }
    broker.connections.stop().await;
    let (closing, epoch) = (broker.clone(), broker.lifecycle.epoch());
    let closed = tokio::task::spawn_blocking(move || closing.replicas.close(epoch));
    let closed = follow::telling_progress(&broker, "closing partitions", closed).await;
    broker.controller.quorum().shutdown().await;
    admin.stop();
    match closed {
        Ok(Ok(())) => {
            tracing::info!("broker stopped");
            Ok(reason)
        }
        Ok(Err(error)) if reason == Stop::Asked => Ok(Stop::Storage(error.to_string())),
        Ok(Err(_)) => Ok(reason),
        Err(panic) => Ok(Stop::Broken(format!("closing the logs: {panic}"))),
    }
}

/// Waits until the metadata has caught up with this broker's registration, opens its partitions, and lets
/// clients in once it takes part.
async fn start(broker: &Arc<Broker>, control: &Runtime) -> Result<(), NoStart> {
    let mut standing = broker.lifecycle.standing();
    let registered = standing.wait_for(|standing| *standing != Standing::Unregistered).await.map(|_| ());
    registered.map_err(|_| NoStart::config("the broker was not registered"))?;
    // The registration's epoch is an offset of the metadata log: from there on everything older is known.
    broker.controller.caught_up(u64::try_from(broker.lifecycle.epoch()).unwrap_or(0)).await;
    let weak = Arc::downgrade(broker);
    let (peers, channel) = (Arc::new(ByImage(weak.clone())), Arc::new(IsrChannel(weak)));
    replica::start(broker, broker.lifecycle.epoch(), peers, channel);
    follow::begin(broker).await?;
    let flusher = broker.replicas.flusher.clone();
    let (clock, failed) = (broker.clone(), broker.clone());
    tokio::spawn(async move { flusher.run(&clock.clock, &clock.metrics, |error| failed.log_dir_failed(error)).await });
    let timers = broker.clone();
    control.spawn(async move { timers.groups.run_timers(&timers).await });
    tokio::spawn(maintenance::run(broker.clone()));
    tokio::spawn(cleaner::run(broker.clone()));
    // Its task ends only when it has leave to stop.
    let _ = standing.wait_for(|standing| *standing != Standing::Fenced).await;
    broker.set_ready();
    Ok(())
}

/// Stops the broker on the first signal, after others have taken over from it; at once on the second.
async fn stop_when_asked(broker: Arc<Broker>, mut signals: Signals) {
    signals.received().await;
    tracing::info!("stopping");
    let others = broker.controller.image().brokers().any(|b| b.id != broker.config.node_id && b.is_active());
    if broker.config.cluster.controlled_shutdown && others {
        let hand_over = async {
            broker.lifecycle.leave().await;
            // While the listeners are open: the next controller is heard, and need not be waited for.
            if let Err(error) = broker.controller.quorum().resign().await {
                tracing::debug!(%error, "the quorum's leadership is not handed over");
            }
        };
        tokio::select! {
            () = hand_over => {}
            () = signals.received() => tracing::warn!("stopping at once"),
        }
    }
    broker.stop(Stop::Asked);
}

/// Ends idle connections and takes the buffers of pausing ones.
async fn reap(broker: Arc<Broker>) {
    let idle_max_ms = broker.config.connections_max_idle_ms.and_then(|ms| i64::try_from(ms).ok());
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let short = broker.requests.is_short();
                for _ in 0..broker.connections.reap(broker.clock.now_ms(), idle_max_ms, short) {
                    broker.metrics.connection_expired();
                }
            }
            _ = broker.stopping() => return,
        }
    }
}

/// Stops the broker when the metadata log fails, since going on without it would accept what cannot be kept, and when
/// the cluster it was to join is another one.
async fn watch_quorum(broker: Arc<Broker>) {
    let quorum = broker.controller.quorum();
    tokio::select! {
        error = quorum.failed() => broker.stop(Stop::Storage(format!("the metadata log: {error}"))),
        why = quorum.refused() => broker.stop(Stop::Refused(format!(
            "the nodes that it was told to join belong to another cluster: {why}. Either cluster.id or the addresses \
             in controller.quorum.bootstrap.servers or controller.quorum.voters are wrong"
        ))),
    }
}

/// Reads certificates and keys again when they change.
async fn watch_certificates(broker: Arc<Broker>) {
    let mut tick = tokio::time::interval(tls::LOOK_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let looking = broker.clone();
                // A volume that hangs must not hold up the quorum.
                let look = move || looking.tls.look(&looking.replicas.config().tls);
                let _ = tokio::task::spawn_blocking(look).await;
            }
            _ = broker.stopping() => return,
        }
    }
}
