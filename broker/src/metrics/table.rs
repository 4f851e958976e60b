//! Every metric once: name, kind, labels, help. `/metrics`, `docs/metrics.md` and the code take them from here. Names
//! beginning with `kafka_` are those the JMX exporter and kafka_exporter give, so that dashboards and alerts made for
//! Apache Kafka work; labels are theirs, too.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles with a count.
    Summary,
    /// Buckets with a sum and a count.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric's declaration.
#[derive(Debug)]
pub struct Def {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $ident: Def =
            Def { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+
        /// All metrics, in the order of the documentation.
        pub const ALL: &[Def] = &[$($ident),+];
    };
}

metrics! {
    // Traffic by topic.
    BYTES_IN = Counter "kafka_server_brokertopicmetrics_bytesin_total" ["topic"] "Bytes produced; the series without a topic is the sum.";
    BYTES_OUT = Counter "kafka_server_brokertopicmetrics_bytesout_total" ["topic"] "Bytes consumed; the series without a topic is the sum.";
    BYTES_REJECTED = Counter "kafka_server_brokertopicmetrics_bytesrejected_total" ["topic"] "Bytes of refused batches; the series without a topic is the sum.";
    MESSAGES_IN = Counter "kafka_server_brokertopicmetrics_messagesin_total" ["topic"] "Records produced; the series without a topic is the sum.";
    PRODUCE_REQUESTS = Counter "kafka_server_brokertopicmetrics_totalproducerequests_total" ["topic"] "Produce requests that named the topic.";
    FETCH_REQUESTS = Counter "kafka_server_brokertopicmetrics_totalfetchrequests_total" ["topic"] "Fetch requests that named the topic.";
    FAILED_PRODUCE = Counter "kafka_server_brokertopicmetrics_failedproducerequests_total" ["topic"] "Produce requests refused for the topic.";
    FAILED_FETCH = Counter "kafka_server_brokertopicmetrics_failedfetchrequests_total" ["topic"] "Fetch requests refused for the topic.";

    // Requests.
    REQUESTS = Counter "kafka_network_requestmetrics_requests_total" ["request", "version"] "Requests answered.";
    REQUEST_ERRORS = Counter "kafka_network_requestmetrics_errors_total" ["request", "error"] "Error codes in answers; NONE counts answers without.";
    REQUEST_TIME_MS = Summary "kafka_network_requestmetrics_totaltimems" ["request"] "Milliseconds from the end of a request's frame to its answer, over the last five to ten minutes.";
    REQUEST_SECONDS = Histogram "klamm_request_duration_seconds" ["request"] "Seconds from the end of a request's frame to its answer.";

    // Connections.
    CONNECTIONS = Gauge "kafka_server_socket_server_metrics_connection_count" [] "Open connections.";
    CONNECTIONS_CREATED = Counter "kafka_server_socket_server_metrics_connection_creation_total" [] "Connections accepted.";
    CONNECTIONS_REFUSED = Counter "klamm_connections_refused_total" [] "Connections closed at once because a limit was reached or the TLS handshake failed.";
    CERTIFICATE_EXPIRY = Gauge "klamm_certificate_expiry_seconds" ["listener"] "When the certificate that a listener shows runs out, in seconds since 1970.";
    CONNECTIONS_EXPIRED = Counter "kafka_network_socketserver_expiredconnectionskilledcount" [] "Connections closed because they were idle.";
    PANICS = Counter "klamm_panics_total" [] "Panics caught; each closed one connection.";
    FETCH_SESSIONS = Gauge "kafka_server_fetchsessioncache_numincrementalfetchsessions" [] "Fetch sessions kept.";
    REQUEST_IDLE = Gauge "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent" [] "Share of time the worker threads were idle since the last scrape, 0 to 1.";
    NETWORK_IDLE = Gauge "kafka_network_socketserver_networkprocessoravgidle_percent" [] "The same; network and requests share their threads.";

    // This broker's replicas.
    PARTITIONS = Gauge "kafka_server_replicamanager_partitioncount" [] "Partitions this broker holds a replica of.";
    LEADERS = Gauge "kafka_server_replicamanager_leadercount" [] "Partitions this broker leads.";
    UNDER_REPLICATED = Gauge "kafka_server_replicamanager_underreplicatedpartitions" [] "Led partitions with a replica out of sync.";
    UNDER_MIN_ISR = Gauge "kafka_server_replicamanager_underminisrpartitioncount" [] "Led partitions with fewer replicas in sync than min.insync.replicas.";
    AT_MIN_ISR = Gauge "kafka_server_replicamanager_atminisrpartitioncount" [] "Led partitions with exactly min.insync.replicas in sync.";
    REASSIGNING = Gauge "kafka_server_replicamanager_reassigningpartitions" [] "Led partitions that are being reassigned.";
    OFFLINE_REPLICAS = Gauge "kafka_server_replicamanager_offlinereplicacount" [] "Replicas here that could not be opened.";
    DAMAGED_REPLICAS = Gauge "klamm_log_damaged_partitions" [] "Replicas here with records that are known to be damaged and were not taken from another replica yet.";
    BEREFT_REPLICAS = Gauge "klamm_log_unrepairable_partitions" [] "Replicas here under repair that have come to records which neither the leader nor they have undamaged.";
    KEPT_BYTES = Gauge "klamm_log_repair_kept_bytes" [] "Bytes that repairs took out of damaged replicas and keep until they are there again.";
    DAMAGES = Counter "klamm_log_damage_found_total" [] "Damaged places found in segments: bits that are not what was written.";
    ISR_SHRINKS = Counter "kafka_server_replicamanager_isrshrinks_total" [] "Times a replica left the in-sync replicas of a partition led here.";
    ISR_EXPANDS = Counter "kafka_server_replicamanager_isrexpands_total" [] "Times a replica joined the in-sync replicas of a partition led here.";
    ISR_FAILED = Counter "kafka_server_replicamanager_failedisrupdates_total" [] "Changes of in-sync replicas that the controller refused.";
    FETCHER_LAG = Gauge "kafka_server_replicafetchermanager_maxlag" [] "Records the slowest follower here is behind its leader's high watermark.";
    FETCHER_FAILED = Gauge "kafka_server_replicafetchermanager_failedpartitionscount" [] "Partitions that are not fetched for a moment because that failed.";
    FOLLOWER_LAG = Gauge "kafka_server_fetcherlagmetrics_consumerlag" ["clientid", "topic", "partition"] "Records a follower here is behind its leader's high watermark.";
    REPLICATION_IN = Counter "kafka_server_brokertopicmetrics_replicationbytesin_total" [] "Bytes taken over from leaders.";
    REPLICATION_OUT = Counter "kafka_server_brokertopicmetrics_replicationbytesout_total" [] "Bytes sent to followers.";
    P_UNDER_REPLICATED = Gauge "kafka_cluster_partition_underreplicated" ["topic", "partition"] "1 when a replica is out of sync.";
    P_UNDER_MIN_ISR = Gauge "kafka_cluster_partition_underminisr" ["topic", "partition"] "1 with fewer replicas in sync than min.insync.replicas.";
    P_AT_MIN_ISR = Gauge "kafka_cluster_partition_atminisr" ["topic", "partition"] "1 with exactly min.insync.replicas in sync.";
    P_REPLICAS = Gauge "kafka_cluster_partition_replicascount" ["topic", "partition"] "Replicas.";
    P_IN_SYNC = Gauge "kafka_cluster_partition_insyncreplicascount" ["topic", "partition"] "Replicas in sync.";
    P_LSO_LAG = Gauge "kafka_cluster_partition_laststableoffsetlag" ["topic", "partition"] "Records behind the high watermark that open transactions hold back.";

    // Logs.
    LOG_SIZE = Gauge "kafka_log_log_size" ["topic", "partition"] "Bytes of the partition's segments.";
    LOG_START = Gauge "kafka_log_log_logstartoffset" ["topic", "partition"] "First offset kept.";
    LOG_END = Gauge "kafka_log_log_logendoffset" ["topic", "partition"] "Next offset to be written.";
    OFFLINE_DIRS = Gauge "kafka_log_logmanager_offlinelogdirectorycount" [] "Log directories that failed.";
    FLUSHES_MS = Summary "kafka_log_logflushstats_logflushrateandtimems" [] "Milliseconds of a flush to disk, over the last five to ten minutes.";
    FLUSH_SECONDS = Histogram "klamm_log_flush_duration_seconds" [] "Seconds of a flush to disk.";
    DIR_TOTAL = Gauge "klamm_log_dir_total_bytes" ["dir"] "Size of the file system of a log directory.";
    DIR_FREE = Gauge "klamm_log_dir_free_bytes" ["dir"] "Free bytes of the file system of a log directory.";

    // Groups.
    GROUPS = Gauge "kafka_coordinator_group_groupmetadatamanager_numgroups" [] "Groups coordinated here.";
    GROUP_OFFSETS = Gauge "kafka_coordinator_group_groupmetadatamanager_numoffsets" [] "Committed offsets kept here.";
    GROUPS_STABLE = Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsstable" [] "Groups in state Stable.";
    GROUPS_PREPARING = Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance" [] "Groups in state PreparingRebalance.";
    GROUPS_COMPLETING = Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance" [] "Groups in state CompletingRebalance.";
    GROUPS_EMPTY = Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsempty" [] "Groups in state Empty.";
    GROUP_COUNT = Gauge "kafka_server_group_coordinator_metrics_group_count" ["protocol"] "Groups by protocol.";
    REBALANCES = Counter "kafka_server_group_coordinator_metrics_group_completed_rebalance_total" [] "Rebalances completed.";

    // Cluster, as the controller sees it.
    ACTIVE_CONTROLLER = Gauge "kafka_controller_kafkacontroller_activecontrollercount" [] "1 on the active controller; the sum over brokers must be 1.";
    OFFLINE_PARTITIONS = Gauge "kafka_controller_kafkacontroller_offlinepartitionscount" [] "Partitions without a leader.";
    GLOBAL_TOPICS = Gauge "kafka_controller_kafkacontroller_globaltopiccount" [] "Topics of the cluster.";
    GLOBAL_PARTITIONS = Gauge "kafka_controller_kafkacontroller_globalpartitioncount" [] "Partitions of the cluster.";
    ACTIVE_BROKERS = Gauge "kafka_controller_kafkacontroller_activebrokercount" [] "Brokers that are registered and not fenced.";
    FENCED_BROKERS = Gauge "kafka_controller_kafkacontroller_fencedbrokercount" [] "Brokers that are registered and fenced.";
    IMBALANCE = Gauge "kafka_controller_kafkacontroller_preferredreplicaimbalancecount" [] "Partitions not led by their preferred replica.";

    UNCLEAN_ELECTIONS = Counter "kafka_controller_controllerstats_uncleanleaderelections_total" [] "Leaders elected that may lack records, by this node as the active controller.";
    ELIGIBLE_ELECTIONS = Counter "kafka_controller_controllerstats_electionfromeligibleleaderreplicas_total" [] "Leaders elected out of the eligible leader replicas, by this node as the active controller.";
    CONTROLLER_APPLIED = Gauge "kafka_controller_kafkacontroller_lastappliedrecordoffset" [] "Last record of the metadata log that this node's controller knows.";
    CONTROLLER_COMMITTED = Gauge "kafka_controller_kafkacontroller_lastcommittedrecordoffset" [] "The same: only what is committed is applied.";
    METADATA_ERRORS = Gauge "kafka_controller_kafkacontroller_metadataerrorcount" [] "Always 0: a node that cannot apply a metadata record stops with exit code 70.";
    CONTROLLER_COMMITS = Counter "klamm_controller_commits_total" [] "Changes of metadata that this node committed as the active controller.";
    CONTROLLER_COMMIT_SECONDS = Counter "klamm_controller_commit_seconds_total" [] "Seconds these took, from the decision to a majority's disks; divided by their number, the mean.";

    // Broker and metadata quorum.
    BROKER_STATE = Gauge "kafka_server_kafkaserver_brokerstate" [] "0 not running, 1 starting, 2 recovering, 3 running, 6 shutting down.";
    DISK_READ = Counter "kafka_server_kafkaserver_linux_disk_read_bytes" [] "Bytes the process had read from disks.";
    DISK_WRITE = Counter "kafka_server_kafkaserver_linux_disk_write_bytes" [] "Bytes the process had written to disks.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time of the process, user and system.";
    RAFT_LEADER = Gauge "kafka_server_raftmetrics_current_leader" [] "Node that leads the metadata quorum, -1 for none.";
    RAFT_EPOCH = Gauge "kafka_server_raftmetrics_current_epoch" [] "Epoch of the metadata quorum.";
    RAFT_HW = Gauge "kafka_server_raftmetrics_high_watermark" [] "Committed end of the metadata log.";
    RAFT_END = Gauge "kafka_server_raftmetrics_log_end_offset" [] "End of this node's metadata log.";
    RAFT_VOTE = Gauge "kafka_server_raftmetrics_current_vote" [] "Node that this one voted for in the current epoch, -1 for none.";
    RAFT_VOTERS = Gauge "kafka_server_raftmetrics_number_of_voters" [] "Nodes that vote in the metadata quorum.";
    RAFT_OBSERVERS = Gauge "kafka_server_raftmetrics_number_of_observers" [] "Nodes that fetch the metadata log without a vote; told by the leader.";
    QUORUM_ROLE = Gauge "klamm_quorum_role" ["role"] "1 for what this node is in the metadata quorum: leader, follower, candidate or observer.";
    QUORUM_LAG = Gauge "klamm_quorum_lag_records" ["node", "votes"] "Entries of the metadata log that another node lacks; told by the leader.";
    QUORUM_SNAPSHOT = Gauge "klamm_quorum_snapshot_offset" [] "Offset of the newest snapshot of metadata, -1 for none.";
    QUORUM_JOURNAL = Gauge "klamm_quorum_journal_bytes" [] "Bytes of the metadata log's files.";
    QUORUM_REFUSALS = Counter "klamm_quorum_refusals_total" [] "Messages of other nodes refused because of who sent them or what they held.";
    METADATA_APPLY_ERRORS = Gauge "kafka_server_broker_metadata_metrics_metadata_apply_error_count" [] "Always 0, as above.";
    METADATA_LOAD_ERRORS = Gauge "kafka_server_broker_metadata_metrics_metadata_load_error_count" [] "Always 0, as above.";
    METADATA_APPLIED = Gauge "kafka_server_broker_metadata_metrics_last_applied_record_offset" [] "Last record of the metadata log this broker acts on.";
    BUILD_INFO = Gauge "klamm_build_info" ["version"] "Always 1; the version is the label.";
    READY = Gauge "klamm_ready" [] "1 when /readyz says so.";
    UPTIME = Gauge "klamm_uptime_seconds" [] "Seconds since the start.";

    // What kafka_exporter would tell, as far as this broker leads and coordinates.
    X_BROKERS = Gauge "kafka_brokers" [] "Brokers of the cluster.";
    X_BROKER_INFO = Gauge "kafka_broker_info" ["id", "address"] "Always 1 for each broker.";
    X_PARTITIONS = Gauge "kafka_topic_partitions" ["topic"] "Partitions of a topic.";
    X_CURRENT = Gauge "kafka_topic_partition_current_offset" ["topic", "partition"] "Offset consumers can read up to.";
    X_OLDEST = Gauge "kafka_topic_partition_oldest_offset" ["topic", "partition"] "First offset kept.";
    X_IN_SYNC = Gauge "kafka_topic_partition_in_sync_replica" ["topic", "partition"] "Replicas in sync.";
    X_LEADER = Gauge "kafka_topic_partition_leader" ["topic", "partition"] "Broker that leads.";
    X_PREFERRED = Gauge "kafka_topic_partition_leader_is_preferred" ["topic", "partition"] "1 when the preferred replica leads.";
    X_REPLICAS = Gauge "kafka_topic_partition_replicas" ["topic", "partition"] "Replicas.";
    X_UNDER_REPLICATED = Gauge "kafka_topic_partition_under_replicated_partition" ["topic", "partition"] "1 when a replica is out of sync.";
    X_GROUP_OFFSET = Gauge "kafka_consumergroup_current_offset" ["consumergroup", "topic", "partition"] "Offset the group committed.";
    X_GROUP_LAG = Gauge "kafka_consumergroup_lag" ["consumergroup", "topic", "partition"] "Records between the committed offset and the end of the partition.";
    X_GROUP_OFFSET_SUM = Gauge "kafka_consumergroup_current_offset_sum" ["consumergroup", "topic"] "Committed offsets, summed over partitions.";
    X_GROUP_LAG_SUM = Gauge "kafka_consumergroup_lag_sum" ["consumergroup", "topic"] "Lag, summed over partitions.";
    X_GROUP_MEMBERS = Gauge "kafka_consumergroup_members" ["consumergroup"] "Members of the group.";
}
