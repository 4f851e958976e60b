//! Changes of the voters: one at a time, a new one only once it has caught up.
//!
//! A node is first written down as a learner and that is committed, so that a member that lags behind learns who
//! it is before it may have to obey it. Only then does it get a vote.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ClientWriteError, RaftError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::core::Core;
use crate::election;
use crate::error::QuorumError;
use crate::types::{HOST_BYTES_MAX, Membership, Voter};

/// Committing a change takes as long as a slow disk does.
const COMMIT_WAIT: Duration = Duration::from_secs(10);
/// A new voter must come near the end of the log within this time.
pub const CATCH_UP_WAIT: Duration = Duration::from_secs(60);
/// Room for the two entries of a change.
const CHANGE_BYTES: u64 = 16 << 10;
/// How near.
const NEAR: u64 = 16;

/// Which of the registered nodes should be voters: the lowest ids. An even number of seats helps nobody, but what
/// was asked for is given.
pub fn wanted_voters(registered: &BTreeSet<i32>, seats: usize) -> BTreeSet<i32> {
    registered.iter().copied().take(seats.max(1)).collect()
}

/// Makes a node a voter; nothing is done when it is one with this directory already. One that hasn't caught up
/// within `limit` is no member afterwards.
pub async fn add(core: &Arc<Core>, id: i32, voter: Voter, limit: Duration) -> Result<(), QuorumError> {
    if voter.host.len() > HOST_BYTES_MAX {
        return Err(QuorumError::Change(format!("a host name has at most {HOST_BYTES_MAX} bytes")));
    }
    let until = Instant::now() + limit.min(CATCH_UP_WAIT);
    let _changing = begin(core).await?;
    let members = core.members();
    let votes = members.voter_ids().any(|v| v == id);
    match members.get_node(&id) {
        Some(known) if known.directory_id != voter.directory_id && votes => {
            return Err(QuorumError::Change(format!("node {id} is a voter with another directory")));
        }
        Some(_) if votes => return Ok(()),
        Some(known) if *known != voter => change(core, ChangeMembers::RemoveNodes([id].into()), false).await?,
        _ => {}
    }
    promote(core, id, voter, until).await
}

/// Takes a node's vote away, or a node without one out of the membership. The directory must be the one it has
/// there.
pub async fn remove(core: &Arc<Core>, id: i32, directory_id: [u8; 16]) -> Result<(), QuorumError> {
    let changing = begin(core).await?;
    let members = core.members();
    let known = members.get_node(&id).ok_or_else(|| QuorumError::Change(format!("node {id} isn't a voter")))?;
    if known.directory_id != directory_id {
        return Err(QuorumError::Change(format!("node {id} is a voter with another directory")));
    }
    if members.voter_ids().eq([id]) {
        return Err(QuorumError::Change(format!("node {id} is the last voter")));
    }
    if id == core.id() {
        // A leader doesn't remove itself: the next one does, and nobody waits for an election.
        drop(changing);
        election::resign(core).await?;
        return Err(core.not_leader());
    }
    drop_member(core, &members, id).await
}

/// Writes down a member's new address.
pub async fn update(core: &Arc<Core>, id: i32, voter: Voter) -> Result<(), QuorumError> {
    let _changing = begin(core).await?;
    let members = core.members();
    let known = members.get_node(&id).ok_or_else(|| QuorumError::Change(format!("node {id} isn't a voter")))?;
    if *known == voter {
        return Ok(());
    }
    // The directory of a node that has always been alone means nothing to anybody else.
    if known.directory_id != voter.directory_id && !core.is_alone(&members) {
        return Err(QuorumError::Change(format!("node {id} is a voter with another directory")));
    }
    change(core, ChangeMembers::SetNodes([(id, voter)].into()), true).await
}

/// Replaces a voter by the same node with a new disk. Only for [`crate::join::asked`], which has made sure that
/// the voter with the old one is gone.
pub async fn replace(core: &Arc<Core>, id: i32, old: Voter, new: Voter) -> Result<(), QuorumError> {
    let _changing = begin(core).await?;
    let members = core.members();
    if members.get_node(&id) != Some(&old) {
        return Err(QuorumError::Change(format!("node {id} isn't the member it was")));
    }
    if id == core.id() || members.voter_ids().eq([id]) {
        return Err(QuorumError::Change(format!("node {id} can't be replaced by itself")));
    }
    tracing::warn!(node = id, "a voter of the metadata quorum comes with another disk: it joins as a new one");
    drop_member(core, &members, id).await?;
    promote(core, id, new, Instant::now() + CATCH_UP_WAIT).await
}

