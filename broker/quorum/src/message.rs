//! What nodes of a quorum say to each other, as bytes.
//!
//! Every request names its cluster, its sender and the node it is meant for, both with the id of their
//! directory: an address may lead to another node, and a node id to another disk. The version comes first, so
//! that later releases can extend it. Decoding checks each length against what is there and never panics.

use bytes::{BufMut, Bytes};
use openraft::EntryPayload;

use crate::codec::{self, Malformed};
use crate::types::{Entry, HOST_BYTES_MAX, LogId, Vote, Voter};

/// Version of the encoding; an unknown one is refused.
const VERSION: u8 = 1;
/// Longest refusal text that is passed on.
const REASON_MAX: usize = 500;
/// Longest cluster id; a refusal quotes it.
const CLUSTER_ID_MAX: usize = 255;
/// Most voters that a probe names.
const VOTERS_MAX: usize = 1_000;
/// Most entries of one message; they are read from the journal in pieces of 1 MiB.
const ENTRIES_MAX: usize = 1 << 16;
/// Indexes and terms beyond this are nonsense and could overflow arithmetic further in.
const NUMBER_MAX: u64 = 1 << 62;

type Result<T> = std::result::Result<T, Malformed>;

/// Who speaks or is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: i32,
    pub directory_id: [u8; 16],
}

/// A request on its way.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub cluster_id: String,
    pub from: Identity,
    /// None: whoever listens there.
    pub to: Option<Identity>,
    pub ask: Ask,
}

/// What stands before the body of a request. It is small, and tells whether the body is worth decoding.
#[derive(Debug)]
pub struct Head {
    pub cluster_id: String,
    pub from: Identity,
    pub to: Option<Identity>,
    kind: u8,
}

/// Raft's way of saying which voters are meant to form a quorum: id, host, port.
pub type VoterList = Vec<(i32, String, u16)>;

/// What is asked.
#[derive(Debug, PartialEq)]
pub enum Ask {
    /// Who are you, and is there a quorum? With the voters this node would form one of.
    Probe { voters: VoterList },
    /// Would you vote for me in the next term?
    PreVote { term: u64, last: Option<LogId> },
    /// Vote for me.
    Vote { vote: Vote, last: Option<LogId> },
    /// Entries of the leader; none is a heartbeat.
    Append { vote: Vote, prev: Option<LogId>, commit: Option<LogId>, entries: Vec<Entry> },
    /// A piece of the leader's snapshot.
    Snapshot { vote: Vote, upto: LogId, size: u64, position: u64, data: Bytes },
    /// I step down: stand for election at once.
    Transfer { term: u64 },
    /// I am new here, or have a new address or disk.
    Join { me: Voter },
    /// Committed entries behind `last`, for a node that isn't a member. `applied` is what it knows as committed.
    Fetch { me: Voter, last: Option<LogId>, applied: Option<u64>, bytes_max: u32, wait_ms: u32 },
    /// A piece of the newest snapshot, or of the one that was begun.
    FetchSnapshot { upto: Option<LogId>, position: u64, bytes_max: u32 },
}

/// Why a request was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// The bytes make no request.
    Malformed = 1,
    /// Sent by a node of another cluster.
    OtherCluster = 2,
    /// Meant for another node id or another directory.
    OtherNode = 3,
    /// The sender isn't a member under its directory id.
    Stranger = 4,
    /// This node can't do that now; the leader may.
    NotLeader = 5,
    /// The node id is taken by another, living directory.
    IdTaken = 6,
    /// Try again.
    Busy = 7,
}

impl Refusal {
    fn from_byte(byte: u8) -> Result<Self> {
        let all = [
            Self::Malformed,
            Self::OtherCluster,
            Self::OtherNode,
            Self::Stranger,
            Self::NotLeader,
            Self::IdTaken,
            Self::Busy,
        ];
        all.into_iter().find(|r| *r as u8 == byte).ok_or(Malformed("refusal"))
    }
}

