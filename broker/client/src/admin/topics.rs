//! Creating, growing and deleting topics, and cutting their records.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
};

use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::cluster::Topic;
use crate::error::{ClientError, Result};

/// How long to wait for metadata to show a change.
const METADATA_PATIENCE: Duration = Duration::from_secs(5);

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions; `None` leaves it to the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// Copies of each partition; `None` leaves it to `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Replicas by partition instead of the two numbers, the preferred leader first.
    pub assignments: Vec<Vec<i32>>,
    /// Topic configs.
    pub configs: Vec<(String, String)>,
    /// Only check whether it could be created.
    pub validate_only: bool,
}

/// What a new topic became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id, zero from old brokers and when only validated.
    pub id: Uuid,
    /// Number of partitions, -1 when the broker doesn't say.
    pub partitions: i32,
    /// Copies of each partition, -1 when the broker doesn't say.
    pub replication_factor: i16,
}

impl Client {
    /// Creates one topic; returns when the broker asked for metadata knows it with all its leaders.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic> {
        let created =
            self.retry(|| async { only(&topic.name, self.ask_to_create(std::slice::from_ref(topic)).await?)? });
        let created = created.await?;
        if !topic.validate_only {
            self.until_known(&[&topic.name], |_, known| led(known)).await;
        }
        Ok(created)
    }

    /// Creates several topics with one request; an answer for each, in their order. As [`create_topic`](Self::create_topic)
    /// it returns when metadata know them.
    ///
    /// # Errors
    /// Nobody answered: nothing is known of any of them.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<CreatedTopic>>> {
        let created = self.retry(|| async { decided(self.ask_to_create(topics).await?) }).await?;
        let made = topics.iter().zip(&created).filter(|(topic, created)| created.is_ok() && !topic.validate_only);
        let made: Vec<&str> = made.map(|(topic, _)| topic.name.as_str()).collect();
        self.until_known(&made, |_, known| led(known)).await;
        Ok(created)
    }

    async fn ask_to_create(&self, topics: &[NewTopic]) -> Result<Vec<Result<CreatedTopic>>> {
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only: topics.iter().any(|topic| topic.validate_only),
        };
        let answer = self.controller().await?.call(&request).await?;
        let mut answers: BTreeMap<_, _> = answer.topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let results = topics.iter().map(|topic| {
            let what = format!("topic {}", topic.name);
            let created = answers.remove(&topic.name).ok_or_else(|| ClientError::missing(&what))?;
            ClientError::check(what, created.error_code, created.error_message.as_deref())?;
            Ok(CreatedTopic {
                id: created.topic_id,
                partitions: created.num_partitions,
                replication_factor: created.replication_factor,
            })
        });
        Ok(results.collect())
    }

    /// Deletes one topic. The broker removes its data some time later.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        only(name, self.delete_topics(&[name]).await?)?
    }

    /// Deletes several topics with one request; an answer for each, in their order.
    ///
    /// # Errors
    /// Nobody answered: nothing is known of any of them.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<()>>> {
        let state = |name: &&str| DeleteTopicState { name: Some((*name).to_owned()), ..Default::default() };
        let request = DeleteTopicsRequest {
            topics: names.iter().map(state).collect(),
            topic_names: names.iter().map(|name| (*name).to_owned()).collect(),
            timeout_ms: self.timeout_ms(),
        };
        let deleted = self.retry(|| async {
            let answer = self.controller().await?.call(&request).await?;
            let mut answers: BTreeMap<_, _> =
                answer.responses.into_iter().map(|result| (result.name.clone().unwrap_or_default(), result)).collect();
            let results = names.iter().map(|name| {
                let what = format!("topic {name}");
                let result = answers.remove(*name).ok_or_else(|| ClientError::missing(&what))?;
                ClientError::check(what, result.error_code, result.error_message.as_deref())
            });
            decided(results.collect())
        });
        let deleted = deleted.await?;
        let gone = names.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_ok());
        self.until_known(&gone.map(|(name, _)| *name).collect::<Vec<_>>(), |_, known| known.is_none()).await;
        Ok(deleted)
    }

    /// Raises a topic's number of partitions to `count`.
    pub async fn create_partitions(&self, topic: &str, count: i32, validate_only: bool) -> Result<()> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: topic.to_owned(), count, assignments: None }],
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let grown = self.retry(|| async {
            let answer = self.controller().await?.call(&request).await?;
            let what = format!("topic {topic}");
            let result = answer.results.into_iter().next();
            let result = result.ok_or_else(|| ClientError::missing(&what))?;
            once(ClientError::check(what, result.error_code, result.error_message.as_deref()))
        });
        grown.await??;
        if !validate_only {
            let enough = |known: &Topic| i32::try_from(known.partitions.len()).is_ok_and(|n| n >= count);
            self.until_known(&[topic], |_, known| known.is_some_and(enough)).await;
        }
        Ok(())
    }

    /// Waits a moment for metadata to catch up with a change that the controller has made, so that
    /// the next call sees it. Not an error when it takes longer: the change is made.
    async fn until_known(&self, topics: &[&str], seen: impl Fn(&str, Option<&Topic>) -> bool) {
        let deadline = Instant::now() + METADATA_PATIENCE;
        let mut pause = self.backoff();
        let mut left = topics.to_vec();
        while !left.is_empty() {
            if let Ok(cluster) = self.refresh(Some(&left)).await {
                let known = |name| cluster.topics.get(name).filter(|t| t.error != ErrorCode::UnknownTopicOrPartition);
                left.retain(|name| !seen(name, known(*name)));
            }
            let wait = pause.next_pause();
            if left.is_empty() || Instant::now() + wait > deadline {
                return;
            }
            sleep(wait).await;
        }
    }

    /// All topics of the cluster, internal ones included, by name.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        let cluster = self.retry(|| self.refresh(None)).await?;
        Ok(cluster.topics.values().cloned().collect())
    }

    /// Moves the log start of partitions of one topic up to the given offsets (-1: everything up to
    /// the high watermark). Returns the new log start offsets.
    pub async fn delete_records(&self, topic: &str, before: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>> {
        let known = self.topic(topic).await?;
        let mut starts = BTreeMap::new();
        for (&partition, &offset) in before {
            let what = format!("{topic}-{partition}");
            if known.partition(partition).is_none() {
                let code = ErrorCode::UnknownTopicOrPartition.code();
                ClientError::check(what, code, None)?;
                continue;
            }
            let request = DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: topic.to_owned(),
                    partitions: vec![DeleteRecordsPartition { partition_index: partition, offset }],
                }],
                timeout_ms: self.timeout_ms(),
            };
            let start = self.retry(|| async {
                let answer = self.leader(topic, partition).await?.call(&request).await?;
                let result = answer.topics.into_iter().flat_map(|t| t.partitions).next();
                let result = result.ok_or_else(|| ClientError::missing(&what))?;
                ClientError::check(&what, result.error_code, None)?;
                Ok(result.low_watermark)
            });
            starts.insert(partition, start.await?);
        }
        Ok(starts)
    }

    /// The time the broker gets for a change, as the request field wants it.
    pub(crate) fn timeout_ms(&self) -> i32 {
        let limit = self.options().connection.request_timeout.min(Duration::from_secs(60));
        // Less than we wait ourselves, so that the broker's own answer about it arrives.
        i32::try_from(limit.as_millis() / 2).unwrap_or(i32::MAX)
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let assignments = (0..).zip(&topic.assignments);
    let configs = topic.configs.iter();
    CreatableTopic {
        name: topic.name.clone(),
        num_partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments: assignments
            .map(|(partition_index, brokers)| CreatableReplicaAssignment {
                partition_index,
                broker_ids: brokers.clone(),
            })
            .collect(),
        configs: configs
            .map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) })
            .collect(),
    }
}

