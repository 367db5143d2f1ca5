//! Pods: what a request about one does, and what becomes of an instance when one of its containers changes.
//!
//! Facts (Marathon 1.11): an instance of a pod has a task for each container, all launched at once. Its condition is the first one in a fixed order
//! that any of its tasks has. When a task fails or is killed, Mesos' executor ends the others; one that finishes leaves them alone.
//!
//! Here an instance lives as long as any of its containers does: what has failed shows as `Killing` until the rest has ended too, because only then is
//! everything that it held free.

use std::sync::Arc;

use super::{
    instance::{Outcome, transition},
    ownership::{self, Source},
    request::{self, Draft},
    turn::Turn,
};
use crate::model::{
    app::App,
    cluster::TaskStatus,
    event::{Fact, PodChange},
    id::PathId,
    instance::{Condition, ContainerState, Instance},
    pod::input::PodInput,
    request::{Origin, Reply, RequestError, Violation},
};

/// An app and a pod want to be at the same place.
pub(super) fn same_id() -> RequestError {
    RequestError::Invalid(vec![Violation::new("/", "Applications and Pods may not share the same id")])
}

// === requests ===

pub(super) fn create(turn: &mut Turn<'_, '_>, origin: &Origin, input: &PodInput, force: bool) -> Result<Reply, RequestError> {
    let id = input.path().map_err(RequestError::Invalid)?;
    if turn.state.tables.apps.contains_key(&id) {
        return Err(if ownership::app(turn, origin, &id).is_ok() { same_id() } else { RequestError::PodExists(id) });
    }
    write(turn, origin, &id, input, force, PodChange::Created)
}

pub(super) fn update(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, input: &PodInput, force: bool) -> Result<Reply, RequestError> {
    write(turn, origin, id, input, force, PodChange::Updated)
}

fn write(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    id: &PathId,
    input: &PodInput,
    force: bool,
    change: PodChange,
) -> Result<Reply, RequestError> {
    if ownership::spec(turn, origin, id).is_err() {
        ownership::check_free(turn, origin, id).map_err(|_| RequestError::PodExists(id.clone()))?;
    }
    let mut draft = Draft::new(turn, id.parent());
    let app = input.complete(id, &draft.defaults(turn, id)).map_err(RequestError::Invalid)?;
    request::prepare(turn, origin, app, Source::Written, &mut draft)?;
    let reply = request::deploy(turn, origin, draft, force)?;
    tell(turn, origin, id, change);
    Ok(reply)
}

pub(super) fn delete(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    ownership::pod(turn, origin, id)?;
    let reply = request::delete(turn, origin, id, force)?;
    tell(turn, origin, id, PodChange::Deleted);
    Ok(reply)
}

fn tell(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, change: PodChange) {
    let (client_ip, uri) = (origin.client_ip.clone(), origin.uri.clone());
    turn.event(Some(id), Fact::Pod { change, client_ip, uri });
}

// === containers ===

/// What the news of one container mean for its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    Keep,
    /// This task should not exist: it is killed, the instance stays as it is.
    Kill,
    /// The container is further, the instance is where it was.
    Inside(Vec<ContainerState>),
    /// The instance is now in this condition, too.
    Become(Condition, Vec<ContainerState>),
}

/// The containers of an instance that is being launched.
pub(super) fn launched(app: &App) -> Vec<ContainerState> {
    let count = app.pod.as_ref().map_or(0, |pod| pod.containers.len());
    vec![ContainerState { condition: Condition::Provisioned, started_at: None }; count]
}

