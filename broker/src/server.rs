//! Start and stop order of a broker.
//!
//! Start: admin HTTP, log directory, metadata log, partitions, listeners. Stop, the other way round: listeners,
//! connections, logs, metadata log, admin HTTP; then the directory is marked clean. Requests run on one runtime;
//! metadata, group timers and admin HTTP on a small one of their own, so that a page-cache write that
//! stalls never delays them.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm_metadata::controller::{Decision, Progress, Registration, elect_leaderless, register_broker};
use klamm_metadata::{self as metadata, Endpoint, Image};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::Admin;
use crate::broker::{Broker, Stop};
use crate::config::{BrokerConfig, Listener as ListenerConfig, SecurityProtocol};
use crate::controller::Controller;
use crate::coordinator::{Groups, OFFSETS_TOPIC};
use crate::metrics::Metrics;
use crate::net::listener::Listener;
use crate::random::Random;
use crate::replica::partition::Partition;
use crate::replica::replicas::{Followed, Replicas};
use crate::replica::storage::Storage;
use crate::{admin, cleaner, logging, maintenance};

/// Exit code for a configuration that cannot be used.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code for storage that failed.
pub const EXIT_STORAGE: u8 = 3;
/// Exit code for a broken invariant.
pub const EXIT_BROKEN: u8 = 70;

/// Name of the metadata log's directory, below the first log directory.
const METADATA_DIR: &str = "__cluster_metadata-0";

/// How often partitions that could not be opened are tried again.
const REOPEN_EVERY: Duration = Duration::from_secs(10);

/// How often a start or stop that takes long says how far it has got.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Why a broker did not start: what to print, and the exit code.
#[derive(Debug)]
struct NoStart {
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
    check_supported(&config)?;
    let control = runtime("control", 1)?;
    let requests = runtime("worker", config.worker_threads)?;
    let stop = requests.block_on(async {
        let mut signals = Signals::new()?;
        tracing::info!(log_dirs = ?config.log_dirs, node_id = config.node_id, "broker starts");
        tokio::select! {
            opened = open(config, &control) => {
                let (broker, listeners, admin) = opened?;
                serve(broker, listeners, admin, &control, signals).await
            }
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

/// What the configuration asks for and this version cannot do.
fn check_supported(config: &BrokerConfig) -> Result<(), NoStart> {
    if let Some(word) = logging::misspelt_level(&config.log_level) {
        let why = format!("klamm.log.level: {word} is no level; expected error, warn, info, debug, trace or off");
        return Err(NoStart::config(why));
    }
    if config.log_dirs.len() > 1 {
        return Err(NoStart::config("log.dirs: one data directory is supported so far; name one"));
    }
    if config.voters.iter().any(|voter| voter.id != config.node_id) {
        return Err(NoStart::config("controller.quorum.voters: a single node is supported so far; name only this one"));
    }
    if let Some(other) = config.listeners.iter().find(|l| l.protocol != SecurityProtocol::Plaintext) {
        let why = format!("listeners: {} is {}; only PLAINTEXT is supported so far", other.name, other.protocol.name());
        return Err(NoStart::config(why));
    }
    Ok(())
}

/// Opens everything, up to bound listeners that do not accept yet.
async fn open(config: BrokerConfig, control: &Runtime) -> Result<(Arc<Broker>, Vec<Listener>, Admin), NoStart> {
    let random = Random;
    let admin = admin::start(config.admin_listener.as_ref(), control).await.map_err(NoStart::config)?;
    let Some(log_dir) = config.log_dirs.first().cloned() else {
        return Err(NoStart::config("log.dirs: at least one data directory is needed"));
    };
    let storage = Storage::open(log_dir, config.node_id, config.cluster_id.as_deref(), || random.uuid());
    let storage = storage.map_err(NoStart::storage)?;
    let clean = storage.was_clean();
    let meta = storage.meta().clone();

    let metadata_dir = config.metadata_dir.join(METADATA_DIR);
    let lost = !has_files(&metadata_dir) && storage.holds_partitions().map_err(NoStart::storage)?;
    if lost {
        let (data, log) = (storage.path().display(), metadata_dir.display());
        return Err(NoStart::storage(format!(
            "{data} holds partitions of cluster {}, but the metadata log that names their topics is gone from {log}. \
             Nothing was changed. Restore it, or start with an empty log.dirs",
            meta.cluster_id
        )));
    }
    let opening = Controller::open(metadata_dir, config.node_id, meta.cluster_id.clone());
    let controller = control.spawn(opening).await.map_err(NoStart::storage)?.map_err(NoStart::storage)?;

    let mut listeners = Vec::new();
    let mut endpoints = Vec::new();
    for wanted in config.listeners.iter().filter(|l| !config.controller_listener_names.contains(&l.name)) {
        let listener =
            Listener::bind(&wanted.name, &wanted.address.host, wanted.address.port, config.listen_backlog).await;
        let listener = listener.map_err(|e| NoStart::config(format!("listeners: cannot bind {wanted}: {e}")))?;
        let bound = listener.address().map_err(NoStart::config)?.port();
        endpoints.extend(config.advertised.iter().find(|l| l.name == wanted.name).map(|l| endpoint(l, bound)));
        listeners.push(listener);
    }

    let metrics = Arc::new(Metrics::new());
    let groups = Groups::new(group_config(&config));
    let replicas = Replicas::new(storage, config.clone(), metrics.clone());
    let broker = Arc::new(Broker::new(config, metrics, replicas, controller, groups));
    admin.show(&broker);
    follow_all(&broker, clean).await?;
    register(&broker, endpoints, meta.directory_id, clean).await?;
    Ok((broker, listeners, admin))
}

fn has_files(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|e| e.file_name() != ".lock" && e.file_name() != "lock"))
    })
}

