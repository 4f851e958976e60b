//! Who sits in the metadata quorum: the nodes with the lowest ids, as many as there are seats.
//!
//! The active controller moves towards that one step at a time. A voter is replaced by a lower id or removed
//! when its broker is unregistered; being away costs no seat. An even number of voters bears no more failures
//! than one less, so no seat is filled to make it even. A cordoned broker is about to go: its seat goes to one that is
//! not, while both are there, and it is the first to lose it where the number is even.
//!
//! Invariant: who asks under a voter's id with another directory gets nothing here. A voter's disk is replaced only
//! when its node asks the quorum to be taken in, which makes sure first that the voter itself is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_quorum::{Replica, Voter, wanted_voters};

use crate::broker::Broker;

/// A node that is to get a seat must have been heard within this time.
const HEARD_WITHIN_MS: i64 = 3_000;

/// Takes one step, if there is one to take.
pub async fn reseat(broker: &Arc<Broker>) {
    let quorum = broker.controller.quorum();
    let (image, _) = broker.controller.committed_image();
    let now_ms = broker.clock.now_ms();
    let takes_part = |id: i32| image.broker(id).is_some_and(|b| !b.fenced);
    quorum.registered(image.brokers().map(|b| b.id).collect());
    let replicas = quorum.replicas(now_ms);
    let cordoned = |id: i32| image.broker(id).is_some_and(|b| b.is_cordoned());
    let Some(wanted) = wanted(&replicas, broker.config.cluster.seats, now_ms, takes_part, cordoned) else { return };
    tracing::info!(voters = ?wanted.keys().collect::<Vec<_>>(), "seats of the metadata quorum change");
    if let Err(error) = quorum.reseat(&wanted).await {
        tracing::info!(%error, "seats of the metadata quorum could not be changed now");
    }
}

/// The voters there should be; `None` when they are.
fn wanted(
    replicas: &[Replica],
    seats: usize,
    now_ms: i64,
    takes_part: impl Fn(i32) -> bool,
    cordoned: impl Fn(i32) -> bool,
) -> Option<BTreeMap<i32, Voter>> {
    let voters: BTreeSet<i32> = replicas.iter().filter(|r| r.votes).map(|r| r.id).collect();
    let heard = |r: &Replica| r.last_fetch_ms.is_some_and(|at| now_ms - at <= HEARD_WITHIN_MS);
    let may = |r: &&Replica| r.votes || (heard(r) && takes_part(r.id) && !r.voter.host.is_empty());
    let mut candidates: BTreeMap<i32, Voter> = BTreeMap::new();
    for replica in replicas.iter().filter(|r| r.votes || !voters.contains(&r.id)).filter(may) {
        // The members come before those that only pull: of two with one id the member counts.
        candidates.entry(replica.id).or_insert_with(|| replica.voter.clone());
    }
    let (leaving, staying): (BTreeSet<i32>, _) = candidates.keys().partition(|id| cordoned(**id));
    let mut ids = wanted_voters(&staying, seats);
    let free = seats.saturating_sub(ids.len());
    ids.extend(leaving.iter().filter(|id| voters.contains(id)).take(free));
    if ids.len().is_multiple_of(2) {
        let new = ids.iter().rev().find(|id| !voters.contains(id));
        let last = new.or(ids.iter().rev().find(|id| leaving.contains(id))).copied();
        last.map(|id| ids.remove(&id));
    }
    (ids != voters && !ids.is_empty()).then(|| candidates.into_iter().filter(|(id, _)| ids.contains(id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(voters: &[i32], observers: &[i32]) -> Vec<Replica> {
        let replica = |id: &i32, votes| Replica {
            id: *id,
            voter: Voter { host: "h".into(), port: 1, directory_id: [1; 16] },
            votes,
            log_end_offset: None,
            last_fetch_ms: Some(0),
            last_caught_up_ms: None,
        };
        voters.iter().map(|id| replica(id, true)).chain(observers.iter().map(|id| replica(id, false))).collect()
    }

    fn ids(replicas: &[Replica]) -> Option<Vec<i32>> {
        wanted(replicas, 3, 1_000, |id| id != 9, |_| false).map(|w| w.into_keys().collect())
    }

    #[test]
    fn the_lowest_ids_sit_and_their_number_stays_odd() {
        assert_eq!(ids(&replicas(&[1], &[])), None);
        assert_eq!(ids(&replicas(&[1], &[2])), None, "two voters bear less than one");
        assert_eq!(ids(&replicas(&[1], &[2, 3])), Some(vec![1, 2, 3]));
        assert_eq!(ids(&replicas(&[1, 2, 3], &[4, 5])), None);
        assert_eq!(ids(&replicas(&[1, 2, 3], &[0])), Some(vec![0, 1, 2]));
        assert_eq!(ids(&replicas(&[1, 2], &[3])), Some(vec![1, 2, 3]));
        assert_eq!(ids(&replicas(&[1, 2], &[])), None, "nobody loses a seat for the number's sake");
        assert_eq!(ids(&replicas(&[1], &[2, 9])), None, "a fenced node gets none");
    }

    #[test]
    fn a_second_node_with_a_voters_id_never_takes_its_seat() {
        let mut all = replicas(&[0, 1], &[0, 2]);
        all[2].voter = Voter { host: "elsewhere".into(), port: 2, directory_id: [7; 16] };
        let open = |_: i32| false;
        let seats = wanted(&all, 3, 1_000, |_| true, open).unwrap();
        assert_eq!(seats.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seats[&0], all[0].voter);
        // Nor when the voter itself isn't heard.
        all[0].last_fetch_ms = None;
        assert_eq!(wanted(&all, 3, 1_000, |_| true, open).unwrap()[&0], all[0].voter);
        all.truncate(3);
        assert_eq!(wanted(&all, 3, 1_000, |_| true, open), None);
    }

    #[test]
    fn who_is_cordoned_gives_its_seat_away_while_it_is_there() {
        let ids = |seats: usize, voters: &[i32], observers: &[i32], cordoned: &[i32]| {
            let wanted = wanted(&replicas(voters, observers), seats, 1_000, |_| true, |id| cordoned.contains(&id));
            wanted.map(|w| w.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(ids(3, &[0, 1, 2], &[3, 4], &[1]), Some(vec![0, 2, 3]));
        assert_eq!(ids(3, &[0, 2, 3], &[1, 4], &[]), Some(vec![0, 1, 2]), "and gets it back");
        assert_eq!(ids(3, &[0, 1, 2], &[3, 4], &[4]), None);
        assert_eq!(ids(3, &[0, 1, 2], &[], &[2]), None, "two bear less than three of which one is about to go");
        assert_eq!(ids(3, &[0, 1, 2], &[], &[0, 1, 2]), None);
        // Five become three: the fifth leaves an even number behind when it is unregistered, the fourth goes before.
        assert_eq!(ids(5, &[0, 1, 2, 3, 4], &[], &[4]), None);
        assert_eq!(ids(5, &[0, 1, 2, 3], &[], &[3]), Some(vec![0, 1, 2]));
        assert_eq!(ids(5, &[0, 1, 2], &[3, 4], &[4]), None, "nor does a cordoned one get a seat");
    }

    #[test]
    fn a_node_not_heard_of_gets_no_seat() {
        let mut silent = replicas(&[1], &[2, 3]);
        silent[2].last_fetch_ms = Some(-5_000);
        assert_eq!(ids(&silent), None);
        silent[2].last_fetch_ms = None;
        assert_eq!(ids(&silent), None);
    }
}
