//! Producer ids: the controller gives blocks of them, this broker hands them out one by one.

use std::ops::Range;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::AllocateProducerIdsRequest;
use tokio::sync::Mutex;

use crate::broker::Broker;

/// Ids that the controller gave to this broker and that no producer has yet.
#[derive(Debug, Default)]
pub struct ProducerIds(Mutex<Range<i64>>);

impl ProducerIds {
    /// An id that nobody else has or will have.
    ///
    /// # Errors
    /// The controller gave no further block.
    pub async fn next(&self, broker: &Arc<Broker>) -> Result<i64, ErrorCode> {
        let mut block = self.0.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let request = AllocateProducerIdsRequest {
            broker_id: broker.config.node_id,
            broker_epoch: broker.lifecycle.epoch(),
            ..Default::default()
        };
        let given = broker.forwarder.ask(broker, &request).await?;
        if given.error_code != 0 {
            return Err(ErrorCode::from_code(given.error_code));
        }
        *block = given.producer_id_start..given.producer_id_start.saturating_add(given.producer_id_len.into());
        block.next().ok_or(ErrorCode::UnknownServerError)
    }
}
