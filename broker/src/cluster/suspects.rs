//! Notices at once that a broker's process has ended, and soon that its host is cut off.
//!
//! A session timeout has to be long, or a pause would fence a broker that lives. But a process that ends
//! takes its connections with it, and its port refuses new ones. So when a connection over which a broker
//! reached the controller breaks, the controller knocks at the broker's own listener: refused time and
//! again means that nobody is there. An open door
//! means little at first: the kernel closes what a process had one by one, the listener perhaps last, so
//! the controller comes back a few times.
//!
//! Silence is another matter: whoever is slow, or stands still, has a kernel that answers for it. A host that answers
//! nothing for some time, not even by a refusal, is gone or cut off, and with it whatever runs there; a packet or two
//! that got lost are no proof, so that there are many knocks. What is silent for everybody may be the controller's own
//! network: that is for the caller to judge.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So many refusals in a row are believed.
const KNOCKS: u32 = 3;
/// Time between two knocks.
const BETWEEN: Duration = Duration::from_millis(20);
/// Pauses before the next visit to a door that was open.
const VISITS: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(1_000)];
/// How long one knock waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many knocks without an answer make a host silent: even where every third packet is lost each way, one of them is
/// answered but once in a few hundred times.
const SILENT_KNOCKS: u32 = 10;
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

/// Whether the process of the broker at these addresses has ended for certain. False when it has not, or nobody can tell, as
/// where there is no address.
pub async fn has_ended(addresses: &[SocketAddr]) -> bool {
    let mut pauses = VISITS.iter();
    loop {
        match visit(addresses).await {
            Door::Gone => return true,
            Door::Silent => return false,
            Door::Open => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return false,
            },
        }
    }
}

/// Whether the host at these addresses answers nothing at all for this long. False when it cannot be told, as where there is no
/// address.
pub async fn is_silent(addresses: &[SocketAddr], patience: Duration) -> bool {
    if addresses.is_empty() {
        return false;
    }
    let until = Instant::now() + patience;
    let mut knocks = JoinSet::new();
    for nth in 0..SILENT_KNOCKS {
        // The last ones are given time to be answered.
        let at = until - patience + patience * nth / (SILENT_KNOCKS + 2);
        let address = addresses[nth as usize % addresses.len()];
        knocks.spawn(async move {
            tokio::time::sleep_until(at).await;
            // What has come meanwhile counts, however late it is looked at.
            match tokio::time::timeout_at(until, TcpStream::connect(address)).await {
                Err(_) => true,
                Ok(Err(error)) => says_nothing(error.kind()),
                Ok(Ok(_)) => false,
            }
        });
    }
    let mut silent = 0;
    while let Some(Ok(nothing)) = knocks.join_next().await {
        if !nothing {
            return false;
        }
        silent += 1;
    }
    silent == SILENT_KNOCKS
}

/// Whether a failure to connect is none of the host's own doing, nor of a lack of something here.
fn says_nothing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
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

async fn visit(addresses: &[SocketAddr]) -> Door {
    for knock in 0..KNOCKS {
        if knock > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        match tokio::time::timeout(PATIENCE, TcpStream::connect(addresses)).await {
            Ok(Ok(_)) => return Door::Open,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) | Err(_) => return Door::Silent,
        }
    }
    Door::Gone
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_a_refusing_port_proves_that_a_process_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let door = [listener.local_addr().expect("an address")];
        // Nobody accepts, as when the process is stopped: the kernel still connects.
        assert!(!has_ended(&door).await);
        // The door closes a moment after the first visit.
        let closing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(listener);
        };
        let (ended, ()) = tokio::join!(has_ended(&door), closing);
        assert!(ended);
        assert!(!has_ended(&[]).await, "nobody can tell");
    }

    #[tokio::test]
    async fn who_answers_in_any_way_is_not_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let door = [listener.local_addr().expect("an address")];
        let patience = Duration::from_millis(200);
        assert!(!is_silent(&door, patience).await, "the kernel answers for who stands still");
        drop(listener);
        assert!(!is_silent(&door, patience).await, "a refusal is an answer");
        assert!(!is_silent(&[], patience).await, "nobody can tell");
        assert!(!says_nothing(io::ErrorKind::ConnectionRefused) && !says_nothing(io::ErrorKind::Other));
    }
}
