//! The client's choices: addresses, pauses, and which broker to ask when one hangs.

use klamm_protocol::header::RequestHeader;
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{ApiVersionsResponse, MetadataResponse};
use klamm_protocol::wire::Reader;
use klamm_protocol::{ApiKey, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[test]
fn bootstrap_lists_are_checked() {
    let good = parse_bootstrap(" a:1, [::1]:9092 ,b.example:65535,").ok();
    assert_eq!(good.map(|list| list.len()), Some(3));
    for bad in ["", ",", "a", "a:", ":9092", "a:0", "a:65536", "a:x"] {
        assert!(parse_bootstrap(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn pauses_double_up_to_the_limit_and_vary() {
    let mut backoff = Backoff { next: Duration::from_millis(50), max: Duration::from_millis(200) };
    for full in [50, 100, 200, 200] {
        let pause = backoff.next_pause();
        let full = Duration::from_millis(full);
        assert!(pause <= full && pause >= full.mul_f64(0.8), "{pause:?} of {full:?}");
    }
}

/// Answers version negotiation and Metadata (in version 0, with no brokers) until the client goes, or so many requests.
async fn answer(mut stream: TcpStream, requests: usize) -> std::io::Result<()> {
    for _ in 0..requests {
        let size = stream.read_i32().await?;
        let mut frame = vec![0; size as usize];
        stream.read_exact(&mut frame).await?;
        let header = RequestHeader::decode(&mut Reader::new(frame.into())).expect("a header");
        let body = if header.api_key == ApiKey::ApiVersions as i16 {
            let range =
                |key: ApiKey, max_version| ApiVersion { api_key: key as i16, max_version, ..Default::default() };
            let api_keys = vec![range(ApiKey::ApiVersions, 4), range(ApiKey::Metadata, 4)];
            ApiVersionsResponse { api_keys, ..Default::default() }.to_bytes(header.api_version)
        } else {
            MetadataResponse::default().to_bytes(header.api_version)
        };
        let body = body.expect("encodes");
        stream.write_i32(4 + body.len() as i32).await?;
        stream.write_i32(header.correlation_id).await?;
        stream.write_all(&body).await?;
    }
    // From now on it is silent.
    std::future::pending().await
}

#[tokio::test]
async fn a_broker_that_hangs_is_not_asked_first_each_time() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let good = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    let bootstrap = format!("{},{}", address(&hanging), address(&good));
    // It takes connections and says nothing, as a process does that was stopped.
    let accepted = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_secs(1), hanging.accept()).await {
            taken.push(stream);
        }
        taken.len()
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = good.accept().await {
            tokio::spawn(answer(stream, usize::MAX));
        }
    });
    let connection = ConnectionOptions { connect_timeout: Duration::from_millis(200), ..Default::default() };
    let options = ClientOptions { connection, ..Default::default() };
    let client = Client::connect(&bootstrap, options).await.expect("the other one answers");
    for _ in 0..3 {
        // Each has connections of its own, and all of them know by now.
        client.apart().refresh(Some(&[])).await.expect("an answer");
    }
    assert_eq!(accepted.await.expect("the count"), 1);
    let none = client.to_leader(7).await.err().expect("no such broker");
    assert!(none.is_retriable() && none.is_stale_metadata(), "{none}");
}

/// One to each of these: it answers so many requests of each connection, and is silent then.
pub(crate) async fn brokers(each: &[usize]) -> String {
    let mut bootstrap = Vec::new();
    for requests in each {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        bootstrap.push(listener.local_addr().expect("an address").to_string());
        let requests = *requests;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, requests));
            }
        });
    }
    bootstrap.join(",")
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_is_given_up_soon() {
    // The second one does not even say what it can do: connecting takes as long as it may.
    let bootstrap = brokers(&[2, 0, usize::MAX]).await;
    let client = Client::connect(&bootstrap, ClientOptions::default()).await.expect("the first one answers at first");
    let since = Instant::now();
    client.refresh_known_soon(Duration::from_millis(100)).await.expect("the last one is asked");
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "not the time for connecting or a request: {:?}",
        since.elapsed()
    );
    let open = client.connections.lock().await.values().filter(|connection| !connection.is_closed()).count();
    assert_eq!(open, 2, "others may wait for the first one's answers");
    let since = Instant::now();
    client.refresh_known_soon(Duration::from_secs(5)).await.expect("and it is asked first now");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());

    let nobody = Client::connect(&brokers(&[2, 1]).await, ClientOptions::default()).await.expect("answers at first");
    let error = nobody.refresh_known_soon(Duration::from_millis(100)).await.expect_err("all are silent by now");
    assert!(error.is_retriable(), "{error}");
}
