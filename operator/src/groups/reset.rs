//! Where the offsets of a group go. Pure, but for what is asked of the cluster beforehand.
//!
//! A reset is done once for each id, also if the operator is killed in the middle: what it will do is written into the
//! status first (`Started`, with the offsets before and after), and each offset that it commits carries its id. Whoever
//! finds it started goes by the group's offsets: an id, or an offset that went back as members never let it, and it was
//! done; offsets as before, or not yet where it leads to, and it was not. Where members have written over all of that
//! nobody can tell, and nobody claims to.

use std::collections::BTreeMap;

use klamm_client::TopicPartition;

use serde_json::json;

use super::facts::Facts;
use crate::crd::consumer_group::{Edge, Reset, ResetResult, ResetStatus, ResetTo};
use crate::render::hash;

/// Lines of a preview at most.
const LINES: usize = 256;
/// Partitions that a message names at most.
const NAMED: usize = 4;

/// An offset's way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Move {
    /// What is committed.
    pub from: Option<i64>,
    /// What is to be.
    pub to: i64,
}

/// What a reset does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Where offsets go.
    pub moves: BTreeMap<TopicPartition, Move>,
    /// Offsets that were asked for and that partitions do not have, each with what is taken in its place.
    pub clamped: BTreeMap<TopicPartition, (i64, i64)>,
}

/// What is wrong with a reset.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A topic or partition that the group does not read.
    #[error("the group does not read {0}")]
    Unknown(String),
    /// Not `topic-partition`.
    #[error("{0:?} is no partition: write topic-partition")]
    NoPartition(String),
    /// An offset that no partition has.
    #[error("{0}: {1} is no offset")]
    NoOffset(String, i64),
}

/// Ids that are remembered of resets before the last one.
const PAST: usize = 20;

/// Whether a reset is still to be done, or to be finished. `past`: ids of those that ended before the last one.
pub fn is_due(reset: &Reset, last: Option<&ResetStatus>, past: &[String]) -> bool {
    match last {
        Some(last) if last.id == reset.id => match last.result {
            ResetResult::Started => true,
            // Shown first and done then, under one id; what has changed since is shown anew.
            ResetResult::DryRun => !reset.dry_run || is_other(reset, last),
            ResetResult::Applied | ResetResult::Failed => false,
        },
        _ => !past.contains(&reset.id),
    }
}

/// What a reset asks for, as a hash. How it is done, and whether it is only shown, is no part of it.
pub fn asked(reset: &Reset) -> String {
    hash(&json!({ "to": reset.to, "topics": reset.topics }))
}

/// Whether something else is asked for under the id of the last one. Of one that was done long ago nobody can tell.
pub fn is_other(reset: &Reset, last: &ResetStatus) -> bool {
    last.id == reset.id && last.asked.as_ref().is_some_and(|was| *was != asked(reset))
}

/// Remembers that `last` has ended, now that another one has: a preview, and one that was begun only, may still be done.
pub fn remember(past: &mut Vec<String>, last: &ResetStatus) {
    if matches!(last.result, ResetResult::Applied | ResetResult::Failed) {
        past.retain(|id| *id != last.id);
        past.insert(0, last.id.clone());
        past.truncate(PAST);
    }
}

/// Whether the group itself tells that a reset was done, by the id that its commits carry until members commit again: for a
/// resource that was deleted and is described anew.
pub fn is_marked(reset: &Reset, facts: &Facts) -> bool {
    facts.marks.values().any(|id| *id == reset.id)
}

/// What of a group could not be seen that a reset is about: it does not wait for other topics.
pub fn unseen(reset: &Reset, facts: &Facts) -> Facts {
    let offsets = reset.to.offsets.as_ref();
    let about = |topic: &str| match offsets {
        Some(offsets) => offsets.keys().any(|name| name.rsplit_once('-').is_some_and(|(named, _)| named == topic)),
        None => reset.topics.is_empty() || reset.topics.iter().any(|named| named == topic),
    };
    Facts {
        missing: facts.missing.iter().filter(|topic| about(topic)).cloned().collect(),
        unknown: facts.unknown.iter().filter(|at| about(&at.topic)).cloned().collect(),
        ..Facts::default()
    }
}

/// The partitions that a reset is about.
///
/// # Errors
/// It names something that the group does not read.
pub fn partitions(reset: &Reset, facts: &Facts) -> Result<Vec<TopicPartition>, Invalid> {
    if let Some(offsets) = &reset.to.offsets {
        return offsets.keys().map(|name| partition(name, facts)).collect();
    }
    let read = |topic: &String| facts.partitions.keys().any(|at| at.topic == *topic);
    if let Some(odd) = reset.topics.iter().find(|topic| !read(topic)) {
        return Err(Invalid::Unknown(format!("topic {odd}")));
    }
    let meant = |at: &&TopicPartition| reset.topics.is_empty() || reset.topics.contains(&at.topic);
    Ok(facts.partitions.keys().filter(meant).cloned().collect())
}

