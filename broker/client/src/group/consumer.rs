//! A consumer whose partitions are given out by a group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Membership;
use super::member::{Member, beat, partition_counts};
use crate::admin::offsets::{CommittedOffset, OffsetSpec};
use crate::client::Client;
use crate::consumer::{ConsumedRecord, Consumer, ConsumerOptions};
use crate::error::{ClientError, Result};
use crate::{Isolation, TopicPartition};

/// How a member of a group behaves.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// The coordinator drops a member it hasn't heard of for this long.
    pub session_timeout: Duration,
    /// How long the group waits for a member in a rebalance.
    pub rebalance_timeout: Duration,
    /// How often the coordinator hears from us.
    pub heartbeat_interval: Duration,
    /// How often offsets are committed by themselves; `None`: only by [`GroupConsumer::commit`].
    pub auto_commit_interval: Option<Duration>,
    /// How often the leader looks for new partitions.
    pub metadata_age_max: Duration,
    /// `group.instance.id`: makes the member static.
    pub instance_id: Option<String>,
    /// Where to begin in partitions for which the group has committed nothing.
    pub start: OffsetSpec,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(3),
            auto_commit_interval: Some(Duration::from_secs(5)),
            metadata_age_max: Duration::from_secs(30),
            instance_id: None,
            start: OffsetSpec::Latest,
        }
    }
}

/// Reads the partitions that its group gives it. Records returned by one [`poll`](Self::poll) count
/// as handled at the next, and are committed then or later.
pub struct GroupConsumer {
    member: Member,
    consumer: Consumer,
    isolation: Isolation,
    state: State,
    commit_due: Instant,
    metadata_due: Instant,
    /// Set on the leader: what it assigned by.
    partition_counts: Option<BTreeMap<String, i32>>,
    committed: BTreeMap<TopicPartition, i64>,
    left: Option<Left>,
}

/// Where a member was when it gave up its place. A coordinator that could not be reached for a whole session may have
/// kept the place: who comes back into the same generation goes on from there, since nobody else can have had the
/// partitions meanwhile, rather than from what was committed last.
struct Left {
    membership: Membership,
    positions: BTreeMap<TopicPartition, i64>,
    committed: BTreeMap<TopicPartition, i64>,
}

enum State {
    /// Not in the group, or no longer.
    Outside,
    Joined(Heartbeats),
}

/// The task that keeps the member alive between polls.
struct Heartbeats {
    task: JoinHandle<()>,
    trouble: watch::Receiver<Option<ClientError>>,
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GroupConsumer {
    /// A member of `group` that reads `topics`; it joins at the first [`poll`](Self::poll).
    pub fn new(
        client: &Client,
        group: &str,
        topics: impl IntoIterator<Item = String>,
        options: GroupOptions,
        consumer: ConsumerOptions,
    ) -> Self {
        Self {
            isolation: consumer.isolation,
            member: Member {
                client: client.apart(),
                group: group.to_owned(),
                topics: topics.into_iter().collect(),
                options,
                membership: Membership::default(),
            },
            consumer: Consumer::new(client, consumer),
            state: State::Outside,
            commit_due: Instant::now(),
            metadata_due: Instant::now(),
            partition_counts: None,
            committed: BTreeMap::new(),
            left: None,
        }
    }

    /// The partitions held now.
    pub fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.consumer.positions().into_keys().collect()
    }