/// The container at `place` is said to be in the condition `told`.
pub(super) fn news(instance: &Instance, place: usize, told: Condition, at: crate::model::time::Timestamp) -> News {
    let mut containers = instance.containers.clone();
    let Some(container) = containers.get_mut(place) else {
        // It waits for its next launch: what lives of the last one is killed, and a kill of what is out of reach or over would only bring the same
        // news again.
        return if transition(Condition::Scheduled, told) == Outcome::Kill { News::Kill } else { News::Keep };
    };
    match transition(container.condition, told) {
        Outcome::Keep => return News::Keep,
        Outcome::Kill => return News::Kill,
        Outcome::Become(next) => container.condition = next,
    }
    if told == Condition::Running {
        container.started_at.get_or_insert(at);
    }
    let whole = whole(&containers);
    match transition(instance.condition, whole) {
        Outcome::Become(next) => News::Become(next, containers),
        Outcome::Keep | Outcome::Kill => News::Inside(containers),
    }
}

/// The event of a container's status: with its own ports.
pub(super) fn status_update(app: &App, instance: &Arc<Instance>, place: usize, status: &TaskStatus) -> Fact {
    let mut shown = (**instance).clone();
    if let (Some(placement), Some(pod)) = (&mut shown.placement, &app.pod) {
        let all = app.host_ports_by_endpoint(&placement.ports);
        placement.ports = pod.ports_of(place).filter_map(|at| *all.get(at)?).collect();
    }
    Fact::StatusUpdate { status: status.clone().into(), instance: shown.into() }
}

/// Marathon's order: the condition of an instance is the first of these that any of its containers has.
const ORDER: [Condition; 13] = [
    Condition::Error,
    Condition::Failed,
    Condition::Gone,
    Condition::Dropped,
    Condition::Unreachable,
    Condition::Killing,
    Condition::Starting,
    Condition::Staging,
    Condition::Unknown,
    Condition::Provisioned,
    Condition::Running,
    Condition::Finished,
    Condition::Killed,
];

/// The condition of all containers together.
fn whole(containers: &[ContainerState]) -> Condition {
    let conditions = || containers.iter().map(|container| container.condition);
    let first = |test: &dyn Fn(Condition) -> bool| ORDER.into_iter().find(|one| test(*one) && conditions().any(|found| found == *one));
    if conditions().all(Condition::is_terminal) {
        return first(&|_| true).unwrap_or(Condition::Unknown);
    }
    let lost = first(&|one| matches!(one, Condition::Unreachable | Condition::Unknown));
    let broken = conditions().any(|one| one.is_terminal() && one != Condition::Finished);
    match lost {
        Some(lost) => lost,
        None if broken => Condition::Killing,
        None => first(&|one| !one.is_terminal()).unwrap_or(Condition::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(conditions: &[Condition]) -> Vec<ContainerState> {
        conditions.iter().map(|condition| ContainerState { condition: *condition, started_at: None }).collect()
    }

    #[test]
    fn an_instance_is_what_its_containers_are_together() {
        use Condition::*;
        let check = |conditions: &[Condition], expected: Condition| {
            assert_eq!(whole(&states(conditions)), expected, "{conditions:?}");
            let turned: Vec<Condition> = conditions.iter().rev().copied().collect();
            assert_eq!(whole(&states(&turned)), expected, "{turned:?}");
        };
        check(&[Provisioned, Provisioned], Provisioned);
        check(&[Staging, Provisioned], Staging);
        check(&[Starting, Staging], Starting);
        check(&[Running, Provisioned], Provisioned);
        check(&[Running, Staging], Staging);
        check(&[Running, Running], Running);
        check(&[Running, Finished], Running);
        check(&[Finished, Finished], Finished);
        check(&[Running, Failed], Killing);
        check(&[Running, Killed], Killing);
        check(&[Staging, Error], Killing);
        check(&[Killing, Failed], Killing);
        check(&[Killed, Failed], Failed);
        check(&[Killed, Killed], Killed);
        check(&[Killed, Finished], Finished);
        check(&[Error, Failed], Error);
        check(&[Running, Unreachable], Unreachable);
        check(&[Failed, Unreachable], Unreachable);
        check(&[Finished, Unreachable], Unreachable);
        check(&[Running, Unknown], Unknown);
    }
}