fn endpoint(listener: &ListenerConfig, bound_port: u16) -> Endpoint {
    Endpoint {
        name: listener.name.clone(),
        host: listener.address.host.clone(),
        port: if listener.address.port == 0 { bound_port } else { listener.address.port },
        security_protocol: listener.protocol.id(),
    }
}

fn group_config(config: &BrokerConfig) -> klamm_group::Config {
    let groups = &config.groups;
    klamm_group::Config {
        session_timeout_ms_min: groups.min_session_timeout_ms,
        session_timeout_ms_max: groups.max_session_timeout_ms,
        initial_rebalance_delay_ms: groups.initial_rebalance_delay_ms,
        group_members_max: usize::try_from(groups.max_size).unwrap_or(usize::MAX),
        offset_metadata_max: usize::try_from(groups.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: groups.offsets_retention_ms,
        offsets_retention_check_interval_ms: groups.offsets_retention_check_interval_ms,
        ..klamm_group::Config::default()
    }
}

/// Opens the partitions of the image that the metadata log left us with, and publishes it.
async fn follow_all(broker: &Arc<Broker>, clean: bool) -> Result<(), NoStart> {
    let (image, offset, _) = broker.controller.take_changes();
    let opening = (broker.clone(), image.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let (broker, image) = opening;
        broker.replicas.storage().set_strays_aside(&image, || broker.random.uuid())?;
        Ok::<_, klamm_log::dirs::DirError>(broker.replicas.open_all(&image, &broker.clock))
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
    broker.controller.publish(image, offset);
    tokio::spawn(publish(broker.clone()));
    Ok(())
}

/// Waits for `task`, which works on all partitions, and says every few seconds how far it has got.
async fn telling_progress<T>(
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
        let followed = tokio::task::spawn_blocking(move || {
            let (broker, image) = following;
            broker.replicas.follow(&image, &changes, &broker.random, &broker.clock)
        });
        match followed.await {
            Ok(followed) => tell_groups(&broker, &image, followed),
            Err(panic) => broker.stop(Stop::Broken(format!("following the metadata: {panic}"))),
        }
        broker.controller.publish(image, offset);
    }
}

fn tell_groups(broker: &Arc<Broker>, image: &Image, followed: Followed) {
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

/// Registers this broker under a new incarnation.
async fn register(
    broker: &Arc<Broker>,
    endpoints: Vec<Endpoint>,
    directory: klamm_protocol::Uuid,
    clean: bool,
) -> Result<(), NoStart> {
    let wanted = Registration {
        cluster_id: broker.controller.cluster_id().to_string(),
        broker: metadata::Broker {
            id: broker.config.node_id,
            epoch: 0,
            incarnation: broker.random.uuid(),
            endpoints,
            features: Vec::new(),
            rack: broker.config.rack.clone(),
            fenced: false,
            in_controlled_shutdown: false,
            log_dirs: vec![directory],
            cordoned_log_dirs: None,
        },
        clean,
        // The lock of the log directory is held: whoever had it is gone.
        predecessor_alive: false,
    };
    let policy = broker.replicas.config().election_policy();
    // Each part of the decision counts when the one before is applied.
    loop {
        let epoch = broker.controller.next_broker_epoch();
        let registered = broker.controller.change(|image| match register_broker(image, &wanted, epoch, &policy) {
            Ok(Decision { records, response }) => Decision { records, response: Ok(response) },
            Err(error) => Decision { records: Vec::new(), response: Err(error) },
        });
        let registered = registered.await.map_err(|code| NoStart::storage(code.name()))?;
        if matches!(registered.map_err(NoStart::config)?, Progress::Done(_)) {
            break;
        }
    }
    loop {
        let elected = broker.controller.change(|image| elect_leaderless(image, &policy));
        if elected.await.map_err(|code| NoStart::storage(code.name()))? == Progress::Done(()) {
            return Ok(());
        }
    }
}

/// Accepts until the broker is to stop, then stops it in order.
async fn serve(
    broker: Arc<Broker>,
    listeners: Vec<Listener>,
    admin: Admin,
    control: &Runtime,
    mut signals: Signals,
) -> Result<Stop, NoStart> {
    let bound = listeners.iter().filter_map(|l| Some(format!("{}://{}", l.name(), l.address().ok()?)));
    let listeners_text = bound.collect::<Vec<_>>().join(",");
    let mut accepting = Vec::new();
    for listener in listeners {
        accepting.push(tokio::spawn(listener.accept(broker.clone())));
    }
    let flusher = broker.replicas.flusher.clone();
    let (clock, failed) = (broker.clone(), broker.clone());
    tokio::spawn(async move { flusher.run(&clock.clock, &clock.metrics, |error| failed.log_dir_failed(error)).await });
    let timers = broker.clone();
    control.spawn(async move { timers.groups.run_timers(&timers).await });
    control.spawn(reap(broker.clone()));
    control.spawn(watch_quorum(broker.clone()));
    tokio::spawn(maintenance::run(broker.clone()));
    tokio::spawn(cleaner::run(broker.clone()));
    let asked = broker.clone();
    tokio::spawn(async move {
        signals.received().await;
        tracing::info!("stopping");
        asked.stop(Stop::Asked);
    });
    tokio::spawn(reopen(broker.clone()));
    broker.set_ready();
    tracing::info!(node_id = broker.config.node_id, cluster_id = %broker.controller.cluster_id(), listeners = listeners_text, "broker started");

    let reason = broker.stopping().await;
    for accept in accepting {
        // It ends by itself once the broker stops.
        let _ = accept.await;
    }
    broker.connections.stop().await;
    let closing = broker.clone();
    let closed = tokio::task::spawn_blocking(move || closing.replicas.close());
    let closed = telling_progress(&broker, "closing partitions", closed).await;
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

/// Stops the broker when the metadata log fails: going on without it would accept what cannot be kept.
async fn watch_quorum(broker: Arc<Broker>) {
    let error = broker.controller.quorum().failed().await;
    broker.stop(Stop::Storage(format!("the metadata log: {error}")));
}

/// The signals that ask a broker to stop. A terminal that closes sends SIGHUP, which the JVM takes the same way.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self, NoStart> {
        let catch = |kind| signal(kind).map_err(|e| NoStart { code: EXIT_BROKEN, why: format!("signals: {e}") });
        Ok(Self([catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?]))
    }

    /// Resolves when one arrives.
    async fn received(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Tries again to open partitions that could not be opened: the disk may have room by now, or the damage be mended.
async fn reopen(broker: Arc<Broker>) {
    let mut tick = tokio::time::interval(REOPEN_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
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
