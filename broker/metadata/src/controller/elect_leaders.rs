//! ElectLeaders: leadership back to the preferred replicas, or to any live one where records may be lost; and the
//! balancer, which does the first by itself.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::PartitionChangeRecord;
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::messages::elect_leaders_response::{ElectLeadersResponse, PartitionResult, ReplicaElectionResult};

use super::partition_change::{Election, PartitionChange, can_lead};
use super::policy::Policy;
use super::{ApiError, Context, Decision, Operation, RECORDS_MAX};
use crate::image::{Image, NO_LEADER, Partition, Topic};
use crate::record::MetadataRecord;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Decides about an ElectLeaders request. `may` isn't asked: this is a right on the cluster.
pub fn elect_leaders(
    image: &Image,
    request: &ElectLeadersRequest,
    ctx: &Context<'_>,
) -> Result<Decision<ElectLeadersResponse>, ApiError> {
    let kind = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        other => {
            return Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown election type {other}")));
        }
    };
    let mut elections = Elections { image, policy: &ctx.policy, kind, records: Vec::new(), done: Default::default() };
    let mut results = Vec::new();
    match &request.topic_partitions {
        None => {
            for topic in image.topics().filter(|t| (ctx.may)(Operation::Describe, &t.name)) {
                let mut partition_result = Vec::new();
                for number in 0..topic.partitions.len() as i32 {
                    let outcome = elections.elect(&topic.name, number);
                    if !matches!(&outcome, Err(error) if error.code == ErrorCode::ElectionNotNeeded) {
                        partition_result.push(result(number, outcome));
                    }
                }
                // Kafka names every topic; only those with something to say are of use.
                if !partition_result.is_empty() {
                    results.push(ReplicaElectionResult { topic: topic.name.to_string(), partition_result });
                }
            }
        }
        Some(topics) => {
            for asked in topics {
                let elect = |number: &i32| result(*number, elections.elect(&asked.topic, *number));
                let partition_result = asked.partitions.iter().map(elect).collect();
                results.push(ReplicaElectionResult { topic: asked.topic.clone(), partition_result });
            }
        }
    }
    let response = ElectLeadersResponse { replica_election_results: results, ..ElectLeadersResponse::default() };
    Ok(Decision { records: elections.records, response })
}

fn result(partition_id: i32, outcome: Result<(), ApiError>) -> PartitionResult {
    let (error_code, error_message) = super::fields(&outcome);
    PartitionResult { partition_id, error_code, error_message }
}

struct Elections<'a> {
    image: &'a Image,
    policy: &'a Policy,
    kind: Election,
    records: Vec<MetadataRecord>,
    done: std::collections::BTreeSet<(klamm_protocol::Uuid, i32)>,
}

impl Elections<'_> {
    fn elect(&mut self, name: &str, number: i32) -> Result<(), ApiError> {
        let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
        let topic = self.image.topic(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
        let partition = topic.partition(number);
        let partition = partition.ok_or_else(|| unknown(format!("No such partition as {name}-{number}")))?;
        let unneeded = match self.kind {
            Election::Preferred => partition.replicas.first() == Some(&partition.leader),
            _ => partition.leader != NO_LEADER,
        };
        if unneeded || self.done.contains(&(topic.id, number)) {
            return Err(ErrorCode::ElectionNotNeeded.into());
        }
        if self.records.len() >= RECORDS_MAX {
            return Err(super::too_large());
        }
        let rules = self.policy.of(self.image, name);
        let record = election(self.image, topic, number, partition, self.kind, rules);
        // Everything may be lost already: where all disks are new, an empty replica is all that can lead.
        let record = record.or_else(|| match self.kind {
            Election::Unclean => empty(self.image, topic, number, partition, rules),
            _ => None,
        });
        let Some(record) = record else {
            return Err(match self.kind {
                Election::Preferred => ErrorCode::PreferredLeaderNotAvailable.into(),
                _ => ErrorCode::EligibleLeadersNotAvailable.into(),
            });
        };
        self.done.insert((topic.id, number));
        self.records.push(record.into());
        Ok(())
    }
}

/// The election's record, when another leader comes of it.
fn election(
    image: &Image,
    topic: &Topic,
    number: i32,
    partition: &Partition,
    kind: Election,
    rules: Policy,
) -> Option<PartitionChangeRecord> {
    let mut change = PartitionChange::new(image, partition, topic.id, number, rules);
    change.election = kind;
    change.build(&|id| can_lead(image, partition, id)).filter(|record| record.leader > NO_LEADER)
}

/// Elects a replica whose disk is a new one.
fn empty(
    image: &Image,
    topic: &Topic,
    number: i32,
    partition: &Partition,
    rules: Policy,
) -> Option<PartitionChangeRecord> {
    let id = partition.replicas.iter().copied().find(|id| image.is_active(*id))?;
    let mut change = PartitionChange::new(image, partition, topic.id, number, rules);
    change.election = Election::Unclean;
    change.directories.push((id, image.broker(id)?.default_directory()));
    // No other is of use either: eligible ones that are down would be elected when they come back.
    if !partition.elr.is_empty() || !partition.isr.is_empty() {
        return None;
    }
    change.build(&|other| other == id).filter(|record| record.leader > NO_LEADER)
}

/// Gives leadership back to preferred replicas, for at most `max` partitions at a time, where the share of a
/// broker's partitions that others lead is above `imbalance_percent`
/// (`leader.imbalance.per.broker.percentage`). Answers whether there is more to do at once.
pub fn balance_leaders(image: &Image, imbalance_percent: u32, max: usize, policy: &Policy) -> Decision<bool> {
    let mut records = Vec::new();
    let max = max.min(RECORDS_MAX);
    let spared = image.maintenance();
    for broker in image.brokers().filter(|b| b.is_active() && !spared.contains_key(&b.id)) {
        let preferred = image.partitions_of(broker.id).filter(|(_, _, p)| p.replicas.first() == Some(&broker.id));
        let (mut total, mut away) = (0usize, Vec::new());
        for (topic, number, partition) in preferred {
            total += 1;
            if partition.leader != broker.id {
                away.push((topic, number, partition));
            }
        }
        if away.len() * 100 <= total * imbalance_percent as usize {
            continue;
        }
        for (topic, number, partition) in away {
            // Who isn't in sync can't take over; asking would move leadership elsewhere for nothing.
            if !partition.isr.contains(&broker.id) {
                continue;
            }
            if records.len() == max {
                return Decision { records, response: true };
            }
            let rules = policy.of(image, &topic.name);
            let record = election(image, topic, number, partition, Election::Preferred, rules);
            records.extend(record.filter(|r| r.leader == broker.id).map(MetadataRecord::from));
        }
    }
    Decision { records, response: false }
}

#[cfg(test)]
#[path = "elect_leaders_test.rs"]
mod tests;
