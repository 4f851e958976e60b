//! What a broker does with the requests of clients, as the handlers in `broker/src/api/` do it.

use bytes::Bytes;
use klamm::replica::intake;
use klamm::replica::partition::{Acks, Flush, Isolation, NotAppended, Origin};
use klamm::replica::roles::FollowerRefused;
use klamm_log::LogError;
use klamm_protocol::ErrorCode;

use crate::message::{Answer, Key, Who};
use crate::waiting::{Then, Waiting, What};
use crate::world::World;

/// How long a leader lets a producer wait for the replicas.
const PRODUCE_TIMEOUT_US: i64 = 80_000;

impl World {
    /// A batch arrives at a broker.
    pub fn produced_to(&mut self, id: i32, from: Who, asked: u64, key: Key, batch: Bytes, acks: Acks) {
        let now_us = self.now_us;
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        let wall_ms = up.clock.wall_ms();
        let appended = up.replicas.by_id(key.0, key.1).and_then(|partition| {
            if !partition.is_led_here() {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            let taken =
                intake::check(batch.clone(), &partition.topic.config(), 12, wall_ms).map_err(|refused| refused.code)?;
            match partition.append(&taken.records, Origin::Client, acks, wall_ms) {
                Ok(append) => Ok((partition, append)),
                Err(NotAppended::Refused(code)) => Err(code),
                Err(NotAppended::Log(error @ LogError::Io { .. } | error @ LogError::Offline { .. })) => {
                    panic!("node {id} cannot append: {error}")
                }
                Err(NotAppended::Log(error)) => Err(klamm::api::error::of_log(&error)),
            }
        });
        let (partition, append) = match appended {
            Ok(appended) => appended,
            Err(code) => return self.answer(id, from, asked, Answer::Produced(Err(code))),
        };
        if append.flush != Flush::No {
            up.replicas.flusher.flush_later(&partition);
        }
        let what = match (append.flush, append.commit) {
            (_, Some(commit)) => What::Commit(commit),
            (Flush::BeforeAnswer, None) => What::Flush,
            (_, None) => {
                if acks == Acks::All {
                    self.check_node(id);
                    self.check_acknowledged(id, key, append.appended.base_offset, &batch);
                }
                return self.answer(id, from, asked, Answer::Produced(Ok(append.appended.base_offset)));
            }
        };
        if acks == Acks::Leader {
            // Nobody checks what is not meant to last.
            return self.answer(id, from, asked, Answer::Produced(Ok(append.appended.base_offset)));
        }
        let then = Then::Produced(append.appended.base_offset, batch);
        up.waiting.push(Waiting { from, id: asked, key, what, then, deadline_us: now_us + PRODUCE_TIMEOUT_US });
    }

    /// A consumer's fetch arrives at a broker.
    pub fn read_from(&mut self, id: i32, from: Who, asked: u64, key: Key, epoch: i32, offset: i64) {
        let Some(up) = self.node(id).up.as_ref() else { return };
        let read = up.replicas.by_id(key.0, key.1).and_then(|partition| {
            partition.check_leads(epoch)?;
            let read = loop {
                match partition.read(offset, 3_000, Isolation::ReadUncommitted, true) {
                    Ok(mut read) if read.unchecked.is_some() => {
                        read.unchecked.take().into_iter().for_each(|found| up.check_found(&partition, *found));
                    }
                    other => break other.map_err(|error| klamm::api::error::of_log(&error))?,
                }
            };
            Ok(read.bytes().expect("a file can be read"))
        });
        self.answer(id, from, asked, Answer::Read(read));
    }

    /// A request to delete records arrives at a broker.
    pub fn delete_at(&mut self, id: i32, from: Who, asked: u64, key: Key, to: i64) {
        let Some(up) = self.node(id).up.as_ref() else { return };
        let wall_ms = up.clock.wall_ms();
        let deleted = up.replicas.by_id(key.0, key.1).and_then(|partition| {
            if to > partition.offsets().high_watermark {
                return Err(ErrorCode::OffsetOutOfRange);
            }
            // It may be done even if the answer is no.
            let known = self.oracle.partitions.entry(key).or_default();
            known.deleted_to = known.deleted_to.max(to);
            match partition.delete_records(to, wall_ms) {
                Ok((low, _)) => Ok(low),
                Err(FollowerRefused::Code(code)) => Err(code),
                Err(FollowerRefused::Log(error)) => panic!("node {id} cannot delete records: {error}"),
            }
        });
        self.answer(id, from, asked, Answer::Deleted(deleted));
    }
}
