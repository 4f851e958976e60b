//! Carries proposals for ISR changes to the controller, and looks for followers that lag.
//!
//! One request is under way at a time; what comes up meanwhile goes into the next, all partitions together. The rules
//! are in `leader.rs`, the pauses between tries in `retries.rs`.

use std::cmp::Ordering as Cmp;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_protocol::messages::alter_partition_response::PartitionData as Answer;
use klamm_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::fetcher::Boxed;
use super::leader::{After, Proposal, Verdict, is_premature};
use super::partition::Partition;
use super::retries::{Key, Retries};
use crate::broker::Broker;

/// The way to the controller.
pub trait ControllerChannel: Send + Sync + 'static {
    /// Asks for changes of ISRs. The error says why nobody answered.
    fn alter_partition(&self, request: AlterPartitionRequest) -> Boxed<'_, Result<AlterPartitionResponse, ErrorCode>>;
}

/// Most partitions in one request.
const PARTITIONS_MAX: usize = 5_000;

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>, controller: Arc<dyn ControllerChannel>) {
    let around = broker.replicas.around.clone();
    let mut retries = Retries::default();
    loop {
        let due = take_due(&mut around.proposals.lock(), &retries);
        if due.is_empty() {
            let now = Instant::now();
            let next = retries.next_due(around.proposals.lock().iter(), now);
            tokio::select! {
                () = around.proposed.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                _ = broker.stopping() => return,
            }
            continue;
        }
        let failed = ask(&broker, &*controller, &due).await;
        let now = Instant::now();
        for key in due {
            match failed.get(&key) {
                Some(after) => {
                    retries.failed(key, now);
                    if *after == After::Again {
                        around.proposals.lock().insert(key);
                    }
                }
                None => retries.settled(&key),
            }
        }
        retries.forget_old(now);
    }
}

/// Takes the proposals out that may be sent now.
fn take_due(proposals: &mut BTreeSet<Key>, retries: &Retries) -> BTreeSet<Key> {
    let now = Instant::now();
    let due: BTreeSet<Key> =
        proposals.iter().filter(|key| retries.is_due(key, now)).take(PARTITIONS_MAX).copied().collect();
    proposals.retain(|key| !due.contains(key));
    due
}

/// Sends the proposals of these partitions; returns those that were not carried out, with what to do about them.
async fn ask(broker: &Broker, controller: &dyn ControllerChannel, due: &BTreeSet<Key>) -> HashMap<Key, After> {
    let mut asked: HashMap<Key, (Arc<Partition>, Proposal, Cmp)> = HashMap::new();
    let mut topics: HashMap<Uuid, Vec<PartitionData>> = HashMap::new();
    for &(topic, index) in due {
        let Ok(partition) = broker.replicas.by_id(topic, index) else { continue };
        let Some((proposal, direction)) = partition.proposal() else { continue };
        topics.entry(topic).or_default().push(wire(index, &proposal));
        asked.insert((topic, index), (partition, proposal, direction));
    }
    if asked.is_empty() {
        return HashMap::new();
    }
    let request = AlterPartitionRequest {
        broker_id: broker.config.node_id,
        broker_epoch: broker.replicas.around.broker_epoch.load(Ordering::Acquire),
        topics: topics
            .into_iter()
            .map(|(topic_id, partitions)| TopicData { topic_id, partitions, ..Default::default() })
            .collect(),
        ..Default::default()
    };
    let all = |asked: HashMap<Key, _>| asked.into_keys().map(|key| (key, After::Again)).collect();
    let response = match controller.alter_partition(request).await {
        Ok(response) if response.error_code == 0 => response,
        Ok(response) => {
            let code = ErrorCode::from_code(response.error_code);
            tracing::warn!(code = code.name(), "the controller refuses changes of in-sync replicas");
            return all(asked);
        }
        Err(code) => {
            tracing::debug!(code = code.name(), "the controller cannot be reached");
            return all(asked);
        }
    };
    let mut failed = HashMap::new();
    for topic in response.topics {
        for answer in topic.partitions {
            let key = (topic.topic_id, answer.partition_index);
            let Some((partition, proposal, direction)) = asked.remove(&key) else { continue };
            let verdict = verdict(answer);
            tell(broker, &partition, &proposal, direction, &verdict);
            // Not now, said the controller; the follower's next fetch proposes the same anew.
            let premature = matches!(verdict, Verdict::Refused(code) if is_premature(code));
            let after = partition.on_verdict(proposal.id, verdict);
            if premature || after == After::Again {
                failed.insert(key, after);
            }
        }
    }
    // What the controller said nothing of.
    failed.extend(asked.into_keys().map(|key| (key, After::Again)));
    failed
}

/// What the controller made of a proposal, out of its answer.
pub fn verdict(answer: Answer) -> Verdict {
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => Verdict::Done {
            leader_epoch: answer.leader_epoch,
            partition_epoch: answer.partition_epoch,
            isr: answer.isr,
            recovering: answer.leader_recovery_state != 0,
        },
        code => Verdict::Refused(code),
    }
}

/// A proposal as it is sent.
pub fn wire(partition_index: i32, proposal: &Proposal) -> PartitionData {
    let state = |(broker_id, broker_epoch): &(i32, i64)| BrokerState {
        broker_id: *broker_id,
        broker_epoch: *broker_epoch,
        ..Default::default()
    };
    PartitionData {
        partition_index,
        leader_epoch: proposal.leader_epoch,
        // `new_isr`, without the epochs, is version 2's; a request of version 3 must not bring both.
        new_isr_with_epochs: proposal.isr.iter().map(state).collect(),
        leader_recovery_state: i8::from(proposal.recovering),
        partition_epoch: proposal.partition_epoch,
        ..Default::default()
    }
}

fn tell(broker: &Broker, partition: &Partition, proposal: &Proposal, direction: Cmp, verdict: &Verdict) {
    let name = partition.dir_name();
    match verdict {
        Verdict::Done { isr, partition_epoch, .. } => {
            match direction {
                Cmp::Less => broker.replicas.around.isr_shrinks.fetch_add(1, Ordering::Relaxed),
                Cmp::Greater => broker.replicas.around.isr_expands.fetch_add(1, Ordering::Relaxed),
                Cmp::Equal => 0,
            };
            tracing::info!(partition = name, ?isr, partition_epoch, "in-sync replicas changed");
        }
        Verdict::Refused(code) => {
            broker.replicas.around.isr_failed_updates.fetch_add(1, Ordering::Relaxed);
            tracing::info!(partition = name, wanted = ?proposal.isr, code = code.name(), "in-sync replicas not changed")
        }
    }
}

/// Looks for followers that lag, twice in `replica.lag.time.max.ms`, until the broker stops.
pub async fn watch_lag(broker: Arc<Broker>) {
    let half = u64::try_from(broker.config.replication.lag_time_max_ms / 2).unwrap_or(0).max(10);
    let mut tick = tokio::time::interval(Duration::from_millis(half));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = broker.stopping() => return,
        }
        for partition in broker.replicas.partitions() {
            partition.check_lag(broker.clock.now_ms());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_protocol::Message;

    #[test]
    fn a_proposal_can_be_written_in_the_version_that_is_sent() {
        let isr = vec![(0, 7), (2, 9)];
        let proposal = Proposal { id: 1, leader_epoch: 4, partition_epoch: 5, isr, recovering: false };
        let data = TopicData { partitions: vec![wire(3, &proposal)], ..Default::default() };
        let request = AlterPartitionRequest { topics: vec![data], ..Default::default() };
        assert!(request.to_bytes(AlterPartitionRequest::MAX_VERSION).is_ok());
    }
}
