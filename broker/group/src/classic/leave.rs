//! LeaveGroup, versions 0 to 5. From 3 on several members at once, static ones also by instance id alone, which is how
//! an administrator removes them.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;

use super::group::Group;
use crate::config::Config;
use crate::step::Step;

impl Group {
    pub fn leave(
        &mut self,
        who: &[MemberIdentity],
        now_ms: i64,
        config: &Config,
        step: &mut Step,
    ) -> Vec<MemberResponse> {
        let before = self.members().len();
        let answers = who
            .iter()
            .map(|member| {
                let result = self.leave_one(member, step);
                MemberResponse {
                    member_id: member.member_id.clone(),
                    group_instance_id: member.group_instance_id.clone(),
                    error_code: result.err().unwrap_or(ErrorCode::None).code(),
                }
            })
            .collect();
        if self.members().len() < before {
            self.after_removal(now_ms, config, step);
        } else {
            // A member id that was handed out and is given back holds up a rebalance no more.
            self.complete_if_all_joined(now_ms, step);
        }
        answers
    }

    fn leave_one(&mut self, who: &MemberIdentity, step: &mut Step) -> Result<(), ErrorCode> {
        let instance_id = who.group_instance_id.as_deref();
        let id = if who.member_id.is_empty() {
            let found = instance_id.and_then(|i| self.static_member(i));
            found.ok_or(ErrorCode::UnknownMemberId)?.to_owned()
        } else if self.pending.contains_key(&who.member_id) {
            who.member_id.clone()
        } else {
            self.check_member(&who.member_id, instance_id)?;
            who.member_id.clone()
        };
        let reason = who.reason.as_deref().unwrap_or("not given");
        tracing::info!(group = &*self.id, member = id, reason, "member leaves");
        self.remove(&id, step);
        Ok(())
    }
}
