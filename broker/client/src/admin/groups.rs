//! Listing, describing and deleting groups, classic ones and those of KIP-848 alike.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::ApiKey;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest,
    consumer_group_describe_response as modern, describe_groups_response as classic,
};

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::group::assignment::decode_assignment;

/// A group as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Group id.
    pub id: String,
    /// `consumer`, `connect`, or empty for a group that only holds offsets.
    pub protocol_type: String,
    /// State, such as `Stable`; empty from old brokers.
    pub state: String,
    /// `classic`, `consumer`, `share` or `streams`; empty from old brokers.
    pub kind: String,
    /// Broker id of the coordinator.
    pub coordinator: i32,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Group id.
    pub id: String,
    /// State, such as `Stable`.
    pub state: String,
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// Protocol type of a classic group.
    pub protocol_type: String,
    /// The assignor in use.
    pub assignor: String,
    /// Address of the coordinator.
    pub coordinator: String,
    /// Members in the order of the answer.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id the coordinator knows it by.
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Partitions by topic.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

impl Client {
    /// All groups of all brokers, by id.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        let mut groups = BTreeMap::new();
        let cluster = self.retry(|| self.refresh_known()).await?;
        for &coordinator in cluster.brokers.keys() {
            let request = ListGroupsRequest::default();
            let answer = self.retry(|| async {
                let answer = self.broker(coordinator).await?.call(&request).await?;
                ClientError::check(format!("groups of broker {coordinator}"), answer.error_code, None)?;
                Ok(answer)
            });
            for group in answer.await?.groups {
                let listed = ListedGroup {
                    id: group.group_id.clone(),
                    protocol_type: group.protocol_type,
                    state: group.group_state,
                    kind: group.group_type,
                    coordinator,
                };
                groups.insert(group.group_id, listed);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// One group with its members; `GroupIdNotFound` when there is none.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.retry(|| async {
            match self.describe_modern_group(group).await {
                Err(e) if matches!(e.code(), Some(ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion)) => {
                    self.describe_classic_group(group).await
                }
                Ok(None) => self.describe_classic_group(group).await,
                Ok(Some(description)) => Ok(description),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// `None` when the broker knows no KIP-848 groups at all.
    async fn describe_modern_group(&self, group: &str) -> Result<Option<GroupDescription>> {
        let coordinator = self.coordinator(group).await?;
        if coordinator.versions().range(ApiKey::ConsumerGroupDescribe).is_none() {
            return Ok(None);
        }
        let request = ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
        let answer = coordinator.call(&request).await?;
        let what = format!("group {group}");
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| ClientError::missing(&what))?;
        ClientError::check(what, found.error_code, found.error_message.as_deref())?;
        Ok(Some(GroupDescription {
            id: found.group_id,
            state: found.group_state,
            kind: "consumer",
            protocol_type: "consumer".to_owned(),
            assignor: found.assignor_name,
            coordinator: coordinator.address().to_owned(),
            members: found.members.into_iter().map(modern_member).collect(),
        }))
    }

    async fn describe_classic_group(&self, group: &str) -> Result<GroupDescription> {
        let coordinator = self.coordinator(group).await?;
        let request = DescribeGroupsRequest { groups: vec![group.to_owned()], ..Default::default() };
        let answer = coordinator.call(&request).await?;
        let what = format!("group {group}");
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| ClientError::missing(&what))?;
        ClientError::check(&what, found.error_code, found.error_message.as_deref())?;
        // Before version 6 a group that does not exist is described as a dead one.
        if found.group_state == "Dead" {
            ClientError::check(what, ErrorCode::GroupIdNotFound.code(), None)?;
        }
        let consumers = found.protocol_type == "consumer";
        Ok(GroupDescription {
            id: found.group_id,
            state: found.group_state,
            kind: "classic",
            protocol_type: found.protocol_type,
            assignor: found.protocol_data,
            coordinator: coordinator.address().to_owned(),
            members: found.members.into_iter().map(|m| classic_member(m, consumers)).collect(),
        })
    }

    /// Deletes a group without members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = DeleteGroupsRequest { groups_names: vec![group.to_owned()] };
        self.retry(|| async {
            let answer = self.coordinator(group).await?.call(&request).await?;
            let what = format!("group {group}");
            let result = answer.results.into_iter().next();
            let result = result.ok_or_else(|| ClientError::missing(&what))?;
            ClientError::check(what, result.error_code, result.error_message.as_deref())
        })
        .await
    }
}

fn modern_member(member: modern::Member) -> GroupMember {
    let assignment = member.assignment.topic_partitions.into_iter();
    GroupMember {
        id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        assignment: assignment.map(|t| (t.topic_name, t.partitions)).collect(),
    }
}

/// The assignment's bytes belong to the clients: only those of consumers are Kafka's own format,
/// and even those are shown as empty when they can't be read.
fn classic_member(member: classic::DescribedGroupMember, consumer: bool) -> GroupMember {
    let bytes = if consumer { member.member_assignment } else { Bytes::new() };
    GroupMember {
        id: member.member_id,
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        host: member.client_host,
        assignment: decode_assignment(bytes).unwrap_or_default(),
    }
}
