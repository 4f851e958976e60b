//! What a broker tells of itself when somebody asks, as plain data, and its rendering. Nothing here is counted on a hot
//! path: offsets, sizes, groups and lag are there anyway.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::table;
use super::text::Text;

/// Gives a [`Snapshot`].
pub trait MetricsSource: Send + Sync {
    /// What is the case now.
    fn snapshot(&self) -> Snapshot;
}

/// A broker at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// This broker's id.
    pub node_id: i32,
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// Kafka's number of the broker's state.
    pub state: u8,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// Open connections.
    pub connections: usize,
    /// Fetch sessions kept.
    pub fetch_sessions: usize,
    /// Share of time the workers were idle since the last snapshot.
    pub idle: Option<f64>,
    /// The metadata quorum.
    pub controller: ControllerFacts,
    /// Registered brokers.
    pub brokers: Vec<BrokerFacts>,
    /// Replication.
    pub replication: ReplicationFacts,
    /// All topics of the cluster.
    pub topics: Vec<TopicFacts>,
    /// Groups coordinated here.
    pub groups: Vec<GroupFacts>,
    /// Rebalances completed here.
    pub rebalances: u64,
    /// Log directories that work, with total and free bytes of their file systems.
    pub log_dirs: Vec<(String, u64, u64)>,
    /// Log directories that failed.
    pub failed_log_dirs: Vec<String>,
    /// When certificates run out, by listener.
    pub certificates: Vec<(String, i64)>,
}

/// What this broker replicates.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicationFacts {
    /// Replicas that could not be opened.
    pub offline: usize,
    /// Replicas that are known to be damaged.
    pub damaged: usize,
    /// Those under repair that nobody can give what comes next.
    pub bereft: usize,
    /// Bytes that repairs keep.
    pub kept_bytes: u64,
    /// ISRs that became smaller.
    pub shrinks: u64,
    /// ISRs that became larger.
    pub expands: u64,
    /// Changes of ISRs that the controller refused.
    pub failed_updates: u64,
    /// Records the slowest follower here is behind.
    pub lag_max: i64,
    /// Partitions that are not fetched for a moment.
    pub failed: i64,
    /// Bytes from leaders.
    pub bytes_in: u64,
    /// Bytes to followers.
    pub bytes_out: u64,
}

/// The metadata quorum as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct ControllerFacts {
    /// Whether this node leads it.
    pub active: bool,
    /// Who does.
    pub leader: Option<i32>,
    /// Its epoch.
    pub epoch: u64,
    /// Last offset this broker acts on.
    pub applied: u64,
    /// Last offset in this node's log.
    pub last: u64,
    /// What this node is: `leader`, `follower`, `candidate` or `observer`.
    pub role: &'static str,
    /// Whom this node voted for in this epoch.
    pub voted_for: Option<i32>,
    /// Offset of the newest snapshot.
    pub snapshot: Option<u64>,
    /// Bytes of the metadata log's files.
    pub journal_bytes: u64,
    /// Messages refused.
    pub refusals: u64,
    /// Changes committed as the active controller.
    pub commits: u64,
    /// Seconds these took.
    pub commit_seconds: f64,
    /// Unclean elections committed.
    pub unclean_elections: u64,
    /// Elections out of the eligible leader replicas committed.
    pub eligible_elections: u64,
    /// The voters; on the leader the observers, too.
    pub nodes: Vec<QuorumNode>,
}

/// A node that keeps the metadata log.
#[derive(Clone, Debug, Default)]
pub struct QuorumNode {
    /// Its id.
    pub id: i32,
    /// Where its controller listener is; empty when nobody has said so.
    pub address: String,
    /// Whether it votes.
    pub votes: bool,
    /// On the leader: one past its last entry, when known.
    pub end: Option<u64>,
}

/// A registered broker.
#[derive(Clone, Debug)]
pub struct BrokerFacts {
    /// Its id.
    pub id: i32,
    /// Where clients reach it.
    pub address: String,
    /// Whether it is shut out.
    pub fenced: bool,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionFacts>,
}

