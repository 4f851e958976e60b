//! What goes wrong, and the healing afterwards.
//!
//! What a fault may do is bounded by what the broker promises. With `flush.messages=1` any disk may lose power at any
//! time. Without, one may, while the others keep what they have: until it is back in all ISRs nothing else is killed.
//! The same holds for a disk that was replaced by an empty one.

use klamm_metadata::Partition;
use klamm_protocol::messages::AlterPartitionReassignmentsRequest;
use klamm_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};

use crate::clients::TOPIC;
use crate::message::Key;
use crate::metalog::Want;
use crate::plan::Fault;
use crate::world::{Event, World};

/// How long the healing may take.
const HEAL_US: i64 = 8_000_000;

impl World {
    /// Sets everything going: nodes register, topics are made.
    pub fn begin(&mut self) {
        for id in 0..self.plan.nodes {
            self.start(id);
        }
        self.elect(true);
        self.healing = true;
        while !(0..self.plan.nodes).all(|id| self.meta.image.is_active(id)) {
            let until = self.now_us + 10_000;
            while self.step(until) {}
            assert!(self.now_us < 5_000_000, "the brokers do not come up");
        }
        let records = klamm_metadata::record::encode(&self.topics()).expect("records");
        self.append(records);
        self.healing = false;
        self.begin_clients();
        self.after(self.plan.fault_every_us, Event::Fault);
    }

    /// The whole run of a seed.
    pub fn run(&mut self) {
        let until = self.now_us + self.plan.length_us;
        while self.step(until) {}
        self.heal();
    }

    /// Something goes wrong.
    pub fn fault(&mut self) {
        if self.healing {
            return;
        }
        let delay = self.random.between(1_000, self.plan.fault_every_us * 2);
        self.after(delay, Event::Fault);
        let fault = self.plan.fault(&mut self.random);
        let id = self.random.below(self.nodes.len() as u64) as i32;
        let boot = self.node(id).boot;
        let up = self.node(id).up.is_some();
        match fault {
            Fault::Kill if up && self.remembers() => {
                self.note(|| format!("FAULT kill {id}"));
                self.count("kills");
                self.node_mut(id).kill();
                self.perhaps_noticed(id);
                self.gone(id);
            }
            Fault::PowerLoss if self.may_lose_power(id) => {
                let all = self.plan.synced && self.random.one_in(3);
                let ids: Vec<i32> = if all { (0..self.plan.nodes).collect() } else { vec![id] };
                self.note(|| format!("FAULT power loss of {ids:?}"));
                self.count(if all { "power losses of all" } else { "power losses" });
                for id in ids {
                    let ran = self.node(id).up.is_some();
                    self.nodes[id as usize].power_loss(&mut self.random);
                    self.lost(id, false);
                    if ran {
                        self.gone(id);
                    }
                }
            }
            Fault::CleanStop if up => {
                self.note(|| format!("FAULT {id} is asked to stop"));
                self.leave(id);
            }
            Fault::Pause if up && self.paused(id).is_none() => {
                let until = self.now_us + self.random.between(5_000, 700_000);
                self.note(|| format!("FAULT {id} stands still until {}", until / 1_000));
                self.count("pauses");
                self.node_mut(id).paused_until_us = Some(until);
                self.at(until, Event::Resume(id, boot));
                if self.meta.leader() == Some(id) {
                    self.elect_soon();
                }
            }
            Fault::OneWay => {
                let other = (id + 1 + self.random.below(self.nodes.len() as u64 - 1) as i32) % self.plan.nodes;
                self.note(|| format!("FAULT nothing goes from {id} to {other}"));
                self.count("one-way partitions");
                self.blocked.insert((id, other));
            }
            Fault::Isolate => {
                self.note(|| format!("FAULT {id} is cut off"));
                self.count("isolations");
                for other in (0..self.plan.nodes).filter(|other| *other != id) {
                    self.blocked.insert((id, other));
                    self.blocked.insert((other, id));
                }
                self.perhaps_noticed(id);
            }
            Fault::Heal => {
                self.note(|| "the network heals".into());
                self.blocked.clear();
            }
            Fault::Failover => {
                self.note(|| "FAULT the controller moves".into());
                self.elect(true);
            }
            Fault::Deaf => {
                let until = self.now_us + self.random.between(20_000, 1_000_000);
                self.note(|| format!("FAULT {id} hears of no metadata until {}", until / 1_000));
                self.count("deaf");
                self.node_mut(id).deaf_until_us = until;
            }
            Fault::ClockJump => {
                let jump = self.random.pick(&[-86_400_000, -3_600_000, 3_600_000, 86_400_000]).unwrap_or(0);
                self.note(|| format!("FAULT the clock of {id} jumps: it is {} h ahead", jump / 3_600_000));
                self.count("clock jumps");
                self.node_mut(id).wall_shift_ms = crate::node::EPOCH_MS + jump;
            }
            Fault::Balance => self.want(Want::Balance),
            Fault::Reassign if self.plan.reassigns => self.reassign(),
            Fault::Wipe if self.may_wipe(id) => {
                self.note(|| format!("FAULT the disk of {id} is gone"));
                self.count("wipes");
                let ran = self.node(id).up.is_some();
                self.node_mut(id).kill();
                self.node_mut(id).disk.wipe();
                self.lost(id, true);
                if ran {
                    self.gone(id);
                }
            }
            Fault::Flip if !up => {
                let ending = self.random.pick(&["index", ".snapshot"]).unwrap_or("index");
                let flipped = self.nodes[id as usize].disk.flip(ending, &mut self.random);
                if let Some((file, byte)) = flipped {
                    self.note(|| format!("FAULT a bit flips in {file} of {id}, at {byte}"));
                    self.count("bits flipped");
                }
            }
            _ => {}
        }
    }

