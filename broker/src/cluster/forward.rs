//! The way to the active controller, wherever it is.
//!
//! A client may send a request that only the controller can answer to any broker. The broker hands the
//! whole frame on, as it is, and gives the answer back; when it is the controller itself, the frame is
//! answered here. What brokers ask of the controller themselves takes the same way.
//!
//! A request whose connection breaks is sent again: like Kafka's own forwarding, that may carry it out
//! twice, so a topic may "exist already" that the first try made.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Tls;
use klamm_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, KlammForwardRequest};
use klamm_protocol::wire::{DecodeError, Reader};
use klamm_protocol::{ErrorCode, Request, frame};
use tokio::time::Instant;

use super::peers::Peers;
use crate::api;
use crate::broker::Broker;
use crate::net::connection::Connection;
use crate::replica::fetcher::Boxed;
use crate::replica::isr::ControllerChannel;

/// How long a request looks for an active controller before its sender is told that there is none.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the controller may take for one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take for what brokers themselves ask, which is quick and can be repeated. Behind packets that were
/// lost for a while a connection stays silent for longer than a new one takes.
const BROKERS_ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long a connection to the controller may take to open.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pauses between tries, doubling; a new leader ends one early.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// Whether an answer waits until the metadata behind it has been published here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    No,
    UntilPublished,
}

/// Hands requests to the active controller.
#[derive(Debug)]
pub struct Forwarder {
    peers: Peers,
}

impl Forwarder {
    /// A forwarder of the broker `node_id`.
    pub fn new(node_id: i32, tls: Option<Tls>) -> Self {
        Self { peers: Peers::new(format!("broker-{node_id}"), CONNECT_WITHIN, tls) }
    }

    /// Hands over `request`, a frame without its size, and gives back the whole answer frame. The
    /// metadata that the answer speaks of has been published here when this returns.
    ///
    /// # Errors
    /// `NotController` when no controller has answered in time, `BrokerNotAvailable` when this broker stops.
    pub async fn send(&self, broker: &Arc<Broker>, request: Bytes) -> Result<Bytes, ErrorCode> {
        self.until_stop(broker, request, Wait::UntilPublished).await
    }

    async fn until_stop(&self, broker: &Arc<Broker>, request: Bytes, wait: Wait) -> Result<Bytes, ErrorCode> {
        tokio::select! {
            sent = self.try_until(broker, request, wait, Instant::now() + PATIENCE) => sent,
            _ = broker.stopping() => Err(ErrorCode::BrokerNotAvailable),
        }
    }

    /// Asks the active controller, without waiting until its metadata has arrived here.
    ///
    /// # Errors
    /// As for [`Forwarder::send`].
    pub async fn ask<R: Request>(&self, broker: &Arc<Broker>, request: &R) -> Result<R::Response, ErrorCode> {
        self.typed(broker, request, Wait::No).await
    }

    /// Asks the active controller. The metadata that the answer speaks of has been published here when
    /// this returns.
    ///
    /// # Errors
    /// As for [`Forwarder::send`].
    pub async fn call<R: Request>(&self, broker: &Arc<Broker>, request: &R) -> Result<R::Response, ErrorCode> {
        self.typed(broker, request, Wait::UntilPublished).await
    }

    async fn typed<R: Request>(&self, broker: &Arc<Broker>, request: &R, wait: Wait) -> Result<R::Response, ErrorCode> {
        let encoded = frame::encode_request(0, None, request, R::MAX_VERSION).and_then(|encoded| encoded.into_bytes());
        let encoded = encoded.map_err(|error| {
            tracing::error!(%error, request = R::NAME, "a request to the controller cannot be written");
            ErrorCode::UnknownServerError
        })?;
        let answer = self.until_stop(broker, encoded.slice(4..), wait).await?;
        decode::<R>(answer).map_err(|error| {
            tracing::error!(%error, request = R::NAME, "the controller's answer cannot be read");
            ErrorCode::UnknownServerError
        })
    }

