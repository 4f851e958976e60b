//! What became of what was asked for: of a broker, or of each of several partitions.

use std::io::{self, Write};

use klamm_client::{ClientError, TopicPartition};
use serde::Serialize;

use super::output::{Show, Table};

/// What was done to a broker.
#[derive(Debug, Serialize)]
pub(super) struct BrokerOutcome {
    pub id: i32,
    pub result: &'static str,
}

impl Show for BrokerOutcome {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "broker {} {}", self.id, self.result)
    }
}

/// What was done to a partition.
#[derive(Debug, Serialize)]
pub(super) struct PartitionOutcome {
    pub topic: String,
    pub partition: i32,
    /// What was done, or `failed`.
    pub result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PartitionOutcome {
    /// From the broker's answer.
    pub fn new(at: TopicPartition, outcome: Result<&'static str, ClientError>) -> Self {
        let (result, error) = match outcome {
            Ok(result) => (result, None),
            Err(error) => ("failed", Some(error.to_string())),
        };
        Self { topic: at.topic, partition: at.partition, result, error }
    }

    /// A row for each.
    pub fn table<'a>(outcomes: impl IntoIterator<Item = &'a Self>) -> Table {
        let mut table = Table::new(&["TOPIC", "PARTITION", "RESULT", "ERROR"]);
        for one in outcomes {
            let error = one.error.clone().unwrap_or_default();
            table.row([one.topic.clone(), one.partition.to_string(), one.result.to_owned(), error]);
        }
        table
    }

    /// How many failed.
    pub fn failed(outcomes: &[Self]) -> usize {
        outcomes.iter().filter(|one| one.error.is_some()).count()
    }
}
