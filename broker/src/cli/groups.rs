//! `klamm groups`: list, describe, delete; moving offsets is in `offsets`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use clap::Subcommand;
use klamm_client::admin::groups::{GroupDescription, GroupMember};
use klamm_client::admin::offsets::{OffsetSpec, Offsets};
use klamm_client::{Client, Isolation, TopicPartition};
use serde::Serialize;

use super::offsets::{ResetOffsets, reset};
use super::output::{Show, Table, list, or_dash, print};
use super::{Global, Result};

/// `klamm groups`.
#[derive(Debug, Subcommand)]
pub(super) enum Groups {
    /// List groups
    #[command(visible_alias = "ls")]
    List {
        /// Show only groups in this state, such as stable or empty
        #[arg(long)]
        state: Option<String>,
    },
    /// Show groups with their offsets, lag and members
    Describe {
        /// Groups to show
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Delete groups without members, with their offsets
    Delete {
        /// Groups to delete
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Move the offsets of a group without members
    ResetOffsets(ResetOffsets),
}

pub(super) async fn run(global: Global, command: Groups) -> Result {
    let client = global.connect().await?;
    match command {
        Groups::List { state } => print(global.output, &list_groups(&client, state).await?),
        Groups::Describe { names } => {
            let mut described = Vec::new();
            for name in &names {
                described.push(describe(&client, name).await?);
            }
            print(global.output, &described)
        }
        Groups::Delete { names } => {
            let (mut deleted, mut failed) = (Vec::new(), None);
            for group in names {
                match client.delete_group(&group).await {
                    Ok(()) => deleted.push(Deleted { group, result: "deleted" }),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            print(global.output, &deleted)?;
            failed.map_or(Ok(()), |error| Err(error.into()))
        }
        Groups::ResetOffsets(args) => print(global.output, &reset(&client, args).await?),
    }
}

#[derive(Debug, Serialize)]
struct Deleted {
    group: String,
    result: &'static str,
}

impl Show for Vec<Deleted> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.iter().try_for_each(|deleted| writeln!(out, "group {} {}", deleted.group, deleted.result))
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    group: String,
    state: String,
    /// `classic`, `consumer`, `share` or `streams`.
    #[serde(rename = "type")]
    kind: String,
    protocol_type: String,
    coordinator: i32,
}

impl Show for Vec<Listed> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["GROUP", "STATE", "TYPE", "PROTOCOL", "COORDINATOR"]);
        for g in self {
            let coordinator = g.coordinator.to_string();
            table.row([g.group.clone(), g.state.clone(), g.kind.clone(), g.protocol_type.clone(), coordinator]);
        }
        table.write(out)
    }
}

async fn list_groups(client: &Client, state: Option<String>) -> Result<Vec<Listed>> {
    let groups = client.list_groups().await?.into_iter();
    let wanted = |found: &str| state.as_ref().is_none_or(|state| found.eq_ignore_ascii_case(state));
    let shown = groups.filter(|group| wanted(&group.state)).map(|group| Listed {
        group: group.id,
        state: group.state,
        kind: group.kind,
        protocol_type: group.protocol_type,
        coordinator: group.coordinator,
    });
    Ok(shown.collect())
}

#[derive(Debug, Serialize)]
struct Described {
    group: String,
    state: String,
    #[serde(rename = "type")]
    kind: &'static str,
    protocol_type: String,
    assignor: String,
    /// HOST:PORT.
    coordinator: String,
    /// Sum of the lags that are known.
    lag: i64,
    partitions: Vec<Row>,
    members: Vec<Member>,
}

/// A partition that the group has committed, or that a member holds.
#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    current_offset: Option<i64>,
    end_offset: Option<i64>,
    lag: Option<i64>,
    metadata: Option<String>,
    member_id: Option<String>,
    host: Option<String>,
    client_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Member {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    assignment: BTreeMap<String, Vec<i32>>,
}

