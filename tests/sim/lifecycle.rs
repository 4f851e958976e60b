//! What a broker's process does about its standing and its metadata: it registers, sends heartbeats, hears of the
//! metadata log, opens its partitions, follows each image, asks leave to stop. As `broker/src/cluster/lifecycle.rs` and
//! `server/follow.rs` do it.

use klamm::replica::replicas::Followed;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::{BrokerRegistrationRequest, Listener};
use std::sync::atomic::Ordering;

use crate::message::{Answer, Ask, Control, Who};
use crate::node::{CLUSTER, Standing};
use crate::world::{Event, World};

const BEAT_US: i64 = 60_000;
const IMPATIENT_US: i64 = 8_000;

impl World {
    /// Registers, or sends a heartbeat.
    pub fn beat(&mut self, id: i32, round: u64) {
        let now_us = self.now_us;
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        if round != up.beat_round {
            return;
        }
        if up.beat.take().is_some() {
            // No answer: perhaps another one decides.
            up.controller = self.meta.leader().unwrap_or((up.controller + 1) % 3);
        }
        up.beat_round += 1;
        let request = if up.standing == Standing::Unregistered || up.epoch < 0 {
            Control::Register(BrokerRegistrationRequest {
                broker_id: id,
                cluster_id: CLUSTER.into(),
                incarnation_id: up.incarnation,
                listeners: vec![Listener {
                    name: "L".into(),
                    host: format!("h{id}"),
                    port: 9092,
                    security_protocol: 0,
                }],
                log_dirs: vec![up.directory],
                previous_broker_epoch: up.previous_epoch,
                ..Default::default()
            })
        } else {
            Control::Heartbeat(BrokerHeartbeatRequest {
                broker_id: id,
                broker_epoch: up.epoch,
                current_metadata_offset: up.published.1 as i64,
                want_shut_down: up.leaving,
                ..Default::default()
            })
        };
        let (controller, round) = (up.controller, up.beat_round);
        let asked = self.ask(Who::Node(id), controller, Ask::Control(request));
        if let Some(up) = self.node_mut(id).up.as_mut() {
            up.beat = Some(asked);
        }
        self.at(now_us + BEAT_US, Event::Beat(id, boot, round));
    }

