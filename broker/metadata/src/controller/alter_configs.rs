//! IncrementalAlterConfigs and the older AlterConfigs, which replaces a resource's whole configuration.
//!
//! A resource is changed as a whole or not at all; resources of one request don't depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::ClearElrRecord;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{self as legacy, AlterConfigsResponse};
use klamm_protocol::messages::incremental_alter_configs_request::{AlterableConfig, IncrementalAlterConfigsRequest};
use klamm_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use super::maintenance::{UNTIL, check_until};
use super::mistakes::{Mistake, made};
use super::policy::MIN_ISR;
use super::{ApiError, Context, Decision, Operation, RECORDS_MAX, fields, too_large};
use crate::dump::config_record;
use crate::image::{Entries, Image, Resource, ResourceType};
use crate::names;
use crate::record::MetadataRecord;

/// Longest value that Kafka stores.
const VALUE_MAX: usize = i16::MAX as usize;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Keys to set (or, when None, to remove).
type Changes = BTreeMap<String, Option<String>>;

/// Decides about an IncrementalAlterConfigs request.
pub fn incremental_alter_configs(
    image: &Image,
    request: &IncrementalAlterConfigsRequest,
    ctx: &Context<'_>,
) -> Decision<IncrementalAlterConfigsResponse> {
    let mut batch = Batch::new(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    let outcomes: Vec<_> = request
        .resources
        .iter()
        .map(|r| {
            let (kind, name) = (r.resource_type, r.resource_name.as_str());
            batch.add(image, kind, name, ctx, |resource, current| {
                check_keys(r.configs.iter().map(|c| c.name.as_str()))?;
                let nulls = r.configs.iter().filter(|c| c.config_operation != DELETE && c.value.is_none());
                check_no_nulls(nulls.map(|c| c.name.as_str()))?;
                r.configs.iter().map(|c| Ok((c.name.clone(), new_value(resource, c, current, ctx)?))).collect()
            })
        })
        .collect();
    let (records, outcomes) = batch.finish(outcomes, request.validate_only);
    let responses = request.resources.iter().zip(outcomes).map(|(r, outcome)| {
        let (error_code, error_message) = fields(&outcome);
        let (resource_type, resource_name) = (r.resource_type, r.resource_name.clone());
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    let responses = responses.collect();
    let response = IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() };
    Decision { records, response }
}

/// Decides about an AlterConfigs request.
pub fn alter_configs(
    image: &Image,
    request: &AlterConfigsRequest,
    ctx: &Context<'_>,
) -> Decision<AlterConfigsResponse> {
    let mut batch = Batch::new(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    let outcomes: Vec<_> = request
        .resources
        .iter()
        .map(|r| {
            if r.resource_type == ResourceType::BrokerLogger as i8 {
                return Err(unknown_type(r.resource_type));
            }
            let (kind, name) = (r.resource_type, r.resource_name.as_str());
            batch.add(image, kind, name, ctx, |_, current| {
                check_keys(r.configs.iter().map(|c| c.name.as_str()))?;
                check_no_nulls(r.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()))?;
                let mut changes: Changes = current.keys().map(|name| (name.clone(), None)).collect();
                changes.extend(r.configs.iter().map(|c| (c.name.clone(), c.value.clone())));
                Ok(changes)
            })
        })
        .collect();
    let (records, outcomes) = batch.finish(outcomes, request.validate_only);
    let responses = request.resources.iter().zip(outcomes).map(|(r, outcome)| {
        let (error_code, error_message) = fields(&outcome);
        let (resource_type, resource_name) = (r.resource_type, r.resource_name.clone());
        legacy::AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    let responses = responses.collect();
    Decision { records, response: AlterConfigsResponse { responses, ..AlterConfigsResponse::default() } }
}

/// Refuses values that are too long to be stored.
pub(super) fn check_values(configs: &Entries) -> Result<(), ApiError> {
    match configs.values().any(|value| value.len() > VALUE_MAX) {
        false => Ok(()),
        true => {
            let text = format!(
                "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_MAX} bytes."
            );
            Err(ApiError::new(ErrorCode::InvalidConfig, text))
        }
    }
}

/// The resources of one request on their way to records.
struct Batch<'r> {
    twice: BTreeSet<(i8, &'r str)>,
    records: Vec<MetadataRecord>,
}

impl<'r> Batch<'r> {
    fn new(resources: impl Iterator<Item = (i8, &'r str)>) -> Self {
        let mut seen = BTreeSet::new();
        Self { twice: resources.filter(|r| !seen.insert(*r)).collect(), records: Vec::new() }
    }

    fn add(
        &mut self,
        image: &Image,
        kind: i8,
        name: &'r str,
        ctx: &Context<'_>,
        changes: impl FnOnce(&Resource, &Entries) -> Result<Changes, ApiError>,
    ) -> Result<(), ApiError> {
        if self.twice.contains(&(kind, name)) {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "Each resource must appear at most once."));
        }
        let resource = known(image, kind, name, ctx)?;
        let none = Entries::new();
        let current = image.config(&resource).map_or(&none, |entries| &**entries);
        let changes = changes(&resource, current)?;
        let mut all = current.clone();
        for (key, value) in &changes {
            match value {
                Some(value) => drop(all.insert(key.clone(), value.clone())),
                None => drop(all.remove(key)),
            }
        }
        check_values(&all)?;
        if let (ResourceType::Broker, Some(until)) = (resource.kind, changes.get(UNTIL)) {
            check_until(until.as_deref(), ctx.now_ms)?;
        }
        let refusal = match resource.kind {
            ResourceType::Broker => ErrorCode::InvalidRequest,
            _ => ErrorCode::InvalidConfig,
        };
        ctx.rules.check(&resource, &all).map_err(|text| ApiError::new(refusal, text))?;
        if resource.kind == ResourceType::Topic && image.topic(name).is_none() {
            let text = format!("The topic '{name}' does not exist.");
            return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, text));
        }
        // A broker reads files again that its configuration names, so setting the same value is no empty change.
        let reload = resource.kind == ResourceType::Broker;
        let effective =
            changes.iter().filter(|(key, value)| current.get(*key) != value.as_ref() || (reload && value.is_some()));
        let before = self.records.len();
        self.records.extend(effective.map(|(key, value)| config_record(&resource, key, value.as_deref()).into()));
        let min_isr = changes.get(MIN_ISR).is_some_and(|value| current.get(MIN_ISR) != value.as_ref());
        if min_isr && self.records.len() > before && !made(Mistake::ElrOutlivesMinIsr) {
            self.records.extend(void_elr(&resource));
        }
        Ok(())
    }

    fn finish(
        mut self,
        outcomes: Vec<Result<(), ApiError>>,
        validate_only: bool,
    ) -> (Vec<MetadataRecord>, Vec<Result<(), ApiError>>) {
        if self.records.len() > RECORDS_MAX {
            return (Vec::new(), outcomes.into_iter().map(|outcome| outcome.and(Err(too_large()))).collect());
        }
        if validate_only {
            self.records.clear();
        }
        (self.records, outcomes)
    }
}

/// With another `min.insync.replicas` the high watermark may move while those who left the ISR are eligible still:
/// they would no longer hold everything.
fn void_elr(resource: &Resource) -> Option<MetadataRecord> {
    let topic_name = match resource.kind {
        ResourceType::Topic => resource.name.to_string(),
        ResourceType::Broker if resource.name.is_empty() => String::new(),
        _ => return None,
    };
    Some(ClearElrRecord { topic_name }.into())
}

fn unknown_type(kind: i8) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, format!("Unknown resource type {kind}"))
}