/// One step from the present voters towards `wanted`, an addition before a removal. Returns whether there is more
/// to do. A voter that is wanted with another directory is refused: nothing here tells a replaced disk from a second
/// node with a taken id.
pub async fn reseat(core: &Arc<Core>, wanted: &BTreeMap<i32, Voter>) -> Result<bool, QuorumError> {
    let members = core.members();
    let voters: BTreeMap<i32, Voter> =
        members.voter_ids().map(|id| (id, members.get_node(&id).cloned().unwrap_or_default())).collect();
    for (id, voter) in wanted {
        match voters.get(id) {
            None => return add(core, *id, voter.clone(), CATCH_UP_WAIT).await.map(|()| true),
            Some(known) if known.directory_id != voter.directory_id && *id != core.id() => {
                return Err(QuorumError::Change(format!("node {id} is a voter with another directory")));
            }
            Some(known) if known != voter => return update(core, *id, voter.clone()).await.map(|()| true),
            Some(_) => {}
        }
    }
    // This node last: it hands over first, and the next leader goes on.
    let surplus = voters.iter().filter(|(id, _)| !wanted.contains_key(id));
    let Some((id, voter)) = surplus.max_by_key(|(id, _)| (**id != core.id(), **id)) else { return Ok(false) };
    remove(core, *id, voter.directory_id).await.map(|()| true)
}

/// Waits for its turn; finishes a change that an earlier leader left half done.
async fn begin(core: &Arc<Core>) -> Result<tokio::sync::MutexGuard<'_, ()>, QuorumError> {
    let turn = timeout(COMMIT_WAIT, core.changing.lock()).await;
    let turn = turn.map_err(|_| QuorumError::Change("another change is under way".into()))?;
    if core.leads().is_none() {
        return Err(core.not_leader());
    }
    let members = core.members();
    if members.get_joint_config().len() > 1 {
        if !stays(&members, core.id()) {
            // This node leads a change that takes its own vote away: one that stays finishes it.
            drop(turn);
            election::resign(core).await?;
            return Err(core.not_leader());
        }
        change(core, ChangeMembers::AddVoterIds(BTreeSet::new()), false).await?;
    }
    Ok(turn)
}

/// Whether a node has a vote when the change that is under way is done.
pub fn stays(members: &Membership, id: i32) -> bool {
    members.get_joint_config().last().is_some_and(|config| config.contains(&id))
}

async fn drop_member(core: &Arc<Core>, members: &Membership, id: i32) -> Result<(), QuorumError> {
    if members.voter_ids().any(|v| v == id) {
        change(core, ChangeMembers::RemoveVoters([id].into()), false).await
    } else {
        change(core, ChangeMembers::RemoveNodes([id].into()), false).await
    }
}

async fn promote(core: &Arc<Core>, id: i32, voter: Voter, until: Instant) -> Result<(), QuorumError> {
    change(core, ChangeMembers::AddNodes([(id, voter)].into()), true).await?;
    if timeout_at(until, caught_up(core, id)).await.is_err() {
        change(core, ChangeMembers::RemoveNodes([id].into()), true).await?;
        return Err(QuorumError::Behind { id });
    }
    if core.leads().is_none() {
        return Err(core.not_leader());
    }
    change(core, ChangeMembers::AddVoterIds([id].into()), true).await
}

/// Returns as well when this node leads no longer.
async fn caught_up(core: &Arc<Core>, id: i32) {
    let mut metrics = core.raft.metrics();
    let near = metrics.wait_for(|m| {
        let at = m.replication.as_ref().and_then(|r| *r.get(&id)?);
        m.replication.is_none() || at.is_some_and(|at| at.index + NEAR >= m.last_log_index.unwrap_or(0))
    });
    // An error says that Raft has stopped, which the next change says too.
    let _ = near.await;
}

async fn change(core: &Arc<Core>, change: ChangeMembers<i32, Voter>, retain: bool) -> Result<(), QuorumError> {
    core.reserve(CHANGE_BYTES).await?;
    match within(core.raft.change_membership(change, retain)).await? {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(core.not_leader()),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(e))) => Err(QuorumError::Change(e.to_string())),
        Err(RaftError::Fatal(e)) => Err(core.stopped(e)),
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, QuorumError> {
    timeout(COMMIT_WAIT, work).await.map_err(|_| QuorumError::Undecided)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_ids_get_the_seats() {
        let cases: [(&[i32], usize, &[i32]); 6] = [
            (&[0, 1, 2, 3, 4], 3, &[0, 1, 2]),
            (&[7, 3, 9], 3, &[3, 7, 9]),
            (&[5], 3, &[5]),
            (&[], 3, &[]),
            (&[0, 1, 2, 3, 4, 5], 5, &[0, 1, 2, 3, 4]),
            (&[4, 2], 0, &[2]),
        ];
        for (registered, seats, wanted) in cases {
            let registered = registered.iter().copied().collect();
            assert_eq!(wanted_voters(&registered, seats), wanted.iter().copied().collect(), "{registered:?} {seats}");
        }
    }
}
