//! Kafka's error codes, as of 4.4: number, public name, whether a client should try again, and a message of our own.
//!
//! The table is the only place that lists them. Message fields carry the plain `i16`; everything inside a broker or
//! client speaks [`ErrorCode`].

use std::fmt;

macro_rules! error_codes {
    ($($code:literal $variant:ident $name:ident $retriable:literal: $message:literal,)*) => {
        /// What went wrong, as the Kafka protocol numbers it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", stringify!($name), "` (", stringify!($code), "): ", $message, ".")]
            $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, by number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code of this number, if Kafka 4.4 has one.
            pub fn known(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name, as in `UNKNOWN_TOPIC_OR_PARTITION`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => stringify!($name),)* }
            }

            /// One sentence for people.
            pub fn message(self) -> &'static str {
                match self { $(ErrorCode::$variant => $message,)* }
            }

            /// Whether clients take the error for passing and send the request again.
            pub fn retriable(self) -> bool {
                match self { $(ErrorCode::$variant => $retriable,)* }
            }
        }
    };
}

error_codes! {
    -1 UnknownServerError UNKNOWN_SERVER_ERROR false: "the broker failed in a way no other code describes; its log says how",
    0 None NONE false: "no error",
    1 OffsetOutOfRange OFFSET_OUT_OF_RANGE false: "the offset lies before the start or past the end of the partition's log",
    2 CorruptMessage CORRUPT_MESSAGE true: "the records do not match their checksum or are damaged in some other way",
    3 UnknownTopicOrPartition UNKNOWN_TOPIC_OR_PARTITION true: "this broker has no such topic or partition",
    4 InvalidFetchSize INVALID_FETCH_SIZE false: "the requested fetch size is not usable",
    5 LeaderNotAvailable LEADER_NOT_AVAILABLE true: "the partition has no leader at the moment",
    6 NotLeaderOrFollower NOT_LEADER_OR_FOLLOWER true: "this broker is not the leader, or not a replica, of the partition",
    7 RequestTimedOut REQUEST_TIMED_OUT true: "the request was not completed within its time limit",
    8 BrokerNotAvailable BROKER_NOT_AVAILABLE false: "the broker is not reachable",
    9 ReplicaNotAvailable REPLICA_NOT_AVAILABLE true: "the replica asked for is not available",
    10 MessageTooLarge MESSAGE_TOO_LARGE false: "the record batch is larger than the topic allows",
    11 StaleControllerEpoch STALE_CONTROLLER_EPOCH false: "the controller epoch is older than the current controller's",
    12 OffsetMetadataTooLarge OFFSET_METADATA_TOO_LARGE false: "the metadata string committed with the offset is too long",
    13 NetworkException NETWORK_EXCEPTION true: "the connection ended before an answer came",
    14 CoordinatorLoadInProgress COORDINATOR_LOAD_IN_PROGRESS true: "the coordinator is still loading its state",
    15 CoordinatorNotAvailable COORDINATOR_NOT_AVAILABLE true: "no coordinator is available for this key",
    16 NotCoordinator NOT_COORDINATOR true: "another broker is the coordinator for this key",
    17 InvalidTopicException INVALID_TOPIC_EXCEPTION false: "the topic name is not valid, or the topic does not allow this operation",
    18 RecordListTooLarge RECORD_LIST_TOO_LARGE false: "the record batch is larger than a log segment may be",
    19 NotEnoughReplicas NOT_ENOUGH_REPLICAS true: "fewer replicas are in sync than the topic demands for a write",
    20 NotEnoughReplicasAfterAppend NOT_ENOUGH_REPLICAS_AFTER_APPEND true: "the records were appended, but fewer replicas than demanded have them",
    21 InvalidRequiredAcks INVALID_REQUIRED_ACKS false: "acks must be -1, 0 or 1",
    22 IllegalGeneration ILLEGAL_GENERATION false: "the generation is not the group's current one",
    23 InconsistentGroupProtocol INCONSISTENT_GROUP_PROTOCOL false: "the member has no protocol type or protocol in common with the group",
    24 InvalidGroupId INVALID_GROUP_ID false: "the group id is not valid",
    25 UnknownMemberId UNKNOWN_MEMBER_ID false: "the group has no such member",
    26 InvalidSessionTimeout INVALID_SESSION_TIMEOUT false: "the session timeout is outside of group.min.session.timeout.ms and group.max.session.timeout.ms",
    27 RebalanceInProgress REBALANCE_IN_PROGRESS false: "the group is rebalancing; the member has to join again",
    28 InvalidCommitOffsetSize INVALID_COMMIT_OFFSET_SIZE false: "the committed offsets with their metadata are too large to store",
    29 TopicAuthorizationFailed TOPIC_AUTHORIZATION_FAILED false: "the principal may not do this with the topic",
    30 GroupAuthorizationFailed GROUP_AUTHORIZATION_FAILED false: "the principal may not do this with the group",
    31 ClusterAuthorizationFailed CLUSTER_AUTHORIZATION_FAILED false: "the principal may not do this with the cluster",
    32 InvalidTimestamp INVALID_TIMESTAMP false: "a record's timestamp is further from the broker's clock than the topic allows",
    33 UnsupportedSaslMechanism UNSUPPORTED_SASL_MECHANISM false: "the broker does not offer this SASL mechanism",
    34 IllegalSaslState ILLEGAL_SASL_STATE false: "this request does not fit the state of the SASL exchange",
    35 UnsupportedVersion UNSUPPORTED_VERSION false: "the broker does not support this version of the request",
    36 TopicAlreadyExists TOPIC_ALREADY_EXISTS false: "a topic of this name exists already",
    37 InvalidPartitions INVALID_PARTITIONS false: "the number of partitions is not valid",
    38 InvalidReplicationFactor INVALID_REPLICATION_FACTOR false: "the replication factor is below 1 or above the number of usable brokers",
    39 InvalidReplicaAssignment INVALID_REPLICA_ASSIGNMENT false: "the replica assignment is not valid",
    40 InvalidConfig INVALID_CONFIG false: "a configuration value is not valid",
    41 NotController NOT_CONTROLLER true: "this node is not the active controller",
    42 InvalidRequest INVALID_REQUEST false: "the request contradicts itself or is malformed",
    43 UnsupportedForMessageFormat UNSUPPORTED_FOR_MESSAGE_FORMAT false: "the stored message format cannot serve this request",
    44 PolicyViolation POLICY_VIOLATION false: "a policy of the cluster forbids these parameters",
    45 OutOfOrderSequenceNumber OUT_OF_ORDER_SEQUENCE_NUMBER false: "the producer's sequence number does not follow the last one stored",
    46 DuplicateSequenceNumber DUPLICATE_SEQUENCE_NUMBER false: "the producer's sequence number was stored before",
    47 InvalidProducerEpoch INVALID_PRODUCER_EPOCH false: "the producer's epoch is older than the one stored",
    48 InvalidTxnState INVALID_TXN_STATE false: "the transaction's state does not allow this operation",
    49 InvalidProducerIdMapping INVALID_PRODUCER_ID_MAPPING false: "the transactional id belongs to another producer id",
    50 InvalidTransactionTimeout INVALID_TRANSACTION_TIMEOUT false: "the transaction timeout is above transaction.max.timeout.ms",
    51 ConcurrentTransactions CONCURRENT_TRANSACTIONS true: "another operation on this transaction is still under way",
    52 TransactionCoordinatorFenced TRANSACTION_COORDINATOR_FENCED false: "a newer transaction coordinator has taken over from the one that sent this marker",
    53 TransactionalIdAuthorizationFailed TRANSACTIONAL_ID_AUTHORIZATION_FAILED false: "the principal may not use this transactional id",
    54 SecurityDisabled SECURITY_DISABLED false: "no authorizer is configured",
    55 OperationNotAttempted OPERATION_NOT_ATTEMPTED false: "the broker left this operation undone because an earlier part of the request failed",
    56 KafkaStorageError KAFKA_STORAGE_ERROR true: "the disk that holds the log failed",
    57 LogDirNotFound LOG_DIR_NOT_FOUND false: "the broker has no such log directory",
    58 SaslAuthenticationFailed SASL_AUTHENTICATION_FAILED false: "the SASL credentials were not accepted",
    59 UnknownProducerId UNKNOWN_PRODUCER_ID false: "the broker knows nothing of this producer id (any more)",
    60 ReassignmentInProgress REASSIGNMENT_IN_PROGRESS false: "a reassignment of the partition is under way",
    61 DelegationTokenAuthDisabled DELEGATION_TOKEN_AUTH_DISABLED false: "delegation tokens are not enabled",
    62 DelegationTokenNotFound DELEGATION_TOKEN_NOT_FOUND false: "the broker has no such delegation token",
    63 DelegationTokenOwnerMismatch DELEGATION_TOKEN_OWNER_MISMATCH false: "the principal neither owns nor may renew the delegation token",
    64 DelegationTokenRequestNotAllowed DELEGATION_TOKEN_REQUEST_NOT_ALLOWED false: "delegation tokens can be requested only on an authenticated connection that itself did not use one",
    65 DelegationTokenAuthorizationFailed DELEGATION_TOKEN_AUTHORIZATION_FAILED false: "the principal may not do this with the delegation token",
    66 DelegationTokenExpired DELEGATION_TOKEN_EXPIRED false: "the delegation token has expired",
    67 InvalidPrincipalType INVALID_PRINCIPAL_TYPE false: "this type of principal is not supported",
    68 NonEmptyGroup NON_EMPTY_GROUP false: "the group still has members",
    69 GroupIdNotFound GROUP_ID_NOT_FOUND false: "no group has this id",
    70 FetchSessionIdNotFound FETCH_SESSION_ID_NOT_FOUND true: "the broker has no such fetch session (any more)",
    71 InvalidFetchSessionEpoch INVALID_FETCH_SESSION_EPOCH true: "the fetch session's epoch is not the one expected",
    72 ListenerNotFound LISTENER_NOT_FOUND true: "the partition's leader does not have the listener this request came in on",
    73 TopicDeletionDisabled TOPIC_DELETION_DISABLED false: "topic deletion is switched off",
    74 FencedLeaderEpoch FENCED_LEADER_EPOCH true: "the leader epoch in the request is older than the broker's",
    75 UnknownLeaderEpoch UNKNOWN_LEADER_EPOCH true: "the leader epoch in the request is newer than the broker's",
    76 UnsupportedCompressionType UNSUPPORTED_COMPRESSION_TYPE false: "the request's version cannot carry the compression in use",
    77 StaleBrokerEpoch STALE_BROKER_EPOCH false: "the broker has registered again since this epoch",
    78 OffsetNotAvailable OFFSET_NOT_AVAILABLE true: "the new leader does not know its high watermark yet",
    79 MemberIdRequired MEMBER_ID_REQUIRED false: "the member has to join again with the id it was just given",
    80 PreferredLeaderNotAvailable PREFERRED_LEADER_NOT_AVAILABLE true: "the preferred leader is not available",
    81 GroupMaxSizeReached GROUP_MAX_SIZE_REACHED false: "the group already has as many members as are allowed",
    82 FencedInstanceId FENCED_INSTANCE_ID false: "another member has taken over this group.instance.id",
    83 EligibleLeadersNotAvailable ELIGIBLE_LEADERS_NOT_AVAILABLE true: "none of the replicas that may lead is available",
    84 ElectionNotNeeded ELECTION_NOT_NEEDED true: "the partition already has the leader asked for",
    85 NoReassignmentInProgress NO_REASSIGNMENT_IN_PROGRESS false: "the partition is not being reassigned",
    86 GroupSubscribedToTopic GROUP_SUBSCRIBED_TO_TOPIC false: "the group is subscribed to the topic, so its offsets cannot be deleted",
    87 InvalidRecord INVALID_RECORD false: "a record breaks a rule of the broker or of its topic",
    88 UnstableOffsetCommit UNSTABLE_OFFSET_COMMIT true: "a transaction that commits offsets for this partition is still open",
    89 ThrottlingQuotaExceeded THROTTLING_QUOTA_EXCEEDED true: "the client has used up its quota and should wait",
    90 ProducerFenced PRODUCER_FENCED false: "a newer producer with this transactional id has taken over",
    91 ResourceNotFound RESOURCE_NOT_FOUND false: "the request names something that does not exist",
    92 DuplicateResource DUPLICATE_RESOURCE false: "the request names the same thing twice",
    93 UnacceptableCredential UNACCEPTABLE_CREDENTIAL false: "the credential does not meet the demands",
    94 InconsistentVoterSet INCONSISTENT_VOTER_SET false: "sender and receiver disagree about who votes",
    95 InvalidUpdateVersion INVALID_UPDATE_VERSION false: "the version to update to is not valid",
    96 FeatureUpdateFailed FEATURE_UPDATE_FAILED false: "the feature level could not be changed",
    97 PrincipalDeserializationFailure PRINCIPAL_DESERIALIZATION_FAILURE false: "the principal that another broker forwarded could not be read",
    98 SnapshotNotFound SNAPSHOT_NOT_FOUND false: "the snapshot does not exist",
    99 PositionOutOfRange POSITION_OUT_OF_RANGE false: "the position lies outside of the snapshot",
    100 UnknownTopicId UNKNOWN_TOPIC_ID true: "this broker has no topic with this id",
    101 DuplicateBrokerRegistration DUPLICATE_BROKER_REGISTRATION false: "a live broker is registered under this id",
    102 BrokerIdNotRegistered BROKER_ID_NOT_REGISTERED false: "no broker is registered under this id",
    103 InconsistentTopicId INCONSISTENT_TOPIC_ID true: "the log belongs to a topic with another id",
    104 InconsistentClusterId INCONSISTENT_CLUSTER_ID false: "the cluster id in the request is not this cluster's",
    105 TransactionalIdNotFound TRANSACTIONAL_ID_NOT_FOUND false: "no transaction has this transactional id",
    106 FetchSessionTopicIdError FETCH_SESSION_TOPIC_ID_ERROR true: "the fetch session mixes requests with and without topic ids",
    107 IneligibleReplica INELIGIBLE_REPLICA false: "the new set of in-sync replicas names a broker that may not be in it",
    108 NewLeaderElected NEW_LEADER_ELECTED false: "the partition was changed as asked, and another broker now leads it",
    109 OffsetMovedToTieredStorage OFFSET_MOVED_TO_TIERED_STORAGE false: "the offset is only in tiered storage",
    110 FencedMemberEpoch FENCED_MEMBER_EPOCH false: "the member's epoch is not the current one; it has to give up its partitions and join again",
    111 UnreleasedInstanceId UNRELEASED_INSTANCE_ID false: "the instance id is in use by another member that has not left",
    112 UnsupportedAssignor UNSUPPORTED_ASSIGNOR false: "the group does not support this assignor",
    113 StaleMemberEpoch STALE_MEMBER_EPOCH false: "the member's epoch is behind; try again after the next heartbeat",
    114 MismatchedEndpointType MISMATCHED_ENDPOINT_TYPE false: "the request was meant for the other kind of endpoint (broker or controller)",
    115 UnsupportedEndpointType UNSUPPORTED_ENDPOINT_TYPE false: "this kind of endpoint is not supported",
    116 UnknownControllerId UNKNOWN_CONTROLLER_ID false: "no controller has this id",
    117 UnknownSubscriptionId UNKNOWN_SUBSCRIPTION_ID false: "the telemetry subscription is unknown or outdated",
    118 TelemetryTooLarge TELEMETRY_TOO_LARGE false: "the telemetry data is larger than the broker accepts",
    119 InvalidRegistration INVALID_REGISTRATION false: "the controller refused the broker's registration",
    120 TransactionAbortable TRANSACTION_ABORTABLE false: "the transaction cannot go on; abort it to keep using the transactional id",
    121 InvalidRecordState INVALID_RECORD_STATE false: "the record is not in a state in which it can be acknowledged",
    122 ShareSessionNotFound SHARE_SESSION_NOT_FOUND true: "the broker has no such share session (any more)",
    123 InvalidShareSessionEpoch INVALID_SHARE_SESSION_EPOCH true: "the share session's epoch is not the one expected",
    124 FencedStateEpoch FENCED_STATE_EPOCH false: "the share state's epoch is older than the one stored",
    125 InvalidVoterKey INVALID_VOTER_KEY false: "the voter's id and directory id are not those of the node asked",
    126 DuplicateVoter DUPLICATE_VOTER false: "the node is a voter already",
    127 VoterNotFound VOTER_NOT_FOUND false: "the node is not a voter",
    128 InvalidRegularExpression INVALID_REGULAR_EXPRESSION false: "the regular expression is not valid",
    129 RebootstrapRequired REBOOTSTRAP_REQUIRED false: "the client's view of the cluster is too old; it should start again from its bootstrap servers",
    130 StreamsInvalidTopology STREAMS_INVALID_TOPOLOGY false: "the streams topology is not valid",
    131 StreamsInvalidTopologyEpoch STREAMS_INVALID_TOPOLOGY_EPOCH false: "the streams topology's epoch is not valid",
    132 StreamsTopologyFenced STREAMS_TOPOLOGY_FENCED false: "the streams topology's epoch is older than the group's",
    133 ShareSessionLimitReached SHARE_SESSION_LIMIT_REACHED true: "the broker holds as many share sessions as it may",
    134 GroupDeletionFailed GROUP_DELETION_FAILED false: "the group could not be deleted; its own error message says why",
    135 StreamsTopologyDescriptionUpdateFailed STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED false: "the description of the streams topology could not be stored; the error message says why",
    136 ControllerIdNotRegistered CONTROLLER_ID_NOT_REGISTERED false: "no controller is registered under this id",
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The code of this number. One that this table lacks becomes `UnknownServerError`, as in Kafka's own clients.
    pub fn from_code(code: i16) -> ErrorCode {
        ErrorCode::known(code).unwrap_or(ErrorCode::UnknownServerError)
    }

    /// Whether this is `None`, no error.
    pub fn is_none(self) -> bool {
        self == ErrorCode::None
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place to mark one variant as default")]
impl Default for ErrorCode {
    fn default() -> Self {
        ErrorCode::None
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_map_back() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes, (-1..=136).collect::<Vec<i16>>());
        for &error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), error);
        }
        assert_eq!(ErrorCode::known(137), None);
        assert_eq!(ErrorCode::from_code(i16::MIN), ErrorCode::UnknownServerError);
    }

    #[test]
    fn variants_are_the_names_in_camel_case() {
        for error in ErrorCode::ALL {
            let camel: String =
                error.name().split('_').map(|word| word[..1].to_string() + &word[1..].to_lowercase()).collect();
            assert_eq!(format!("{error:?}"), camel);
        }
    }

    #[test]
    fn what_clients_act_on() {
        assert!(ErrorCode::NotLeaderOrFollower.retriable());
        assert!(ErrorCode::CorruptMessage.retriable());
        assert!(!ErrorCode::InvalidRecord.retriable());
        assert!(!ErrorCode::BrokerNotAvailable.retriable());
        assert_eq!(ErrorCode::ALL.iter().filter(|e| e.retriable()).count(), 32);
    }
}
