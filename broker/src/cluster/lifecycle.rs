//! This broker's standing with the controller: it registers, sends heartbeats, and asks leave to stop.
//!
//! A broker is fenced from its registration until a heartbeat says that it has caught up with the
//! metadata; the controller fences it again when its heartbeats stay away. Before it stops it says so and
//! waits, within limits, until the controller has given its leaderships to others.
//!
//! Kafka's BrokerLifecycleManager; KIP-631.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use klamm_protocol::messages::broker_registration_request::{BrokerRegistrationRequest, Listener};
use klamm_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::sync::{Notify, watch};

use crate::broker::{Broker, Stop};
use crate::config::Listener as Endpoint;

/// Heartbeats follow each other faster while something waits for their answer.
const IMPATIENT: Duration = Duration::from_millis(20);
/// How long a stopping broker waits for others to take over from it.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);
/// First and longest pause between tries to register.
const REGISTER_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Tries to register between two lines about it.
const SAY_EVERY: u32 = 20;

/// How this broker stands with the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not registered since the start.
    Unregistered,
    /// Registered; may neither lead nor be in sync.
    Fenced,
    /// Takes part.
    Active,
    /// About to stop; still leads what nobody else could take.
    Leaving,
    /// Has leave to stop.
    Left,
}

impl Standing {
    /// For `/v1/status`.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Unregistered => "unregistered",
            Standing::Fenced => "fenced",
            Standing::Active => "active",
            Standing::Leaving => "leaving",
            Standing::Left => "left",
        }
    }
}

/// What a broker says of itself when it registers.
#[derive(Debug)]
pub struct Introduction {
    /// Drawn anew at each start.
    pub incarnation: Uuid,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// Ids of its data directories.
    pub directories: Vec<Uuid>,
    /// The epoch of the registration under which the last run stopped in order; −1 when it did not.
    pub previous_epoch: i64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Lifecycle {
    standing: watch::Sender<Standing>,
    epoch: AtomicI64,
    /// When the last heartbeat was sent that a controller has acknowledged.
    acknowledged_ms: AtomicI64,
    leave: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            standing: watch::Sender::new(Standing::Unregistered),
            epoch: AtomicI64::new(-1),
            acknowledged_ms: AtomicI64::new(0),
            leave: Notify::new(),
        }
    }
}

impl Lifecycle {
    /// How this broker stands with the controller, and when that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The epoch of the registration; −1 before the first.
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// When the last heartbeat was sent that a controller has acknowledged, by the clock that never jumps.
    pub fn acknowledged_ms(&self) -> i64 {
        self.acknowledged_ms.load(Ordering::Acquire)
    }

    /// Asks leave to stop and waits for it, a few seconds at most.
    pub async fn leave(&self) {
        self.leave.notify_one();
        let mut standing = self.standing.subscribe();
        let left = standing.wait_for(|standing| matches!(standing, Standing::Left | Standing::Unregistered));
        if tokio::time::timeout(HAND_OVER_WITHIN, left).await.is_err() {
            tracing::warn!("stopping although some partitions have no other leader");
        }
    }

    /// Registers and keeps in touch until the broker has leave to stop, or its task is dropped.
    pub async fn run(&self, broker: &Arc<Broker>, introduction: Introduction) {
        let mut leaving = false;
        loop {
            let Some(epoch) = self.register(broker, &introduction).await else { return };
            self.epoch.store(epoch, Ordering::Release);
            broker.replicas.around.broker_epoch.store(epoch, Ordering::Release);
            self.standing.send_replace(if leaving { Standing::Leaving } else { Standing::Fenced });
            if self.keep_in_touch(broker, epoch, &introduction.directories, &mut leaving).await {
                return;
            }
        }
    }

    /// Tries until the controller has taken the registration; `None` when it never will.
    async fn register(&self, broker: &Arc<Broker>, introduction: &Introduction) -> Option<i64> {
        let request = BrokerRegistrationRequest {
            broker_id: broker.config.node_id,
            cluster_id: broker.controller.cluster_id().to_string(),
            incarnation_id: introduction.incarnation,
            listeners: introduction.endpoints.iter().map(listener).collect(),
            rack: broker.config.rack.clone(),
            log_dirs: introduction.directories.clone(),
            // The same incarnation that registers again has not stopped in between.
            previous_broker_epoch: if self.epoch() >= 0 { self.epoch() } else { introduction.previous_epoch },
            ..Default::default()
        };
        let mut pause = REGISTER_PAUSES[0];
        let mut tries = 0_u32;
        loop {
            let answer = broker.forwarder.ask(broker, &request).await;
            let code = match answer {
                Ok(answer) if answer.error_code == 0 => return Some(answer.broker_epoch),
                Ok(answer) => ErrorCode::from_code(answer.error_code),
                Err(code) => code,
            };
            match code {
                ErrorCode::InconsistentClusterId
                | ErrorCode::InvalidRegistration
                | ErrorCode::UnsupportedVersion
                | ErrorCode::InvalidRequest => {
                    let id = broker.config.node_id;
                    broker.stop(Stop::Refused(format!(
                        "the controller does not take broker {id} into the cluster: {}",
                        code.name()
                    )));
                    return None;
                }
                ErrorCode::BrokerNotAvailable => return None,
                ErrorCode::DuplicateBrokerRegistration => tracing::warn!(
                    node_id = broker.config.node_id,
                    "a broker with this node.id is registered and alive; waiting for it to go"
                ),
                _ if tries.is_multiple_of(SAY_EVERY) => {
                    tracing::info!(code = code.name(), "not registered yet, trying again")
                }
                _ => {}
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REGISTER_PAUSES[1]);
        }
    }

