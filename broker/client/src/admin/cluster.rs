//! The cluster's brokers, its metadata quorum, and who leads partitions.

use std::collections::BTreeMap;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response::ReplicaState;
use klamm_protocol::messages::elect_leaders_request::TopicPartitions;
use klamm_protocol::messages::{
    AddRaftVoterRequest, DescribeClusterRequest, DescribeQuorumRequest, ElectLeadersRequest, RemoveRaftVoterRequest,
    UnregisterBrokerRequest, add_raft_voter_request,
};

use crate::TopicPartition;
use crate::client::Client;
use crate::cluster::Broker;
use crate::error::{ClientError, Result};

/// A cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker that takes controller requests.
    pub controller: i32,
    /// Registered brokers; those that are fenced only from Kafka 4.1 on.
    pub brokers: Vec<RegisteredBroker>,
}

/// A broker as the controller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    /// Id, address and rack.
    pub broker: Broker,
    /// Whether it is shut out: stopped, not heard of, or not caught up yet.
    pub fenced: bool,
    /// Whether it gets no new replicas. Only Klamm tells.
    pub cordoned: bool,
    /// Until when it leads nothing that others can lead, in milliseconds since 1970. Only Klamm tells.
    pub maintenance_until: Option<i64>,
}

/// The metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The active controller, -1 for none.
    pub leader: i32,
    /// Its epoch.
    pub epoch: i32,
    /// Committed end of the metadata log.
    pub high_watermark: i64,
    /// Voters first, each kind by rising id.
    pub nodes: Vec<QuorumNode>,
}

/// A node that keeps the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumNode {
    /// `node.id`.
    pub id: i32,
    /// Whether it votes.
    pub votes: bool,
    /// `host:port` of its controller listener, when known.
    pub address: Option<String>,
    /// Which disk it is, zero when unknown.
    pub directory: Uuid,
    /// End of its log, -1 when unknown.
    pub log_end_offset: i64,
    /// When it was last heard, in milliseconds since 1970, -1 when unknown.
    pub last_fetch_ms: i64,
    /// When it last had everything, likewise.
    pub last_caught_up_ms: i64,
}

/// How a leader is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first replica, when it is in sync.
    Preferred = 0,
    /// Any replica that is up, when no replica in sync is: records may be lost.
    Unclean = 1,
}

/// What became of one election; `None` when the partition has the leader that was wanted already.
pub type Elected = BTreeMap<TopicPartition, Result<Option<()>>>;

