//! Which brokers get the replicas of new partitions: leaders evenly, followers evenly, racks apart.
//!
//! Brokers stand in a circle in which racks take turns. Partition after partition starts one further, so leaders
//! are even; followers take the next brokers at a distance that grows with each round, so that the followers of one
//! leader's partitions spread too. A rack is used twice only when all racks hold a replica already.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::error::ErrorCode;

use crate::controller::ApiError;
use crate::image::{Broker, Image};

/// Replicas of `count` new partitions, numbered from `first`; the seed decides where the circle starts.
pub fn place(image: &Image, first: i32, count: i32, factor: i16, seed: u64) -> Result<Vec<Vec<i32>>, ApiError> {
    let refuse = |reason: String| Err(ApiError::new(ErrorCode::InvalidReplicationFactor, reason));
    let usable: Vec<&Arc<Broker>> = image.brokers().filter(|b| !b.is_cordoned()).collect();
    if factor <= 0 {
        return refuse(format!("Invalid replication factor {factor}: the replication factor must be positive."));
    }
    if !usable.iter().any(|b| !b.fenced) {
        return refuse("All brokers are currently fenced, or have all their log directories cordoned.".into());
    }
    let factor = factor as usize;
    if factor > usable.len() {
        return refuse(format!(
            "The target replication factor of {factor} cannot be reached because only {} broker(s) are registered \
             or some brokers have all their log directories cordoned.",
            usable.len()
        ));
    }
    let (active, fenced): (Vec<_>, Vec<_>) = usable.into_iter().partition(|b| b.is_active());
    let leaders = circle(&active, seed);
    let spare = circle(&fenced, seed);
    let base = mix(seed) as usize;
    Ok((0..count.max(0)).map(|i| one(&leaders, &spare, factor, base, (first + i) as usize)).collect())
}

#[derive(Clone, Copy, PartialEq)]
struct Seat<'a> {
    id: i32,
    rack: Option<&'a str>,
}

/// Brokers in a circle: each round takes one broker of every rack that still has one.
fn circle<'a>(brokers: &[&'a Arc<Broker>], seed: u64) -> Vec<Seat<'a>> {
    let mut racks: BTreeMap<Option<&str>, Vec<Seat<'_>>> = BTreeMap::new();
    for broker in brokers {
        let rack = broker.rack.as_deref();
        racks.entry(rack).or_default().push(Seat { id: broker.id, rack });
    }
    let mut racks: Vec<Vec<Seat<'_>>> = racks.into_values().collect();
    let turn = if racks.is_empty() { 0 } else { mix(seed.wrapping_add(1)) as usize % racks.len() };
    racks.rotate_left(turn);
    let longest = racks.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|i| racks.iter().filter_map(move |rack| rack.get(i)).copied()).collect()
}

fn one(active: &[Seat<'_>], spare: &[Seat<'_>], factor: usize, base: usize, number: usize) -> Vec<i32> {
    let n = active.len().max(1);
    let start = base % n + number % n;
    let shift = base / n % n + number / n;
    let mut chosen: Vec<Seat<'_>> = Vec::with_capacity(factor);
    chosen.extend(active.get(start % n));
    // The followers' order: at a distance that differs from round to round, once around the circle.
    let distance = if n > 1 { 1 + shift % (n - 1) } else { 0 };
    let others = (0..n.saturating_sub(1)).map(|j| active[(start + 1 + (distance - 1 + j) % (n - 1)) % n]);
    let order: Vec<Seat<'_>> = others.chain(spare.iter().copied()).collect();
    for apart in [true, false] {
        for seat in &order {
            if chosen.len() >= factor {
                break;
            }
            let same_rack = |c: &Seat<'_>| apart && seat.rack.is_some() && c.rack == seat.rack;
            if !chosen.iter().any(|c| c.id == seat.id || same_rack(c)) {
                chosen.push(*seat);
            }
        }
    }
    chosen.iter().map(|seat| seat.id).collect()
}

/// Spreads a seed's bits (SplitMix64's last step).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::controller::tests::with_brokers;

    proptest! {
        #[test]
        fn replicas_differ_and_leaders_and_load_are_even(
            racks in proptest::collection::vec(0..4u8, 1..9), count in 1..200i32, factor in 1..5i16, seed in any::<u64>()
        ) {
            let named: Vec<_> = racks.iter().map(|r| (*r > 0).then(|| format!("r{r}"))).collect();
            let image = with_brokers(&named);
            let factor = factor.min(racks.len() as i16);
            let placed = place(&image, 3, count, factor, seed).unwrap();
            let mut leaders = BTreeMap::new();
            for replicas in &placed {
                let mut unique = replicas.clone();
                unique.sort();
                unique.dedup();
                prop_assert_eq!(unique.len(), factor as usize);
                *leaders.entry(replicas[0]).or_insert(0) += 1;
            }
            let most = leaders.values().max().unwrap();
            let least = (0..racks.len() as i32).map(|b| leaders.get(&b).copied().unwrap_or(0)).min().unwrap();
            prop_assert!(most - least <= 1, "leaders {:?}", leaders);
        }

        #[test]
        fn racks_are_kept_apart(per_rack in 1..4usize, count in 1..60i32, seed in any::<u64>()) {
            let racks: Vec<_> = (0..3 * per_rack).map(|i| Some(format!("r{}", i % 3))).collect();
            let image = with_brokers(&racks);
            for replicas in place(&image, 0, count, 3, seed).unwrap() {
                let mut used: Vec<_> = replicas.iter().map(|b| b % 3).collect();
                used.sort();
                prop_assert_eq!(used, vec![0, 1, 2]);
            }
        }
    }

    #[test]
    fn followers_of_one_leader_spread_over_the_others() {
        let image = with_brokers(&vec![None; 5]);
        let placed = place(&image, 0, 100, 2, 7).unwrap();
        let mut pairs = BTreeMap::new();
        for replicas in placed {
            *pairs.entry((replicas[0], replicas[1])).or_insert(0) += 1;
        }
        assert_eq!(pairs.len(), 20, "each leader with each other broker: {pairs:?}");
    }

    #[test]
    fn what_cannot_be_placed_is_refused_as_in_kafka() {
        let image = with_brokers(&[None]);
        let error = place(&image, 0, 1, 3, 0).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidReplicationFactor);
        assert!(error.message.unwrap().starts_with("The target replication factor of 3 cannot be reached"));
        assert!(place(&Image::new("c"), 0, 1, 1, 0).is_err());
    }
}
