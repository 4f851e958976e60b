//! The cluster's id, learnt from its nodes by one that joins and was not told.

use std::time::Duration;

use klamm_client::{Connection, ConnectionOptions, Tls};
use klamm_protocol::messages::DescribeClusterRequest;

use crate::config::HostPort;

/// Pause between two rounds through the addresses.
const AGAIN: Duration = Duration::from_millis(500);
/// Rounds between two lines that say what is missing.
const SAY_EVERY: u32 = 20;

/// Asks the nodes at these addresses until one has answered.
pub async fn learn_cluster_id(seeds: &[(String, u16)], tls: Option<Tls>) -> String {
    let options = ConnectionOptions { connect_timeout: Duration::from_secs(2), tls, ..Default::default() };
    // Endpoint type 2: the addresses are those of controllers.
    let who = DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    let mut rounds = 0;
    loop {
        for (host, port) in seeds {
            let address = HostPort { host: host.clone(), port: *port }.to_string();
            let answer = match Connection::open(&address, options.clone()).await {
                Ok(connection) => connection.call(&who).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) if answer.error_code == 0 && !answer.cluster_id.is_empty() => return answer.cluster_id,
                Ok(answer) if rounds % SAY_EVERY == 0 => {
                    let why = answer.error_message.unwrap_or_default();
                    tracing::warn!(address, code = answer.error_code, why, "waiting for a node of the cluster to join");
                }
                Ok(_) => {}
                Err(error) if rounds % SAY_EVERY == 0 => {
                    tracing::warn!(%error, "waiting for a node of the cluster to join");
                }
                Err(_) => {}
            }
        }
        rounds += 1;
        tokio::time::sleep(AGAIN).await;
    }
}
