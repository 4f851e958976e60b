//! DeleteTopics, by name or by id. The cluster's own topics can be deleted as well, as in Kafka.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use klamm_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use klamm_protocol::messages::*;

use super::{ApiError, Context, Decision, Operation, RECORDS_MAX, fields, too_large};
use crate::image::Image;

/// A topic as the request names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted<'r> {
    Name(&'r str),
    Id(Uuid),
    Both(&'r str, Uuid),
    Neither,
}

/// Decides about a DeleteTopics request in `version`; `enabled` is `delete.topic.enable`.
pub fn delete_topics(
    image: &Image,
    request: &DeleteTopicsRequest,
    version: i16,
    enabled: bool,
    ctx: &Context<'_>,
) -> Decision<DeleteTopicsResponse> {
    let by_name = request.topic_names.iter().map(|name| Wanted::Name(name));
    let by_either = request.topics.iter().map(|topic| match (&topic.name, topic.topic_id.is_zero()) {
        (Some(name), true) => Wanted::Name(name),
        (Some(name), false) => Wanted::Both(name, topic.topic_id),
        (None, false) => Wanted::Id(topic.topic_id),
        (None, true) => Wanted::Neither,
    });
    let wanted: Vec<Wanted<'_>> = by_name.chain(by_either).collect();
    if !enabled {
        let error = if version < 3 {
            ApiError::new(ErrorCode::InvalidRequest, "This version does not support topic deletion.")
        } else {
            ErrorCode::TopicDeletionDisabled.into()
        };
        let results = wanted.iter().map(|w| result(*w, Uuid::ZERO, &Err(error.clone()))).collect();
        return Decision::only(DeleteTopicsResponse { responses: results, ..DeleteTopicsResponse::default() });
    }
    let mut times: BTreeMap<Wanted<'_>, usize> = BTreeMap::new();
    for one in &wanted {
        *times.entry(*one).or_default() += 1;
    }
    let mut records = Vec::new();
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    // Ids that the request spells out: naming the same topic by name as well is an error.
    let spelled: BTreeSet<Uuid> =
        wanted.iter().filter_map(|w| if let Wanted::Id(id) = w { Some(*id) } else { None }).collect();
    for one in wanted {
        let repeatable = matches!(one, Wanted::Both(..) | Wanted::Neither);
        if !repeatable && !answered.insert(one) {
            continue;
        }
        let (id, name, outcome) = match find(image, one, times[&one] > 1 && !repeatable, &spelled, ctx) {
            Ok((id, name)) => (id, Some(name), Ok(())),
            Err((id, error)) => (id, None, Err(error)),
        };
        if outcome.is_ok() {
            records.push(RemoveTopicRecord { topic_id: id }.into());
        }
        let mut answer = result(one, id, &outcome);
        answer.name = answer.name.or(name);
        results.push(answer);
    }
    if records.len() > RECORDS_MAX {
        for answer in results.iter_mut().filter(|r| r.error_code == 0) {
            (answer.error_code, answer.error_message) = fields(&Err(too_large()));
        }
        records.clear();
    }
    Decision { records, response: DeleteTopicsResponse { responses: results, ..DeleteTopicsResponse::default() } }
}

fn result(wanted: Wanted<'_>, id: Uuid, outcome: &Result<(), ApiError>) -> DeletableTopicResult {
    let (name, topic_id) = match wanted {
        Wanted::Name(name) => (Some(name.to_owned()), id),
        Wanted::Id(id) => (None, id),
        Wanted::Both(name, id) => (Some(name.to_owned()), id),
        Wanted::Neither => (None, Uuid::ZERO),
    };
    let (error_code, error_message) = fields(outcome);
    DeletableTopicResult { name, topic_id, error_code, error_message }
}

/// The topic that may be deleted. An error carries the id that its answer may show.
fn find(
    image: &Image,
    wanted: Wanted<'_>,
    repeated: bool,
    spelled: &BTreeSet<Uuid>,
    ctx: &Context<'_>,
) -> Result<(Uuid, String), (Uuid, ApiError)> {
    let invalid = |text: &str| Err((Uuid::ZERO, ApiError::new(ErrorCode::InvalidRequest, text)));
    match wanted {
        Wanted::Neither => invalid("Neither topic name nor id were specified."),
        Wanted::Both(..) => invalid("You may not specify both topic name and topic id."),
        Wanted::Name(_) if repeated => invalid("Duplicate topic name."),
        Wanted::Id(_) if repeated => invalid("Duplicate topic id."),
        Wanted::Name(name) => {
            let denied = || Err((Uuid::ZERO, ErrorCode::TopicAuthorizationFailed.into()));
            if !(ctx.may)(Operation::Describe, name) {
                return denied();
            }
            let Some(topic) = image.topic(name) else {
                return Err((Uuid::ZERO, ErrorCode::UnknownTopicOrPartition.into()));
            };
            if !(ctx.may)(Operation::Delete, name) {
                return denied();
            }
            if spelled.contains(&topic.id) {
                let text = "The provided topic name maps to an ID that was already supplied.";
                return Err((topic.id, ApiError::new(ErrorCode::InvalidRequest, text)));
            }
            Ok((topic.id, name.to_owned()))
        }
        Wanted::Id(id) => match image.topic_by_id(id) {
            None => Err((id, ErrorCode::UnknownTopicId.into())),
            Some(topic) if !(ctx.may)(Operation::Delete, &topic.name) => {
                Err((id, ErrorCode::TopicAuthorizationFailed.into()))
            }
            Some(topic) => Ok((id, topic.name.to_string())),
        },
    }
}
