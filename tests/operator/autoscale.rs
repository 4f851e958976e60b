//! A HorizontalPodAutoscaler, as the chart makes it, decides by the processors of the brokers: out when they are busy, in
//! when they are not, and a broker that is new or leaves does not mislead it.
//!
//! What the pods use is told by an API of this test's own, where `metrics.k8s.io` is expected.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use klamm_tests::{Tool, ports::free_port, wait_for};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use crate::clusters::World;
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{address, with_nodes};
use crate::load::OnDrop;
use crate::pages::{commands, shell};
use crate::scaling::settled;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// What a broker asks for, and what of it the autoscaler aims at, in thousandths of a processor.
const ASKED: i64 = 50;
const AIM: i64 = 30;

/// What pods of one namespace use, in thousandths of a processor.
type Used = Arc<Mutex<BTreeMap<String, i64>>>;

/// The answer to a GET of `path`.
fn answer(path: &str, space: &str, used: &Used) -> Option<Value> {
    let base = format!("/apis/{GROUP}/{VERSION}");
    let path = path.split('?').next().unwrap_or_default();
    if path == base {
        return Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
            "resources": [{ "name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"] }],
        }));
    }
    if path != format!("{base}/namespaces/{space}/pods") {
        return None;
    }
    let used = used.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Tool::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).ok().out;
    let now = now.trim();
    let items: Vec<Value> = used
        .iter()
        .map(|(pod, used)| {
            json!({
                "metadata": { "name": pod, "namespace": space }, "timestamp": now, "window": "1s",
                "containers": [{ "name": "broker", "usage": { "cpu": format!("{used}m"), "memory": "64Mi" } }],
            })
        })
        .collect();
    Some(
        json!({ "kind": "PodMetricsList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items }),
    )
}

/// Answers until the program ends; the port.
fn serve(space: String, used: Used) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![address(0)]).expect("parameters");
    let certificate = params.self_signed(&key).expect("signed").der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let config = Arc::new(config.expect("a configuration"));
    let port = free_port();
    let listener = TcpListener::bind((address(0), port)).expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, space, used) = (Arc::clone(&config), space.clone(), Arc::clone(&used));
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let connection = rustls::ServerConnection::new(config).expect("a connection");
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&head);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match answer(path, &space, &used) {
                    Some(body) => ("200 OK", body.to_string()),
                    None => ("404 Not Found", "{}".to_owned()),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            });
        }
    });
    port
}

/// Tells the API server where these metrics are.
fn register(space: &str, port: u16) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "metrics", "namespace": space },
        "spec": { "type": "ExternalName", "externalName": address(0) },
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": format!("{VERSION}.{GROUP}") },
        "spec": {
            "group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": { "name": "metrics", "namespace": space, "port": port },
        },
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [service, api] });
    kubectl(["apply", "-f", "-"]).stdin(list.to_string()).ok();
    let wait = ["wait", "--for=condition=Available", "--timeout=60s", &format!("apiservice/{VERSION}.{GROUP}")];
    kubectl(wait).limit(70).ok();
}

