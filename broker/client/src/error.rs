//! What can go wrong between a client and a cluster, in one cloneable enum.
//!
//! Two questions matter to callers and are answered here only: is it worth trying again
//! ([`ClientError::is_retriable`]), and which Kafka code was it ([`ClientError::code`]).

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::wire::{DecodeError, EncodeError};

/// Result of a client call.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a client call failed. Cheap to clone: one failed batch answers many records.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The address can't be parsed as `host:port[,host:port…]`.
    #[error("bad address {address:?}: expected host:port")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// No TCP connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// The operating system's reason.
        source: Arc<std::io::Error>,
    },
    /// None of the bootstrap addresses answered.
    #[error("no broker of {addresses} can be reached: {last}")]
    NoBroker {
        /// The addresses tried.
        addresses: String,
        /// The last failure seen.
        last: Box<ClientError>,
    },
    /// Metadata names no such broker, or not as a live one.
    #[error("the cluster has no live broker with id {id}")]
    UnknownBroker {
        /// `node.id`.
        id: i32,
    },
    /// The connection ended before the answer came.
    #[error("connection to {address} lost: {reason}")]
    Disconnected {
        /// The peer.
        address: String,
        /// What the connection died of.
        reason: Arc<str>,
    },
    /// No answer in time. The connection is closed, since answers come in order.
    #[error("{what}: no answer within {after:?}")]
    Timeout {
        /// The request, or the operation of several requests.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The broker has no version of the request in common with this client.
    #[error("{address} does not support {api} in a version this client speaks ({client_min}..={client_max})")]
    Unsupported {
        /// The peer.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// Oldest version this client can send.
        client_min: i16,
        /// Newest version this client can send.
        client_max: i16,
    },
    /// The answer is not what the protocol allows.
    #[error("malformed answer from {address}: {reason}")]
    Malformed {
        /// The peer.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request can't be expressed in the negotiated version.
    #[error("cannot encode the request: {0}")]
    Encode(Arc<EncodeError>),
    /// The broker answered with an error code.
    #[error("{what}: {}", describe(*.code, .message.as_deref()))]
    Kafka {
        /// The subject: a topic, group, partition or request.
        what: String,
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's own words, when it sent any.
        message: Option<String>,
    },
    /// An answer lacks the part that was asked for.
    #[error("the broker's answer says nothing about {what}")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// The caller asked for something that can't be done.
    #[error("{0}")]
    Invalid(String),
}

impl ClientError {
    /// An error code from a response, about `what`; `Ok` for code 0.
    pub fn check(what: impl Into<String>, code: i16, message: Option<&str>) -> Result<()> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => Ok(()),
            code => Err(Self::Kafka {
                what: what.into(),
                code,
                message: message.filter(|m| !m.is_empty()).map(str::to_owned),
            }),
        }
    }

    pub(crate) fn malformed(address: &str, error: &DecodeError) -> Self {
        Self::Malformed { address: address.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::Missing { what: what.into() }
    }

    /// Kafka's error code, if a broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Kafka { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later or at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Kafka { code, .. } => code.retriable(),
            Self::Connect { .. } | Self::NoBroker { .. } | Self::Disconnected { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// Whether cached metadata (leaders, coordinators) may be wrong.
    pub fn is_stale_metadata(&self) -> bool {
        match self {
            Self::Kafka { code, .. } => matches!(
                code,
                ErrorCode::NotLeaderOrFollower
                    | ErrorCode::LeaderNotAvailable
                    | ErrorCode::UnknownTopicOrPartition
                    | ErrorCode::UnknownTopicId
                    | ErrorCode::InconsistentTopicId
                    | ErrorCode::FencedLeaderEpoch
                    | ErrorCode::UnknownLeaderEpoch
                    | ErrorCode::ReplicaNotAvailable
                    | ErrorCode::KafkaStorageError
                    | ErrorCode::NotController
                    | ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::ListenerNotFound
            ),
            _ => self.is_retriable(),
        }
    }
}

impl From<EncodeError> for ClientError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(Arc::new(error))
    }
}

/// The broker's message when there is one (it knows the details), else our own words for the code.
fn describe(code: ErrorCode, message: Option<&str>) -> String {
    format!("{} ({})", message.unwrap_or_else(|| code.message()), code.name())
}
