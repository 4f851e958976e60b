//! The template of the brokers' pods: what the strictest pod security takes, and what the Cluster lays over it.

use serde_json::{Value, json};

use super::checked::Checked;
use super::names::{CONTAINER, DATA};
use super::overlay;
use crate::crd::cluster::{ADMIN_PORT, INTERNAL_PORT, ListenerType, StorageType};

/// The variable with the address of the node.
pub const NODE_IP: &str = "NODE_IP";
/// The variable with the rack.
pub const RACK: &str = "RACK";
/// Where the volume is.
pub const DATA_DIR: &str = "/var/lib/klamm";
/// Where the certificates of the brokers' own listener are.
pub const TLS_DIR: &str = "/etc/klamm/tls";
const CONFIG_DIR: &str = "/etc/klamm/config";
/// Who runs in a pod: nobody in particular.
const USER: i64 = 65532;

/// Where a listener's certificates are.
pub fn listener_dir(listener: &str) -> String {
    format!("/etc/klamm/listener-{listener}")
}

/// The template, without the hash of itself.
pub fn template(checked: &Checked) -> Value {
    let template = checked.spec.pod_template.clone().unwrap_or_default();
    let mut labels: serde_json::Map<String, Value> = template.labels.into_iter().map(|(k, v)| (k, v.into())).collect();
    labels.extend(checked.names.labels());
    if let Some(version) = &checked.version {
        labels.insert("app.kubernetes.io/version".into(), version.as_str().into());
    }
    let mut annotations: serde_json::Map<String, Value> =
        template.annotations.into_iter().map(|(k, v)| (k, v.into())).collect();
    annotations.insert("kubectl.kubernetes.io/default-container".into(), CONTAINER.into());
    let mut spec = spec(checked);
    overlay::lay(&mut spec, &Value::Object(template.spec));
    json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec })
}

fn spec(checked: &Checked) -> Value {
    let names = &checked.names;
    let mut volumes = vec![
        json!({ "name": "config", "configMap": { "name": names.config() } }),
        json!({ "name": "tls", "secret": { "secretName": names.certificates(), "defaultMode": 0o440 } }),
        // Nothing is written there; what would, gets little.
        json!({ "name": "tmp", "emptyDir": { "sizeLimit": "16Mi" } }),
    ];
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let read = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let mut mounts =
        vec![mount(DATA, DATA_DIR), mount("tmp", "/tmp"), read("config", CONFIG_DIR), read("tls", TLS_DIR)];
    if checked.spec.storage.kind == StorageType::Ephemeral {
        volumes.push(json!({ "name": DATA, "emptyDir": { "sizeLimit": checked.spec.storage.size } }));
    }
    let mut ports = vec![
        json!({ "name": "replication", "containerPort": INTERNAL_PORT, "protocol": "TCP" }),
        json!({ "name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP" }),
    ];
    for listener in &checked.spec.listeners {
        ports.push(json!({ "name": listener.name, "containerPort": listener.port, "protocol": "TCP" }));
        if let Some(tls) = &listener.tls {
            let volume = format!("listener-{}", listener.name);
            volumes.push(json!({ "name": volume, "secret": { "secretName": tls.secret_name, "defaultMode": 0o440 } }));
            mounts.push(read(&volume, &listener_dir(&listener.name)));
        }
    }
    let resources = match &checked.spec.resources {
        Some(resources) => serde_json::to_value(resources).unwrap_or_default(),
        None => json!({ "requests": { "cpu": "100m", "memory": "256Mi" } }),
    };
    json!({
        "serviceAccountName": names.cluster,
        "automountServiceAccountToken": false,
        // Else a Service called klamm becomes a setting of the broker.
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            // A large volume is not walked at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "topologySpreadConstraints": spread(checked),
        "containers": [{
            "name": CONTAINER,
            "image": checked.image,
            "args": ["broker", "--config", format!("{CONFIG_DIR}/$(POD_NAME).properties")],
            "env": environment(checked),
            "ports": ports,
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": mounts,
            "startupProbe": probe("/livez", 1, 120),
            // It answers through a long recovery; restarting would only begin it anew.
            "livenessProbe": probe("/livez", 10, 6),
            "readinessProbe": probe("/readyz", 2, 2),
            // What a broker complains of when it refuses to start gets into the pod's status, and from there into the
            // Cluster's.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }],
        "volumes": volumes,
    })
}

fn probe(path: &str, period: i32, failures: i32) -> Value {
    json!({
        "httpGet": { "path": path, "port": "admin", "scheme": "HTTP" },
        "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

fn environment(checked: &Checked) -> Vec<Value> {
    let from = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } });
    let mut all = vec![from("POD_NAME", "metadata.name")];
    if checked.listeners_of(ListenerType::Nodeport).any(|listener| listener.advertised_host.is_none()) {
        all.push(from(NODE_IP, "status.hostIP"));
    }
    if let Some(rack) = &checked.spec.rack {
        all.push(from(RACK, &format!("metadata.labels['{}']", rack.topology_key)));
    }
    all
}

/// Over racks strictly, if there are some, and over nodes as far as it goes.
fn spread(checked: &Checked) -> Vec<Value> {
    let over = |key: &str, unless: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": unless,
            "labelSelector": { "matchLabels": checked.names.selector() },
            // A rack where nothing may run is none.
            "nodeTaintsPolicy": "Honor",
        })
    };
    let rack = checked.spec.rack.as_ref().map(|rack| over(&rack.topology_key, "DoNotSchedule"));
    let nodes = over("kubernetes.io/hostname", "ScheduleAnyway");
    let same = checked.spec.rack.as_ref().is_some_and(|rack| rack.topology_key == "kubernetes.io/hostname");
    rack.into_iter().chain((!same).then_some(nodes)).collect()
}
