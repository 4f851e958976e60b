//! The one place where errors of the lower crates become Kafka's error codes.

use klamm_log::LogError;
use klamm_protocol::ErrorCode;

/// The code a client gets for a log's error.
pub fn of_log(error: &LogError) -> ErrorCode {
    match error {
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        LogError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        LogError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        LogError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        LogError::RecordListTooLarge { .. } => ErrorCode::RecordListTooLarge,
        LogError::BadBatch(bad) => bad.error_code(),
        LogError::OffsetsOutOfOrder { .. }
        | LogError::TopicIdMismatch { .. }
        | LogError::DiskFull { .. }
        | LogError::Io { .. }
        | LogError::Corrupt(_)
        | LogError::Offline { .. } => ErrorCode::KafkaStorageError,
    }
}