/// An answer on its way.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub from: Identity,
    pub reply: Reply,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Refused {
        why: Refusal,
        reason: String,
        leader: Option<(i32, Voter)>,
    },
    /// `formed`: has a log. `agrees`: would form a quorum of the same voters.
    Probe {
        formed: bool,
        agrees: bool,
        leader: Option<(i32, Voter)>,
        members: Vec<(i32, Voter)>,
    },
    PreVote {
        granted: bool,
    },
    Vote {
        vote: Vote,
        granted: bool,
        last: Option<LogId>,
    },
    Append(Appended),
    /// All bytes up to here are there; at the end with the receiver's vote.
    Snapshot {
        position: u64,
        vote: Option<Vote>,
    },
    Transfer,
    /// True: a voter, now or soon. False: an observer.
    Join {
        voter: bool,
    },
    /// Entries behind the asked log id and what is committed. `vote` is the leader's.
    Entries {
        vote: Vote,
        commit: Option<LogId>,
        entries: Vec<Entry>,
        leader: Option<(i32, Voter)>,
    },
    /// What was asked is only in the snapshot.
    SnapshotNeeded {
        vote: Vote,
    },
    /// The asked log id isn't known to be committed; ask again from what is.
    Unknown,
    SnapshotPart {
        upto: LogId,
        size: u64,
        data: Bytes,
    },
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    Done,
    Partly(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

impl Request {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        codec::put_slice(&mut out, self.cluster_id.as_bytes());
        put_identity(&mut out, &self.from);
        out.put_u8(u8::from(self.to.is_some()));
        if let Some(to) = &self.to {
            put_identity(&mut out, to);
        }
        put_ask(&mut out, &self.ask);
        out.into()
    }

    /// Head and body at once.
    #[cfg(test)]
    pub fn decode(mut input: Bytes) -> Result<Self> {
        Head::decode(&mut input)?.with_body(input)
    }
}

impl Head {
    /// Takes the head off `input`; what is left is the body.
    pub fn decode(input: &mut Bytes) -> Result<Self> {
        version(input)?;
        let cluster_id = codec::get_short_string(input, CLUSTER_ID_MAX, "cluster id")?;
        let from = get_identity(input)?;
        let to = if codec::get_bool(input, "target")? { Some(get_identity(input)?) } else { None };
        Ok(Self { cluster_id, from, to, kind: codec::get_u8(input, "request kind")? })
    }

    /// Whether only a member may ask this.
    pub fn is_of_members(&self) -> bool {
        // Pre-vote, vote, append, snapshot, transfer.
        matches!(self.kind, 2..=6)
    }

    /// The whole request.
    pub fn with_body(self, mut input: Bytes) -> Result<Request> {
        // What a later release adds lies behind what this one reads.
        let ask = get_ask(self.kind, &mut input)?;
        Ok(Request { cluster_id: self.cluster_id, from: self.from, to: self.to, ask })
    }
}

impl Answer {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_identity(&mut out, &self.from);
        put_reply(&mut out, &self.reply);
        out.into()
    }

    pub fn decode(mut input: Bytes) -> Result<Self> {
        version(&mut input)?;
        let from = get_identity(&mut input)?;
        Ok(Self { from, reply: get_reply(&mut input)? })
    }
}

fn version(input: &mut Bytes) -> Result<()> {
    if codec::get_u8(input, "version")? == VERSION { Ok(()) } else { Err(Malformed("version")) }
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.put_i32_le(identity.id);
    out.put_slice(&identity.directory_id);
}

fn get_identity(input: &mut Bytes) -> Result<Identity> {
    let id = codec::get_i32(input, "node id")?;
    Ok(Identity { id, directory_id: codec::get_uuid(input, "directory id")? })
}

