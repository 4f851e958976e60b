//! What the active controller does by itself, beside answering requests: it fences brokers that fell silent,
//! are cut off, or whose process ended, elects leaders for partitions without one, gives leaderships back to preferred
//! leaders, relieves brokers in maintenance and ends it, and hands out the seats of the quorum.
//!
//! Its soft state begins anew with each term: every broker gets a whole session before it is missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_metadata::Image;
use klamm_metadata::controller::{self, Decision, Heartbeats, Policy, Progress, maintenance};
use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::quiet::Quiet;
use crate::broker::Broker;
use crate::cluster::suspects;

/// How often sessions are looked at.
const SESSIONS_EVERY: Duration = Duration::from_millis(200);
/// Whoever waits this much longer than for the next look was kept from it: the process stood still, and heard nobody.
const LATE: Duration = Duration::from_secs(1);
/// How often fencing a broker whose process has ended is tried; then its session runs out.
const FENCE_TRIES: u32 = 5;
/// How often partitions without a leader, and the seats of the quorum, are looked at.
const ELECTIONS_EVERY: Duration = Duration::from_secs(1);

/// Runs for as long as the broker does.
pub async fn run(broker: Arc<Broker>) {
    let mut leadership = broker.controller.leadership();
    loop {
        let Ok(now) = leadership.wait_for(|l| l.ready).await.map(|l| *l) else { return };
        tracing::info!(term = now.term, "this broker is the active controller");
        let (image, _) = broker.controller.committed_image();
        let session_ms = u64::try_from(broker.config.cluster.session_timeout_ms).unwrap_or(9_000);
        *broker.heartbeats.lock() = Heartbeats::new(session_ms, &image, now_ms(&broker));
        // Whoever died together with the last controller has never been connected to this one.
        image
            .brokers()
            .filter(|b| !b.fenced && b.id != broker.config.node_id)
            .for_each(|b| broker.suspects.report(b.id));
        // What is waited for must not be held when `work` is dropped: a change of seats that ends in the middle tells the
        // same watch that this node no longer resigns, and would wait for itself.
        let over = async {
            let _ = leadership.wait_for(|l| !l.ready || l.term != now.term).await;
        };
        tokio::select! {
            () = over => {
                tracing::info!(term = now.term, "this broker is no longer the active controller");
            }
            () = work(&broker) => {}
            _ = broker.stopping() => return,
        }
    }
}

/// Milliseconds as [`Heartbeats`] counts them.
pub fn now_ms(broker: &Broker) -> u64 {
    u64::try_from(broker.clock.now_ms()).unwrap_or(0)
}

/// Most leaderships given back at once.
const MOVES_MAX: usize = 1_000;

async fn work(broker: &Arc<Broker>) {
    let mut sessions = every(SESSIONS_EVERY);
    let mut elections = every(ELECTIONS_EVERY);
    let balance_every = Duration::from_secs(broker.config.cluster.leader_rebalance_interval_s.max(1));
    let mut balance = tokio::time::interval_at(Instant::now() + balance_every, balance_every);
    let mut spared = BTreeSet::new();
    let mut quiet = Quiet::default();
    loop {
        let since = Instant::now();
        let due = tokio::select! {
            _ = sessions.tick() => Due::Sessions,
            id = broker.suspects.next() => Due::Suspect(id),
            _ = elections.tick() => Due::Elections,
            _ = balance.tick(), if broker.config.cluster.leader_rebalance => Due::Balance,
        };
        let late = since.elapsed().saturating_sub(SESSIONS_EVERY);
        if late >= LATE {
            let ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(ms, "the controller stood still; the brokers' sessions go on from here");
            broker.heartbeats.lock().stood_still(ms, now_ms(broker));
        }
        let done = match due {
            Due::Sessions => {
                quiet.look(broker);
                fence_silent(broker).await
            }
            Due::Suspect(id) => {
                // Looking takes a while when the door is open; sessions and elections go on meanwhile.
                tokio::spawn(look_into(broker.clone(), id));
                Ok(())
            }
            Due::Elections => {
                let elected = elect(broker).await.and(maintain(broker).await);
                let (image, _) = broker.controller.committed_image();
                let before = std::mem::replace(&mut spared, image.maintenance().keys().copied().collect());
                if !before.is_subset(&spared) {
                    // Whose maintenance is over gets its leaderships back now, not some minutes later.
                    balance.reset_immediately();
                }
                crate::cluster::seats::reseat(broker).await;
                elected
            }
            Due::Balance => give_back(broker).await,
        };
        if let Err(code) = done {
            tracing::debug!(code = code.name(), "the controller could not do what it wanted");
        }
    }
}

