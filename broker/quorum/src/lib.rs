//! The metadata log on a Raft library: propose, commit, snapshot, membership.