fn put_ask(out: &mut Vec<u8>, ask: &Ask) {
    match ask {
        Ask::Probe { voters } => {
            out.put_u8(1);
            out.put_u32_le(voters.len() as u32);
            for (id, host, port) in voters {
                out.put_i32_le(*id);
                codec::put_slice(out, host.as_bytes());
                out.put_u16_le(*port);
            }
        }
        Ask::PreVote { term, last } => {
            out.put_u8(2);
            out.put_u64_le(*term);
            codec::put_optional_log_id(out, last.as_ref());
        }
        Ask::Vote { vote, last } => {
            out.put_u8(3);
            codec::put_vote(out, vote);
            codec::put_optional_log_id(out, last.as_ref());
        }
        Ask::Append { vote, prev, commit, entries } => {
            out.put_u8(4);
            codec::put_vote(out, vote);
            codec::put_optional_log_id(out, prev.as_ref());
            codec::put_optional_log_id(out, commit.as_ref());
            put_entries(out, entries);
        }
        Ask::Snapshot { vote, upto, size, position, data } => {
            out.put_u8(5);
            codec::put_vote(out, vote);
            codec::put_log_id(out, upto);
            out.put_u64_le(*size);
            out.put_u64_le(*position);
            codec::put_slice(out, data);
        }
        Ask::Transfer { term } => {
            out.put_u8(6);
            out.put_u64_le(*term);
        }
        Ask::Join { me } => {
            out.put_u8(7);
            codec::put_voter(out, me);
        }
        Ask::Fetch { me, last, applied, bytes_max, wait_ms } => {
            out.put_u8(8);
            codec::put_voter(out, me);
            codec::put_optional_log_id(out, last.as_ref());
            out.put_u8(u8::from(applied.is_some()));
            out.put_u64_le(applied.unwrap_or(0));
            out.put_u32_le(*bytes_max);
            out.put_u32_le(*wait_ms);
        }
        Ask::FetchSnapshot { upto, position, bytes_max } => {
            out.put_u8(9);
            codec::put_optional_log_id(out, upto.as_ref());
            out.put_u64_le(*position);
            out.put_u32_le(*bytes_max);
        }
    }
}

fn get_ask(kind: u8, input: &mut Bytes) -> Result<Ask> {
    Ok(match kind {
        1 => {
            let count = codec::get_count(input, 10, "voter count")?;
            if count > VOTERS_MAX {
                return Err(Malformed("voter count"));
            }
            let voter = |input: &mut Bytes| -> Result<(i32, String, u16)> {
                let id = codec::get_i32(input, "voter id")?;
                let host = codec::get_short_string(input, HOST_BYTES_MAX, "host")?;
                Ok((id, host, codec::get_u16(input, "port")?))
            };
            Ask::Probe { voters: (0..count).map(|_| voter(input)).collect::<Result<_>>()? }
        }
        2 => Ask::PreVote { term: number(input, "term")?, last: optional_log_id(input)? },
        3 => Ask::Vote { vote: vote(input)?, last: optional_log_id(input)? },
        4 => Ask::Append {
            vote: vote(input)?,
            prev: optional_log_id(input)?,
            commit: optional_log_id(input)?,
            entries: get_entries(input)?,
        },
        5 => Ask::Snapshot {
            vote: vote(input)?,
            upto: log_id(input)?,
            size: number(input, "snapshot size")?,
            position: number(input, "snapshot position")?,
            data: codec::get_slice(input, "snapshot data")?,
        },
        6 => Ask::Transfer { term: number(input, "term")? },
        7 => Ask::Join { me: sender(input)? },
        8 => {
            let me = sender(input)?;
            let last = optional_log_id(input)?;
            let some = codec::get_bool(input, "applied")?;
            let applied = number(input, "applied")?;
            let bytes_max = codec::get_u32(input, "bytes")?;
            let wait_ms = codec::get_u32(input, "wait")?;
            Ask::Fetch { me, last, applied: some.then_some(applied), bytes_max, wait_ms }
        }
        9 => Ask::FetchSnapshot {
            upto: optional_log_id(input)?,
            position: number(input, "position")?,
            bytes_max: codec::get_u32(input, "bytes")?,
        },
        _ => return Err(Malformed("request kind")),
    })
}