impl Client {
    /// The cluster's id and brokers.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let request = |include_fenced_brokers| DescribeClusterRequest { include_fenced_brokers, ..Default::default() };
        let answer = match self.call_any(&request(true)).await {
            // Before Kafka 4.1 nobody could ask for fenced brokers.
            Err(ClientError::Encode(_)) => self.call_any(&request(false)).await?,
            answer => answer?,
        };
        ClientError::check("the cluster", answer.error_code, answer.error_message.as_deref())?;
        let brokers = answer.brokers.into_iter().map(|b| RegisteredBroker {
            broker: Broker { id: b.broker_id, host: b.host, port: b.port, rack: b.rack },
            fenced: b.is_fenced,
            cordoned: b.klamm_is_cordoned,
            maintenance_until: Some(b.klamm_maintenance_until).filter(|until| *until >= 0),
        });
        let mut brokers: Vec<_> = brokers.collect();
        brokers.sort_by_key(|b| b.broker.id);
        Ok(ClusterDescription { cluster_id: answer.cluster_id, controller: answer.controller_id, brokers })
    }

    /// The metadata quorum as its leader sees it.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription> {
        let partition = PartitionData { partition_index: 0, ..Default::default() };
        let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![partition] };
        let request = DescribeQuorumRequest { topics: vec![topic] };
        let what = "the metadata quorum";
        let answer = self.retry(|| async {
            let answer = self.ask_any(&request).await?;
            ClientError::check(what, answer.error_code, answer.error_message.as_deref())?;
            Ok(answer)
        });
        let answer = answer.await?;
        let addresses: BTreeMap<i32, String> = answer
            .nodes
            .iter()
            .filter_map(|node| {
                let listener = node.listeners.first().filter(|l| !l.host.is_empty())?;
                let (host, port) = (listener.host.clone(), i32::from(listener.port));
                Some((node.node_id, Broker { id: node.node_id, host, port, rack: None }.address()))
            })
            .collect();
        let partition = answer.topics.into_iter().flat_map(|t| t.partitions).next();
        let partition = partition.ok_or_else(|| ClientError::missing(what))?;
        ClientError::check(what, partition.error_code, partition.error_message.as_deref())?;
        let node = |state: &ReplicaState, votes| QuorumNode {
            id: state.replica_id,
            votes,
            address: addresses.get(&state.replica_id).cloned(),
            directory: state.replica_directory_id,
            log_end_offset: state.log_end_offset,
            last_fetch_ms: state.last_fetch_timestamp,
            last_caught_up_ms: state.last_caught_up_timestamp,
        };
        let voters = partition.current_voters.iter().map(|state| node(state, true));
        let mut nodes: Vec<_> = voters.chain(partition.observers.iter().map(|state| node(state, false))).collect();
        nodes.sort_by_key(|node| (!node.votes, node.id));
        Ok(QuorumDescription {
            leader: partition.leader_id,
            epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            nodes,
        })
    }

    /// Gives a node a seat in the quorum. `address` is that of its controller listener.
    pub async fn add_voter(&self, id: i32, directory: Uuid, address: (&str, u16)) -> Result<()> {
        let (host, port) = (address.0.to_owned(), address.1);
        let request = AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms: self.timeout_ms(),
            voter_id: id,
            voter_directory_id: directory,
            listeners: vec![add_raft_voter_request::Listener { name: "CONTROLLER".into(), host, port }],
            ..Default::default()
        };
        // Not repeated: a first try whose answer was lost makes the node a voter, and the second would say so.
        let answer = self.ask_any(&request).await?;
        ClientError::check("the quorum", answer.error_code, answer.error_message.as_deref())
    }

    /// Takes a node's seat in the quorum away.
    pub async fn remove_voter(&self, id: i32, directory: Uuid) -> Result<()> {
        let request = RemoveRaftVoterRequest { cluster_id: None, voter_id: id, voter_directory_id: directory };
        let answer = self.ask_any(&request).await?;
        ClientError::check("the quorum", answer.error_code, answer.error_message.as_deref())
    }

    /// Forgets a broker that is gone for good.
    pub async fn unregister_broker(&self, id: i32) -> Result<()> {
        let request = UnregisterBrokerRequest { broker_id: id };
        let answer = self.ask_any(&request).await?;
        ClientError::check("the cluster", answer.error_code, answer.error_message.as_deref())
    }

    /// Has leaders elected for these partitions, `None` for all of the cluster.
    pub async fn elect_leaders(&self, election: Election, partitions: Option<&[TopicPartition]>) -> Result<Elected> {
        let by_topic = |partitions: &[TopicPartition]| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for p in partitions {
                topics.entry(&p.topic).or_default().push(p.partition);
            }
            let topics = topics.into_iter();
            topics.map(|(topic, partitions)| TopicPartitions { topic: topic.to_owned(), partitions }).collect()
        };
        let request = ElectLeadersRequest {
            election_type: election as i8,
            topic_partitions: partitions.map(by_topic),
            timeout_ms: self.timeout_ms(),
        };
        let answer = self.ask_any(&request).await?;
        ClientError::check("leader election", answer.error_code, None)?;
        let results = answer.replica_election_results.into_iter().flat_map(|topic| {
            let name = topic.topic;
            topic.partition_result.into_iter().map(move |result| {
                let partition = TopicPartition::new(&name, result.partition_id);
                let outcome = match ErrorCode::from_code(result.error_code) {
                    ErrorCode::ElectionNotNeeded => Ok(None),
                    code => ClientError::check(partition.to_string(), code.code(), result.error_message.as_deref())
                        .map(Some),
                };
                (partition, outcome)
            })
        });
        Ok(results.collect())
    }
}
