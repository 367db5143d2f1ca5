//! `/v2/groups`, read only.
//!
//! Facts (Marathon 1.11): `GET /v2/groups` is the root; `/v2/groups/{id}/apps` lists the group's apps. The existing web page polls
//! `/v2/groups?embed=group.groups&embed=group.apps&...` for its lists. Groups come and go with their apps; changing them is not supported (405).

use super::{path_id, reads_only};
use crate::api::{
    Api, answer,
    call::Call,
    error::{ApiError, ApiResult},
    view::{
        app::Context,
        group::{self, GroupEmbed},
    },
    wall,
};

pub fn route(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    reads_only(call)?;
    let view = api.handle.view_full();
    let context = Context::new(&view, &api.info, wall());
    let embed = GroupEmbed::read(&call.query);
    let find = |segments: &[&str]| {
        let id = path_id(segments).map_err(ApiError::no_group)?;
        group::group(&view, &context, &id, embed).ok_or_else(|| ApiError::no_group(id))
    };
    match rest {
        [group @ .., "apps"] if !group.is_empty() => Ok(answer::ok(&find(group)?.get("apps"))),
        _ => Ok(answer::ok(&find(rest)?)),
    }
}