    async fn try_until(
        &self,
        broker: &Arc<Broker>,
        request: Bytes,
        wait: Wait,
        deadline: Instant,
    ) -> Result<Bytes, ErrorCode> {
        let mut leadership = broker.controller.leadership();
        let mut pause = PAUSES[0];
        loop {
            leadership.mark_unchanged();
            if broker.controller.is_active() {
                if let Some(answer) = self.answer_here(broker, request.clone()).await? {
                    return Ok(answer);
                }
            } else if let (asked @ Some(_), Some(address)) =
                (broker.controller.leader_id(), broker.controller.leader_address())
            {
                // A controller that was replaced may be cut off, too, and silent for good. What brokers ask can be asked
                // twice; what a client wants done is not, as long as its answer may still come.
                let replaced = async {
                    match wait {
                        Wait::No => leadership.wait_for(|l| l.leader.is_some_and(|id| Some(id) != asked)).await.is_ok(),
                        Wait::UntilPublished => std::future::pending().await,
                    }
                };
                let answer = tokio::select! {
                    answer = self.try_there(broker, &address, request.clone(), wait) => answer,
                    _ = replaced => continue,
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(reason) => tracing::debug!(controller = address, reason, "request not forwarded"),
                }
            }
            if Instant::now() + pause > deadline {
                return Err(ErrorCode::NotController);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES[1]),
                _ = leadership.changed() => {}
            }
        }
    }

    /// Answers as the controller; `None` when this node turned out not to be it.
    async fn answer_here(&self, broker: &Arc<Broker>, request: Bytes) -> Result<Option<Bytes>, ErrorCode> {
        let connection = Connection::local(&broker.config.inter_broker_listener);
        let answer = Box::pin(api::handle_as_controller(broker, &connection, request)).await.map_err(|refusal| {
            tracing::error!(%refusal, "a request to the controller was refused");
            ErrorCode::UnknownServerError
        })?;
        if !broker.controller.is_active() {
            return Ok(None);
        }
        let answer = answer.ok_or(ErrorCode::UnknownServerError)?;
        answer.into_bytes().map(Some).map_err(|_| ErrorCode::UnknownServerError)
    }

    async fn try_there(
        &self,
        broker: &Arc<Broker>,
        address: &str,
        request: Bytes,
        wait: Wait,
    ) -> Result<Bytes, String> {
        let forward = KlammForwardRequest {
            cluster_id: broker.controller.cluster_id().to_string(),
            broker_id: broker.config.node_id,
            request,
        };
        let limit = if wait == Wait::No { BROKERS_ANSWER_WITHIN } else { ANSWER_WITHIN };
        let answer = self.peers.call(address, &forward, limit).await.map_err(|e| e.to_string())?;
        let code = ErrorCode::from_code(answer.error_code);
        if code != ErrorCode::None {
            return Err(answer.error_message.unwrap_or_else(|| code.name().to_owned()));
        }
        if wait == Wait::UntilPublished {
            // Who made a topic here wants to see it here.
            broker.controller.published(u64::try_from(answer.metadata_offset).unwrap_or(0), ANSWER_WITHIN).await;
        }
        Ok(answer.response)
    }
}

/// Takes changes of ISRs to the controller.
#[derive(Debug)]
pub struct IsrChannel(pub Weak<Broker>);

impl ControllerChannel for IsrChannel {
    fn alter_partition(&self, request: AlterPartitionRequest) -> Boxed<'_, Result<AlterPartitionResponse, ErrorCode>> {
        Box::pin(async move {
            let broker = self.0.upgrade().ok_or(ErrorCode::BrokerNotAvailable)?;
            broker.forwarder.ask(&broker, &request).await
        })
    }
}

/// Reads an answer frame, which begins with its size.
fn decode<R: Request>(answer: Bytes) -> Result<R::Response, DecodeError> {
    let mut reader = Reader::new(answer.slice(answer.len().min(4)..));
    frame::decode_response::<R>(&mut reader, R::MAX_VERSION).map(|(_, response)| response)
}
