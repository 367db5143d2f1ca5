//! `/v2/auth`: who one is, tokens, and the users. Ours, Marathon has nothing like it.
//!
//! `POST token` (Basic) answers `{"token", "user", "admin", "expires"}`; `GET whoami` `{"user", "admin"}`; `GET users` `{"users": [...]}`;
//! `GET`, `PUT` and `DELETE users/{name}`. Users are administrators' business: others see themselves, and change their own password, for which
//! they present the one they have (a token that was stolen cannot take a user over).

use serde_json::{Map, Value, json};
use warp::http::{Method, StatusCode};

use super::{reads_only, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        identity::{self, By},
    },
    auth::password,
    model::{
        id::Owner,
        request::{Request, RequestError, Violation},
        resources::Scalar,
        time::Timestamp,
        user::{Grants, Quota, User, UserChange},
    },
};

/// `POST /v2/auth/token`. The one route, besides `/ping`, that finds out by itself who asks.
pub async fn token(api: &Api, call: &Call) -> ApiResult {
    if call.method != Method::POST {
        return Err(ApiError::method(&[Method::POST]));
    }
    let known = api.identity.login(call.peer.as_ref().map(|peer| &peer.source), &call.headers, &api.access).await?;
    let (token, expires) = api.identity.gate().grant(&known);
    let expires = Timestamp(expires.saturating_mul(1000));
    Ok(answer::ok(&json!({ "token": token, "user": known.user, "admin": known.admin, "expires": expires })))
}

pub async fn route(api: &Api, mut call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (_, ["whoami"]) => {
            reads_only(&call)?;
            let origin = identity::origin(&call);
            Ok(answer::ok(&json!({ "user": origin.user, "admin": origin.admin })))
        }
        (&Method::GET | &Method::HEAD, ["users"]) => {
            if !identity::origin(&call).admin {
                return Err(RequestError::Forbidden.into());
            }
            let users: Vec<_> = seen(api, &call).users().map(|user| shown(user)).collect();
            Ok(answer::ok(&json!({ "users": users })))
        }
        (_, ["users"]) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::GET | &Method::HEAD, ["users", name]) => one(api, &call, &Owner::new(*name)),
        (&Method::PUT, ["users", name]) => {
            let body = call.json().await?;
            put(api, &call, Owner::new(*name), &body).await
        }
        (&Method::DELETE, ["users", name]) => {
            submit(api, &call, Request::RemoveUser { name: Owner::new(*name) }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, ["users", _]) => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])),
        (_, ["users", name, "quota"]) => super::quota::route(api, call, Owner::new(*name)).await,
        _ => Err(ApiError::no_route()),
    }
}

/// A quota by itself.
///
/// # Errors
/// 422 that names each field which is unknown or of a wrong type.
pub fn quota(body: &Value) -> Result<Quota, ApiError> {
    let mut reader = Reader::default();
    let quota = reader.quota("", body);
    reader.done().map(|()| quota)
}

fn one(api: &Api, call: &Call, name: &Owner) -> ApiResult {
    let seen = seen(api, call);
    seen.user(name).map(|user| answer::ok(&shown(user))).ok_or_else(|| RequestError::NoUser(name.clone()).into())
}