/// Whether clients can use the topic: every partition has a leader.
fn led(topic: Option<&Topic>) -> bool {
    topic.is_some_and(|topic| !topic.partitions.is_empty() && topic.partitions.iter().all(|p| p.leader >= 0))
}

/// The answer to the only question.
fn only<T>(name: &str, mut answers: Vec<T>) -> Result<T> {
    answers.pop().ok_or_else(|| ClientError::missing(format!("topic {name}")))
}

/// Answers of which none says more than "later" are none: the question is put again. "No such topic" says more.
fn decided<T>(answers: Vec<Result<T>>) -> Result<Vec<Result<T>>> {
    let later = |error: &&ClientError| error.is_retriable() && error.code() != Some(ErrorCode::UnknownTopicOrPartition);
    let undecided = answers.iter().map(|answer| answer.as_ref().err().filter(later));
    match undecided.collect::<Option<Vec<_>>>().and_then(|errors| errors.first().copied().cloned()) {
        Some(error) => Err(error),
        None => Ok(answers),
    }
}

/// "No such topic" counts as retriable because metadata may lag behind. For a change the controller
/// has decided it, so it must not be asked again: the outer `Ok` ends the retries.
fn once(result: Result<()>) -> Result<Result<()>> {
    match &result {
        Err(error) if error.code() != Some(ErrorCode::UnknownTopicOrPartition) => result.map(|()| Ok(())),
        _ => Ok(result),
    }
}
