//! Registration: a process takes a broker's id, and what the id's replicas are worth from then on.
//!
//! A new incarnation is in no ISR until a leader takes it in again. Whether it stays eligible to lead depends on
//! how its predecessor ended: in order, and it holds what it held; otherwise the end of its logs may be lost. A
//! replica whose log directory didn't come along holds nothing at all.

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;

use super::broker_state::{Progress, Trust, change_partitions, distrust};
use super::mistakes::{Mistake, made};
use super::policy::Policy;
use super::{ApiError, Decision, RECORDS_MAX};
use crate::dump::registration;
use crate::image::{Broker, Endpoint, Image, Partition, SupportedFeature};
use crate::record::MetadataRecord;

/// A broker that wants to be registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The cluster it believes to belong to.
    pub cluster_id: String,
    /// What to register; its epoch is overwritten.
    pub broker: Broker,
    /// Whether its last run ended in order, so that its logs hold all that they held then.
    pub clean: bool,
    /// Whether the incarnation registered before still sends heartbeats.
    pub predecessor_alive: bool,
}

impl Registration {
    /// What a BrokerRegistration request asks for. The broker starts fenced.
    pub fn of(image: &Image, request: &BrokerRegistrationRequest, predecessor_alive: bool) -> Result<Self, ApiError> {
        let invalid = |text: &str| Err(ApiError::new(ErrorCode::InvalidRegistration, text));
        if request.is_migrating_zk_broker {
            let text = "Controller does not support registering ZK brokers.";
            return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, text));
        }
        if request.log_dirs.is_empty() {
            return invalid("No directories specified in request");
        }
        if request.log_dirs.iter().any(reserved) {
            return invalid("Reserved directory ID in request");
        }
        if request.listeners.is_empty() {
            return invalid("No listeners specified in request");
        }
        if request.listeners.iter().any(|l| l.name.is_empty() || !(0..4).contains(&l.security_protocol)) {
            return invalid("A listener has no name or an unknown security protocol");
        }
        let endpoint = |l: &klamm_protocol::messages::broker_registration_request::Listener| Endpoint {
            name: l.name.clone(),
            host: l.host.clone(),
            port: l.port,
            security_protocol: l.security_protocol,
        };
        let feature = |f: &klamm_protocol::messages::broker_registration_request::Feature| SupportedFeature {
            name: f.name.clone(),
            min: f.min_supported_version,
            max: f.max_supported_version,
        };
        let broker = Broker {
            id: request.broker_id,
            epoch: -1,
            incarnation: request.incarnation_id,
            endpoints: request.listeners.iter().map(endpoint).collect(),
            features: request.features.iter().map(feature).collect(),
            rack: request.rack.clone(),
            fenced: true,
            in_controlled_shutdown: false,
            log_dirs: request.log_dirs.clone(),
            cordoned_log_dirs: None,
        };
        let clean = image.broker(broker.id).is_some_and(|b| b.epoch == request.previous_broker_epoch);
        Ok(Self { cluster_id: request.cluster_id.clone(), broker, clean, predecessor_alive })
    }
}

/// Ids below 100 mean something else than a directory.
fn reserved(directory: &Uuid) -> bool {
    directory.0[..15] == [0; 15] && directory.0[15] < 100
}

/// Registers a broker under `new_epoch`, which must be higher than all given before (the next offset of the
/// metadata log is), and answers with the epoch that counts. The same incarnation keeps its epoch and its state.
///
/// A broker that registers unfenced (a single node does) goes on leading what only it holds. After an unclean end
/// it does so under a new leader epoch: its logs may have lost their tails, and other records under the same
/// offset and epoch would go unnoticed by consumers.
pub fn register_broker(
    image: &Image,
    wanted: &Registration,
    new_epoch: i64,
    policy: &Policy,
) -> Result<Decision<Progress<i64>>, ApiError> {
    check(image, wanted)?;
    let mut broker = wanted.broker.clone();
    let existing = image.broker(broker.id);
    if let Some(same) = existing.filter(|b| b.incarnation == broker.incarnation) {
        broker.epoch = same.epoch;
        (broker.fenced, broker.in_controlled_shutdown) = (same.fenced, same.in_controlled_shutdown);
        let response = Progress::Done(same.epoch);
        return Ok(Decision { records: vec![registration(&broker).into()], response });
    }
    broker.epoch = new_epoch;
    let mut records = if broker.is_active() { stay(image, wanted, policy) } else { None };
    let stays = records.is_some();
    let worth = |p: &Partition| match trust(p, existing.map(|b| &**b), wanted) {
        Trust::Whole if stays && p.replicas.len() == 1 => None,
        trust => Some(trust),
    };
    let (others, more) = distrust(image, broker.id, policy, &worth);
    if more {
        return Ok(Decision { records: others, response: Progress::More });
    }
    let mut records = records.take().unwrap_or_default();
    if records.len() + others.len() >= RECORDS_MAX {
        return Ok(Decision { records: others, response: Progress::More });
    }
    records.extend(others);
    records.push(registration(&broker).into());
    Ok(Decision { records, response: Progress::Done(broker.epoch) })
}

