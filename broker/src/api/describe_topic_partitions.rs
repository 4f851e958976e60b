//! DescribeTopicPartitions: version 0 (KIP-966). Topics by name, a page at a time.

use klamm_metadata::describe;
use klamm_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use klamm_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic;

use super::describe_cluster::TOPIC_OPERATIONS;
use super::{Context, Refusal};
use crate::cluster::visible::Visible;

/// Answers from the published image.
pub async fn handle(cx: &Context<'_>, request: DescribeTopicPartitionsRequest) -> Result<DescribeTopicPartitionsResponse, Refusal> {
    let limit = cx.broker.config.max_partitions_per_answer;
    let image = cx.broker.controller.image();
    match describe::describe_topic_partitions(&image, &request, limit, &|_, _| true) {
        Ok(mut response) => {
            for topic in response.topics.iter_mut().filter(|topic| topic.error_code == 0) {
                topic.topic_authorized_operations = TOPIC_OPERATIONS;
                for described in &mut topic.partitions {
                    let index = described.partition_index;
                    let Some(partition) = image.topic_by_id(topic.topic_id).and_then(|t| t.partition(index)) else {
                        continue;
                    };
                    let visible = Visible::of(cx.broker, &image, topic.topic_id, index, partition);
                    described.error_code = visible.error.code();
                    described.leader_id = visible.leader;
                    described.isr_nodes = visible.isr;
                    described.offline_replicas = visible.offline;
                }
            }
            Ok(response)
        }
        // The response has no place for an error but its topics.
        Err(error) => {
            let topics = request.topics.into_iter().map(|topic| DescribeTopicPartitionsResponseTopic {
                error_code: error.code.code(),
                name: Some(topic.name),
                ..Default::default()
            });
            Ok(DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() })
        }
    }
}
