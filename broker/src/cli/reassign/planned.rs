//! How a plan, and what became of it, is printed. As JSON a plan is the file that carries it out.

use std::collections::BTreeMap;
use std::io::{self, Write};

use klamm_planner::{Facts, Partition, Plan, Reason};
use serde::{Serialize, Serializer};

use super::carry::{Outcome, Step, summary};
use super::progress::bytes;
use crate::cli::output::{Show, Table, list};

/// A plan, and what brokers bear before and after it.
#[derive(Debug)]
pub(super) struct Planned {
    plan: Plan,
    brokers: Vec<Load>,
}

#[derive(Debug, Default)]
struct Load {
    id: i32,
    before: Sums,
    after: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    replicas: usize,
    leaders: usize,
    bytes: u64,
}

impl Planned {
    pub(super) fn new(facts: &Facts, plan: Plan) -> Self {
        let ids = facts.brokers.iter().map(|b| (b.id, Load { id: b.id, ..Load::default() }));
        let mut brokers: BTreeMap<i32, Load> = ids.collect();
        let moved: BTreeMap<(&str, i32), &[i32]> =
            plan.moves.iter().map(|one| ((one.topic.as_str(), one.partition), one.to.as_slice())).collect();
        let mut count = |p: &Partition, replicas: &[i32], sums: fn(&mut Load) -> &mut Sums| {
            for (position, id) in replicas.iter().enumerate() {
                let load = brokers.entry(*id).or_insert_with(|| Load { id: *id, ..Load::default() });
                let sums = sums(load);
                sums.replicas += 1;
                sums.leaders += usize::from(position == 0);
                sums.bytes = sums.bytes.saturating_add(p.bytes);
            }
        };
        for p in &facts.partitions {
            count(p, &p.replicas, |load| &mut load.before);
            let settled = p.moving_to.as_ref().unwrap_or(&p.replicas);
            let after = moved.get(&(p.topic.as_str(), p.index)).copied().unwrap_or(settled);
            count(p, after, |load| &mut load.after);
        }
        let brokers = brokers.into_values().collect();
        Self { plan, brokers }
    }
}

impl Serialize for Planned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file: serde_json::Value =
            serde_json::from_str(&klamm_planner::write(&self.plan)).map_err(serde::ser::Error::custom)?;
        file.serialize(serializer)
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Drain => "drain",
        Reason::Replication => "replication",
        Reason::Racks => "racks",
        Reason::Balance => "balance",
        Reason::Leaders => "leaders",
    }
}

impl Show for Planned {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.plan.is_empty() {
            return writeln!(out, "nothing to move");
        }
        if !self.plan.moves.is_empty() {
            let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO", "COPIED", "FOR"]);
            for one in &self.plan.moves {
                table.row([
                    one.topic.clone(),
                    one.partition.to_string(),
                    list(&one.from),
                    list(&one.to),
                    bytes(one.bytes),
                    reason(one.reason).to_owned(),
                ]);
            }
            table.write(out)?;
            writeln!(out)?;
        }
        let mut table = Table::new(&["BROKER", "REPLICAS", "FIRST REPLICAS", "BYTES"]);
        let change =
            |before: String, after: String| if before == after { before } else { format!("{before} -> {after}") };
        for load in &self.brokers {
            table.row([
                load.id.to_string(),
                change(load.before.replicas.to_string(), load.after.replicas.to_string()),
                change(load.before.leaders.to_string(), load.after.leaders.to_string()),
                change(bytes(load.before.bytes), bytes(load.after.bytes)),
            ]);
        }
        table.write(out)?;
        let (moves, elections) = (self.plan.moves.len(), self.plan.elections.len());
        writeln!(out, "\n{moves} moves, {} to copy, {elections} leaders to elect", bytes(self.plan.bytes()))
    }
}

/// What was carried out.
#[derive(Debug, Serialize)]
pub(super) struct Executed {
    moves: Vec<Moved>,
    /// Leaders that were elected in the end.
    elected: usize,
    #[serde(skip)]
    summary: String,
}

#[derive(Debug, Serialize)]
struct Moved {
    topic: String,
    partition: i32,
    from: Vec<i32>,
    to: Vec<i32>,
    /// `moved`, `started`, `ongoing`, `replaced` or `failed`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Executed {
    pub(super) fn new(ended: &[(Step, Outcome)], elected: usize) -> Self {
        let moved = |(step, outcome): &(Step, Outcome)| {
            let (result, error) = match outcome {
                Outcome::Moved => ("moved", None),
                Outcome::Started => ("started", None),
                Outcome::GoesOn => ("ongoing", None),
                Outcome::Replaced(why) => ("replaced", Some(why.clone())),
                Outcome::Failed(why) => ("failed", Some(why.clone())),
            };
            let (from, to) = (step.from.clone(), step.to.clone());
            Moved { topic: step.at.topic.clone(), partition: step.at.partition, from, to, result, error }
        };
        Self { moves: ended.iter().map(moved).collect(), elected, summary: summary(ended) }
    }

    /// How many did not begin, or somebody else put an end to.
    pub(super) fn failed(&self) -> usize {
        self.moves.iter().filter(|moved| moved.error.is_some()).count()
    }
}

impl Show for Executed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let failed = self.moves.iter().filter(|moved| moved.error.is_some());
        let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO", "ERROR"]);
        for moved in failed {
            let error = moved.error.clone().unwrap_or_default();
            table.row([moved.topic.clone(), moved.partition.to_string(), list(&moved.from), list(&moved.to), error]);
        }
        if self.failed() > 0 {
            table.write(out)?;
        }
        match (self.moves.is_empty(), self.elected) {
            (true, 0) => writeln!(out, "nothing to move"),
            (true, n) => writeln!(out, "{n} leaders elected"),
            (false, 0) => writeln!(out, "{}", self.summary),
            (false, n) => writeln!(out, "{}, {n} leaders elected", self.summary),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_planner::{Broker, Wish};

    fn planned() -> Planned {
        let partition = |index| Partition {
            topic: "t".to_owned(),
            index,
            replicas: vec![0],
            leader: Some(0),
            isr: vec![0],
            bytes: 2048,
            moving_to: None,
        };
        let facts =
            Facts { brokers: vec![Broker::new(0), Broker::new(1)], partitions: vec![partition(0), partition(1)] };
        let plan = klamm_planner::plan(&facts, &Wish::default()).unwrap_or_default();
        Planned::new(&facts, plan)
    }

    #[test]
    fn the_table_shows_moves_and_what_they_do_to_brokers() -> io::Result<()> {
        let mut out = Vec::new();
        planned().show(&mut out)?;
        let expected = "\
TOPIC   PARTITION   FROM   TO   COPIED    FOR
t       0           0      1    2.0 KiB   balance

BROKER   REPLICAS   FIRST REPLICAS   BYTES
0        2 -> 1     2 -> 1           4.0 KiB -> 2.0 KiB
1        0 -> 1     0 -> 1           0 B -> 2.0 KiB

1 moves, 2.0 KiB to copy, 1 leaders to elect
";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        Ok(())
    }

    #[test]
    fn the_json_is_a_file_for_execute() {
        let text = serde_json::to_string_pretty(&planned()).unwrap_or_default();
        let read = klamm_planner::read(&text).map(|all| all.into_iter().map(|one| one.replicas).collect::<Vec<_>>());
        assert_eq!(read.ok(), Some(vec![vec![1]]));
    }
}