/// A partition.
#[derive(Clone, Debug, Default)]
pub struct PartitionFacts {
    /// Who leads it; negative when nobody does.
    pub leader: i32,
    /// Whether that is the preferred replica.
    pub preferred: bool,
    /// Replicas.
    pub replicas: usize,
    /// Replicas in sync.
    pub in_sync: usize,
    /// Replicas that must be in sync.
    pub min_in_sync: usize,
    /// Whether it is being reassigned.
    pub reassigning: bool,
    /// Its log, when this broker has one.
    pub log: Option<LogFacts>,
}

/// A partition's log on this broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFacts {
    /// First offset kept.
    pub start: i64,
    /// Offset that read_committed consumers can read up to.
    pub last_stable: i64,
    /// Offset that consumers can read up to.
    pub high_watermark: i64,
    /// Next offset.
    pub end: i64,
    /// Bytes of its segments.
    pub size: i64,
    /// As follower: records behind the leader's high watermark.
    pub behind: Option<i64>,
}

/// A group coordinated here.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Its id.
    pub id: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Members.
    pub members: usize,
    /// Committed offsets: topic, partition, offset; sorted.
    pub offsets: Vec<(Arc<str>, i32, i64)>,
}

impl Snapshot {
    pub(super) fn render(&self, text: &mut Text) {
        self.render_broker(text);
        self.render_replicas(text);
        self.render_followers(text);
        self.render_cluster(text);
        self.render_exporter(text);
        self.render_groups(text);
        self.render_lag(text);
    }

    fn led(&self) -> impl Iterator<Item = &PartitionFacts> {
        self.topics.iter().flat_map(|topic| &topic.partitions).filter(|p| p.leader == self.node_id && p.log.is_some())
    }

