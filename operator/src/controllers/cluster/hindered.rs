//! Why brokers that are waited for do not come, for `status.operation.blockedBy`: what their containers, the kubelet, the
//! scheduler, the StatefulSet's controller and their claims say. What is said of many is said once.

use std::collections::BTreeMap;

use super::observed::Observed;
use crate::crd::cluster::BrokerState;
use crate::ids;
use crate::render::names::Names;

/// So many different reasons are told.
const TOLD: usize = 3;

/// Why these do not come; nothing of those that are on their way.
pub fn hindered(observed: &Observed, names: &Names, brokers: impl IntoIterator<Item = i32>) -> Option<String> {
    let mut reasons: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for id in brokers {
        if let Some(why) = why(observed, names, id) {
            reasons.entry(why).or_default().push(id);
        }
    }
    let mut all: Vec<_> = reasons.into_iter().collect();
    all.sort_by_key(|(_, ids)| ids.first().copied());
    let told = all.iter().take(TOLD).map(|(why, ids)| format!("{}: {why}", ids::brokers(ids)));
    let told = told.collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(TOLD) {
        _ if all.is_empty() => None,
        0 => Some(told),
        more => Some(format!("{told}; and {more} more")),
    }
}

fn why(observed: &Observed, names: &Names, id: i32) -> Option<String> {
    let seen = observed.seen(names, id);
    if seen.state == BrokerState::Running {
        return None;
    }
    // No node is chosen for a pod before its claim has a volume, or can have one.
    let claim = observed.claims.get(&id).filter(|_| seen.exists && seen.state == BrokerState::Pending);
    let phase = claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref()).filter(|phase| *phase != "Bound");
    let class = claim.and_then(|claim| claim.spec.as_ref()?.storage_class_name.as_deref());
    let unbound = phase.map(|phase| match class {
        Some(class) => format!("the volume claim is {phase} (storage class {class})"),
        None => format!("the volume claim is {phase}"),
    });
    seen.why.or(unbound)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn names() -> Names {
        Names { cluster: "prod".into(), namespace: "x".into(), domain: "cluster.local".into() }
    }

    fn put(observed: &mut Observed, id: i32, status: Value, claim: &str) {
        let pod = json!({ "metadata": { "name": format!("prod-{id}") }, "status": status });
        observed.pods.insert(id, serde_json::from_value(pod).unwrap());
        let claim = json!({
            "metadata": { "name": format!("data-prod-{id}") }, "spec": { "storageClassName": "fast" },
            "status": { "phase": claim },
        });
        observed.claims.insert(id, serde_json::from_value(claim).unwrap());
    }

    #[test]
    fn what_is_said_of_many_is_said_once() {
        let mut observed = Observed::default();
        let ready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        let refused =
            json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room" });
        let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
        let container = json!({ "name": "broker", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting });
        put(&mut observed, 0, ready, "Bound");
        put(&mut observed, 1, json!({ "phase": "Pending", "containerStatuses": [container] }), "Bound");
        for id in 3..20 {
            put(&mut observed, id, json!({ "phase": "Pending", "conditions": [refused] }), "Bound");
        }
        put(&mut observed, 20, json!({ "phase": "Pending" }), "Pending");
        // Nothing is wrong with 21, which starts, and 22, of which nobody has said anything.
        put(&mut observed, 21, json!({ "phase": "Running" }), "Bound");
        let said = hindered(&observed, &names(), 0..23).unwrap();
        let expected = "broker 1: ImagePullBackOff: no such image; brokers 3-19: Unschedulable: no room; \
                        broker 20: the volume claim is Pending (storage class fast)";
        assert_eq!(said, expected);
        assert_eq!(hindered(&observed, &names(), [0, 2, 21, 22]), None);
    }

    #[test]
    fn many_reasons_are_not_all_told() {
        let mut observed = Observed::default();
        for id in 0..7 {
            let message = format!("no room for {id}");
            let refused =
                json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
            put(&mut observed, id, json!({ "phase": "Pending", "conditions": [refused] }), "Bound");
        }
        let said = hindered(&observed, &names(), 0..7).unwrap();
        assert!(said.ends_with("broker 2: Unschedulable: no room for 2; and 4 more"), "{said}");
    }
}
