//! What an autoscaler asks about pods, told by an API of a test's own: TLS, one request a connection, JSON, and a registration
//! at the API server, which passes on what it is asked of that group.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use klamm_tests::{Tool, ports::free_port};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{Namespace, address};
use crate::stage::OnDrop;

/// A group of the API, its version, and the one resource that it has.
#[derive(Clone, Copy)]
pub struct Group {
    pub name: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub kind: &'static str,
}

impl Group {
    pub fn full(self) -> String {
        format!("{}/{}", self.name, self.version)
    }

    fn registered(self) -> String {
        format!("{}.{}", self.version, self.name)
    }

    fn discovery(self) -> Value {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": self.full(),
            "resources": [{
                "name": self.resource, "singularName": "", "namespaced": true, "kind": self.kind, "verbs": ["get", "list"],
            }],
        })
    }
}

/// What is asked: the path below the group's version, and the selector of labels.
pub struct Asked<'a> {
    pub path: &'a str,
    pub selector: String,
}

/// Has `answer` answer for the group, until what is returned is dropped. `None` is for what is not there.
#[track_caller]
pub fn provide(
    space: &Namespace,
    group: Group,
    answer: impl Fn(&Asked<'_>) -> Option<Value> + Send + Sync + 'static,
) -> OnDrop<Box<dyn FnMut()>> {
    let port = serve(move |url| {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let path = decoded(path);
        let path = path.strip_prefix(&format!("/apis/{}", group.full()))?;
        if path.is_empty() {
            return Some(group.discovery());
        }
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
        answer(&Asked { path, selector: decoded(&selector.replace('+', " ")) })
    });
    register(space.name(), group, port);
    // Whoever lists what the API server serves would stumble over what is not there any more.
    OnDrop(Box::new(move || {
        kubectl(["delete", "apiservice", &group.registered(), "--ignore-not-found"]).run();
    }))
}

/// Now, as Kubernetes writes it.
pub fn now() -> String {
    Tool::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]).ok().out.trim().to_owned()
}

/// Text without `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend([b"%", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Answers GETs by their URL until the program ends; the port.
fn serve(answer: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![address(0)]).expect("parameters");
    let certificate = params.self_signed(&key).expect("signed").der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let config = Arc::new(config.expect("a configuration"));
    let port = free_port();
    let listener = TcpListener::bind((address(0), port)).expect("a port");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
            std::thread::spawn(move || carry(stream, config, &*answer));
        }
    });
    port
}

fn carry(stream: TcpStream, config: Arc<rustls::ServerConfig>, answer: &impl Fn(&str) -> Option<Value>) {
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
    let url = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match answer(url) {
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
}

/// Tells the API server where the group is.
fn register(space: &str, group: Group, port: u16) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "metrics", "namespace": space },
        "spec": { "type": "ExternalName", "externalName": address(0) },
    });
    let name = group.registered();
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": name },
        "spec": {
            "group": group.name, "version": group.version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": { "name": "metrics", "namespace": space, "port": port },
        },
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [service, api] });
    kubectl(["apply", "-f", "-"]).stdin(list.to_string()).ok();
    kubectl(["wait", "--for=condition=Available", "--timeout=60s", &format!("apiservice/{name}")]).limit(70).ok();
}

#[test]
fn urls_are_read() {
    assert_eq!(decoded("/a/%2A/b%"), "/a/*/b%");
    assert_eq!(decoded("a%3Db%2C%21c"), "a=b,!c");
}
