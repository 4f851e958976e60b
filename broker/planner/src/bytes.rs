//! Brokers hold about as many bytes, without becoming uneven in anything that goes before.
//!
//! Two brokers exchange partitions of different size, of which both are the preferred leader or neither, so that
//! numbers stay. Brokers that are even within the slack are left alone, and exchanges that copy much to gain little are
//! not made: sizes change all the time, copies cost. Invariant: each exchange makes its two brokers more even.

use std::collections::HashMap;

use crate::facts::Wish;
use crate::plan::Reason;
use crate::state::State;

/// For each byte that an exchange makes brokers more even by, it copies no more than this.
const COPIED_MAX: u128 = 4;

/// An exchange: what the fuller broker gives, and what it gets.
#[derive(Clone, Copy)]
struct Exchange {
    gain: u128,
    copied: u128,
    given: usize,
    taken: usize,
}

impl Exchange {
    /// Gain times gain per byte copied. A gain has at most 64 bits and is no more than what is copied.
    fn worth(&self) -> u128 {
        self.gain.saturating_mul((self.gain << 32) / self.copied.max(1))
    }

    /// Whether it is better: much gained, and little copied for it.
    fn beats(&self, other: &Self) -> bool {
        (self.worth(), other.given, other.taken) > (other.worth(), self.given, self.taken)
    }
}

/// Evens out the bytes.
pub(crate) fn fill(state: &mut State<'_>, wish: &Wish) {
    let mut members = state.receivers();
    if members.len() < 2 {
        return;
    }
    let total: u128 = members.iter().map(|n| state.nodes[*n].bytes).sum();
    let mean = total / members.len() as u128;
    let slack = (mean * u128::from(wish.bytes_slack_percent) / 100).max(u128::from(wish.bytes_slack_min)).max(1);
    // How often each broker has changed, and at which count a pair was found to have nothing to exchange.
    let mut changes = vec![0_u64; state.nodes.len()];
    let mut fruitless: HashMap<(usize, usize), (u64, u64)> = HashMap::new();
    let mut offered: Vec<Offers> = Vec::new();
    'again: loop {
        members.sort_by_key(|n| (state.nodes[*n].bytes, *n));
        for full in members.iter().rev().copied() {
            for empty in members.iter().copied() {
                let apart = state.nodes[full].bytes.saturating_sub(state.nodes[empty].bytes);
                if apart <= slack {
                    break;
                }
                let stand = (changes[full], changes[empty]);
                if fruitless.get(&(full, empty)) == Some(&stand) {
                    continue;
                }
                if offered.is_empty() {
                    offered = (0..state.nodes.len()).map(|n| offers(state, n)).collect();
                }
                if let Some(Exchange { given, taken, .. }) = exchange(state, &offered, full, empty, apart) {
                    let role = usize::from(state.leads(given, full));
                    for (p, from, to) in [(given, full, empty), (taken, empty, full)] {
                        state.relocate(p, from, to, Reason::Balance);
                        hand_over(&mut offered, role, (state.sizes[p], p), from, to);
                    }
                    changes[full] += 1;
                    changes[empty] += 1;
                    continue 'again;
                }
                fruitless.insert((full, empty), stand);
            }
        }
        return;
    }
}

/// What a broker may exchange by size: what it follows, and what it is the preferred leader of.
type Offers = [Vec<(u64, usize)>; 2];

fn offers(state: &State<'_>, n: usize) -> Offers {
    let mut offers = Offers::default();
    for p in state.nodes[n].holds.iter().filter(|p| state.parts[**p].movable) {
        offers[usize::from(state.leads(*p, n))].push((state.sizes[*p], *p));
    }
    offers.iter_mut().for_each(|list| list.sort_unstable());
    offers
}

/// Takes a partition from one broker's offers to another's.
fn hand_over(all: &mut [Offers], role: usize, what: (u64, usize), from: usize, to: usize) {
    if let Ok(at) = all[from][role].binary_search(&what) {
        all[from][role].remove(at);
    }
    if let Err(at) = all[to][role].binary_search(&what) {
        all[to][role].insert(at, what);
    }
}

/// The best exchange between two brokers that are so many bytes apart.
fn exchange(state: &State<'_>, all: &[Offers], full: usize, empty: usize, apart: u128) -> Option<Exchange> {
    // Less would take more exchanges than the broker has replicas.
    let least = apart / (4 * state.load(full).max(1) as u128);
    let half = apart / 2;
    let mut best: Option<Exchange> = None;
    for (given, taken) in all[full].iter().zip(&all[empty]) {
        let fits = |at: &usize| taken.get(*at).is_some_and(|(_, q)| state.fits(*q, empty, full));
        let Some(smallest) = (0..taken.len()).find(fits) else { continue };
        // The most promising first: what could gain half of the difference, then what can gain no more than its size.
        let large = given.partition_point(|(size, _)| u128::from(*size) < half);
        for (size, p) in given[large..].iter().chain(given[..large].iter().rev()) {
            let size = u128::from(*size);
            let most = size.min(half);
            if most <= least || best.as_ref().is_some_and(|best| best.worth() > most << 32) {
                break;
            }
            if !state.fits(*p, full, empty) {
                continue;
            }
            // The one for which both come out alike lies between these two; the smallest is copied at least cost.
            let at = taken.partition_point(|(other, _)| u128::from(*other) + half < size);
            let (below, above) = ((0..at).rev().find(fits), (at..taken.len()).find(fits));
            for (other, q) in [below, above, Some(smallest)].into_iter().flatten().map(|at| taken[at]) {
                let other = u128::from(other);
                if other >= size || size - other >= apart {
                    continue;
                }
                let shift = size - other;
                let found = Exchange { gain: shift.min(apart - shift), copied: size + other, given: *p, taken: q };
                let pays = found.gain > least && found.gain * COPIED_MAX >= found.copied;
                if pays && best.as_ref().is_none_or(|best| found.beats(best)) {
                    best = Some(found);
                }
            }
        }
    }
    best
}