    fn render_broker(&self, text: &mut Text) {
        let controller = &self.controller;
        text.value(&table::BROKER_STATE, &[], self.state);
        text.value(&table::READY, &[], u8::from(self.ready));
        text.value(&table::UPTIME, &[], self.uptime_s);
        text.value(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
        text.value(&table::CONNECTIONS, &[], self.connections);
        text.value(&table::FETCH_SESSIONS, &[], self.fetch_sessions);
        if let Some(idle) = self.idle {
            text.value(&table::REQUEST_IDLE, &[], idle);
            text.value(&table::NETWORK_IDLE, &[], idle);
        }
        text.value(&table::RAFT_LEADER, &[], controller.leader.unwrap_or(-1));
        text.value(&table::RAFT_EPOCH, &[], controller.epoch);
        // Ends, as DescribeQuorum gives them: one past the last record.
        text.value(&table::RAFT_HW, &[], controller.applied + 1);
        text.value(&table::RAFT_END, &[], controller.last + 1);
        text.value(&table::RAFT_VOTE, &[], controller.voted_for.unwrap_or(-1));
        let voting = |votes: bool| controller.nodes.iter().filter(|node| node.votes == votes).count();
        text.value(&table::RAFT_VOTERS, &[], voting(true));
        if controller.active {
            text.value(&table::RAFT_OBSERVERS, &[], voting(false));
        }
        text.value(&table::QUORUM_ROLE, &[controller.role], 1);
        for node in controller.nodes.iter().filter(|_| controller.active) {
            if let Some(end) = node.end {
                let (id, votes) = (node.id.to_string(), node.votes.to_string());
                text.value(&table::QUORUM_LAG, &[&id, &votes], (controller.last + 1).saturating_sub(end));
            }
        }
        text.value(&table::QUORUM_SNAPSHOT, &[], controller.snapshot.map_or(-1, |offset| offset as i64));
        text.value(&table::QUORUM_JOURNAL, &[], controller.journal_bytes);
        text.value(&table::QUORUM_REFUSALS, &[], controller.refusals);
        text.value(&table::METADATA_APPLY_ERRORS, &[], 0);
        text.value(&table::METADATA_LOAD_ERRORS, &[], 0);
        text.value(&table::METADATA_APPLIED, &[], controller.applied);
        text.value(&table::OFFLINE_DIRS, &[], self.failed_log_dirs.len());
        for (listener, expires) in &self.certificates {
            text.value(&table::CERTIFICATE_EXPIRY, &[listener], expires);
        }
        for (dir, total, _) in &self.log_dirs {
            text.value(&table::DIR_TOTAL, &[dir], total);
        }
        for (dir, _, free) in &self.log_dirs {
            text.value(&table::DIR_FREE, &[dir], free);
        }
    }

    fn render_replicas(&self, text: &mut Text) {
        let held = self.topics.iter().flat_map(|topic| &topic.partitions).filter(|p| p.log.is_some());
        text.value(&table::PARTITIONS, &[], held.count());
        text.value(&table::LEADERS, &[], self.led().count());
        let count = |is: fn(&PartitionFacts) -> bool| self.led().filter(|p| is(p)).count();
        text.value(&table::UNDER_REPLICATED, &[], count(PartitionFacts::under_replicated));
        text.value(&table::UNDER_MIN_ISR, &[], count(PartitionFacts::under_min));
        text.value(&table::AT_MIN_ISR, &[], count(PartitionFacts::at_min));
        text.value(&table::REASSIGNING, &[], count(|p| p.reassigning));
        let replication = &self.replication;
        text.value(&table::OFFLINE_REPLICAS, &[], replication.offline);
        text.value(&table::DAMAGED_REPLICAS, &[], replication.damaged);
        text.value(&table::BEREFT_REPLICAS, &[], replication.bereft);
        text.value(&table::KEPT_BYTES, &[], replication.kept_bytes);
        text.value(&table::ISR_SHRINKS, &[], replication.shrinks);
        text.value(&table::ISR_EXPANDS, &[], replication.expands);
        text.value(&table::ISR_FAILED, &[], replication.failed_updates);
        text.value(&table::FETCHER_LAG, &[], replication.lag_max);
        text.value(&table::FETCHER_FAILED, &[], replication.failed);
        text.value(&table::REPLICATION_IN, &[], replication.bytes_in);
        text.value(&table::REPLICATION_OUT, &[], replication.bytes_out);
        type Number = fn(&PartitionFacts, &LogFacts) -> i64;
        let by_partition: &[(&table::Def, Number)] = &[
            (&table::P_UNDER_REPLICATED, |p, _| p.under_replicated().into()),
            (&table::P_UNDER_MIN_ISR, |p, _| p.under_min().into()),
            (&table::P_AT_MIN_ISR, |p, _| p.at_min().into()),
            (&table::P_REPLICAS, |p, _| number(p.replicas)),
            (&table::P_IN_SYNC, |p, _| number(p.in_sync)),
            (&table::P_LSO_LAG, |_, log| log.high_watermark - log.last_stable),
            (&table::LOG_SIZE, |_, log| log.size),
            (&table::LOG_START, |_, log| log.start),
            (&table::LOG_END, |_, log| log.end),
            (&table::X_CURRENT, |_, log| log.high_watermark),
            (&table::X_OLDEST, |_, log| log.start),
        ];
        for (def, value) in by_partition {
            for topic in &self.topics {
                for (index, p) in topic.partitions.iter().enumerate() {
                    if let Some(log) = &p.log {
                        text.value(def, &[&topic.name, &index.to_string()], value(p, log));
                    }
                }
            }
        }
    }

    /// How far each follower here is behind, with the client id that Kafka's fetcher threads have.
    fn render_followers(&self, text: &mut Text) {
        for topic in &self.topics {
            for (index, p) in topic.partitions.iter().enumerate() {
                if let Some(behind) = p.log.as_ref().and_then(|log| log.behind) {
                    let client = format!("ReplicaFetcherThread-0-{}", p.leader);
                    text.value(&table::FOLLOWER_LAG, &[&client, &topic.name, &index.to_string()], behind);
                }
            }
        }
    }

    fn render_cluster(&self, text: &mut Text) {
        text.value(&table::ACTIVE_CONTROLLER, &[], u8::from(self.controller.active));
        text.value(&table::CONTROLLER_APPLIED, &[], self.controller.applied);
        text.value(&table::CONTROLLER_COMMITTED, &[], self.controller.applied);
        text.value(&table::METADATA_ERRORS, &[], 0);
        text.value(&table::CONTROLLER_COMMITS, &[], self.controller.commits);
        text.value(&table::CONTROLLER_COMMIT_SECONDS, &[], self.controller.commit_seconds);
        text.value(&table::UNCLEAN_ELECTIONS, &[], self.controller.unclean_elections);
        text.value(&table::ELIGIBLE_ELECTIONS, &[], self.controller.eligible_elections);
        if !self.controller.active {
            return;
        }
        let all = || self.topics.iter().flat_map(|topic| &topic.partitions);
        text.value(&table::OFFLINE_PARTITIONS, &[], all().filter(|p| p.leader < 0).count());
        text.value(&table::GLOBAL_TOPICS, &[], self.topics.len());
        text.value(&table::GLOBAL_PARTITIONS, &[], all().count());
        text.value(&table::ACTIVE_BROKERS, &[], self.brokers.iter().filter(|b| !b.fenced).count());
        text.value(&table::FENCED_BROKERS, &[], self.brokers.iter().filter(|b| b.fenced).count());
        text.value(&table::IMBALANCE, &[], all().filter(|p| !p.preferred).count());
    }

    /// kafka_exporter's view of brokers and partitions. Each broker tells of those it leads, so that a cluster's
    /// series come once.
    fn render_exporter(&self, text: &mut Text) {
        text.value(&table::X_BROKERS, &[], self.brokers.iter().filter(|b| !b.fenced).count());
        for broker in &self.brokers {
            text.value(&table::X_BROKER_INFO, &[&broker.id.to_string(), &broker.address], 1);
        }
        let led = |p: &PartitionFacts| p.leader == self.node_id && p.log.is_some();
        for topic in self.topics.iter().filter(|topic| topic.partitions.first().is_some_and(led)) {
            text.value(&table::X_PARTITIONS, &[&topic.name], topic.partitions.len());
        }
        type Number = fn(&PartitionFacts) -> i64;
        let by_partition: &[(&table::Def, Number)] = &[
            (&table::X_LEADER, |p| p.leader.into()),
            (&table::X_PREFERRED, |p| p.preferred.into()),
            (&table::X_REPLICAS, |p| number(p.replicas)),
            (&table::X_IN_SYNC, |p| number(p.in_sync)),
            (&table::X_UNDER_REPLICATED, |p| p.under_replicated().into()),
        ];
        for (def, value) in by_partition {
            for topic in &self.topics {
                for (index, p) in topic.partitions.iter().enumerate().filter(|(_, p)| led(p)) {
                    text.value(def, &[&topic.name, &index.to_string()], value(p));
                }
            }
        }
    }

    fn render_groups(&self, text: &mut Text) {
        text.value(&table::GROUPS, &[], self.groups.len());
        text.value(&table::GROUP_OFFSETS, &[], self.groups.iter().map(|g| g.offsets.len()).sum::<usize>());
        for (def, state) in [
            (&table::GROUPS_STABLE, "Stable"),
            (&table::GROUPS_PREPARING, "PreparingRebalance"),
            (&table::GROUPS_COMPLETING, "CompletingRebalance"),
            (&table::GROUPS_EMPTY, "Empty"),
        ] {
            text.value(def, &[], self.groups.iter().filter(|g| g.state == state).count());
        }
        text.value(&table::GROUP_COUNT, &["classic"], self.groups.len());
        text.value(&table::REBALANCES, &[], self.rebalances);
        for group in &self.groups {
            text.value(&table::X_GROUP_MEMBERS, &[&group.id], group.members);
        }
    }

    fn render_lag(&self, text: &mut Text) {
        let topics: BTreeMap<&str, &TopicFacts> = self.topics.iter().map(|t| (&*t.name, t)).collect();
        // kafka_exporter says -1 for the lag of a partition whose end it does not know.
        let lag = |topic: &str, partition: i32, offset: i64| {
            let partition = topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
            Some((partition.log.as_ref()?.high_watermark - offset).max(0))
        };
        for group in &self.groups {
            for (topic, partition, offset) in &group.offsets {
                text.value(&table::X_GROUP_OFFSET, &[&group.id, topic, &partition.to_string()], offset);
            }
        }
        for group in &self.groups {
            for (topic, partition, offset) in &group.offsets {
                let value = lag(topic, *partition, *offset).unwrap_or(-1);
                text.value(&table::X_GROUP_LAG, &[&group.id, topic, &partition.to_string()], value);
            }
        }
        let sums = |value: &dyn Fn(&str, i32, i64) -> i64| {
            let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
            for group in &self.groups {
                for (topic, partition, offset) in &group.offsets {
                    *sums.entry((&group.id, topic)).or_default() += value(topic, *partition, *offset);
                }
            }
            sums
        };
        for ((group, topic), sum) in sums(&|_, _, offset| offset) {
            text.value(&table::X_GROUP_OFFSET_SUM, &[group, topic], sum);
        }
        for ((group, topic), sum) in sums(&|topic, partition, offset| lag(topic, partition, offset).unwrap_or(0)) {
            text.value(&table::X_GROUP_LAG_SUM, &[group, topic], sum);
        }
    }
}

impl PartitionFacts {
    fn under_replicated(&self) -> bool {
        self.in_sync < self.replicas
    }