/// What there is to do.
enum Due {
    Sessions,
    Suspect(i32),
    Elections,
    Balance,
}

/// Ticks that are missed are not made up for: looking sixty times in a row sees nothing that looking once does not.
fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Fences brokers whose session is over.
async fn fence_silent(broker: &Arc<Broker>) -> Result<(), ErrorCode> {
    let (image, _) = broker.controller.committed_image();
    let silent = broker.heartbeats.lock().expired(&image, now_ms(broker));
    for id in silent {
        fence(broker, &image, id).await?;
        tracing::warn!(broker = id, "fenced: no heartbeat within broker.session.timeout.ms");
    }
    Ok(())
}

/// Fences a broker if its process has ended, whatever stands in the way at first.
async fn look_into(broker: Arc<Broker>, id: i32) {
    for _ in 0..FENCE_TRIES {
        match fence_ended(&broker, id).await {
            Ok(()) => return,
            // The next controller looks for itself.
            Err(_) if !broker.controller.is_active() => return,
            Err(code) => tracing::debug!(broker = id, code = code.name(), "not fenced yet"),
        }
        tokio::time::sleep(SESSIONS_EVERY).await;
    }
}

/// Fences a broker whose process has ended for certain.
async fn fence_ended(broker: &Arc<Broker>, id: i32) -> Result<(), ErrorCode> {
    let (image, _) = broker.controller.committed_image();
    if image.broker(id).is_none_or(|b| b.fenced) {
        return Ok(());
    }
    let door = broker.whereabouts.find(&image, id, &broker.config.inter_broker_listener).await;
    if !suspects::has_ended(&door).await {
        return Ok(());
    }
    fence(broker, &image, id).await?;
    tracing::warn!(broker = id, "fenced: its process has ended");
    Ok(())
}

/// Fences the registration that `seen` shows; one that is newer stays.
pub(super) async fn fence(broker: &Arc<Broker>, seen: &Image, id: i32) -> Result<(), ErrorCode> {
    let epoch = seen.broker(id).map(|b| b.epoch);
    let policy = policy(broker);
    let fenced = broker.controller.commit_all(|image, _| {
        let same = image.broker(id).map(|b| b.epoch) == epoch;
        if same { controller::fence(image, id, &policy) } else { Ok(Decision::only(Progress::Done(()))) }
    });
    match fenced.await? {
        Ok(()) => Ok(()),
        Err(refused) => Err(refused.code),
    }
}

async fn elect(broker: &Arc<Broker>) -> Result<(), ErrorCode> {
    let (image, _) = broker.controller.committed_image();
    if image.leaderless().next().is_none() {
        return Ok(());
    }
    let policy = policy(broker);
    let elected = broker.controller.commit_all(|image, _| Ok(controller::elect_leaderless(image, &policy)));
    elected.await?.map_err(|refused| refused.code)
}

/// Ends maintenance whose time is over, and takes from brokers in maintenance what others can lead.
async fn maintain(broker: &Arc<Broker>) -> Result<(), ErrorCode> {
    let (image, _) = broker.controller.committed_image();
    if image.maintenance().is_empty() {
        return Ok(());
    }
    // By the clock that the time was given in: to end too early does no harm.
    let now_ms = broker.clock.wall_ms();
    let (over, _) = broker.controller.commit(|image, _| maintenance::end_expired(image, now_ms)).await?;
    for id in over {
        tracing::info!(broker = id, "maintenance is over: its time has come");
    }
    let policy = policy(broker);
    let moved = broker.controller.commit_all(|image, _| Ok(maintenance::lead_away(image, &policy)));
    moved.await?.map_err(|refused| refused.code)
}

async fn give_back(broker: &Arc<Broker>) -> Result<(), ErrorCode> {
    let policy = policy(broker);
    broker.controller.commit(|image, _| controller::balance_leaders(image, 0, MOVES_MAX, &policy)).await.map(|_| ())
}

/// The static configuration's part in who may lead.
pub fn policy(broker: &Broker) -> Policy {
    broker.replicas.config().election_policy()
}
