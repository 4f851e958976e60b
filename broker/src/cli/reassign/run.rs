//! One run of a command that moves partitions: what it throttled, what became of its moves, and what it says in the end.
//!
//! It may carry out more than one plan. The throttle stays until all of them have ended, and what is reported of a
//! partition is what became of it last.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::{Client, TopicPartition};
use klamm_planner::{Facts, Plan};

use super::Carrying;
use super::carry::{self, Manner, Outcome, Step, carry_out};
use super::planned::Executed;
use super::throttle::Throttled;
use crate::cli::output::{Format, print};
use crate::cli::{CliError, Result};

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

    /// Carries a plan out.
    pub(super) async fn carry_plan(&mut self, facts: &Facts, plan: &Plan) -> Result {
        let sizes: BTreeMap<(&str, i32), u64> =
            facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p.bytes)).collect();
        let step = |one: &klamm_planner::Move| Step {
            at: TopicPartition::new(&one.topic, one.partition),
            from: one.from.clone(),
            to: one.to.clone(),
            size: sizes.get(&(one.topic.as_str(), one.partition)).copied().unwrap_or(0),
        };
        self.then.extend(plan.elections.iter().map(|one| TopicPartition::new(&one.topic, one.partition)));
        self.carry(plan.moves.iter().map(step).collect()).await
    }

    /// Carries steps out.
    pub(super) async fn carry(&mut self, steps: Vec<Step>) -> Result {
        self.then.extend(steps.iter().map(|step| step.at.clone()));
        if let Some(rate) = self.carrying.throttle {
            let throttled = Throttled::of(&steps);
            let applied = throttled.apply(self.client, rate).await;
            self.throttled.join(throttled);
            applied.map_err(|e| self.throttle_stays(e))?;
        }
        // Who does not wait can't begin one when another ends.
        let moves_max = match self.carrying.no_wait {
            true => usize::MAX,
            false => usize::try_from(self.carrying.max_moves).unwrap_or(usize::MAX),
        };
        let manner = Manner { moves_max, wait: self.waits() };
        let ended = carry_out(self.client, steps, manner).await.map_err(|e| self.throttle_stays(e))?;
        self.ended.extend(ended.into_iter().map(|(step, outcome)| (step.at.clone(), (step, outcome))));
        Ok(())
    }

    /// Adds to an error that ends the watching early what is left behind.
    pub(super) fn throttle_stays(&self, error: CliError) -> CliError {
        match self.carrying.throttle {
            None => error,
            Some(_) => error.and(
                "the throttle stays until `kafka-reassign-partitions.sh --verify` or `klamm configs` takes it off",
            ),
        }
    }

    /// Leaves leadership as it is where a move came to nothing.
    fn to_elect(&self) -> BTreeSet<TopicPartition> {
        let moved = |at: &&TopicPartition| self.ended.get(at).is_none_or(|(_, outcome)| *outcome == Outcome::Moved);
        self.then.iter().filter(moved).cloned().collect()
    }

    /// Takes the throttle off, has leaders elected, and says what was done.
    pub(super) async fn end(self, output: Format) -> Result<Executed> {
        if self.carrying.throttle.is_some() {
            self.throttled.remove(self.client).await?;
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
