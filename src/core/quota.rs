//! How much one user may have in all. Checked against the sums that are kept per owner, before anything is written; only what grows is refused, so that
//! a user above a limit that was lowered can still go down.

use super::{holdings::Usage, state::Tables};
use crate::model::{
    id::Owner,
    request::{RequestError, Violation},
    user::Quota,
};

/// That `owner` may have `after` of what the request at hand touches, in place of `before`.
///
/// # Errors
/// 422, which names each limit, what is used, and what it would come to.
pub(super) fn check(tables: &Tables, owner: &Owner, before: Usage, after: Usage) -> Result<(), RequestError> {
    let Some(quota) = tables.users.get(owner).map(|user| &user.quota).filter(|quota| **quota != Quota::default()) else { return Ok(()) };
    let used = tables.holdings.get(owner).map(|holdings| holdings.usage).unwrap_or_default();
    let wanted = used.minus(before).plus(after);
    let thousandths = |amount: u128| format!("{}", amount as f64 / 1000.0);
    let whole = |amount: u128| amount.to_string();
    let scalar = |limit: Option<crate::model::resources::Scalar>| limit.map(|limit| u128::from(limit.0));
    type Show<'a> = &'a dyn Fn(u128) -> String;
    let rows: [(&str, &str, Option<u128>, u128, u128, Show<'_>); 5] = [
        ("/cpus", "CPUs", scalar(quota.cpus), used.cpus, wanted.cpus, &thousandths),
        ("/mem", "MiB of memory", scalar(quota.mem), used.mem, wanted.mem, &thousandths),
        ("/container/volumes", "MiB of bricks", quota.brick.map(u128::from), used.brick, wanted.brick, &whole),
        ("/", "claimed ports", quota.ports.map(u128::from), used.ports.into(), wanted.ports.into(), &whole),
        ("/instances", "instances", quota.instances.map(u128::from), used.instances.into(), wanted.instances.into(), &whole),
    ];
    let violations: Vec<Violation> = rows
        .into_iter()
        .filter_map(|(path, what, limit, used, wanted, show)| {
            let limit = limit.filter(|limit| wanted > *limit && wanted > used)?;
            let (limit, used, wanted) = (show(limit), show(used), show(wanted));
            let text =
                format!("the quota of user '{owner}' is {limit} {what} in all: {used} are in use, and with this it would be {wanted}");
            Some(Violation::new(path, text))
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(RequestError::Invalid(violations)) }
}
