//! What must be: no replica on a drained broker, as many as there should be, and no two in a rack that need not be.
//!
//! Partition by partition, each new replica to the broker that bears least among those in the emptiest racks.
//! Invariant: a partition has no fewer replicas afterwards than it shall have.

use crate::facts::Error;
use crate::plan::Reason;
use crate::state::State;

/// Puts all partitions that may be moved where they must be.
pub(crate) fn place(state: &mut State<'_>) -> Result<(), Error> {
    let receivers = state.receivers();
    for p in 0..state.parts.len() {
        if state.parts[p].movable {
            place_one(state, p, &receivers)?;
        }
    }
    Ok(())
}

fn place_one(state: &mut State<'_>, p: usize, receivers: &[usize]) -> Result<(), Error> {
    let wanted = state.parts[p].wanted;
    let draining = |state: &State<'_>| state.parts[p].replicas.iter().copied().find(|n| state.nodes[*n].draining);
    while state.parts[p].replicas.len() > wanted {
        // What is drained goes first, and as long as there is too much nothing need come for it.
        let Some(n) = draining(state).or_else(|| most_dispensable(state, p)) else { break };
        state.drop_replica(p, n, Reason::Replication);
    }
    let too_few = |state: &State<'_>| {
        let part = &state.parts[p];
        let staying = part.replicas.iter().filter(|n| !state.nodes[**n].draining).count();
        let free = receivers.iter().filter(|n| !part.replicas.contains(n)).count();
        Error::TooFewBrokers {
            topic: part.facts.topic.clone(),
            partition: part.facts.index,
            wanted,
            available: staying + free,
        }
    };
    while let Some(from) = draining(state) {
        let to = best(state, p, Some(from), receivers).ok_or_else(|| too_few(state))?;
        state.relocate(p, from, to, Reason::Drain);
    }
    while state.parts[p].replicas.len() < wanted {
        let to = best(state, p, None, receivers).ok_or_else(|| too_few(state))?;
        state.add(p, to, Reason::Replication);
    }
    while let Some((from, to)) = crowded(state, p, receivers) {
        state.relocate(p, from, to, Reason::Racks);
    }
    Ok(())
}

/// The replica that is missed least: a dead one, one out of sync, one in a crowded rack, one that does not lead, and
/// at last the one whose broker bears most.
fn most_dispensable(state: &State<'_>, p: usize) -> Option<usize> {
    let part = &state.parts[p];
    let cost = |(position, n): (usize, &usize)| {
        let node = &state.nodes[*n];
        let in_sync = part.facts.isr.contains(&node.id);
        let crowd = state.in_rack(p, node.rack);
        (!node.alive, !in_sync, crowd, position != 0, state.load(*n), position, *n)
    };
    part.replicas.iter().enumerate().map(cost).max().map(|(.., n)| n)
}

/// The broker for a new replica, in the place of `from` if there is one.
fn best(state: &State<'_>, p: usize, from: Option<usize>, receivers: &[usize]) -> Option<usize> {
    let part = &state.parts[p];
    let cost = |n: &usize| {
        let rack = state.nodes[*n].rack;
        let leaving = from.is_some_and(|from| state.nodes[from].rack == rack);
        let crowd = state.in_rack(p, rack) - usize::from(leaving);
        (crowd, state.load(*n), state.of_topic(part.topic, *n), state.nodes[*n].bytes, *n)
    };
    receivers.iter().filter(|n| !part.replicas.contains(n)).map(cost).min().map(|(.., n)| n)
}

/// A replica whose rack holds two more than another could, and the broker there that bears least.
fn crowded(state: &State<'_>, p: usize, receivers: &[usize]) -> Option<(usize, usize)> {
    let replicas = &state.parts[p].replicas;
    let crowd = |n: usize| state.in_rack(p, state.nodes[n].rack);
    let (worst, _, from) = replicas.iter().map(|n| (crowd(*n), state.load(*n), *n)).max()?;
    if worst < 2 {
        return None;
    }
    let to = best(state, p, None, receivers)?;
    (state.in_rack(p, state.nodes[to].rack) + 2 <= worst).then_some((from, to))
}