/// Where the sender says that it is. This is kept, and anyone can send it.
fn sender(input: &mut Bytes) -> Result<Voter> {
    codec::get_voter_within(input, HOST_BYTES_MAX)
}

fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Refused { why, reason, leader } => {
            out.put_u8(0);
            out.put_u8(*why as u8);
            codec::put_slice(out, clip(reason).as_bytes());
            put_node(out, leader.as_ref());
        }
        Reply::Probe { formed, agrees, leader, members } => {
            out.put_u8(1);
            out.put_u8(u8::from(*formed));
            out.put_u8(u8::from(*agrees));
            put_node(out, leader.as_ref());
            out.put_u32_le(members.len() as u32);
            for (id, voter) in members {
                out.put_i32_le(*id);
                codec::put_voter(out, voter);
            }
        }
        Reply::PreVote { granted } => {
            out.put_u8(2);
            out.put_u8(u8::from(*granted));
        }
        Reply::Vote { vote, granted, last } => {
            out.put_u8(3);
            codec::put_vote(out, vote);
            out.put_u8(u8::from(*granted));
            codec::put_optional_log_id(out, last.as_ref());
        }
        Reply::Append(appended) => {
            out.put_u8(4);
            match appended {
                Appended::Done => out.put_u8(0),
                Appended::Partly(upto) => {
                    out.put_u8(1);
                    codec::put_optional_log_id(out, upto.as_ref());
                }
                Appended::Conflict => out.put_u8(2),
                Appended::HigherVote(vote) => {
                    out.put_u8(3);
                    codec::put_vote(out, vote);
                }
            }
        }
        Reply::Snapshot { position, vote } => {
            out.put_u8(5);
            out.put_u64_le(*position);
            out.put_u8(u8::from(vote.is_some()));
            if let Some(vote) = vote {
                codec::put_vote(out, vote);
            }
        }
        Reply::Transfer => out.put_u8(6),
        Reply::Join { voter } => {
            out.put_u8(7);
            out.put_u8(u8::from(*voter));
        }
        Reply::Entries { vote, commit, entries, leader } => {
            out.put_u8(8);
            codec::put_vote(out, vote);
            codec::put_optional_log_id(out, commit.as_ref());
            put_entries(out, entries);
            put_node(out, leader.as_ref());
        }
        Reply::SnapshotNeeded { vote } => {
            out.put_u8(9);
            codec::put_vote(out, vote);
        }
        Reply::Unknown => out.put_u8(10),
        Reply::SnapshotPart { upto, size, data } => {
            out.put_u8(11);
            codec::put_log_id(out, upto);
            out.put_u64_le(*size);
            codec::put_slice(out, data);
        }
    }
}

