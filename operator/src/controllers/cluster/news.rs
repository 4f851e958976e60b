//! What has changed in the conditions that people wait for, as Events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;

use crate::controllers::Context;
use crate::crd::cluster::{Cluster, ClusterStatus};
use crate::events::publish;

/// Tells it.
pub async fn tell(cluster: &Cluster, context: &Context, before: Option<&ClusterStatus>, status: &ClusterStatus) {
    let before = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
    for (type_, is) in all(before, &status.conditions) {
        let note = match is.message.as_str() {
            "" => format!("{} is {}", is.type_, is.status),
            message => format!("{} is {}: {message}", is.type_, is.status),
        };
        publish(context, cluster, type_, &is.reason, "Reconcile", note).await;
    }
}

/// The conditions that are worth an Event. What several of them say with one reason and in the same words is told once.
fn all<'a>(before: &[Condition], now: &'a [Condition]) -> Vec<(EventType, &'a Condition)> {
    let mut all: Vec<(EventType, &Condition)> = Vec::new();
    for is in now {
        let was = before.iter().find(|was| was.type_ == is.type_);
        let Some(type_) = kind(was, is) else { continue };
        let same = |told: &Condition| told.reason == is.reason && told.message == is.message && !is.message.is_empty();
        if !all.iter().any(|(_, told)| same(told)) {
            all.push((type_, is));
        }
    }
    all
}

/// Whether a condition is worth an Event, and which.
pub fn kind(was: Option<&Condition>, is: &Condition) -> Option<EventType> {
    let good = match is.type_.as_str() {
        "Ready" | "UpToDate" | "ConfigApplied" | "StorageReady" => "True",
        "Stalled" | "Warning" | "ScalingLimited" => "False",
        _ => return None,
    };
    match was.map(|was| was.status.as_str()) {
        Some(was) if was == is.status => None,
        _ if is.status == "Unknown" => None,
        // That a new Cluster is not ready is no news, and neither is that nothing is wrong with it.
        None | Some("Unknown") if is.status == good || is.type_ == "Ready" => None,
        _ if is.status == good => Some(EventType::Normal),
        // That brokers are restarted, come or go, or that volumes grow, is what somebody has asked for.
        _ if is.type_ == "UpToDate" || is.reason == "Growing" => Some(EventType::Normal),
        _ => Some(EventType::Warning),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::status::Conditions;

    fn told(before: &[Condition], now: &[Condition]) -> Vec<String> {
        all(before, now).iter().map(|(type_, is)| format!("{type_:?} {} {}", is.type_, is.reason)).collect()
    }

    #[test]
    fn what_two_conditions_say_in_the_same_words_is_told_once() {
        let conditions = |before: &[Condition]| Conditions::new(before, Some(1), Timestamp::UNIX_EPOCH);
        let mut first = conditions(&[]);
        first.ready("Serving", "all brokers take part");
        let first = first.finish();
        let mut second = conditions(&first);
        second.stalled("InvalidConfig", "node.id cannot be set");
        let second = second.finish();
        assert_eq!(told(&first, &second), ["Warning Ready InvalidConfig"]);
        assert!(told(&second, &second).is_empty());
        // Of a new Cluster nobody expects that it is ready: there it is the other one that tells.
        assert_eq!(told(&[], &second), ["Warning Stalled InvalidConfig"]);
        // Two things to say are two Events.
        let mut third = conditions(&first);
        third.stalled("InvalidConfig", "node.id cannot be set").set("StorageReady", false, "Refused", "no room");
        assert_eq!(told(&first, &third.finish()), ["Warning Ready InvalidConfig", "Warning StorageReady Refused"]);
    }
}
