//! What a cluster says about itself: who leads what, who is in sync, who is the active controller.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, Connection, ConnectionOptions, Partition};
use klamm_protocol::Request;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response::PartitionData as Quorum;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{DescribeQuorumRequest, MetadataRequest, MetadataResponse};
use klamm_tests::Cluster;
use tokio::runtime::Runtime;

use crate::workload::options;

/// Asks the nodes of a cluster.
pub struct View {
    runtime: Runtime,
    bootstrap: String,
}

impl View {
    pub fn of(cluster: &Cluster) -> View {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        View { runtime: runtime.expect("a runtime"), bootstrap: cluster.bootstrap() }
    }

    /// Runs something of the client to its end.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Creates a topic with as many replicas as can be, up to three; returns when all of them are in sync.
    #[track_caller]
    pub fn create(&self, cluster: &mut Cluster, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let new = NewTopic {
            name: topic.to_owned(),
            partitions: Some(partitions),
            replication_factor: i16::try_from(cluster.ids().len().min(3)).ok(),
            configs: configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Default::default()
        };
        let created = self.run(async { Client::connect(&self.bootstrap, options()).await?.create_topic(&new).await });
        created.unwrap_or_else(|e| panic!("topic {topic}: {e}"));
        self.until_in_sync(cluster, Duration::from_secs(30));
    }

    /// One request to one node, once.
    pub fn ask<R: Request>(&self, address: &str, request: &R) -> klamm_client::Result<R::Response> {
        let limit = Duration::from_millis(1500);
        let options = ConnectionOptions { connect_timeout: limit, request_timeout: limit, ..Default::default() };
        self.run(async { Connection::open(address, options).await?.call(request).await })
    }

    /// A node's own picture, of these topics or all.
    pub fn metadata(&self, cluster: &Cluster, node: usize, topics: Option<&[&str]>) -> Option<MetadataResponse> {
        let named = |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|names| names.iter().map(named).collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        self.ask(&cluster.address(node), &request).ok()
    }

    /// The partitions of a topic as the first node that answers sees them.
    pub fn partitions(&self, cluster: &mut Cluster, topic: &str) -> BTreeMap<i32, Partition> {
        for node in cluster.ids() {
            if !cluster.answers(node) {
                continue;
            }
            let Some(answer) = self.metadata(cluster, node, Some(&[topic])) else { continue };
            let partitions = answer.topics.into_iter().flat_map(|t| t.partitions).map(|p| {
                let partition = Partition {
                    index: p.partition_index,
                    leader: p.leader_id,
                    leader_epoch: p.leader_epoch,
                    replicas: p.replica_nodes,
                    isr: p.isr_nodes,
                    offline: p.offline_replicas,
                    error: klamm_protocol::error::ErrorCode::from_code(p.error_code),
                };
                (p.partition_index, partition)
            });
            return partitions.collect();
        }
        BTreeMap::new()
    }

    /// Who leads a partition now.
    #[track_caller]
    pub fn leader(&self, cluster: &mut Cluster, topic: &str, partition: i32) -> usize {
        klamm_tests::eventually("a leader", 30, || {
            let leader = self.partitions(cluster, topic).get(&partition)?.leader;
            usize::try_from(leader).ok()
        })
    }

    /// What a node knows of the metadata quorum.
    pub fn quorum(&self, cluster: &Cluster, node: usize) -> Option<Quorum> {
        let request = DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: "__cluster_metadata".into(),
                partitions: vec![PartitionData { partition_index: 0 }],
            }],
        };
        let answer = self.ask(&cluster.address(node), &request).ok()?;
        let found = answer.topics.into_iter().flat_map(|t| t.partitions).next()?;
        (found.error_code == 0).then_some(found)
    }

    /// The active controller, said a node that answers; of several opinions that of the highest epoch.
    pub fn controller_now(&self, cluster: &mut Cluster) -> Option<(usize, i32)> {
        let answering: Vec<usize> = cluster.ids().into_iter().filter(|id| cluster.answers(*id)).collect();
        let opinions = answering.into_iter().filter_map(|node| self.quorum(cluster, node));
        let newest = opinions.filter(|q| q.leader_id >= 0).max_by_key(|q| q.leader_epoch)?;
        Some((usize::try_from(newest.leader_id).ok()?, newest.leader_epoch))
    }

    /// The active controller.
    #[track_caller]
    pub fn controller(&self, cluster: &mut Cluster) -> usize {
        klamm_tests::eventually("a controller", 30, || self.controller_now(cluster)).0
    }

    /// What keeps the cluster from being whole: partitions without leader or full ISR, in any node's picture.
    pub fn ailing(&self, cluster: &mut Cluster) -> Vec<String> {
        let mut ailing = Vec::new();
        for node in cluster.ids() {
            let Some(answer) = self.metadata(cluster, node, None) else {
                ailing.push(format!("node {node} does not answer"));
                continue;
            };
            if answer.brokers.len() < cluster.ids().len() {
                ailing.push(format!("node {node} knows {} brokers", answer.brokers.len()));
            }
            for topic in &answer.topics {
                let name = topic.name.as_deref().unwrap_or_default();
                for p in &topic.partitions {
                    if p.leader_id < 0 || p.isr_nodes.len() < p.replica_nodes.len() {
                        ailing.push(format!(
                            "node {node}: {name}-{} leader {} isr {:?}",
                            p.partition_index, p.leader_id, p.isr_nodes
                        ));
                    }
                }
            }
        }
        ailing
    }

    /// Waits until every replica of every partition is in sync, in every node's picture; gives how long that took.
    #[track_caller]
    pub fn until_in_sync(&self, cluster: &mut Cluster, limit: Duration) -> Duration {
        let since = std::time::Instant::now();
        let whole = klamm_tests::wait_for(limit, || self.ailing(cluster).is_empty().then_some(()));
        if whole.is_none() {
            panic!("not all in sync within {limit:?}:\n{}", self.ailing(cluster).join("\n"));
        }
        since.elapsed()
    }
}
