//! The brokers.

use serde_json::{Map, Value, json};

use super::checked::Checked;
use super::names::{
    CLUSTER_ID, DATA, DESCRIPTION_HASH, FOUNDERS, JOINING, LEAVING, MADE_FOR, RESTART, RESTARTED_FOR, TEMPLATE_HASH,
};
use super::{Facts, pod, properties};
use crate::crd::cluster::{ClaimRetention, StorageType};

/// The StatefulSet. Pods are replaced by the operator alone, and all begin at once: a quorum needs its majority.
pub fn build(checked: &Checked, facts: &Facts, replicas: i32) -> Value {
    let names = &checked.names;
    let mut template = pod::template(checked);
    let annotations = &mut template["metadata"]["annotations"];
    // A pod asks for its own restart by one and says what it was made after by the other: all new ones would.
    for own in [RESTART, RESTARTED_FOR] {
        annotations.as_object_mut().and_then(|all| all.remove(own));
    }
    annotations[TEMPLATE_HASH] = checked.template_hash().into();
    annotations[DESCRIPTION_HASH] = checked.description_hash().into();
    if let Some(wish) = &checked.restart {
        annotations[RESTARTED_FOR] = wish.as_str().into();
    }
    let storage = &checked.spec.storage;
    let when_deleted = if facts.outgrown { ClaimRetention::Retain } else { storage.when_deleted };
    let retention = |retention: ClaimRetention| match retention {
        ClaimRetention::Retain => "Retain",
        ClaimRetention::Delete => "Delete",
    };
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": names.meta(&names.cluster),
        "spec": {
            "replicas": replicas,
            "serviceName": names.headless(),
            "selector": { "matchLabels": names.selector() },
            "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "OnDelete" },
            "revisionHistoryLimit": 2,
            "persistentVolumeClaimRetentionPolicy": {
                "whenScaled": retention(storage.when_scaled), "whenDeleted": retention(when_deleted),
            },
            "template": template,
        },
    });
    set["metadata"]["annotations"] = notes(checked, facts).into();
    if storage.kind == StorageType::Persistent {
        let made_for = facts.made_for.as_ref().or_else(|| facts.claims.is_none().then_some(&storage.size));
        if let Some(size) = made_for {
            set["metadata"]["annotations"][MADE_FOR] = size.as_str().into();
        }
        // Templates of claims never change, whatever is described now or rendered by another version. When claims have
        // grown, the StatefulSet is made anew.
        set["spec"]["volumeClaimTemplates"] = facts.claims.clone().unwrap_or_else(|| json!([claim(checked, facts)]));
    }
    set
}

/// What is noted about the number of brokers.
pub fn notes(checked: &Checked, facts: &Facts) -> Map<String, Value> {
    let mut notes = Map::new();
    notes.insert(FOUNDERS.into(), checked.founders(facts).to_string().into());
    if let Some(id) = facts.begun.leaving {
        notes.insert(LEAVING.into(), id.to_string().into());
    }
    if !facts.begun.joining.is_empty() {
        let ids: Vec<_> = facts.begun.joining.iter().map(i32::to_string).collect();
        notes.insert(JOINING.into(), ids.join(",").into());
    }
    notes
}

/// The template of the brokers' volume claims.
fn claim(checked: &Checked, facts: &Facts) -> Value {
    let storage = &checked.spec.storage;
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "resources": { "requests": { "storage": storage.size } },
    });
    if let Some(class) = &storage.storage_class_name {
        spec["storageClassName"] = class.as_str().into();
    }
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": DATA, "labels": checked.names.labels(),
            "annotations": { CLUSTER_ID: properties::cluster_id(checked, facts) },
        },
        "spec": spec,
    })
}
