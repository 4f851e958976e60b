//! Heartbeat, versions 0 to 4, and the check of a commit that does a heartbeat's work too.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::HeartbeatRequest;

use super::group::{Group, State};

impl Group {
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now_ms: i64) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.refresh_session(&request.member_id, now_ms);
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            // Members may heartbeat between their JoinGroup answer and the assignment.
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Whether this member may commit offsets now; if so it has shown that it lives.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.is(State::Empty) {
            // An admin client, or a consumer that assigns partitions itself.
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.is(State::CompletingRebalance) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.refresh_session(member_id, now_ms);
        Ok(())
    }

    /// Whether offsets of the group may be deleted at all. Per topic, [`Group::subscribes`] decides.
    pub fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.is(State::Empty) || self.is_consumer() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }
}
