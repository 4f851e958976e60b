//! Brokers bear equally many replicas, moving as few as possible and as few bytes as that allows.
//!
//! In bulk first: what a broker has too much goes to those that bear least, a proportionate sample of each topic.
//! Racks can stand in the way of that, where only a chain of moves helps: from a full broker to one in between and from
//! there to an empty one. Afterwards no move and no chain would make two brokers more even. Brokers that get nothing
//! (dead, cordoned) give nothing either: they are not part of this.

use std::collections::{BTreeSet, VecDeque};

use crate::plan::Reason;
use crate::state::State;

/// How many candidates are compared for the one whose size fits best.
const WINDOW: usize = 64;

/// Evens out the number of replicas.
pub(crate) fn spread(state: &mut State<'_>) {
    let members = state.receivers();
    if members.len() < 2 {
        return;
    }
    in_bulk(state, &members);
    by_chains(state, &members);
}

/// Those that may get replicas, in the order in which they should: by load, then by bytes.
struct Takers(BTreeSet<(usize, u128, usize)>);

impl Takers {
    fn new(state: &State<'_>, members: &[usize]) -> Self {
        Self(members.iter().map(|n| Self::key(state, *n)).collect())
    }

    fn key(state: &State<'_>, n: usize) -> (usize, u128, usize) {
        (state.load(n), state.nodes[n].bytes, n)
    }

    /// How much the one bears that bears least.
    fn lowest(&self) -> usize {
        self.0.first().map_or(0, |(load, ..)| *load)
    }

    /// Who gets a replica: the first that may, and of several that bear alike the one with the least of its topic.
    fn find(&self, state: &State<'_>, p: usize, from: usize, up_to: usize) -> Option<usize> {
        let mut best: Option<((usize, u128), u32, usize)> = None;
        for (load, bytes, n) in &self.0 {
            let behind = best.is_some_and(|(stand, ..)| stand != (*load, *bytes));
            if *load >= up_to || load + 2 > state.load(from) || behind {
                break;
            }
            if state.fits(p, from, *n) {
                let of_topic = state.of_topic(state.parts[p].topic, *n);
                if best.is_none_or(|(_, least, _)| of_topic < least) {
                    best = Some(((*load, *bytes), of_topic, *n));
                }
            }
        }
        best.map(|(.., n)| n)
    }

    fn relocate(&mut self, state: &mut State<'_>, p: usize, from: usize, to: usize) {
        for n in [from, to] {
            self.0.remove(&Self::key(state, n));
        }
        state.relocate(p, from, to, Reason::Balance);
        self.0.extend([from, to].map(|n| Self::key(state, n)));
    }
}

/// Broker after broker, the fullest first, gives what is above the mean: to those below it, then to those that are not
/// above it, then a last one to those that are still below. At last what differs by two is made even. A replica that
/// goes where it need not would be in the way of another, and cost a further move.
fn in_bulk(state: &mut State<'_>, members: &[usize]) {
    let count = members.len();
    let total: usize = members.iter().map(|n| state.load(*n)).sum();
    let bytes_mean = members.iter().map(|n| state.nodes[*n].bytes).sum::<u128>() / count as u128;
    let (floor, ceiling) = (total / count, total.div_ceil(count));
    let mut takers = Takers::new(state, members);
    for (keeps, up_to) in [(ceiling, floor), (ceiling, ceiling), (floor, floor), (0, usize::MAX)] {
        let mut givers = members.to_vec();
        givers.sort_by_key(|n| (std::cmp::Reverse(state.load(*n)), *n));
        for from in givers {
            let goes_on = |state: &State<'_>, takers: &Takers| {
                let (load, lowest) = (state.load(from), takers.lowest());
                load > keeps && lowest < up_to && load >= lowest + 2
            };
            if !goes_on(state, &takers) {
                continue;
            }
            let mut sample =
                sample(state, from).into_iter().map(|p| (state.sizes[p], p)).collect::<Vec<_>>().into_iter();
            let mut near: Vec<(u64, usize)> = sample.by_ref().take(WINDOW).collect();
            while goes_on(state, &takers) {
                // With what is given in the end, the bytes above the mean shall be gone as well.
                let excess = state.nodes[from].bytes.saturating_sub(bytes_mean);
                let size = excess / if keeps == 0 { 1 } else { (state.load(from) - keeps) as u128 };
                let size = u64::try_from(size).unwrap_or(u64::MAX);
                let distance = |(at, (bytes, _)): (usize, &(u64, usize))| (bytes.abs_diff(size), at);
                let Some((_, at)) = near.iter().enumerate().map(distance).min() else { break };
                let (_, p) = near.remove(at);
                near.extend(sample.next());
                if let Some(to) = takers.find(state, p, from, up_to) {
                    takers.relocate(state, p, from, to);
                }
            }
        }
    }
}