/// The resource, when it is one that can be configured here.
fn known(image: &Image, number: i8, name: &str, ctx: &Context<'_>) -> Result<Resource, ApiError> {
    let invalid = |text: String| Err(ApiError::new(ErrorCode::InvalidRequest, text));
    let kind = ResourceType::from_number(number).ok_or_else(|| unknown_type(number))?;
    match kind {
        ResourceType::Topic if name.is_empty() => return invalid("Default topic resources are not allowed.".into()),
        ResourceType::Topic => {
            names::check(name).map_err(|text| ApiError::new(ErrorCode::InvalidTopicException, text))?;
            if !(ctx.may)(Operation::Alter, name) {
                return Err(ErrorCode::TopicAuthorizationFailed.into());
            }
        }
        ResourceType::Broker if name.is_empty() => {}
        ResourceType::Broker => match name.parse::<i32>() {
            Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
            Ok(id) if image.broker(id).is_none() => {
                return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, format!("No node with id {id} found.")));
            }
            Ok(_) => {}
        },
        ResourceType::BrokerLogger => {
            return invalid("Log levels of this broker can't be changed while it runs.".into());
        }
        ResourceType::Group if name.is_empty() => return invalid("Default group resources are not allowed.".into()),
        ResourceType::Group | ResourceType::ClientMetrics => {}
    }
    Ok(Resource { kind, name: name.into() })
}

