//! Blocks of producer ids: a broker takes one and hands the ids out by itself.

use std::ops::Range;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::ProducerIdsRecord;

use super::{ApiError, Decision};
use crate::image::Image;

/// Ids in a block.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Gives a block of producer ids to a broker.
pub fn allocate_producer_ids(
    image: &Image,
    broker_id: i32,
    broker_epoch: i64,
) -> Result<Decision<Range<i64>>, ApiError> {
    let broker = image.broker(broker_id).ok_or(ErrorCode::StaleBrokerEpoch)?;
    if broker.epoch != broker_epoch {
        let text = format!("Expected broker epoch {}, but got broker epoch {broker_epoch}", broker.epoch);
        return Err(ApiError::new(ErrorCode::StaleBrokerEpoch, text));
    }
    let first = image.next_producer_id();
    let next_producer_id = first
        .checked_add(PRODUCER_ID_BLOCK)
        .ok_or_else(|| ApiError::new(ErrorCode::UnknownServerError, "All producer ids have been given away."))?;
    let record = ProducerIdsRecord { broker_id, broker_epoch, next_producer_id };
    Ok(Decision { records: vec![record.into()], response: first..next_producer_id })
}