    /// The controller may notice at once that a process has ended, or that a node is cut off.
    fn perhaps_noticed(&mut self, id: i32) {
        let epoch = self.meta.image.broker(id).map(|b| b.epoch);
        if self.random.one_in(2)
            && let Some(epoch) = epoch
        {
            self.want(Want::Fence(id, epoch));
        }
    }

    /// A node may have lost records, or has lost all.
    fn lost(&mut self, id: i32, all: bool) {
        if all || !self.plan.synced {
            self.amnesiac = Some(id);
        }
    }

    /// Partitions that a node has a replica of.
    fn held_by(&self, id: i32) -> Vec<(Key, Partition)> {
        let of = |topic: &std::sync::Arc<klamm_metadata::Topic>| {
            let id_of = topic.id;
            (0..)
                .zip(topic.partitions.clone())
                .map(move |(n, p)| ((id_of, n), Partition::clone(&p)))
                .collect::<Vec<_>>()
        };
        self.meta.image.topics().flat_map(of).filter(|(_, p)| p.replicas.contains(&id)).collect()
    }

    /// Whether the one that lost records has all of them again.
    fn remembers(&mut self) -> bool {
        if let Some(id) = self.amnesiac {
            let back = self.node(id).up.is_some() && self.held_by(id).iter().all(|(_, p)| p.isr.contains(&id));
            let current = self.node(id).up.as_ref().map(|up| up.epoch) == self.meta.image.broker(id).map(|b| b.epoch);
            if back && current {
                self.amnesiac = None;
            }
        }
        self.amnesiac.is_none()
    }

    /// Whether others surely hold what this node is about to lose.
    fn may_lose_power(&mut self, id: i32) -> bool {
        if !self.remembers() {
            return false;
        }
        if self.plan.synced {
            return true;
        }
        self.plan.min_isr >= 2 && self.others_hold(id)
    }

    /// Whether everything that a node holds is held by another that runs, and all others run.
    fn others_hold(&self, id: i32) -> bool {
        let trusted = |world: &Self, other: &i32, p: &Partition| {
            let epoch = world.meta.image.broker(*other).map(|b| b.epoch);
            *other != id
                && (p.isr.contains(other) || p.elr.contains(other))
                && epoch.is_some_and(|epoch| world.runs_as(*other, epoch))
        };
        let others_up = self
            .nodes
            .iter()
            .all(|node| node.id == id || node.up.as_ref().is_some_and(|up| up.epoch >= 0 && !up.leaving));
        others_up && self.held_by(id).iter().all(|(_, p)| p.replicas.iter().any(|other| trusted(self, other, p)))
    }

