//! ApiVersions: versions 0 to 5. What this broker serves, made from THE table.
//!
//! An unsupported version is answered in version 0, whatever was asked: the client then knows which
//! to use. No feature is announced until it is finished; clients read an absent one as level 0.

use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::wire::Encoded;
use klamm_protocol::{ApiKey, ErrorCode, frame};

use super::{Context, Refusal, Scope, TABLE, row};

/// Longest client software name or version that is kept.
const SOFTWARE_BYTES_MAX: usize = 256;

/// Answers with the table.
pub async fn handle(cx: &Context<'_>, request: ApiVersionsRequest) -> Result<ApiVersionsResponse, Refusal> {
    let mut answer = ApiVersionsResponse::default();
    if cx.version >= 3 {
        let (name, version) = (request.client_software_name, request.client_software_version);
        if !is_software_name(&name) || !is_software_name(&version) {
            answer.error_code = ErrorCode::InvalidRequest.code();
            return Ok(answer);
        }
        *cx.connection.software.lock() = (name, version);
    }
    // KIP-1242: a client that meant another cluster or node, after an address was reused.
    let other_cluster = request.cluster_id.is_some_and(|id| *id != *cx.broker.controller.cluster_id());
    let other_node = request.node_id >= 0 && request.node_id != cx.broker.config.node_id;
    if other_cluster || other_node {
        answer.error_code = ErrorCode::RebootstrapRequired.code();
        return Ok(answer);
    }
    let served = |api: &&super::Api| api.scope == Scope::Anyone && api.is_on(cx.connection.serves);
    answer.api_keys = TABLE.iter().filter(served).map(|api| ApiVersion {
        api_key: api.key as i16,
        min_version: api.advertised_min,
        max_version: api.max,
        ..Default::default()
    }).collect();
    answer.finalized_features_epoch = 0;
    Ok(answer)
}

/// The answer to a version that is not served: version 0 of the response, naming only this key.
pub fn unsupported(correlation_id: i32) -> Result<Encoded, Refusal> {
    let max_version = row(ApiKey::ApiVersions).map_or(0, |api| api.max);
    let answer = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![ApiVersion { api_key: ApiKey::ApiVersions as i16, min_version: 0, max_version, ..Default::default() }],
        ..Default::default()
    };
    Ok(frame::encode_response(0, correlation_id, &answer, 0)?)
}

/// Letters and digits, with `-` and `.` inside (KIP-511).
fn is_software_name(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= SOFTWARE_BYTES_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_follow_kip_511() {
        for good in ["a", "apache-kafka-java", "4.3.1", "x1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a_b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