async fn describe(client: &Client, name: &str) -> Result<Described> {
    let group = client.describe_group(name).await?;
    let committed = client.group_offsets(name, false).await?;
    let mut holders: BTreeMap<TopicPartition, &GroupMember> = BTreeMap::new();
    for member in &group.members {
        for (topic, partitions) in &member.assignment {
            holders.extend(partitions.iter().map(|p| (TopicPartition::new(topic, *p), member)));
        }
    }
    let all: BTreeSet<TopicPartition> = committed.keys().chain(holders.keys()).cloned().collect();
    let ends = ends(client, &all).await?;
    let rows: Vec<Row> = all
        .into_iter()
        .map(|at| {
            let offset = committed.get(&at);
            let end = ends.get(&at).and_then(|end| end.as_ref().ok()).map(|end| end.offset);
            let holder = holders.get(&at);
            Row {
                current_offset: offset.map(|c| c.offset),
                end_offset: end,
                // Negative for a moment when the end was asked for before the last commit.
                lag: end.zip(offset).map(|(end, c)| (end - c.offset).max(0)),
                metadata: offset.map(|c| c.metadata.clone()).filter(|m| !m.is_empty()),
                member_id: holder.map(|m| m.id.clone()),
                host: holder.map(|m| host(m)),
                client_id: holder.map(|m| m.client_id.clone()),
                topic: at.topic,
                partition: at.partition,
            }
        })
        .collect();
    Ok(described(group, rows))
}

/// Ends of partitions; one without a leader stays unknown instead of holding up the rest.
async fn ends(client: &Client, partitions: &BTreeSet<TopicPartition>) -> Result<Offsets> {
    let topics: BTreeSet<&str> = partitions.iter().map(|at| at.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let cluster = client.retry(|| client.refresh(Some(&topics))).await?;
    let led = |at: &&TopicPartition| cluster.partition(&at.topic, at.partition).is_some_and(|p| p.leader >= 0);
    let led: BTreeSet<TopicPartition> = partitions.iter().filter(led).cloned().collect();
    Ok(client.list_offsets(&led, OffsetSpec::Latest, Isolation::ReadUncommitted).await?)
}

fn described(group: GroupDescription, partitions: Vec<Row>) -> Described {
    let members = group.members.into_iter().map(|member| Member {
        host: host(&member),
        member_id: member.id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        assignment: member.assignment,
    });
    Described {
        group: group.id,
        state: group.state,
        kind: group.kind,
        protocol_type: group.protocol_type,
        assignor: group.assignor,
        coordinator: group.coordinator,
        lag: partitions.iter().filter_map(|row| row.lag).sum(),
        partitions,
        members: members.collect(),
    }
}

/// Brokers print addresses the Java way, with a slash in front.
fn host(member: &GroupMember) -> String {
    member.host.trim_start_matches('/').to_owned()
}

impl Show for Vec<Described> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for (i, group) in self.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
            writeln!(out, "Group:        {}", group.group)?;
            writeln!(out, "State:        {}", group.state)?;
            writeln!(out, "Type:         {}", group.kind)?;
            writeln!(out, "Assignor:     {assignor}")?;
            writeln!(out, "Coordinator:  {}", group.coordinator)?;
            writeln!(out, "Members:      {}", group.members.len())?;
            writeln!(out, "Lag:          {}", group.lag)?;
            let headers = ["TOPIC", "PARTITION", "CURRENT", "END", "LAG", "MEMBER", "HOST", "CLIENT"];
            let mut table = Table::new(&headers);
            for row in &group.partitions {
                table.row([
                    row.topic.clone(),
                    row.partition.to_string(),
                    or_dash(row.current_offset),
                    or_dash(row.end_offset),
                    or_dash(row.lag),
                    row.member_id.clone().unwrap_or_default(),
                    row.host.clone().unwrap_or_default(),
                    row.client_id.clone().unwrap_or_default(),
                ]);
            }
            if !group.partitions.is_empty() {
                writeln!(out)?;
                table.write(out)?;
            }
            let idle: Vec<&Member> = group.members.iter().filter(|m| m.assignment.is_empty()).collect();
            if !idle.is_empty() {
                let ids: Vec<&str> = idle.iter().map(|m| m.member_id.as_str()).collect();
                writeln!(out, "\nMembers without partitions: {}", list(&ids))?;
            }
        }
        Ok(())
    }
}
