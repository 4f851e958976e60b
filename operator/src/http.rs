//! Health and metrics: `/livez`, `/readyz`, `/metrics`.
//!
//! Alive means that the process answers; ready, that the resource types are known to the API server and, for the one
//! that leads, that its controllers run. A process that waits for the lease is ready: it could take over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the server tells.
#[derive(Clone, Debug)]
pub struct Health {
    ready: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Health {
    /// Not ready yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { ready: Arc::default(), metrics }
    }

    /// From now on `/readyz` says so.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

/// Serves until the process ends.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, app).await
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    match health.ready.load(Ordering::Acquire) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the resource types: kubectl apply -f crds/\n"),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], health.metrics.text())
}
