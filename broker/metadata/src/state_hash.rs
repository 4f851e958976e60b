//! One number for the whole image, the same on every node that stands at the same offset with the same state: so
//! that nodes which drifted apart find out before anybody's data does.
//!
//! Every field of every part is named here without `..`, so that a new field can't be forgotten. Nothing depends
//! on the machine or on the library's own hashers, whose results may change between releases.

use klamm_protocol::Uuid;

use crate::image::{Broker, Endpoint, Image, Partition, Resource, SupportedFeature, Topic};

/// Two independent FNV-like lanes over 64-bit words: each step is a bijection of the state, so that a single
/// differing word always shows.
struct Mixer {
    a: u64,
    b: u64,
}

impl Mixer {
    fn word(&mut self, word: u64) {
        self.a = (self.a ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.b = (self.b.wrapping_add(word)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31);
    }

    fn int(&mut self, number: impl Into<i64>) {
        self.word(number.into() as u64);
    }

    fn ints(&mut self, list: &[i32]) {
        self.word(list.len() as u64);
        list.iter().for_each(|n| self.int(*n));
    }

    fn id(&mut self, id: &Uuid) {
        let (high, low) = (u128::from_be_bytes(id.0) >> 64, u128::from_be_bytes(id.0));
        self.word(high as u64);
        self.word(low as u64);
    }

    fn ids(&mut self, list: &[Uuid]) {
        self.word(list.len() as u64);
        list.iter().for_each(|id| self.id(id));
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        for chunk in text.as_bytes().chunks(8) {
            self.word(chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }

    fn topic(&mut self, topic: &Topic) {
        let Topic { name, id, partitions } = topic;
        self.text(name);
        self.id(id);
        self.word(partitions.len() as u64);
        partitions.iter().for_each(|partition| self.partition(partition));
    }

    fn partition(&mut self, partition: &Partition) {
        let Partition {
            replicas,
            directories,
            isr,
            removing_replicas,
            adding_replicas,
            leader,
            leader_epoch,
            partition_epoch,
            leader_recovery_state,
            elr,
            last_known_elr,
        } = partition;
        for list in [replicas, isr, removing_replicas, adding_replicas, elr, last_known_elr] {
            self.ints(list);
        }
        self.ids(directories);
        for number in [*leader, *leader_epoch, *partition_epoch, i32::from(*leader_recovery_state)] {
            self.int(number);
        }
    }

    fn broker(&mut self, broker: &Broker) {
        let Broker {
            id,
            epoch,
            incarnation,
            endpoints,
            features,
            rack,
            fenced,
            in_controlled_shutdown,
            log_dirs,
            cordoned_log_dirs,
        } = broker;
        self.int(*id);
        self.int(*epoch);
        self.id(incarnation);
        self.word(endpoints.len() as u64);
        for Endpoint { name, host, port, security_protocol } in endpoints {
            self.text(name);
            self.text(host);
            self.int(*port);
            self.int(*security_protocol);
        }
        self.word(features.len() as u64);
        for SupportedFeature { name, min, max } in features {
            self.text(name);
            self.int(*min);
            self.int(*max);
        }
        self.word(rack.is_some().into());
        self.text(rack.as_deref().unwrap_or_default());
        self.word(u64::from(*fenced) | u64::from(*in_controlled_shutdown) << 1);
        self.ids(log_dirs);
        self.word(cordoned_log_dirs.is_some().into());
        self.ids(cordoned_log_dirs.as_deref().unwrap_or_default());
    }
}

/// The hash of an image. It looks at everything: some ten milliseconds for 100,000 partitions.
pub fn state_hash(image: &Image) -> u128 {
    // What isn't read follows from what is.
    let Image {
        cluster_id,
        topics,
        names: _,
        metric_names: _,
        partitions: _,
        configs,
        brokers,
        features,
        next_producer_id,
        maintenance: _,
        index: _,
    } = image;
    let mut mixer = Mixer { a: 0xcbf2_9ce4_8422_2325, b: 0x94d0_49bb_1331_11eb };
    mixer.text(cluster_id);
    mixer.word(topics.len() as u64);
    topics.iter().for_each(|(_, topic)| mixer.topic(topic));
    mixer.word(configs.len() as u64);
    for (Resource { kind, name }, entries) in configs.iter() {
        mixer.int(*kind as i8);
        mixer.text(name);
        mixer.word(entries.len() as u64);
        for (key, value) in entries.iter() {
            mixer.text(key);
            mixer.text(value);
        }
    }
    mixer.word(brokers.len() as u64);
    brokers.values().for_each(|broker| mixer.broker(broker));
    mixer.word(features.len() as u64);
    for (name, level) in features.iter() {
        mixer.text(name);
        mixer.int(*level);
    }
    mixer.int(*next_producer_id);
    u128::from(mixer.a) << 64 | u128::from(mixer.b)
}

#[cfg(test)]
#[path = "state_hash_test.rs"]
mod tests;
