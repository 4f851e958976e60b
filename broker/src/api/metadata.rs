//! Metadata: versions 0 to 13. Brokers, topics and who leads their partitions; makes missing topics when
//! the client and `auto.create.topics.enable` agree.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_metadata::controller::named_topics;
use klamm_metadata::image::NO_LEADER;
use klamm_metadata::{Image, Partition, Topic, names};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ErrorCode, Uuid};

use super::describe_cluster::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS};
use super::{Context, Refusal};
use crate::cluster::internal_topics;
use crate::cluster::visible::Visible;

/// Answers from the published image.
pub async fn handle(cx: &Context<'_>, request: MetadataRequest) -> Result<MetadataResponse, Refusal> {
    let all = request.topics.is_none() || (cx.version == 0 && request.topics.as_ref().is_some_and(Vec::is_empty));
    let asked = request.topics.filter(|_| !all).unwrap_or_default();
    let create = cx.broker.config.auto_create_topics && (cx.version < 4 || request.allow_auto_topic_creation);
    if create && !asked.is_empty() {
        create_missing(cx, &asked).await;
    }
    let image = cx.broker.controller.image();
    let mut topics: Vec<_> = if all {
        image.topics().map(|topic| described(cx, &image, topic)).collect()
    } else {
        asked.iter().map(|topic| one(cx, &image, topic)).collect()
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let brokers = cx.broker.controller.nodes(&cx.connection.listener).into_iter().map(|node| MetadataResponseBroker {
        node_id: node.id,
        host: node.host,
        port: node.port,
        rack: node.rack,
    });
    let mut answer = MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(cx.broker.controller.cluster_id().to_string()),
        controller_id: cx.broker.controller.node_to_ask(),
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(answer)
}

/// Makes those topics that are asked for by name and do not exist. What cannot be made is answered like
/// any unknown topic.
async fn create_missing(cx: &Context<'_>, asked: &[MetadataRequestTopic]) {
    let image = cx.broker.controller.image();
    let missing: BTreeSet<&str> = asked
        .iter()
        .filter_map(|topic| topic.name.as_deref())
        .filter(|name| image.topic(name).is_none() && names::check(name).is_ok())
        .collect();
    let (internal, plain): (Vec<_>, Vec<_>) = missing.into_iter().partition(|name| names::is_internal(name));
    for name in internal {
        if let Err(code) = internal_topics::create(cx.broker, name).await {
            tracing::debug!(topic = name, code = code.name(), "internal topic not made");
        }
    }
    if plain.is_empty() {
        return;
    }
    let request = named_topics(plain);
    if let Err(code) = cx.broker.forwarder.call(cx.broker, &request).await {
        tracing::warn!(code = code.name(), "topics not made on first use");
    }
}

fn one(cx: &Context<'_>, image: &Image, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    let failed = |name: Option<String>, id: Uuid, code: ErrorCode| MetadataResponseTopic {
        error_code: code.code(),
        name,
        topic_id: id,
        ..Default::default()
    };
    if !asked.topic_id.is_zero() {
        if cx.version < 12 {
            return failed(asked.name.clone().or_else(|| Some(String::new())), asked.topic_id, ErrorCode::InvalidRequest);
        }
        return match image.topic_by_id(asked.topic_id) {
            Some(topic) => described(cx, image, topic),
            None => failed(None, asked.topic_id, ErrorCode::UnknownTopicId),
        };
    }
    let Some(name) = &asked.name else {
        return failed(Some(String::new()).filter(|_| cx.version < 12), Uuid::ZERO, ErrorCode::InvalidRequest);
    };
    match image.topic(name) {
        Some(topic) => described(cx, image, topic),
        None if names::check(name).is_err() => failed(Some(name.clone()), Uuid::ZERO, ErrorCode::InvalidTopicException),
        None => failed(Some(name.clone()), Uuid::ZERO, ErrorCode::UnknownTopicOrPartition),
    }
}

fn described(cx: &Context<'_>, image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let listener = &cx.connection.listener;
    let describe = |(partition_index, partition): (i32, &Arc<Partition>)| {
        let visible = Visible::of(cx.broker, image, topic.id, partition_index, partition);
        let unreachable = visible.leader >= 0 && cx.broker.controller.node(visible.leader, listener).is_none();
        let error = match visible.error {
            ErrorCode::None if unreachable && cx.version >= 6 => ErrorCode::ListenerNotFound,
            ErrorCode::None if unreachable => ErrorCode::LeaderNotAvailable,
            error => error,
        };
        MetadataResponsePartition {
            error_code: error.code(),
            partition_index,
            leader_id: if unreachable { NO_LEADER } else { visible.leader },
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: visible.isr,
            offline_replicas: visible.offline,
            ..Default::default()
        }
    };
    let partitions = (0..).zip(&topic.partitions).map(describe);
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: names::is_internal(&topic.name),
        partitions: partitions.collect(),
        ..Default::default()
    }
}