fn description() -> Value {
    json!({
        "replicas": 3, "storage": { "type": "Ephemeral", "size": "1Gi" },
        "resources": { "requests": { "cpu": format!("{ASKED}m"), "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2 },
        // One after the other, so that leaving takes a while.
        "rebalance": { "maxConcurrentMoves": 1 },
        "listeners": [{ "name": "plain", "port": 9092, "type": "nodeport" }],
    })
}

#[test]
fn an_autoscaler_sets_how_many_brokers_there_are() {
    with_nodes("autoscale::an_autoscaler_sets_how_many_brokers_there_are", || {
        let world = World::new("busy");
        world.create("busy", description());
        let bootstrap = world.bootstrap("busy", "plain");
        klamm_tests::eventually("the port is open", 60, || {
            (world.klamm(&bootstrap, &["topics", "create", "t", "--partitions", "8"]).run().code == 0).then_some(())
        });
        let space = &world.space;
        let used = Used::default();
        let port = serve(space.name().to_owned(), Arc::clone(&used));
        // Whoever lists what the API server serves would stumble over what is not there any more.
        let _end = OnDrop(|| {
            kubectl(["delete", "apiservice", &format!("{VERSION}.{GROUP}"), "--ignore-not-found"]).run();
        });
        register(space.name(), port);
        let busy = |pods: &[(i32, i64)]| {
            let all = pods.iter().map(|(id, used)| (format!("busy-{id}"), *used)).collect();
            *used.lock().unwrap_or_else(PoisonError::into_inner) = all;
        };
        busy(&[(0, AIM), (1, AIM), (2, AIM)]);

        // As the page says, but for the chart's patience and the aim.
        let [line] = commands("docs/clusters.md", "Autoscaling").try_into().expect("one command");
        let aim = format!("\"averageUtilization\":{}", 100 * AIM / ASKED);
        let hasty = "--set autoscaling.scaleUpPeriodSeconds=1,autoscaling.scaleDownPeriodSeconds=1";
        let made = shell(&format!(
            "{} {hasty}",
            line.replace("prod", "busy").replace("streaming", space.name()).replace("\"averageUtilization\":60", &aim)
        ))
        .ok();
        let autoscaler = made.out.split("\n---\n").find(|part| part.contains("kind: HorizontalPodAutoscaler"));
        let autoscaler = autoscaler.expect("an autoscaler").to_owned();
        space.kubectl(["apply", "-f", "-"]).stdin(autoscaler).ok();
        let asked = || space.get("cluster", "busy").and_then(|cluster| cluster["spec"]["replicas"].as_i64());
        let until = |count: i64| {
            let mut seen = Value::Null;
            let found = wait_for(Duration::from_secs(120), || {
                seen = space.get("horizontalpodautoscaler", "busy")?["status"].clone();
                std::thread::sleep(Duration::from_millis(200));
                (asked() == Some(count)).then_some(())
            });
            assert!(found.is_some(), "{count} brokers are not asked for: {seen:#}");
        };
        // It reads what the Cluster tells, and is content.
        space.until("horizontalpodautoscaler", "busy", 120, |autoscaler| {
            let now = &autoscaler["status"]["currentMetrics"][0]["resource"]["current"]["averageValue"];
            (*now == format!("{AIM}m")).then_some(())
        });
        assert_eq!(asked(), Some(3));

        // Half of one's work too much for three. The fourth has nothing to do before it has its share.
        let since = Instant::now();
        busy(&[(0, 36), (1, 36), (2, 36), (3, 0)]);
        until(4);
        settled(space, "busy", 4);
        println!("figures autoscaler: 3 to 4 after {:.1} s", since.elapsed().as_secs_f64());
        busy(&[(0, 27), (1, 27), (2, 27), (3, 27)]);

        // Less to do; who leaves is busy with just that, as all four together would be with much more.
        let since = Instant::now();
        busy(&[(0, 20), (1, 20), (2, 20), (3, 15)]);
        until(3);
        space.until("pod", "busy-3", 60, |pod| pod["metadata"]["labels"].get("klamm.dev/draining").map(|_| ()));
        busy(&[(0, 25), (1, 25), (2, 25), (3, 100)]);
        let mut most = 0;
        let gone = wait_for(Duration::from_secs(300), || {
            most = most.max(asked()?);
            std::thread::sleep(Duration::from_millis(100));
            (space.get("cluster", "busy")?["status"]["replicas"] == 3).then_some(())
        });
        let told = space.kubectl(["describe", "horizontalpodautoscaler", "busy"]).run();
        assert!(gone.is_some() && most == 3, "{most} were asked for meanwhile\n{told}");
        settled(space, "busy", 3);
        println!("figures autoscaler: 4 to 3 after {:.1} s", since.elapsed().as_secs_f64());
    });
}
