//! Topic names that are none.

use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{CreateTopicsRequest, MetadataRequest};

use crate::fixture::Target;

const INVALID_TOPIC_EXCEPTION: i16 = 17;

fn illegal() -> Vec<String> {
    let mut names: Vec<String> =
        ["", ".", "..", "a/b", "../../etc/passwd", "a b", "a\nb", "a\0b", "naïve", "語", "a:b", "a*"]
            .iter()
            .map(|n| (*n).to_owned())
            .collect();
    names.push("x".repeat(250));
    names.push("x".repeat(30_000));
    names
}

#[test]
fn illegal_topic_names_are_never_created() {
    let target = Target::new("illegal names");
    let names = illegal();
    for name in &names {
        let topic =
            CreatableTopic { name: name.clone(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        for version in [2, 5, 7] {
            let response = target.call(&request, version);
            let code = response.topics.first().map(|t| t.error_code);
            assert_eq!(code, Some(INVALID_TOPIC_EXCEPTION), "{:?} v{version}", name.get(..20.min(name.len())));
        }
    }
    target.unharmed(names.len() * 3);
}

#[test]
fn automatic_creation_refuses_illegal_names() {
    let target = Target::new("illegal names in Metadata");
    let names = illegal();
    for name in &names {
        let topic = MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
        for version in [4, 9, 12] {
            let response = target.call(&request, version);
            let code = response.topics.first().map(|t| t.error_code);
            // Kafka looks an empty name up before it judges it.
            let fine = code == Some(INVALID_TOPIC_EXCEPTION) || (name.is_empty() && code == Some(3));
            assert!(fine, "{:?} v{version}: {code:?}", name.get(..20.min(name.len())));
        }
    }
    target.unharmed(names.len() * 3);
}
