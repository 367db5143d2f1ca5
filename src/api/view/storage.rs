//! Claimed ports and bricks. Ours; Marathon has neither.

use serde_json::{Value, json};

use crate::{
    api::access::Seen,
    model::{
        brick::Brick,
        id::AgentId,
        port::{PortClaim, Position},
    },
};

/// One claim. `source` and `index` say which `@PORT` of the app it is: `env` 1 is `@PORT1`.
pub fn port(seen: &Seen, claim: &PortClaim) -> Value {
    let (source, index) = match claim.position {
        Position::Env(index) => ("env", index),
        Position::PortDefinition(index) => ("portDefinition", index),
        Position::PortMapping(index) => ("portMapping", index),
    };
    json!({
        "port": claim.port,
        "app": claim.app,
        "source": source,
        "index": index,
        "owner": claim.owner,
        "createdAt": claim.created_at,
        "appExists": seen.app_exists(&claim.app),
    })
}

/// One brick; sizes in MiB. `holder` is the one task that may have it mounted, `home` the node that has the data, `stuck` why a release does not
/// come to its end, `condemned` that it was released for good and its data is being deleted.
pub fn brick(seen: &Seen, brick: &Brick) -> Value {
    let mut fields = json!({
        "name": brick.name,
        "app": brick.app,
        "appExists": seen.app_exists(&brick.app),
        "containerPath": brick.container_path,
        "size": brick.size,
        "fileSystem": brick.file_system.as_str(),
        "pool": brick.pool,
        "owner": brick.owner,
        "createdAt": brick.created_at,
        "epoch": brick.epoch,
    });
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| fields[name] = value);
    let usage = seen.brick_usage(&brick.name);
    set("used", usage.and_then(|usage| usage.used).map(Value::from));
    set("fileSystemSize", usage.and_then(|usage| usage.size).map(Value::from));
    set("stuck", usage.and_then(|usage| usage.stuck.as_deref()).map(Value::from));
    set("condemned", brick.condemned.then_some(Value::Bool(true)));
    set("lastMounted", brick.last_mounted.map(|at| json!(at)));
    set("home", brick.home.as_ref().map(|agent| node(seen, agent)));
    set(
        "holder",
        brick.lease.as_ref().map(|lease| {
            let mut holder = node(seen, &lease.agent);
            holder["task"] = json!(lease.task);
            holder["instance"] = json!(lease.task.instance);
            holder["epoch"] = json!(lease.epoch);
            holder
        }),
    );
    fields
}

fn node(seen: &Seen, agent: &AgentId) -> Value {
    let mut fields = json!({ "agent": agent });
    if let Some(known) = seen.agent(agent) {
        fields["host"] = json!(known.host);
    }
    fields
}
