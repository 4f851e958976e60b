//! Carries moves out: asks for them, as many at a time as allowed, and watches until they are complete.
//!
//! The cluster does the work by itself once it was asked, so that nothing is lost when the watching ends. Invariant: a
//! move counts as done only when the metadata show its replicas and nobody lists it as going on; either alone may come
//! from a broker that is behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use klamm_client::admin::cluster::Election;
use klamm_client::admin::placement::{Sizes, size};
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::{Client, Partition, TopicPartition};
use tokio::time::sleep;

use super::progress::{Progress, State, bytes};
use crate::cli::consume::interrupted;
use crate::cli::output::list;
use crate::cli::{CliError, Result};

/// Moves in one request; brokers bound what one may change.
const BATCH: usize = 1000;
/// Pauses between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A move that is neither listed as it was asked for nor complete for so long has been taken back or replaced.
const GONE: Duration = Duration::from_secs(10);

/// A partition and the replicas that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub at: TopicPartition,
    pub from: Vec<i32>,
    pub to: Vec<i32>,
    /// What a copy takes, as far as known.
    pub size: u64,
}

impl Step {
    pub(super) fn adding(&self) -> impl Iterator<Item = i32> {
        self.to.iter().copied().filter(|id| !self.from.contains(id))
    }

    fn bytes(&self) -> u64 {
        self.size.saturating_mul(self.adding().count() as u64)
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is complete.
    Moved,
    /// It has begun, and goes on.
    Started,
    /// It went on before, and still does.
    GoesOn,
    /// Somebody else took it back, or had the partition moved elsewhere; or its topic is gone.
    Replaced(String),
    /// It did not begin.
    Failed(String),
}

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Moves at a time.
    pub moves_max: usize,
    /// Whether to wait until they are complete.
    pub wait: bool,
}

/// A move that goes on.
struct Running {
    step: Step,
    /// Whether it went on already when it was first looked at.
    before: bool,
    /// Since when it has not been listed as it was asked for although it is not complete.
    missing: Option<Instant>,
    left: u64,
}

/// Carries out the steps in order; those of `before` go on already.
pub(super) async fn carry_out(
    client: &Client,
    steps: Vec<Step>,
    before: Vec<Step>,
    manner: Manner,
) -> Result<Vec<(Step, Outcome)>> {
    let all = || steps.iter().chain(&before);
    let total = State {
        partitions: all().count(),
        bytes: all().fold(0, |sum, step| sum.saturating_add(step.bytes())),
        ..State::default()
    };
    let running = before.into_iter().map(|step| (step.at.clone(), Running::of(step, true))).collect();
    let mut carrier = Carrier { client, total, queue: steps.into(), running, ended: Vec::new() };
    let mut progress = Progress::new();
    let ended = tokio::select! {
        ended = carrier.run(manner, &mut progress) => ended,
        () = interrupted() => Err(CliError::new("stopped watching")),
    };
    progress.end();
    let (going, waiting) = (carrier.running.len(), carrier.queue.len());
    match ended {
        Ok(()) => Ok(carrier.ended),
        Err(error) if going + waiting == 0 => Err(error),
        Err(error) => Err(error.and(&format!("{going} moves go on, {waiting} have not begun")).hint(
            "`klamm reassign status` shows what goes on, `klamm reassign cancel` takes it back; the same command again \
             does the rest",
        )),
    }
}

impl Running {
    fn of(step: Step, before: bool) -> Self {
        Self { missing: None, left: step.bytes(), step, before }
    }
}

struct Carrier<'a> {
    client: &'a Client,
    total: State,
    queue: VecDeque<Step>,
    running: BTreeMap<TopicPartition, Running>,
    ended: Vec<(Step, Outcome)>,
}