fn partition(name: &str, facts: &Facts) -> Result<TopicPartition, Invalid> {
    let split = name.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse::<i32>().ok()?)));
    let (topic, number) = split.ok_or_else(|| Invalid::NoPartition(name.to_owned()))?;
    let at = TopicPartition::new(topic, number);
    match facts.partitions.contains_key(&at) {
        true => Ok(at),
        false => Err(Invalid::Unknown(name.to_owned())),
    }
}

/// What a reset does. `found` has the first offsets of the timestamp, where the reset names one. Offsets stay within
/// what there is; what is there already is not moved.
///
/// # Errors
/// It names something that the group does not read.
pub fn plan(reset: &Reset, facts: &Facts, found: &BTreeMap<TopicPartition, i64>) -> Result<Plan, Invalid> {
    let mut plan = Plan::default();
    for at in partitions(reset, facts)? {
        let Some(partition) = facts.partitions.get(&at) else { continue };
        let ResetTo { offset, timestamp, shift_by, offsets } = &reset.to;
        let named = offsets.as_ref().and_then(|offsets| offsets.get(&format!("{}-{}", at.topic, at.partition)));
        if let Some(odd) = named.filter(|named| **named < 0) {
            return Err(Invalid::NoOffset(format!("{}-{}", at.topic, at.partition), *odd));
        }
        let wanted = match (offset, timestamp, shift_by, named) {
            (Some(Edge::Earliest), ..) => partition.start,
            (Some(Edge::Latest), ..) => partition.end,
            // No record is as new as that.
            (_, Some(_), ..) => found.get(&at).copied().filter(|offset| *offset >= 0).unwrap_or(partition.end),
            // Without a commit there is nothing to shift.
            (_, _, Some(by), _) => match partition.committed {
                Some(committed) => committed.saturating_add(*by),
                None => continue,
            },
            (_, _, _, Some(named)) => *named,
            _ => continue,
        };
        let to = wanted.min(partition.end).max(partition.start);
        // Of a time nobody knows which offset it will be.
        if to != wanted && (shift_by.is_some() || named.is_some()) {
            plan.clamped.insert(at.clone(), (wanted, to));
        }
        if partition.committed != Some(to) {
            plan.moves.insert(at, Move { from: partition.committed, to });
        }
    }
    Ok(plan)
}

/// The moves as a status shows them.
pub fn preview(moves: &BTreeMap<TopicPartition, Move>) -> Vec<String> {
    let line = |(at, Move { from, to }): (&TopicPartition, &Move)| {
        let from = from.map_or_else(|| "none".to_owned(), |from| from.to_string());
        format!("{}-{}: {from} -> {to}", at.topic, at.partition)
    };
    moves.iter().take(LINES).map(line).collect()
}

/// What was taken in place of what was asked for, as a status shows it.
pub fn clamped(plan: &Plan) -> Vec<String> {
    let line =
        |(at, (wanted, to)): (&TopicPartition, &(i64, i64))| format!("{}-{}: {wanted} -> {to}", at.topic, at.partition);
    plan.clamped.iter().take(LINES).map(line).collect()
}

/// The same in plain words, if there is any.
pub fn clamped_text(lines: &[String]) -> Option<String> {
    let (some, more) = lines.split_at(lines.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let some = some.join(", ");
    (!some.is_empty()).then(|| format!("clamped to what there is: {some}{more}"))
}

/// What became of a reset that was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begun {
    /// It was done.
    Done,
    /// It was not.
    NotDone,
    /// The group's members have committed since, and nothing tells.
    Unknown,
}

