//! `/v2/auth/users/{name}/quota`: how much a user may have, and has. Ours. `GET` (the user, or an administrator) answers
//! `{"user", "quota": {"cpus", "mem", "brick", "ports", "instances"}, "used": {...}}`; what has no limit is absent from `quota`. `PUT` (administrators)
//! takes the object `quota` by itself, in place of the present one, and answers the same.

use serde_json::{Value, json};
use warp::http::Method;

use super::{auth, origin, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
    },
    core::holdings::Usage,
    model::{
        id::Owner,
        request::{Request, RequestError},
        user::UserChange,
    },
};

pub async fn route(api: &Api, mut call: Call, name: Owner) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => show(api, &call, name),
        Method::PUT => {
            if !origin(&call).admin {
                return Err(RequestError::Forbidden.into());
            }
            let quota = auth::quota(&call.json().await?)?;
            let change = UserChange { quota: Some(quota), ..UserChange::default() };
            submit(api, &call, Request::PutUser { name: name.clone(), change }).await?;
            show(api, &call, name)
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT])),
    }
}

/// A user without a record has no limit, and may have something.
fn show(api: &Api, call: &Call, name: Owner) -> ApiResult {
    let seen = seen(api, call);
    let used = seen.usage_of(&name).ok_or_else(|| ApiError::from(RequestError::NoUser(name.clone())))?;
    let quota = seen.user(&name).map(|user| user.quota.clone()).unwrap_or_default();
    Ok(answer::ok(&json!({ "user": name, "quota": quota, "used": usage(used) })))
}

fn usage(used: Usage) -> Value {
    let thousandths =
        |amount: u128| if amount.is_multiple_of(1000) { json!((amount / 1000) as u64) } else { json!(amount as f64 / 1000.0) };
    json!({
        "cpus": thousandths(used.cpus),
        "mem": thousandths(used.mem),
        "brick": used.brick as u64,
        "ports": used.ports,
        "instances": used.instances,
    })
}