impl Carrier<'_> {
    async fn run(&mut self, manner: Manner, progress: &mut Progress) -> Result {
        let mut pause = PAUSE.0;
        while !(self.queue.is_empty() && self.running.is_empty()) {
            self.start(manner.moves_max).await?;
            if !manner.wait && self.queue.is_empty() {
                let started = std::mem::take(&mut self.running).into_values();
                let outcome = |running: &Running| if running.before { Outcome::GoesOn } else { Outcome::Started };
                self.ended.extend(started.map(|running| (running.step.clone(), outcome(&running))));
                return Ok(());
            }
            if !manner.wait {
                continue;
            }
            let before = self.running.len();
            self.look().await?;
            progress.show(self.state());
            // Where places come free there is something to do.
            pause = if self.running.len() < before { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            if !self.running.is_empty() {
                sleep(pause).await;
            }
        }
        Ok(())
    }

    /// Asks for as many moves as may begin.
    async fn start(&mut self, moves_max: usize) -> Result {
        let room = moves_max.max(1).saturating_sub(self.running.len()).min(BATCH).min(self.queue.len());
        if room == 0 {
            return Ok(());
        }
        let steps: Vec<Step> = self.queue.iter().take(room).cloned().collect();
        let wanted = steps.iter().map(|step| (step.at.clone(), Some(step.to.clone()))).collect();
        let mut answers = self.client.alter_reassignments(&wanted).await?;
        for step in steps {
            self.queue.pop_front();
            match answers.remove(&step.at) {
                Some(Ok(())) => {
                    self.running.insert(step.at.clone(), Running::of(step, false));
                }
                Some(Err(error)) => self.ended.push((step, Outcome::Failed(error.to_string()))),
                None => self.ended.push((step, Outcome::Failed("the controller did not answer for it".to_owned()))),
            }
        }
        Ok(())
    }

    /// Looks which moves are complete, and how much is left of the others.
    async fn look(&mut self) -> Result {
        let asked: BTreeSet<TopicPartition> = self.running.keys().cloned().collect();
        let ongoing = self.client.reassignments(Some(&asked)).await?;
        let topics: BTreeSet<&str> = asked.iter().map(|at| at.topic.as_str()).collect();
        let cluster = self.client.refresh(Some(&topics.into_iter().collect::<Vec<_>>())).await?;
        let mut involved = BTreeSet::new();
        for at in &asked {
            let Some(running) = self.running.get_mut(at) else { continue };
            let now = cluster.partition(&at.topic, at.partition);
            let listed = ongoing.get(at);
            let ended = match (now, listed) {
                (Some(now), None) if now.replicas == running.step.to => Some(Outcome::Moved),
                (_, Some(other)) if other.target() == running.step.to => {
                    running.missing = None;
                    None
                }
                _ => {
                    let since = *running.missing.get_or_insert_with(Instant::now);
                    (since.elapsed() >= GONE).then(|| Outcome::Replaced(fate(&running.step, now, listed)))
                }
            };
            match ended {
                Some(outcome) => {
                    self.total.done += usize::from(outcome == Outcome::Moved);
                    if let Some(running) = self.running.remove(at) {
                        self.ended.push((running.step, outcome));
                    }
                }
                None => involved.extend(running.step.adding().chain(now.map(|now| now.leader).filter(|id| *id >= 0))),
            }
        }
        if !involved.is_empty() {
            let sizes = self.client.replica_sizes(&involved).await;
            for (at, running) in &mut self.running {
                let leader = cluster.partition(&at.topic, at.partition).map_or(-1, |now| now.leader);
                running.left = left(&sizes, at, leader, running.step.adding()).unwrap_or(running.left);
            }
        }
        Ok(())
    }

    fn state(&self) -> State {
        let running = self.running.values().map(|running| running.left);
        let left = running.chain(self.queue.iter().map(Step::bytes)).fold(0, u64::saturating_add);
        State { left, ..self.total }
    }
}

/// Why a move does not go on: what is there in its place.
fn fate(step: &Step, now: Option<&Partition>, listed: Option<&Reassignment>) -> String {
    let set = |ids: &[i32]| ids.iter().copied().collect::<BTreeSet<i32>>();
    match (now, listed) {
        (None, _) => "its topic was deleted".to_owned(),
        (_, Some(other)) => format!("somebody else has it moved to {}", list(&other.target())),
        (Some(now), None) if set(&now.replicas) == set(&step.from) => {
            format!("somebody else took it back: its replicas are {} as before", list(&now.replicas))
        }
        (Some(now), None) => format!("somebody else had it moved: its replicas are {}", list(&now.replicas)),
    }
}

/// What these replicas lack of the leader's copy; `None` where that is not known.
pub(super) fn left(sizes: &Sizes, at: &TopicPartition, leader: i32, adding: impl Iterator<Item = i32>) -> Option<u64> {
    let whole = size(sizes, at, leader)?;
    let copies = sizes.get(at)?;
    let lacks = adding.map(|id| whole.saturating_sub(copies.get(&id).copied().unwrap_or(0)));
    Some(lacks.fold(0, u64::saturating_add))
}

