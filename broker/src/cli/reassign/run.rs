//! One run of a command that moves partitions: what it throttled, what became of its moves, and what it says in the end.
//!
//! It may carry out more than one plan. The throttle stays until all of them have ended, and what is reported of a
//! partition is what became of it last.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::throttle::Throttled;
use klamm_client::{Client, TopicPartition};
use klamm_planner::{Facts, Plan};

use super::before::{self, had};
use super::carry::{self, Manner, Outcome, Step, carry_out};
use super::planned::Executed;
use super::throttle;
use super::{Carrying, Scope};
use crate::cli::output::{Format, print};
use crate::cli::{CliError, Result};

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Moves to begin.
    pub steps: Vec<Step>,
    /// Moves that go on already.
    pub before: Vec<Step>,
    /// Partitions that are where they shall be: what throttles them still is of no use.
    pub settled: BTreeSet<TopicPartition>,
}

pub(super) struct Run<'a> {
    client: &'a Client,
    carrying: &'a Carrying,
    throttled: Throttled,
    ended: BTreeMap<TopicPartition, (Step, Outcome)>,
    /// Partitions whose preferred leaders are elected in the end.
    then: BTreeSet<TopicPartition>,
}

impl<'a> Run<'a> {
    pub(super) fn new(client: &'a Client, carrying: &'a Carrying) -> Self {
        let (throttled, ended, then) = Default::default();
        Self { client, carrying, throttled, ended, then }
    }

    /// Whether it waits until moves are complete.
    pub(super) fn waits(&self) -> bool {
        !self.carrying.no_wait
    }

    /// Carries a plan out, and what goes on already of what the scope asks for.
    pub(super) async fn carry_plan(&mut self, facts: &Facts, plan: &Plan, scope: &Scope) -> Result {
        let moving = self.client.reassignments(None).await?;
        let sizes: BTreeMap<(&str, i32), u64> =
            facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p.bytes)).collect();
        let step = |one: &klamm_planner::Move| {
            let at = TopicPartition::new(&one.topic, one.partition);
            let from = moving.get(&at).map_or_else(|| one.from.clone(), had);
            let size = sizes.get(&(one.topic.as_str(), one.partition)).copied().unwrap_or(0);
            Step { at, from, to: one.to.clone(), size }
        };
        self.then.extend(plan.elections.iter().map(|one| TopicPartition::new(&one.topic, one.partition)));
        let steps = plan.moves.iter().map(step).collect();
        let before = before::of_scope(facts, &moving, scope, plan);
        self.carry(Work { steps, before, settled: BTreeSet::new() }).await
    }

    /// Has moves begin, and watches them and those that go on already.
    pub(super) async fn carry(&mut self, work: Work) -> Result {
        let Work { steps, before, settled } = work;
        self.then.extend(steps.iter().chain(&before).map(|step| step.at.clone()));
        if !before.is_empty() {
            let watched = if self.waits() { ", and are watched to their end" } else { "" };
            eprintln!("{} moves from before go on{watched}", before.len());
        }
        self.throttle(&steps, &before, settled).await?;
        // Who does not wait can't begin one when another ends.
        let moves_max = match self.carrying.no_wait {
            true => usize::MAX,
            false => usize::try_from(self.carrying.max_moves).unwrap_or(usize::MAX),
        };
        let manner = Manner { moves_max, wait: self.waits() };
        let ended = carry_out(self.client, steps, before, manner).await.map_err(|e| self.throttle_stays(e))?;
        self.ended.extend(ended.into_iter().map(|(step, outcome)| (step.at.clone(), (step, outcome))));
        Ok(())
    }

    /// Throttles what moves, also what does so already, and finds what is throttled from before, to be taken off in
    /// the end.
    async fn throttle(&mut self, steps: &[Step], before: &[Step], settled: BTreeSet<TopicPartition>) -> Result {
        if !self.waits() {
            // Nobody would be there to take anything off.
            return Ok(());
        }
        let of_before: BTreeSet<TopicPartition> = before.iter().map(|step| step.at.clone()).collect();
        let earlier = Throttled::found(self.client, &of_before).await?;
        if !earlier.is_empty() && self.carrying.throttle.is_none() {
            eprintln!("they are throttled as before; --throttle changes that");
        }
        self.throttled.join(earlier);
        self.throttled.join(Throttled::found(self.client, &settled).await?);
        let Some(rate) = self.carrying.throttle else { return Ok(()) };
        let mut throttled = throttle::of(steps);
        throttled.join(throttle::of(before));
        let applied = throttle::apply(self.client, &throttled, rate).await;
        self.throttled.join(throttled);
        if let Err(error) = applied {
            // Nothing has begun; what went on before keeps its throttle.
            let off = before.is_empty() && self.throttled.remove(self.client).await.is_ok();
            return Err(if off { error } else { self.throttle_stays(error) });
        }
        if !before.is_empty() {
            eprintln!("the moves from before are throttled to {rate} bytes a second from now on");
        }
        Ok(())
    }

    /// Adds to an error that ends the watching early what is left behind.
    pub(super) fn throttle_stays(&self, error: CliError) -> CliError {
        match self.throttled.is_empty() {
            true => error,
            false => error.and(&format!("the throttle stays: {}", throttle::OFF)),
        }
    }

    /// Leaves leadership as it is where a move came to nothing.
    fn to_elect(&self) -> BTreeSet<TopicPartition> {
        let moved = |at: &&TopicPartition| self.ended.get(at).is_none_or(|(_, outcome)| *outcome == Outcome::Moved);
        self.then.iter().filter(moved).cloned().collect()
    }

    /// Takes the throttle off, has leaders elected, and says what was done.
    pub(super) async fn end(self, output: Format) -> Result<Executed> {
        throttle::remove(self.client, &self.throttled).await?;
        if self.ended.is_empty() && self.waits() {
            throttle::tell_of_leftovers(self.client).await?;
        }
        let elected = if self.waits() { carry::elect(self.client, &self.to_elect()).await? } else { 0 };
        let executed = Executed::new(&self.ended.into_values().collect::<Vec<_>>(), elected);
        print(output, &executed)?;
        Ok(executed)
    }

    /// As [`end`](Self::end), where every move matters.
    pub(super) async fn finish(self, output: Format) -> Result {
        let moves = self.ended.len();
        match self.end(output).await?.failed() {
            0 => Ok(()),
            n => Err(CliError::new(format!("{n} of {moves} moves failed, or others put an end to them"))),
        }
    }
}
