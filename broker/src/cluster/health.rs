//! What an operator asks before it touches a broker: is this one whole, and would stopping that one hurt?

use axum::http::StatusCode;
use klamm_metadata::restart_safety::{Harm, restart_safety as at_risk};
use serde_json::{Value, json};

use super::lifecycle::Standing;
use crate::broker::Broker;
use crate::controller::active;

/// Without a leader of the quorum nobody fences the dead: what the metadata say may be long past.
const NO_LEADER: &str = "the metadata quorum has no leader that this broker hears";

/// Why a broker that has started does not carry its share: it is fenced, or some of its replicas are behind.
pub fn why_not_in_sync(broker: &Broker) -> Option<String> {
    let standing = *broker.lifecycle.standing().borrow();
    if standing != Standing::Active {
        return Some(match standing {
            Standing::Unregistered => "not registered with the controller".to_owned(),
            Standing::Leaving | Standing::Left => "stopping: others take over".to_owned(),
            Standing::Fenced | Standing::Active => "fenced by the controller".to_owned(),
        });
    }
    if broker.controller.leader_id().is_none() {
        return Some(NO_LEADER.to_owned());
    }
    let node_id = broker.config.node_id;
    let image = broker.controller.image();
    let mut behind = image.partitions_of(node_id).filter(|(_, _, partition)| partition.misses(node_id));
    let (topic, number, _) = behind.next()?;
    let more = behind.count();
    Some(match more {
        0 => format!("the replica of {}-{number} is not in sync", topic.name),
        _ => format!("the replicas of {}-{number} and {more} more partitions are not in sync", topic.name),
    })
}

/// Whether the others carry on when this broker stops: no partition suffers that could be spared it.
pub fn is_spared(broker: &Broker) -> bool {
    let id = broker.config.node_id;
    let image = broker.controller.image();
    if *broker.lifecycle.standing().borrow() != Standing::Active || broker.controller.leader_id().is_none() {
        return false;
    }
    let voters: Vec<i32> = broker.controller.quorum().metrics().voters.into_iter().map(|(id, _)| id).collect();
    at_risk(&image, id, &active::policy(broker)).iter().all(|risk| risk.always)
        && !ends_quorum(&voters, id, |voter| image.is_active(voter))
}

/// What stopping broker `id` would do to partitions, as this broker knows them.
///
/// # Errors
/// Nobody can tell: this broker does not take part, or the other is not known.
pub fn restart_safety(broker: &Broker, id: i32) -> Result<Value, (StatusCode, String)> {
    if *broker.lifecycle.standing().borrow() != Standing::Active {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "this broker does not know how the cluster stands".into()));
    }
    if broker.controller.leader_id().is_none() {
        return Err((StatusCode::SERVICE_UNAVAILABLE, NO_LEADER.to_owned()));
    }
    let image = broker.controller.image();
    if image.broker(id).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("broker {id} is not registered")));
    }
    let risks = at_risk(&image, id, &active::policy(broker));
    let list = |wanted: Harm| -> Vec<Value> {
        let of_kind = risks.iter().filter(|risk| risk.harm == wanted);
        of_kind
            .map(|risk| {
                json!({
                    "topic": &*risk.topic,
                    "partition": risk.partition,
                    "in_sync_after": risk.in_sync_after,
                    "min_isr": risk.min_isr,
                    "always": risk.always,
                })
            })
            .collect()
    };
    let voters: Vec<i32> = broker.controller.quorum().metrics().voters.into_iter().map(|(id, _)| id).collect();
    let ends_quorum = ends_quorum(&voters, id, |voter| image.is_active(voter));
    Ok(json!({
        "broker": id,
        "safe": risks.is_empty() && !ends_quorum,
        "ends_quorum": ends_quorum,
        "offline": list(Harm::Offline),
        "below_min_isr": list(Harm::BelowMinIsr),
        "metadata_offset": broker.controller.published_offset(),
    }))
}

/// Whether the metadata quorum would lose its majority with voter `id`, and would not with all other voters there: where
/// each voter is needed in any case, waiting helps nobody.
fn ends_quorum(voters: &[i32], id: i32, is_active: impl Fn(i32) -> bool) -> bool {
    let majority = voters.len() / 2 + 1;
    let left = voters.iter().filter(|voter| **voter != id && is_active(**voter)).count();
    voters.contains(&id) && left < majority && voters.len() > majority
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_may_go_while_a_majority_of_the_others_is_there() {
        let all = |_| true;
        assert!(!ends_quorum(&[0, 1, 2], 0, all));
        assert!(!ends_quorum(&[0, 1, 2], 9, |_| false), "no voter");
        assert!(ends_quorum(&[0, 1, 2], 0, |voter| voter != 1));
        assert!(!ends_quorum(&[0, 1, 2], 1, |voter| voter != 1), "it is gone already");
        assert!(!ends_quorum(&[0], 0, all), "one voter alone is needed in any case");
        assert!(!ends_quorum(&[0, 1], 0, all), "and so is each of two");
        assert!(!ends_quorum(&[0, 1, 2, 3, 4], 0, |voter| voter != 1));
        assert!(ends_quorum(&[0, 1, 2, 3, 4], 0, |voter| voter > 2));
    }
}
