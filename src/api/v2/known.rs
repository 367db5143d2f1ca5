//! The one way from a name in a path to a task or a brick that is more than looked at: what is not there and what whoever asks may not know of are
//! the same 404.

use std::sync::Arc;

use super::seen;
use crate::{
    api::{Api, access::Seen, call::Call, error::ApiError},
    model::{
        brick::Brick,
        id::{AgentId, BrickName, TaskId},
        instance::Instance,
        pod::is_name,
        request::RequestError,
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
    /// True when it is in the records, which say whose it is. Of others the node knows whose they were, and whether anything is left of them.
    pub recorded: bool,
}

/// The task with this id. One that has ended is known as long as its app is, and to administrators for ever. That does not make it the caller's: the
/// app's id may have been somebody else's before.
///
/// # Errors
/// 404.
pub fn task(api: &Api, call: &Call, text: &str) -> Result<KnownTask, ApiError> {
    let unknown = || ApiError::from(RequestError::NoTask(text.to_owned()));
    let id: TaskId = text.parse().map_err(|_| unknown())?;
    let seen = seen(api, call);
    // A name that no container can have is no task's: it could be a path.
    if id.container.as_deref().is_some_and(|name| !is_name(name)) || !seen.sees_app(id.instance.app()) {
        return Err(unknown());
    }
    // Only pods have containers with names, and all of theirs have one.
    if seen.spec(id.instance.app()).is_some_and(|app| app.pod.is_some() != id.container.is_some()) {
        return Err(unknown());
    }
    let current = current(&seen, &id);
    let agent = current.and_then(|instance| instance.placement.as_ref()).map(|placement| placement.agent.clone());
    Ok(KnownTask { agent, recorded: current.is_some(), id })
}

/// The brick with this name.
///
/// # Errors
/// 404.
pub fn brick(api: &Api, call: &Call, name: &str) -> Result<Arc<Brick>, ApiError> {
    let name = BrickName::new(name);
    seen(api, call).brick(&name).cloned().ok_or_else(|| RequestError::NoBrick(name).into())
}

/// True while the task may still write something.
pub fn is_live(seen: &Seen, task: &TaskId) -> bool {
    current(seen, task).is_some_and(|instance| instance.condition.is_live())
}

/// Whom to ask.
///
/// # Errors
/// 503: this server knows no nodes.
pub fn nodes(api: &Api) -> Result<Arc<dyn NodeAccess>, ApiError> {
    api.nodes.clone().ok_or_else(|| ApiError::unavailable("no node can be asked"))
}

fn current<'a>(seen: &'a Seen, task: &TaskId) -> Option<&'a Arc<Instance>> {
    let found = seen.instance(&task.instance).filter(|instance| instance.incarnation == task.incarnation)?;
    let app = seen.definition_of(found)?;
    app.containers().any(|name| name == task.container.as_deref()).then_some(found)
}
