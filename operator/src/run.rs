//! `klamm-operator run`: starts everything in order and ends it in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api;
use crate::controllers::{self, Context};
use crate::crd::{self, Cluster, ConsumerGroup, Topic};
use crate::http::{self, Health};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::settings::{Kind, LogFormat, Settings};

/// How long work under way may take once the operator is to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How often ways to brokers are looked through for those that nobody uses.
const LOOK_THROUGH: Duration = Duration::from_secs(60);
/// The longest pause between two looks at the resource types while the API server fails.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Runs until a signal, or until the lease is lost, which is an error.
///
/// # Errors
/// What keeps it from starting, or ended it.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    prepare(&settings)?;
    let mut asked = asked_to_stop()?;
    let metrics = Metrics::new()?;
    let health = Health::new(metrics.clone());
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("{}", settings.listen))?;
    tokio::spawn(http::serve(listener, health.clone()));
    let client = api::client().await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = settings.identity, "operator starts");

    let settings = Arc::new(settings);
    let work = work(client, settings, metrics, health, asked.clone());
    tokio::select! {
        ended = work => ended,
        _ = async { let _ = asked.wait_for(|asked| *asked).await; tokio::time::sleep(STOP_WITHIN).await } => {
            tracing::warn!("stopped with work under way");
            Ok(())
        }
    }
}

/// What a process needs before anything else: where it logs, and cryptography.
///
/// # Errors
/// `--log` makes no sense.
pub fn prepare(settings: &Settings) -> anyhow::Result<()> {
    logging(settings)?;
    // One provider of cryptography in all of Klamm: ring. Set already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

async fn work(
    client: Client,
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    mut asked: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = types_known(&client) => {}
        _ = asked.wait_for(|asked| *asked) => return Ok(()),
    }
    health.set_ready();
    let mut lease = None;
    if settings.leader_election {
        let mut held = Lease::watch(client.clone(), &settings);
        tokio::select! {
            () = held.acquired() => {}
            _ = asked.wait_for(|asked| *asked) => {
                held.release().await;
                return Ok(());
            }
        }
        tracing::info!("this operator leads");
        lease = Some(held);
    }
    metrics.leads(true);
    let mut controllers = start(&Context::new(client, settings, metrics)?, &asked);
    let lost = async {
        match &mut lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = lost => anyhow::bail!("the lease is lost: another operator leads"),
        () = async { while controllers.join_next().await.is_some() {} } => {}
    }
    if let Some(lease) = lease {
        lease.release().await;
    }
    Ok(())
}

/// Starts the controllers, one for each kind and namespace; they end when it is asked for.
fn start(context: &Context, asked: &watch::Receiver<bool>) -> JoinSet<()> {
    let stop = || {
        let mut asked = asked.clone();
        async move {
            let _ = asked.wait_for(|asked| *asked).await;
        }
    };
    // All watches are known before the first controller works: some look at what others watch.
    let mut all: Vec<BoxFuture<'static, ()>> = Vec::new();
    for namespace in context.settings.namespaces() {
        let wanted = |kind| context.settings.controllers.contains(&kind);
        all.push(match wanted(Kind::Clusters) {
            true => Box::pin(controllers::controller::<Cluster>(context, namespace.clone(), stop())),
            false => Box::pin(controllers::observe::<Cluster>(context, namespace.as_deref(), stop())),
        });
        if wanted(Kind::Topics) {
            all.push(Box::pin(controllers::controller::<Topic>(context, namespace.clone(), stop())));
        }
        if wanted(Kind::ConsumerGroups) {
            all.push(Box::pin(controllers::controller::<ConsumerGroup>(context, namespace, stop())));
        }
    }
    let (ways, ended) = (context.ways.clone(), stop());
    all.push(Box::pin(async move {
        let looks = async {
            loop {
                tokio::time::sleep(LOOK_THROUGH).await;
                ways.forget_unused();
            }
        };
        tokio::select! {
            () = looks => {}
            () = ended => {}
        }
    }));
    all.into_iter().collect()
}

/// Resolves once the API server serves the resource types.
async fn types_known(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, definition) in crd::definitions() {
        let name = definition.metadata.name.unwrap_or_default();
        let mut pause = Duration::from_secs(1);
        // Whoever is ended by an API server that is not there yet comes back no sooner.
        while let Err(error) = await_condition(api.clone(), &name, conditions::is_crd_established()).await {
            tracing::warn!(name, %error, again_in_s = pause.as_secs(), "a resource type cannot be looked at");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN);
        }
    }
}

/// True once SIGTERM or SIGINT has come.
fn asked_to_stop() -> anyhow::Result<watch::Receiver<bool>> {
    let (told, asked) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        told.send_replace(true);
        std::future::pending::<()>().await;
    });
    Ok(asked)
}

fn logging(settings: &Settings) -> anyhow::Result<()> {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter: tracing_subscriber::filter::Targets =
        settings.log.parse().with_context(|| format!("--log {:?}", settings.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => registry.with(lines).init(),
    }
    Ok(())
}