    /// More replicas than there are cannot be demanded.
    fn min(&self) -> usize {
        self.min_in_sync.min(self.replicas)
    }

    fn under_min(&self) -> bool {
        self.in_sync < self.min()
    }

    fn at_min(&self) -> bool {
        self.in_sync == self.min()
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let log =
            |end| Some(LogFacts { start: 2, last_stable: end, high_watermark: end, end, size: 1000, behind: None });
        let partition = |end, in_sync| PartitionFacts {
            leader: 1,
            preferred: true,
            replicas: 3,
            in_sync,
            min_in_sync: 2,
            reassigning: false,
            log: log(end),
        };
        let elsewhere = PartitionFacts { leader: 2, replicas: 1, in_sync: 1, ..PartitionFacts::default() };
        Snapshot {
            node_id: 1,
            topics: vec![TopicFacts {
                name: "t".into(),
                partitions: vec![partition(10, 3), partition(20, 1), elsewhere],
            }],
            groups: vec![GroupFacts {
                id: "g".into(),
                state: "Stable",
                members: 2,
                offsets: vec![("t".into(), 0, 4), ("t".into(), 1, 25), ("t".into(), 2, 7), ("x".into(), 0, 1)],
            }],
            controller: ControllerFacts {
                active: true,
                leader: Some(1),
                last: 9,
                role: "leader",
                nodes: vec![
                    QuorumNode { id: 1, votes: true, end: Some(10), ..QuorumNode::default() },
                    QuorumNode { id: 2, votes: true, end: Some(7), ..QuorumNode::default() },
                    QuorumNode { id: 3, votes: false, end: None, ..QuorumNode::default() },
                ],
                ..ControllerFacts::default()
            },
            brokers: vec![BrokerFacts { id: 1, address: "h:9092".into(), fenced: false }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn lag_and_health_are_computed() {
        let mut text = Text::default();
        snapshot().render(&mut text);
        let text = text.finish();
        for line in [
            "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"0\"} 6",
            "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"1\"} 0",
            "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"2\"} -1",
            "kafka_consumergroup_lag_sum{consumergroup=\"g\",topic=\"t\"} 6",
            "kafka_consumergroup_current_offset_sum{consumergroup=\"g\",topic=\"t\"} 36",
            "kafka_consumergroup_members{consumergroup=\"g\"} 2",
            "kafka_server_replicamanager_partitioncount 2",
            "kafka_server_replicamanager_underreplicatedpartitions 1",
            "kafka_server_replicamanager_underminisrpartitioncount 1",
            "kafka_controller_kafkacontroller_globalpartitioncount 3",
            "kafka_topic_partition_current_offset{topic=\"t\",partition=\"1\"} 20",
            "kafka_topic_partitions{topic=\"t\"} 3",
            "kafka_server_raftmetrics_log_end_offset 10",
            "kafka_server_raftmetrics_number_of_voters 2",
            "kafka_server_raftmetrics_number_of_observers 1",
            "klamm_quorum_role{role=\"leader\"} 1",
            "klamm_quorum_lag_records{node=\"1\",votes=\"true\"} 0",
            "klamm_quorum_lag_records{node=\"2\",votes=\"true\"} 3",
            "kafka_broker_info{id=\"1\",address=\"h:9092\"} 1",
            "kafka_log_log_size{topic=\"t\",partition=\"0\"} 1000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("kafka_topic_partition_leader{topic=\"t\",partition=\"2\"}"));
    }
}
