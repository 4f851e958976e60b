//! What the names of other brokers stand for, kept for when nobody knows them any more.
//!
//! Where an orchestrator gives brokers their names, a name goes together with the broker: of a pod that is deleted by
//! force, or goes down with the name server, nothing is left to ask. The controller has to knock there nevertheless, or
//! the broker's partitions stand still until its session ends. So whoever may become the controller looks names up while
//! they are known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use klamm_metadata::Image;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::broker::Broker;

/// How long a name server may take before what it said earlier is taken; it may be what is gone.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it may take where nobody waits.
const LEISURE: Duration = Duration::from_secs(5);
/// How often the names of brokers that have just registered are looked up.
const EVERY: Duration = Duration::from_secs(1);
/// How often the others are: a name server may have told of the pod before.
const AGAIN: Duration = Duration::from_secs(30);

/// The addresses that brokers' names stood for when last looked up, all for one listener.
#[derive(Debug, Default)]
pub struct Whereabouts(Mutex<BTreeMap<i32, Found>>);

#[derive(Clone, Debug)]
struct Found {
    /// The registration that this is about; of a later one nothing is known.
    epoch: i64,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl Whereabouts {
    /// The addresses of broker `id`'s `listener`: what its name stands for now or, if that cannot be told at once, what it
    /// stood for before. None when it was never known, or there is no such broker or listener.
    pub async fn find(&self, image: &Image, id: i32, listener: &str) -> Vec<SocketAddr> {
        match self.look_up(image, id, listener, PATIENCE).await {
            Some(addresses) => addresses,
            None => self.known(image, id).map(|found| found.addresses).unwrap_or_default(),
        }
    }

    async fn look_up(&self, image: &Image, id: i32, listener: &str, limit: Duration) -> Option<Vec<SocketAddr>> {
        let broker = image.broker(id)?;
        let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.name == listener)?;
        let named = timeout(limit, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))).await;
        let addresses: Vec<SocketAddr> = named.ok()?.ok()?.collect();
        if addresses.is_empty() {
            return None;
        }
        let found = Found { epoch: broker.epoch, at: Instant::now(), addresses: addresses.clone() };
        self.0.lock().insert(id, found);
        Some(addresses)
    }

    fn known(&self, image: &Image, id: i32) -> Option<Found> {
        let epoch = image.broker(id)?.epoch;
        self.0.lock().get(&id).filter(|found| found.epoch == epoch).cloned()
    }

    /// Looks up the names that are due, all at once, and forgets brokers that are no more.
    async fn refresh(self: &Arc<Self>, image: &Arc<Image>, own: i32, listener: &str) {
        self.0.lock().retain(|id, _| image.broker(*id).is_some());
        let due = |id: &i32| self.known(image, *id).is_none_or(|found| found.at.elapsed() >= AGAIN);
        let mut asked = JoinSet::new();
        for id in image.brokers().filter(|b| !b.fenced && b.id != own).map(|b| b.id).filter(due) {
            let (known, image, listener) = (Arc::clone(self), Arc::clone(image), listener.to_owned());
            asked.spawn(async move { known.look_up(&image, id, &listener, LEISURE).await });
        }
        while asked.join_next().await.is_some() {}
    }
}

/// Looks names up for as long as this broker lives and votes, as those do who may become the controller.
pub async fn keep(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = broker.stopping() => return,
        }
        let own = broker.config.node_id;
        if broker.controller.quorum().metrics().voters.iter().any(|(id, _)| *id == own) {
            let (image, _) = broker.controller.committed_image();
            broker.whereabouts.refresh(&image, own, &broker.config.inter_broker_listener).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::RegisterBrokerRecord;
    use klamm_protocol::messages::register_broker_record::BrokerEndpoint;

    use super::*;

    /// A cluster with a broker 1 of this registration.
    fn image(broker_epoch: i64, host: &str) -> Image {
        let mut image = Image::new("c");
        let end_points =
            vec![BrokerEndpoint { name: "IN".into(), host: host.into(), port: 9093, ..Default::default() }];
        let record = RegisterBrokerRecord { broker_id: 1, broker_epoch, end_points, ..Default::default() };
        image.apply(&record.into()).expect("registered");
        image
    }

    #[tokio::test]
    async fn what_a_name_stood_for_is_known_until_the_broker_registers_anew() {
        let known = Whereabouts::default();
        let gone = "gone.invalid";
        assert!(known.find(&image(7, gone), 1, "IN").await.is_empty(), "it was never known");
        let found = known.find(&image(7, "localhost"), 1, "IN").await;
        assert!(found.iter().any(|address| address.ip().is_loopback() && address.port() == 9093), "{found:?}");
        assert_eq!(known.find(&image(7, gone), 1, "IN").await, found, "nobody knows the name any more");
        assert!(known.find(&image(8, gone), 1, "IN").await.is_empty(), "it may have come back anywhere");
        assert!(Whereabouts::default().find(&image(7, "localhost"), 1, "OTHER").await.is_empty());
        assert!(known.find(&image(7, "localhost"), 2, "IN").await.is_empty());
    }

    #[tokio::test]
    async fn names_are_looked_up_while_they_are_known() {
        let known = Arc::new(Whereabouts::default());
        known.refresh(&Arc::new(image(7, "localhost")), 1, "IN").await;
        assert!(known.0.lock().is_empty(), "nobody needs to find itself");
        // A broker is fenced until its first heartbeat.
        let mut image = image(7, "localhost");
        let unfenced = klamm_protocol::messages::BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch: 7,
            fenced: -1,
            ..Default::default()
        };
        image.apply(&unfenced.into()).expect("unfenced");
        known.refresh(&Arc::new(image), 0, "IN").await;
        assert!(!known.0.lock()[&1].addresses.is_empty());
        known.refresh(&Arc::new(Image::new("c")), 0, "IN").await;
        assert!(known.0.lock().is_empty(), "it is no more");
    }
}
