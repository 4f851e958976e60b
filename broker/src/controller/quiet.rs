//! Brokers that are cut off, or whose host is gone: noticed before their session is over.
//!
//! Nothing is heard of such a broker, neither by the quorum nor by heartbeats, and its host answers no knock: a process
//! that is slow or stands still has a kernel that answers. Fencing it early is as safe as fencing it late; a false alarm
//! costs a change of leaders. So that a fault of the controller's own network fences nobody, most brokers must have been
//! heard of meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::active::{fence, now_ms};
use crate::broker::Broker;
use crate::cluster::suspects;

/// Silence after which a voter is visited: it answers the controller many times a second.
const VOTER_MS: u64 = 500;
/// Beyond the interval of heartbeats, the silence after which any other broker is visited.
const OTHER_MS: u64 = 500;
/// Pause before a broker that answered is visited again.
const AGAIN_MS: u64 = 1_000;

/// Who is being visited, and when one who answered may be visited again.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    visits: Arc<Mutex<BTreeMap<i32, Option<u64>>>>,
}

/// What was last heard of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    /// How long ago it sent a heartbeat or asked for metadata. At first, how long ago this controller became active.
    ms: u64,
    /// Of a voter: how long ago it answered the quorum's leader, for ever if it has not.
    voter_ms: Option<u64>,
}

impl Heard {
    /// Whether it is worth a visit. A new controller begins at once with voters that keep silent: they have been for as
    /// long as its election took.
    fn is_odd(self, every_ms: u64) -> bool {
        self.voter_ms.map_or_else(|| self.is_quiet(every_ms), |ms| ms >= VOTER_MS)
    }

    fn is_quiet(self, every_ms: u64) -> bool {
        match self.voter_ms {
            Some(ms) => ms.min(self.ms) >= VOTER_MS,
            None => self.ms >= every_ms.saturating_add(OTHER_MS),
        }
    }
}

impl Quiet {
    /// Visits those of whom nothing is heard. Visits take a while and go on by themselves.
    pub(super) fn look(&mut self, broker: &Arc<Broker>) {
        if broker.config.cluster.unreachable_ms == 0 {
            return;
        }
        let now = now_ms(broker);
        let every_ms = broker.config.cluster.heartbeat_every_ms();
        for (id, _) in heard(broker).into_iter().filter(|(_, heard)| heard.is_odd(every_ms)) {
            let mut visits = self.visits.lock();
            if visits.get(&id).is_some_and(|again| again.is_none_or(|again| now < again)) {
                continue;
            }
            visits.insert(id, None);
            let (broker, visits) = (broker.clone(), Arc::clone(&self.visits));
            tokio::spawn(async move {
                visit(&broker, id).await;
                visits.lock().insert(id, Some(now_ms(&broker) + AGAIN_MS));
            });
        }
    }
}

/// Fences a broker that is cut off, or whose end nobody was there to notice.
async fn visit(broker: &Arc<Broker>, id: i32) {
    let (image, _) = broker.controller.committed_image();
    let cluster = &broker.config.cluster;
    let patience = Duration::from_millis(cluster.unreachable_ms);
    let door = broker.whereabouts.find(&image, id, &broker.config.inter_broker_listener).await;
    let why = if suspects::is_silent(&door, patience).await {
        "its host does not answer"
    } else if suspects::has_ended(&door).await {
        "its process has ended"
    } else {
        return;
    };
    let heard = heard(broker);
    if !quiet(&heard, cluster.heartbeat_every_ms()).contains(&id)
        || !most_are_heard(&heard, cluster.heartbeat_every_ms())
    {
        return;
    }
    match fence(broker, &image, id).await {
        Ok(()) => tracing::warn!(broker = id, "fenced: nothing is heard of it, and {why}"),
        // Looked at again soon, and its session ends all the same.
        Err(code) => tracing::debug!(broker = id, code = code.name(), "not fenced yet"),
    }
}

/// What was last heard of each broker that is not fenced, but for the controller itself.
fn heard(broker: &Arc<Broker>) -> BTreeMap<i32, Heard> {
    let (image, _) = broker.controller.committed_image();
    let now = now_ms(broker);
    let heartbeats = broker.heartbeats.lock();
    let mut heard: BTreeMap<i32, Heard> = BTreeMap::new();
    for other in image.brokers().filter(|b| !b.fenced && b.id != broker.config.node_id) {
        // One that has just registered has not been missed yet.
        let ms = heartbeats.last_contact(other.id).map_or(0, |(at, _)| now.saturating_sub(at));
        heard.insert(other.id, Heard { ms, voter_ms: None });
    }
    drop(heartbeats);
    for replica in broker.controller.quorum().replicas(i64::try_from(now).unwrap_or(i64::MAX)) {
        let Some(heard) = heard.get_mut(&replica.id) else { continue };
        let at = replica.last_fetch_ms.and_then(|at| u64::try_from(at).ok());
        let ms = at.map_or(u64::MAX, |at| now.saturating_sub(at));
        if replica.votes {
            heard.voter_ms = Some(ms);
        } else {
            heard.ms = heard.ms.min(ms);
        }
    }
    heard
}

fn quiet(heard: &BTreeMap<i32, Heard>, heartbeat_ms: u64) -> BTreeSet<i32> {
    heard.iter().filter(|(_, heard)| heard.is_quiet(heartbeat_ms)).map(|(id, _)| *id).collect()
}

/// Whether the controller is with most of the brokers, of whom it is one itself.
fn most_are_heard(heard: &BTreeMap<i32, Heard>, heartbeat_ms: u64) -> bool {
    let all = heard.len() + 1;
    let with_it = all - quiet(heard, heartbeat_ms).len();
    with_it * 2 > all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(those: &[(i32, u64, Option<u64>)]) -> BTreeMap<i32, Heard> {
        those.iter().map(|(id, ms, voter_ms)| (*id, Heard { ms: *ms, voter_ms: *voter_ms })).collect()
    }

    #[test]
    fn voters_are_missed_sooner_than_others() {
        let some = heard(&[
            (1, 9_000, Some(499)),
            (2, 500, Some(500)),
            (3, 999, None),
            (4, 1_000, None),
            (5, 499, Some(9_000)),
        ]);
        assert_eq!(quiet(&some, 500), [2, 4].into(), "a heartbeat is a sign of life, too");
        let odd: Vec<i32> = some.iter().filter(|(_, heard)| heard.is_odd(500)).map(|(id, _)| *id).collect();
        assert_eq!(odd, [2, 4, 5]);
    }

    #[test]
    fn a_new_controller_begins_at_once_with_voters_that_keep_silent() {
        let some = heard(&[(1, 0, Some(u64::MAX)), (2, 0, Some(75)), (3, 0, None)]);
        let odd: Vec<i32> = some.iter().filter(|(_, heard)| heard.is_odd(500)).map(|(id, _)| *id).collect();
        assert_eq!(odd, [1]);
        assert_eq!(quiet(&some, 500), [].into(), "it fences nobody before it has waited itself");
    }

    #[test]
    fn a_controller_that_hears_few_fences_nobody() {
        let (hears, misses) = (Some(0), Some(900));
        assert!(most_are_heard(&heard(&[(1, 900, hears), (2, 900, misses)]), 500), "two of three");
        assert!(!most_are_heard(&heard(&[(1, 900, misses)]), 500), "of two, either may be cut off");
        assert!(!most_are_heard(&heard(&[(1, 900, misses), (2, 900, misses)]), 500));
        assert!(!most_are_heard(&heard(&[(1, 900, hears), (2, 900, misses), (3, 9_000, None)]), 500), "half of four");
    }
}
