//! Bytes of votes, log ids, memberships and entries, as they lie in the journal and in snapshots.
//!
//! Little-endian, fixed-width, counts checked against what remains: these bytes come from a disk and, between
//! voters, from the network, so decoding never trusts a length. Decoded records share the input's buffer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use openraft::{EntryPayload, LeaderId};

use crate::types::{Batch, Entry, LogId, Membership, StoredMembership, Vote, Voter, log_id, term_of};

/// Bytes that are not what they should be; the text says which field.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// A membership in change has two sets of voters; openraft makes no more.
const CONFIGS_MAX: usize = 64;

const BLANK: u8 = 0;
const RECORDS: u8 = 1;
const MEMBERSHIP: u8 = 2;
const RECORDS_OF_TERM: u8 = 3;

pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(BLANK),
        EntryPayload::Normal(Batch { records, term: None }) => {
            out.put_u8(RECORDS);
            put_records(out, records);
        }
        EntryPayload::Normal(Batch { records, term: Some(term) }) => {
            out.put_u8(RECORDS_OF_TERM);
            out.put_u64_le(*term);
            put_records(out, records);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            put_membership(out, membership);
        }
    }
}

pub fn get_entry(input: &mut Bytes) -> Result<Entry> {
    get_entry_within(input, usize::MAX)
}

/// An entry of at most `records_max` records.
pub fn get_entry_within(input: &mut Bytes, records_max: usize) -> Result<Entry> {
    let log_id = get_log_id(input)?;
    let payload = match get_u8(input, "entry kind")? {
        BLANK => EntryPayload::Blank,
        RECORDS => EntryPayload::Normal(Batch::new(get_records_within(input, records_max)?)),
        RECORDS_OF_TERM => {
            let term = Some(get_u64(input, "term of records")?);
            EntryPayload::Normal(Batch { records: get_records_within(input, records_max)?, term })
        }
        MEMBERSHIP => EntryPayload::Membership(get_membership(input)?),
        _ => return Err(Malformed("entry kind")),
    };
    Ok(Entry { log_id, payload })
}

/// Encoded size of records in an entry, to bound proposals before they are framed.
pub fn records_size(records: &[Bytes]) -> usize {
    4 + records.iter().map(|r| 4 + r.len()).sum::<usize>()
}

pub fn put_records(out: &mut Vec<u8>, records: &[Bytes]) {
    out.put_u32_le(records.len() as u32);
    for record in records {
        put_slice(out, record);
    }
}

pub fn get_records(input: &mut Bytes) -> Result<Arc<[Bytes]>> {
    get_records_within(input, usize::MAX)
}

fn get_records_within(input: &mut Bytes, max: usize) -> Result<Arc<[Bytes]>> {
    let count = get_count(input, 4, "record count")?;
    if count > max {
        return Err(Malformed("record count"));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(get_slice(input, "record")?);
    }
    Ok(records.into())
}

pub fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_u64_le(term_of(id));
    out.put_u64_le(id.index);
}

pub fn get_log_id(input: &mut Bytes) -> Result<LogId> {
    let term = get_u64(input, "term")?;
    Ok(log_id(term, get_u64(input, "index")?))
}

pub fn put_optional_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub fn get_optional_log_id(input: &mut Bytes) -> Result<Option<LogId>> {
    match get_u8(input, "log id")? {
        0 => Ok(None),
        1 => get_log_id(input).map(Some),
        _ => Err(Malformed("log id")),
    }
}

pub fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u8(u8::from(vote.leader_id.voted_for.is_some()));
    out.put_i32_le(vote.leader_id.voted_for.unwrap_or(0));
    out.put_u8(u8::from(vote.committed));
}

pub fn get_vote(input: &mut Bytes) -> Result<Vote> {
    let term = get_u64(input, "vote term")?;
    let some = get_bool(input, "vote")?;
    let node = get_i32(input, "voted for")?;
    let committed = get_bool(input, "vote state")?;
    Ok(Vote { leader_id: LeaderId { term, voted_for: some.then_some(node) }, committed })
}

