//! Which topics the members of a consumer group read. Offsets of those topics neither expire nor may be deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::Message;
use klamm_protocol::messages::ConsumerProtocolSubscription;
use klamm_protocol::wire::Reader;

use super::group::Group;

impl Group {
    /// Reads the members' subscriptions anew. Unknown when the group is not of consumers or one does not parse.
    pub fn refresh_subscriptions(&mut self) {
        self.subscribed = if !self.is_consumer() {
            None
        } else if self.members().len() == 0 {
            Some(BTreeSet::new())
        } else {
            self.protocol_name.as_deref().and_then(|protocol| self.parse_subscriptions(protocol))
        };
    }

    fn parse_subscriptions(&self, protocol: &str) -> Option<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for member in self.members() {
            all.extend(topics_of(&member.protocol(protocol)?.metadata)?);
        }
        Some(all)
    }

    /// Whether a member may be reading the topic; yes for consumers whose subscriptions are unknown.
    pub fn subscribes(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }
}

/// Memory that one member's subscription may take while it is read: enough for 100,000 topics. A member with more counts
/// as one that may be reading anything.
const SUBSCRIPTION_BYTES_MAX: usize = 16 << 20;

/// Every version of a subscription begins like version 0, so this reads versions yet to come too.
fn topics_of(metadata: &Bytes) -> Option<Vec<String>> {
    let version = i16::from_be_bytes(*metadata.first_chunk::<2>()?);
    if version < 0 {
        return None;
    }
    let body = metadata.slice(2..);
    // A topic takes a string's 24 bytes; honest names are long enough for this factor.
    let budget = body.len().saturating_mul(16).min(SUBSCRIPTION_BYTES_MAX);
    ConsumerProtocolSubscription::decode(&mut Reader::with_budget(body, budget), 0).ok().map(|s| s.topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_from_0_on_is_read_and_garbage_is_not() {
        // v7: two topics, no user data, then whatever a later version adds.
        let mut bytes = vec![0, 7, 0, 0, 0, 2, 0, 1, b'a', 0, 1, b'b', 0xff, 0xff, 0xff, 0xff];
        bytes.extend_from_slice(&[9; 20]);
        assert_eq!(topics_of(&Bytes::from(bytes)).unwrap(), ["a", "b"]);
        for garbage in [&b""[..], b"\x00", b"\x00\x00", b"\xff\xff\0\0\0\0\xff\xff\xff\xff", b"\0\0\x7f\xff\xff\xff"] {
            assert_eq!(topics_of(&Bytes::from_static(garbage)), None, "{garbage:?}");
        }
    }
    #[test]
    fn a_subscription_made_to_eat_memory_is_not_read() {
        let many = |n: u32| {
            let mut bytes = vec![0, 0];
            bytes.extend_from_slice(&n.to_be_bytes());
            for i in 0..n {
                bytes.extend_from_slice(&[0, 3, i as u8 & 0x7f, (i >> 7) as u8 & 0x7f, (i >> 14) as u8 & 0x7f]);
            }
            bytes.extend_from_slice(&[0xff; 4]);
            Bytes::from(bytes)
        };
        assert_eq!(topics_of(&many(100)).map(|t| t.len()), Some(100));
        assert_eq!(topics_of(&many(2_000_000)), None);
    }
}
