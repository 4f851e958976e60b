//! Which of several operators acts: the one that holds the Lease `klamm-operator`.
//!
//! Who loses it ends the process: work that is under way must not go on beside the next holder's.

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::settings::Settings;

const NAME: &str = "klamm-operator";
/// Seconds after which a silent holder is replaced.
const DURATION: u64 = 15;
/// Seconds before that by which it has renewed.
const GRACE: u64 = 5;

/// The Lease, held or waited for.
pub struct Lease {
    held: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lease {
    /// Begins to try for it.
    ///
    /// # Errors
    /// The API server's.
    pub async fn watch(client: Client, settings: &Settings) -> Result<Self, LeaseManagerError> {
        let manager = LeaseManagerBuilder::new(client, NAME)
            .with_namespace(&settings.namespace)
            .with_identity(&settings.identity)
            .with_field_manager(format!("{NAME}-lease-{}", settings.identity))
            .with_duration(DURATION)
            .with_grace(GRACE)
            .build()
            .await?;
        let (held, task) = manager.watch().await;
        Ok(Self { held, task })
    }

    /// Resolves once it is held.
    pub async fn acquired(&mut self) {
        if self.held.wait_for(|held| *held).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves once it is lost.
    pub async fn lost(&mut self) {
        // A task that has ended renews nothing.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives it back. Another one that waits looks when it would have run out; one that starts has it at once.
    pub async fn release(self) {
        drop(self.held);
        match self.task.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease is not given back"),
            Err(error) => tracing::warn!(%error, "the lease is not given back"),
        }
    }
}
