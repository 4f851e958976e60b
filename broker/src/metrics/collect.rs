//! Takes the snapshot of a running broker. Looks at atomics and published state only; no partition's lock is taken, and
//! each coordinator's for the time it takes to copy its offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klamm_metadata::Image;
use klamm_quorum::{Replica, Role, Voter};

use super::snapshot::{
    BrokerFacts, ControllerFacts, GroupFacts, LogFacts, MetricsSource, PartitionFacts, QuorumNode, ReplicationFacts,
    Snapshot, TopicFacts,
};
use crate::broker::Broker;
use crate::cluster::visible::Visible;

impl MetricsSource for Broker {
    fn snapshot(&self) -> Snapshot {
        let image = self.controller.image();
        let ready = self.is_ready();
        let (groups, rebalances) = groups(self);
        Snapshot {
            node_id: self.config.node_id,
            cluster_id: image.cluster_id().to_owned(),
            ready,
            state: if ready { 3 } else { 1 },
            uptime_s: self.clock.now_ms() as f64 / 1000.0,
            connections: self.connections.len(),
            fetch_sessions: self.sessions.len(),
            idle: None,
            controller: controller(self),
            brokers: brokers(&image, &self.config.inter_broker_listener),
            replication: replication(self),
            topics: topics(self, &image),
            groups,
            rebalances,
            log_dirs: self.config.log_dirs.iter().filter_map(|dir| space(dir)).collect(),
            failed_log_dirs: Vec::new(),
            certificates: self.tls.expiries(),
        }
    }
}

fn controller(broker: &Broker) -> ControllerFacts {
    let quorum = broker.controller.quorum().metrics();
    let active = quorum.leader == Some(broker.config.node_id);
    let replicas = if active { broker.controller.quorum().replicas(broker.clock.wall_ms()) } else { Vec::new() };
    let address = |voter: &Voter| match voter.host.as_str() {
        "" => String::new(),
        host => crate::config::HostPort { host: host.to_owned(), port: voter.port }.to_string(),
    };
    let end = |id: i32| replicas.iter().find(|replica| replica.id == id).and_then(|replica| replica.log_end_offset);
    let voter =
        |(id, voter): &(i32, Voter)| QuorumNode { id: *id, address: address(voter), votes: true, end: end(*id) };
    let observer =
        |r: &Replica| QuorumNode { id: r.id, address: address(&r.voter), votes: false, end: r.log_end_offset };
    let observers = replicas.iter().filter(|replica| !replica.votes).map(observer);
    let mut nodes: Vec<_> = quorum.voters.iter().map(voter).chain(observers).collect();
    nodes.sort_by_key(|node| (!node.votes, node.id));
    let (commits, commit_seconds) = broker.controller.commits();
    ControllerFacts {
        active,
        leader: quorum.leader,
        epoch: quorum.term,
        applied: quorum.applied_offset.unwrap_or(0),
        last: quorum.last_offset.unwrap_or(0),
        role: match quorum.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Observer => "observer",
        },
        voted_for: quorum.voted_for,
        snapshot: quorum.snapshot_offset,
        journal_bytes: quorum.journal_bytes,
        refusals: quorum.refusals,
        commits,
        commit_seconds,
        unclean_elections: broker.controller.elections().unclean(),
        eligible_elections: broker.controller.elections().eligible(),
        nodes,
    }
}

