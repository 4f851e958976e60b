//! Arguments that more than one command takes.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use klamm_client::{Client, ClientError, TopicPartition};
use klamm_protocol::error::ErrorCode;

use super::Result;

/// `KEY=VALUE`.
pub(super) type KeyValue = (String, String);

/// Parses `KEY=VALUE`; the value may hold further equals signs, or nothing.
pub(super) fn key_value(text: &str) -> std::result::Result<KeyValue, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `TOPIC` or `TOPIC:0,1,2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicArg {
    topic: String,
    /// Empty: all of them.
    partitions: Vec<i32>,
}

/// Parses `TOPIC` or `TOPIC:0,1,2`. A colon can't be part of a topic's name.
pub(super) fn topic_arg(text: &str) -> std::result::Result<TopicArg, String> {
    let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
    let numbers = partitions.split(',').filter(|_| !partitions.is_empty());
    let partitions: std::result::Result<Vec<i32>, _> = numbers.map(str::parse).collect();
    match partitions {
        Ok(partitions) if !topic.is_empty() && partitions.iter().all(|p| *p >= 0) => {
            Ok(TopicArg { topic: topic.to_owned(), partitions })
        }
        _ => Err("expected TOPIC or TOPIC:0,1,2".to_owned()),
    }
}

impl TopicArg {
    pub(super) fn new(topic: &str, partitions: &[i32]) -> Self {
        Self { topic: topic.to_owned(), partitions: partitions.to_vec() }
    }

    /// The partitions it stands for, which must exist.
    pub(super) async fn partitions(&self, client: &Client) -> Result<BTreeSet<TopicPartition>> {
        let topic = client.topic(&self.topic).await?;
        let all = topic.partitions.iter().map(|p| p.index);
        let chosen: Vec<i32> = if self.partitions.is_empty() { all.collect() } else { self.partitions.clone() };
        for partition in &chosen {
            if topic.partition(*partition).is_none() {
                let code = ErrorCode::UnknownTopicOrPartition.code();
                let message = format!("the topic's number of partitions is {}", topic.partitions.len());
                let what = format!("partition {partition} of topic {}", self.topic);
                ClientError::check(what, code, Some(&message))?;
            }
        }
        Ok(chosen.into_iter().map(|partition| TopicPartition::new(&self.topic, partition)).collect())
    }
}

/// The content of a file, or of stdin where it is called `-`. One larger than `limit`, or without end as a device is, is
/// refused before it fills the memory.
pub(super) fn read_file(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let read = |source: &mut dyn Read| {
        let mut bytes = Vec::new();
        source.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")))
    };
    if file == Path::new("-") { read(&mut io::stdin().lock()) } else { read(&mut std::fs::File::open(file)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() -> io::Result<()> {
        let endless = read_file(Path::new("/dev/zero"), 1 << 20);
        let why = endless.expect_err("refused").to_string();
        assert!(why.contains("more than 1048576 bytes"), "{why}");
        let file = std::env::temp_dir().join(format!("klamm-input-{}", std::process::id()));
        std::fs::write(&file, "12345")?;
        assert_eq!(read_file(&file, 5)?, b"12345");
        assert!(read_file(&file, 4).is_err());
        std::fs::remove_file(file)
    }

    #[test]
    fn key_values_are_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }

    #[test]
    fn topics_may_name_partitions() {
        assert_eq!(topic_arg("t"), Ok(TopicArg::new("t", &[])));
        assert_eq!(topic_arg("t:0,12"), Ok(TopicArg::new("t", &[0, 12])));
        for bad in ["", ":1", "t:x", "t:-1", "t:1,"] {
            assert!(topic_arg(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
