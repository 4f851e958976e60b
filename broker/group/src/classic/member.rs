//! One member of a classic group, and the ids members get.

use std::net::IpAddr;

use bytes::Bytes;
use klamm_protocol::Uuid;

use crate::step::Ticket;

/// Longest part of a member id that comes from the client. Kafka takes any length; ids are kept per member and sent
/// around, so a client cannot make them large here.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = 255;

/// Who sends a JoinGroup.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its client.id; empty when it has none.
    pub id: &'a str,
    /// The address it connects from.
    pub host: IpAddr,
}

impl Client<'_> {
    /// The address as Java prints it, which is how Kafka stores it: a slash, and IPv6 without `::`.
    pub(crate) fn host_text(&self) -> String {
        match self.host {
            IpAddr::V4(v4) => format!("/{v4}"),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => format!("/{v4}"),
                None => {
                    let parts: Vec<String> = v6.segments().iter().map(|s| format!("{s:x}")).collect();
                    format!("/{}", parts.join(":"))
                }
            },
        }
    }
}

/// A request that waits: its ticket and the version its answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub ticket: Ticket,
    pub version: i16,
}

/// A way to assign partitions that a member can follow, with what its assignor wants the leader to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub id: String,
    /// Set for static members.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the member's order of preference, each name once.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// Still waits for its first JoinGroup answer.
    pub is_new: bool,
    /// Has its JoinGroup answer and has not yet sent SyncGroup.
    pub owes_sync: bool,
    /// Parked JoinGroup. Change it through [`Group`](super::Group), which counts them.
    pub join: Option<Waiter>,
    /// Parked SyncGroup.
    pub sync: Option<Waiter>,
    /// When it is taken for dead; none while it waits for an answer and its session has already run out.
    pub session_deadline_ms: Option<i64>,
}

impl Member {
    pub fn protocol(&self, name: &str) -> Option<&Protocol> {
        self.protocols.iter().find(|p| p.name == name)
    }

    /// What it said for `protocol`; empty when it does not speak it.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        protocol.and_then(|name| self.protocol(name)).map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// A member that waits for an answer cannot heartbeat. New ones may still run out of time.
    pub fn counts_as_alive(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

/// A new member id: what the member calls itself, then a random UUID in the usual text form.
pub(crate) fn member_id(name: &str, uuid: Uuid) -> String {
    let mut end = name.len().min(MEMBER_ID_PREFIX_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let hex = format!("{:032x}", u128::from_be_bytes(uuid.0));
    format!("{}-{}-{}-{}-{}-{}", &name[..end], &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_printed_as_java_does() {
        let host = |text: &str| Client { id: "", host: text.parse().unwrap() }.host_text();
        assert_eq!(host("10.1.2.3"), "/10.1.2.3");
        assert_eq!(host("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(host("2001:db8::a:0:0:1"), "/2001:db8:0:0:a:0:0:1");
        assert_eq!(host("::ffff:10.1.2.3"), "/10.1.2.3");
    }

    #[test]
    fn member_ids_are_the_clients_name_and_a_uuid() {
        let uuid = Uuid([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x81, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(member_id("app", uuid), "app-12345678-9abc-4def-8102-030405060708");
        let long = member_id(&"ü".repeat(5_000), uuid);
        assert_eq!(long.len(), 254 + 37, "cut at a character");
    }
}