pub fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32_le(configs.len() as u32);
    for config in configs {
        out.put_u32_le(config.len() as u32);
        for id in config {
            out.put_i32_le(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u32_le(nodes.len() as u32);
    for (id, voter) in nodes {
        out.put_i32_le(*id);
        put_voter(out, voter);
    }
}

pub fn put_voter(out: &mut Vec<u8>, voter: &Voter) {
    put_slice(out, voter.host.as_bytes());
    out.put_u16_le(voter.port);
    out.put_slice(&voter.directory_id);
}

pub fn get_voter(input: &mut Bytes) -> Result<Voter> {
    get_voter_within(input, usize::MAX)
}

/// A voter whose host name has at most `host_max` bytes.
pub fn get_voter_within(input: &mut Bytes, host_max: usize) -> Result<Voter> {
    let host = get_short_string(input, host_max, "host")?;
    let port = get_u16(input, "port")?;
    Ok(Voter { host, port, directory_id: get_uuid(input, "directory id")? })
}

pub fn get_string(input: &mut Bytes, what: &'static str) -> Result<String> {
    get_short_string(input, usize::MAX, what)
}

/// A string of at most `max` bytes; a longer one isn't copied.
pub fn get_short_string(input: &mut Bytes, max: usize, what: &'static str) -> Result<String> {
    let text = get_slice(input, what)?;
    if text.len() > max {
        return Err(Malformed(what));
    }
    String::from_utf8(text.to_vec()).map_err(|_| Malformed(what))
}

pub fn get_uuid(input: &mut Bytes, what: &'static str) -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    need(input, 16, what)?;
    input.copy_to_slice(&mut uuid);
    Ok(uuid)
}

pub fn get_membership(input: &mut Bytes) -> Result<Membership> {
    let count = get_count(input, 4, "configuration count")?;
    if count > CONFIGS_MAX {
        return Err(Malformed("configuration count"));
    }
    let mut configs = Vec::with_capacity(count);
    for _ in 0..count {
        let members = get_count(input, 4, "voter count")?;
        let ids: Result<BTreeSet<i32>> = (0..members).map(|_| get_i32(input, "voter id")).collect();
        configs.push(ids?);
    }
    let count = get_count(input, 26, "node count")?;
    let mut nodes = BTreeMap::new();
    for _ in 0..count {
        let id = get_i32(input, "node id")?;
        nodes.insert(id, get_voter(input)?);
    }
    // openraft asserts that every voter has a node; hostile bytes must not reach that assertion.
    if configs.iter().flatten().any(|id| !nodes.contains_key(id)) {
        return Err(Malformed("voter without node"));
    }
    Ok(Membership::new(configs, nodes))
}

pub fn put_stored_membership(out: &mut Vec<u8>, stored: &StoredMembership) {
    put_optional_log_id(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

pub fn get_stored_membership(input: &mut Bytes) -> Result<StoredMembership> {
    let id = get_optional_log_id(input)?;
    Ok(StoredMembership::new(id, get_membership(input)?))
}

pub fn put_slice(out: &mut Vec<u8>, slice: &[u8]) {
    out.put_u32_le(slice.len() as u32);
    out.put_slice(slice);
}

pub fn get_slice(input: &mut Bytes, what: &'static str) -> Result<Bytes> {
    let len = get_count(input, 1, what)?;
    Ok(input.split_to(len))
}

pub fn get_count(input: &mut Bytes, min_size: usize, what: &'static str) -> Result<usize> {
    need(input, 4, what)?;
    let count = input.get_u32_le() as usize;
    if count > input.remaining() / min_size {
        return Err(Malformed(what));
    }
    Ok(count)
}

fn need(input: &Bytes, size: usize, what: &'static str) -> Result<()> {
    if input.remaining() < size { Err(Malformed(what)) } else { Ok(()) }
}

pub fn get_bool(input: &mut Bytes, what: &'static str) -> Result<bool> {
    match get_u8(input, what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed(what)),
    }
}

pub fn get_u8(input: &mut Bytes, what: &'static str) -> Result<u8> {
    need(input, 1, what)?;
    Ok(input.get_u8())
}

pub fn get_u16(input: &mut Bytes, what: &'static str) -> Result<u16> {
    need(input, 2, what)?;
    Ok(input.get_u16_le())
}

pub fn get_i32(input: &mut Bytes, what: &'static str) -> Result<i32> {
    need(input, 4, what)?;
    Ok(input.get_i32_le())
}

pub fn get_u32(input: &mut Bytes, what: &'static str) -> Result<u32> {
    need(input, 4, what)?;
    Ok(input.get_u32_le())
}

pub fn get_u64(input: &mut Bytes, what: &'static str) -> Result<u64> {
    need(input, 8, what)?;
    Ok(input.get_u64_le())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn voter() -> impl Strategy<Value = Voter> {
        ("[a-z.]{0,12}", any::<u16>(), any::<[u8; 16]>()).prop_map(|(host, port, directory_id)| Voter {
            host,
            port,
            directory_id,
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let records = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5);
        let records = (records, any::<Option<u64>>()).prop_map(|(v, term)| {
            EntryPayload::Normal(Batch { records: v.into_iter().map(Bytes::from).collect(), term })
        });
        let membership = proptest::collection::btree_map(any::<i32>(), voter(), 1..4)
            .prop_map(|nodes| EntryPayload::Membership(Membership::new(vec![nodes.keys().copied().collect()], nodes)));
        let payload = prop_oneof![Just(EntryPayload::Blank), records, membership];
        (any::<u64>(), any::<u64>(), payload)
            .prop_map(|(term, index, payload)| Entry { log_id: log_id(term, index), payload })
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(entry in entry()) {
            let mut out = Vec::new();
            put_entry(&mut out, &entry);
            let mut input = Bytes::from(out);
            let back = get_entry(&mut input).unwrap();
            prop_assert_eq!(back.log_id, entry.log_id);
            prop_assert_eq!(back.payload, entry.payload);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_an_entry_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = get_entry(&mut Bytes::from(bytes.clone()));
            let _ = get_vote(&mut Bytes::from(bytes.clone()));
            let _ = get_stored_membership(&mut Bytes::from(bytes));
        }

        #[test]
        fn a_vote_comes_back_as_it_was(term in any::<u64>(), node in any::<Option<i32>>(), committed in any::<bool>()) {
            let vote = Vote { leader_id: LeaderId { term, voted_for: node }, committed };
            let mut out = Vec::new();
            put_vote(&mut out, &vote);
            prop_assert_eq!(get_vote(&mut Bytes::from(out)).unwrap(), vote);
        }
    }
}
