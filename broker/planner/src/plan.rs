//! The plan: its parts, how it is made, and in which order it is to be carried out.

use std::collections::HashMap;

use crate::facts::{Error, Facts, Wish};
use crate::state::State;
use crate::{bytes, leaders, place, spread};

/// What is to be done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The moves, the most urgent first; within a [wave](Self::waves) in any order.
    pub moves: Vec<Move>,
    /// Leaders to be elected once the moves are complete.
    pub elections: Vec<Election>,
    /// Partitions that should move and can't: no live replica of them is in sync.
    pub left: Vec<Left>,
    /// How many moves may go on at a time.
    pub moves_max: Option<usize>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.elections.is_empty()
    }

    /// The moves in groups of which each follows when the one before is complete.
    pub fn waves(&self) -> impl Iterator<Item = &[Move]> {
        self.moves.chunks(self.moves_max.unwrap_or(usize::MAX).max(1))
    }

    /// What all moves copy.
    pub fn bytes(&self) -> u64 {
        self.moves.iter().fold(0, |sum, one| sum.saturating_add(one.bytes))
    }
}

/// A partition's change of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The replicas that it has.
    pub from: Vec<i32>,
    /// The replicas that it gets, the preferred leader first.
    pub to: Vec<i32>,
    /// What is copied for it: its size for each new replica.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

impl Move {
    /// The brokers that get a copy.
    pub fn adding(&self) -> impl Iterator<Item = i32> {
        self.to.iter().copied().filter(|id| !self.from.contains(id))
    }
}

/// Why a partition moves. The first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A broker is drained.
    Drain,
    /// It shall have more or fewer replicas.
    Replication,
    /// Two of its replicas are in one rack.
    Racks,
    /// Brokers become more even in replicas or bytes.
    Balance,
    /// Brokers become more even in leaders; only the order of the replicas changes.
    Leaders,
}

/// A partition that shall be led by its preferred leader and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The preferred leader, once the moves are complete.
    pub leader: i32,
}

/// A partition that should move and can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
}

/// Makes the plan.
pub fn plan(facts: &Facts, wish: &Wish) -> Result<Plan, Error> {
    let mut state = State::new(facts, wish)?;
    loop {
        let before = state.changes;
        place::place(&mut state)?;
        if !wish.even {
            leaders::lead(&mut state, false);
            break;
        }
        // Each step only ever improves what the ones before it are about, so that this ends; and it ends where another
        // plan would begin with nothing to do.
        spread::spread(&mut state);
        leaders::lead(&mut state, true);
        bytes::fill(&mut state, wish);
        if state.changes == before {
            break;
        }
    }
    Ok(Plan { moves: moves(&state), elections: elections(&state, wish), left: left(&state), moves_max: wish.moves_max })
}

/// What has changed, by urgency; with each, the brokers that get copies take turns, so that all of them are busy.
fn moves(state: &State<'_>) -> Vec<Move> {
    let mut turns: HashMap<(Reason, i32), usize> = HashMap::new();
    let mut moves = Vec::new();
    for part in &state.parts {
        let Some(reason) = part.reason else { continue };
        let facts = part.facts;
        let to: Vec<i32> = part.replicas.iter().map(|n| state.nodes[*n].id).collect();
        if to == *facts.moving_to.as_ref().unwrap_or(&facts.replicas) {
            continue;
        }
        let mut one = Move {
            topic: facts.topic.clone(),
            partition: facts.index,
            from: facts.replicas.clone(),
            bytes: 0,
            reason,
            to,
        };
        one.bytes = facts.bytes.saturating_mul(one.adding().count() as u64);
        let gets = one.adding().next().or(one.to.first().copied()).unwrap_or(-1);
        let turn = turns.entry((reason, gets)).or_default();
        *turn += 1;
        moves.push((*turn, one));
    }
    // Stable: within a turn they stay by topic and partition.
    moves.sort_by_key(|(turn, one)| (one.reason, *turn));
    moves.into_iter().map(|(_, one)| one).collect()
}

fn elections(state: &State<'_>, wish: &Wish) -> Vec<Election> {
    let wanted = state.parts.iter().filter(|part| part.movable && (wish.even || part.reason.is_some()));
    let elected = wanted.filter_map(|part| {
        let first = &state.nodes[*part.replicas.first()?];
        let had = part.facts.replicas.contains(&first.id);
        let may = first.leads && !first.maintained && (!had || part.facts.isr.contains(&first.id));
        let differs = part.facts.leader != Some(first.id);
        (may && differs).then(|| Election {
            topic: part.facts.topic.clone(),
            partition: part.facts.index,
            leader: first.id,
        })
    });
    elected.collect()
}

/// Partitions that miss a goal which is no matter of degree.
fn left(state: &State<'_>) -> Vec<Left> {
    let missed = state.parts.iter().filter(|part| {
        let astray = part.wanted != part.replicas.len() || part.replicas.iter().any(|n| state.nodes[*n].draining);
        part.stuck && astray
    });
    missed.map(|part| Left { topic: part.facts.topic.clone(), partition: part.facts.index }).collect()
}
