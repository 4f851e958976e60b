//! Groups as others may see them: ListGroups, DescribeGroups, and the read access that metrics and status pages use.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::ListGroupsRequest;
use klamm_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use klamm_protocol::messages::list_groups_response::ListedGroup;

use crate::classic::{Group, Member, State};
use crate::coordinator::Coordinator;
use crate::offsets::OffsetEntry;

/// The only group type there is so far, as ListGroups names it.
const CLASSIC: &str = "classic";
/// What DescribeGroups has always called a group that does not exist.
const DEAD: &str = "Dead";

/// Read access to one group.
#[derive(Debug, Clone, Copy)]
pub struct GroupView<'a>(&'a Group);

/// Read access to one member.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a>(&'a Member);

impl<'a> GroupView<'a> {
    /// Group id.
    pub fn id(self) -> &'a str {
        &self.0.id
    }

    /// Where it stands.
    pub fn state(self) -> State {
        self.0.state
    }

    /// Its generation.
    pub fn generation(self) -> i32 {
        self.0.generation
    }

    /// Its protocol type, e.g. `consumer`; none for a group that only holds offsets.
    pub fn protocol_type(self) -> Option<&'a str> {
        self.0.protocol_type.as_deref()
    }

    /// The protocol the members agreed on.
    pub fn protocol(self) -> Option<&'a str> {
        self.0.protocol_name.as_deref()
    }

    /// Member id of the leader.
    pub fn leader(self) -> Option<&'a str> {
        self.0.leader.as_deref()
    }

    /// Its members, by member id.
    pub fn members(self) -> impl ExactSizeIterator<Item = MemberView<'a>> {
        self.0.members().map(MemberView)
    }
}

impl<'a> MemberView<'a> {
    /// Member id.
    pub fn id(self) -> &'a str {
        &self.0.id
    }

    /// Instance id of a static member.
    pub fn instance_id(self) -> Option<&'a str> {
        self.0.instance_id.as_deref()
    }

    /// Its client.id.
    pub fn client_id(self) -> &'a str {
        &self.0.client_id
    }

    /// Its address, as Kafka prints it.
    pub fn client_host(self) -> &'a str {
        &self.0.client_host
    }

    /// What the leader assigned to it, opaque.
    pub fn assignment(self) -> &'a bytes::Bytes {
        &self.0.assignment
    }
}

impl Coordinator {
    /// Every group, by id.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.values().map(GroupView)
    }

    /// One group.
    pub fn group(&self, id: &str) -> Option<GroupView<'_>> {
        self.groups.get(id).map(GroupView)
    }

    /// Every committed offset: group, topic, partition, offset.
    pub fn committed(&self) -> impl Iterator<Item = (&str, &str, i32, &OffsetEntry)> {
        self.offsets.iter()
    }

    /// The committed offset of one partition.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetEntry> {
        self.offsets.get(group, topic, partition)
    }

    /// How many offsets are committed.
    pub fn committed_len(&self) -> usize {
        self.offsets.len()
    }

    /// ListGroups, versions 0 to 5: this coordinator's groups that the filters let through. Filters ignore case;
    /// an unknown state or type matches nothing.
    pub fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let among = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|f| f.trim().eq_ignore_ascii_case(name))
        };
        if !among(&request.types_filter, CLASSIC) {
            return Vec::new();
        }
        let listed = self.groups.values().filter(|g| among(&request.states_filter, g.state.name()));
        listed
            .map(|g| ListedGroup {
                group_id: g.id.to_string(),
                protocol_type: g.protocol_type.clone().unwrap_or_default(),
                group_state: g.state.name().to_owned(),
                group_type: CLASSIC.to_owned(),
            })
            .collect()
    }

    /// One group of a DescribeGroups, versions 0 to 6. A group that does not exist is Dead; from 6 on that is an error.
    pub fn describe_group(&self, id: &str, version: i16) -> DescribedGroup {
        let Some(group) = self.groups.get(id) else {
            let mut described =
                DescribedGroup { group_id: id.to_owned(), group_state: DEAD.to_owned(), ..Default::default() };
            if version >= 6 {
                described.error_code = ErrorCode::GroupIdNotFound.code();
                described.error_message = Some(format!("there is no group {id}"));
            }
            return described;
        };
        // Only a stable group has a protocol that all its members follow.
        let protocol = group.protocol_name.as_deref().filter(|_| group.is(State::Stable));
        DescribedGroup {
            group_id: id.to_owned(),
            group_state: group.state.name().to_owned(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.unwrap_or_default().to_owned(),
            members: group
                .members()
                .map(|m| DescribedGroupMember {
                    member_id: m.id.clone(),
                    group_instance_id: m.instance_id.clone(),
                    client_id: m.client_id.clone(),
                    client_host: m.client_host.clone(),
                    member_metadata: m.metadata(protocol),
                    member_assignment: m.assignment.clone(),
                })
                .collect(),
            ..Default::default()
        }
    }
}
