//! Brokers are the preferred leader of equally many partitions.
//!
//! Whom a partition names first is free to choose among its replicas, so that nothing is copied for this. As with
//! replicas, chains lead from brokers that lead too much to those that lead too little; afterwards there is none.
//! Where topics differ in their number of replicas that may not be enough, and then two partitions change places.

use std::collections::VecDeque;

use crate::plan::Reason;
use crate::state::State;

/// Evens out the number of preferred leaders: among all partitions that may be changed, or only those that have been.
pub(crate) fn lead(state: &mut State<'_>, all: bool) {
    let members: Vec<usize> = (0..state.nodes.len()).filter(|n| state.nodes[*n].leads).collect();
    if members.len() < 2 {
        return;
    }
    let mut choices = Choices::new(state, all);
    by_order(state, &mut choices, &members);
    while all && swap(state, &mut choices) {
        by_order(state, &mut choices, &members);
    }
}

/// Which partitions could pass from one preferred leader to another. An entry is a hint: it may have become wrong.
struct Choices {
    all: bool,
    width: usize,
    by_pair: Vec<Vec<usize>>,
}

impl Choices {
    fn new(state: &State<'_>, all: bool) -> Self {
        let width = state.nodes.len();
        let mut choices = Self { all, width, by_pair: vec![Vec::new(); width * width] };
        // Taken from the end: first what moves anyway.
        for moved in [false, true] {
            for p in (0..state.parts.len()).rev() {
                if state.parts[p].reason.is_some() == moved {
                    choices.offer(state, p);
                }
            }
        }
        choices
    }

    fn offer(&mut self, state: &State<'_>, p: usize) {
        let part = &state.parts[p];
        let Some((first, others)) = part.replicas.split_first() else { return };
        if !part.movable || !(self.all || part.reason.is_some()) || !state.nodes[*first].leads {
            return;
        }
        for n in others.iter().filter(|n| state.nodes[**n].leads) {
            self.by_pair[first * self.width + n].push(p);
        }
    }

    /// A partition that one broker leads and another could.
    fn find(&mut self, state: &State<'_>, from: usize, to: usize) -> Option<usize> {
        let entries = &mut self.by_pair[from * self.width + to];
        while let Some(p) = entries.last() {
            if state.leads(*p, from) && state.holds(*p, to) {
                return Some(*p);
            }
            entries.pop();
        }
        None
    }
}

fn by_order(state: &mut State<'_>, choices: &mut Choices, members: &[usize]) {
    let mut settled = vec![false; state.nodes.len()];
    let mut moved = false;
    loop {
        let leaders = |n: usize| state.nodes[n].leaders;
        let lowest = members.iter().map(|n| leaders(*n)).min().unwrap_or(0);
        let open = members.iter().filter(|n| !settled[**n] && leaders(**n) >= lowest + 2);
        let Some(from) = open.copied().max_by_key(|n| (leaders(*n), std::cmp::Reverse(*n))) else {
            // A chain may have opened another one.
            if std::mem::take(&mut moved) {
                settled.fill(false);
                continue;
            }
            return;
        };
        match chain(state, choices, from, members) {
            Ok(hops) => {
                for (p, to) in hops {
                    state.promote(p, to, Reason::Leaders);
                    choices.offer(state, p);
                }
                moved = true;
            }
            Err(reached) => {
                let most = leaders(from);
                reached.into_iter().filter(|n| leaders(*n) <= most).for_each(|n| settled[n] = true);
            }
        }
    }
}

/// The partitions of a shortest chain and whom each goes to, or all brokers that can be reached.
fn chain(
    state: &State<'_>,
    choices: &mut Choices,
    start: usize,
    members: &[usize],
) -> Result<Vec<(usize, usize)>, Vec<usize>> {
    let most = state.nodes[start].leaders;
    let mut came: Vec<Option<(usize, usize)>> = vec![None; state.nodes.len()];
    let mut unseen: Vec<usize> = members.iter().copied().filter(|n| *n != start).collect();
    unseen.sort_by_key(|n| (state.nodes[*n].leaders, *n));
    let mut reached = vec![start];
    let mut queue = VecDeque::from([start]);
    while let Some(from) = queue.pop_front() {
        let mut still = Vec::with_capacity(unseen.len());
        for to in unseen {
            let Some(p) = choices.find(state, from, to) else {
                still.push(to);
                continue;
            };
            came[to] = Some((p, from));
            reached.push(to);
            queue.push_back(to);
            if state.nodes[to].leaders + 2 <= most {
                // Each broker leads its own partitions, so that no partition is in the chain twice.
                let mut hops = Vec::new();
                let mut at = to;
                while let Some((p, before)) = came[at] {
                    hops.push((p, at));
                    at = before;
                }
                return Ok(hops);
            }
        }
        unseen = still;
    }
    Err(reached)
}

/// Exchanges a partition that a broker leads for one that another follows, the smallest ones there are.
fn swap(state: &mut State<'_>, choices: &mut Choices) -> bool {
    let mut members = state.receivers();
    members.sort_by_key(|n| (state.nodes[*n].leaders, *n));
    for from in members.iter().rev().copied() {
        for to in members.iter().copied() {
            if state.nodes[to].leaders + 2 > state.nodes[from].leaders {
                break;
            }
            let smallest = |from: usize, to: usize, leads: bool| {
                let fits = |p: &&usize| {
                    state.parts[**p].movable && state.leads(**p, from) == leads && state.fits(**p, from, to)
                };
                let size = |p: &usize| (state.parts[*p].facts.bytes, *p);
                state.nodes[from].holds.iter().filter(fits).map(size).min().map(|(_, p)| p)
            };
            if let (Some(given), Some(taken)) = (smallest(from, to, true), smallest(to, from, false)) {
                state.relocate(given, from, to, Reason::Balance);
                state.relocate(taken, to, from, Reason::Balance);
                choices.offer(state, given);
                choices.offer(state, taken);
                return true;
            }
        }
    }
    false
}
