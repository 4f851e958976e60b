//! Which brokers are alive, as the active controller alone knows it: soft state, nothing of it is replicated.
//!
//! Whether a broker is fenced or shutting down stands in the image; here is only when it was last heard of, how
//! far it had read the metadata log, and since when nobody relies on it any more. A new controller starts with an
//! empty [`Heartbeats`] and gives every broker a whole session from then on.
//!
//! Times are monotonic milliseconds, offsets are those of the metadata log. Not a line here reads a clock.

use std::collections::BTreeMap;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;

use super::broker_state::{Progress, begin_shutdown, cordon, directories_failed, fence, unfence};
use super::policy::Policy;
use super::{ApiError, Decision};
use crate::image::{Broker, Image};

/// What is known of one broker.
#[derive(Clone, Copy, Debug)]
struct Contact {
    /// Epoch of the registration this is about.
    epoch: i64,
    /// When it was last heard of.
    at_ms: u64,
    /// How far it had read the metadata log then.
    offset: i64,
    /// Others must have read this far before it may stop: its leadership is gone there.
    moved_at: Option<i64>,
}

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    session_ms: u64,
    contacts: BTreeMap<i32, Contact>,
}

impl Heartbeats {
    /// Of a controller that has just become active. `session_ms` is `broker.session.timeout.ms`.
    pub fn new(session_ms: u64, image: &Image, now_ms: u64) -> Self {
        let mut heartbeats = Self { session_ms, contacts: BTreeMap::new() };
        heartbeats.follow(image, now_ms);
        heartbeats
    }

    /// Forgets brokers that are gone, and gives a whole session to registrations not seen before. Called by each
    /// function here that has an image, so nobody has to.
    fn follow(&mut self, image: &Image, now_ms: u64) {
        self.contacts.retain(|id, contact| image.broker(*id).is_some_and(|b| b.epoch == contact.epoch));
        for broker in image.brokers() {
            let fresh = Contact { epoch: broker.epoch, at_ms: now_ms, offset: -1, moved_at: None };
            self.contacts.entry(broker.id).or_insert(fresh);
        }
    }

    /// Whether a registered broker was heard of within its session, so that nobody else may take its id. A fenced
    /// one has no session.
    pub fn is_alive(&self, image: &Image, broker_id: i32, now_ms: u64) -> bool {
        let (Some(broker), Some(contact)) = (image.broker(broker_id), self.contacts.get(&broker_id)) else {
            return false;
        };
        !broker.fenced && contact.epoch == broker.epoch && !self.is_over(contact, now_ms)
    }

    fn is_over(&self, contact: &Contact, now_ms: u64) -> bool {
        now_ms.saturating_sub(contact.at_ms) >= self.session_ms
    }

    /// Unfenced brokers that have been silent for a session: [`fence`] them, one after the other.
    pub fn expired(&mut self, image: &Image, now_ms: u64) -> Vec<i32> {
        self.follow(image, now_ms);
        let silent = |b: &&std::sync::Arc<Broker>| {
            !b.fenced && self.contacts.get(&b.id).is_some_and(|contact| self.is_over(contact, now_ms))
        };
        image.brokers().filter(silent).map(|b| b.id).collect()
    }

    /// The controller itself stood still for this long, and heard nobody meanwhile: no session runs in that time.
    pub fn stood_still(&mut self, for_ms: u64, now_ms: u64) {
        for contact in self.contacts.values_mut() {
            contact.at_ms = contact.at_ms.saturating_add(for_ms).min(now_ms);
        }
    }

    /// When the next session ends unless its broker speaks up; None when all are fenced.
    pub fn next_expiry_ms(&self, image: &Image) -> Option<u64> {
        let unfenced = image.brokers().filter(|b| !b.fenced);
        unfenced.filter_map(|b| Some(self.contacts.get(&b.id)?.at_ms.saturating_add(self.session_ms))).min()
    }

    /// How far the broker had read the metadata log when it was last heard of, and when that was.
    pub fn last_contact(&self, broker_id: i32) -> Option<(u64, i64)> {
        self.contacts.get(&broker_id).map(|contact| (contact.at_ms, contact.offset))
    }