    /// Sends heartbeats; true once there is leave to stop, false when the registration is no longer valid.
    async fn keep_in_touch(&self, broker: &Arc<Broker>, epoch: i64, directories: &[Uuid], leaving: &mut bool) -> bool {
        let interval = Duration::from_millis(broker.config.cluster.heartbeat_every_ms());
        let mut leadership = broker.controller.leadership();
        let mut published = broker.controller.publications();
        loop {
            leadership.mark_unchanged();
            published.mark_unchanged();
            let request = BrokerHeartbeatRequest {
                broker_id: broker.config.node_id,
                broker_epoch: epoch,
                current_metadata_offset: i64::try_from(broker.controller.published_offset()).unwrap_or(i64::MAX),
                want_shut_down: *leaving,
                cordoned_log_dirs: cordon_news(broker, directories),
                ..Default::default()
            };
            let sent_ms = broker.clock.now_ms();
            let wait = match broker.forwarder.ask(broker, &request).await {
                Ok(answer) => match ErrorCode::from_code(answer.error_code) {
                    ErrorCode::None => {
                        self.acknowledged_ms.store(sent_ms, Ordering::Release);
                        if self.heard(&answer, *leaving) {
                            return true;
                        }
                        let waiting = *leaving || *self.standing.borrow() == Standing::Fenced;
                        if waiting { IMPATIENT } else { interval }
                    }
                    ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered => return false,
                    code => {
                        tracing::warn!(code = code.name(), "heartbeat refused");
                        interval.min(REGISTER_PAUSES[1])
                    }
                },
                Err(ErrorCode::BrokerNotAvailable) => return true,
                Err(code) => {
                    tracing::warn!(code = code.name(), "no controller has answered a heartbeat");
                    IMPATIENT
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.leave.notified() => *leaving = true,
                // A new controller must learn soon that this broker lives.
                _ = leadership.changed() => {}
                () = something_to_tell(broker, directories, &mut published) => {}
            }
        }
    }

    /// Takes over what the controller says; true when it gives leave to stop.
    fn heard(&self, answer: &BrokerHeartbeatResponse, leaving: bool) -> bool {
        let standing = match (leaving, answer.should_shut_down, answer.is_fenced) {
            (true, true, _) => Standing::Left,
            (true, false, _) => Standing::Leaving,
            (false, _, true) => Standing::Fenced,
            (false, _, false) => Standing::Active,
        };
        let before = self.standing.send_replace(standing);
        if before != standing {
            tracing::info!(?standing, "standing with the controller");
        }
        standing == Standing::Left
    }
}

/// Which of its directories this broker has cordoned, where the metadata say otherwise.
fn cordon_news(broker: &Broker, directories: &[Uuid]) -> Option<Vec<Uuid>> {
    let config = broker.replicas.config();
    let dirs = config.log_dirs.iter().zip(directories);
    let cordoned: Vec<Uuid> = dirs.filter(|(dir, _)| config.is_cordoned(dir)).map(|(_, id)| *id).collect();
    let image = broker.controller.image();
    let known = image.broker(config.node_id)?.cordoned_log_dirs.as_deref().unwrap_or_default();
    (known != cordoned).then_some(cordoned)
}

/// Resolves when metadata is published that the controller waits to hear of: while another broker is about to stop,
/// which may go once everyone has heard who leads in its place, or when this one's directories are cordoned.
async fn something_to_tell(broker: &Broker, directories: &[Uuid], published: &mut watch::Receiver<u64>) {
    loop {
        if published.changed().await.is_err() {
            return std::future::pending().await;
        }
        let image = broker.controller.image();
        let leaves = |other: &klamm_metadata::Broker| other.in_controlled_shutdown && other.id != broker.config.node_id;
        if image.brokers().any(|other| leaves(other)) || cordon_news(broker, directories).is_some() {
            return;
        }
    }
}

fn listener(endpoint: &Endpoint) -> Listener {
    Listener {
        name: endpoint.name.clone(),
        host: endpoint.address.host.clone(),
        port: endpoint.address.port,
        security_protocol: endpoint.protocol.id(),
    }
}