/// What a broker may give, so ordered that any first part takes about the same share of each topic, and of the small
/// and the large within it.
fn sample(state: &State<'_>, from: usize) -> Vec<usize> {
    let movable = state.nodes[from].holds.iter().copied().filter(|p| state.parts[*p].movable);
    let mut of_topics: Vec<usize> = movable.collect();
    of_topics.sort_unstable_by_key(|p| (state.parts[*p].topic, state.sizes[*p], *p));
    let mut keyed = Vec::with_capacity(of_topics.len());
    for topic in of_topics.chunk_by(|a, b| state.parts[*a].topic == state.parts[*b].topic) {
        let count = topic.len() as u64;
        let mut by_turn: Vec<(u64, usize)> =
            topic.iter().enumerate().map(|(rank, p)| ((rank as u64).reverse_bits(), *p)).collect();
        by_turn.sort_unstable();
        // The middle of the k-th of so many equal parts, as a fraction of 2^32.
        let part = |k: usize| ((2 * k as u64 + 1) << 32) / (2 * count);
        keyed.extend(by_turn.into_iter().enumerate().map(|(k, (_, p))| (part(k), p)));
    }
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, p)| p).collect()
}

/// Moves replicas along the shortest chains from full brokers to empty ones, until there is no such chain.
fn by_chains(state: &mut State<'_>, members: &[usize]) {
    // Nothing can be made better for these: every broker that they reach bears nearly as much.
    let mut settled = vec![false; state.nodes.len()];
    let mut moved = false;
    loop {
        let lowest = members.iter().map(|n| state.load(*n)).min().unwrap_or(0);
        let open = members.iter().filter(|n| !settled[**n] && state.load(**n) >= lowest + 2);
        let Some(from) = open.copied().max_by_key(|n| (state.load(*n), std::cmp::Reverse(*n))) else {
            // A chain may have opened another one.
            if std::mem::take(&mut moved) {
                settled.fill(false);
                continue;
            }
            return;
        };
        match chain(state, from, members) {
            Ok(hops) => {
                for (p, from, to) in hops {
                    state.relocate(p, from, to, Reason::Balance);
                }
                moved = true;
            }
            Err(reached) => {
                let load = state.load(from);
                // They reach no more than this one does.
                reached.into_iter().filter(|n| state.load(*n) <= load).for_each(|n| settled[n] = true);
            }
        }
    }
}

/// The moves of a shortest chain that ends at a broker with two fewer replicas, or all brokers that can be reached.
fn chain(state: &State<'_>, start: usize, members: &[usize]) -> Result<Vec<(usize, usize, usize)>, Vec<usize>> {
    let load = state.load(start);
    let mut came: Vec<Option<(usize, usize)>> = vec![None; state.nodes.len()];
    let mut unseen: Vec<usize> = members.iter().copied().filter(|n| *n != start).collect();
    unseen.sort_by_key(|n| (state.load(*n), *n));
    let mut reached = vec![start];
    let mut queue = VecDeque::from([start]);
    while let Some(from) = queue.pop_front() {
        // The partitions on the way here have other replicas by then.
        let mut used = Vec::new();
        let mut at = from;
        while let Some((p, before)) = came[at] {
            used.push(p);
            at = before;
        }
        let mut found: Vec<(usize, usize)> = Vec::new();
        let mut offered: Vec<usize> = state.nodes[from].holds.clone();
        offered.retain(|p| state.parts[*p].movable && !used.contains(p));
        offered.sort_by_key(|p| (state.parts[*p].facts.bytes, *p));
        for p in offered {
            if unseen.is_empty() {
                break;
            }
            unseen.retain(|to| {
                let fits = state.fits(p, from, *to);
                if fits {
                    found.push((*to, p));
                }
                !fits
            });
        }
        for (to, p) in &found {
            came[*to] = Some((*p, from));
            reached.push(*to);
        }
        if let Some((end, _)) = found.iter().copied().find(|(to, _)| state.load(*to) + 2 <= load) {
            let mut hops = Vec::new();
            let mut at = end;
            while let Some((p, before)) = came[at] {
                hops.push((p, before, at));
                at = before;
            }
            return Ok(hops);
        }
        queue.extend(found.iter().map(|(to, _)| *to));
    }
    Err(reached)
}