fn check_keys<'c>(keys: impl Iterator<Item = &'c str>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "Error due to duplicate config keys"));
        }
    }
    Ok(())
}

fn check_no_nulls<'c>(nulls: impl Iterator<Item = &'c str>) -> Result<(), ApiError> {
    let nulls: Vec<&str> = nulls.collect();
    if nulls.is_empty() {
        return Ok(());
    }
    let text = format!("Null value not supported for : {}", nulls.join(", "));
    Err(ApiError::new(ErrorCode::InvalidRequest, text))
}

/// The value that an operation leaves; None when it leaves none.
fn new_value(
    resource: &Resource,
    config: &AlterableConfig,
    current: &Entries,
    ctx: &Context<'_>,
) -> Result<Option<String>, ApiError> {
    let given = config.value.as_deref().unwrap_or_default();
    let verb = match config.config_operation {
        SET => return Ok(Some(given.to_owned())),
        DELETE => return Ok(None),
        APPEND => "append",
        SUBTRACT => "subtract",
        other => return Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown operations type {other}"))),
    };
    let key = &config.name;
    let is_broker = resource.kind == ResourceType::Broker;
    match ctx.rules.is_list(resource.kind, key) {
        Some(true) => {}
        None if is_broker => {
            return Err(ApiError::new(ErrorCode::InvalidConfig, format!("Unknown config name: {key}")));
        }
        _ => {
            let text = if is_broker {
                format!("Config value {verb} is not allowed for config key: {key}")
            } else {
                format!("Can't {} to key {key} because its type is not LIST.", verb.to_uppercase())
            };
            return Err(ApiError::new(ErrorCode::InvalidConfig, text));
        }
    }
    let before = current.get(key).cloned().or_else(|| ctx.rules.default_value(resource.kind, key)).unwrap_or_default();
    let mut list: Vec<&str> = before.split(',').filter(|item| !item.is_empty()).collect();
    for item in given.split(',') {
        let at = list.iter().position(|have| *have == item);
        match (config.config_operation, at) {
            (APPEND, None) => list.push(item),
            (SUBTRACT, Some(at)) => drop(list.remove(at)),
            _ => {}
        }
    }
    // The last item is gone, and nothing is the default: as if it had never been set. Kafka keeps an empty list, which
    // leaves those who share one (throttled replicas) with no way to clear it that does not take away what another adds.
    let none = list.is_empty() && config.config_operation == SUBTRACT;
    let unset = none && ctx.rules.default_value(resource.kind, key).is_none_or(|default| default.is_empty());
    Ok((!unset).then(|| list.join(",")))
}