fn get_reply(input: &mut Bytes) -> Result<Reply> {
    Ok(match codec::get_u8(input, "answer kind")? {
        0 => {
            let why = Refusal::from_byte(codec::get_u8(input, "refusal")?)?;
            let reason = clip(&codec::get_string(input, "reason")?).to_owned();
            Reply::Refused { why, reason, leader: get_node(input)? }
        }
        1 => {
            let formed = codec::get_bool(input, "formed")?;
            let agrees = codec::get_bool(input, "agrees")?;
            let leader = get_node(input)?;
            let count = codec::get_count(input, 26, "member count")?;
            let member = |input: &mut Bytes| Ok((codec::get_i32(input, "member id")?, codec::get_voter(input)?));
            Reply::Probe { formed, agrees, leader, members: (0..count).map(|_| member(input)).collect::<Result<_>>()? }
        }
        2 => Reply::PreVote { granted: codec::get_bool(input, "granted")? },
        3 => Reply::Vote {
            vote: vote(input)?,
            granted: codec::get_bool(input, "granted")?,
            last: optional_log_id(input)?,
        },
        4 => Reply::Append(match codec::get_u8(input, "append")? {
            0 => Appended::Done,
            1 => Appended::Partly(optional_log_id(input)?),
            2 => Appended::Conflict,
            3 => Appended::HigherVote(vote(input)?),
            _ => return Err(Malformed("append")),
        }),
        5 => {
            let position = number(input, "position")?;
            let vote = if codec::get_bool(input, "vote")? { Some(vote(input)?) } else { None };
            Reply::Snapshot { position, vote }
        }
        6 => Reply::Transfer,
        7 => Reply::Join { voter: codec::get_bool(input, "voter")? },
        8 => Reply::Entries {
            vote: vote(input)?,
            commit: optional_log_id(input)?,
            entries: get_entries(input)?,
            leader: get_node(input)?,
        },
        9 => Reply::SnapshotNeeded { vote: vote(input)? },
        10 => Reply::Unknown,
        11 => Reply::SnapshotPart {
            upto: log_id(input)?,
            size: number(input, "snapshot size")?,
            data: codec::get_slice(input, "snapshot data")?,
        },
        _ => return Err(Malformed("answer kind")),
    })
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    out.put_u32_le(entries.len() as u32);
    for entry in entries {
        codec::put_entry(out, entry);
    }
}

fn get_entries(input: &mut Bytes) -> Result<Vec<Entry>> {
    // Log id 16 and kind 1.
    let count = codec::get_count(input, 17, "entry count")?;
    if count > ENTRIES_MAX {
        return Err(Malformed("entry count"));
    }
    let mut entries = Vec::with_capacity(count.min(1024));
    let mut records_max = records_max(input.len());
    for _ in 0..count {
        let entry = codec::get_entry_within(input, records_max)?;
        if let EntryPayload::Normal(batch) = &entry.payload {
            records_max = records_max.saturating_sub(batch.records.len());
        }
        checked(&entry.log_id)?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Most records that `bytes` of entries may hold. Each takes a handle of 32 bytes when decoded; many that are almost
/// empty would take many times the message.
pub fn records_max(bytes: usize) -> usize {
    (1 << 18) + bytes / 12
}

fn put_node(out: &mut Vec<u8>, node: Option<&(i32, Voter)>) {
    out.put_u8(u8::from(node.is_some()));
    if let Some((id, voter)) = node {
        out.put_i32_le(*id);
        codec::put_voter(out, voter);
    }
}

fn get_node(input: &mut Bytes) -> Result<Option<(i32, Voter)>> {
    if !codec::get_bool(input, "node")? {
        return Ok(None);
    }
    let id = codec::get_i32(input, "node id")?;
    Ok(Some((id, codec::get_voter(input)?)))
}

fn number(input: &mut Bytes, what: &'static str) -> Result<u64> {
    let number = codec::get_u64(input, what)?;
    if number < NUMBER_MAX { Ok(number) } else { Err(Malformed(what)) }
}

fn vote(input: &mut Bytes) -> Result<Vote> {
    let vote = codec::get_vote(input)?;
    if vote.leader_id.term < NUMBER_MAX { Ok(vote) } else { Err(Malformed("vote term")) }
}

fn checked(id: &LogId) -> Result<()> {
    if id.index < NUMBER_MAX && id.leader_id.term < NUMBER_MAX { Ok(()) } else { Err(Malformed("log id")) }
}

fn log_id(input: &mut Bytes) -> Result<LogId> {
    let id = codec::get_log_id(input)?;
    checked(&id).map(|()| id)
}

fn optional_log_id(input: &mut Bytes) -> Result<Option<LogId>> {
    let id = codec::get_optional_log_id(input)?;
    id.as_ref().map_or(Ok(()), checked).map(|()| id)
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(REASON_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
