//! The state machine that the quorum drives: committed records become the committed image.

use std::sync::Arc;

use bytes::Bytes;
use klamm_metadata::{Change, Image, record};
use klamm_quorum::{Freeze, MachineError, StateMachine};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The committed image and what changed since it was last published.
#[derive(Debug)]
pub struct Committed {
    /// The image.
    pub image: Arc<Image>,
    /// Offset of the metadata log that it stands at.
    pub offset: u64,
    /// What changed since the last publication, in order.
    pub changes: Vec<Change>,
}

impl Committed {
    /// The image of an empty metadata log.
    pub fn new(cluster_id: &str) -> Self {
        Self { image: Arc::new(Image::new(cluster_id)), offset: 0, changes: Vec::new() }
    }
}

/// See the module's head.
pub struct Machine {
    committed: Arc<Mutex<Committed>>,
    changed: Arc<Notify>,
}

impl Machine {
    /// Keeps `committed` up to date and tells of each change.
    pub fn new(committed: Arc<Mutex<Committed>>, changed: Arc<Notify>) -> Self {
        Self { committed, changed }
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        let mut committed = self.committed.lock();
        let mut image = (*committed.image).clone();
        for record in record::decode(records)? {
            let change = image.apply(&record)?;
            committed.changes.push(change);
        }
        committed.image = Arc::new(image);
        committed.offset = offset;
        drop(committed);
        self.changed.notify_one();
        Ok(())
    }

    fn snapshot(&self) -> Freeze {
        let image = self.committed.lock().image.clone();
        Box::new(move || {
            record::encode(&image.to_records()).unwrap_or_else(|error| {
                // Every record of an image was decoded from bytes once, so it can be encoded again.
                tracing::error!(%error, "the metadata image cannot be written as a snapshot");
                Vec::new()
            })
        })
    }

    fn restore(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        let before = {
            let mut committed = self.committed.lock();
            let empty = Arc::new(Image::new(committed.image.cluster_id()));
            std::mem::replace(&mut committed.image, empty)
        };
        self.apply(offset, records)?;
        let mut committed = self.committed.lock();
        let gone = gone(&before, &committed.image);
        committed.changes.extend(gone);
        Ok(())
    }
}

/// What a snapshot does not say: things that were there before and are no longer.
fn gone(before: &Image, now: &Image) -> Vec<Change> {
    let topics = before.topics().filter(|topic| now.topic_by_id(topic.id).is_none());
    let mut gone: Vec<_> = topics.map(|topic| Change::TopicDeleted(topic.clone())).collect();
    for (resource, entries) in before.configs() {
        let left = now.config(resource);
        let removed = entries.keys().filter(|key| left.is_none_or(|left| !left.contains_key(*key)));
        gone.extend(removed.map(|name| Change::ConfigChanged { resource: resource.clone(), name: name.clone() }));
    }
    let brokers = before.brokers().filter(|broker| now.broker(broker.id).is_none());
    gone.extend(brokers.map(|broker| Change::BrokerRemoved(broker.clone())));
    gone
}

#[cfg(test)]
mod tests {
    use klamm_metadata::record::MetadataRecord;
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::{ConfigRecord, TopicRecord};

    use super::*;

    fn bytes(records: &[MetadataRecord]) -> Vec<Bytes> {
        record::encode(records).expect("records")
    }

    #[test]
    fn a_snapshot_tells_of_what_is_gone() {
        let committed = Arc::new(Mutex::new(Committed::new("c")));
        let mut machine = Machine::new(committed.clone(), Arc::default());
        let topic = |name: &str, id: u8| {
            MetadataRecord::from(TopicRecord { name: name.into(), topic_id: Uuid([id; 16]), ..Default::default() })
        };
        let config = ConfigRecord {
            resource_type: 4,
            resource_name: "1".into(),
            name: "k".into(),
            value: Some("v".into()),
            ..Default::default()
        };
        machine.apply(1, &bytes(&[topic("a", 1), topic("b", 2), config.into()])).expect("applied");
        committed.lock().changes.clear();
        machine.restore(9, &bytes(&[topic("b", 2), topic("a", 3)])).expect("restored");
        let committed = committed.lock();
        assert_eq!(committed.offset, 9);
        let deleted = committed.changes.iter().filter_map(|c| match c {
            Change::TopicDeleted(topic) => Some(topic.id),
            _ => None,
        });
        let deleted: Vec<_> = deleted.collect();
        assert_eq!(deleted, [Uuid([1; 16])]);
        assert!(committed.changes.iter().any(|c| matches!(c, Change::ConfigChanged { name, .. } if name == "k")));
    }
}
