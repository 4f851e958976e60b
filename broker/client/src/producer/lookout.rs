//! Who leads by now, asked over connections of its own.
//!
//! Brokers answer each connection in order. While a follower is missing, every connection of a producer that waits for
//! all replicas has writes parked on it, and metadata asked over it comes when they are done: too late to find out who
//! leads in place of a leader that is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::sender::LATE;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::error::Result;

/// Asks for the topics in the cache; many who ask at the same time share one answer.
pub(super) struct Lookout {
    client: Client,
    looked: Mutex<Looked>,
}

struct Looked {
    /// When the last answer was asked for, and what came of it.
    last: Option<(Instant, Result<Arc<Cluster>>)>,
    /// How long each broker is given. When none has answered, all of them may only be slow: it doubles.
    patience: Duration,
}

impl Lookout {
    /// Shares the client's metadata, and none of its connections.
    pub(super) fn of(client: &Client) -> Self {
        Self { client: client.apart(), looked: Mutex::new(Looked { last: None, patience: LATE }) }
    }

    /// The cluster as it is now.
    pub(super) async fn look(&self) -> Result<Arc<Cluster>> {
        let since = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some((at, answer)) = &looked.last
            && *at >= since
        {
            return answer.clone();
        }
        let asked = Instant::now();
        let answer = self.client.refresh_known_soon(looked.patience).await;
        let longest = self.client.options().connection.request_timeout;
        looked.patience = if answer.is_ok() { LATE } else { (looked.patience * 2).min(longest.max(LATE)) };
        looked.last = Some((asked, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientOptions;
    use crate::client::tests::brokers;

    #[tokio::test]
    async fn what_is_parked_on_the_clients_connections_is_not_waited_for_and_one_answer_does_for_many() {
        // Each connection gets three answers. The client's first two were for its own questions.
        let client = Client::connect(&brokers(&[3]).await, ClientOptions::default()).await.expect("an answer");
        client.refresh(Some(&[])).await.expect("the last answer");
        let lookout = Lookout::of(&client);
        let looks = tokio::join!(lookout.look(), lookout.look(), lookout.look(), lookout.look());
        assert!(matches!(looks, (Ok(_), Ok(_), Ok(_), Ok(_))), "{looks:?}");
        assert!(lookout.look().await.is_err(), "no fourth answer: {:?}", lookout.looked.lock().await.patience);
        assert_eq!(lookout.looked.lock().await.patience, LATE * 2, "slow, or gone");
    }
}
