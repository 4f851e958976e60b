//! Whether a broker may be stopped: asked of a broker over its admin port, `GET /v1/brokers/{id}/restart-safety`.
//!
//! Whoever does not answer, or does not know, has not said yes.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Bound on a whole question.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const LARGEST: usize = 8 << 20;
/// How many partitions are named.
const NAMED: usize = 3;

/// What a broker answers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    /// Whether nothing at all would suffer.
    pub safe: bool,
    #[serde(default)]
    ends_quorum: bool,
    #[serde(default)]
    offline: Vec<AtRisk>,
    #[serde(default)]
    below_min_isr: Vec<AtRisk>,
}

/// A partition that would suffer.
#[derive(Clone, Debug, Deserialize)]
struct AtRisk {
    topic: String,
    partition: i32,
    in_sync_after: usize,
    min_isr: usize,
    /// Whether it would at any time: waiting does not help.
    #[serde(default)]
    always: bool,
}

impl Answer {
    /// Why the broker should not be stopped now, though it may be later.
    pub fn blocked(&self) -> Option<String> {
        if self.ends_quorum {
            return Some("the metadata quorum would lose its majority".into());
        }
        let late = |all: &[AtRisk]| -> Vec<String> { all.iter().filter(|p| !p.always).map(AtRisk::text).collect() };
        let (offline, below) = (late(&self.offline), late(&self.below_min_isr));
        let (what, all) = match (offline.is_empty(), below.is_empty()) {
            (false, _) => ("would have no leader", offline),
            (true, false) => ("would be below min.insync.replicas", below),
            // An answer that says no and does not say why is a no.
            (true, true) => return (!self.safe && self.hurt() == 0).then(|| "the brokers say so".into()),
        };
        Some(format!("{} {what}", named(&all)))
    }

    /// Partitions that have no other replica in sync, and never will have: where a broker's disk goes with its pod, so do
    /// their records.
    pub fn only_here(&self) -> Option<String> {
        let all: Vec<String> = self.offline.iter().filter(|p| p.always).map(AtRisk::text).collect();
        (!all.is_empty()).then(|| named(&all))
    }

    /// How many partitions suffer whenever the broker is stopped.
    pub fn hurt(&self) -> usize {
        self.offline.iter().chain(&self.below_min_isr).filter(|partition| partition.always).count()
    }

    /// The same in words.
    pub fn hurt_text(&self) -> Option<String> {
        let all: Vec<String> =
            self.offline.iter().chain(&self.below_min_isr).filter(|p| p.always).map(AtRisk::text).collect();
        (!all.is_empty()).then(|| {
            format!("{} cannot be written to while their broker restarts: they have too few replicas", named(&all))
        })
    }
}

impl AtRisk {
    fn text(&self) -> String {
        format!(
            "{}-{} ({} in sync without it, {} needed)",
            self.topic, self.partition, self.in_sync_after, self.min_isr
        )
    }
}

fn named(all: &[String]) -> String {
    let shown = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Asks the broker whose admin port is at `address` about broker `id`.
///
/// # Errors
/// Why there is no answer.
pub async fn ask(address: &str, id: i32) -> Result<Answer, String> {
    let path = format!("/v1/brokers/{id}/restart-safety");
    let body = match tokio::time::timeout(PATIENCE, get(address, &path)).await {
        Ok(answer) => answer.map_err(|error| format!("{address} cannot be asked: {error}"))?,
        Err(_) => return Err(format!("{address} did not answer within {} s", PATIENCE.as_secs())),
    };
    serde_json::from_slice(&body).map_err(|error| format!("{address} gave an answer that makes no sense: {error}"))
}

async fn get(address: &str, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path).header("host", address).body(Empty::<Bytes>::new())?;
    let answer = pin!(async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|e| anyhow::anyhow!(e))?;
        let body = body.to_bytes();
        anyhow::ensure!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&body[..body.len().min(200)]).trim()
        );
        Ok(body)
    });
    // A connection that ends may have brought the answer before.
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn answer(value: serde_json::Value) -> Answer {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_waiting_does_not_help_holds_up_nothing() {
        let at =
            |always: bool| json!({ "topic": "t", "partition": 1, "in_sync_after": 1, "min_isr": 2, "always": always });
        assert_eq!(answer(json!({ "safe": true })).blocked(), None);
        let later = answer(json!({ "safe": false, "below_min_isr": [at(false), at(true)] }));
        assert_eq!(later.blocked().unwrap(), "t-1 (1 in sync without it, 2 needed) would be below min.insync.replicas");
        assert_eq!(later.hurt(), 1);
        let always = answer(json!({ "safe": false, "offline": [at(true)], "below_min_isr": [] }));
        assert_eq!((always.blocked(), always.hurt()), (None, 1));
        assert!(always.hurt_text().unwrap().starts_with("t-1 "));
        assert!(always.only_here().unwrap().starts_with("t-1 "));
        let copied = answer(json!({ "safe": false, "offline": [at(false)], "below_min_isr": [at(true)] }));
        assert_eq!(copied.only_here(), None, "another replica has them, or will");
        let quorum = answer(json!({ "safe": false, "ends_quorum": true }));
        assert!(quorum.blocked().unwrap().contains("majority"));
        let silent = answer(json!({ "safe": false }));
        assert!(silent.blocked().is_some(), "a no without a reason is a no");
    }

    #[tokio::test]
    async fn only_an_answer_that_makes_sense_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"safe\":true}", None),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno leader", Some("no leader")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Some("makes no sense")),
            ("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"saf", Some("cannot be asked")),
            ("", Some("cannot be asked")),
        ];
        for (text, error) in answers {
            let (asked, ()) = tokio::join!(ask(&address, 3), async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /v1/brokers/3/restart-safety HTTP/1.1\r\n"));
                stream.write_all(text.as_bytes()).await.unwrap();
            });
            match error {
                None => assert!(asked.unwrap().safe),
                Some(error) => {
                    let said = asked.unwrap_err();
                    assert!(said.contains(error), "{said}");
                }
            }
        }
        drop(listener);
        assert!(ask(&address, 3).await.is_err(), "nobody is there");
    }
}
