//! The membership protocol of classic groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
//!
//! JoinGroup is parked by the coordinator and answers come in order, so a member has connections of
//! its own: nothing else may wait behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use tokio::time::{Instant, sleep};

use super::assignment::{
    Assignment, assign_ranges, decode_assignment, decode_subscription, encode_assignment, encode_subscription,
};
use super::{GroupOptions, Membership};
use crate::client::Client;
use crate::error::{ClientError, Result};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";

/// The result of joining.
pub(super) struct Joined {
    pub(super) assignment: Assignment,
    /// The leader's view of the topics it assigned; `None` for followers.
    pub(super) partition_counts: Option<BTreeMap<String, i32>>,
}

/// One member of a group.
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) topics: BTreeSet<String>,
    pub(super) options: GroupOptions,
    pub(super) membership: Membership,
}

impl Member {
    /// Joins, or joins again, until a generation is complete.
    pub(super) async fn join(&mut self) -> Result<Joined> {
        let patience = self.client.options().api_timeout + self.options.rebalance_timeout;
        let deadline = Instant::now() + patience;
        let mut pause = self.client.backoff();
        loop {
            let error = match self.try_join().await {
                Ok(joined) => return Ok(joined),
                Err(error) => error,
            };
            match error.code() {
                // Not a failure: the coordinator has given us our id and wants it confirmed.
                Some(ErrorCode::MemberIdRequired) => continue,
                Some(ErrorCode::UnknownMemberId) => self.membership.member_id.clear(),
                Some(ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress) => {}
                _ if error.is_retriable() => {}
                _ => return Err(error),
            }
            let wait = pause.next_pause();
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn try_join(&mut self) -> Result<Joined> {
        let request = JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: millis(self.options.session_timeout),
            rebalance_timeout_ms: millis(self.options.rebalance_timeout),
            member_id: self.membership.member_id.clone(),
            group_instance_id: self.options.instance_id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: ASSIGNOR.to_owned(),
                metadata: encode_subscription(&self.topics)?,
            }],
            reason: None,
        };
        let coordinator = self.client.coordinator(&self.group).await?;
        let limit = self.options.rebalance_timeout + self.client.options().connection.request_timeout;
        let answer = coordinator.call_within(&request, limit).await?;
        if answer.error_code == ErrorCode::MemberIdRequired.code() {
            self.membership.member_id.clone_from(&answer.member_id);
        }
        ClientError::check(format!("joining group {}", self.group), answer.error_code, None)?;
        self.membership = Membership {
            generation: answer.generation_id,
            member_id: answer.member_id.clone(),
            instance_id: self.options.instance_id.clone(),
        };
        let mut partition_counts = None;
        let mut assignments = Vec::new();
        if answer.leader == answer.member_id && !answer.skip_assignment {
            let (counts, assigned) = self.assign(answer).await?;
            partition_counts = Some(counts);
            for (member_id, assignment) in assigned {
                let assignment = encode_assignment(&assignment)?;
                assignments.push(SyncGroupRequestAssignment { member_id, assignment });
            }
        }
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.membership.generation,
            member_id: self.membership.member_id.clone(),
            group_instance_id: self.membership.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(ASSIGNOR.to_owned()),
            assignments,
        };
        let answer = coordinator.call_within(&request, limit).await?;
        ClientError::check(format!("joining group {}", self.group), answer.error_code, None)?;
        let assignment =
            decode_assignment(answer.assignment).map_err(|e| ClientError::malformed(coordinator.address(), &e))?;
        Ok(Joined { assignment, partition_counts })
    }

    /// The leader's work: who subscribed to what, how many partitions there are, who gets which.
    async fn assign(&self, answer: JoinGroupResponse) -> Result<(BTreeMap<String, i32>, BTreeMap<String, Assignment>)> {
        let mut subscriptions = BTreeMap::new();
        for member in answer.members {
            let topics =
                decode_subscription(member.metadata).map_err(|e| ClientError::malformed(&member.member_id, &e))?;
            subscriptions.insert(member.member_id, topics);
        }
        let topics: BTreeSet<String> = subscriptions.values().flatten().cloned().collect();
        let counts = partition_counts(&self.client, &topics).await?;
        let assigned = assign_ranges(&subscriptions, &counts);
        Ok((counts, assigned))
    }

    /// What tells the coordinator that this member lives.
    pub(super) fn heartbeat(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.membership.generation,
            member_id: self.membership.member_id.clone(),
            group_instance_id: self.membership.instance_id.clone(),
        }
    }

    /// Leaves the group. A static member stays in it: its successor takes its place.
    pub(super) async fn leave(&mut self) -> Result<()> {
        if self.membership.member_id.is_empty() || self.membership.instance_id.is_some() {
            return Ok(());
        }
        let member_id = std::mem::take(&mut self.membership.member_id);
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![MemberIdentity { member_id, ..Default::default() }],
            ..Default::default()
        };
        let answer = self.client.coordinator(&self.group).await?.call(&request).await?;
        ClientError::check(format!("leaving group {}", self.group), answer.error_code, None)
    }
}

/// Sends one heartbeat.
pub(super) async fn beat(client: &Client, request: &HeartbeatRequest) -> Result<()> {
    let group = &request.group_id;
    let answer = client.coordinator(group).await?.call(request).await?;
    ClientError::check(format!("membership in group {group}"), answer.error_code, None)
}

/// How many partitions each topic has; topics that don't exist are left out.
pub(super) async fn partition_counts(client: &Client, topics: &BTreeSet<String>) -> Result<BTreeMap<String, i32>> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let cluster = client.refresh(Some(&names)).await?;
    let known = topics.iter().filter_map(|name| {
        let count = cluster.topics.get(name)?.partitions.len();
        Some((name.clone(), i32::try_from(count).ok()?))
    });
    Ok(known.filter(|(_, count)| *count > 0).collect())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