    /// For each partition held the offset of the next record that [`poll`](Self::poll) will return.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.consumer.positions()
    }

    /// Whether this is a member of the group now, with or without partitions.
    pub fn is_member(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    /// The group's generation that this member belongs to, or belonged to last.
    pub fn generation(&self) -> i32 {
        self.member.membership.generation
    }

    /// The next records, at most `max`. Joins and rebalances as needed, in which case there may be none.
    pub async fn poll(&mut self, max: usize) -> Result<Vec<ConsumedRecord>> {
        self.keep_membership().await?;
        let State::Joined(heartbeats) = &mut self.state else { return Ok(Vec::new()) };
        tokio::select! {
            records = self.consumer.poll(max) => records,
            // Looked at by the next poll.
            _ = heartbeats.trouble.wait_for(Option::is_some) => Ok(Vec::new()),
        }
    }

    async fn keep_membership(&mut self) -> Result<()> {
        let trouble = match &self.state {
            State::Outside => None,
            State::Joined(heartbeats) => heartbeats.trouble.borrow().clone(),
        };
        match trouble.as_ref().map(ClientError::code) {
            None => {}
            Some(Some(ErrorCode::RebalanceInProgress)) => {
                // The last chance for this generation; a failure means others read again from before.
                if let Err(error) = self.commit_in_time().await {
                    tracing::warn!(%error, "offsets not committed before the rebalance");
                }
                self.give_up();
            }
            Some(Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)) => self.give_up(),
            // Unreachable for a whole session: the coordinator has dropped this member by now, or will.
            Some(_) if trouble.as_ref().is_some_and(ClientError::is_retriable) => self.give_up(),
            Some(_) => return trouble.map_or(Ok(()), Err),
        }
        if matches!(self.state, State::Outside) {
            return self.join().await;
        }
        let now = Instant::now();
        if let Some(interval) = self.member.options.auto_commit_interval
            && now >= self.commit_due
        {
            self.commit_due = now + interval;
            if !self.commit_in_time().await? {
                return Ok(());
            }
        }
        if let Some(counts) = &self.partition_counts
            && now >= self.metadata_due
        {
            self.metadata_due = now + self.member.options.metadata_age_max;
            let topics = counts.keys().chain(&self.member.topics).cloned().collect();
            if partition_counts(&self.member.client, &topics).await? != *counts {
                self.commit_in_time().await?;
                self.give_up();
                return self.join().await;
            }
        }
        Ok(())
    }

    /// Commits if that is to happen by itself. Says `false` when the group has moved on meanwhile, so
    /// that this member has to join again.
    async fn commit_in_time(&mut self) -> Result<bool> {
        if self.member.options.auto_commit_interval.is_none() {
            return Ok(true);
        }
        match self.commit().await {
            Ok(()) => Ok(true),
            Err(error) => match error.code() {
                // The next heartbeat brings the same news, and with it the rebalance.
                Some(ErrorCode::RebalanceInProgress) => Ok(false),
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                    self.give_up();
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    fn give_up(&mut self) {
        self.state = State::Outside;
        let (positions, committed) = (self.consumer.positions(), std::mem::take(&mut self.committed));
        if !positions.is_empty() {
            self.left = Some(Left { membership: self.member.membership.clone(), positions, committed });
        }
        self.consumer.assign([]);
    }

    async fn join(&mut self) -> Result<()> {
        let joined = self.member.join().await?;
        self.partition_counts = joined.partition_counts;
        self.metadata_due = Instant::now() + self.member.options.metadata_age_max;
        let interval = self.member.options.auto_commit_interval.unwrap_or_default();
        self.commit_due = Instant::now() + interval;
        // From here on the coordinator expects heartbeats, also while offsets are looked up.
        self.state = State::Joined(self.heartbeats());
        let topics = joined.assignment.iter();
        let held: BTreeSet<TopicPartition> = topics
            .flat_map(|(topic, partitions)| partitions.iter().map(move |p| TopicPartition::new(topic, *p)))
            .collect();
        tracing::debug!(group = %self.member.group, partitions = held.len(), "joined");
        if let Some(left) = self.left.take()
            && left.membership == self.member.membership
            && left.positions.keys().eq(&held)
        {
            self.committed = left.committed;
            self.consumer.assign(left.positions);
            return Ok(());
        }
        let positions = self.start_positions(&held).await;
        match positions {
            Ok(positions) => {
                self.committed.clone_from(&positions);
                self.consumer.assign(positions);
                Ok(())
            }
            Err(error) => {
                // Without positions there is nothing to read: join again at the next poll.
                self.give_up();
                Err(error)
            }
        }
    }

    async fn start_positions(&self, held: &BTreeSet<TopicPartition>) -> Result<BTreeMap<TopicPartition, i64>> {
        let client = &self.member.client;
        let committed = client.group_offsets(&self.member.group, true).await?;
        let mut positions: BTreeMap<TopicPartition, i64> = committed
            .into_iter()
            .filter(|(at, _)| held.contains(at))
            .map(|(at, committed)| (at, committed.offset))
            .collect();
        let fresh: BTreeSet<TopicPartition> = held.iter().filter(|at| !positions.contains_key(at)).cloned().collect();
        let start = self.member.options.start;
        let mut past_the_end = BTreeSet::new();
        for (at, listed) in client.list_offsets(&fresh, start, self.isolation).await? {
            match listed?.offset {
                // A timestamp behind the last record.
                offset if offset < 0 => _ = past_the_end.insert(at),
                offset => _ = positions.insert(at, offset),
            }
        }
        for (at, listed) in client.list_offsets(&past_the_end, OffsetSpec::Latest, self.isolation).await? {
            positions.insert(at, listed?.offset);
        }
        Ok(positions)
    }

    fn heartbeats(&self) -> Heartbeats {
        let (report, trouble) = watch::channel(None);
        let every = self.member.options.heartbeat_interval;
        let session = self.member.options.session_timeout;
        let (client, request) = (self.member.client.clone(), self.member.heartbeat());
        let task = tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = Instant::now();
            loop {
                ticks.tick().await;
                match beat(&client, &request).await {
                    Ok(()) => last = Instant::now(),
                    // A coordinator that moves or restarts gets as long as it would give us.
                    Err(error)
                        if error.is_retriable()
                            && error.code() != Some(ErrorCode::RebalanceInProgress)
                            && last.elapsed() < session => {}
                    Err(error) => {
                        report.send_replace(Some(error));
                        return;
                    }
                }
            }
        });
        Heartbeats { task, trouble }
    }

    /// Commits the position of every partition: all that earlier polls returned.
    pub async fn commit(&mut self) -> Result<()> {
        let positions = self.consumer.positions();
        let moved = positions.iter().filter(|(at, offset)| self.committed.get(at) != Some(offset));
        let offsets: BTreeMap<TopicPartition, CommittedOffset> = moved
            .map(|(at, &offset)| (at.clone(), CommittedOffset { offset, leader_epoch: -1, metadata: String::new() }))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let membership = Some(&self.member.membership);
        self.member.client.commit_offsets(&self.member.group, membership, &offsets).await?;
        self.committed = positions;
        Ok(())
    }

    /// Leaves the group, after a last commit if `commit` says so.
    pub async fn close(mut self, commit: bool) -> Result<()> {
        let committed = if commit && self.is_member() { self.commit().await } else { Ok(()) };
        self.state = State::Outside;
        self.member.leave().await?;
        committed
    }
}