    /// The next heartbeat comes after so long.
    fn beat_again(&mut self, id: i32, delay_us: i64) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut() else { return };
        up.beat = None;
        up.beat_round += 1;
        let round = up.beat_round;
        self.after(delay_us, Event::Beat(id, boot, round));
    }

    /// The controller, or who was asked for one, answers a node.
    pub fn control_answered(&mut self, id: i32, asked: u64, answer: Answer) {
        let leader = self.meta.leader();
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        if matches!(answer, Answer::NotController) {
            up.controller = leader.unwrap_or((up.controller + 1) % 3);
        }
        if up.isr_asked.as_ref().is_some_and(|(id, _)| *id == asked) {
            return self.isr_answered(id, answer);
        }
        if up.beat != Some(asked) {
            return;
        }
        match answer {
            Answer::Register(Ok(epoch)) => {
                up.epoch = epoch;
                up.replicas.around.broker_epoch.store(epoch, Ordering::Release);
                if up.standing == Standing::Unregistered {
                    up.standing = Standing::CatchingUp;
                }
                self.note(|| format!("node {id} is registered as {epoch}"));
                self.open_if_caught_up(id);
                self.beat_again(id, IMPATIENT_US);
            }
            Answer::Heartbeat(Ok(answer)) => match ErrorCode::from_code(answer.error_code) {
                ErrorCode::None if up.leaving && answer.should_shut_down => self.stop(id),
                ErrorCode::None => {
                    let waiting = up.leaving || answer.is_fenced;
                    self.beat_again(id, if waiting { IMPATIENT_US } else { BEAT_US });
                }
                _ => self.beat_again(id, BEAT_US),
            },
            Answer::Heartbeat(Err(ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered)) => {
                // The same incarnation registers again.
                up.previous_epoch = up.epoch;
                up.epoch = -1;
                self.beat_again(id, 1_000);
            }
            _ => self.beat_again(id, IMPATIENT_US),
        }
    }

    /// A node hears of more of the metadata log.
    pub fn apply(&mut self, id: i32) {
        let newest = self.meta.offset();
        let (boot, deaf_until) = (self.node(id).boot, self.node(id).deaf_until_us);
        let Some(known) = self.node(id).up.as_ref().map(|up| up.offset()) else { return };
        if known >= newest {
            return;
        }
        let from = self.meta.leader().unwrap_or(id);
        if deaf_until > self.now_us || !self.reaches(from, id) || !self.reaches(id, from) {
            self.after(20_000, Event::Apply(id, boot));
            return;
        }
        let whole = self.healing || self.random.one_in(2);
        let upto = if whole { newest } else { known + 1 + self.random.below(newest - known) };
        self.apply_upto(id, upto);
        if upto < newest {
            let delay = self.random.between(200, 10_000);
            self.after(delay, Event::Apply(id, boot));
        }
    }

    /// A node that decides knows all that was committed.
    pub fn catch_up(&mut self, id: i32) {
        self.apply_upto(id, self.meta.offset());
    }

    fn apply_upto(&mut self, id: i32, upto: u64) {
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        node.set_clock(self.now_us);
        let Some(up) = node.up.as_mut().filter(|up| up.offset() < upto) else { return };
        up.apply(&self.meta, upto);
        let opens = up.standing == Standing::CatchingUp;
        let schedules = up.standing == Standing::Open && !up.publish_scheduled;
        up.publish_scheduled |= schedules;
        self.note(|| format!("node {id} knows metadata {upto}"));
        if opens {
            self.open_if_caught_up(id);
        } else if schedules {
            let slow = !self.healing && self.random.one_in(30);
            let delay = if slow { self.random.between(10_000, 200_000) } else { self.random.between(50, 1_500) };
            self.after(delay, Event::Publish(id, boot));
        }
    }

    /// Opens the partitions once the node knows of its own registration.
    fn open_if_caught_up(&mut self, id: i32) {
        let uuid = self.random.uuid();
        let node = &mut self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_mut().filter(|up| up.standing == Standing::CatchingUp) else { return };
        if (up.offset() as i64) < up.epoch {
            return;
        }
        let (image, offset, _) = up.take_changes();
        up.replicas.storage().set_strays_aside(&image, || uuid).unwrap_or_else(|e| panic!("node {id}: {e}"));
        let followed = up.replicas.open_all(&image, &up.clock);
        up.published = (image, offset);
        up.standing = Standing::Open;
        up.list();
        let offline = up.replicas.offline_count();
        self.note(|| format!("node {id} opens its partitions at {offset}"));
        self.check_opened(id, offline);
        self.followed(id, followed);
        self.after(20_000, Event::Lag(id, boot));
        self.after(30_000, Event::Housekeeping(id, boot));
        self.after(5_000, Event::Group(id, boot));
        self.beat_again(id, 500);
    }

    /// Brings the partitions in line with the newest image that the node knows, and publishes it.
    pub fn publish(&mut self, id: i32) {
        let uuid = self.random.uuid();
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        up.publish_scheduled = false;
        let (image, offset, changes) = up.take_changes();
        let followed = up.replicas.follow(&image, &changes, &|| uuid, &up.clock);
        up.published = (image, offset);
        up.list();
        self.note(|| format!("node {id} publishes {offset}"));
        self.followed(id, followed);
    }

    /// What a new image means beyond the partitions themselves.
    pub fn followed(&mut self, id: i32, followed: Followed) {
        for partition in &followed.led {
            let key = (partition.topic.id, partition.index);
            self.check_leads(id, key);
        }
        self.follow_leaders(id);
        self.groups_followed(id, &followed);
    }

    /// Asks leave to stop.
    pub fn leave(&mut self, id: i32) {
        if let Some(up) = self.node_mut(id).up.as_mut() {
            up.leaving = true;
        }
        self.beat_again(id, 100);
    }

    /// Stops in order, and starts again some time later.
    pub fn stop(&mut self, id: i32) {
        self.note(|| format!("node {id} stops in order"));
        self.count("clean stops");
        let up = self.node(id).up.as_ref();
        let marked = up.is_some_and(|up| up.standing == Standing::Open && up.replicas.offline_count() == 0);
        self.node_mut(id).close();
        if !self.healing && self.random.one_in(3) && marked {
            // The machine is switched off then. Whatever the topic says, a stop in order has synced everything.
            self.note(|| format!("the machine of {id} is switched off"));
            self.nodes[id as usize].power_loss(&mut self.random);
        }
        self.gone(id);
    }

    /// A process has ended: others come to know, and one starts again.
    pub fn gone(&mut self, id: i32) {
        if self.meta.leader() == Some(id) {
            self.elect_soon();
        }
        let delay = if self.healing { 10_000 } else { self.random.between(5_000, 500_000) };
        self.after(delay, Event::Start(id));
    }
}
