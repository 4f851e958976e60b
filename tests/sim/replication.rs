//! Fetching from leaders, what leaders answer, proposals for ISRs, fsyncs and housekeeping: what the tasks in
//! `broker/src/replica/` and `maintenance.rs` do, one event at a time.

use klamm::maintenance;
use klamm::replica::follower::{Fetched, Outcome, Position, Unusable};
use klamm::replica::isr;
use klamm::replica::leader::{After, Progress};
use klamm::replica::refill::Refilled;
use klamm::replica::roles::{FollowerFetch, FollowerRead, FollowerRefused};
use klamm_log::LogError;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::AlterPartitionRequest;
use klamm_protocol::messages::alter_partition_request::TopicData;
use std::sync::atomic::Ordering;

use crate::message::{Answer, Ask, Control, Key, Part, Stamp, Who};
use crate::node::Standing;
use crate::world::{Event, World};

const FETCH_PATIENCE_US: i64 = 60_000;

impl World {
    /// Begins to fetch from leaders that the node does not fetch from yet.
    pub fn follow_leaders(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        let mut fresh = Vec::new();
        for partition in up.partitions.iter().filter(|p| p.follows()) {
            let leader = partition.leader();
            up.links.entry(leader).or_insert_with(|| {
                fresh.push(leader);
                Default::default()
            });
        }
        for leader in fresh {
            let delay = self.random.between(50, 3_000);
            self.after(delay, Event::Fetch(id, boot, leader, 0));
        }
    }

