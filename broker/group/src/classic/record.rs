//! A group as the log has it, both ways.

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::messages::GroupMetadataValue;
use klamm_protocol::messages::group_metadata_value::MemberMetadata;

use super::group::{Group, State};
use super::member::{Member, Protocol};

impl Group {
    /// The group with the assignment each member is to have.
    pub fn to_value(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: self
                .members()
                .map(|m| MemberMetadata {
                    member_id: m.id.clone(),
                    group_instance_id: m.instance_id.clone(),
                    client_id: m.client_id.clone(),
                    client_host: m.client_host.clone(),
                    rebalance_timeout: m.rebalance_timeout_ms,
                    session_timeout: m.session_timeout_ms,
                    subscription: m.metadata(self.protocol_name.as_deref()),
                    assignment: assignment(m),
                })
                .collect(),
        }
    }

    /// A group that has just appeared and has no generation yet, whatever memory already knows of its first member.
    pub fn created_value(now_ms: i64) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: String::new(),
            generation: 0,
            protocol: None,
            leader: None,
            current_state_timestamp: now_ms,
            members: Vec::new(),
        }
    }

    /// The group the log has. Its members' sessions start when the whole log is read.
    pub fn from_value(id: Arc<str>, value: GroupMetadataValue) -> Self {
        let mut group = Self::new(id, value.current_state_timestamp);
        let protocol = value.protocol.clone().unwrap_or_default();
        for m in value.members {
            let rebalance_timeout_ms = if m.rebalance_timeout == -1 { m.session_timeout } else { m.rebalance_timeout };
            let member = Member {
                id: m.member_id,
                instance_id: m.group_instance_id,
                client_id: m.client_id,
                client_host: m.client_host,
                rebalance_timeout_ms,
                session_timeout_ms: m.session_timeout,
                protocols: vec![Protocol { name: protocol.clone(), metadata: Bytes::copy_from_slice(&m.subscription) }],
                assignment: Bytes::copy_from_slice(&m.assignment),
                is_new: false,
                owes_sync: false,
                join: None,
                sync: None,
                session_deadline_ms: None,
            };
            group.add(member, &value.protocol_type);
        }
        group.state = if group.members().len() == 0 { State::Empty } else { State::Stable };
        group.state_since_ms = Some(value.current_state_timestamp).filter(|&ms| ms != -1);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type).filter(|t| !t.is_empty());
        group.protocol_name = value.protocol;
        // A leader that is no member would break what the rest relies on; the next rebalance names one.
        group.leader = value.leader.filter(|id| group.member(id).is_some());
        group.refresh_subscriptions();
        group
    }
}
