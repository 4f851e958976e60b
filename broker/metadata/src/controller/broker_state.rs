//! Brokers that fall silent, come back, leave or lose a disk, and what that does to their partitions.
//!
//! A broker may hold more partitions than one decision may change. Each of these functions then decides about the
//! first ones and answers [`Progress::More`]: commit, apply, and ask again with the new image. What makes the
//! event final (the broker's own record) comes with the last part, so a controller that fails in between leaves
//! nothing half done that its successor would take for finished.

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::{BrokerRegistrationChangeRecord, UnregisterBrokerRecord};

use super::mistakes::{Mistake, made};
use super::partition_change::{PartitionChange, can_lead};
use super::policy::Policy;
use super::{ApiError, Decision, RECORDS_MAX};
use crate::image::{Broker, Image, Partition};
use crate::index::Found;
use crate::record::MetadataRecord;

/// Whether a decision is the last one of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// Ask again when the records are applied.
    More,
    /// That was all, and this is the answer.
    Done(T),
}

/// Room that the broker's own record needs.
const PARTITIONS_MAX: usize = RECORDS_MAX - 2;

/// Changes of partitions, at most [`PARTITIONS_MAX`]; true when that was not all.
pub(super) fn change_partitions<'a>(
    image: &'a Image,
    found: impl Iterator<Item = Found<'a>>,
    policy: &Policy,
    can_lead: &dyn Fn(&Partition, i32) -> bool,
    change: impl Fn(PartitionChange<'a>) -> PartitionChange<'a>,
) -> (Vec<MetadataRecord>, bool) {
    let mut records = Vec::new();
    let mut rules: Option<(Uuid, Policy)> = None;
    for (topic, number, partition) in found {
        let policy = match rules {
            Some((id, policy)) if id == topic.id => policy,
            _ => policy.of(image, &topic.name),
        };
        rules = Some((topic.id, policy));
        let change = change(PartitionChange::new(image, partition, topic.id, number, policy));
        if let Some(record) = change.build(&|id| can_lead(partition, id)) {
            if records.len() == PARTITIONS_MAX {
                return (records, true);
            }
            records.push(record.into());
        }
    }
    (records, false)
}

/// Partitions for whose leadership a broker counts.
fn in_sync_on(image: &Image, broker: i32) -> impl Iterator<Item = Found<'_>> {
    image.partitions_of(broker).filter(move |(_, _, p)| p.leader == broker || p.isr.contains(&broker))
}

/// Takes a broker that stays registered out of the lead and the ISRs of its partitions.
fn step_down(image: &Image, broker: i32, policy: &Policy) -> (Vec<MetadataRecord>, bool) {
    if made(Mistake::FencedLeaderStays) {
        return (Vec::new(), false);
    }
    let others = |p: &Partition, id: i32| id != broker && can_lead(image, p, id);
    change_partitions(image, in_sync_on(image, broker), policy, &others, |change| change.without(broker))
}

fn change_of(broker: &Broker) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord {
        broker_id: broker.id,
        broker_epoch: broker.epoch,
        ..BrokerRegistrationChangeRecord::default()
    }
}

fn registered(image: &Image, broker_id: i32) -> Result<&Broker, ApiError> {
    match image.broker(broker_id) {
        Some(broker) => Ok(broker),
        None => {
            let text = format!("Broker ID {broker_id} is not currently registered");
            Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, text))
        }
    }
}

/// Shuts a broker out: others lead its partitions, and it is in no ISR. Nothing happens to one that is fenced.
pub fn fence(image: &Image, broker_id: i32, policy: &Policy) -> Result<Decision<Progress<()>>, ApiError> {
    let broker = registered(image, broker_id)?;
    if broker.fenced {
        return Ok(Decision::only(Progress::Done(())));
    }
    let (mut records, more) = step_down(image, broker_id, policy);
    if more {
        return Ok(Decision { records, response: Progress::More });
    }
    records.push(BrokerRegistrationChangeRecord { fenced: 1, ..change_of(broker) }.into());
    Ok(Decision { records, response: Progress::Done(()) })
}

/// Lets a broker in again. Partitions that had no leader may get one; when there are very many of them, the rest is
/// up to [`elect_leaderless`].
pub fn unfence(image: &Image, broker_id: i32, policy: &Policy) -> Result<Decision<Progress<()>>, ApiError> {
    let broker = registered(image, broker_id)?;
    if !broker.fenced {
        return Ok(Decision::only(Progress::Done(())));
    }
    let mut records: Vec<MetadataRecord> =
        vec![BrokerRegistrationChangeRecord { fenced: -1, ..change_of(broker) }.into()];
    let mut active = broker.clone();
    active.fenced = false;
    let then = |p: &Partition, id: i32| match id == broker_id {
        true => active.is_active() && (active.has_directory(p.directory(id)) || made(Mistake::NewDiskTrusted)),
        false => can_lead(image, p, id),
    };
    let (elections, more) = change_partitions(image, image.leaderless(), policy, &then, |change| change);
    records.extend(elections);
    Ok(Decision { records, response: if more { Progress::More } else { Progress::Done(()) } })
}