/// New leader epochs for what only this broker holds, when it goes on leading it. None when they are too many for
/// one decision: then the leadership ends first, and [`elect_leaderless`](super::elect_leaderless) gives it back.
fn stay(image: &Image, wanted: &Registration, policy: &Policy) -> Option<Vec<MetadataRecord>> {
    if wanted.clean {
        return Some(Vec::new());
    }
    let id = wanted.broker.id;
    let existing = image.broker(id).map(|b| &**b);
    let own = image.led_by(id).filter(|(_, _, p)| p.replicas.len() == 1 && trust(p, existing, wanted) == Trust::Whole);
    let (records, more) = change_partitions(image, own, policy, &|_, _| true, |mut change| {
        change.new_epoch = true;
        change
    });
    (!more).then_some(records)
}

/// What the broker's replica of a partition is worth from now on.
fn trust(partition: &Partition, before: Option<&Broker>, wanted: &Registration) -> Trust {
    let broker = &wanted.broker;
    let directory = partition.directory(broker.id);
    if !made(Mistake::NewDiskTrusted) {
        if !broker.has_directory(directory) {
            return Trust::Shaken;
        }
        // Without an assignment it may be on any of the directories that the broker had.
        let all_there = before.is_some_and(|b| b.log_dirs.iter().all(|dir| broker.log_dirs.contains(dir)));
        if directory.is_zero() && !all_there {
            return Trust::Gone;
        }
    }
    // The only copy is as good as it gets: nobody has anything that it lacks.
    match wanted.clean || partition.replicas.len() == 1 {
        true => Trust::Whole,
        false => Trust::Shaken,
    }
}

/// Whether this process can only be there because the other has ended: it holds the locks of the same directories and
/// is bound to the same addresses. Then nobody has to wait for the session of the dead one to run out, which counts
/// most when all brokers come back at once, and the new controller takes every session for a fresh one.
fn took_the_place_of(broker: &Broker, other: &Broker) -> bool {
    let there = !broker.log_dirs.is_empty() && !broker.endpoints.is_empty();
    there && broker.log_dirs == other.log_dirs && broker.endpoints == other.endpoints
}

fn check(image: &Image, wanted: &Registration) -> Result<(), ApiError> {
    let invalid = |text: String| Err(ApiError::new(ErrorCode::InvalidRegistration, text));
    let broker = &wanted.broker;
    if wanted.cluster_id != image.cluster_id() {
        let text = format!("Expected cluster ID {}, but got cluster ID {}", image.cluster_id(), wanted.cluster_id);
        return Err(ApiError::new(ErrorCode::InconsistentClusterId, text));
    }
    let other = image.broker(broker.id).filter(|b| b.incarnation != broker.incarnation);
    if wanted.predecessor_alive && other.is_some_and(|b| !took_the_place_of(broker, b)) {
        let text = "Another broker is registered with that broker id. If the broker was recently restarted this \
                    should self-resolve once the heartbeat manager expires the broker's session.";
        return Err(ApiError::new(ErrorCode::DuplicateBrokerRegistration, text));
    }
    for (i, directory) in broker.log_dirs.iter().enumerate() {
        if broker.log_dirs[..i].contains(directory) {
            return invalid("Duplicate directory ID in request".into());
        }
        if let Some(other) = image.brokers().find(|b| b.id != broker.id && b.log_dirs.contains(directory)) {
            return invalid(format!("Broker {} is already registered with directory {directory}", other.id));
        }
    }
    for (i, endpoint) in broker.endpoints.iter().enumerate() {
        if broker.endpoints[..i].iter().any(|other| other.name == endpoint.name) {
            return invalid(format!("Listener {} is there twice", endpoint.name));
        }
    }
    for (name, level) in image.features().iter().filter(|(_, level)| **level > 0) {
        let (min, max) = broker.features.iter().find(|f| f.name == *name).map_or((0, 0), |f| (f.min, f.max));
        if !(min..=max).contains(level) {
            let text = format!(
                "Unable to register because the broker does not support finalized version {level} of {name}. The \
                 broker wants a version between {min} and {max}, inclusive."
            );
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, text));
        }
    }
    Ok(())
}