/// A directory with the size and the free bytes of its file system.
pub fn space(dir: &std::path::Path) -> Option<(String, u64, u64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some((dir.display().to_string(), bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

fn brokers(image: &Image, listener: &str) -> Vec<BrokerFacts> {
    let address = |broker: &klamm_metadata::Broker| {
        let endpoint = broker.endpoints.iter().find(|e| e.name == listener).or(broker.endpoints.first());
        endpoint
            .map_or_else(String::new, |e| crate::config::HostPort { host: e.host.clone(), port: e.port }.to_string())
    };
    let facts = |broker: &klamm_metadata::Broker| BrokerFacts {
        id: broker.id,
        address: address(broker),
        fenced: broker.fenced,
    };
    image.brokers().map(|broker| facts(broker)).collect()
}

fn replication(broker: &Broker) -> ReplicationFacts {
    let around = &broker.replicas.around;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let partitions = broker.replicas.partitions();
    ReplicationFacts {
        offline: broker.replicas.offline_count(),
        damaged: broker.replicas.damaged.count(),
        bereft: partitions.iter().filter(|p| p.is_bereft()).count(),
        kept_bytes: partitions.iter().map(|p| p.kept_bytes()).sum(),
        shrinks: count(&around.isr_shrinks),
        expands: count(&around.isr_expands),
        failed_updates: count(&around.isr_failed_updates),
        lag_max: broker.replicas.fetchers.lag_max(),
        failed: broker.replicas.fetchers.failed(),
        bytes_in: count(&around.replication_bytes_in),
        bytes_out: count(&around.replication_bytes_out),
    }
}

fn topics(broker: &Broker, image: &Image) -> Vec<TopicFacts> {
    let topic = |topic: &Arc<klamm_metadata::Topic>| {
        let hosted = broker.replicas.topic_by_id(topic.id);
        let min_in_sync = hosted.as_ref().map_or(1, |hosted| hosted.topic.config().min_insync_replicas);
        let log = |index: usize| {
            let partition = hosted.as_ref()?.partition(i32::try_from(index).ok()?).ok()?;
            let offsets = partition.offsets();
            Some(LogFacts {
                start: offsets.log_start,
                last_stable: offsets.last_stable,
                high_watermark: offsets.high_watermark,
                end: offsets.log_end,
                size: partition.size_bytes(),
                behind: partition.follows().then(|| partition.behind()),
            })
        };
        let seen = |index, p: &Arc<_>| Visible::of(broker, image, topic.id, i32::try_from(index).unwrap_or(-1), p);
        let partitions = topic.partitions.iter().enumerate().map(|(index, p)| (index, p, seen(index, p)));
        let partitions = partitions.map(|(index, p, visible)| PartitionFacts {
            leader: visible.leader,
            preferred: p.replicas.first() == Some(&p.leader),
            replicas: p.replicas.len(),
            in_sync: visible.isr.len(),
            min_in_sync: usize::try_from(min_in_sync).unwrap_or(0),
            reassigning: !p.adding_replicas.is_empty() || !p.removing_replicas.is_empty(),
            log: log(index),
        });
        TopicFacts { name: topic.name.clone(), partitions: partitions.collect() }
    };
    image.topics().map(topic).collect()
}

fn groups(broker: &Broker) -> (Vec<GroupFacts>, u64) {
    let mut groups = Vec::new();
    let mut rebalances = 0;
    // Topic names repeat in every group; one copy of each is enough.
    let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
    let collected = broker.groups.each(|coordinator| {
        let mut here: BTreeMap<&str, GroupFacts> = BTreeMap::new();
        for group in coordinator.groups() {
            let facts = GroupFacts {
                id: group.id().to_owned(),
                state: group.state().name(),
                members: group.members().len(),
                offsets: Vec::new(),
            };
            here.insert(group.id(), facts);
        }
        for (group, topic, partition, committed) in coordinator.committed() {
            let Some(facts) = here.get_mut(group) else { continue };
            let topic = match names.get(topic) {
                Some(name) => name.clone(),
                None => {
                    let name: Arc<str> = topic.into();
                    names.insert(name.clone());
                    name
                }
            };
            facts.offsets.push((topic, partition, committed.offset));
        }
        groups.extend(here.into_values().map(|mut facts| {
            facts.offsets.sort_unstable();
            facts
        }));
        rebalances += coordinator.counters().completed_rebalances;
    });
    if collected.is_err() {
        tracing::debug!("metrics without the groups that are still being loaded");
    }
    (groups, rebalances)
}