/// Has the preferred leaders of these partitions elected where they are in sync and do not lead yet; says how many.
pub(super) async fn elect(client: &Client, partitions: &BTreeSet<TopicPartition>) -> Result<usize> {
    let topics: BTreeSet<&str> = partitions.iter().map(|at| at.topic.as_str()).collect();
    if topics.is_empty() {
        return Ok(0);
    }
    let cluster = client.refresh(Some(&topics.into_iter().collect::<Vec<_>>())).await?;
    let due = partitions.iter().filter(|at| {
        let now = cluster.partition(&at.topic, at.partition);
        now.is_some_and(|now| now.replicas.first().is_some_and(|first| *first != now.leader && now.isr.contains(first)))
    });
    let due: Vec<TopicPartition> = due.cloned().collect();
    let mut elected = 0;
    for due in due.chunks(BATCH) {
        // What is not elected now is by the controller, some minutes later.
        let results = client.elect_leaders(Election::Preferred, Some(due)).await?;
        elected += results.values().filter(|outcome| matches!(outcome, Ok(Some(())))).count();
    }
    Ok(elected)
}

/// `4 partitions moved, 1.2 GiB copied`.
pub(super) fn summary(ended: &[(Step, Outcome)]) -> String {
    let count = |wanted: &Outcome| {
        let those = ended.iter().filter(|(_, outcome)| outcome == wanted);
        those.fold((0, 0_u64), |(n, sum), (step, _)| (n + 1, sum.saturating_add(step.bytes())))
    };
    let ((moved, copied), (started, to_copy)) = (count(&Outcome::Moved), count(&Outcome::Started));
    let goes_on = match count(&Outcome::GoesOn) {
        (0, _) => String::new(),
        (n, _) if started == 0 => return format!("nothing else to move, {n} moves from before go on"),
        (n, _) => format!(", {n} moves from before go on"),
    };
    match started {
        0 => format!("{moved} partitions moved, {} copied", bytes(copied)),
        _ => format!("{started} moves begun, {} to copy{goes_on}", bytes(to_copy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: &[i32], to: &[i32], size: u64) -> Step {
        Step { at: TopicPartition::new("t", 0), from: from.to_vec(), to: to.to_vec(), size }
    }

    #[test]
    fn only_new_replicas_are_copied() {
        assert_eq!(step(&[0, 1], &[2, 1, 3], 10).bytes(), 20);
        assert_eq!(step(&[0, 1], &[1, 0], 10).bytes(), 0);
    }

    #[test]
    fn who_lost_a_move_is_told_what_is_there_instead() {
        let step = step(&[0, 1], &[2, 1], 10);
        let now = |replicas: &[i32]| Partition {
            index: 0,
            leader: 0,
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: vec![0],
            offline: Vec::new(),
            error: klamm_protocol::ErrorCode::None,
        };
        let other = Reassignment { replicas: vec![3, 1, 0, 2], adding: vec![3], removing: vec![0, 2] };
        assert_eq!(fate(&step, None, None), "its topic was deleted");
        let elsewhere = fate(&step, Some(&now(&[3, 1, 0, 2])), Some(&other));
        assert_eq!(elsewhere, "somebody else has it moved to 3,1");
        let back = fate(&step, Some(&now(&[1, 0])), None);
        assert_eq!(back, "somebody else took it back: its replicas are 1,0 as before");
        let done = fate(&step, Some(&now(&[3, 1])), None);
        assert_eq!(done, "somebody else had it moved: its replicas are 3,1");
    }

    #[test]
    fn what_is_left_is_what_new_copies_lack() {
        let at = TopicPartition::new("t", 0);
        let sizes = Sizes::from([(at.clone(), BTreeMap::from([(0, 100), (2, 30)]))]);
        assert_eq!(left(&sizes, &at, 0, [2, 3].into_iter()), Some(170));
        assert_eq!(left(&sizes, &TopicPartition::new("t", 1), 0, [2].into_iter()), None);
    }

    #[test]
    fn the_summary_counts_what_was_done() {
        let done = |outcome| (step(&[0], &[1], 1024), outcome);
        let failed = done(Outcome::Failed("x".to_owned()));
        assert_eq!(summary(&[done(Outcome::Moved), failed]), "1 partitions moved, 1.0 KiB copied");
        assert_eq!(summary(&[done(Outcome::Started)]), "1 moves begun, 1.0 KiB to copy");
        let both = [done(Outcome::Started), done(Outcome::GoesOn)];
        assert_eq!(summary(&both), "1 moves begun, 1.0 KiB to copy, 1 moves from before go on");
        assert_eq!(summary(&both[1..]), "nothing else to move, 1 moves from before go on");
    }
}