    /// Where every broker has read to that gets leadership.
    fn lowest_active_offset(&self, image: &Image) -> i64 {
        let active = image.brokers().filter(|b| b.is_active());
        active.filter_map(|b| Some(self.contacts.get(&b.id)?.offset)).min().unwrap_or(i64::MAX)
    }

    /// Takes a heartbeat. `applied` is the offset that `image` stands at.
    ///
    /// With [`Progress::More`] the same request is to be decided again after the records were applied.
    pub fn heartbeat(
        &mut self,
        image: &Image,
        request: &BrokerHeartbeatRequest,
        applied: i64,
        now_ms: u64,
        policy: &Policy,
    ) -> Result<Decision<Progress<BrokerHeartbeatResponse>>, ApiError> {
        let broker = check_epoch(image, request.broker_id, request.broker_epoch)?;
        self.follow(image, now_ms);
        if let Some(contact) = self.contacts.get_mut(&broker.id) {
            contact.at_ms = now_ms;
            contact.offset = contact.offset.max(request.current_metadata_offset);
            if broker.fenced || !broker.in_controlled_shutdown {
                contact.moved_at = None;
            } else if !image.leads_any(broker.id) {
                contact.moved_at.get_or_insert(applied);
            }
        }
        let failed = directories_failed(image, broker.id, &request.offline_log_dirs, policy)?;
        if !failed.records.is_empty() {
            // One event at a time: what else the broker wants is decided with the directories gone.
            return Ok(Decision { records: failed.records, response: Progress::More });
        }
        let caught_up = request.current_metadata_offset >= broker.epoch;
        let next = self.next_state(image, broker, request, caught_up);
        let decided = match next {
            State::Fenced | State::Stopped => fence(image, broker.id, policy)?,
            State::Active => unfence(image, broker.id, policy)?,
            State::Stopping => begin_shutdown(image, broker.id, policy)?,
        };
        let mut records = decided.records;
        // What is left after unfencing is found by those who look for partitions without a leader; what is left of
        // a shutdown comes with the next heartbeat.
        if decided.response == Progress::More && matches!(next, State::Fenced | State::Stopped) {
            return Ok(Decision { records, response: Progress::More });
        }
        records.extend(cordon(broker, request.cordoned_log_dirs.as_deref()));
        let response = BrokerHeartbeatResponse {
            is_caught_up: caught_up,
            is_fenced: matches!(next, State::Fenced | State::Stopped),
            should_shut_down: next == State::Stopped,
            ..BrokerHeartbeatResponse::default()
        };
        Ok(Decision { records, response: Progress::Done(response) })
    }

    fn next_state(&self, image: &Image, broker: &Broker, request: &BrokerHeartbeatRequest, caught_up: bool) -> State {
        let (fence, stop) = (request.want_fence, request.want_shut_down);
        if broker.fenced {
            return match (stop, fence) {
                (true, _) => State::Stopped,
                (false, false) if caught_up => State::Active,
                _ => State::Fenced,
            };
        }
        if broker.in_controlled_shutdown {
            let moved = self.contacts.get(&broker.id).and_then(|contact| contact.moved_at);
            return match moved {
                Some(offset) if self.lowest_active_offset(image) >= offset => State::Stopped,
                _ => State::Stopping,
            };
        }
        match (fence, stop) {
            (true, true) => State::Stopped,
            (true, false) => State::Fenced,
            (false, true) if image.leads_any(broker.id) => State::Stopping,
            (false, true) => State::Stopped,
            (false, false) => State::Active,
        }
    }
}

/// Where a broker stands after a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Active,
    /// Its leadership moves away.
    Stopping,
    /// Nobody relies on it any more.
    Stopped,
}

/// The broker, when the epoch is that of its registration.
pub fn check_epoch(image: &Image, broker_id: i32, epoch: i64) -> Result<&Broker, ApiError> {
    match image.broker(broker_id) {
        Some(broker) if broker.epoch == epoch => Ok(broker),
        Some(broker) => {
            let text = format!("Expected broker epoch {}, but got broker epoch {epoch}", broker.epoch);
            Err(ApiError::new(ErrorCode::StaleBrokerEpoch, text))
        }
        None => {
            let text = format!("No broker registration found for broker id {broker_id}");
            Err(ApiError::new(ErrorCode::StaleBrokerEpoch, text))
        }
    }
}

#[cfg(test)]
#[path = "heartbeats_test.rs"]
mod tests;
