//! The way to other brokers that followers use: the inter-broker listener that the metadata image names.

use std::sync::Weak;
use std::time::Duration;

use klamm_client::{Connection, ConnectionOptions};
use klamm_protocol::ErrorCode;

use super::fetcher::{Boxed, Link, Peers};
use crate::broker::Broker;
use crate::config::HostPort;

/// Bound on connecting. A lost first packet is repeated by the kernel after one second, then ever more rarely: trying
/// anew is quicker.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Connects by the image of this broker.
#[derive(Debug)]
pub struct ByImage(pub Weak<Broker>);

impl Peers for ByImage {
    fn connect(&self, id: i32) -> Boxed<'_, Result<Box<dyn Link>, String>> {
        Box::pin(async move {
            let broker = self.0.upgrade().ok_or("the broker has stopped")?;
            let node = broker.controller.node(id, &broker.config.inter_broker_listener);
            let node = node.ok_or_else(|| format!("broker {id} is not registered"))?;
            let port = u16::try_from(node.port).map_err(|_| format!("broker {id} has port {}", node.port))?;
            let options = ConnectionOptions {
                client_id: format!("broker-{}-fetcher", broker.config.node_id),
                connect_timeout: CONNECT_TIMEOUT,
                in_flight_max: 1,
                tls: broker.tls.client(&broker.config.inter_broker_listener),
                meant: Some((broker.controller.cluster_id().to_string(), id)),
                ..ConnectionOptions::default()
            };
            drop(broker);
            let address = HostPort { host: node.host, port }.to_string();
            let connection = Connection::open(&address, options).await.map_err(|error| {
                if error.code() == Some(ErrorCode::RebootstrapRequired) {
                    self.wrong_node(id, &address);
                }
                error.to_string()
            })?;
            Ok(Box::new(connection) as Box<dyn Link>)
        })
    }
}

impl ByImage {
    /// Who answers at the address of a broker says that it is another: `advertised.listeners` of one of the two is wrong.
    fn wrong_node(&self, id: i32, address: &str) {
        let Some(broker) = self.0.upgrade() else { return };
        if let Some(held_back) = broker.complaints.due(&format!("address {address}"), broker.clock.now_ms()) {
            let why = "another node or cluster answers there; see its advertised.listeners";
            tracing::warn!(broker = id, address, why, held_back, "nothing is fetched from a broker's address");
        }
    }
}
