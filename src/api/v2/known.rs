//! The one way from a name in a path to a task or a brick that is more than looked at: what is not there and what whoever asks may not know of are
//! the same 404.

use std::sync::Arc;

use crate::{
    api::{Api, call::Call, error::ApiError, identity},
    core::state::Tables,
    model::{
        brick::Brick,
        id::{AgentId, BrickName, Owner, TaskId},
        instance::Instance,
        request::{Origin, RequestError},
    },
    runtime::node::NodeAccess,
};

/// A task, living or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTask {
    /// Its id.
    pub id: TaskId,
    /// Its node, as long as it is in the records.
    pub agent: Option<AgentId>,
}

/// The task with this id. One that has ended is known as long as its app is, and to administrators for ever: whether anything is left of it, its node
/// knows.
///
/// # Errors
/// 404.
pub fn task(api: &Api, call: &Call, text: &str) -> Result<KnownTask, ApiError> {
    let unknown = || ApiError::from(RequestError::NoTask(text.to_owned()));
    let id: TaskId = text.parse().map_err(|_| unknown())?;
    let tables = &api.handle.view().tables;
    let owner = tables.apps.get(id.instance.app()).map(|app| &app.owner);
    // Pods have containers with names of their own; there are none yet, and a name is no path.
    if id.container.is_some() || !may_know(&identity::origin(call), owner) {
        return Err(unknown());
    }
    let agent = current(tables, &id).and_then(|instance| instance.placement.as_ref()).map(|placement| placement.agent.clone());
    Ok(KnownTask { id, agent })
}

/// The brick with this name.
///
/// # Errors
/// 404.
pub fn brick(api: &Api, call: &Call, name: &str) -> Result<Arc<Brick>, ApiError> {
    let name = BrickName::new(name);
    let brick = api.handle.view().tables.bricks.get(&name).cloned();
    brick.filter(|brick| may_know(&identity::origin(call), Some(&brick.owner))).ok_or_else(|| RequestError::NoBrick(name).into())
}

/// True while the task may still write something.
pub fn is_live(tables: &Tables, task: &TaskId) -> bool {
    current(tables, task).is_some_and(|instance| instance.condition.is_live())
}

/// Whom to ask.
///
/// # Errors
/// 503: this server knows no nodes.
pub fn nodes(api: &Api) -> Result<Arc<dyn NodeAccess>, ApiError> {
    api.nodes.clone().ok_or_else(|| ApiError::unavailable("no node can be asked"))
}

fn current<'a>(tables: &'a Tables, task: &TaskId) -> Option<&'a Arc<Instance>> {
    tables.instances.get(&task.instance).filter(|instance| instance.incarnation == task.incarnation)
}

fn may_know(origin: &Origin, owner: Option<&Owner>) -> bool {
    origin.admin || owner == Some(&origin.user)
}
