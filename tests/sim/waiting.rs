//! Requests that a leader has taken and not answered yet: they wait for an fsync or for the replicas.

use bytes::Bytes;
use klamm::replica::waiting::Reached;
use klamm_group::{Answer as GroupAnswer, Ticket};
use klamm_protocol::ErrorCode;
use tokio::sync::oneshot::error::TryRecvError;

use crate::message::{Answer, Key, Who};
use crate::world::{Event, World};

/// One of them.
pub struct Waiting {
    pub from: Who,
    pub id: u64,
    pub key: Key,
    pub what: What,
    pub then: Then,
    pub deadline_us: i64,
}

/// What it waits for.
pub enum What {
    /// The next round of fsyncs.
    Flush,
    /// The high watermark.
    Commit(Reached),
}

/// What it is then told.
pub enum Then {
    /// This batch is at this offset.
    Produced(i64, Bytes),
    /// The coordinator's answers.
    Group(Vec<(Ticket, GroupAnswer)>),
}

impl World {
    /// Answers what has come to be, after each event on a node; then looks whether all is as it must be.
    pub fn settle(&mut self, node: i32) {
        let Some(up) = self.nodes[node as usize].up.as_mut() else { return };
        let mut wanted = Vec::new();
        if !up.flush_scheduled && up.replicas.flusher.is_wanted() {
            up.flush_scheduled = true;
            wanted.push((300, 4_000, Event::Flush as fn(i32, u32) -> Event));
        }
        if !up.isr_scheduled && up.isr_asked.is_none() && !up.replicas.around.proposals.lock().is_empty() {
            up.isr_scheduled = true;
            wanted.push((100, 6_000, Event::Isr));
        }
        let boot = self.node(node).boot;
        for (low, high, event) in wanted {
            let delay = self.random.between(low, high);
            self.after(delay, event(node, boot));
        }
        self.check_node(node);
        self.answer_waiting(node, false);
    }

    /// Answers those who wait on a node, as far as what they wait for has come. `flushed`: a round of fsyncs is done.
    pub fn answer_waiting(&mut self, node: i32, flushed: bool) {
        let now_us = self.now_us;
        let Some(up) = self.nodes[node as usize].up.as_mut() else { return };
        if up.waiting.is_empty() {
            return;
        }
        let mut done = Vec::new();
        let mut left = Vec::new();
        for mut waiting in std::mem::take(&mut up.waiting) {
            let outcome = match &mut waiting.what {
                What::Flush if flushed => Some(Ok(())),
                What::Flush => None,
                What::Commit(reached) => match reached.try_recv() {
                    Ok(outcome) => Some(outcome),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Closed) => Some(Err(ErrorCode::NotLeaderOrFollower)),
                },
            };
            match outcome {
                Some(outcome) => done.push((waiting, outcome)),
                None if waiting.deadline_us <= now_us => done.push((waiting, Err(ErrorCode::RequestTimedOut))),
                None => left.push(waiting),
            }
        }
        up.waiting = left;
        for (waiting, outcome) in done {
            self.acknowledge(node, waiting, outcome);
        }
    }

    fn acknowledge(&mut self, node: i32, waiting: Waiting, outcome: Result<(), ErrorCode>) {
        match waiting.then {
            Then::Produced(base, batch) => {
                if outcome.is_ok() {
                    self.check_acknowledged(node, waiting.key, base, &batch);
                }
                self.answer(node, waiting.from, waiting.id, Answer::Produced(outcome.map(|()| base)));
            }
            Then::Group(answers) => match outcome {
                Ok(()) => self.hand_out(node, answers),
                // It may come to be or not: whoever waits asks again.
                Err(_) => self.withhold(node, answers),
            },
        }
    }
}