/// What became of a reset that was begun. Its moves are committed all at once, so that one tells about all.
pub fn begun(started: &ResetStatus, facts: &Facts) -> Begun {
    let lines = started.preview.iter().filter_map(|line| {
        let (name, way) = line.split_once(": ")?;
        let (from, to) = way.split_once(" -> ")?;
        let (topic, number) = name.rsplit_once('-')?;
        let at = TopicPartition::new(topic, number.parse().ok()?);
        Some((facts.partitions.get(&at)?.committed, from.parse::<i64>().ok(), to.parse::<i64>().ok()?, at))
    });
    let (mut same, mut found) = (true, None);
    for (now, from, to, at) in lines {
        same &= now == from;
        let went_back = now.is_some_and(|now| from.is_some_and(|from| now < from));
        let behind = now.is_none_or(|now| now < to);
        if facts.marks.get(&at) == Some(&started.id) || went_back {
            return Begun::Done;
        }
        if behind {
            found = Some(Begun::NotDone);
        }
    }
    if same { Begun::NotDone } else { found.unwrap_or(Begun::Unknown) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::super::facts::PartitionFacts;
    use super::*;

    fn facts() -> Facts {
        let partition = |committed, start, end| PartitionFacts { committed, start, end };
        let partitions = [
            (TopicPartition::new("a-b", 0), partition(Some(5), 2, 9)),
            (TopicPartition::new("a-b", 1), partition(None, 0, 4)),
            (TopicPartition::new("c", 0), partition(Some(1), 0, 1)),
        ];
        Facts { state: "Empty".into(), partitions: partitions.into(), ..Facts::default() }
    }

    fn reset(to: Value) -> Reset {
        serde_json::from_value(json!({ "id": "1", "to": to })).unwrap()
    }

    fn moves(reset: &Reset, found: &[(&str, i32, i64)]) -> Result<Vec<String>, Invalid> {
        let found = found.iter().map(|(topic, number, offset)| (TopicPartition::new(*topic, *number), *offset));
        plan(reset, &facts(), &found.collect()).map(|plan| preview(&plan.moves))
    }

    #[test]
    fn offsets_stay_within_what_there_is() {
        for (to, wanted) in [
            (json!({ "offset": "Earliest" }), vec!["a-b-0: 5 -> 2", "a-b-1: none -> 0", "c-0: 1 -> 0"]),
            (json!({ "offset": "Latest" }), vec!["a-b-0: 5 -> 9", "a-b-1: none -> 4"]),
            (json!({ "shiftBy": -100 }), vec!["a-b-0: 5 -> 2", "c-0: 1 -> 0"]),
            (json!({ "shiftBy": i64::MAX }), vec!["a-b-0: 5 -> 9"]),
            (json!({ "offsets": { "a-b-0": 7, "c-0": 99 } }), vec!["a-b-0: 5 -> 7"]),
        ] {
            assert_eq!(moves(&reset(to.clone()), &[]).unwrap(), wanted, "{to}");
        }
        let at = reset(json!({ "timestamp": "2026-10-01T00:00:00Z" }));
        let found = moves(&at, &[("a-b", 0, 6), ("a-b", 1, -1), ("c", 0, 0)]).unwrap();
        assert_eq!(found, ["a-b-0: 5 -> 6", "a-b-1: none -> 4", "c-0: 1 -> 0"]);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is_taken_instead() {
        let told = |to: Value| clamped(&plan(&reset(to), &facts(), &BTreeMap::new()).unwrap());
        assert_eq!(told(json!({ "offsets": { "a-b-0": 7, "a-b-1": 4 } })), Vec::<String>::new());
        // Also where nothing moves since the group is there already.
        assert_eq!(told(json!({ "offsets": { "a-b-0": 1, "c-0": 99 } })), ["a-b-0: 1 -> 2", "c-0: 99 -> 1"]);
        assert_eq!(told(json!({ "shiftBy": -4 })), ["a-b-0: 1 -> 2", "c-0: -3 -> 0"]);
        assert_eq!(told(json!({ "timestamp": "2026-10-01T00:00:00Z" })), Vec::<String>::new(), "no offset was named");
        assert_eq!(clamped_text(&[]), None);
        let lines: Vec<String> = (0..6).map(|n| format!("t-{n}: 9 -> 1")).collect();
        let text = clamped_text(&lines).unwrap();
        assert!(text.ends_with(": t-0: 9 -> 1, t-1: 9 -> 1, t-2: 9 -> 1, t-3: 9 -> 1 and 2 more"), "{text}");
    }

    #[test]
    fn another_description_under_one_id_is_told_from_the_same() {
        let wanted = reset(json!({ "offset": "Earliest" }));
        let last = ResetStatus { asked: Some(asked(&wanted)), ..status(ResetResult::Applied, &[]) };
        assert!(!is_other(&wanted, &last));
        assert!(!is_other(&Reset { dry_run: true, ..wanted.clone() }, &last), "how it is done is no part of it");
        let other = reset(json!({ "offset": "Latest" }));
        assert!(is_other(&other, &last) && is_other(&Reset { topics: vec!["c".into()], ..wanted.clone() }, &last));
        assert!(!is_other(&other, &ResetStatus { asked: None, ..last.clone() }), "of an older operator");
        assert!(!is_due(&other, Some(&last), &[]), "it is not done again all the same");
        let shown = ResetStatus { result: ResetResult::DryRun, ..last };
        assert!(!is_due(&Reset { dry_run: true, ..wanted }, Some(&shown), &[]));
        assert!(is_due(&Reset { dry_run: true, ..other }, Some(&shown), &[]), "it is shown anew");
    }

    #[test]
    fn only_what_it_reads_moves() {
        let mut some = reset(json!({ "offset": "Earliest" }));
        some.topics = vec!["c".into()];
        assert_eq!(moves(&some, &[]).unwrap(), ["c-0: 1 -> 0"]);
        some.topics = vec!["d".into()];
        assert_eq!(moves(&some, &[]), Err(Invalid::Unknown("topic d".into())));
        for (name, wanted) in [
            ("c-1", Invalid::Unknown("c-1".into())),
            ("c", Invalid::NoPartition("c".into())),
            ("c-x", Invalid::NoPartition("c-x".into())),
        ] {
            assert_eq!(moves(&reset(json!({ "offsets": { name: 1 } })), &[]), Err(wanted));
        }
        let below = reset(json!({ "offsets": { "c-0": -2 } }));
        assert_eq!(moves(&below, &[]), Err(Invalid::NoOffset("c-0".into(), -2)));
    }

    fn status(result: ResetResult, preview: &[&str]) -> ResetStatus {
        ResetStatus {
            id: "1".into(),
            result,
            message: None,
            partitions: 1,
            preview: preview.iter().map(|line| (*line).to_owned()).collect(),
            clamped: Vec::new(),
            asked: None,
            at: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn each_id_is_done_once() {
        let mut wanted = reset(json!({ "offset": "Latest" }));
        assert!(is_due(&wanted, None, &[]));
        for (result, due) in [
            (ResetResult::Applied, false),
            (ResetResult::Failed, false),
            (ResetResult::Started, true),
            (ResetResult::DryRun, true),
        ] {
            assert_eq!(is_due(&wanted, Some(&status(result, &[])), &[]), due, "{result:?}");
        }
        wanted.dry_run = true;
        assert!(!is_due(&wanted, Some(&status(ResetResult::DryRun, &[])), &[]));
        wanted.id = "2".into();
        assert!(is_due(&wanted, Some(&status(ResetResult::Applied, &[])), &[]));
    }

    #[test]
    fn an_id_that_ran_before_the_last_one_does_not_run_again() {
        let named = |id: &str, result| ResetStatus { id: id.into(), ..status(result, &[]) };
        let mut past = Vec::new();
        remember(&mut past, &named("1", ResetResult::Applied));
        assert!(!is_due(&reset(json!({ "offset": "Latest" })), Some(&named("b", ResetResult::Applied)), &past));
        remember(&mut past, &named("shown", ResetResult::DryRun));
        remember(&mut past, &named("begun", ResetResult::Started));
        assert_eq!(past, ["1"], "those may still be done");
        for n in 0..30 {
            remember(&mut past, &named(&format!("n{n}"), ResetResult::Failed));
        }
        assert_eq!((past.len(), past[0].as_str()), (PAST, "n29"));
    }

    #[test]
    fn the_group_tells_of_a_reset_whose_resource_is_gone() {
        let wanted = reset(json!({ "offset": "Earliest" }));
        let mut found = facts();
        assert!(!is_marked(&wanted, &found));
        found.marks.insert(TopicPartition::new("c", 0), "1".into());
        assert!(is_marked(&wanted, &found));
    }

    #[test]
    fn one_that_was_begun_is_told_by_the_offsets() {
        let told = |lines: &[&str]| begun(&status(ResetResult::Started, lines), &facts());
        assert_eq!(told(&["a-b-0: 5 -> 2", "a-b-1: none -> 0"]), Begun::NotDone, "as before");
        assert_eq!(told(&["a-b-0: 9 -> 5", "a-b-1: none -> 0"]), Begun::Done, "as wanted: members do not go back");
        assert_eq!(told(&["a-b-0: 9 -> 3"]), Begun::Done, "and read on since");
        assert_eq!(told(&["gone-0: 1 -> 2"]), Begun::NotDone);
        // Refused, since members had come, who have committed by now.
        assert_eq!(told(&["a-b-0: 3 -> 9", "c-0: 0 -> 1"]), Begun::NotDone, "not where it leads to");
        assert_eq!(told(&["a-b-0: 3 -> 0"]), Begun::Unknown, "from 3, or from 0");
        assert_eq!(told(&["a-b-0: 3 -> 5", "c-0: 0 -> 1"]), Begun::Unknown);
        // A commit of its own tells, whatever the others have become.
        let mut marked = facts();
        marked.marks.insert(TopicPartition::new("c", 0), "1".into());
        let found = |id: &str| {
            let started =
                ResetStatus { id: id.into(), ..status(ResetResult::Started, &["a-b-0: 3 -> 5", "c-0: 0 -> 1"]) };
            begun(&started, &marked)
        };
        assert_eq!((found("1"), found("2")), (Begun::Done, Begun::Unknown));
    }
}
