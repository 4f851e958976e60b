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
                if let Some(found) = exchange(state, full, empty, apart) {
                    state.relocate(found.given, full, empty, Reason::Balance);
                    state.relocate(found.taken, empty, full, Reason::Balance);
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

/// The best exchange between two brokers that are so many bytes apart.
fn exchange(state: &State<'_>, full: usize, empty: usize, apart: u128) -> Option<Exchange> {
    // Less would take more exchanges than the broker has replicas.
    let least = apart / (4 * state.load(full).max(1) as u128);
    let mut best: Option<Exchange> = None;
    for leads in [false, true] {
        let offered = |n: usize| {
            let may = move |p: &usize| state.parts[*p].movable && state.leads(*p, n) == leads;
            state.nodes[n].holds.iter().map(|p| (state.sizes[*p], *p)).filter(move |(_, p)| may(p))
        };
        let mut taken: Vec<(u128, usize)> = offered(empty).collect();
        taken.sort_unstable();
        let fits = |at: &usize| taken.get(*at).is_some_and(|(_, q)| state.fits(*q, empty, full));
        let Some(smallest) = (0..taken.len()).find(fits) else { continue };
        // What a partition can gain at most, the most promising first.
        let promising =
            offered(full).map(|(size, p)| (size.min(apart / 2), size, p)).filter(|(most, ..)| *most > least);
        let mut given: Vec<(u128, u128, usize)> = promising.collect();
        given.sort_unstable_by_key(|(most, size, p)| (std::cmp::Reverse(*most), *size, *p));
        for (most, size, p) in given {
            if best.as_ref().is_some_and(|best| best.worth() > most << 32) {
                break;
            }
            if !state.fits(p, full, empty) {
                continue;
            }
            // The one for which both come out alike lies between these two; the smallest is copied at least cost.
            let at = taken.partition_point(|(other, _)| *other + apart / 2 < size);
            let (below, above) = ((0..at).rev().find(fits), (at..taken.len()).find(fits));
            for (other, q) in [below, above, Some(smallest)].into_iter().flatten().map(|at| taken[at]) {
                if other >= size || size - other >= apart {
                    continue;
                }
                let shift = size - other;
                let found = Exchange { gain: shift.min(apart - shift), copied: size + other, given: p, taken: q };
                let pays = found.gain > least && found.gain * COPIED_MAX >= found.copied;
                if pays && best.as_ref().is_none_or(|best| found.beats(best)) {
                    best = Some(found);
                }
            }
        }
    }
    best
}