/// Nothing is hashed for who may not ask for it.
async fn put(api: &Api, call: &Call, name: Owner, body: &Value) -> ApiResult {
    let origin = identity::origin(call);
    if !origin.admin && origin.user != name {
        return Err(RequestError::Forbidden.into());
    }
    if !origin.admin && call.who.as_ref().is_some_and(|who| who.by == By::Token) {
        let message = "a token does not change a password; present the password you have";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let (mut change, password) = change(body)?;
    if let Some(password) = password {
        change.password = Some(api.identity.gate().hash(password).await.map_err(|busy| ApiError::unavailable(busy.to_string()))?);
    }
    submit(api, call, Request::PutUser { name: name.clone(), change }).await?;
    one(api, call, &name)
}

/// A user for the API: whether there is a password, and never what is kept of it.
fn shown(user: &User) -> Value {
    let User { name, password, admin, locked, monitor, generation: _, quota, grants, created_at } = user;
    json!({
        "name": name,
        "admin": admin,
        "locked": locked,
        "monitor": monitor,
        "password": password.is_some(),
        "quota": quota,
        "grants": {
            "privileged": grants.privileged,
            "dockerParameters": grants.docker_parameters,
            "hostVolumes": grants.host_volumes,
        },
        "createdAt": created_at,
    })
}

/// What a body asks for, and the new password in it.
///
/// # Errors
/// 422 that names each field which is unknown or of a wrong type.
fn change(body: &Value) -> Result<(UserChange, Option<String>), ApiError> {
    let mut reader = Reader::default();
    let mut change = UserChange::default();
    let mut password = None;
    for (key, value) in reader.object("", body) {
        match key.as_str() {
            "password" => password = reader.password(value),
            "admin" => change.admin = reader.flag("/admin", value),
            "locked" => change.locked = reader.flag("/locked", value),
            "monitor" => change.monitor = reader.flag("/monitor", value),
            "quota" => change.quota = Some(reader.quota("/quota", value)),
            "grants" => change.grants = Some(reader.grants(value)),
            other => reader.complain(&format!("/{other}"), "is none of password, admin, locked, monitor, quota, grants"),
        }
    }
    reader.done().map(|()| (change, password))
}

#[derive(Default)]
struct Reader(Vec<Violation>);

impl Reader {
    fn complain(&mut self, path: &str, text: &str) {
        self.0.push(Violation::new(path, text));
    }

    fn done(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::unreadable(&self.0)) }
    }

    fn object<'a>(&mut self, path: &str, value: &'a Value) -> Vec<(&'a String, &'a Value)> {
        let fields: Option<&Map<String, Value>> = value.as_object();
        if fields.is_none() {
            self.complain(if path.is_empty() { "/" } else { path }, "error.expected.jsobject");
        }
        fields.into_iter().flatten().collect()
    }

    fn flag(&mut self, path: &str, value: &Value) -> Option<bool> {
        let flag = value.as_bool();
        if flag.is_none() {
            self.complain(path, "error.expected.jsboolean");
        }
        flag
    }

    fn password(&mut self, value: &Value) -> Option<String> {
        let Some(text) = value.as_str() else {
            self.complain("/password", "error.expected.jsstring");
            return None;
        };
        if let Err(error) = password::check(text) {
            self.complain("/password", &error.to_string());
        }
        Some(text.to_owned())
    }

    /// `null` is no limit.
    fn quota(&mut self, at: &str, value: &Value) -> Quota {
        let mut quota = Quota::default();
        for (key, value) in self.object(at, value).into_iter().filter(|(_, value)| !value.is_null()) {
            let path = format!("{at}/{key}");
            match key.as_str() {
                "cpus" => quota.cpus = self.amount(&path, value),
                "mem" => quota.mem = self.amount(&path, value),
                "brick" => quota.brick = self.count(&path, value),
                "ports" => quota.ports = self.count(&path, value).and_then(|count| self.small(&path, count)),
                "instances" => quota.instances = self.count(&path, value).and_then(|count| self.small(&path, count)),
                _ => self.complain(&path, "is none of cpus, mem, brick, ports, instances"),
            }
        }
        quota
    }

    fn grants(&mut self, value: &Value) -> Grants {
        let mut grants = Grants::default();
        for (key, value) in self.object("/grants", value) {
            let path = format!("/grants/{key}");
            let flag = self.flag(&path, value).unwrap_or_default();
            match key.as_str() {
                "privileged" => grants.privileged = flag,
                "dockerParameters" | "docker_parameters" => grants.docker_parameters = flag,
                "hostVolumes" | "host_volumes" => grants.host_volumes = flag,
                _ => self.complain(&path, "is none of privileged, dockerParameters, hostVolumes"),
            }
        }
        grants
    }

    fn amount(&mut self, path: &str, value: &Value) -> Option<Scalar> {
        let amount = value.as_f64().filter(|amount| (0.0..1e12).contains(amount));
        if amount.is_none() {
            self.complain(path, "must be a number, not negative");
        }
        amount.map(Scalar::from_f64)
    }

    fn count(&mut self, path: &str, value: &Value) -> Option<u64> {
        let count = value.as_u64();
        if count.is_none() {
            self.complain(path, "must be a whole number, not negative");
        }
        count
    }

    fn small(&mut self, path: &str, count: u64) -> Option<u32> {
        let small = u32::try_from(count).ok();
        if small.is_none() {
            self.complain(path, "is too large");
        }
        small
    }
}

#[cfg(test)]
mod tests;