/// Elects leaders for partitions that have none and can have one: after [`unfence`] answered More, and from time
/// to time, because `unclean.leader.election.enable` may have been switched on.
pub fn elect_leaderless(image: &Image, policy: &Policy) -> Decision<Progress<()>> {
    let alive = |p: &Partition, id: i32| can_lead(image, p, id);
    let (records, more) = change_partitions(image, image.leaderless(), policy, &alive, |change| change);
    Decision { records, response: if more { Progress::More } else { Progress::Done(()) } }
}

/// A broker is about to stop: it gets no more leadership, and others take over what it has.
pub fn begin_shutdown(image: &Image, broker_id: i32, policy: &Policy) -> Result<Decision<Progress<()>>, ApiError> {
    let broker = registered(image, broker_id)?;
    let mut records: Vec<MetadataRecord> = Vec::new();
    if !broker.in_controlled_shutdown {
        records.push(BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change_of(broker) }.into());
    }
    let (changes, more) = step_down(image, broker_id, policy);
    records.extend(changes);
    Ok(Decision { records, response: if more { Progress::More } else { Progress::Done(()) } })
}

/// Removes a broker that is gone for good: should it come back, its replicas are not trusted.
pub fn unregister_broker(image: &Image, broker_id: i32, policy: &Policy) -> Result<Decision<Progress<()>>, ApiError> {
    let broker = registered(image, broker_id)?;
    let (mut records, more) = distrust(image, broker_id, policy, &|_| Some(Trust::Shaken));
    if more {
        return Ok(Decision { records, response: Progress::More });
    }
    records.push(UnregisterBrokerRecord { broker_id, broker_epoch: broker.epoch }.into());
    Ok(Decision { records, response: Progress::Done(()) })
}

/// What a broker's replica is worth when its next incarnation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It stopped in order: it holds what it held.
    Whole,
    /// It may have lost the end of its log.
    Shaken,
    /// It is empty.
    Gone,
}

/// Takes a broker out of the ISRs of its partitions, and out of their ELRs where it isn't trusted any more. A
/// partition that `trust` says nothing about stays as it is.
pub(super) fn distrust(
    image: &Image,
    broker: i32,
    policy: &Policy,
    trust: &dyn Fn(&Partition) -> Option<Trust>,
) -> (Vec<MetadataRecord>, bool) {
    let counts = |list: &[i32]| list.contains(&broker);
    let touched = image
        .partitions_of(broker)
        .filter(|(_, _, p)| p.leader == broker || counts(&p.isr) || counts(&p.elr) || counts(&p.last_known_elr))
        .filter(|(_, _, p)| trust(p).is_some());
    let others = |p: &Partition, id: i32| id != broker && can_lead(image, p, id);
    change_partitions(image, touched, policy, &others, |change| match trust(change.before()) {
        Some(Trust::Shaken) => change.distrust(broker),
        Some(Trust::Gone) => change.forget(broker),
        _ => change.without(broker),
    })
}

/// Log directories of a broker have failed: replicas there lead and are in sync no longer.
pub fn directories_failed(
    image: &Image,
    broker_id: i32,
    offline: &[Uuid],
    policy: &Policy,
) -> Result<Decision<Progress<()>>, ApiError> {
    let broker = registered(image, broker_id)?;
    let (failed, left): (Vec<Uuid>, Vec<Uuid>) = broker.log_dirs.iter().partition(|dir| offline.contains(dir));
    // A broker whose last directory fails stops by itself; a record can't say "none".
    if failed.is_empty() || left.is_empty() {
        return Ok(Decision::only(Progress::Done(())));
    }
    let there = in_sync_on(image, broker_id).filter(|(_, _, p)| failed.contains(&p.directory(broker_id)));
    let others = |p: &Partition, id: i32| id != broker_id && can_lead(image, p, id);
    let (mut records, more) = change_partitions(image, there, policy, &others, |change| change.without(broker_id));
    if more {
        return Ok(Decision { records, response: Progress::More });
    }
    records.push(BrokerRegistrationChangeRecord { log_dirs: left, ..change_of(broker) }.into());
    Ok(Decision { records, response: Progress::Done(()) })
}

/// The record for a broker's cordoned log directories, when they differ from what is known.
pub(super) fn cordon(broker: &Broker, cordoned: Option<&[Uuid]>) -> Option<MetadataRecord> {
    let cordoned = cordoned.filter(|dirs| broker.cordoned_log_dirs.as_deref() != Some(*dirs))?;
    let record = BrokerRegistrationChangeRecord { cordoned_log_dirs: Some(cordoned.to_vec()), ..change_of(broker) };
    Some(record.into())
}
