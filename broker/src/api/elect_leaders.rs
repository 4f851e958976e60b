//! ElectLeaders: versions 0 to 2. Gives partitions back to their preferred leaders, or elects an unclean one.

use klamm_metadata::controller::{self, Decision};
use klamm_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: ElectLeadersRequest) -> Result<ElectLeadersResponse, Refusal> {
    let decided = cx.broker.decide(|image, deciding| match controller::elect_leaders(image, &request, deciding) {
        Ok(decision) => decision,
        Err(refused) => {
            Decision::only(failed(&request, refused.code.code(), refused.message))
        }
    });
    Ok(decided.await.unwrap_or_else(|code| failed(&request, code.code(), Some(code.message().into()))))
}

fn failed(request: &ElectLeadersRequest, code: i16, message: Option<String>) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic
            .partitions
            .iter()
            .map(|partition| PartitionResult {
                partition_id: *partition,
                error_code: code,
                error_message: message.clone(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    ElectLeadersResponse { error_code: code, replica_election_results: topics.collect(), ..Default::default() }
}