    /// Asks a leader for everything that is followed from it.
    pub fn fetch(&mut self, id: i32, leader: i32, round: u64) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        if up.replicas.flusher.is_wanted() {
            // What was taken over is on disk before it is claimed.
            return self.after(1_000, Event::Fetch(id, boot, leader, round));
        }
        let Some(link) = up.links.get_mut(&leader).filter(|link| link.round == round) else { return };
        let position = |p: &std::sync::Arc<klamm::replica::partition::Partition>| {
            p.position(leader).map(|(epoch, position)| ((p.topic.id, p.index), epoch, position))
        };
        let parts: Vec<(Key, i32, Position)> = up.partitions.iter().filter_map(position).collect();
        if parts.is_empty() {
            up.links.remove(&leader);
            return;
        }
        link.round += 1;
        let (round, epoch, stamp) = (link.round, up.epoch, link.stamp);
        let asked = self.ask(Who::Node(id), leader, Ask::Fetch(epoch, parts, stamp));
        if let Some(link) = self.node_mut(id).up.as_mut().and_then(|up| up.links.get_mut(&leader)) {
            link.asked = Some(asked);
        }
        self.after(FETCH_PATIENCE_US, Event::Fetch(id, boot, leader, round));
    }

    /// A leader answers a follower.
    pub fn fetched_from(
        &mut self,
        id: i32,
        from: Who,
        asked: u64,
        epoch: i64,
        parts: Vec<(Key, i32, Position)>,
        stamp: Stamp,
    ) {
        let Who::Node(follower) = from else { return };
        let now_ms = self.now_ms();
        let max_bytes = 200 + self.random.below(4_000) as usize;
        let boot = self.node(id).boot;
        let sent_after = if stamp.0 == boot { stamp.1 } else { 0 };
        let Some(up) = self.node(id).up.as_ref() else { return };
        let stamp = (boot, up.replicas.around.moment.load(Ordering::Acquire));
        let registered = up.published.0.broker(follower).map_or(-1, |b| b.epoch);
        if epoch < 0 || epoch != registered {
            return self.answer(id, from, asked, Answer::Fetch(stamp, Err(ErrorCode::StaleBrokerEpoch)));
        }
        let mut answers = Vec::new();
        for (key, leader_epoch, position) in parts {
            let mut part = Part {
                key,
                epoch: leader_epoch,
                asked: position,
                code: ErrorCode::None,
                diverging: None,
                records: Default::default(),
                high_watermark: -1,
                log_start: -1,
            };
            let mut fetch = FollowerFetch {
                progress: Progress {
                    follower,
                    broker_epoch: epoch,
                    fetch_offset: position.fetch_offset,
                    log_start: position.log_start,
                    sent_after,
                },
                leader_epoch,
                last_fetched_epoch: position.last_fetched_epoch,
                max_bytes,
                min_one: true,
                fresh: true,
            };
            match up.replicas.by_id(key.0, key.1) {
                Err(code) => part.code = code,
                Ok(partition) => match loop {
                    match partition.read_for_follower(&fetch, now_ms) {
                        Ok((FollowerRead::Records(mut read), _)) if read.unchecked.is_some() => {
                            read.unchecked.take().into_iter().for_each(|found| up.check_found(&partition, *found));
                            fetch.fresh = false;
                        }
                        other => break other,
                    }
                } {
                    Ok((read, offsets)) => {
                        part.high_watermark = offsets.high_watermark;
                        part.log_start = offsets.log_start;
                        match read {
                            FollowerRead::Diverging(epoch, end) => part.diverging = Some((epoch, end)),
                            FollowerRead::Records(read) => {
                                // Nothing is compacted here, so that nothing may be left out.
                                let (asked, first) = (position.fetch_offset, read.first_offset);
                                assert!(
                                    first <= asked,
                                    "node {id} answers a fetch at {asked} of {} from {first} on",
                                    key.1
                                );
                                part.records = read.bytes().expect("a file can be read");
                            }
                        }
                    }
                    Err(FollowerRefused::Code(code)) => part.code = code,
                    Err(FollowerRefused::Log(error @ LogError::OffsetOutOfRange { .. })) => {
                        let offsets = partition.offsets();
                        part.high_watermark = offsets.high_watermark;
                        part.log_start = offsets.log_start;
                        part.code = klamm::api::error::of_log(&error);
                    }
                    Err(FollowerRefused::Log(error)) => panic!("node {id} cannot be fetched from: {error}"),
                },
            }
            answers.push(part);
        }
        self.answer(id, from, asked, Answer::Fetch(stamp, Ok(answers)));
    }

    /// A follower takes over what its leader has answered.
    pub fn take_fetch(&mut self, id: i32, asked: u64, stamp: Stamp, answer: Result<Vec<Part>, ErrorCode>) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        let Some((leader, link)) = up.links.iter_mut().find(|(_, link)| link.asked == Some(asked)) else { return };
        link.asked = None;
        link.stamp = stamp;
        link.round += 1;
        let (leader, round) = (*leader, link.round);
        let mut news = false;
        let (mut truncated, mut anew, mut taken_back) = (0, 0, 0);
        if up.replicas.partitions().iter().filter(|partition| partition.take_cut()).count() > 0 {
            up.replicas.write_checkpoints().unwrap_or_else(|e| panic!("node {id}: {e}"));
        }
        for part in answer.into_iter().flatten() {
            let Some(partition) = up.partition(part.key) else { continue };
            let wall_ms = up.clock.wall_ms();
            match part.code {
                ErrorCode::None => {
                    let fetched = Fetched {
                        records: part.records,
                        high_watermark: part.high_watermark,
                        log_start: part.log_start,
                        diverging: part.diverging,
                    };
                    match partition.take_fetched(part.epoch, part.asked, &fetched, wall_ms) {
                        Ok(Some(Outcome::Truncated(_))) => {
                            truncated += 1;
                            news = true;
                        }
                        Ok(Some(Outcome::Appended(bytes))) => news |= bytes > 0,
                        Ok(None) | Err(Unusable::Answer(_)) => {}
                        Err(Unusable::Log(error)) => panic!("node {id} cannot follow: {error}"),
                    }
                }
                ErrorCode::OffsetOutOfRange => {
                    let begun = partition.out_of_range(part.epoch, part.log_start, wall_ms);
                    anew += u64::from(begun.unwrap_or_else(|e| panic!("node {id} cannot begin anew: {e}")));
                }
                ErrorCode::KafkaStorageError if partition.kept_bytes() > 0 => {
                    let refilled = partition.refill(part.epoch, part.asked, wall_ms);
                    let refilled = refilled.unwrap_or_else(|e| panic!("node {id} cannot refill: {e}"));
                    taken_back += u64::from(matches!(refilled, Refilled::Bytes(_)));
                }
                _ => {}
            }
            if partition.wants_flush() {
                // On disk before it is claimed.
                up.replicas.flusher.flush_later(&partition);
            }
        }
        if truncated + anew > 0 {
            // The recovery points that stand on disk may be beyond the cut.
            up.replicas.write_checkpoints().unwrap_or_else(|e| panic!("node {id}: {e}"));
        }
        *self.counts.entry("truncated").or_default() += truncated;
        *self.counts.entry("taken back").or_default() += taken_back;
        *self.counts.entry("begun anew").or_default() += anew;
        let delay = if news { self.random.between(50, 3_000) } else { self.random.between(3_000, 15_000) };
        self.after(delay, Event::Fetch(id, boot, leader, round));
    }

    /// Carries out the fsyncs that are asked for on a node.
    pub fn flush(&mut self, id: i32) {
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        up.flush_scheduled = false;
        if let Some(error) = up.replicas.flusher.flush_now(up.clock.wall_ms()) {
            panic!("node {id} cannot flush: {error}");
        }
        self.note(|| format!("node {id} has flushed"));
        self.check_node(id);
        self.answer_waiting(id, true);
    }

    /// Looks for followers that lag.
    pub fn check_lag(&mut self, id: i32) {
        let now_ms = self.now_ms();
        let Some(up) = self.node(id).up.as_ref() else { return };
        up.partitions.iter().for_each(|partition| partition.check_lag(now_ms));
        let boot = self.node(id).boot;
        self.after(crate::node::LAG_MS * 500, Event::Lag(id, boot));
    }

    /// Sends the proposals for ISRs.
    pub fn propose_isr(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        up.isr_scheduled = false;
        if let Some((_, asked)) = up.isr_asked.take() {
            // No answer has come: the same again.
            up.controller = self.meta.leader().unwrap_or((up.controller + 1) % 3);
            up.replicas.around.proposals.lock().extend(asked.into_iter().map(|(key, _)| key));
        }
        let due = std::mem::take(&mut *up.replicas.around.proposals.lock());
        let mut asked = Vec::new();
        let mut topics: Vec<TopicData> = Vec::new();
        for key in due {
            let Some((proposal, _)) = up.partition(key).and_then(|p| p.proposal()) else { continue };
            asked.push((key, proposal.id));
            let data = isr::wire(key.1, &proposal);
            match topics.iter_mut().find(|topic| topic.topic_id == key.0) {
                Some(topic) => topic.partitions.push(data),
                None => topics.push(TopicData { topic_id: key.0, partitions: vec![data], ..Default::default() }),
            }
        }
        if asked.is_empty() {
            return;
        }
        let broker_epoch = up.replicas.around.broker_epoch.load(Ordering::Acquire);
        let request = AlterPartitionRequest { broker_id: id, broker_epoch, topics, ..Default::default() };
        let controller = up.controller;
        let rpc = self.ask(Who::Node(id), controller, Ask::Control(Control::AlterPartition(request)));
        if let Some(up) = self.node_mut(id).up.as_mut() {
            up.isr_asked = Some((rpc, asked));
            up.isr_scheduled = true;
        }
        self.after(50_000, Event::Isr(id, boot));
    }

    /// The controller has answered proposals, or nobody did.
    pub fn isr_answered(&mut self, id: i32, answer: Answer) {
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        let Some((_, mut asked)) = up.isr_asked.take() else { return };
        let mut again = Vec::new();
        if let Answer::AlterPartition(response) = answer
            && response.error_code == 0
        {
            for topic in response.topics {
                for answer in topic.partitions {
                    let key = (topic.topic_id, answer.partition_index);
                    let Some(at) = asked.iter().position(|(asked, _)| *asked == key) else { continue };
                    let (_, proposal) = asked.remove(at);
                    let Some(partition) = up.partition(key) else { continue };
                    if partition.on_verdict(proposal, isr::verdict(answer)) == After::Again {
                        again.push(key);
                    }
                }
            }
        }
        again.extend(asked.into_iter().map(|(key, _)| key));
        up.replicas.around.proposals.lock().extend(again);
        // The event that would have tried again finds nothing asked, and sends what there is.
    }

    /// Checkpoints, retention and the closing of idle files, as they come up.
    pub fn housekeeping(&mut self, id: i32) {
        let boot = self.node(id).boot;
        let what = self.random.below(6);
        let Some(up) = self.node(id).up.as_ref().filter(|up| up.standing == Standing::Open) else { return };
        let done = match what {
            0 => up.replicas.write_high_watermarks(),
            1 => maintenance::let_go_of_kept(&up.replicas, &up.clock),
            2 => up.replicas.write_checkpoints(),
            3 => maintenance::close_idle(&up.replicas),
            4 => maintenance::apply_retention(&up.replicas, &up.clock),
            _ => maintenance::remove_files(&up.replicas, &up.clock),
        };
        done.unwrap_or_else(|e| panic!("node {id}: {e}"));
        self.repair(id);
        let delay = self.random.between(20_000, 200_000);
        self.after(delay, Event::Housekeeping(id, boot));
    }
}
