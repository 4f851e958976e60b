//! Notices at once that a broker's process has ended.
//!
//! A session timeout has to be long, or a pause would fence a broker that lives. But a process that ends
//! takes its connections with it, and its port refuses new ones. So when a connection over which a broker
//! reached the controller breaks, the controller knocks at the broker's own listener: refused time and
//! again means that nobody is there. Silence means nothing and is left to the session timeout. An open door
//! means little at first: the kernel closes what a process had one by one, the listener perhaps last, so
//! the controller comes back a few times.

use std::io;
use std::time::Duration;

use klamm_metadata::Image;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// So many refusals in a row are believed.
const KNOCKS: u32 = 3;
/// Time between two knocks.
const BETWEEN: Duration = Duration::from_millis(20);
/// Pauses before the next visit to a door that was open.
const VISITS: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(1_000)];
/// How long one knock waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Suspicions that wait to be looked into; more say nothing new.
const QUEUE: usize = 256;

/// Brokers whose connection broke, for the controller to look into.
#[derive(Debug)]
pub struct Suspects {
    sender: mpsc::Sender<i32>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<i32>>,
}

impl Default for Suspects {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: tokio::sync::Mutex::new(receiver) }
    }
}

impl Suspects {
    /// The connection of broker `id` broke.
    pub fn report(&self, id: i32) {
        // When the queue is full the session timeout will do.
        let _ = self.sender.try_send(id);
    }

    /// The next broker to look into.
    pub async fn next(&self) -> i32 {
        match self.receiver.lock().await.recv().await {
            Some(id) => id,
            // Cannot be: the sender lives as long.
            None => std::future::pending().await,
        }
    }
}

/// Whether the process of broker `id` has ended for certain. False when it has not, or nobody can tell.
pub async fn has_ended(image: &Image, id: i32, inter_broker_listener: &str) -> bool {
    let endpoint = image.broker(id).and_then(|b| b.endpoints.iter().find(|e| e.name == inter_broker_listener));
    let Some(endpoint) = endpoint else { return false };
    let mut pauses = VISITS.iter();
    loop {
        match visit(&endpoint.host, endpoint.port).await {
            Door::Gone => return true,
            Door::Silent => return false,
            Door::Open => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return false,
            },
        }
    }
}

/// What a visit finds.
enum Door {
    /// Somebody, or the kernel for a process that stands still or is about to be gone, lets one in.
    Open,
    /// Refused, each time.
    Gone,
    /// No answer, or another one.
    Silent,
}

async fn visit(host: &str, port: u16) -> Door {
    for knock in 0..KNOCKS {
        if knock > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        match tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => return Door::Open,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) | Err(_) => return Door::Silent,
        }
    }
    Door::Gone
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::RegisterBrokerRecord;
    use klamm_protocol::messages::register_broker_record::BrokerEndpoint;
    use tokio::net::TcpListener;

    use super::*;

    fn image(port: u16) -> Image {
        let mut image = Image::new("c");
        let end_points =
            vec![BrokerEndpoint { name: "IN".into(), host: "127.0.0.1".into(), port, ..Default::default() }];
        let record = RegisterBrokerRecord { broker_id: 1, end_points, ..Default::default() };
        image.apply(&record.into()).expect("registered");
        image
    }

    #[tokio::test]
    async fn only_a_refusing_port_proves_that_a_process_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let image = image(port);
        // Nobody accepts, as when the process is stopped: the kernel still connects.
        assert!(!has_ended(&image, 1, "IN").await);
        // The door closes a moment after the first visit.
        let closing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(listener);
        };
        let (ended, ()) = tokio::join!(has_ended(&image, 1, "IN"), closing);
        assert!(ended);
        assert!(!has_ended(&image, 1, "OTHER").await);
        assert!(!has_ended(&image, 2, "IN").await);
    }
}