    /// A disk may go when every partition is in sync elsewhere, twice.
    fn may_wipe(&mut self, id: i32) -> bool {
        let spare = self.held_by(id).iter().all(|(_, p)| p.isr.iter().filter(|other| **other != id).count() >= 2);
        self.plan.min_isr >= 2
            && self.wiped.is_none_or(|wiped| wiped == id)
            && spare
            && self.remembers()
            && self.others_hold(id)
            && {
                self.wiped = Some(id);
                true
            }
    }

    /// A partition is to live elsewhere, or a move is called off.
    fn reassign(&mut self) {
        let partition_index = self.random.below(self.plan.partitions as u64) as i32;
        let mut ids: Vec<i32> = (0..self.plan.nodes).collect();
        let turn = self.random.below(ids.len() as u64) as usize;
        ids.rotate_left(turn);
        ids.truncate(3);
        let replicas = if self.random.one_in(4) { None } else { Some(ids) };
        self.note(|| format!("reassign {partition_index} to {replicas:?}"));
        self.count("reassignments");
        let partition = ReassignablePartition { partition_index, replicas };
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic { name: TOPIC.into(), partitions: vec![partition] }],
            ..Default::default()
        };
        self.want(Want::Reassign(request));
    }

    /// Nothing fails any more: everything must come right, in bounded time.
    fn heal(&mut self) {
        self.note(|| "HEAL".into());
        self.healing = true;
        self.blocked.clear();
        for id in 0..self.plan.nodes {
            let node = self.node_mut(id);
            node.deaf_until_us = 0;
            node.wall_shift_ms = crate::node::EPOCH_MS;
            if node.paused_until_us.take().is_some() {
                self.note(|| format!("node {id} goes on"));
            }
            if self.node(id).up.is_none() {
                self.start(id);
            }
        }
        let (began, committed) = (self.now_us, self.oracle.group_offset);
        let until = began + HEAL_US;
        loop {
            let soon = self.now_us + 20_000;
            while self.step(soon) {}
            let problem = self.unhealed(committed);
            match problem {
                None => break,
                Some(why) => {
                    assert!(self.now_us < until, "no progress after {} s without a fault: {why}", HEAL_US / 1_000_000)
                }
            }
        }
        self.check_same();
        let ms = (self.now_us - began) as u64 / 1_000;
        *self.counts.entry("healing, ms").or_default() += ms;
        self.note(|| format!("healed in {ms} ms"));
    }

    /// What is still wrong.
    fn unhealed(&self, committed: i64) -> Option<String> {
        for topic in self.meta.image.topics() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let name = format!("{}-{number}", topic.name);
                if partition.leader < 0 {
                    return Some(format!("nobody leads {name}: {partition:?}"));
                }
                if partition.isr.len() < partition.replicas.len() || partition.is_reassigning() {
                    return Some(format!("not all of {name} are in sync: {partition:?}"));
                }
                let leader = self.node(partition.leader).up.as_ref().and_then(|up| up.partition((topic.id, number)));
                let offsets = leader.map(|leader| leader.offsets());
                // The group goes on writing; of the rest everything is committed in the end.
                let busy = topic.id == self.clients.offsets_topic;
                if offsets.is_none_or(|offsets| offsets.high_watermark < offsets.log_end && !busy) {
                    return Some(format!("{name} is not committed: {offsets:?}"));
                }
            }
        }
        if !self.clients.drained() {
            return Some("a producer waits for its acknowledgements".into());
        }
        if !self.readers_done() {
            return Some("a reader has not read everything".into());
        }
        if self.oracle.group_offset <= committed {
            return Some("the group cannot commit".into());
        }
        if !self.balanced() {
            return Some("the members of a group are not in one generation".into());
        }
        if let Some(node) = self.nodes.iter().find(|n| n.up.as_ref().is_some_and(|up| up.replicas.offline_count() > 0))
        {
            return Some(format!("node {} has a damaged partition", node.id));
        }
        let newest = self.meta.offset();
        let behind = self.nodes.iter().find(|node| node.up.as_ref().is_none_or(|up| up.published.1 < newest));
        behind.map(|node| format!("node {} does not know the newest metadata", node.id))
    }
}
